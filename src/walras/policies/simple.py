"""Own the textbook policies with given parameters: order-up-to, constant order, (s,S).

OPEN: they do not look at shadow prices; add a policy as a class beside them.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.policies.base import AbstractPolicy, Observation
from walras.ties import positive_part


class OrderUpTo(AbstractPolicy):
    """Order the inventory position up to a fixed level.

    Attributes:
        level: base-stock level S [units], one number or one per agent.
    """

    level: Float[Array, "*agent"]

    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return (S - position)^+."""
        return positive_part(self.level - observation.position)


class ConstantOrder(AbstractPolicy):
    """Order the same quantity every week.

    Attributes:
        quantity: units per week, one number or one per agent.
    """

    quantity: Float[Array, "*agent"]

    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return the constant."""
        return jnp.broadcast_to(self.quantity, observation.position.shape)


class ReorderPoint(AbstractPolicy):
    """Order up to S when the position is at or below s: the (s,S) policy.

    Attributes:
        reorder_point: s [units].
        level: S [units].
    """

    reorder_point: Float[Array, "*agent"]
    level: Float[Array, "*agent"]

    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return S - position where position <= s, else nothing."""
        due = observation.position <= self.reorder_point
        return jnp.where(due, positive_part(self.level - observation.position), 0.0)
