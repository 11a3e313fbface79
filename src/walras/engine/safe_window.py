"""Own the safe window of Time Warp, for comparison: run as many events side by side as cannot disturb each other.

FREE: needs a bound from the world, and evaluates every event once; without a bound of many events it is sequential.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from walras.engine.assignment import positive
from walras.engine.base import AbstractEngine, Trajectory, Transition
from walras.engine.decided import Summed, Sums, n_events, over_events
from walras.engine.guess import BySums, Guess, blank
from walras.engine.picard import NARROW, WIDE, PicardInfo, check, counted, cut_window, tiles_of
from walras.engine.schedule import line_up, plan_walk
from walras.engine.walk import Work, walk
from walras.errors import InputError

FEW = 32
"""Events up to which a small window does."""


class SafeWindow(AbstractEngine):
    """From a correct state, run the chains of all keys side by side for as long as no shared limit can bind.

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
        state, first, counts = initial, 0, np.zeros(5, int)
        while first < horizon:
            count = min(max(self.safe(process, state, first), 1), size, horizon - first)
            part = keys[first : first + count]
            plan = plan_walk(line_up(part, part), np.ones(count, bool), WIDE, NARROW)
            # Close to a limit few events are safe: a window of few rows costs less.
            room = size if count > FEW else min(FEW, size)
            events = cut_window(inputs, first, room)
            guess, work, state = _run(process, state, events, tiles_of(plan, room, room), jnp.asarray(count))
            actions[first : first + count] = np.asarray(guess.action)[:count]
            first += count
            counts += (1, int(work.calls), int(work.encodes), plan.levels, plan.rows(WIDE, NARROW))
        info = counted([*counts.tolist(), first], True, horizon)
        return Trajectory(final=state, records=jnp.asarray(actions)), info


@eqx.filter_jit
def _run(process: Summed, state: Sums, events: PyTree, tiles: Any, count: Array) -> tuple[Guess, Work, Sums]:
    idle = over_events(process.idle, events).astype(jnp.int32)
    own = state.table[over_events(process.key, events)]
    shared = jnp.broadcast_to(state.shared, (len(idle), *state.shared.shape))
    fresh = blank(process, state, events, idle)
    guess, work = walk((process, events, own, shared, tiles), fresh, (WIDE, NARROW), False)
    return guess, work, BySums().after(process, state, events, guess.action, count)
