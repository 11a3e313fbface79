"""Known and guessed actions of the events in a window, and the states that follow from them."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from walras.parallel.process import AdditiveProcess, AdditiveState, DecisionProcess, over_events

PerEvent = Int[Array, " event"]
Flags = Bool[Array, " event"]

RUN = 64  # events that are summed one after the other, side by side with other runs


class ActionCache(eqx.Module):
    """The action of every event of a window (first axis), and what it was decided on.

    Where `known` is False the action is a guess and nothing else is set.
    """

    action: PerEvent
    known: Flags
    encoder_inputs: PyTree
    code: PyTree
    decision_inputs: PyTree


@eqx.filter_jit
def empty_cache(process: DecisionProcess, state: PyTree, events: PyTree, actions: PerEvent) -> ActionCache:
    """Return a cache of guessed actions."""

    def evaluated(state: PyTree, event: PyTree) -> tuple:
        own, shared = process.observe(state, event)
        inputs = process.encoder_inputs(own, event)
        return inputs, process.encode(inputs, event), process.decision_inputs(own, shared, event)

    shapes = eqx.filter_eval_shape(evaluated, state, jax.tree.map(lambda leaf: leaf[0], events))
    zeros = jax.tree.map(lambda one: jnp.zeros((len(actions), *one.shape), one.dtype), shapes)
    return ActionCache(actions, jnp.zeros(len(actions), bool), *zeros)


class KeyChains(eqx.Module):
    """The events of a window by key: in `order`, with the first place of their key, and their own place.

    `live` is False for padding behind the last event.
    """

    order: PerEvent
    start: PerEvent
    place: PerEvent
    live: Flags


class AbstractStates(eqx.Module):
    """Rebuilds states from actions."""

    @abc.abstractmethod
    def before_events(
        self, process: Any, state: PyTree, events: PyTree, actions: PerEvent, chains: KeyChains
    ) -> tuple[PyTree, PyTree]:
        """Return the own and the shared part that every event observes, the window starting in `state`."""

    @abc.abstractmethod
    def after(self, process: Any, state: PyTree, events: PyTree, actions: PerEvent, count: Array) -> PyTree:
        """Return the state after the first `count` events."""


class PrefixSums(AbstractStates):
    """Prefix sums of changes, for `AdditiveProcess`."""

    def before_events(
        self, process: AdditiveProcess, state: AdditiveState, events: PyTree, actions: PerEvent, chains: KeyChains
    ) -> tuple[Int[Array, "event own"], Int[Array, "event shared"]]:
        """Sum over all earlier events for the shared row, over those of the same key for the own row."""
        own, shared = _changes(process, events, actions, chains.live)
        rows = state.table[over_events(process.key, events)]

        def summed() -> tuple[Array, Array]:
            before = exclusive_sums(own[chains.order])
            before = before - before[chains.start]
            return rows + before[chains.place], state.shared[None] + exclusive_sums(shared)

        def unchanged() -> tuple[Array, Array]:
            return rows, jnp.broadcast_to(state.shared, shared.shape)

        # Most new windows hold only no-ops, which need no sums.
        return jax.lax.cond(own.any() | shared.any(), summed, unchanged)

    def after(
        self, process: AdditiveProcess, state: AdditiveState, events: PyTree, actions: PerEvent, count: Array
    ) -> AdditiveState:
        """Add the changes of the first events."""
        own, shared = _changes(process, events, actions, jnp.arange(len(actions)) < count)
        table = state.table.at[over_events(process.key, events)].add(own)
        return AdditiveState(table=table, shared=state.shared + shared.sum(0, dtype=shared.dtype))


class ReplayStates(AbstractStates):
    """A serial replay of the cheap part of every step, for any `DecisionProcess`."""

    def before_events(
        self, process: DecisionProcess, state: PyTree, events: PyTree, actions: PerEvent, chains: KeyChains
    ) -> tuple[PyTree, PyTree]:
        """Observe before every event, then apply its action."""

        def step(state: PyTree, event: tuple) -> tuple[PyTree, tuple[PyTree, PyTree]]:
            return apply_action(process, state, *event), process.observe(state, event[0])

        return jax.lax.scan(step, state, (events, actions))[1]

    def after(self, process: DecisionProcess, state: PyTree, events: PyTree, actions: PerEvent, count: Array) -> PyTree:
        """Replay the first events."""

        def step(number: Array, state: PyTree) -> PyTree:
            return apply_action(process, state, jax.tree.map(lambda leaf: leaf[number], events), actions[number])

        return jax.lax.fori_loop(0, count, step, state)


def apply_action(process: DecisionProcess, state: PyTree, event: PyTree, action: Array) -> PyTree:
    """Advance by an action, or by the no-op where the action is not allowed."""
    possible = jnp.where(process.allowed(state, event, action), action, process.noop(event))
    return process.advance(state, event, possible)


def _changes(
    process: AdditiveProcess, events: PyTree, actions: PerEvent, counted: Flags
) -> tuple[Int[Array, "event own"], Int[Array, "event shared"]]:
    own, shared = over_events(process.change, events, actions)
    return jnp.where(counted[:, None], own, 0), jnp.where(counted[:, None], shared, 0)


def exclusive_sums(values: Int[Array, "event column"]) -> Int[Array, "event column"]:
    """Sum, for every row, the rows before it; with `RUN` serial steps and few passes over memory."""
    n, width = values.shape
    runs = jnp.pad(values, ((0, -n % RUN), (0, 0))).reshape(-1, RUN, width)
    totals = runs.sum(1, dtype=values.dtype)

    def add(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        total, sums = carry
        sums = jax.lax.dynamic_update_slice_in_dim(sums, total[:, None], step, axis=1)
        return total + jax.lax.dynamic_index_in_dim(runs, step, axis=1, keepdims=False), sums

    before = jnp.cumsum(totals, axis=0) - totals
    return jax.lax.fori_loop(0, RUN, add, (before, jnp.zeros_like(runs)))[1].reshape(-1, width)[:n]
