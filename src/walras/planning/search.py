"""Search a plan by simulation of all agents or of a cohort, or by learned maps; verify and refine it by simulation."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri

from walras.config import PlanSettings
from walras.errors import InputError, SettingsError, join
from walras.maps.features import HORIZON
from walras.maps.interface import COHORT, Interface
from walras.maps.view import LearnedView
from walras.planning.costs import AbstractAcquisitionCost, PiecewiseLinearCost
from walras.planning.prices.dual_ascent import ROUGH_SOLVER, solve_prices_of_plans
from walras.planning.prices.simulated_view import SimulatedView, cohort_parts
from walras.planning.problem import PlanningProblem
from walras.planning.protocols import Grid, SearchableView
from walras.planning.result import PlanRecord, Search
from walras.planning.revision_loop import StopRule, run_revision_loop
from walras.planning.revision_rules import AdaptiveSubgradient, Consensus, MarginalCost, ProximalPoint
from walras.population.cohort import Cohort, StratifiedSample, demand_size
from walras.population.population import Population
from walras.progress import Progress

MAX_FACTOR = 3.0  # largest correction, up or down: beyond that, little use was foreseen or simulated


@dataclass(frozen=True, eq=False)
class CalibratedView:
    """Answer as `view`, learned maps or a simulated cohort, times `factor`, so as to agree with one simulation.

    Maps and cohorts are off by a few percent, by about the same share at similar prices. A simulation at the prices
    lambda_0 gives the factor: U(lambda) = V(lambda) U(lambda_0) / V(lambda_0). Price scale, highest price and
    controllable weeks are those of `reference`.
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
        """Simulate a cohort, calibrated where no prices are charged; `seed` is of the sample for the Jacobian."""
        parts = cohort_parts(cohort, *population_view.parts)
        kept: dict[str, Any] = {"reserve": population_view.reserve, "price_week": population_view.price_week}
        cohort_view = SimulatedView(*parts, seed=seed, **kept)
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
        """Return the prices at which it fits [*plans, week, resource], of the dual map or else by a search."""
        capacity = np.asarray(capacity, float) / self.factor
        if isinstance(self.view, SimulatedView):
            return self.view.shadow_prices(capacity)
        if self.view.dual is not None:
            return np.minimum(self.view.shadow_prices(capacity), self.max_price)
        return solve_prices_of_plans(self.view, capacity, ROUGH_SOLVER)

    def jacobian(self, shadow_prices: Grid) -> Float[np.ndarray, "entry entry"]:
        """Return dU/dlambda [utilization entry, price entry], entries in the order week, then resource."""
        return self.view.jacobian(shadow_prices) * self.factor.reshape(-1, 1)


SearchView = SimulatedView | CalibratedView


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


def search_view(view: SimulatedView, settings: PlanSettings) -> SearchView:
    """Return the view that a plan is searched on by simulation: the population's own, or a cohort's."""
    cohort = sample_cohort(view.population, settings)
    return view if cohort is None else CalibratedView.of_cohort(view, cohort, settings.seed)


TOLERANCE = 5e-3  # residual at which a plan is good enough: a tenth of what scenarios differ by from week to week
FEASIBLE = 0.01  # expected use may exceed capacity by this share in a feasible plan
NEGLIGIBLE = 1e-6  # less use is none [units of resource]: a week without capacity and without use stays feasible
NEWTON_STEPS = 12  # revisions of a refinement: each 1 simulation, or 3 where it disappoints; every third a Jacobian

NEAR, LOWERED = 0.05, 0.25
"""Mean residual up to which a refinement starts from the planned prices, and the share of them used otherwise.

Newton steps converge from low prices, where use falls steeply, and fail from high ones, where it hardly responds."""

VERIFICATIONS = 4  # most simulations of all agents: the first verifies, one more follows each refinement on the cohort
SEARCHING, CHECKING = "Searching on a cohort", "Simulating everybody"  # names of the stages in `PlanResult.seconds`


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
    """Compare capacity with expected use, simulated unless given, without reserve, and name weeks that don't fit."""
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
    """Revise a plan by at most `revisions` Newton steps on simulated use, unless it fits as it is.

    Args:
        view: by simulation, of all agents or of a calibrated cohort.
        cost, record: of capacity, and the plan.
        simulated: use to plan for at the plan's prices [units of resource].

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
    reason = f"after {first} revisions and {rest} more by simulation"
    off = f"weeks are {min(before, after):.2%} off on average, reserve included"
    reason = f"converged {reason}" if refined.converged else f"not converged: {reason} {off}"
    count = len(record.trace)
    return replace(
        refined if better else record,
        converged=refined.converged and better,
        stop_reason=reason,
        iterations=first + rest,
        trace=(*record.trace, *({**entry, "iteration": entry["iteration"] + count} for entry in refined.trace)),
    )


def verify_on_population(
    population_view: SimulatedView,
    searched: SearchView,
    cost: AbstractAcquisitionCost,
    record: PlanRecord,
    progress: Progress,
) -> PlanRecord:
    """Simulate all agents under a plan; one `searched` on a cohort is refined on it, recalibrated, until it fits.

    Return the plan with the smallest mean residual on all agents.
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
    agents, fits = searched.view.population.n_agents, best_worst <= TOLERANCE
    times = "once" if verifications == 1 else f"{verifications} times"
    reason = f"{reason_prefix(best)}, searched on a cohort of {agents} agents, all agents simulated {times}"
    if not fits:
        reason += f", after which the worst week is {best_worst:.2%} off, reserve included"
    described = replace(best, converged=best.converged and fits, stop_reason=reason)
    return assess_feasibility(population_view, described, best_expected)


def reason_prefix(record: PlanRecord) -> str:
    """Return why the search stopped, without the weeks that the loop itself names."""
    return record.stop_reason.partition(";")[0]


RULES = {"consensus": Consensus, "marginal": MarginalCost, "proximal": ProximalPoint}
"""Revision rules by the name that settings use."""

ROUNDS = 3  # plans made by maps, each with answers calibrated to the simulation of the one before it


def search_plan(
    view: SearchableView,
    cost: PiecewiseLinearCost,
    settings: PlanSettings,
    progress: Progress,
    start: Grid | None = None,
) -> PlanRecord:
    """Run the planning loop; where the rule stalls, continue with adaptive subgradient steps and keep the better plan.

    Start from the prices `start`, by default those of the previous plan, else such as roughly fit the second tier.
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
    residuals = ("feasibility", "complementarity", "price_gap")
    return min((record, slow), key=lambda plan: min(max(entry[name] for name in residuals) for entry in plan.trace))


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


def _search_stats(
    view: SimulatedView, searched: SearchView, queries: int, before: tuple[int, int] = (0, 0), **facts: Any
) -> Search:
    simulations, cohort = view.simulations - before[0], 0
    if isinstance(searched, CalibratedView) and isinstance(searched.view, SimulatedView):
        simulations += searched.view.simulations
        cohort = searched.view.population.n_agents
    full = view.queries - before[1]
    return Search(queries=queries, simulations=simulations, full_simulations=full, cohort=cohort, **facts)


def load_maps(settings: PlanSettings) -> Interface:
    """Load the maps that `settings.maps` names; refuse damaged ones, other resources and more weeks than they know."""
    interface = Interface.load(settings.maps)
    source = interface.source
    if interface.primal is None:
        remedy = f"train it with `walras train primal --out {source}`"
        raise InputError(f"{source} holds no primal map but a plan needs one; {remedy}")
    if interface.resources != settings.resources:
        given = f"`resources` is {join(settings.resources)} but the maps of {source} know {join(interface.resources)}"
        raise SettingsError(f"{given}; plan these, or load maps that were trained for yours")
    if not 2 <= settings.weeks <= HORIZON + 1:
        given = f"`weeks` is {settings.weeks} but learned maps answer for 2 to {HORIZON + 1}"
        raise SettingsError(f"{given}; give one of these, or set `interface` to simulated")
    return interface


def encode_population(problem: PlanningProblem, interface: Interface, settings: PlanSettings) -> LearnedView:
    """Encode a problem's population at the first planned week; it must have been built for learned maps."""
    if problem.history is None:
        remedy = "build it with `interface` set to learned"
        raise InputError(f"the problem has no history but learned maps read one; {remedy}")
    knows_error = interface.primal is not None and "relative_error" in interface.primal.facts
    reserve = max(float(ndtri(settings.service_level)), 0.0) if knows_error and settings.scenarios > 1 else 0.0
    parts, cohort = (problem.population, problem.history, problem.policy), sample_cohort(problem.population, settings)
    return interface.encode(*parts, cohort=cohort, weeks=settings.weeks, reserve=reserve, seed=settings.seed)


def plan_by_maps(
    problem: PlanningProblem,
    view: LearnedView,
    cost: PiecewiseLinearCost,
    settings: PlanSettings,
    progress: Progress,
    rounds: int = ROUNDS,
) -> tuple[PlanRecord, Search]:
    """Plan on learned maps, simulate the plan, calibrate the maps to it, and plan again.

    Returns the round with the smallest simulated residual; if a round gets worse, the calibration is damped by one
    half. A plan that does not fit yet is refined by simulation and, failing that, searched by simulation from scratch:
    `stop_reason` says so. Each of at most `rounds` costs a simulation of all agents, or of the cohort.
    """
    if rounds < 1:
        raise SettingsError(f"`rounds` is {rounds} but at least 1 is needed; give e.g. {ROUNDS}")
    population_view = problem.view
    before = population_view.simulations, population_view.queries
    searched = search_view(population_view, settings)
    # The first calibration is at price zero, since most of a map's error does not depend on prices.
    maps = CalibratedView.of(view).calibrated_at(np.zeros_like(population_view.free), population_view.free)
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
    verify = partial(verify_on_population, population_view, searched, cost, progress=progress)
    record = refine_by_simulation(searched, cost, *best, progress)
    if record.converged:
        record = verify(record)
    else:
        record = _verified_anew(record, search_plan(searched, cost, settings, progress), verify)
    facts: dict[str, Any] = {"interface": "learned", "maps": settings.maps, "errors": tuple(errors)}
    facts["outside_training"] = view.out_of_distribution
    return replace(record, queries=view.queries), _search_stats(
        population_view, searched, view.queries, before, **facts
    )


def _verified_anew(record: PlanRecord, anew: PlanRecord, verify: Callable[[PlanRecord], PlanRecord]) -> PlanRecord:
    """Return the plan searched by simulation alone, unless only the one by maps is feasible."""
    anew = verify(anew)
    if not (anew.converged or anew.feasible):
        by_maps = verify(record)
        if by_maps.feasible:
            return by_maps
    reason = f"searched by simulation, since the plan by maps did not settle ({reason_prefix(record)})"
    iterations = record.iterations + anew.iterations
    return replace(anew, stop_reason=f"{anew.stop_reason}; {reason}", iterations=iterations)
