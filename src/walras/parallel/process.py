"""Own the contract of a transition that takes one decision a step, in parts that an engine may run apart.

CONTRACT: worlds implement it; run as a whole it is a plain transition, and every engine gives what that gives.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree


class DecisionProcess(eqx.Module):
    """Take one decision a step: `action = decide(encode(inputs), reads)`, then `advance`.

    All methods are about one event; engines map them over many. What `encode` says may depend on nothing but its
    inputs and the event, what `decide` says on nothing but the code, what it reads and the event. Actions are integers,
    so that the same decision is the same bits.
    """

    @abc.abstractmethod
    def observe(self, state: PyTree, event: PyTree) -> tuple[PyTree, PyTree]:
        """Return what the decision may know of the state: of its own part, and of what all events share."""

    def inputs(self, own: PyTree, event: PyTree) -> PyTree:
        """Return all that `encode` reads of the state; where it is the same, so is the code."""
        return own

    @abc.abstractmethod
    def encode(self, inputs: PyTree, event: PyTree) -> PyTree:
        """Say what can be said without the shared state: the expensive part."""

    def reads(self, own: PyTree, shared: PyTree, event: PyTree) -> PyTree:
        """Return all that `decide` reads of the state."""
        return own, shared

    @abc.abstractmethod
    def decide(self, code: PyTree, reads: PyTree, event: PyTree) -> Int[Array, ""]:
        """Choose the action: the cheap part."""

    def stands(self, action: Int[Array, ""], before: PyTree, now: PyTree) -> Bool[Array, ""]:
        """Certify that an action decided on `before` would be decided on `now` too, given the same code.

        True must be certain; False costs one evaluation.
        """
        return same(before, now)

    @abc.abstractmethod
    def advance(self, state: PyTree, event: PyTree, action: Int[Array, ""]) -> PyTree:
        """Return the state after the event."""

    @abc.abstractmethod
    def idle(self, event: PyTree) -> Int[Array, ""]:
        """Return an action that can always be taken, whatever the state."""

    def allowed(self, state: PyTree, event: PyTree, action: Int[Array, ""]) -> Bool[Array, ""]:
        """Say whether an action can be taken; a guess that cannot is replaced by `idle` while states are replayed.

        What `decide` returns can always be taken.
        """
        return jnp.asarray(True)

    def act(self, state: PyTree, event: PyTree) -> Int[Array, ""]:
        """Take the whole decision in a state."""
        own, shared = self.observe(state, event)
        code = self.encode(self.inputs(own, event), event)
        return self.decide(code, self.reads(own, shared, event), event)

    def __call__(self, state: PyTree, event: PyTree) -> tuple[PyTree, Int[Array, ""]]:
        """Take one whole step and record the action."""
        action = self.act(state, event)
        return self.advance(state, event, action), action


class AdditiveState(eqx.Module):
    """Hold a state that only ever adds up: a table with a row per key, and a row that all share."""

    table: Int[Array, "key own"]
    shared: Int[Array, " shared"]


class AdditiveProcess(DecisionProcess):
    """Take decisions that add integers to the row of their event's key and to a shared row; the state is `AdditiveState`.

    What the state was before any event is then a prefix sum, for all events at once.
    """

    @abc.abstractmethod
    def key(self, event: PyTree) -> Int[Array, ""]:
        """Return the row of the table that the event reads and changes."""

    @abc.abstractmethod
    def change(self, event: PyTree, action: Int[Array, ""]) -> tuple[Int[Array, " own"], Int[Array, " shared"]]:
        """Return what the action adds to the event's own row and to the shared row."""

    def observe(self, state: AdditiveState, event: PyTree) -> tuple[Int[Array, " own"], Int[Array, " shared"]]:
        """Return the event's row of the table and the shared row."""
        return state.table[self.key(event)], state.shared

    def advance(self, state: AdditiveState, event: PyTree, action: Int[Array, ""]) -> AdditiveState:
        """Add what the action changes."""
        own, shared = self.change(event, action)
        return AdditiveState(table=state.table.at[self.key(event)].add(own), shared=state.shared + shared)


def same(first: PyTree, second: PyTree) -> Bool[Array, ""]:
    """Say whether two trees of arrays are equal throughout."""
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return jnp.all(jnp.stack([jnp.asarray(True), *(jnp.all(a == b) for a, b in pairs)]))


def same_rows(first: PyTree, second: PyTree, rows: int) -> Bool[Array, " event"]:
    """Say, for every event, whether two trees are equal; trees without arrays are."""
    equal = jnp.ones(rows, bool)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        equal &= (a == b).reshape(rows, -1).all(axis=1)
    return equal


def n_events(events: Any) -> int:
    """Count events: the length of the first axis of every leaf."""
    return jax.tree.leaves(events)[0].shape[0]


def over_events(method: Any, *trees: PyTree) -> Any:
    """Apply a method about one event to many: every tree has the event axis first."""
    return jax.vmap(method)(*trees)
