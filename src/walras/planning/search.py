"""Search a plan: by simulation of all agents or of a cohort, or by learned maps; `refine` verifies it.

All search on a `SearchableView`: the population's own, or one calibrated to it (`calibrated_view`).
"""

from dataclasses import replace

import numpy as np
from scipy.special import ndtri

from walras.config import PlanSettings
from walras.errors import InputError, SettingsError, join
from walras.maps.features import HORIZON
from walras.maps.interface import Interface
from walras.maps.view import LearnedView
from walras.planning.calibrated_view import CalibratedView, sample_cohort, search_view
from walras.planning.costs import PiecewiseLinearCost
from walras.planning.prices.dual_ascent import ROUGH_SOLVER, solve_prices_of_plans
from walras.planning.prices.simulated_view import SimulatedView
from walras.planning.problem import PlanningProblem
from walras.planning.protocols import Grid, SearchableView
from walras.planning.refine import (
    SEARCHING,
    TOLERANCE,
    complementarity_residual,
    reason_prefix,
    refine_by_simulation,
    stop_rule,
    verify_on_population,
)
from walras.planning.result import PlanRecord, Search
from walras.planning.revision_loop import run_revision_loop
from walras.planning.revision_rules import AdaptiveSubgradient, Consensus, MarginalCost, ProximalPoint
from walras.progress import Progress

RULES = {"consensus": Consensus, "marginal": MarginalCost, "proximal": ProximalPoint}
"""Revision rules by the name that settings use."""

ROUNDS = 3
"""Plans made by maps, each with answers calibrated to the simulation of the one before it."""


def search_plan(
    view: SearchableView,
    cost: PiecewiseLinearCost,
    settings: PlanSettings,
    progress: Progress,
    start: Grid | None = None,
) -> PlanRecord:
    """Run the planning loop; where the rule stalls, continue with adaptive subgradient steps and keep the better plan.

    Args:
        view, cost: the population, and the cost of capacity.
        settings: `rule` and `max_iterations`.
        progress: notified of steps.
        start: first shadow prices; default those of the previous plan, else such as roughly fit the second tier.
    """
    if start is None:
        start = cost.first_prices
    if start is None:
        start = solve_prices_of_plans(view, cost.middle, ROUGH_SOLVER)
    stop = stop_rule(view, settings.max_iterations, patience=12)
    record = run_revision_loop(view, cost, rule=RULES[settings.rule](), start=start, stop=stop, progress=progress)
    if record.converged:
        return record
    stop = stop_rule(view, 3 * settings.max_iterations, patience=settings.max_iterations)
    start = record.shadow_prices
    slow = run_revision_loop(view, cost, rule=AdaptiveSubgradient(), start=start, stop=stop, progress=progress)
    return min((record, slow), key=_worst_residual)


def _worst_residual(record: PlanRecord) -> float:
    return min(max(entry["feasibility"], entry["complementarity"], entry["price_gap"]) for entry in record.trace)


def plan_by_simulation(
    problem: PlanningProblem, cost: PiecewiseLinearCost, settings: PlanSettings, progress: Progress
) -> tuple[PlanRecord, Search]:
    """Plan by simulating all agents, or a cohort (`settings.cohort`) that is then verified on all agents."""
    searched = search_view(problem.view, settings)
    if isinstance(searched, CalibratedView):
        progress.stage(SEARCHING)
    record = search_plan(searched, cost, settings, progress)
    verified = verify_on_population(problem.view, searched, cost, record, progress)
    return verified, _search_stats(problem.view, searched, record.queries)


def _search_stats(population_view: SimulatedView, searched: SimulatedView | CalibratedView, queries: int) -> Search:
    simulations, cohort = population_view.simulations, 0
    if isinstance(searched, CalibratedView) and isinstance(searched.view, SimulatedView):
        simulations += searched.view.simulations
        cohort = searched.view.population.n_agents
    return Search(queries=queries, simulations=simulations, full_simulations=population_view.queries, cohort=cohort)


def load_maps(settings: PlanSettings) -> Interface:
    """Load the maps that `settings.maps` names.

    Raises:
        InputError, SettingsError: no such maps, damaged or of other resources; more weeks than they answer for.
    """
    interface = Interface.load(settings.maps)
    if interface.primal is None:
        raise InputError(
            f"{interface.source} holds no primal map but a plan needs one; train it with `walras train primal --out "
            f"{interface.source}`"
        )
    if interface.resources != settings.resources:
        raise SettingsError(
            f"`resources` is {join(settings.resources)} but the maps of {interface.source} know "
            f"{join(interface.resources)}; plan these, or load maps that were trained for yours"
        )
    if not 2 <= settings.weeks <= HORIZON + 1:
        raise SettingsError(
            f"`weeks` is {settings.weeks} but learned maps answer for 2 to {HORIZON + 1}; give one of these, or set "
            "`interface` to simulated"
        )
    return interface


def encode_population(problem: PlanningProblem, interface: Interface, settings: PlanSettings) -> LearnedView:
    """Encode a problem's population at the first planned week.

    Raises:
        InputError: a problem without a history: it was not built with `interface` set to learned.
    """
    if problem.history is None:
        raise InputError(
            "the problem has no history but learned maps read one; build it with `interface` set to learned"
        )
    knows_error = interface.primal is not None and "relative_error" in interface.primal.facts
    reserve = max(float(ndtri(settings.service_level)), 0.0) if knows_error and settings.scenarios > 1 else 0.0
    return interface.encode(
        problem.population,
        problem.history,
        problem.policy,
        cohort=sample_cohort(problem.population, settings),
        weeks=settings.weeks,
        reserve=reserve,
        seed=settings.seed,
    )


def plan_by_maps(
    problem: PlanningProblem,
    view: LearnedView,
    cost: PiecewiseLinearCost,
    settings: PlanSettings,
    progress: Progress,
    *,
    rounds: int = ROUNDS,
) -> tuple[PlanRecord, Search]:
    """Plan on learned maps, simulate the plan, calibrate the maps to it, and plan again.

    Returns the round with the smallest simulated residual; if a round gets worse, the calibration is damped by one
    half. A plan that does not fit yet is refined by simulation and, failing that, searched by simulation from scratch:
    `stop_reason` says so.

    Args:
        problem, view: its simulation calibrates and verifies; its population, encoded by maps.
        cost, settings, progress: see `search_plan`.
        rounds: plans made at most, at least 1; each costs a simulation of all agents, or of the cohort.
    """
    if rounds < 1:
        raise SettingsError(f"`rounds` is {rounds} but at least 1 is needed; give e.g. {ROUNDS}")
    population_view = problem.view
    simulations, queries = population_view.simulations, population_view.queries
    searched = search_view(population_view, settings)
    by_maps, simulated, errors = _calibration_rounds(
        population_view.free, searched, view, cost, settings, progress, rounds
    )
    record = refine_by_simulation(searched, cost, by_maps, simulated, progress)
    if record.converged:
        record = verify_on_population(population_view, searched, cost, record, progress)
    else:
        record = _search_from_scratch(population_view, searched, cost, record, settings, progress)
    stats = _search_stats(population_view, searched, view.queries)
    return replace(record, queries=view.queries), replace(
        stats,
        interface="learned",
        maps=settings.maps,
        simulations=stats.simulations - simulations,
        full_simulations=stats.full_simulations - queries,
        errors=errors,
        outside_training=view.out_of_distribution,
    )


def _calibration_rounds(
    free: Grid,
    searched: SimulatedView | CalibratedView,
    view: LearnedView,
    cost: PiecewiseLinearCost,
    settings: PlanSettings,
    progress: Progress,
    rounds: int,
) -> tuple[PlanRecord, Grid, tuple[float, ...]]:
    """Return the plan with the smallest residual, its simulated use, and the maps' error in each round.

    The first calibration is at price zero, since most of a map's error does not depend on prices.
    """
    maps = CalibratedView.of(view).calibrated_at(np.zeros_like(free), free)
    start, least = cost.first_prices, np.inf
    start = maps.shadow_prices(cost.middle) if start is None else start
    errors: list[float] = []
    for _ in range(rounds):
        record = search_plan(maps, cost, settings, progress, start)
        simulated = searched.utilization(record.shadow_prices)
        errors.append(float(np.abs(record.utilization - simulated).sum() / max(simulated.sum(), 1e-9)))
        residual = complementarity_residual(searched, record, simulated)
        calibrated = maps.calibrated_at(record.shadow_prices, simulated)
        if residual.mean() < least:
            maps, best, least, start = calibrated, (record, simulated), residual.mean(), record.shadow_prices
        else:
            maps = maps.damped(calibrated)
        if residual.max(initial=0.0) <= TOLERANCE:
            break
    return (*best, tuple(errors))


def _search_from_scratch(
    population_view: SimulatedView,
    searched: SimulatedView | CalibratedView,
    cost: PiecewiseLinearCost,
    record: PlanRecord,
    settings: PlanSettings,
    progress: Progress,
) -> PlanRecord:
    """Plan by simulation alone; keep the maps' plan where only that one is feasible."""
    anew = search_plan(searched, cost, settings, progress)
    anew = verify_on_population(population_view, searched, cost, anew, progress)
    if not (anew.converged or anew.feasible):
        by_maps = verify_on_population(population_view, searched, cost, record, progress)
        if by_maps.feasible:
            return by_maps
    reason = f"searched by simulation, since the plan by maps did not settle ({reason_prefix(record)})"
    iterations = record.iterations + anew.iterations
    return replace(anew, stop_reason=f"{anew.stop_reason}; {reason}", iterations=iterations)
