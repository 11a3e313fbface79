"""Transitions, processes that take one decision a step, and engines.

CONTRACT: every engine returns what `Sequential` returns.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

Transition = Callable[[Any, Any], tuple[Any, Any]]
"""(state, inputs of one step) -> (next state, record of the step)."""


class DecisionProcess(eqx.Module):
    """A transition with one decision a step: `decide(encode(encoder_inputs), decision_inputs)`, then `advance`.

    Methods are about one event; engines vectorise them. `encode` and `decide` may depend on nothing but their
    arguments. Actions are integers, so that equal decisions are equal bit by bit.
    """

    @abc.abstractmethod
    def observe(self, state: PyTree, event: PyTree) -> tuple[PyTree, PyTree]:
        """Return the event's own part of the state, and the part that all events share."""

    def encoder_inputs(self, own: PyTree, event: PyTree) -> PyTree:
        """Return all that `encode` reads of the state; the code is reused where this is unchanged."""
        return own

    @abc.abstractmethod
    def encode(self, inputs: PyTree, event: PyTree) -> PyTree:
        """Compute the expensive part of the decision, without the shared state."""

    def decision_inputs(self, own: PyTree, shared: PyTree, event: PyTree) -> PyTree:
        """Return all that `decide` reads of the state."""
        return own, shared

    @abc.abstractmethod
    def decide(self, code: PyTree, inputs: PyTree, event: PyTree) -> Int[Array, ""]:
        """Choose the action: the cheap part. `allowed` holds for it."""

    def still_valid(self, action: Int[Array, ""], before: PyTree, now: PyTree) -> Bool[Array, ""]:
        """Certify that an action decided on `before` is decided on `now` too, for the same code; False costs a call."""
        return trees_equal(before, now)

    @abc.abstractmethod
    def advance(self, state: PyTree, event: PyTree, action: Int[Array, ""]) -> PyTree:
        """Return the state after the event."""

    @abc.abstractmethod
    def noop(self, event: PyTree) -> Int[Array, ""]:
        """Return an action that is allowed in every state."""

    def allowed(self, state: PyTree, event: PyTree, action: Int[Array, ""]) -> Bool[Array, ""]:
        """Say whether an action can be taken; while states are replayed `noop` replaces a guess that cannot."""
        return jnp.asarray(True)

    def act(self, state: PyTree, event: PyTree) -> Int[Array, ""]:
        """Take the whole decision in a state."""
        own, shared = self.observe(state, event)
        code = self.encode(self.encoder_inputs(own, event), event)
        return self.decide(code, self.decision_inputs(own, shared, event), event)

    def __call__(self, state: PyTree, event: PyTree) -> tuple[PyTree, Int[Array, ""]]:
        """Take one step as a plain transition, and record the action."""
        action = self.act(state, event)
        return self.advance(state, event, action), action


class AdditiveState(eqx.Module):
    """A state that changes by addition only: a table with a row per key, and a row that all events share."""

    table: Int[Array, "key own"]
    shared: Int[Array, " shared"]


class AdditiveProcess(DecisionProcess):
    """A process whose actions add integers to the row of an event's key and to the shared row, hence prefix sums."""

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
        """Add the changes of the action."""
        own, shared = self.change(event, action)
        return AdditiveState(table=state.table.at[self.key(event)].add(own), shared=state.shared + shared)


class Trajectory(eqx.Module):
    """The final state and the records of all steps (step axis first)."""

    final: PyTree
    records: PyTree


class EngineInfo(eqx.Module):
    """How much work a run was: serial rounds, and policy calls per step and agent."""

    rounds: Int[Array, ""]
    policy_calls: Int[Array, ""]


class AbstractEngine(eqx.Module):
    """Runs a transition over all steps of its inputs."""

    @abc.abstractmethod
    def run(self, transition: Transition, initial: PyTree, inputs: PyTree) -> tuple[Trajectory, EngineInfo]:
        """Run from `initial`; `inputs` has the step axis first on every leaf."""


class Sequential(AbstractEngine):
    """Scan the steps in order."""

    def run(self, transition: Transition, initial: PyTree, inputs: PyTree) -> tuple[Trajectory, EngineInfo]:
        """Scan; rounds and calls are the number of steps."""
        # A scan needs a hashable function, which a module that holds arrays is not.
        step = (lambda state, event: transition(state, event)) if isinstance(transition, eqx.Module) else transition
        final, records = jax.lax.scan(step, initial, inputs)
        steps = jnp.asarray(n_events(inputs), jnp.int32)
        return Trajectory(final=final, records=records), EngineInfo(rounds=steps, policy_calls=steps)


@eqx.filter_jit
def run_sequentially(process: DecisionProcess, initial: PyTree, events: PyTree) -> Trajectory:
    """Run one event after the other on the device: the reference for every parallel run."""
    return Sequential().run(process, initial, events)[0]


def trees_equal(first: PyTree, second: PyTree) -> Bool[Array, ""]:
    """Say whether two trees of arrays are equal throughout."""
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return jnp.all(jnp.stack([jnp.asarray(True), *(jnp.all(a == b) for a, b in pairs)]))


def rows_equal(first: PyTree, second: PyTree, rows: int) -> Bool[Array, " event"]:
    """Compare two trees event by event; trees without arrays are equal."""
    equal = jnp.ones(rows, bool)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        equal &= (a == b).reshape(rows, -1).all(axis=1)
    return equal


def n_events(events: Any) -> int:
    """Return the length of the first axis of every leaf."""
    return jax.tree.leaves(events)[0].shape[0]


def over_events(method: Any, *trees: PyTree) -> Any:
    """Map a method about one event over trees that have the event axis first."""
    return jax.vmap(method)(*trees)
