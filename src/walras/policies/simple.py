"""Textbook policies with given parameters, which ignore shadow prices: base stock, capped, constant, (s, S)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.clipping import minimum, positive_part
from walras.policies.base import AbstractOrderUpTo, Observation, PerAgent, Policy, PublicObservation, ShadowPrices


class OrderUpTo(Policy):
    """Order the inventory position up to a fixed level.

    Attributes:
        level: base-stock level S [units], one number or one per agent.
    """

    level: Float[Array, "*agent"]

    def orders(self, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return (S - position)^+."""
        return positive_part(self.level - observation.position)


class CappedBaseStock(Policy):
    """Order the inventory position up to a fixed level, but at most a cap: smoother orders for lost-sales stores.

    Attributes:
        level: base-stock level S [units].
        cap: most that is ordered in a week [units]; both one number, or both one per agent.
    """

    level: Float[Array, "*agent"]
    cap: Float[Array, "*agent"]

    def orders(self, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the lesser of (S - position)^+ and the cap."""
        wanted = positive_part(self.level - observation.position)
        return minimum(wanted, jnp.broadcast_to(self.cap, wanted.shape))


class ForecastBaseStock(AbstractOrderUpTo):
    """Order up to a level that moves with the forecast of lead-time demand: a x mean + b x standard deviation.

    Attributes:
        mean_factor: a.
        sd_factor: b; both one number, or both one per agent.
    """

    mean_factor: Float[Array, "*agent"]
    sd_factor: Float[Array, "*agent"]

    def target(self, outlook: PublicObservation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return a x mean + b x standard deviation, not below 0 [units]."""
        return positive_part(self.mean_factor * outlook.lead_demand_mean + self.sd_factor * outlook.lead_demand_sd)


class ConstantOrder(Policy):
    """Order the same quantity every week.

    Attributes:
        quantity: units per week, one number or one per agent.
    """

    quantity: Float[Array, "*agent"]

    def orders(self, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the constant."""
        return jnp.broadcast_to(self.quantity, observation.position.shape)


class ReorderPoint(Policy):
    """Order up to S when the position is at or below s: the (s,S) policy.

    Attributes:
        reorder_point: s [units].
        level: S [units].
    """

    reorder_point: Float[Array, "*agent"]
    level: Float[Array, "*agent"]

    def orders(self, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return S - position where position <= s, else nothing."""
        due = observation.position <= self.reorder_point
        return jnp.where(due, positive_part(self.level - observation.position), 0.0)
