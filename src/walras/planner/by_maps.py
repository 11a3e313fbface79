"""Own planning by learned maps: which ones are loaded, what they read, and the rounds between them and simulation.

CONTRACT: maps only steer; whether a plan is feasible is said by simulation, as for plans made without maps.
"""

from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from walras.config import PlanSettings
from walras.control.simulated_view import SimulatedView
from walras.data.findings import listed
from walras.errors import InputError, SettingsError
from walras.maps.inputs import HORIZON
from walras.maps.learned import Interface
from walras.maps.learned_view import LearnedView
from walras.planner.by_simulation import how, plan_on
from walras.planner.case import PlanningCase
from walras.planner.checked import checked
from walras.planner.corrected import CorrectedView
from walras.planner.costs import PiecewiseLinearCost
from walras.planner.polish import misses, polished
from walras.planner.result import PlanRecord, Search
from walras.planner.search import TOLERANCE, found, in_short
from walras.planner.stand_in import StandIn, drawn_cohort, searched_on
from walras.progress import Progress

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
            f"`resources` is {listed(settings.resources)} but the maps of {interface.source} know "
            f"{listed(interface.resources)}; plan these, or load maps that were trained for yours"
        )
    if not 2 <= settings.weeks <= HORIZON + 1:
        raise SettingsError(
            f"`weeks` is {settings.weeks} but learned maps answer for 2 to {HORIZON + 1}; give one of these, or set "
            "`interface` to simulated"
        )
    return interface


def encoded(case: PlanningCase, interface: Interface, settings: PlanSettings) -> LearnedView:
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
        cohort=drawn_cohort(case.population, settings),
        weeks=settings.weeks,
        reserve=reserve,
        seed=settings.seed,
    )


def plan_by_maps(
    case: PlanningCase,
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
    searched = searched_on(case.view, settings)
    found_by_maps, simulated, errors = _by_rounds(case.view.free, searched, view, cost, settings, progress, rounds)
    polish = polished(searched, cost, found_by_maps, simulated, progress)
    finish = checked if polish.converged else partial(_searched_anew, settings)
    record = finish(case.view, searched, cost, polish, progress)
    told = how(case.view, searched, view.queries)
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
        record = found(asked, cost, settings, progress, start)
        simulated = searched.utilization(record.shadow_prices)
        errors.append(float(np.abs(record.utilization - simulated).sum() / max(simulated.sum(), 1e-9)))
        missed, corrected = misses(searched, record, simulated), asked.at(record.shadow_prices, simulated)
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
    anew = checked(everybody, searched, cost, plan_on(searched, cost, settings, progress), progress)
    if not (anew.converged or anew.feasible):
        known = checked(everybody, searched, cost, record, progress)
        if known.feasible:
            return known
    why = f"searched by simulation, since the plan by maps did not settle ({in_short(record)})"
    iterations = record.iterations + anew.iterations
    return replace(anew, stop_reason=f"{anew.stop_reason}; {why}", iterations=iterations)
