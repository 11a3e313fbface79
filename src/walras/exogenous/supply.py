"""Own what a vendor accepts of what is placed with it: up to a limit, a share, or one after the other.

OPEN: add a supply model as a class beside these; its arrays have a week axis first and the agent axis last.
"""

import abc

import equinox as eqx
from jaxtyping import Array, Float

from walras.clipping import minimum


class AbstractSupply(eqx.Module):
    """Accept part of what is placed; the rest is refused: not paid for, never delivered, not in the order position.

    In `ExogenousPaths` the arrays of a supply model have a week axis; `accept` is called on the model of one week,
    whose arrays have none.
    """

    @abc.abstractmethod
    def accept(self, placed: Float[Array, " agent"]) -> Float[Array, " agent"]:
        """Return what the vendor accepts of this week's orders, between 0 and what is placed [units].

        Args:
            placed: orders >= 0 as the vendor gets them [units].
        """


class SupplyLimit(AbstractSupply):
    """Accept at most so many units: min(Q, placed), spec section 2.

    Attributes:
        units: Q >= 0, the most that the vendor can supply of an order placed in that week [units].
    """

    units: Float[Array, "*axes agent"]

    def accept(self, placed: Float[Array, " agent"]) -> Float[Array, " agent"]:
        """Return min(Q, placed); where they tie the derivative is that of an order about to fall, 1."""
        return minimum(self.units, placed)


class FillRate(AbstractSupply):
    """Accept a share of every order, whatever its size: share x placed.

    Attributes:
        share: between 0 and 1, of an order placed in that week.
    """

    share: Float[Array, "*axes agent"]

    def accept(self, placed: Float[Array, " agent"]) -> Float[Array, " agent"]:
        """Return share x placed, which is not rounded to whole units."""
        return self.share * placed


class Chained(AbstractSupply):
    """Let one vendor's rule follow another: `second` accepts of what `first` has accepted.

    `Chained(FillRate(share), SupplyLimit(units))` is min(Q, share x placed): the limit binds what is sent;
    `Chained(SupplyLimit(units), FillRate(share))` is share x min(Q, placed): part of what is sent is lost on the way.

    Attributes:
        first: sees what is placed.
        second: sees what the first accepts.
    """

    first: AbstractSupply
    second: AbstractSupply

    def accept(self, placed: Float[Array, " agent"]) -> Float[Array, " agent"]:
        """Return what is left after both."""
        return self.second.accept(self.first.accept(placed))
