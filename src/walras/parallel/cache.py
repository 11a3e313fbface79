"""Own what is known and guessed of the events in a window, and the states that follow from it.

FREE: prefix sums where states add up, a replay of the cheap part where they do not; both see what a plain loop sees.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from walras.parallel.process import AdditiveProcess, AdditiveState, DecisionProcess, over_events, same_rows

RUN = 64
"""Events summed one after the other within a run; runs are summed side by side."""


class ActionCache(eqx.Module):
    """Hold, for every event of a window (first axis), the action and on what it was decided.

    Where `known` is False the action is a guess from the start, and nothing else is set.
    """

    action: Int[Array, " event"]
    known: Bool[Array, " event"]
    inputs: PyTree
    code: PyTree
    reads: PyTree


@eqx.filter_jit
def empty_cache(process: DecisionProcess, state: PyTree, events: PyTree, actions: Int[Array, " event"]) -> ActionCache:
    """Make a guess that knows actions only."""

    def first(state: PyTree, event: PyTree) -> tuple:
        own, shared = process.observe(state, event)
        inputs = process.inputs(own, event)
        return inputs, process.encode(inputs, event), process.reads(own, shared, event)

    shapes = eqx.filter_eval_shape(first, state, jax.tree.map(lambda leaf: leaf[0], events))
    inputs, code, reads = jax.tree.map(lambda one: jnp.zeros((len(actions), *one.shape), one.dtype), shapes)
    return ActionCache(actions, jnp.zeros(len(actions), bool), inputs, code, reads)


class AbstractStates(eqx.Module):
    """Say what every event of a window sees, given the actions of all others."""

    @abc.abstractmethod
    def seen(
        self, process: Any, state: PyTree, events: PyTree, actions: Int[Array, " event"], lines: "KeyChains"
    ) -> tuple[PyTree, PyTree]:
        """Return the own and the shared part that every event observes, the window starting in `state`."""

    @abc.abstractmethod
    def after(self, process: Any, state: PyTree, events: PyTree, actions: Int[Array, " event"], count: Array) -> PyTree:
        """Return the state after the first `count` events."""


class KeyChains(eqx.Module):
    """Place the events of a window in the chains of their keys.

    `order` lists the events chain by chain, `start` the first place of the chain of every place, `place` the place of
    every event; `live` is False for padding behind the last event.
    """

    order: Int[Array, " event"]
    start: Int[Array, " event"]
    place: Int[Array, " event"]
    live: Bool[Array, " event"]


class PrefixSums(AbstractStates):
    """Add up changes: no step waits for another."""

    def seen(
        self,
        process: AdditiveProcess,
        state: AdditiveState,
        events: PyTree,
        actions: Int[Array, " event"],
        lines: KeyChains,
    ) -> tuple[Int[Array, "event own"], Int[Array, "event shared"]]:
        """Sum over all earlier events for the shared row, over those of the same key for the own row."""
        own, shared = deltas(process, events, actions, lines.live)
        rows = state.table[over_events(process.key, events)]

        def summed() -> tuple[Array, Array]:
            before = exclusive_sums(own[lines.order])
            before = before - before[lines.start]
            return rows + before[lines.place], state.shared[None] + exclusive_sums(shared)

        def as_it_was() -> tuple[Array, Array]:
            return rows, jnp.broadcast_to(state.shared, shared.shape)

        # A window that has just begun holds idle guesses only, mostly: what changes nothing needs no sums.
        return jax.lax.cond(own.any() | shared.any(), summed, as_it_was)

    def after(
        self,
        process: AdditiveProcess,
        state: AdditiveState,
        events: PyTree,
        actions: Int[Array, " event"],
        count: Array,
    ) -> AdditiveState:
        """Add the changes of the first events to the table."""
        own, shared = deltas(process, events, actions, jnp.arange(len(actions)) < count)
        table = state.table.at[over_events(process.key, events)].add(own)
        return AdditiveState(table=table, shared=state.shared + shared.sum(0, dtype=shared.dtype))


class ReplayStates(AbstractStates):
    """Replay the cheap part of every step, one after the other; for any transition."""

    def seen(
        self, process: DecisionProcess, state: PyTree, events: PyTree, actions: Int[Array, " event"], lines: KeyChains
    ) -> tuple[PyTree, PyTree]:
        """Observe before every event, and take its action, or the idle one where that cannot be taken."""

        def step(state: PyTree, event: tuple) -> tuple[PyTree, tuple[PyTree, PyTree]]:
            return apply(process, state, *event), process.observe(state, event[0])

        return jax.lax.scan(step, state, (events, actions))[1]

    def after(
        self, process: DecisionProcess, state: PyTree, events: PyTree, actions: Int[Array, " event"], count: Array
    ) -> PyTree:
        """Replay the first events."""

        def step(number: Array, state: PyTree) -> PyTree:
            return apply(process, state, jax.tree.map(lambda leaf: leaf[number], events), actions[number])

        return jax.lax.fori_loop(0, count, step, state)


def apply(process: DecisionProcess, state: PyTree, event: PyTree, action: Array) -> PyTree:
    """Advance by an action, or by the idle one where it cannot be taken."""
    possible = jnp.where(process.allowed(state, event, action), action, process.idle(event))
    return process.advance(state, event, possible)


def deltas(
    process: AdditiveProcess, events: PyTree, actions: Int[Array, " event"], counted: Bool[Array, " event"]
) -> tuple[Int[Array, "event own"], Int[Array, "event shared"]]:
    """Return what every event adds; nothing where it does not count."""
    own, shared = over_events(process.change, events, actions)
    return jnp.where(counted[:, None], own, 0), jnp.where(counted[:, None], shared, 0)


def exclusive_sums(values: Int[Array, "event column"]) -> Int[Array, "event column"]:
    """Sum, for every row, the rows before it.

    Runs of rows are summed side by side, so that there are as many serial steps as a run is long; every run begins with
    the total of those before it and is written where it belongs, so that memory is passed over few times.
    """
    n, width = values.shape
    runs = jnp.pad(values, ((0, -n % RUN), (0, 0))).reshape(-1, RUN, width)
    totals = runs.sum(1, dtype=values.dtype)

    def add(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        total, sums = carry
        sums = jax.lax.dynamic_update_slice_in_dim(sums, total[:, None], step, axis=1)
        return total + jax.lax.dynamic_index_in_dim(runs, step, axis=1, keepdims=False), sums

    before = jnp.cumsum(totals, axis=0) - totals
    return jax.lax.fori_loop(0, RUN, add, (before, jnp.zeros_like(runs)))[1].reshape(-1, width)[:n]


class Observed(eqx.Module):
    """Hold what every event of a window observes, and a mark on every one that has to be evaluated again."""

    own: PyTree
    shared: PyTree
    marks: Bool[Array, " event"]


def certify(
    process: DecisionProcess,
    state: PyTree,
    events: PyTree,
    guess: ActionCache,
    lines: KeyChains,
    states: AbstractStates,
) -> Observed:
    """See what every event observes under all guesses, and which decisions are not certain to stand."""
    own, shared = states.seen(process, state, events, guess.action, lines)

    def certain() -> Bool[Array, " event"]:
        inputs = over_events(process.inputs, own, events)
        reads = over_events(process.reads, own, shared, events)
        stands = over_events(process.stands, guess.action, guess.reads, reads)
        return stands & guess.known & same_rows(guess.inputs, inputs, len(guess.known))

    stands = jax.lax.cond(guess.known.any(), certain, lambda: jnp.zeros_like(guess.known))
    return Observed(own, shared, ~stands & lines.live)
