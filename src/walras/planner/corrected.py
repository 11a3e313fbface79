"""Own the CorrectedView: what learned maps answer, times what simulation found them to be off by, week by week.

CONTRACT: right at the prices it was corrected at, since these were simulated; elsewhere only the slope is learned.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from walras.control.dual import GaussNewton, NewtonThenProjected, ProjectedDual
from walras.control.search import search
from walras.maps.learned_view import LearnedView

MOST = 3.0
"""Times by which an answer is corrected at most, up or down: beyond that, little use was foreseen or simulated."""

ROUGH = 0.01
"""Residual at which prices that the primal map is searched for are good enough to start from."""


def ratio(
    simulated: Float[np.ndarray, "week resource"], foreseen: Float[np.ndarray, "week resource"]
) -> Float[np.ndarray, "week resource"]:
    """Return what foreseen use is to be multiplied by, within `MOST`; 1 where there is none of either."""
    nothing = np.maximum(simulated, foreseen) <= 0.0
    found = np.clip(simulated / np.maximum(foreseen, np.finfo(float).tiny), 1 / MOST, MOST)
    return np.where(nothing, 1.0, found)


@dataclass(frozen=True, eq=False)
class CorrectedView:
    """Answer as learned maps do, times a factor for each week and resource.

    A map that was trained on many populations is a few percent off for the one at hand, in the same direction for
    prices that are alike. One simulation at prices that a plan has found says by how much; the next search starts there
    and sees use as simulated: U(lambda) = F(lambda) U(lambda_0) / F(lambda_0).

    Attributes:
        view: by learned maps.
        factor: 1 where nothing was corrected.
    """

    view: LearnedView
    factor: Float[np.ndarray, "week resource"]

    @staticmethod
    def of(view: LearnedView) -> "CorrectedView":
        """Begin with what the maps say."""
        return CorrectedView(view, np.ones((view.n_weeks, len(view.resources))))

    def at(
        self, shadow_prices: Float[np.ndarray, "week resource"], simulated: Float[np.ndarray, "week resource"]
    ) -> "CorrectedView":
        """Return the view that answers as simulated at these prices.

        Args:
            shadow_prices: that were simulated [money per unit of resource].
            simulated: use to plan for at these [units of resource].
        """
        return replace(self, factor=ratio(simulated, self.view.utilization(shadow_prices)))

    def between(self, other: "CorrectedView") -> "CorrectedView":
        """Return the view half way to another one's correction."""
        return replace(self, factor=np.sqrt(self.factor * other.factor))

    @property
    def n_weeks(self) -> int:
        """Count the weeks of the horizon."""
        return self.view.n_weeks

    @property
    def resources(self) -> tuple[str, ...]:
        """Name the resources in the order of their axis."""
        return self.view.resources

    @property
    def price_scale(self) -> float:
        """Give the median margin per unit of the first resource [money per unit of resource]."""
        return self.view.price_scale

    @property
    def max_price(self) -> float:
        """Give the price beyond which nobody would order [money per unit of resource]."""
        return self.view.max_price

    @property
    def controllable(self) -> Bool[np.ndarray, "week resource"]:
        """Mark the weeks into which orders still to be placed can arrive."""
        return self.view.controllable

    def utilization(self, shadow_prices: Any) -> Any:
        """Return utilization to plan for [*plans, week, resource]."""
        return self.view.utilization(shadow_prices) * self.factor

    def jacobian(self, shadow_prices: Float[np.ndarray, "week resource"]) -> Float[np.ndarray, "entry entry"]:
        """Return dU/dlambda [utilization entry, price entry], entries in the order week, then resource."""
        return self.view.jacobian(shadow_prices) * self.factor.reshape(-1, 1)

    def shadow_prices(self, capacity: Any) -> Any:
        """Return the prices at which the population fits a capacity [*plans, week, resource].

        The dual map says so where there is one; otherwise the primal one is searched.
        """
        asked = np.asarray(capacity, float) / self.factor
        if self.view.dual is not None:
            return np.minimum(self.view.shadow_prices(asked), self.max_price)
        solver = NewtonThenProjected(GaussNewton(ROUGH, 8), ProjectedDual(0.3, ROUGH, 150))
        plans = asked.reshape(-1, self.n_weeks, len(self.resources))
        found = [search(self.view, plan, None, solver).prices[0].reshape(plan.shape) for plan in plans]
        return np.stack(found).reshape(asked.shape)
