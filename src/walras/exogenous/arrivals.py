"""Own how an order arrives: after an integer lead time, or spread over several weeks by shares.

OPEN: add an arrival model as a class beside these; its arrays have a week axis first and the agent axis last.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer


class AbstractArrivals(eqx.Module):
    """Spread what a vendor delivers of this week's orders over the weeks in which it arrives."""

    @abc.abstractmethod
    def spread(self, delivered: Float[Array, " agent"], max_lead: int) -> Float[Array, "lead agent"]:
        """Return the units that arrive 0, 1, ..., max_lead weeks from now [lead, agent]; they sum to `delivered`."""

    def place(
        self, delivered: Float[Array, " agent"], pipeline: Float[Array, "lead agent"]
    ) -> tuple[Float[Array, " agent"], Float[Array, "lead agent"]]:
        """Return what arrives at once, and the pipeline (1, 2, ... weeks from now) with the rest added."""
        arriving = self.spread(delivered, pipeline.shape[0])
        return arriving[0], pipeline + arriving[1:]

    @abc.abstractmethod
    def longest(self) -> int | None:
        """Return the longest lead time [weeks]; None where it cannot be read, inside a JAX transform."""


class ConstantLeadTime(AbstractArrivals):
    """Let every order arrive whole after the same number of weeks.

    Attributes:
        weeks: lead time of all orders [weeks].
    """

    weeks: int = eqx.field(static=True)

    def spread(self, delivered: Float[Array, " agent"], max_lead: int) -> Float[Array, "lead agent"]:
        """Put all orders into the row of the lead time."""
        row = (jnp.arange(max_lead + 1) == self.weeks)[:, None]
        return jnp.where(row, delivered[None, :], 0.0)

    def longest(self) -> int:
        """Return the lead time."""
        return self.weeks


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

    def longest(self) -> int | None:
        """Return the longest lead time of any order."""
        return None if isinstance(self.weeks, jax.core.Tracer) else int(np.max(np.asarray(self.weeks), initial=1))


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

    def longest(self) -> int:
        """Return the last week for which there is a share."""
        return self.shares.shape[-2] - 1
