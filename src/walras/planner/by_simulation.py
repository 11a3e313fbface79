"""Own planning by simulation at every step, of everybody or of a cohort: no learning, any population.

CONTRACT: maps fall back to it where their plan does not settle.
"""

from walras.config import PlanSettings
from walras.control.dual import GaussNewton, NewtonThenProjected, ProjectedDual
from walras.control.search import SearchableView, search
from walras.control.simulated_view import SimulatedView
from walras.planner.case import PlanningCase
from walras.planner.checked import SEARCHING, checked
from walras.planner.costs import PiecewiseLinearCost
from walras.planner.result import PlanRecord, Search
from walras.planner.search import found, judged
from walras.planner.stand_in import StandIn, searched_on
from walras.progress import Progress

ROUGH = 0.01
"""Residual at which the prices that the loop starts from are good enough."""


def plan_by_simulation(
    case: PlanningCase, cost: PiecewiseLinearCost, settings: PlanSettings, progress: Progress
) -> tuple[PlanRecord, Search]:
    """Plan by simulation: on everybody, or where the settings name a cohort on that, and then check with everybody.

    Args:
        case: who is planned.
        cost: of capacity.
        settings: rule, iterations and cohort.
        progress: told about stages and steps.
    """
    searched = searched_on(case.view, settings)
    if isinstance(searched, StandIn):
        progress.stage(SEARCHING)
    record = plan_on(searched, cost, settings, progress)
    return checked(case.view, searched, cost, record, progress), how(case.view, searched, record.queries)


def how(view: SimulatedView, searched: SimulatedView | StandIn, queries: int) -> Search:
    """Say what was simulated while a plan was searched by simulation.

    Args:
        view: everybody.
        searched: whom the plan was searched on.
        queries: candidate plans asked about.
    """
    others, cohort = 0, 0
    if isinstance(searched, StandIn):
        others, cohort = searched.simulations, searched.view.population.n_agents
    return Search(queries=queries, simulations=view.simulations + others, everybody=view.queries, cohort=cohort)


def make_plan(view: SimulatedView, cost: PiecewiseLinearCost, settings: PlanSettings, progress: Progress) -> PlanRecord:
    """Plan on everybody, and judge the plan by expected use.

    `feasible` then says that expected use is within capacity in every week; that the reserve is kept as well is what
    `converged` says.
    """
    return judged(view, plan_on(view, cost, settings, progress))


def plan_on(view: SearchableView, cost: PiecewiseLinearCost, settings: PlanSettings, progress: Progress) -> PlanRecord:
    """Run the planning loop on a simulated population, from the last plan's prices or those of the middle tier."""
    if cost.first_prices is not None:
        return found(view, cost, settings, progress, cost.first_prices)
    rough = NewtonThenProjected(GaussNewton(ROUGH, 8), ProjectedDual(0.3, ROUGH, 150))
    start = search(view, cost.middle, None, rough).prices[0].reshape(cost.lower.shape)
    return found(view, cost, settings, progress, start)
