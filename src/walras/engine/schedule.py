"""Own the order of a walk: which events of which process are evaluated together, tile by tile.

FREE: plain index arithmetic on the host; the result of a walk does not depend on it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

WIDE_COST = 5.0
"""What a level of a wide tile costs, over one of a narrow tile: most of either is the call, not the rows."""


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
    """List what one walk evaluates: tiles of lanes, and for every tile its levels one after the other.

    Lanes are ranked by how many events they have left, so that those of a tile are about equally long. A level of a
    tile holds the next event of every lane of it that has one. `events` are in that order; `start` and `count` say for
    every level where its events begin and how many there are, `first` and `depth` for every tile which levels are its
    own. The first `narrow` tiles are for the small shape, the others for the large one.
    """

    events: Int[ndarray, " walked"]
    start: Int[ndarray, " level"]
    count: Int[ndarray, " level"]
    first: Int[ndarray, " tile"]
    depth: Int[ndarray, " tile"]
    narrow: int

    @property
    def levels(self) -> int:
        """Return how many evaluations wait for each other, if all tiles run side by side."""
        return int(self.depth.max(initial=0))

    def rows(self, wide: int, narrow: int) -> int:
        """Count the rows that are evaluated, with the empty ones."""
        small = int(self.depth[: self.narrow].sum())
        return small * narrow + (len(self.start) - small) * wide


def plan_walk(lanes: Lanes, broken: Bool[ndarray, " event"], wide: int, narrow: int) -> Walk:
    """Walk every lane from its first broken event to its end.

    Args:
        lanes: the line-up.
        broken: events whose decision is not certain, in the order of time.
        wide: lanes of a large tile.
        narrow: lanes of a small one, for the longest lanes.
    """
    at = np.flatnonzero(broken[lanes.order])
    lane = lanes.lane[at]
    new = np.r_[True, lane[1:] != lane[:-1]] if len(at) else np.zeros(0, bool)
    first = np.full(int(lanes.lane[-1]) + 1, np.iinfo(np.int32).max, np.int32)
    first[lane[new]] = lanes.place[at[new]]
    chosen = np.flatnonzero(lanes.place >= first[lanes.lane])
    lane = lanes.lane[chosen]
    lengths = np.bincount(lane, minlength=len(first))
    ranked = np.argsort(-lengths, kind="stable")
    rank = np.empty(len(first), np.int32)
    rank[ranked] = np.arange(len(first), dtype=np.int32)
    lengths = lengths[ranked][: int(np.count_nonzero(lengths))]
    small, heads = _cut_tiles(lengths, wide, narrow)
    depth = lengths[heads]
    level_of_tile = np.cumsum(depth) - depth
    tile = np.searchsorted(heads, rank[lane], side="right") - 1
    level = level_of_tile[tile] + lanes.place[chosen] - first[lane]
    count = np.bincount(level, minlength=int(depth.sum()))
    start = np.cumsum(count) - count
    events = np.empty(len(chosen), np.int32)
    events[start[level] + rank[lane] - heads[tile]] = lanes.order[chosen]
    parts = [part.astype(np.int32) for part in (start, count, level_of_tile, depth)]
    return Walk(events, parts[0], parts[1], parts[2], parts[3], small)


def _cut_tiles(lengths: Int[ndarray, " lane"], wide: int, narrow: int) -> tuple[int, Int[ndarray, " tile"]]:
    """Cut falling lengths into narrow tiles and then wide ones, so that few rows are empty; return the tiles' heads."""
    wide_heads = np.arange(0, len(lengths), wide)
    narrow_heads = np.arange(0, len(lengths), narrow)
    if wide == narrow:
        return 0, wide_heads
    # Work with the first 0, 1, ... wide tiles cut into narrow ones.
    as_narrow = np.r_[0, np.add.reduceat(lengths[narrow_heads], np.arange(0, len(narrow_heads), wide // narrow))]
    as_wide = np.r_[np.cumsum((WIDE_COST * lengths[wide_heads])[::-1])[::-1], 0]
    best = int(np.argmin(np.cumsum(as_narrow) + as_wide))
    small = narrow_heads[: best * (wide // narrow)]
    return len(small), np.r_[small, wide_heads[best:]]
