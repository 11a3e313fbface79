"""Own the StandIn: a weighted cohort that is simulated for everybody while a plan is searched, and who is in it.

CONTRACT: a cohort only steers; what everybody uses is simulated before a plan counts (`planner.checked`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from walras.config import PlanSettings
from walras.control.simulated_view import SimulatedView
from walras.maps.learned import COHORT
from walras.planner.scaled import AbstractScaledView, ratio
from walras.policies.own import number_agents
from walras.population.cohort import Cohort, StratifiedSample, demand_size
from walras.population.population import Population


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


def drawn_cohort(population: Population, settings: PlanSettings) -> Cohort | None:
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


def searched_on(view: SimulatedView, settings: PlanSettings) -> "SimulatedView | StandIn":
    """Return whom a plan is searched on: the view of everybody itself, or a cohort.

    Args:
        view: everybody.
        settings: `cohort`, `interface` and seed.
    """
    cohort = drawn_cohort(view.population, settings)
    return view if cohort is None else StandIn.of(view, cohort, settings.seed)
