"""Own the order of a walk: which events of which process are evaluated together, tile by tile.

FREE: plain index arithmetic on the host; the result of a walk does not depend on it.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from walras.errors import InputError, SettingsError

WIDE_COST = 5.0
"""What a level of a wide tile costs, over one of a narrow tile: most of either is the call, not the rows."""


@dataclass(frozen=True)
class ProcessChains:
    """Line the events of a window up: lane by lane (one process and key), in time within a lane.

    `order` lists the events in that line-up, `lane` and `place` say for every place of it which lane it is and how many
    events of the lane come before.
    """

    order: Int[ndarray, " event"]
    lane: Int[ndarray, " event"]
    place: Int[ndarray, " event"]
    chain_order: Int[ndarray, " event"]
    chain_start: Int[ndarray, " event"]


def group_by_process(keys: Int[ndarray, " event"], processes: Int[ndarray, " event"]) -> ProcessChains:
    """Sort events into chains of one key, and these into lanes of one process."""
    chain_order = np.argsort(keys, kind="stable").astype(np.int32)
    chain = _runs(keys[chain_order])
    if processes is keys:
        order, first = chain_order, chain
    else:
        order = np.lexsort((processes, keys)).astype(np.int32)  # stable: time within a lane
        first = _runs(keys[order], processes[order])
    lane = np.cumsum(first == np.arange(len(keys)), dtype=np.int32) - 1
    return ProcessChains(order, lane, (np.arange(len(keys)) - first).astype(np.int32), chain_order, chain)


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
class Batches:
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


def plan_batches(lanes: ProcessChains, broken: Bool[ndarray, " event"], wide: int, narrow: int) -> Batches:
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
    return Batches(events, parts[0], parts[1], parts[2], parts[3], small)


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


class AbstractAssignment(abc.ABC):
    """Give every event of a window to a process; a process takes its events in order and knows its own decisions."""

    @abc.abstractmethod
    def processes(self, keys: Int[ndarray, " event"], first: int) -> Int[ndarray, " event"]:
        """Name the process of every event, by any integers.

        Args:
            keys: the key of every event of the window (the product, say).
            first: number of the window's first event in the whole trajectory.
        """


class ByKey(AbstractAssignment):
    """Give all events of one key to one process: every decision of a chain is based on those before it."""

    def processes(self, keys: Int[ndarray, " event"], first: int) -> Int[ndarray, " event"]:
        """Name processes by the key."""
        return keys


class PerEvent(AbstractAssignment):
    """Give every event a process of its own: fewest serial steps, most guesses."""

    def processes(self, keys: Int[ndarray, " event"], first: int) -> Int[ndarray, " event"]:
        """Name processes by the event."""
        return np.arange(len(keys), dtype=np.int32)


class ChainSegments(AbstractAssignment):
    """Cut the chain of every key into segments of `length` events, so that no process has more.

    Raises:
        SettingsError: the length is no positive whole number.
    """

    def __init__(self, length: int):
        self.length = positive("length", length)

    def processes(self, keys: Int[ndarray, " event"], first: int) -> Int[ndarray, " event"]:
        """Name processes by the key and the number of the segment."""
        place = places_in_chain(keys)
        return (keys.astype(np.int64) * (len(keys) // self.length + 1)) + place // self.length


class RandomAssignment(AbstractAssignment):
    """Give every event to one of `number` processes at random.

    Raises:
        SettingsError: the number is no positive whole number.
    """

    def __init__(self, number: int, seed: int = 0):
        self.number, self.seed = positive("number", number), seed

    def processes(self, keys: Int[ndarray, " event"], first: int) -> Int[ndarray, " event"]:
        """Draw a process for every event; the same event always gets the same one in a window that starts there."""
        return np.random.default_rng((self.seed, first)).integers(self.number, size=len(keys))


class CustomAssignment(AbstractAssignment):
    """Let a function say the process of every event: `function(keys, first) -> integers`."""

    def __init__(self, function: Callable[[ndarray, int], ndarray]):
        self.function = function

    def processes(self, keys: Int[ndarray, " event"], first: int) -> Int[ndarray, " event"]:
        """Ask the function.

        Raises:
            InputError: it does not answer one integer for every event.
        """
        named = np.asarray(self.function(keys, first))
        if named.shape != keys.shape or not np.issubdtype(named.dtype, np.integer):
            raise InputError(
                f"the assignment returned {named.dtype} of shape {named.shape} but needs one integer for each of "
                f"{len(keys)} events; return an array as long as the keys it is given"
            )
        return named


def places_in_chain(keys: Int[ndarray, " event"]) -> Int[ndarray, " event"]:
    """Count, for every event, the earlier events with the same key."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(keys)])
    place = np.empty(len(keys), np.int64)
    place[order] = np.arange(len(keys)) - np.repeat(starts, lengths)
    return place


def positive(name: str, value: object) -> int:
    """Check a whole number of at least one.

    Raises:
        SettingsError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise SettingsError(f"`{name}` is {value!r} but needs to be a whole number of at least 1; give e.g. 64")
    return int(value)
