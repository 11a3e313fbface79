"""Two other parallel-in-time methods, for comparison with `Picard`: the published Jacobi iteration and Time Warp's safe
window."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from numpy import ndarray

from walras.domains.fulfilment.instance import LARGEST
from walras.domains.fulfilment.process import FulfilmentProcess
from walras.errors import InputError
from walras.parallel.picard import COUNTED, NARROW, WIDE, PicardInfo, keys_of, require_decision_process
from walras.parallel.process import (
    AbstractEngine,
    AdditiveProcess,
    AdditiveState,
    DecisionProcess,
    Trajectory,
    Transition,
    n_events,
    over_events,
)
from walras.parallel.rounds import (
    Counts,
    PackedBatches,
    Problem,
    apply_action,
    empty_cache,
    evaluate,
    replay,
    state_after_events,
)
from walras.parallel.schedule import Batches, ProcessChains
from walras.parallel.strategies import (
    AbstractAssignment,
    AbstractInitialGuess,
    NoOp,
    RandomAssignment,
    positive_integer,
)

FEW = 32
"""Fewer safe events than this are not worth a window."""

IN_TURN = 256
"""Events that are taken one by one instead, before the safe window is computed again."""


class PublishedJacobi(AbstractEngine):
    """Jacobi across processes, Gauss-Seidel within one: every process replays the window and evaluates its own events.

    There are no certificates, and each process has a copy of the state. The next window begins behind the first action
    that changed. A guess that is not allowed is replaced by the no-op during a replay.

    Args:
        assignment: of events to processes.
        window: events of a window; all where not given, or where there are fewer.
        start: the initial guess.
        max_rounds: iterations after which to stop without convergence.
    """

    assignment: AbstractAssignment = eqx.field(static=True, default_factory=lambda: RandomAssignment(64))
    window: int | None = eqx.field(static=True, default=None)
    start: AbstractInitialGuess = eqx.field(static=True, default_factory=NoOp)
    max_rounds: int | None = eqx.field(static=True, default=None)

    def run(self, transition: Transition, initial: PyTree, inputs: PyTree) -> tuple[Trajectory, PicardInfo]:
        """Run; records are the actions.

        Raises:
            InputError: the transition is no `DecisionProcess`, or there are no events.
        """
        process = require_decision_process(transition, initial, inputs)
        horizon = n_events(inputs)
        size = horizon if self.window is None else min(positive_integer("window", self.window), horizon)
        most = 2 * horizon if self.max_rounds is None else self.max_rounds
        keys = keys_of(process, inputs)
        actions, state = np.array(self.start.actions(process, initial, inputs)), initial
        counts: Counter[str] = Counter()
        while counts["committed"] < horizon and counts["rounds"] < most:
            offset = counts["committed"]
            events = np.arange(offset, min(offset + size, horizon))
            own, owner = _own_events(self.assignment.processes(keys[events], offset))
            part = jax.tree.map(lambda leaf, events=events: leaf[events], inputs)
            cached = jnp.asarray(actions[events])
            new = np.asarray(_jacobi_iterate(process, state, part, cached, jnp.asarray(own), jnp.asarray(owner)))
            changed = np.flatnonzero(new != actions[events])
            final = min(int(changed[0]) + 1, len(events)) if len(changed) else len(events)
            state = _replay(process, state, part, jnp.asarray(new), jnp.asarray(final))
            actions[events] = new
            counts.update(committed=final, rounds=1, serial_steps=own.shape[1])
            counts.update(dict.fromkeys(("policy_calls", "encode_calls", "evaluated_rows"), len(events)))
        return Trajectory(final=state, records=jnp.asarray(actions)), PicardInfo.of(counts, horizon, size)


def _own_events(processes: Int[ndarray, " event"]) -> tuple[Int[ndarray, "process level"], Int[ndarray, " event"]]:
    """List the events of every process in order, padded with a number beyond the window; and number the processes."""
    _, owner = np.unique(processes, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    lengths = np.bincount(owner)
    level = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    own = np.full((len(lengths), int(lengths.max())), len(owner), np.int32)
    own[owner[order], level] = order
    return own, owner.astype(np.int32)


_replay = eqx.filter_jit(replay)


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

    def replay_to(states: PyTree, place: Array, target: Array, mine: Array, new: Array) -> tuple[PyTree, Array]:
        def step(carry: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
            state, place = carry
            action = jnp.where(owner[place] == mine, new[place], cached[place])
            return apply_action(process, state, one(place), action), place + 1

        return jax.lax.while_loop(lambda carry: carry[1] < target, step, (states, place))

    def level(number_of_level: Array, carry: tuple) -> tuple:
        states, places, new = carry
        target = own[:, number_of_level]
        there = target < n
        moved = jnp.where(there, target, places)
        states, places = jax.vmap(replay_to, in_axes=(0, 0, 0, 0, None))(states, places, moved, number, new)
        action = over_events(process.act, states, jax.vmap(one)(jnp.minimum(target, n - 1)))
        return states, places, new.at[jnp.where(there, target, n)].set(action, mode="drop")

    copies = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(own), *jnp.shape(leaf))), state)
    start = (copies, jnp.zeros(len(own), jnp.int32), cached)
    return jax.lax.fori_loop(0, own.shape[1], level, start)[2]


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
        process = require_decision_process(transition, initial, inputs)
        if not isinstance(process, AdditiveProcess):
            raise InputError("a safe window needs states that add up; write the transition as an `AdditiveProcess`")
        horizon = n_events(inputs)
        size = min(positive_integer("most", self.most), horizon)
        keys, actions = keys_of(process, inputs), np.zeros(horizon, np.int32)
        state, counts = jax.tree.map(jnp.copy, initial), Counter[str]()
        while counts["committed"] < horizon:
            first, rest = counts["committed"], horizon - counts["committed"]
            count = min(max(self.safe(process, state, first), 1), size, rest)
            if count < min(FEW, rest):
                count = min(IN_TURN, rest)
                state, new = _in_turn((process, inputs, *jax.device_put((np.int32(first), np.int32(count)))), state)
                work = Counter(dict.fromkeys(COUNTED, count))  # each waits for the one before
            else:
                state, new, work = _side_by_side(process, inputs, state, keys[first : first + count], first, size)
            actions[first : first + count] = np.asarray(new)[:count]
            counts.update(work)
        return Trajectory(final=state, records=jnp.asarray(actions)), PicardInfo.of(counts, horizon, size)


def safe_orders(
    process: FulfilmentProcess, state: AdditiveState, largest: int, refill_before: Int[ndarray, " refill"], first: int
) -> int:
    """Return how many orders from number `first` on no capacity can bind, whatever centres they take.

    Args:
        process: its prices may not depend on capacity.
        state: before order `first`.
        largest: units of the largest order.
        refill_before: orders before which capacity is refilled; one of them ends what is safe.
        first: number of the order.

    Raises:
        InputError: prices depend on every unit of capacity, so that no two orders are safe.
    """
    granted = np.asarray(process.granted)
    left = granted[np.searchsorted(refill_before, first, side="right")] - np.asarray(state.shared)
    if process.rule.price_inputs(jnp.asarray(left), jnp.asarray(left)).size:
        raise InputError("the policy prices every unit of capacity, so no window is safe; use the parallel engine")
    coming = refill_before[refill_before > first]
    until = int(coming[0]) - first if len(coming) else LARGEST
    return min(int(left[left > 0].min(initial=LARGEST)) // largest, until)


def _side_by_side(
    process: AdditiveProcess, inputs: PyTree, state: AdditiveState, keys: Int[ndarray, " event"], first: int, size: int
) -> tuple[AdditiveState, Int[Array, " place"], Counter[str]]:
    """Run the chains of safe events; return the state behind them, their actions, and what it took."""
    plan = Batches(ProcessChains(keys, keys), np.ones(len(keys), bool), WIDE, NARROW)
    place = jax.device_put((np.int32(first), np.int32(len(keys))))
    state, actions, (encodes, calls) = _evaluate_chains((process, inputs, plan.to_device(size, size), *place), state)
    work = Counter(rounds=1, committed=len(keys), policy_calls=int(calls), encode_calls=int(encodes))
    work.update(serial_steps=int(plan.batch_depth.max(initial=0)), evaluated_rows=plan.n_rows)
    return state, actions, work


@eqx.filter_jit(donate="all-except-first")
def _evaluate_chains(
    constants: tuple[AdditiveProcess, PyTree, PackedBatches, Array, Array], state: AdditiveState
) -> tuple[AdditiveState, Int[Array, " event"], Counts]:
    process, inputs, batches, first, count = constants
    size = batches[0].shape[1]
    places = jnp.minimum(first + jnp.arange(size), n_events(inputs) - 1)
    events = jax.tree.map(lambda leaf: leaf[places], inputs)
    noop = over_events(process.noop, events).astype(jnp.int32)
    observed = (
        state.table[over_events(process.key, events)],
        jnp.broadcast_to(state.shared, (size, *state.shared.shape)),
    )
    cache = empty_cache(process, state, events, noop)
    cache, done = evaluate(Problem(process, inputs, (WIDE, NARROW), False), events, observed, cache, batches)
    return state_after_events(process, state, events, cache.action, count), cache.action, done


@eqx.filter_jit(donate="all-except-first")
def _in_turn(
    constants: tuple[AdditiveProcess, PyTree, Array, Array], state: AdditiveState
) -> tuple[AdditiveState, Int[Array, " event"]]:
    process, inputs, first, count = constants

    def step(number: Array, carry: tuple[AdditiveState, Array]) -> tuple[AdditiveState, Array]:
        state, actions = carry
        state, action = process(state, jax.tree.map(lambda leaf: leaf[first + number], inputs))
        return state, actions.at[number].set(action)

    return jax.lax.fori_loop(0, count, step, (state, jnp.zeros(IN_TURN, jnp.int32)))
