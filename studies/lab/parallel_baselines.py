"""Own the published iteration, for comparison: every process replays the window and evaluates its own events anew.

FREE: Jacobi across processes, Gauss-Seidel within one; no certificates, one copy of the state per process.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from numpy import ndarray

from walras.errors import InputError
from walras.parallel.cache import PrefixSums, ReplayStates, apply, empty_cache
from walras.parallel.evaluate import PackedBatches, Work, evaluate
from walras.parallel.initial_guess import AbstractInitialGuess, NoOp
from walras.parallel.picard import NARROW, WIDE, PicardInfo, check, counted, keys_of
from walras.parallel.process import AdditiveProcess, AdditiveState, DecisionProcess, n_events, over_events
from walras.parallel.schedule import AbstractAssignment, RandomAssignment, group_by_process, plan_batches, positive
from walras.parallel.sequential import AbstractEngine, Trajectory, Transition


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

    assignment: AbstractAssignment = eqx.field(static=True, default_factory=lambda: RandomAssignment(64))
    window: int | None = eqx.field(static=True, default=None)
    start: AbstractInitialGuess = eqx.field(static=True, default_factory=NoOp)
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
            new = np.asarray(_jacobi_iterate(process, state, part, cached, jnp.asarray(own), jnp.asarray(owner)))
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
def _after(process: DecisionProcess, state: PyTree, events: PyTree, actions: Array, count: Array) -> PyTree:
    return ReplayStates().after(process, state, events, actions, count)


@eqx.filter_jit
def _jacobi_iterate(
    process: DecisionProcess,
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
            return apply(process, state, one(place), action), place + 1

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

    safe: Callable[[Any, AdditiveState, int], int] = eqx.field(static=True)
    most: int = eqx.field(static=True, default=4096)

    def run(self, transition: Transition, initial: PyTree, inputs: PyTree) -> tuple[Trajectory, PicardInfo]:
        """Run; records are the actions.

        Raises:
            InputError: the states do not add up, or there are no events.
        """
        process = check(transition, initial, inputs)
        if not isinstance(process, AdditiveProcess):
            raise InputError("a safe window needs states that add up; write the transition as a `AdditiveProcess`")
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
    process: AdditiveProcess, inputs: PyTree, state: AdditiveState, keys: Int[ndarray, " event"], first: int, size: int
) -> tuple[AdditiveState, Int[Array, " place"], tuple[int, ...]]:
    """Run the chains of safe events; return the state behind them, their actions, and what it took."""
    plan = plan_batches(group_by_process(keys, keys), np.ones(len(keys), bool), WIDE, NARROW)
    kept = (
        process,
        inputs,
        PackedBatches.of(plan, size, size),
        *jax.device_put((np.int32(first), np.int32(len(keys)))),
    )
    state, actions, work = _walk(kept, state)
    return state, actions, (1, int(work.calls), int(work.encodes), plan.levels, plan.rows(WIDE, NARROW))


@eqx.filter_jit(donate="all-except-first")
def _walk(
    kept: tuple[AdditiveProcess, PyTree, PackedBatches, Array, Array], state: AdditiveState
) -> tuple[AdditiveState, Int[Array, " event"], Work]:
    process, inputs, tiles, first, count = kept
    size = tiles.lists.shape[1]
    places = jnp.minimum(first + jnp.arange(size), n_events(inputs) - 1)
    events = jax.tree.map(lambda leaf: leaf[places], inputs)
    idle = over_events(process.idle, events).astype(jnp.int32)
    seen = state.table[over_events(process.key, events)], jnp.broadcast_to(state.shared, (size, *state.shared.shape))
    guess, work = evaluate(
        process, events, seen, empty_cache(process, state, events, idle), tiles, (WIDE, NARROW), False
    )
    return PrefixSums().after(process, state, events, guess.action, count), guess.action, work


@eqx.filter_jit(donate="all-except-first")
def _in_turn(
    kept: tuple[AdditiveProcess, PyTree, Array, Array], state: AdditiveState
) -> tuple[AdditiveState, Int[Array, " event"]]:
    process, inputs, first, count = kept

    def step(number: Array, carry: tuple[AdditiveState, Array]) -> tuple[AdditiveState, Array]:
        state, actions = carry
        state, action = process(state, jax.tree.map(lambda leaf: leaf[first + number], inputs))
        return state, actions.at[number].set(action)

    return jax.lax.fori_loop(0, count, step, (state, jnp.zeros(IN_TURN, jnp.int32)))
