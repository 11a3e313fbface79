"""Own the published iteration, for comparison: every process replays the window and evaluates its own events anew.

FREE: Jacobi across processes, Gauss-Seidel within one; no certificates, one copy of the state per process.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from numpy import ndarray

from walras.engine.assignment import AbstractAssignment, Scattered, positive
from walras.engine.base import AbstractEngine, Trajectory, Transition
from walras.engine.decided import Decided, n_events, over_events
from walras.engine.guess import ByReplay, taken
from walras.engine.picard import PicardInfo, check, counted, keys_of
from walras.engine.starts import AbstractStart, Idle


class PublishedJacobi(AbstractEngine):
    """Iterate as published, for any transition that takes decisions.

    The next window begins behind the first action that changed, since all before it are final. A guess that cannot be
    taken is replaced by the idle action during a replay.

    Args:
        assignment: who evaluates what.
        window: events of a window; all where not given, or where there are fewer.
        start: the first guess.
        max_rounds: iterations after which it gives up and says so.
    """

    assignment: AbstractAssignment = eqx.field(static=True, default_factory=lambda: Scattered(64))
    window: int | None = eqx.field(static=True, default=None)
    start: AbstractStart = eqx.field(static=True, default_factory=Idle)
    max_rounds: int | None = eqx.field(static=True, default=None)

    def run(self, transition: Transition, initial: PyTree, inputs: PyTree) -> tuple[Trajectory, PicardInfo]:
        """Run; records are the actions.

        Raises:
            InputError: the transition takes no decisions that could be taken apart, or there are no events.
        """
        process = check(transition, initial, inputs)
        horizon = n_events(inputs)
        size = horizon if self.window is None else min(positive("window", self.window), horizon)
        most = 2 * horizon if self.max_rounds is None else self.max_rounds
        keys = keys_of(process, inputs)
        actions, state = np.array(self.start.actions(process, initial, inputs)), initial
        first = rounds = calls = steps = 0
        while first < horizon and rounds < most:
            events = np.arange(first, min(first + size, horizon))
            own, owner = _own_events(self.assignment.processes(keys[events], first))
            part = jax.tree.map(lambda leaf, events=events: leaf[events], inputs)
            cached = jnp.asarray(actions[events])
            new = np.asarray(_iterate(process, state, part, cached, jnp.asarray(own), jnp.asarray(owner)))
            changed = np.flatnonzero(new != actions[events])
            final = min(int(changed[0]) + 1, len(events)) if len(changed) else len(events)
            state = _after(process, state, part, jnp.asarray(new), jnp.asarray(final))
            actions[events] = new
            first, rounds, calls, steps = first + final, rounds + 1, calls + len(events), steps + own.shape[1]
        info = counted((rounds, calls, calls, steps, calls, first), first >= horizon, horizon, size)
        return Trajectory(final=state, records=jnp.asarray(actions)), info


def _own_events(processes: Int[ndarray, " event"]) -> tuple[Int[ndarray, "process level"], Int[ndarray, " event"]]:
    """List the events of every process in order, padded with a number beyond the window; and number the processes."""
    _, owner = np.unique(processes, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    lengths = np.bincount(owner)
    level = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    own = np.full((len(lengths), int(lengths.max())), len(owner), np.int32)
    own[owner[order], level] = order
    return own, owner.astype(np.int32)


@eqx.filter_jit
def _after(process: Decided, state: PyTree, events: PyTree, actions: Array, count: Array) -> PyTree:
    return ByReplay().after(process, state, events, actions, count)


@eqx.filter_jit
def _iterate(
    process: Decided,
    state: PyTree,
    events: PyTree,
    cached: Int[Array, " event"],
    own: Int[Array, "process level"],
    owner: Int[Array, " event"],
) -> Int[Array, " event"]:
    """Let every process walk the window once: by guesses to its next own event, then all evaluate theirs."""
    n, number = len(cached), jnp.arange(len(own))

    def one(event: Array) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[event], events)

    def to(states: PyTree, place: Array, target: Array, mine: Array, new: Array) -> tuple[PyTree, Array]:
        def step(carry: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
            state, place = carry
            action = jnp.where(owner[place] == mine, new[place], cached[place])
            return taken(process, state, one(place), action), place + 1

        return jax.lax.while_loop(lambda carry: carry[1] < target, step, (states, place))

    def level(number_of_level: Array, carry: tuple) -> tuple:
        states, places, new = carry
        target = own[:, number_of_level]
        there = target < n
        moved = jnp.where(there, target, places)
        states, places = jax.vmap(to, in_axes=(0, 0, 0, 0, None))(states, places, moved, number, new)
        action = over_events(process.act, states, jax.vmap(one)(jnp.minimum(target, n - 1)))
        return states, places, new.at[jnp.where(there, target, n)].set(action, mode="drop")

    copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(own), *jnp.shape(leaf))), state)
    start = (copies, jnp.zeros(len(own), jnp.int32), cached)
    return jax.lax.fori_loop(0, own.shape[1], level, start)[2]
