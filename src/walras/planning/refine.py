"""Verify a plan by simulation, of a cohort or of all agents, and refine it by Newton steps until it fits."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from walras.planning.calibrated_view import CalibratedView
from walras.planning.costs import AbstractAcquisitionCost
from walras.planning.prices.simulated_view import SimulatedView
from walras.planning.protocols import Grid, SearchableView
from walras.planning.result import PlanRecord
from walras.planning.revision_loop import StopRule, run_revision_loop
from walras.planning.revision_rules import ProximalPoint
from walras.progress import Progress

TOLERANCE = 5e-3
"""Residual at which a plan is good enough: a tenth of what scenarios differ by from week to week."""

FEASIBLE = 0.01
"""Expected use may exceed capacity by this share in a feasible plan."""

NEGLIGIBLE = 1e-6
"""Use below this counts as none [units of resource]: a week without capacity and without use stays feasible."""

NEWTON_STEPS = 12
"""Most revisions of a refinement: each is a simulation, or three where it disappoints, and every third a Jacobian."""

NEAR, LOWERED = 0.05, 0.25
"""Mean residual up to which a refinement starts from the planned prices, and the share of them used otherwise.

Newton steps converge from low prices, where use falls steeply, and fail from high ones, where it hardly responds."""

VERIFICATIONS = 4
"""Most simulations of all agents: the first verifies, one more follows each refinement on the cohort."""

SEARCHING, CHECKING = "Searching on a cohort", "Simulating everybody"
"""Names of the stages in `PlanResult.seconds`."""


def stop_rule(view: SearchableView, iterations: int, patience: int) -> StopRule:
    """Stop where every residual is within `TOLERANCE`, after `iterations`, or after `patience` without progress."""
    limits = {"feasibility": TOLERANCE, "complementarity": TOLERANCE, "price_gap": TOLERANCE}
    return StopRule(max_iterations=iterations, patience=patience, max_price=view.max_price, **limits)


def complementarity_residual(view: SearchableView, record: PlanRecord, simulated: Grid) -> Grid:
    """Return |min(price / price scale, relative room)| at the simulated use; 0 where prices can do no more."""
    room = (record.capacity - simulated) / np.maximum(record.capacity, 1e-9)
    beyond_control = ~view.controllable | ((record.shadow_prices >= view.max_price) & (room < 0))
    return np.where(beyond_control, 0.0, np.abs(np.minimum(record.shadow_prices / view.price_scale, room)))


def assess_feasibility(view: SimulatedView, record: PlanRecord, expected: Grid | None = None) -> PlanRecord:
    """Compare capacity with expected use, without the planning reserve, and name the weeks that do not fit.

    `expected` is the use at the plan's prices; simulated unless given.
    """
    expected = view.expected(record.shadow_prices) if expected is None else expected
    limit = record.capacity * (1 + FEASIBLE) + NEGLIGIBLE
    over, late = expected > limit, view.committed > limit
    parts = [reason_prefix(record).replace("largest shortage", "largest shortage, reserve included,")]
    for words, where in (("already committed", over & late), ("expected use above capacity", over & ~late)):
        weeks = np.flatnonzero(where.any(axis=1)) + 1
        if len(weeks):
            more = f" and {len(weeks) - 6} more" if len(weeks) > 6 else ""
            parts.append(f"{words} in planned week {', '.join(map(str, weeks[:6]))}{more}")
    return replace(record, utilization=expected, feasible=not bool(over.any()), stop_reason="; ".join(parts))


def refine_by_simulation(
    view: SearchableView,
    cost: AbstractAcquisitionCost,
    record: PlanRecord,
    simulated: Grid,
    progress: Progress | None = None,
    *,
    revisions: int = NEWTON_STEPS,
) -> PlanRecord:
    """Revise a plan by Newton steps on simulated use, with the simulator's Jacobian, unless it fits as it is.

    Args:
        view: by simulation, of all agents or of a calibrated cohort.
        cost, record: of capacity, and the plan.
        simulated: use to plan for at the plan's prices [units of resource].
        progress: notified of steps.
        revisions: at most.

    Returns:
        The better of the two plans by mean residual; `converged` and `stop_reason` refer to simulated use.
    """
    residual = complementarity_residual(view, record, simulated)
    if residual.max(initial=0.0) <= TOLERANCE:
        return record
    start = record.shadow_prices * (1.0 if residual.mean() <= NEAR else LOWERED)
    stop = stop_rule(view, revisions, revisions)
    refined = run_revision_loop(view, cost, rule=ProximalPoint(), start=start, stop=stop, progress=progress)
    before, after = residual.mean(), complementarity_residual(view, refined, refined.utilization).mean()
    better = bool(after < before)
    first, rest = record.iterations, refined.iterations
    reason = f"converged after {first} revisions and {rest} more by simulation"
    if not refined.converged:
        reason = (
            f"not converged: after {first} revisions and {rest} more by simulation weeks are {min(before, after):.2%} "
            "off on average, reserve included"
        )
    return replace(
        refined if better else record,
        converged=refined.converged and better,
        stop_reason=reason,
        iterations=first + rest,
        trace=_joined_trace(record, refined),
    )


def _joined_trace(first: PlanRecord, second: PlanRecord) -> tuple[Mapping[str, float], ...]:
    count = len(first.trace)
    return (*first.trace, *({**entry, "iteration": entry["iteration"] + count} for entry in second.trace))


def verify_on_population(
    population_view: SimulatedView,
    searched: SimulatedView | CalibratedView,
    cost: AbstractAcquisitionCost,
    record: PlanRecord,
    progress: Progress,
) -> PlanRecord:
    """Simulate all agents under a plan; one found on a cohort is refined on the recalibrated cohort until it fits.

    Args:
        population_view: of all agents, by simulation.
        searched: the view that the plan was found on.
        cost, record, progress: of capacity; the plan; notified of stages and steps.

    Returns:
        The plan with the smallest mean residual on all agents.
    """
    progress.stage(CHECKING)
    if not isinstance(searched, CalibratedView):
        return assess_feasibility(population_view, record)
    least, verifications = float("inf"), 0
    while True:
        planned, expected = population_view.planned_and_expected(record.shadow_prices)
        residual, verifications = complementarity_residual(population_view, record, planned), verifications + 1
        worst = float(residual.max(initial=0.0))
        if residual.mean() < least:
            best, best_expected, best_worst, least = record, expected, worst, residual.mean()
        if worst <= TOLERANCE or verifications == VERIFICATIONS:
            break
        progress.stage(SEARCHING)
        searched = searched.calibrated_at(record.shadow_prices, planned)
        record = refine_by_simulation(searched, cost, record, planned, progress)
        progress.stage(CHECKING)
    described = _describe_cohort_search(best, searched, verifications, best_worst)
    return assess_feasibility(population_view, described, best_expected)


def _describe_cohort_search(
    record: PlanRecord, searched: CalibratedView, verifications: int, worst: float
) -> PlanRecord:
    """Add the size of the cohort and how well the plan fits all agents to the reason for stopping."""
    agents, fits = searched.view.population.n_agents, worst <= TOLERANCE
    times = "once" if verifications == 1 else f"{verifications} times"
    reason = f"{reason_prefix(record)}, searched on a cohort of {agents} agents, all agents simulated {times}"
    if not fits:
        reason += f", after which the worst week is {worst:.2%} off, reserve included"
    return replace(record, converged=record.converged and fits, stop_reason=reason)


def reason_prefix(record: PlanRecord) -> str:
    """Return why the search stopped, without the weeks that the loop itself names."""
    return record.stop_reason.partition(";")[0]
