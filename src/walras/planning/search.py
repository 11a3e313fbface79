"""Own planning by simulation at every step, of everybody or of a cohort: no learning, any population.

CONTRACT: maps fall back to it where their plan does not settle.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from walras.config import PlanSettings
from walras.errors import InputError, SettingsError, join
from walras.maps.features import HORIZON
from walras.maps.interface import Interface
from walras.maps.view import LearnedView
from walras.planning.calibrated_view import CorrectedView, StandIn, cohort_view, sample_cohort
from walras.planning.costs import AbstractAcquisitionCost, PiecewiseLinearCost
from walras.planning.prices.dual_ascent import (
    GaussNewton,
    NewtonThenProjected,
    ProjectedDual,
    SearchableView,
    search_prices,
)
from walras.planning.prices.simulated_view import SimulatedView
from walras.planning.problem import PlanningProblem
from walras.planning.result import PlanRecord, Search
from walras.planning.revision_loop import StopRule, run_revision_loop
from walras.planning.revision_rules import (
    AbstractRevisionRule,
    AdaptiveSubgradient,
    Consensus,
    MarginalCost,
    ProximalPoint,
)
from walras.progress import Progress

RULES: dict[str, type[AbstractRevisionRule]] = {
    "consensus": Consensus,
    "marginal": MarginalCost,
    "proximal": ProximalPoint,
}
"""Revision rules by the name that settings use."""

TOLERANCE = 5e-3
"""Residuals at which a plan is good enough: a tenth of what scenarios differ by from week to week."""

FEASIBLE = 0.01
"""Expected use may exceed capacity by this share in a feasible plan."""

NOTHING = 1e-6
"""Use below this is none [units of resource]: it keeps a week without capacity and without use feasible."""


def search_plan(
    view: SearchableView,
    cost: PiecewiseLinearCost,
    settings: PlanSettings,
    progress: Progress,
    start: Float[np.ndarray, "week resource"],
) -> PlanRecord:
    """Run the planning loop, and creep on where the named rule stalls.

    Args:
        view: the population.
        cost: of capacity.
        settings: rule and iterations.
        progress: told about steps.
        start: first shadow prices [money per unit of resource].
    """

    def run(rule: AbstractRevisionRule, first: np.ndarray, iterations: int, patience: int) -> PlanRecord:
        stop = stop_rule(view, iterations, patience)
        return run_revision_loop(view, cost, rule=rule, start=first, stop=stop, progress=progress)

    record = run(RULES[settings.rule](), start, settings.max_iterations, 12)
    if not record.converged:
        crept = run(AdaptiveSubgradient(), record.shadow_prices, 3 * settings.max_iterations, settings.max_iterations)
        record = min((record, crept), key=_worst)
    return record


def stop_rule(view: SearchableView, iterations: int, patience: int) -> StopRule:
    """Stop where every residual is within `TOLERANCE`, or after so many revisions in all or without progress."""
    limits = {"feasibility": TOLERANCE, "complementarity": TOLERANCE, "price_gap": TOLERANCE}
    return StopRule(max_iterations=iterations, patience=patience, max_price=view.max_price, **limits)


def assess_feasibility(
    view: SimulatedView, record: PlanRecord, expected: Float[np.ndarray, "week resource"] | None = None
) -> PlanRecord:
    """Judge a plan by expected use, without the reserve that it was made with, and name the weeks that do not fit.

    Args:
        view: everybody, by simulation.
        record: the plan.
        expected: use at its prices, simulated unless given [units of resource].
    """
    expected = view.expected(record.shadow_prices) if expected is None else expected
    limit = record.capacity * (1 + FEASIBLE) + NOTHING
    over, late = expected > limit, view.committed > limit
    parts = [reason_prefix(record).replace("largest shortage", "largest shortage, reserve included,")]
    for words, where in (("already committed", over & late), ("expected use above capacity", over & ~late)):
        weeks = np.flatnonzero(where.any(axis=1)) + 1
        if len(weeks):
            named = ", ".join(map(str, weeks[:6])) + (f" and {len(weeks) - 6} more" if len(weeks) > 6 else "")
            parts.append(f"{words} in planned week {named}")
    return replace(record, utilization=expected, feasible=not bool(over.any()), stop_reason="; ".join(parts))


def reason_prefix(record: PlanRecord) -> str:
    """Say why the search stopped, without the weeks that the loop itself names."""
    return record.stop_reason.partition(";")[0]


def _worst(record: PlanRecord) -> float:
    """Return the worst residual of the best iterate."""
    return min(max(entry["feasibility"], entry["complementarity"], entry["price_gap"]) for entry in record.trace)


REVISIONS = 12
"""Newton steps at most: each is a simulation, or three where it disappoints, and every third needs a Jacobian."""

NEAR = 0.05
"""Mean miss up to which planned prices are kept to start from."""

LOWERED = 0.25
"""Share of planned prices to start from where they miss by more.

Use falls steeply where a price begins to bite and hardly where it has bitten, so that Newton steps go well from low
prices and wrong from high ones.
"""


def refine_by_simulation(
    view: SearchableView,
    cost: AbstractAcquisitionCost,
    record: PlanRecord,
    simulated: Float[np.ndarray, "week resource"],
    progress: Progress | None = None,
    *,
    revisions: int = REVISIONS,
) -> PlanRecord:
    """Revise a plan by Newton steps on simulated use, with the simulator's own slope, unless it fits as it is.

    Args:
        view: by simulation, of everybody or of a cohort that stands for all; it counts what is asked of it.
        cost: of capacity.
        record: the plan that maps found.
        simulated: use to plan for at its prices [units of resource].
        progress: told about steps.
        revisions: at most.

    Returns:
        Of the two plans the one that fits better; `converged` and `stop_reason` tell of simulated use.
    """
    missed = complementarity_residual(view, record, simulated)
    if missed.max(initial=0.0) <= TOLERANCE:
        return record
    start = record.shadow_prices * (1.0 if missed.mean() <= NEAR else LOWERED)
    stop = stop_rule(view, revisions, revisions)
    found = run_revision_loop(view, cost, rule=ProximalPoint(), start=start, stop=stop, progress=progress)
    before, after = missed.mean(), complementarity_residual(view, found, found.utilization).mean()
    best = found if after < before else record
    return replace(
        best,
        converged=found.converged and best is found,
        stop_reason=_polish_told(record, found, min(before, after)),
        iterations=record.iterations + found.iterations,
        trace=_joined(record.trace, found.trace),
    )


def complementarity_residual(
    view: SearchableView, record: PlanRecord, simulated: Float[np.ndarray, "week resource"]
) -> Float[np.ndarray, "week resource"]:
    """Return how far weeks are from either no price or no room, as simulated; 0 where prices can do no more.

    Args:
        view: knows where orders make a difference, and the highest price.
        record: a plan.
        simulated: use to plan for at its prices [units of resource].
    """
    room = (record.capacity - simulated) / np.maximum(record.capacity, 1e-9)
    hopeless = ~view.controllable | ((record.shadow_prices >= view.max_price) & (room < 0))
    return np.where(hopeless, 0.0, np.abs(np.minimum(record.shadow_prices / view.price_scale, room)))


def _polish_told(record: PlanRecord, found: PlanRecord, missed: float) -> str:
    """Say how both searches ended."""
    first, rest = record.iterations, found.iterations
    if found.converged:
        return f"converged after {first} revisions and {rest} more by simulation"
    return (
        f"not converged: after {first} revisions and {rest} more by simulation weeks are {missed:.2%} off on average, "
        "reserve included"
    )


def _joined(
    first: tuple[Mapping[str, float], ...], second: tuple[Mapping[str, float], ...]
) -> tuple[Mapping[str, float], ...]:
    """Count the iterations of a second trace on from the first."""
    return (*first, *({**entry, "iteration": entry["iteration"] + len(first)} for entry in second))


CHECKS = 4
"""Simulations of everybody at most: the first that checks, and one after each time that a plan was mended."""

SEARCHING, CHECKING = "Searching on a cohort", "Simulating everybody"
"""Stages that time is told by."""


def verify_on_population(
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
        return assess_feasibility(everybody, record)
    best, least, checks = record, float("inf"), 0
    while True:
        planned, expected = everybody.judgement(record.shadow_prices)
        missed, checks = complementarity_residual(everybody, record, planned), checks + 1
        if missed.mean() < least:
            best, best_expected, worst, least = record, expected, missed.max(initial=0.0), missed.mean()
        if missed.max(initial=0.0) <= TOLERANCE or checks == CHECKS:
            break
        progress.stage(SEARCHING)
        searched = cast(StandIn, searched.at(record.shadow_prices, planned))
        record = refine_by_simulation(searched, cost, record, planned, progress)
        progress.stage(CHECKING)
    return assess_feasibility(everybody, _told(best, searched, checks, float(worst)), best_expected)


def _told(record: PlanRecord, searched: StandIn, checks: int, worst: float) -> PlanRecord:
    """Say how the search on a cohort ended for everybody."""
    drawn, fits = searched.view.population.n_agents, worst <= TOLERANCE
    times = "once" if checks == 1 else f"{checks} times"
    words = f"{reason_prefix(record)}, searched on a cohort of {drawn} agents, everybody simulated {times}"
    if not fits:
        words += f", after which the worst week is {worst:.2%} off, reserve included"
    return replace(record, converged=record.converged and fits, stop_reason=words)


ROUGH = 0.01
"""Residual at which the prices that the loop starts from are good enough."""


def plan_by_simulation(
    case: PlanningProblem, cost: PiecewiseLinearCost, settings: PlanSettings, progress: Progress
) -> tuple[PlanRecord, Search]:
    """Plan by simulation: on everybody, or where the settings name a cohort on that, and then check with everybody.

    Args:
        case: who is planned.
        cost: of capacity.
        settings: rule, iterations and cohort.
        progress: told about stages and steps.
    """
    searched = cohort_view(case.view, settings)
    if isinstance(searched, StandIn):
        progress.stage(SEARCHING)
    record = search_on(searched, cost, settings, progress)
    return verify_on_population(case.view, searched, cost, record, progress), search_stats(
        case.view, searched, record.queries
    )


def search_stats(view: SimulatedView, searched: SimulatedView | StandIn, queries: int) -> Search:
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
    return assess_feasibility(view, search_on(view, cost, settings, progress))


def search_on(
    view: SearchableView, cost: PiecewiseLinearCost, settings: PlanSettings, progress: Progress
) -> PlanRecord:
    """Run the planning loop on a simulated population, from the last plan's prices or those of the middle tier."""
    if cost.first_prices is not None:
        return search_plan(view, cost, settings, progress, cost.first_prices)
    rough = NewtonThenProjected(GaussNewton(ROUGH, 8), ProjectedDual(0.3, ROUGH, 150))
    start = search_prices(view, cost.middle, None, rough).prices[0].reshape(cost.lower.shape)
    return search_plan(view, cost, settings, progress, start)


Grid = Float[np.ndarray, "week resource"]

ROUNDS = 3
"""Plans made, each on answers corrected where the one before it was simulated."""


def open_maps(settings: PlanSettings) -> Interface:
    """Load the learned maps that settings name, and refuse those that cannot make this plan before any work is done.

    Args:
        settings: `maps`, and what is to be planned.

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


def encoded(case: PlanningProblem, interface: Interface, settings: PlanSettings) -> LearnedView:
    """Let the maps read a case's population once, at the first planned week.

    Args:
        case: with a history (`settings.interface` was "learned" when it was built).
        interface: trained maps.
        settings: weeks, service level, cohort and seed.
    """
    if case.history is None:
        raise InputError("the case has no history but learned maps read one; build it with `interface` set to learned")
    told = interface.primal is not None and "relative_error" in interface.primal.facts
    reserve = max(float(ndtri(settings.service_level)), 0.0) if told and settings.scenarios > 1 else 0.0
    return interface.encode(
        case.population,
        case.history,
        case.policy,
        cohort=sample_cohort(case.population, settings),
        weeks=settings.weeks,
        reserve=reserve,
        seed=settings.seed,
    )


def plan_by_maps(
    case: PlanningProblem,
    view: LearnedView,
    cost: PiecewiseLinearCost,
    settings: PlanSettings,
    progress: Progress,
    *,
    rounds: int = ROUNDS,
) -> tuple[PlanRecord, Search]:
    """Plan on what maps answer, simulate the plan, correct the answers by what came of it, and plan again from there.

    The first answers are corrected by the simulation without prices, since most of what a map is off by does not depend
    on them. Of large populations a cohort is simulated in all that follows, until the plan is there.

    Args:
        case: whose simulation corrects and judges.
        view: its population, read by maps.
        cost: of capacity.
        settings: rule, iterations and cohort.
        progress: told about stages and steps.
        rounds: plans made at most, at least 1; each costs a simulation of everybody, or of the cohort.

    Returns:
        The plan, judged by simulation, and how it was found. Of several rounds the plan counts that comes closest to
        fitting as simulated; a round that came out worse is gone back on by half. What does not fit in the end is
        finished by a few simulations (`planner.polish`), or where these do not settle searched by simulation alone:
        `stop_reason` says so, and `simulations` counts them.

    Raises:
        SettingsError: no round at all.
    """
    if rounds < 1:
        raise SettingsError(f"`rounds` is {rounds} but at least 1 is needed; give e.g. {ROUNDS}")
    before, asked_before = case.view.simulations, case.view.queries
    searched = cohort_view(case.view, settings)
    found_by_maps, simulated, errors = _by_rounds(case.view.free, searched, view, cost, settings, progress, rounds)
    polish = refine_by_simulation(searched, cost, found_by_maps, simulated, progress)
    finish = verify_on_population if polish.converged else partial(_searched_anew, settings)
    record = finish(case.view, searched, cost, polish, progress)
    told = search_stats(case.view, searched, view.queries)
    return replace(record, queries=view.queries), replace(
        told,
        interface="learned",
        maps=settings.maps,
        simulations=told.simulations - before,
        everybody=told.everybody - asked_before,
        errors=errors,
        outside_training=view.outside_training,
    )


def _by_rounds(
    free: Grid,
    searched: SimulatedView | StandIn,
    view: LearnedView,
    cost: PiecewiseLinearCost,
    settings: PlanSettings,
    progress: Progress,
    rounds: int,
) -> tuple[PlanRecord, Grid, tuple[float, ...]]:
    """Return the plan that comes closest to fitting, its simulated use, and the error of the maps in each round."""
    asked = CorrectedView.of(view).at(np.zeros_like(free), free)
    start, least = cost.first_prices, np.inf
    start = asked.shadow_prices(cost.middle) if start is None else start
    errors: list[float] = []
    for _ in range(rounds):
        record = search_plan(asked, cost, settings, progress, start)
        simulated = searched.utilization(record.shadow_prices)
        errors.append(float(np.abs(record.utilization - simulated).sum() / max(simulated.sum(), 1e-9)))
        missed, corrected = (
            complementarity_residual(searched, record, simulated),
            asked.at(record.shadow_prices, simulated),
        )
        if missed.mean() < least:
            asked, best, least, start = corrected, (record, simulated), missed.mean(), record.shadow_prices
        else:
            asked = asked.between(corrected)
        if missed.max(initial=0.0) <= TOLERANCE:
            break
    return (*best, tuple(errors))


def _searched_anew(
    settings: PlanSettings,
    everybody: SimulatedView,
    searched: SimulatedView | StandIn,
    cost: PiecewiseLinearCost,
    record: PlanRecord,
    progress: Progress,
) -> PlanRecord:
    """Plan as without maps where what they found did not settle: small or lumpy populations, others than they know."""
    anew = verify_on_population(everybody, searched, cost, search_on(searched, cost, settings, progress), progress)
    if not (anew.converged or anew.feasible):
        known = verify_on_population(everybody, searched, cost, record, progress)
        if known.feasible:
            return known
    why = f"searched by simulation, since the plan by maps did not settle ({reason_prefix(record)})"
    iterations = record.iterations + anew.iterations
    return replace(anew, stop_reason=f"{anew.stop_reason}; {why}", iterations=iterations)
