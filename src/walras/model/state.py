"""Own the endogenous state of the agents between two weeks.

LAW: the pipeline conserves units: what is placed and not refused is in it until it arrives.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.policies.base import Memory


class State(eqx.Module):
    """Hold stock and open orders at the end of a week.

    Attributes:
        stock_end: stock on hand; negative is backlog where backlogging is on [units].
        pipeline: units that arrive 1, 2, ..., max_lead weeks from now [units].
        memory: what a policy remembers of the past, where it remembers anything.
    """

    stock_end: Float[Array, "*scenario agent"]
    pipeline: Float[Array, "*scenario lead agent"]
    memory: Memory | None = None

    @property
    def max_lead(self) -> int:
        """Give the longest lead time the pipeline can hold [weeks]."""
        return self.pipeline.shape[-2]


def empty_state(n_agents: int, max_lead: int, stock: float | Float[Array, " agent"] = 0.0) -> State:
    """Start with the given stock on hand and nothing on order.

    Args:
        n_agents: number of agents.
        max_lead: longest lead time that will occur [weeks].
        stock: stock on hand, one number or one per agent [units].
    """
    on_hand = jnp.broadcast_to(jnp.asarray(stock, jnp.float32), (n_agents,))
    return State(stock_end=on_hand, pipeline=jnp.zeros((max_lead, n_agents), jnp.float32))
