"""Own the first guess of all actions, before anything is evaluated.

OPEN: a start changes how much work it is, never the result; add one beside the others.
"""

import abc
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree
from numpy import ndarray

from walras.errors import shape_mismatch
from walras.parallel.process import DecisionProcess, n_events, over_events

if TYPE_CHECKING:
    from walras.parallel.sequential import AbstractEngine


class AbstractInitialGuess(abc.ABC):
    """Guess the action of every event."""

    @abc.abstractmethod
    def actions(self, process: DecisionProcess, initial: PyTree, events: PyTree) -> Int[Array, " event"]:
        """Return one action for every event."""


class NoOp(AbstractInitialGuess):
    """Guess that nothing is done: what can always be done, and the best start for policies that only mask options."""

    def actions(self, process: DecisionProcess, initial: PyTree, events: PyTree) -> Int[Array, " event"]:
        """Return the idle action for every event."""
        return over_events(process.idle, events).astype(jnp.int32)


class WarmStart(AbstractInitialGuess):
    """Guess a trajectory: that of the last policy, say, while a policy is being improved."""

    def __init__(self, actions: Int[Array, " event"] | Int[ndarray, " event"]):
        self.given = jnp.asarray(actions, jnp.int32)

    def actions(self, process: DecisionProcess, initial: PyTree, events: PyTree) -> Int[Array, " event"]:
        """Return the trajectory.

        Raises:
            ShapeError: it has not one action for every event.
        """
        needed = (n_events(events),)
        if self.given.shape != needed:
            raise shape_mismatch("actions", self.given.shape, f"{needed} [event]", "give one action for every event")
        return self.given


class FromPolicy(AbstractInitialGuess):
    """Guess what a cheaper process does in the same world, found by an engine of its own."""

    def __init__(self, process: DecisionProcess, engine: "AbstractEngine"):
        self.process, self.engine = process, engine

    def actions(self, process: DecisionProcess, initial: PyTree, events: PyTree) -> Int[Array, " event"]:
        """Run the cheaper process."""
        trajectory, _ = self.engine.run(self.process, initial, events)
        return trajectory.records
