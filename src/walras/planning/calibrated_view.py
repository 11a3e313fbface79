"""A planner's view times a factor per week and resource, so that it agrees with a simulation of the population.

Learned maps and sampled cohorts are off by a few percent, by about the same share at similar prices. One simulation at
prices lambda_0 gives the factor: U(lambda) = V(lambda) U(lambda_0) / V(lambda_0).
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from walras.config import PlanSettings
from walras.maps.interface import COHORT
from walras.maps.view import LearnedView
from walras.planning.prices.dual_ascent import ROUGH_SOLVER, solve_prices_of_plans
from walras.planning.prices.simulated_view import SimulatedView, cohort_parts
from walras.planning.protocols import Grid
from walras.population.cohort import Cohort, StratifiedSample, demand_size
from walras.population.population import Population

MAX_FACTOR = 3.0
"""Largest correction, up or down: beyond that, little use was foreseen or simulated."""


@dataclass(frozen=True, eq=False)
class CalibratedView:
    """Answer as `view` does, times `factor`.

    Attributes:
        view: learned maps, or a simulated cohort.
        factor: 1 where nothing is corrected.
        reference: the view whose price scale, highest price and controllable weeks count.
    """

    view: SimulatedView | LearnedView
    factor: Grid
    reference: SimulatedView | LearnedView
    n_weeks: int = field(init=False)
    resources: tuple[str, ...] = field(init=False)
    price_scale: float = field(init=False)
    max_price: float = field(init=False)
    controllable: Bool[np.ndarray, "week resource"] = field(init=False)

    def __post_init__(self) -> None:
        """Take over what does not depend on the view that answers."""
        for name in ("n_weeks", "resources", "price_scale", "max_price", "controllable"):
            object.__setattr__(self, name, getattr(self.reference, name))

    @staticmethod
    def of(view: LearnedView) -> "CalibratedView":
        """Start from the maps' own answers."""
        return CalibratedView(view, np.ones((view.n_weeks, len(view.resources))), view)

    @staticmethod
    def of_cohort(population_view: SimulatedView, cohort: Cohort, seed: int = 0) -> "CalibratedView":
        """Simulate a cohort on its population's scenarios, calibrated where no prices are charged.

        `seed` is that of the sample for the Jacobian.
        """
        parts = cohort_parts(cohort, *population_view.parts)
        cohort_view = SimulatedView(*parts, reserve=population_view.reserve, seed=seed)
        return CalibratedView(cohort_view, _factor(population_view.free, cohort_view.free), population_view)

    def calibrated_at(self, shadow_prices: Grid, simulated: Grid) -> "CalibratedView":
        """Return the view that answers as simulated at these prices."""
        return replace(self, factor=_factor(simulated, self.view.utilization(shadow_prices)))

    def damped(self, other: "CalibratedView") -> "CalibratedView":
        """Return the view half way to another one's factor (geometric mean)."""
        return replace(self, factor=np.sqrt(self.factor * other.factor))

    def utilization(self, shadow_prices: Any) -> Any:
        """Return utilization to plan for [*plans, week, resource]."""
        return self.view.utilization(shadow_prices) * self.factor

    def shadow_prices(self, capacity: Any) -> Any:
        """Return the prices at which the population fits a capacity [*plans, week, resource].

        Of learned maps the dual one answers where there is one; otherwise prices are searched on the view.
        """
        capacity = np.asarray(capacity, float) / self.factor
        if isinstance(self.view, SimulatedView):
            return self.view.shadow_prices(capacity)
        if self.view.dual is not None:
            return np.minimum(self.view.shadow_prices(capacity), self.max_price)
        return solve_prices_of_plans(self.view, capacity, ROUGH_SOLVER)

    def jacobian(self, shadow_prices: Grid) -> Float[np.ndarray, "entry entry"]:
        """Return dU/dlambda [utilization entry, price entry], entries in the order week, then resource."""
        return self.view.jacobian(shadow_prices) * self.factor.reshape(-1, 1)


def _factor(simulated: Grid, foreseen: Grid) -> Grid:
    """Return the ratio of two uses, within `MAX_FACTOR`; 1 where both are 0."""
    neither = np.maximum(simulated, foreseen) <= 0.0
    factor = np.clip(simulated / np.maximum(foreseen, np.finfo(float).tiny), 1 / MAX_FACTOR, MAX_FACTOR)
    return np.where(neither, 1.0, factor)


def sample_cohort(population: Population, settings: PlanSettings) -> Cohort | None:
    """Draw the cohort that a plan is searched on; None where the whole population is simulated."""
    count = settings.cohort
    if count is None:
        count = COHORT if settings.interface == "learned" else 0
    if not 0 < count < population.n_agents:
        return None
    return StratifiedSample().draw(demand_size(population), count, np.random.default_rng([settings.seed, 0xC0]))


def search_view(view: SimulatedView, settings: PlanSettings) -> SimulatedView | CalibratedView:
    """Return the view that a plan is searched on by simulation: the population's own, or a cohort's."""
    cohort = sample_cohort(view.population, settings)
    return view if cohort is None else CalibratedView.of_cohort(view, cohort, settings.seed)
