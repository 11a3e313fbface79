"""What a planner may ask about a population: use at given prices, prices that fit a capacity, slopes.

CONTRACT: `SimulatedView` answers by simulation, `maps.view.LearnedView` by learned maps; planners see nothing else.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

Grid = Float[np.ndarray, "week resource"]
"""One number per week and resource."""

Plans = Float[np.ndarray, "*plans week resource"]
"""The same for any number of candidate plans."""


@runtime_checkable
class PlannerView(Protocol):
    """Answer questions about one population at one origin, for many candidate plans at once.

    Leading `plans` axes are free: each plan is answered as if it had been asked alone. Answers are deterministic.
    Prices are money per unit of resource. Properties may be attributes. The planner uses `controllable` and `max_price`
    (`SearchableView`), `value` (`ValuedView`) and `jacobian` (`DifferentiableView`) where a view has them.
    """

    @property
    def n_weeks(self) -> int:
        """Count the weeks of the horizon."""

    @property
    def resources(self) -> tuple[str, ...]:
        """Name what is along the resource axis."""

    @property
    def price_scale(self) -> float:
        """Give the unit in which prices are compared, the median margin per unit of resource [money/unit]."""

    def utilization(self, shadow_prices: Plans) -> Plans:
        """Return the expected utilization F(lambda; P) when these prices are announced in full (spec eq. 3)."""

    def shadow_prices(self, capacity: Plans) -> Plans:
        """Return the prices G(K; P) >= 0 at which the population fits the capacity (spec eq. 3)."""


@runtime_checkable
class ValuedView(PlannerView, Protocol):
    """A view that also knows what the population earns, so that the planner can report total cost."""

    def value(self, shadow_prices: Plans) -> Float[np.ndarray, "*plans"]:
        """Return the expected reward over the horizon, price payments not deducted [money]."""


@runtime_checkable
class DifferentiableView(PlannerView, Protocol):
    """A view that also knows how utilization responds to prices; without it the planner estimates that by pulses."""

    def jacobian(self, shadow_prices: Grid) -> Float[np.ndarray, "entry entry"]:
        """Return dU/dlambda [utilization entry, price entry], entries in the order week, then resource."""


class SearchableView(DifferentiableView, Protocol):
    """A view that also knows where prices make a difference, and how high they may be."""

    @property
    def controllable(self) -> Bool[np.ndarray, "week resource"]:
        """Mark the weeks in which orders still to be placed make a difference."""

    @property
    def max_price(self) -> float:
        """Give the price beyond which hardly any agent would order [money/unit]."""
