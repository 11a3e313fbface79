"""Own the contract of an engine: how the steps of any transition are strung together.

CONTRACT: engines know nothing of inventory; every engine returns what the sequential one returns.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

Transition = Callable[[Any, Any], tuple[Any, Any]]
"""(state, inputs of one step) -> (next state, what to record of the step)."""


class Trajectory(eqx.Module):
    """Hold the final state and the records of all steps (step axis first)."""

    final: PyTree
    records: PyTree


class EngineInfo(eqx.Module):
    """Say how much work it was: serial rounds, and policy calls per step and agent."""

    rounds: Int[Array, ""]
    policy_calls: Int[Array, ""]


class AbstractEngine(eqx.Module):
    """Run a transition over all steps of its inputs."""

    @abc.abstractmethod
    def run(self, transition: Transition, initial: PyTree, inputs: PyTree) -> tuple[Trajectory, EngineInfo]:
        """Run from `initial`; `inputs` has the step axis first on every leaf."""


class Sequential(AbstractEngine):
    """Scan the steps in order."""

    def run(self, transition: Transition, initial: PyTree, inputs: PyTree) -> tuple[Trajectory, EngineInfo]:
        """Scan; rounds and calls are the number of steps."""
        # A module that holds arrays has no hash, which a scan asks of its function.
        step = (lambda state, event: transition(state, event)) if isinstance(transition, eqx.Module) else transition
        final, records = jax.lax.scan(step, initial, inputs)
        steps = jnp.asarray(jax.tree.leaves(inputs)[0].shape[0], jnp.int32)
        return Trajectory(final=final, records=records), EngineInfo(rounds=steps, policy_calls=steps)
