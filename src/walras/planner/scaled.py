"""Own what views have in common that answer as another one does, times a factor for each week and resource.

CONTRACT: right at the prices it was corrected at, since these were simulated; elsewhere the slope is the other's.
"""

from abc import ABC
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float

from walras.control.search import SearchableView
from walras.control.simulated_view import SimulatedView
from walras.maps.learned_view import LearnedView

MOST = 3.0
"""Times by which an answer is corrected at most, up or down: beyond that, little use was foreseen or simulated."""


def ratio(
    simulated: Float[np.ndarray, "week resource"], foreseen: Float[np.ndarray, "week resource"]
) -> Float[np.ndarray, "week resource"]:
    """Return what foreseen use is to be multiplied by, within `MOST`; 1 where there is none of either."""
    nothing = np.maximum(simulated, foreseen) <= 0.0
    found = np.clip(simulated / np.maximum(foreseen, np.finfo(float).tiny), 1 / MOST, MOST)
    return np.where(nothing, 1.0, found)


@dataclass(frozen=True, eq=False)
class AbstractScaledView(ABC):
    """Answer as a view does, times a factor: U(lambda) = V(lambda) U(lambda_0) / V(lambda_0).

    Attributes:
        view: that is asked.
        factor: of the last prices that were simulated.
    """

    view: SimulatedView | LearnedView
    factor: Float[np.ndarray, "week resource"]

    @property
    def whole(self) -> SearchableView:
        """Give the view whose weeks, resources and scale of prices are used."""
        return self.view

    def at(
        self, shadow_prices: Float[np.ndarray, "week resource"], simulated: Float[np.ndarray, "week resource"]
    ) -> Self:
        """Return the view that answers as simulated at these prices.

        Args:
            shadow_prices: that were simulated [money per unit of resource].
            simulated: use to plan for at these [units of resource].
        """
        return replace(self, factor=ratio(simulated, self.view.utilization(shadow_prices)))

    @property
    def n_weeks(self) -> int:
        """Count the weeks of the horizon."""
        return self.whole.n_weeks

    @property
    def resources(self) -> tuple[str, ...]:
        """Name the resources in the order of their axis."""
        return self.whole.resources

    @property
    def price_scale(self) -> float:
        """Give the median margin per unit of the first resource [money per unit of resource]."""
        return self.whole.price_scale

    @property
    def max_price(self) -> float:
        """Give the price beyond which nobody would order [money per unit of resource]."""
        return self.whole.max_price

    @property
    def controllable(self) -> Bool[np.ndarray, "week resource"]:
        """Mark the weeks in which orders still to be placed make a difference."""
        return self.whole.controllable

    def utilization(self, shadow_prices: Any) -> Any:
        """Return utilization to plan for [*plans, week, resource]."""
        return self.view.utilization(shadow_prices) * self.factor

    def jacobian(self, shadow_prices: Float[np.ndarray, "week resource"]) -> Float[np.ndarray, "entry entry"]:
        """Return dU/dlambda [utilization entry, price entry], entries in the order week, then resource."""
        return self.view.jacobian(shadow_prices) * self.factor.reshape(-1, 1)
