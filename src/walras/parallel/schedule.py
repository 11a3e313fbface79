"""Which events are evaluated together in a round: chains of events, cut into batches; it never changes the result."""

import jax
import numpy as np
from jaxtyping import Array, Bool, Int
from numpy import ndarray

from walras.parallel.strategies import run_starts

WIDE_COST = 5.0  # of a level, over a narrow batch's: most of either is the call, not the rows (measured)
NEVER = np.iinfo(np.int32).max  # position beyond the end of any chain


class ProcessChains:
    """The events of a window, sorted into chains: the events of one process with one key, in time.

    Attributes:
        order: the events, chain by chain.
        chain, position: number of the chain and of its earlier events, for every place of `order`.
        key_order: the events, key by key.
        key_start: first place of the same key, for every place of `key_order`.
    """

    def __init__(self, keys: Int[ndarray, " event"], processes: Int[ndarray, " event"]):
        n = len(keys)
        self.order = self.key_order = np.argsort(keys, kind="stable").astype(np.int32)
        starts = key_starts = run_starts(keys[self.key_order])
        if processes is not keys:
            self.order = np.lexsort((processes, keys)).astype(np.int32)  # stable, so in time within a chain
            starts = run_starts(keys[self.order], processes[self.order])
        lengths = np.diff(np.r_[starts, n])
        self.chain = np.repeat(np.arange(len(starts), dtype=np.int32), lengths)
        self.position = (np.arange(n) - np.repeat(starts, lengths)).astype(np.int32)
        self.key_start = np.repeat(key_starts, np.diff(np.r_[key_starts, n]))


class Batches:
    """The evaluations of one round: every chain from its first invalid event to its end.

    A batch is a group of `wide` or `narrow` chains that are evaluated side by side, level by level.

    Attributes:
        events: all events to evaluate, level by level.
        level_start, level_count: where a level begins in `events`, and its events: one of each chain that is that long.
        batch_level, batch_depth: first level of a batch, and number of its levels.
        n_narrow: number of narrow batches; wide ones follow.
        n_rows: all rows that are evaluated, with padding.
    """

    def __init__(self, chains: ProcessChains, invalid: Bool[ndarray, " event"], wide: int, narrow: int):
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
        self.n_narrow, batch_rank = _cut_batches(lengths, wide, narrow)
        self.batch_depth = depth = lengths[batch_rank]  # of the batch's first chain, its longest
        self.batch_level = np.cumsum(depth) - depth

        # A level holds one event of each chain that is long enough. These are the batch's first chains, so a chain's
        # row is its rank within the batch.
        batch = np.searchsorted(batch_rank, rank[chain], side="right") - 1
        level = self.batch_level[batch] + step
        self.level_count = np.bincount(level, minlength=int(depth.sum()))
        self.level_start = np.cumsum(self.level_count) - self.level_count
        self.events = np.empty(len(listed), np.int32)
        self.events[self.level_start[level] + rank[chain] - batch_rank[batch]] = chains.order[listed]
        self.n_rows = int(depth[: self.n_narrow].sum()) * narrow + int(depth[self.n_narrow :].sum()) * wide

    def to_device(self, length: int, padding: int) -> tuple[Int[Array, "five listed"], Array, Array]:
        """Send all to the device at once: the arrays as rows of `length`, the narrow batches and all batches.

        `padding` is an event number beyond the window.
        """
        lists = np.zeros((5, length), np.int32)
        lists[0] = padding
        parts = (self.events, self.level_start, self.level_count, self.batch_level, self.batch_depth)
        for row, part in zip(lists, parts, strict=True):
            row[: len(part)] = part
        return jax.device_put((lists, np.int32(self.n_narrow), np.int32(len(self.batch_level))))


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
