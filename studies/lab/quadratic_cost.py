"""A cost of capacity whose marginal cost rises linearly: plans with it have closed forms."""

from dataclasses import dataclass

import numpy as np

from walras.planning.costs import AbstractAcquisitionCost
from walras.planning.protocols import Grid
from walras.planning.proximal import QuadraticTerms, stationary


@dataclass(frozen=True, eq=False)
class QuadraticCost(AbstractAcquisitionCost):
    """A marginal cost that rises linearly, `A'(K) = base + slope K`.

    Attributes:
        base: marginal cost of the first unit [money/unit].
        slope: rise of the marginal cost, > 0 [money/unit^2].
        lower, upper: bounds of capacity.
    """

    base: Grid
    slope: Grid
    lower: Grid
    upper: Grid

    @classmethod
    def make(
        cls, base: Grid, slope: Grid, *, lower: Grid | float = 0.0, upper: Grid | float = np.inf
    ) -> "QuadraticCost":
        """Build the cost from arrays, with bounds broadcast over all weeks where they are single numbers."""
        bounds = (np.broadcast_to(bound, base.shape).astype(float) for bound in (lower, upper))
        return cls(base, slope, *bounds)

    def total(self, capacity: Grid) -> float:
        """Return `sum base K + slope/2 K^2` [money]."""
        return float(np.sum(self.base * capacity + 0.5 * self.slope * capacity**2))

    def top_rate(self) -> Grid:
        """Return the marginal cost at the upper bound."""
        return self.base + self.slope * self.upper

    def minimise(self, terms: QuadraticTerms) -> Grid:
        """Return the root of a piecewise-linear derivative, week by week."""
        return np.clip(stationary(self.base, self.slope, terms), self.lower, self.upper)
