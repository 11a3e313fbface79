"""Own the order of a walk: which events of which process are evaluated together, tile by tile.

FREE: plain index arithmetic on the host; the result of a walk does not depend on it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray


@dataclass(frozen=True)
class Lanes:
    """Line the events of a window up: lane by lane (one process and key), in time within a lane.

    `order` lists the events in that line-up, `lane` and `place` say for every place of it which lane it is and how many
    events of the lane come before.
    """

    order: Int[ndarray, " event"]
    lane: Int[ndarray, " event"]
    place: Int[ndarray, " event"]
    chain_order: Int[ndarray, " event"]
    chain_start: Int[ndarray, " event"]

    @cached_property
    def split(self) -> bool:
        """Say whether some chain of a key lies in more than one lane."""
        return not np.array_equal(self.order, self.chain_order) or bool(np.any(self.place != self._chain_place))

    @cached_property
    def _chain_place(self) -> Int[ndarray, " event"]:
        return np.arange(len(self.chain_start)) - self.chain_start


def line_up(keys: Int[ndarray, " event"], processes: Int[ndarray, " event"]) -> Lanes:
    """Sort events into chains of one key, and these into lanes of one process."""
    chain_order = np.argsort(keys, kind="stable").astype(np.int32)
    chain = _runs(keys[chain_order])
    if processes is keys:
        order, first = chain_order, chain
    else:
        order = np.lexsort((processes, keys)).astype(np.int32)  # stable: time within a lane
        first = _runs(keys[order], processes[order])
    lane = np.cumsum(first == np.arange(len(keys)), dtype=np.int32) - 1
    return Lanes(order, lane, (np.arange(len(keys)) - first).astype(np.int32), chain_order, chain)


def _runs(*sorted_values: Int[ndarray, " event"]) -> Int[ndarray, " event"]:
    """Return, for every place, the first place of the run of equal values it belongs to."""
    n = len(sorted_values[0])
    new = np.zeros(n, bool)
    new[:1] = True
    for values in sorted_values:
        new[1:] |= values[1:] != values[:-1]
    starts = np.flatnonzero(new).astype(np.int32)
    return np.repeat(starts, np.diff(np.r_[starts, n]))


@dataclass(frozen=True)
class Walk:
    """List what one walk evaluates: `events` level by level, and the tiles they are cut into.

    A level holds the next event of every lane that has one; lanes are ranked by how many events they have left, so every
    level is a prefix of the lanes. `start`, `rank` and `count` of a tile: its first event, lane and how many. The first
    `wide` tiles are for the large shape, the others for the small one.
    """

    events: Int[ndarray, " walked"]
    start: Int[ndarray, " tile"]
    rank: Int[ndarray, " tile"]
    count: Int[ndarray, " tile"]
    wide: int
    levels: int


def plan_walk(lanes: Lanes, broken: Bool[ndarray, " event"], wide: int, narrow: int) -> Walk:
    """Walk every lane from its first broken event to its end.

    Args:
        lanes: the line-up.
        broken: events whose decision is not certain, in the order of time.
        wide: rows of a large tile, for levels with more than `narrow` events.
        narrow: rows of a small one.
    """
    at = np.flatnonzero(broken[lanes.order])
    lane = lanes.lane[at]
    new = np.r_[True, lane[1:] != lane[:-1]] if len(at) else np.zeros(0, bool)
    first = np.full(int(lanes.lane[-1]) + 1, np.iinfo(np.int32).max, np.int32)
    first[lane[new]] = lanes.place[at[new]]
    chosen = np.flatnonzero(lanes.place >= first[lanes.lane])
    level = lanes.place[chosen] - first[lanes.lane[chosen]]
    lengths = np.bincount(lanes.lane[chosen], minlength=len(first))
    ranked = np.argsort(-lengths, kind="stable")
    rank = np.empty(len(first), np.int32)
    rank[ranked] = np.arange(len(first), dtype=np.int32)
    sizes = np.bincount(level)
    offsets = np.r_[0, np.cumsum(sizes)]
    events = np.empty(len(chosen), np.int32)
    events[offsets[level] + rank[lanes.lane[chosen]]] = lanes.order[chosen]
    return Walk(events, *_tiles(sizes, offsets, wide, narrow), len(sizes))


def _tiles(
    sizes: Int[ndarray, " level"], offsets: Int[ndarray, " edge"], wide: int, narrow: int
) -> tuple[ndarray, ndarray, ndarray, int]:
    """Cut every level into tiles; sizes never grow from level to level, so the wide ones come first."""
    rows = np.where(sizes > narrow, wide, narrow)
    pieces = -(-sizes // rows)
    level = np.repeat(np.arange(len(sizes)), pieces)
    number = np.arange(len(level)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    rank = number * rows[level]
    count = np.minimum(rows[level], sizes[level] - rank)
    parts = [part.astype(np.int32) for part in (offsets[level] + rank, rank, count)]
    return parts[0], parts[1], parts[2], int(pieces[sizes > narrow].sum())
