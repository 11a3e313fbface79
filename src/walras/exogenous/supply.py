"""Own what a vendor accepts of an order.

OPEN: add a law as a class beside these; its arrays have a week axis first and the agent axis last.
"""

import abc

import equinox as eqx
from jaxtyping import Array, Float

from walras.ties import lesser


class AbstractSupply(eqx.Module):
    """Accept what can be supplied of this week's orders; the rest is refused, not paid for and not on order."""

    @abc.abstractmethod
    def accept(self, placed: Float[Array, " agent"]) -> Float[Array, " agent"]:
        """Return what is accepted of what is placed, between 0 and all of it [units]."""


class SupplyLimit(AbstractSupply):
    """Accept at most Q units of an order placed in a week.

    Attributes:
        units: Q, the most of one week's order [units].
    """

    units: Float[Array, "*axes agent"]

    def accept(self, placed: Float[Array, " agent"]) -> Float[Array, " agent"]:
        """Return min(Q, placed); at a tie the derivative is that of an order about to fall, as for stock."""
        return lesser(self.units, placed)
