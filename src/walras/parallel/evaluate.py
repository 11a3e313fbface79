"""Own the walk: processes evaluate their own events, level by level, every process knowing its own new decisions.

FREE: tiles have one shape whatever is in them, so that a row's result does not depend on its neighbours.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from walras.parallel.cache import ActionCache
from walras.parallel.process import AdditiveProcess, DecisionProcess, over_events, same_rows
from walras.parallel.schedule import Batches


class PackedBatches(eqx.Module):
    """List what to walk, as a `Batches` does, in one array that is sent at once.

    Rows of `lists` are `events` (numbers beyond the window where there is none), `start`, `count`, `first` and `depth`.
    """

    lists: Int[Array, "five walked"]
    narrow: Int[Array, ""]
    all: Int[Array, ""]

    @staticmethod
    def of(plan: Batches, room: int, beyond: int) -> "PackedBatches":
        """Put a plan into lists of `room` places; events that are none get the number `beyond`."""
        lists = np.zeros((5, room), np.int32)
        lists[0] = beyond
        for row, part in zip(lists, (plan.events, plan.start, plan.count, plan.first, plan.depth), strict=True):
            row[: len(part)] = part
        return PackedBatches(*jax.device_put((lists, np.int32(plan.narrow), np.int32(len(plan.first)))))

    @property
    def events(self) -> Int[Array, " walked"]:
        """Return the events, tile by tile and level by level."""
        return self.lists[0]

    def levels(self, tile: Array) -> tuple[Array, Array]:
        """Return the first level of a tile, and how many it has."""
        return self.lists[3, tile], self.lists[4, tile]

    def level(self, number: Array) -> tuple[Array, Array]:
        """Return where the events of a level begin, and how many there are."""
        return self.lists[1, number], self.lists[2, number]


class Work(eqx.Module):
    """Count evaluations: of `encode`, and of decisions that were not certain to stand."""

    encodes: Int[Array, ""]
    calls: Int[Array, ""]


def evaluate(
    process: DecisionProcess,
    events: PyTree,
    seen: tuple[PyTree, PyTree],
    guess: ActionCache,
    tiles: PackedBatches,
    shapes: tuple[int, int],
    again: bool,
) -> tuple[ActionCache, Work]:
    """Evaluate the listed events of a window.

    Args:
        events: of the window.
        seen: what they observe, own and shared.
        guess: what is known so far.
        tiles: what to walk.
        shapes: rows of a wide and of a narrow tile.
        again: evaluate every listed event, certain or not.
    """
    own, shared = seen
    places = jnp.minimum(jnp.pad(tiles.events, (0, max(shapes))), len(guess.action) - 1)

    def listed(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[places], tree)

    still = (listed(events), listed(own), listed(shared), listed(guess), tiles)
    zero = jnp.zeros((), jnp.int32)
    # What is found goes to arrays of its own that are only written: a compiler copies what is read and written at once.
    found, work = jax.tree.map(jnp.zeros_like, still[3]), Work(zero, zero)
    for rows, first, last in ((shapes[1], zero, tiles.narrow), (shapes[0], tiles.narrow, tiles.all)):
        tile = _Tile(process, rows, again)
        found, work = jax.lax.fori_loop(
            first, last, lambda number, carry, tile=tile: tile(number, still, *carry), (found, work)
        )
    back = jax.tree.map(lambda old, new: old.at[tiles.events].set(new[: len(tiles.events)], mode="drop"), guess, found)
    return back, work


class _Tile(eqx.Module):
    """Evaluate one tile, level by level: the same number of rows whatever is in them."""

    process: DecisionProcess
    rows: int
    again: bool

    def __call__(self, number: Array, still: tuple, found: ActionCache, work: Work) -> tuple[ActionCache, Work]:
        *_, tiles = still
        first, depth = tiles.levels(number)

        def level(step: Array, carry: tuple) -> tuple:
            return self._level(first + step, still, *carry)

        lanes = self._no_corrections(still)
        return jax.lax.fori_loop(0, depth, level, (found, work, lanes))[:2]

    def _no_corrections(self, still: tuple) -> Any:
        """Start all lanes; only states that add up are corrected within a lane, others have one event per lane."""
        if not isinstance(self.process, AdditiveProcess):
            return None
        return tuple(jnp.zeros((self.rows, part.shape[1]), part.dtype) for part in still[1:3])

    def _level(
        self, step: Array, still: tuple, found: ActionCache, work: Work, lanes: Any
    ) -> tuple[ActionCache, Work, Any]:
        """Evaluate the next event of every lane of a tile that has one."""
        *listed, tiles = still
        start, count = tiles.level(step)
        valid = jnp.arange(self.rows) < count
        events, own, shared, old = self._cut(listed, start)
        if lanes is not None:
            own, shared = own + lanes[0], shared + lanes[1]
        new, encoded, called = self._evaluate(events, own, shared, old, valid)
        if lanes is not None:
            lanes = self._correct(events, old, new, lanes, valid)
        work = Work(work.encodes + encoded.sum(dtype=jnp.int32), work.calls + called.sum(dtype=jnp.int32))
        return self._put(found, new, start), work, lanes

    def _evaluate(
        self, events: PyTree, own: PyTree, shared: PyTree, old: ActionCache, valid: Bool[Array, " row"]
    ) -> tuple[ActionCache, Bool[Array, " row"], Bool[Array, " row"]]:
        """Encode where the inputs are others, decide where the action is not certain, and mark where."""
        process = self.process
        inputs = over_events(process.inputs, own, events)
        fresh = old.known & same_rows(old.inputs, inputs, self.rows) & (not self.again)
        encoded = valid & ~fresh
        code = jax.lax.cond(
            encoded.any(),
            lambda: _choose(encoded, over_events(process.encode, inputs, events), old.code),
            lambda: old.code,
        )
        reads = over_events(process.reads, own, shared, events)
        called = valid & ~(fresh & over_events(process.stands, old.action, old.reads, reads))
        action = jnp.where(called, over_events(process.decide, code, reads, events), old.action)
        # Rows behind the last valid one are those of the next level, which writes them again.
        return ActionCache(action, jnp.ones_like(valid), inputs, code, reads), encoded, called

    def _correct(self, events: PyTree, old: ActionCache, new: ActionCache, before: tuple, valid: Array) -> tuple:
        """Add what the new actions change and the old ones did not; what is no event changes nothing."""
        process = self.process
        assert isinstance(process, AdditiveProcess)
        parts = zip(over_events(process.change, events, new.action), before, strict=True)
        added = [total + jnp.where(valid[:, None], change, 0) for change, total in parts]
        taken = over_events(process.change, events, old.action)
        return tuple(total - jnp.where(valid[:, None], change, 0) for change, total in zip(taken, added, strict=True))

    def _cut(self, tree: PyTree, start: Array) -> PyTree:
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, self.rows), tree)

    def _put(self, tree: PyTree, part: PyTree, start: Array) -> PyTree:
        return jax.tree.map(lambda leaf, new: jax.lax.dynamic_update_slice_in_dim(leaf, new, start, axis=0), tree, part)


def _choose(where: Bool[Array, " row"], new: PyTree, old: PyTree) -> PyTree:
    """Take rows of `new` where told, of `old` elsewhere."""

    def pick(one: Array, other: Array) -> Array:
        return jnp.where(where.reshape(-1, *(1,) * (one.ndim - 1)), one, other)

    return jax.tree.map(pick, new, old)
