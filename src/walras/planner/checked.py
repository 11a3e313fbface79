"""Own the check of a plan that was found on a cohort: everybody is simulated, and what does not fit is mended.

CONTRACT: whether a plan is feasible is said by a simulation of everybody; `converged` tells of everybody as well.
"""

from dataclasses import replace

from walras.control.simulated_view import SimulatedView
from walras.planner.costs import AbstractAcquisitionCost
from walras.planner.polish import misses, polished
from walras.planner.result import PlanRecord
from walras.planner.search import TOLERANCE, in_short, judged
from walras.planner.stand_in import StandIn
from walras.progress import Progress

CHECKS = 4
"""Simulations of everybody at most: the first that checks, and one after each time that a plan was mended."""

SEARCHING, CHECKING = "Searching on a cohort", "Simulating everybody"
"""Stages that time is told by."""


def checked(
    everybody: SimulatedView,
    searched: SimulatedView | StandIn,
    cost: AbstractAcquisitionCost,
    record: PlanRecord,
    progress: Progress,
) -> PlanRecord:
    """Judge a plan by simulating everybody; one of a cohort is mended on it until everybody fits, a few times at most.

    Args:
        everybody: by simulation.
        searched: whom the plan was found on, everybody or a cohort.
        cost: of capacity.
        record: the plan.
        progress: told about stages and steps.

    Returns:
        Of all plans tried the one that fits everybody best.
    """
    progress.stage(CHECKING)
    if not isinstance(searched, StandIn):
        return judged(everybody, record)
    best, least, checks = record, float("inf"), 0
    while True:
        planned, expected = everybody.judgement(record.shadow_prices)
        missed, checks = misses(everybody, record, planned), checks + 1
        if missed.mean() < least:
            best, best_expected, worst, least = record, expected, missed.max(initial=0.0), missed.mean()
        if missed.max(initial=0.0) <= TOLERANCE or checks == CHECKS:
            break
        progress.stage(SEARCHING)
        searched = searched.at(record.shadow_prices, planned)
        record = polished(searched, cost, record, planned, progress)
        progress.stage(CHECKING)
    return judged(everybody, _told(best, searched, checks, float(worst)), best_expected)


def _told(record: PlanRecord, searched: StandIn, checks: int, worst: float) -> PlanRecord:
    """Say how the search on a cohort ended for everybody."""
    drawn, fits = searched.view.population.n_agents, worst <= TOLERANCE
    times = "once" if checks == 1 else f"{checks} times"
    words = f"{in_short(record)}, searched on a cohort of {drawn} agents, everybody simulated {times}"
    if not fits:
        words += f", after which the worst week is {worst:.2%} off, reserve included"
    return replace(record, converged=record.converged and fits, stop_reason=words)
