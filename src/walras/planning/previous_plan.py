"""The plan that a new one revises, and a penalty on every unit by which capacity differs from it."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from walras.planning.costs import PiecewiseLinearCost
from walras.planning.protocols import Grid


@dataclass(frozen=True, eq=False)
class PreviousPlan:
    """An earlier plan on the weeks that are planned now; NaN in those that it did not plan.

    Attributes:
        capacity: planned [units of resource].
        regular_capacity: granted at the regular rate [units of resource].
        shadow_prices: charged for it [money per unit of resource].
    """

    capacity: Grid
    regular_capacity: Grid
    shadow_prices: Grid

    @property
    def known(self) -> Bool[np.ndarray, "week resource"]:
        """Mark the weeks that it planned."""
        return np.isfinite(self.capacity)

    def moved(self, capacity: Grid) -> float:
        """Return by how much a plan differs from it, as a share of what it planned, in the weeks of both."""
        known = self.known
        return float(np.abs(capacity - self.capacity)[known].sum() / max(self.capacity[known].sum(), 1e-9))

    def regular(self, otherwise: Grid) -> Grid:
        """Return regular capacity: what is granted already is no forecast and stays, later weeks get as much.

        Args:
            otherwise: of resources that it did not plan.
        """
        return _held(self.regular_capacity, otherwise)

    def prices(self, otherwise: Grid) -> Grid:
        """Return prices to start from; those of the last week that it planned hold for later ones.

        Args:
            otherwise: of resources that it did not plan.
        """
        return _held(self.shadow_prices, otherwise)


def _held(given: Grid, otherwise: Grid) -> Grid:
    """Carry the value of the last known week on, and that of the first known one back."""
    filled = otherwise.copy()
    for resource in range(given.shape[1]):
        known = np.flatnonzero(np.isfinite(given[:, resource]))
        if len(known):
            nearest = known[np.clip(np.searchsorted(known, np.arange(len(given)), side="right") - 1, 0, None)]
            filled[:, resource] = given[nearest, resource]
    return filled


@dataclass(frozen=True, eq=False)
class ChangePenalty(PiecewiseLinearCost):
    """Charge capacity as before, and every unit by which a week differs from the last plan.

    Attributes:
        plain: the cost without that.
        last: the last plan.
        rate: money per unit of change [week, resource].
    """

    plain: PiecewiseLinearCost = field(kw_only=True)
    last: PreviousPlan = field(kw_only=True)
    rate: Grid = field(kw_only=True)

    @classmethod
    def around(cls, plain: PiecewiseLinearCost, last: PreviousPlan, rate: Grid) -> "ChangePenalty":
        """Cut the tiers of each week where the last plan stands; below it a unit saves less, beyond it one costs more.

        Args:
            plain: cost of capacity.
            last: the last plan; weeks that it did not plan are free.
            rate: money per unit of change, 0 or more.
        """
        bounds = plain.edges[..., 0], plain.edges[..., -1]
        kink = np.clip(np.where(last.known, last.capacity, bounds[0]), *bounds)[..., None]
        edges = np.sort(np.concatenate([plain.edges, kink], -1), -1)
        middle = (edges[..., 1:] + edges[..., :-1]) / 2
        tier = (middle[..., None] > plain.edges[..., None, 1:-1]).sum(-1)
        change = np.where(last.known, rate, 0.0)[..., None] * np.where(middle > kink, 1.0, -1.0)
        rates = np.take_along_axis(plain.rates, tier, -1) + change
        bounded = plain.lower, plain.upper, plain.ramp_up, plain.ramp_down, plain.previous
        return cls(edges, rates, *bounded, plain=plain, last=last, rate=rate)

    @property
    def regular(self) -> Grid:
        """Give the regular capacity of the tiers."""
        return self.plain.regular

    @property
    def middle(self) -> Grid:
        """Give the end of the middle tier."""
        return self.plain.middle

    @property
    def first_prices(self) -> Grid | None:
        """Give the last plan's prices to start from."""
        return self.last.prices(np.zeros_like(self.lower))

    def total(self, capacity: Grid) -> float:
        """Return the bill, changes included."""
        change = np.abs(capacity - np.where(self.last.known, self.last.capacity, capacity))
        return self.plain.total(capacity) + float((self.rate * change).sum())

    def bill(self, capacity: Grid) -> float:
        """Return what capacity alone costs."""
        return self.plain.bill(capacity)
