"""What a training needs of a task, and the state and gradient step that all tasks of the package share."""

import abc
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import Array


class TrainingTask(abc.ABC):
    """What is trained: its initial state, a step, and its validation.

    Attributes:
        kind: of the result, such as "buyer"; checkpoints are of the kind "buyer training".
        loss: metric of a step that has to stay finite.
        monitor: validation metric that has to fall; the parameters with its lowest value are returned.
    """

    kind: str
    loss: str = "loss"
    monitor: str = "held_out_loss"

    @abc.abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return what numbers depend on beside the settings, such as `walras.data.resume_log.digest` of the data.

        A training is resumed only with the same values.
        """

    @abc.abstractmethod
    def begin(self, seed: int) -> Any:
        """Return the initial state: a pytree with parameters, optimizer state and all else a step needs.

        It is called again on resume, for the structure that stored numbers are put into.
        """

    @abc.abstractmethod
    def step(self, state: Any, number: int) -> tuple[Any, Mapping[str, Any]]:
        """Return the state after one step, and its scalar metrics.

        Shapes and types stay; the given state is neither changed nor donated, since it is written if the step is
        interrupted. Draws follow from a seed and `number` (1 for the first step), which has to enter `eqx.filter_jit`
        as `np.int32(number)`: a Python number would be compiled in at every step.
        """

    @abc.abstractmethod
    def validate(self, state: Any) -> Mapping[str, Any]:
        """Return scalar metrics on held-out data, `monitor` among them; named differently from those of a step."""

    def parameters(self, state: Any) -> Any:
        """Return the part of the state that is the result; by default all."""
        return state


class TrainState(eqx.Module):
    """State from step to step: weights, their running average, and the optimizer's state."""

    network: Any
    average: Any
    optimizer: Any

    @staticmethod
    def of(network: Any, optimizer: optax.GradientTransformation) -> "TrainState":
        """Start from a network."""
        return TrainState(network, network, optimizer.init(eqx.filter(network, eqx.is_inexact_array)))


def clipped_adam(
    learning_rate: float, updates: int, last_rate: float, clip_norm: float
) -> optax.GradientTransformation:
    """Return Adam on clipped gradients, its step size falling along a half cosine to the share `last_rate`."""
    rate = optax.cosine_decay_schedule(learning_rate, updates, last_rate)
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(rate))


def apply_gradients(
    state: TrainState, gradient: Any, averaged: float | Array, optimizer: optax.GradientTransformation
) -> TrainState:
    """Make one update along a gradient; the running average keeps the share `averaged` of itself."""
    updates, optimizer_state = optimizer.update(gradient, state.optimizer)
    network = eqx.apply_updates(state.network, updates)
    average = jax.tree.map(lambda old, new: averaged * old + (1 - averaged) * new, state.average, network)
    return TrainState(network, average, optimizer_state)
