"""Own what views have in common that answer as another one does, times a factor for each week and resource.

CONTRACT: right at the prices it was corrected at, since these were simulated; elsewhere the slope is the other's.
"""

from abc import ABC
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from walras.config import PlanSettings
from walras.maps.interface import COHORT
from walras.maps.view import LearnedView
from walras.planning.prices.dual_ascent import (
    GaussNewton,
    NewtonThenProjected,
    ProjectedDual,
    SearchableView,
    search_prices,
)
from walras.planning.prices.simulated_view import SimulatedView
from walras.policies.user_policies import number_agents
from walras.population.cohort import Cohort, StratifiedSample, demand_size
from walras.population.population import Population

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
    ) -> Any:
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


ROUGH = 0.01
"""Residual at which prices that the primal map is searched for are good enough to start from."""


@dataclass(frozen=True, eq=False)
class CorrectedView(AbstractScaledView):
    """Answer as learned maps do, times a factor for each week and resource.

    A map that was trained on many populations is a few percent off for the one at hand, in the same direction for
    prices that are alike. One simulation at prices that a plan has found says by how much; the next search starts there
    and sees use as simulated: U(lambda) = F(lambda) U(lambda_0) / F(lambda_0).

    Attributes:
        view: by learned maps.
        factor: 1 where nothing was corrected.
    """

    view: LearnedView

    @staticmethod
    def of(view: LearnedView) -> "CorrectedView":
        """Begin with what the maps say."""
        return CorrectedView(view, np.ones((view.n_weeks, len(view.resources))))

    def between(self, other: "CorrectedView") -> "CorrectedView":
        """Return the view half way to another one's correction."""
        return replace(self, factor=np.sqrt(self.factor * other.factor))

    def shadow_prices(self, capacity: Any) -> Any:
        """Return the prices at which the population fits a capacity [*plans, week, resource].

        The dual map says so where there is one; otherwise the primal one is searched.
        """
        asked = np.asarray(capacity, float) / self.factor
        if self.view.dual is not None:
            return np.minimum(self.view.shadow_prices(asked), self.max_price)
        solver = NewtonThenProjected(GaussNewton(ROUGH, 8), ProjectedDual(0.3, ROUGH, 150))
        plans = asked.reshape(-1, self.n_weeks, len(self.resources))
        found = [search_prices(self.view, plan, None, solver).prices[0].reshape(plan.shape) for plan in plans]
        return np.stack(found).reshape(asked.shape)


@dataclass(frozen=True, eq=False)
class StandIn(AbstractScaledView):
    """Answer as a simulated cohort does, times a factor for each week and resource, on everybody's scenarios.

    A cohort differs from everybody by who happened to be drawn, and at prices that are alike by about the same share.
    Where everybody was simulated, the factor makes the two agree: U(lambda) = C(lambda) U(lambda_0) / C(lambda_0).

    Attributes:
        view: of the cohort, each agent weighing for those it stands for.
        everybody: whose scale of prices, and whose weeks that answer to prices, are used.
        factor: of the last prices at which everybody was simulated.
    """

    view: SimulatedView
    everybody: SimulatedView

    @staticmethod
    def of(everybody: SimulatedView, cohort: Cohort, seed: int = 0) -> "StandIn":
        """Cut a cohort out of everything that everybody's view simulates, right where no prices are charged.

        Args:
            everybody: view of the population that the cohort was drawn from.
            cohort: who is simulated.
            seed: of the sample for the slope.
        """
        view = SimulatedView(
            cohort.people(everybody.population),
            cohort.along(everybody.exogenous),
            cohort.along(number_agents(everybody.policy, everybody.population.n_agents)),
            cohort.along(everybody.initial),
            reserve=everybody.reserve,
            seed=seed,
        )
        return StandIn(view, ratio(everybody.free, view.free), everybody)

    @property
    def whole(self) -> SimulatedView:
        """Give everybody's view."""
        return self.everybody

    @property
    def simulations(self) -> int:
        """Count the simulations of the cohort, slopes included."""
        return self.view.simulations

    def shadow_prices(self, capacity: Any) -> Any:
        """Return prices at which the cohort fits its part of a capacity [*plans, week, resource]."""
        return self.view.shadow_prices(np.asarray(capacity, float) / self.factor)


def sample_cohort(population: Population, settings: PlanSettings) -> Cohort | None:
    """Draw who stands for a population while a plan for it is searched; None where everybody is simulated.

    Args:
        population: everybody.
        settings: `cohort`, `interface` and the seed of the draw.
    """
    count = settings.cohort
    if count is None:
        count = COHORT if settings.interface == "learned" else 0
    if not 0 < count < population.n_agents:
        return None
    return StratifiedSample().draw(demand_size(population), count, np.random.default_rng([settings.seed, 0xC0]))


def cohort_view(view: SimulatedView, settings: PlanSettings) -> "SimulatedView | StandIn":
    """Return whom a plan is searched on: the view of everybody itself, or a cohort.

    Args:
        view: everybody.
        settings: `cohort`, `interface` and seed.
    """
    cohort = sample_cohort(view.population, settings)
    return view if cohort is None else StandIn.of(view, cohort, settings.seed)
