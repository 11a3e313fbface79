"""Own the safe window of Time Warp, for comparison: run as many events side by side as cannot disturb each other.

FREE: needs a bound from the world, and evaluates every event once; without a bound of many events it is sequential.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from numpy import ndarray

from walras.engine.assignment import positive
from walras.engine.base import AbstractEngine, Trajectory, Transition
from walras.engine.decided import Summed, Sums, n_events, over_events
from walras.engine.guess import BySums, blank
from walras.engine.picard import NARROW, WIDE, PicardInfo, check, counted
from walras.engine.schedule import line_up, plan_walk
from walras.engine.walk import Tiles, Work, walk
from walras.errors import InputError

FEW = 32
"""Fewer safe events than this are not worth a window."""

IN_TURN = 256
"""Events that are taken one by one instead, before it is asked again how many are safe."""


class SafeWindow(AbstractEngine):
    """From a correct state, run the chains of all keys side by side for as long as no shared limit can bind.

    Close to a limit hardly any events are safe: then some are taken one by one, each a round of its own.

    Args:
        safe: `safe(process, state, first)` returns how many events from number `first` on cannot disturb each other.
        most: events at once.
    """

    safe: Callable[[Any, Sums, int], int] = eqx.field(static=True)
    most: int = eqx.field(static=True, default=4096)

    def run(self, transition: Transition, initial: PyTree, inputs: PyTree) -> tuple[Trajectory, PicardInfo]:
        """Run; records are the actions.

        Raises:
            InputError: the states do not add up, or there are no events.
        """
        process = check(transition, initial, inputs)
        if not isinstance(process, Summed):
            raise InputError("a safe window needs states that add up; write the transition as a `Summed`")
        horizon = n_events(inputs)
        size = min(positive("most", self.most), horizon)
        keys, actions = np.asarray(over_events(process.key, inputs)), np.zeros(horizon, np.int32)
        state, first, counts = jax.tree.map(jnp.copy, initial), 0, np.zeros(5, int)
        work: tuple[int, ...]
        while first < horizon:
            count = min(max(self.safe(process, state, first), 1), size, horizon - first)
            if count < min(FEW, horizon - first):
                count = min(IN_TURN, horizon - first)
                state, found = _in_turn((process, inputs, *jax.device_put((np.int32(first), np.int32(count)))), state)
                work = (count,) * 5  # each waits for the one before
            else:
                state, found, work = _side_by_side(process, inputs, state, keys[first : first + count], first, size)
            actions[first : first + count] = np.asarray(found)[:count]
            first += count
            counts += work
        info = counted([*counts.tolist(), first], True, horizon, size)
        return Trajectory(final=state, records=jnp.asarray(actions)), info


def _side_by_side(
    process: Summed, inputs: PyTree, state: Sums, keys: Int[ndarray, " event"], first: int, size: int
) -> tuple[Sums, Int[Array, " place"], tuple[int, ...]]:
    """Run the chains of safe events; return the state behind them, their actions, and what it took."""
    plan = plan_walk(line_up(keys, keys), np.ones(len(keys), bool), WIDE, NARROW)
    kept = (process, inputs, Tiles.of(plan, size, size), *jax.device_put((np.int32(first), np.int32(len(keys)))))
    state, actions, work = _walk(kept, state)
    return state, actions, (1, int(work.calls), int(work.encodes), plan.levels, plan.rows(WIDE, NARROW))


@eqx.filter_jit(donate="all-except-first")
def _walk(kept: tuple[Summed, PyTree, Tiles, Array, Array], state: Sums) -> tuple[Sums, Int[Array, " event"], Work]:
    process, inputs, tiles, first, count = kept
    size = tiles.lists.shape[1]
    places = jnp.minimum(first + jnp.arange(size), n_events(inputs) - 1)
    events = jax.tree.map(lambda leaf: leaf[places], inputs)
    idle = over_events(process.idle, events).astype(jnp.int32)
    seen = state.table[over_events(process.key, events)], jnp.broadcast_to(state.shared, (size, *state.shared.shape))
    guess, work = walk(process, events, seen, blank(process, state, events, idle), tiles, (WIDE, NARROW), False)
    return BySums().after(process, state, events, guess.action, count), guess.action, work


@eqx.filter_jit(donate="all-except-first")
def _in_turn(kept: tuple[Summed, PyTree, Array, Array], state: Sums) -> tuple[Sums, Int[Array, " event"]]:
    process, inputs, first, count = kept

    def step(number: Array, carry: tuple[Sums, Array]) -> tuple[Sums, Array]:
        state, actions = carry
        state, action = process(state, jax.tree.map(lambda leaf: leaf[first + number], inputs))
        return state, actions.at[number].set(action)

    return jax.lax.fori_loop(0, count, step, (state, jnp.zeros(IN_TURN, jnp.int32)))
