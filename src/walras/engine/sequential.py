"""Own the sequential engine: one step after the other, the reference for all others.

FREE: internals may change as long as the result is that of a plain loop.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from walras.engine.base import AbstractEngine, EngineInfo, Trajectory, Transition


class Sequential(AbstractEngine):
    """Scan the steps in order."""

    def run(self, transition: Transition, initial: PyTree, inputs: PyTree) -> tuple[Trajectory, EngineInfo]:
        """Scan; rounds and calls are the number of steps."""
        # A module that holds arrays has no hash, which a scan asks of its function.
        step = (lambda state, event: transition(state, event)) if isinstance(transition, eqx.Module) else transition
        final, records = jax.lax.scan(step, initial, inputs)
        steps = jnp.asarray(jax.tree.leaves(inputs)[0].shape[0], jnp.int32)
        return Trajectory(final=final, records=records), EngineInfo(rounds=steps, policy_calls=steps)
