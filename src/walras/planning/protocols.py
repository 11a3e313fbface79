"""Own what a planner may ask about a population: its utilization at given prices, the prices that fit a capacity.

CONTRACT: the simulator answers it exactly, learned maps answer it fast; planner and control see nothing else.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float


@runtime_checkable
class PlannerView(Protocol):
    """Answer a planner's two questions about one population at one origin, for many candidate plans at once.

    Everything that does not depend on the candidate (history, scenarios, embeddings of the population) is prepared when
    the view is made, so that a call costs only what the candidates cost. Leading `plans` axes are free: a call on
    `[plans, week, resource]` answers each plan as if it had been asked alone. Answers are deterministic: the same
    question twice gives the same numbers. Prices are money per unit of resource; maps that work in other units convert
    at this border.

    The number of weeks, the names of the resources and the price scale (the population's median unit margin, the unit
    in which prices are compared) may be attributes or properties.

    A view may also carry, and the planner then uses:
        controllable: weeks in which orders still to be placed make a difference (bool) [week, resource].
        max_price: the price beyond which nobody would order [money/unit].
        value, jacobian: see `ValuedView` and `DifferentiableView`.
    """

    @property
    def n_weeks(self) -> int:
        """Count the weeks of the horizon."""
        ...

    @property
    def resources(self) -> tuple[str, ...]:
        """Name what is along the resource axis."""
        ...

    @property
    def price_scale(self) -> float:
        """Give the population's median unit margin [money/unit]."""
        ...

    def utilization(
        self, shadow_prices: Float[np.ndarray, "*plans week resource"]
    ) -> Float[np.ndarray, "*plans week resource"]:
        """Return the expected utilization F(lambda; P) when these prices are announced in full (spec eq. 3)."""
        ...

    def shadow_prices(
        self, capacity: Float[np.ndarray, "*plans week resource"]
    ) -> Float[np.ndarray, "*plans week resource"]:
        """Return the prices G(K; P) >= 0 at which the population fits the capacity (spec eq. 3)."""
        ...


@runtime_checkable
class ValuedView(PlannerView, Protocol):
    """Answer also what the population earns: a view that can offers it, and the planner then reports total cost."""

    def value(self, shadow_prices: Float[np.ndarray, "*plans week resource"]) -> Float[np.ndarray, "*plans"]:
        """Return the expected reward over the horizon at these prices, price payments not deducted [money]."""
        ...


@runtime_checkable
class DifferentiableView(PlannerView, Protocol):
    """Answer also how utilization responds to prices; without it the planner asks by pulses."""

    def jacobian(self, shadow_prices: Float[np.ndarray, "week resource"]) -> Float[np.ndarray, "entry entry"]:
        """Return dU/dlambda [utilization entry, price entry], entries in the order week, then resource."""
        ...
