"""Which events are evaluated together in a round: chains of events, cut into batches; it never changes the result."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from walras.parallel.strategies import run_starts

WIDE_COST = 5.0  # of a level, over a narrow batch's: most of either is the call, not the rows (measured)
NEVER = np.iinfo(np.int32).max  # position beyond the end of any chain


@dataclass(frozen=True)
class ProcessChains:
    """The events of a window, sorted into chains: the events of one process with one key, in time.

    Attributes:
        order: the events, chain by chain.
        chain, position: number of the chain and of its earlier events, for every place of `order`.
        key_order: the events, key by key.
        key_start: first place of the same key, for every place of `key_order`.
    """

    order: Int[ndarray, " event"]
    chain: Int[ndarray, " event"]
    position: Int[ndarray, " event"]
    key_order: Int[ndarray, " event"]
    key_start: Int[ndarray, " event"]


def group_by_process(keys: Int[ndarray, " event"], processes: Int[ndarray, " event"]) -> ProcessChains:
    """Sort the events of a window into chains."""
    n = len(keys)
    order = key_order = np.argsort(keys, kind="stable").astype(np.int32)
    starts = key_starts = run_starts(keys[key_order])
    if processes is not keys:
        order = np.lexsort((processes, keys)).astype(np.int32)  # stable, so in time within a chain
        starts = run_starts(keys[order], processes[order])
    lengths, key_lengths = np.diff(np.r_[starts, n]), np.diff(np.r_[key_starts, n])
    chain = np.repeat(np.arange(len(starts), dtype=np.int32), lengths)
    position = (np.arange(n) - np.repeat(starts, lengths)).astype(np.int32)
    return ProcessChains(order, chain, position, key_order, np.repeat(key_starts, key_lengths))


@dataclass(frozen=True)
class Batches:
    """The evaluations of one round. A batch is a group of chains that are evaluated side by side, level by level.

    Attributes:
        events: all events to evaluate, level by level.
        level_start, level_count: where a level begins in `events`, and its events: one of each chain that is that long.
        batch_level, batch_depth: first level of a batch, and number of its levels.
        n_narrow: number of narrow batches; wide ones follow.
    """

    events: Int[ndarray, " listed"]
    level_start: Int[ndarray, " level"]
    level_count: Int[ndarray, " level"]
    batch_level: Int[ndarray, " batch"]
    batch_depth: Int[ndarray, " batch"]
    n_narrow: int

    @property
    def serial_steps(self) -> int:
        """Return how many evaluations wait for each other, if all batches run side by side."""
        return int(self.batch_depth.max(initial=0))

    def rows(self, wide: int, narrow: int) -> int:
        """Return the number of evaluated rows, with padding."""
        narrow_levels = int(self.batch_depth[: self.n_narrow].sum())
        return narrow_levels * narrow + (len(self.level_start) - narrow_levels) * wide


def plan_batches(chains: ProcessChains, invalid: Bool[ndarray, " event"], wide: int, narrow: int) -> Batches:
    """Schedule every chain from its first invalid event to its end, in batches of `wide` or `narrow` chains."""
    n_chains = int(chains.chain[-1]) + 1
    # Later events of a chain build on earlier ones: all from the first invalid one on are evaluated again.
    places = np.flatnonzero(invalid[chains.order])
    first = places[run_starts(chains.chain[places])]
    resume = np.full(n_chains, NEVER, np.int32)
    resume[chains.chain[first]] = chains.position[first]
    listed = np.flatnonzero(chains.position >= resume[chains.chain])
    chain = chains.chain[listed]
    step = chains.position[listed] - resume[chain]

    # Longest chains first, so that the chains of a batch are about equally long.
    lengths = np.bincount(chain, minlength=n_chains)
    by_length = np.argsort(-lengths, kind="stable")
    rank = np.empty(n_chains, np.int32)
    rank[by_length] = np.arange(n_chains, dtype=np.int32)
    lengths = lengths[by_length][: np.count_nonzero(lengths)]
    n_narrow, batch_rank = _cut_batches(lengths, wide, narrow)
    depth = lengths[batch_rank]  # of the batch's first chain, its longest
    batch_level = np.cumsum(depth) - depth

    # A level holds one event of each chain that is long enough. These are the batch's first chains, so a chain's row
    # is its rank within the batch.
    batch = np.searchsorted(batch_rank, rank[chain], side="right") - 1
    level = batch_level[batch] + step
    level_count = np.bincount(level, minlength=int(depth.sum()))
    level_start = np.cumsum(level_count) - level_count
    events = np.empty(len(listed), np.int32)
    events[level_start[level] + rank[chain] - batch_rank[batch]] = chains.order[listed]
    return Batches(events, level_start, level_count, batch_level, depth, n_narrow)


def _cut_batches(lengths: Int[ndarray, " chain"], wide: int, narrow: int) -> tuple[int, Int[ndarray, " batch"]]:
    """Cut chains of falling length into narrow, then wide batches; return how many are narrow, and all first ranks."""
    wide_first = np.arange(0, len(lengths), wide)
    if wide == narrow:
        return 0, wide_first
    narrow_first = np.arange(0, len(lengths), narrow)
    per_wide = wide // narrow
    # Cost if the first 0, 1, ... wide batches are cut into narrow ones.
    as_narrow = np.r_[0, np.add.reduceat(lengths[narrow_first], np.arange(0, len(narrow_first), per_wide))]
    as_wide = np.r_[np.cumsum((WIDE_COST * lengths[wide_first])[::-1])[::-1], 0]
    best = int(np.argmin(np.cumsum(as_narrow) + as_wide))
    leading = narrow_first[: best * per_wide]
    return len(leading), np.r_[leading, wide_first[best:]]
