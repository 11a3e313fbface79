"""Own how an order arrives: after an integer lead time, or spread over several weeks by shares.

OPEN: add an arrival model as a class beside these; its arrays have a week axis first and the agent axis last.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer


class AbstractArrivals(eqx.Module):
    """Spread what a vendor delivers of this week's orders over the weeks in which it arrives."""

    @abc.abstractmethod
    def spread(self, delivered: Float[Array, " agent"], max_lead: int) -> Float[Array, "lead agent"]:
        """Return the units that arrive 0, 1, ..., max_lead weeks from now [lead, agent]; they sum to `delivered`."""


class IntegerLeadTimes(AbstractArrivals):
    """Let an order placed in week t arrive whole in week t + weeks[t] (spec: v = 0 serves the same week).

    Attributes:
        weeks: lead time of an order placed in that week [weeks].
    """

    weeks: Integer[Array, "*axes agent"]

    def spread(self, delivered: Float[Array, " agent"], max_lead: int) -> Float[Array, "lead agent"]:
        """Put each order whole into the row of its lead time."""
        lead = jnp.arange(max_lead + 1, dtype=self.weeks.dtype)[:, None]
        return jnp.where(self.weeks[None, :] == lead, delivered[None, :], 0.0)


class ArrivalShares(AbstractArrivals):
    """Let a share of an order arrive after each number of weeks (quantity over time).

    Attributes:
        shares: share of the delivered quantity that arrives `lead` weeks after ordering; sums to 1 over lead.
    """

    shares: Float[Array, "*axes lead agent"]

    def spread(self, delivered: Float[Array, " agent"], max_lead: int) -> Float[Array, "lead agent"]:
        """Multiply by the shares; rows beyond those given are empty."""
        missing = max_lead + 1 - self.shares.shape[0]
        return jnp.pad(self.shares, ((0, missing), (0, 0))) * delivered[None, :]
