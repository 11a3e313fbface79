"""Own the sequential engine: one step after the other, the reference for all others.

FREE: internals may change as long as the result is that of a plain loop.
"""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from walras.engine.base import AbstractEngine, EngineInfo, Trajectory, Transition


class Sequential(AbstractEngine):
    """Scan the steps in order."""

    def run(self, transition: Transition, initial: PyTree, inputs: PyTree) -> tuple[Trajectory, EngineInfo]:
        """Scan; rounds and calls are the number of steps."""
        final, records = jax.lax.scan(transition, initial, inputs)
        steps = jnp.asarray(jax.tree.leaves(inputs)[0].shape[0], jnp.int32)
        return Trajectory(final=final, records=records), EngineInfo(rounds=steps, policy_calls=steps)
