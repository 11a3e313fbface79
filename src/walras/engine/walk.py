"""Own the walk: processes evaluate their own events, level by level, every process knowing its own new decisions.

FREE: tiles have one shape whatever is in them, so that a row's result does not depend on its neighbours.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from walras.engine.decided import Decided, Summed, over_events, same_rows
from walras.engine.guess import Guess


class Tiles(eqx.Module):
    """List what to walk: events (a number beyond the window where there is none), and how they are cut into tiles."""

    events: Int[Array, " walked"]
    start: Int[Array, " tile"]
    rank: Int[Array, " tile"]
    count: Int[Array, " tile"]
    wide: Int[Array, ""]
    all: Int[Array, ""]


class Work(eqx.Module):
    """Count evaluations: of `encode`, and of decisions that were not certain to stand."""

    encodes: Int[Array, ""]
    calls: Int[Array, ""]


@eqx.filter_jit(donate="all-except-first")
def walk(
    kept: tuple[Decided, PyTree, PyTree, PyTree, Tiles], guess: Guess, shapes: tuple[int, int], again: bool
) -> tuple[Guess, Work]:
    """Evaluate the listed events of a window.

    Args:
        kept: the process, the window's events, what they observe, own and shared, and what to walk.
        guess: what is known so far; used up.
        shapes: rows of a wide and of a narrow tile.
        again: evaluate every listed event, certain or not.
    """
    process, events, own, shared, tiles = kept
    size = len(tiles.events) + max(shapes)
    places = jnp.minimum(jnp.pad(tiles.events, (0, max(shapes))), len(guess.action) - 1)

    def listed(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[places], tree)

    still = (listed(events), listed(own), listed(shared), tiles)
    lanes = _no_corrections(process, own, shared, size)
    zero = jnp.zeros((), jnp.int32)
    carry = (listed(guess), lanes, Work(zero, zero))
    for rows, first, last in ((shapes[0], zero, tiles.wide), (shapes[1], tiles.wide, tiles.all)):
        tile = _Tile(process, rows, again)
        carry = jax.lax.fori_loop(first, last, lambda number, carry, tile=tile: tile(number, still, carry), carry)
    found, _, work = carry
    back = jax.tree.map(
        lambda old, new: old.at[tiles.events].set(new[: len(tiles.events)], mode="drop"), guess, found
    )
    return back, work


def _no_corrections(process: Decided, own: PyTree, shared: PyTree, size: int) -> Any:
    """Start all lanes; only states that add up are corrected within a lane, others have one event per lane."""
    if not isinstance(process, Summed):
        return None
    return tuple(jnp.zeros((size, part.shape[1]), part.dtype) for part in (own, shared))


class _Tile(eqx.Module):
    """Evaluate one tile: the same number of rows whatever is in them."""

    process: Decided
    rows: int
    again: bool

    def __call__(self, number: Array, still: tuple, carry: tuple) -> tuple:
        *seen, tiles = still
        guess, lanes, work = carry
        start, rank = tiles.start[number], tiles.rank[number]
        valid = jnp.arange(self.rows) < tiles.count[number]
        events, own, shared = self._cut(seen, start)
        old = self._cut(guess, start)
        corrected = self._cut(lanes, rank)
        if lanes is not None:
            own, shared = own + corrected[0], shared + corrected[1]
        new, encoded, called = self._evaluate(events, own, shared, old, valid)
        if lanes is not None:
            lanes = self._put(lanes, self._correct(events, old, new, corrected, valid), rank)
        work = Work(work.encodes + encoded.sum(dtype=jnp.int32), work.calls + called.sum(dtype=jnp.int32))
        return self._put(guess, new, start), lanes, work

    def _evaluate(
        self, events: PyTree, own: PyTree, shared: PyTree, old: Guess, valid: Bool[Array, " row"]
    ) -> tuple[Guess, Bool[Array, " row"], Bool[Array, " row"]]:
        """Encode where the inputs are others, decide where the action is not certain, and mark where."""
        process = self.process
        inputs = over_events(process.inputs, own, events)
        fresh = old.known & same_rows(old.inputs, inputs, self.rows) & (not self.again)
        encoded = valid & ~fresh
        code = jax.lax.cond(
            encoded.any(), lambda: _choose(encoded, over_events(process.encode, inputs, events), old.code), lambda: old.code
        )
        reads = over_events(process.reads, own, shared, events)
        called = valid & ~(fresh & over_events(process.stands, old.action, old.reads, reads))
        action = jnp.where(called, over_events(process.decide, code, reads, events), old.action)
        found = Guess(action, jnp.ones_like(valid), inputs, code, reads)
        return _choose(valid, found, old), encoded, called

    def _correct(self, events: PyTree, old: Guess, new: Guess, before: tuple, valid: Array) -> tuple:
        """Add what the new actions change and the old ones did not; what is no event changes nothing."""
        parts = zip(over_events(self.process.change, events, new.action), before, strict=True)
        added = [total + jnp.where(valid[:, None], change, 0) for change, total in parts]
        taken = over_events(self.process.change, events, old.action)
        return tuple(total - jnp.where(valid[:, None], change, 0) for change, total in zip(taken, added, strict=True))

    def _cut(self, tree: PyTree, start: Array) -> PyTree:
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, self.rows), tree)

    def _put(self, tree: PyTree, part: PyTree, start: Array) -> PyTree:
        return jax.tree.map(
            lambda leaf, new: jax.lax.dynamic_update_slice_in_dim(leaf, new, start, axis=0), tree, part
        )


def _choose(where: Bool[Array, " row"], new: PyTree, old: PyTree) -> PyTree:
    """Take rows of `new` where told, of `old` elsewhere."""

    def pick(one: Array, other: Array) -> Array:
        return jnp.where(where.reshape(-1, *(1,) * (one.ndim - 1)), one, other)

    return jax.tree.map(pick, new, old)
