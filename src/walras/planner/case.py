"""Own the road from a product table to a verified plan.

CONTRACT: `plan_panel` is what commands call; `build_case` gives the parts to whoever wants to look inside.
"""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from walras.config import CostSettings, PlanSettings
from walras.control.dual import GaussNewton, NewtonThenProjected, ProjectedDual
from walras.control.simulated_view import SimulatedView
from walras.data.active import active_agents
from walras.data.assume import complete_panel
from walras.data.panel import Panel
from walras.errors import InputError
from walras.exogenous.demand_model import DemandModel
from walras.exogenous.lead_times import ORDER_LOG_SD
from walras.exogenous.paths import ExogenousPaths
from walras.exogenous.scenarios import coming_paths, typical_path
from walras.model.state import State
from walras.planner.costs import PiecewiseLinearCost
from walras.planner.loop import StopRule, plan
from walras.planner.result import PlanRecord, PlanResult
from walras.planner.rules import AbstractRule, Consensus, EntrywiseConsensus, MarginalCost, ProximalPoint
from walras.planner.start import initial_state
from walras.planner.verify import verified_result
from walras.policies.base import AbstractPolicy
from walras.policies.base_stock import PricedNewsvendor
from walras.population.from_panel import latest_prices, population_from_panel
from walras.population.population import Population
from walras.progress import Progress
from walras.simulate import EXTRA_WINDOW, week_of

RULES: dict[str, type[AbstractRule]] = {
    "consensus": Consensus,
    "marginal": MarginalCost,
    "proximal": ProximalPoint,
}
"""Revision rules by the name that settings use."""

TOLERANCE = 5e-3
"""Residuals at which a plan is good enough: a tenth of what scenarios differ by from week to week."""

ROUGH = 0.01
"""Residual at which the prices that the loop starts from are good enough."""

FEASIBLE = 0.01
"""Expected use may exceed capacity by this share in a feasible plan."""

NOTHING = 1e-6
"""Use below this is none [units of resource]: it keeps a week without capacity and without use feasible."""

UNSEEN = 104_729
"""Added to the seed for the paths that the finished plan is verified on; the planner never draws them."""


@dataclass(frozen=True, eq=False)
class PlanningCase:
    """Hold everything a plan is made from.

    Attributes:
        whole: the panel as read, inactive agents included.
        panel: completed panel of the active agents.
        population, policy, initial: who answers, how, and from what state.
        view: the planner's view by simulation, on the planning scenarios.
        expected: one path of the expected future, longer than the plan, for re-issuing prices.
        unseen: the paths that the plan is verified on.
        demand: the demand model.
        counts, notes: what was kept and dropped, in numbers and in words.
    """

    whole: Panel
    panel: Panel
    population: Population
    policy: AbstractPolicy
    initial: State
    view: SimulatedView
    expected: ExogenousPaths
    unseen: ExogenousPaths
    demand: DemandModel
    counts: dict[str, int]
    notes: tuple[str, ...]


def build_case(panel: Panel, settings: PlanSettings, *, progress: Progress | None = None) -> PlanningCase:
    """Complete the panel, fit the demand, find the start and draw the scenarios.

    Args:
        panel: as read.
        settings: what to plan.
        progress: told about stages.

    Raises:
        InputError: no product sold in the last `active_weeks`.
    """
    progress = Progress() if progress is None else progress
    active, counts, notes = _active(panel, settings)
    progress.stage("Fitting the demand")
    completed = complete_panel(active, seed=settings.seed)
    _refuse_no_margin(completed)
    demand = DemandModel.fit(completed)
    economics = settings.economics
    population = population_from_panel(
        completed,
        resources=settings.resources,
        annual_holding_rate=economics.holding_rate,
        lost_sale_penalty_share=economics.lost_sale_penalty,
    )
    policy = PricedNewsvendor(discount=economics.discount)
    spread = ORDER_LOG_SD
    initial, words = initial_state(completed, population, policy, demand, log_sd=spread, seed=settings.seed)
    progress.stage("Drawing scenarios")
    lead = np.asarray(population.lead_time)
    longer = settings.weeks + initial.max_lead + EXTRA_WINDOW
    drawn = coming_paths(
        completed, lead, demand, scenarios=settings.scenarios, weeks=longer, seed=settings.seed, log_sd=spread
    )
    unseen = coming_paths(
        completed,
        lead,
        demand,
        scenarios=settings.paths,
        weeks=settings.weeks,
        seed=settings.seed + UNSEEN,
        log_sd=spread,
    )
    expected = typical_path(drawn, settings.seed)
    scenarios = week_of(drawn, jnp.asarray(0), settings.weeks)
    reserve = float(ndtri(settings.service_level)) if settings.scenarios > 1 else 0.0
    view = SimulatedView(population, scenarios, policy, initial, reserve=reserve, seed=settings.seed)
    notes = (
        *notes,
        *words,
        *demand.limits,
        f"Lead times vary between orders of a product with a log spread of {spread}.",
    )
    return PlanningCase(
        panel, completed, population, policy, initial, view, expected, unseen, demand, counts, (*panel.notes, *notes)
    )


def plan_panel(
    panel: Panel, settings: PlanSettings, costs: CostSettings, *, progress: Progress | None = None
) -> PlanResult:
    """Plan capacity for a panel, verify the plan on paths it was not made on, and say in words what it is worth.

    Args:
        panel: as read from a table or made by the generator.
        settings: what to plan and how.
        costs: what capacity costs.
        progress: told about stages and steps.
    """
    progress = Progress() if progress is None else progress
    for name in settings.resources:
        _weekly(costs.of(name).regular_capacity or 0.0, settings.weeks, name)
    case = build_case(panel, settings, progress=progress)
    progress.stage("Planning")
    cost = acquisition_cost(case.view, settings, costs)
    record = make_plan(case.view, cost, settings, progress)
    return verified_result(case, record, cost, settings, costs, progress)


def make_plan(view: SimulatedView, cost: PiecewiseLinearCost, settings: PlanSettings, progress: Progress) -> PlanRecord:
    """Run the planning loop from the prices of the middle tier, and creep on where the named rule stalls.

    `feasible` then says that expected use is within capacity in every week; that the reserve is kept as well is what
    `converged` says.
    """
    rough = NewtonThenProjected(GaussNewton(ROUGH, 8), ProjectedDual(0.3, ROUGH, 150))
    start = view.solve(cost.edges[..., 2], solver=rough).prices[0].reshape(cost.lower.shape)

    def run(rule: AbstractRule, first: np.ndarray, iterations: int, patience: int) -> PlanRecord:
        limits = {"feasibility": TOLERANCE, "complementarity": TOLERANCE, "price_gap": TOLERANCE}
        stop = StopRule(max_iterations=iterations, patience=patience, max_price=view.max_price, **limits)
        return plan(view, cost, rule=rule, start=first, stop=stop, progress=progress)

    record = run(RULES[settings.rule](), start, settings.max_iterations, 12)
    if not record.converged:
        crept = run(EntrywiseConsensus(), record.shadow_prices, 3 * settings.max_iterations, settings.max_iterations)
        record = min((record, crept), key=_worst)
    return judged(view, record)


def judged(view: SimulatedView, record: PlanRecord) -> PlanRecord:
    """Judge a plan by expected use, without the reserve that it was made with, and name the weeks that do not fit."""
    expected = view.expected(record.shadow_prices)
    limit = record.capacity * (1 + FEASIBLE) + NOTHING
    over, late = expected > limit, view.committed > limit
    head, _, _ = record.stop_reason.partition(";")
    parts = [head.replace("largest shortage", "largest shortage, reserve included,")]
    for words, where in (("already committed", over & late), ("expected use above capacity", over & ~late)):
        weeks = np.flatnonzero(where.any(axis=1)) + 1
        if len(weeks):
            named = ", ".join(map(str, weeks[:6])) + (f" and {len(weeks) - 6} more" if len(weeks) > 6 else "")
            parts.append(f"{words} in planned week {named}")
    return replace(record, utilization=expected, feasible=not bool(over.any()), stop_reason="; ".join(parts))


def _worst(record: PlanRecord) -> float:
    """Return the worst residual of the best iterate."""
    return min(max(entry["feasibility"], entry["complementarity"], entry["price_gap"]) for entry in record.trace)


def acquisition_cost(view: SimulatedView, settings: PlanSettings, costs: CostSettings) -> PiecewiseLinearCost:
    """Build the cost of capacity: K0 is a share of mean expected use without prices unless the settings give it."""
    free = view.expected(np.zeros((view.n_weeks, len(view.resources))))
    regular = np.empty_like(free)
    for index, name in enumerate(view.resources):
        given = costs.of(name).regular_capacity
        regular[:, index] = (
            settings.regular_share * free[:, index].mean() if given is None else _weekly(given, view.n_weeks, name)
        )
    parts = [costs.of(name) for name in view.resources]
    unit = view.price_scale if costs.rates == "margin" else 1.0

    def rate(field: str) -> np.ndarray:
        return np.broadcast_to([unit * getattr(part, field) for part in parts], free.shape).copy()

    cost = PiecewiseLinearCost.tiers(
        regular,
        rates=(rate("regular_rate"), rate("overtime_rate"), rate("agency_rate")),
        tops=(1.0, parts[0].overtime_limit, parts[0].highest_share),
        lower=regular * np.asarray([part.lower_bound for part in parts]),
        ramp_up=rate("ramp_up"),
        ramp_down=rate("ramp_down"),
    )
    return cost.frozen(regular[: settings.frozen_weeks]) if settings.frozen_weeks else cost


def _weekly(given: float | tuple[float, ...], weeks: int, name: str) -> np.ndarray:
    values = np.asarray(given, float)
    if values.ndim and len(values) != weeks:
        raise InputError(
            f"`regular_capacity` of {name} has {len(values)} weeks but {weeks} are planned; "
            "give one number, or one per week"
        )
    return np.broadcast_to(values, (weeks,))


def _forecast_note(panel: Panel, weeks: int) -> tuple[str, ...]:
    """Say how far the user's own forecast was used."""
    if panel.forecast is None:
        return ()
    given = min(len(panel.forecast), weeks)
    rest = "" if given == weeks else f"; the {weeks - given} weeks after it are the demand model's"
    return (f"The forecast in the table is the expected demand of the first {given} planned weeks{rest}.",)


def _refuse_no_margin(panel: Panel) -> None:
    """Refuse a population of which hardly any product earns money: no price of capacity means anything to it."""
    price, cost = latest_prices(panel)
    if np.median(price - cost) > 0:
        return
    worst = int(np.argmin(price - cost))
    raise InputError(
        f"at least half of the products cost as much as they sell for (`{panel.agents[worst]}`: price "
        f"{price[worst]:g}, unit_cost {cost[worst]:g}); correct the columns price and unit_cost"
    )


def _active(panel: Panel, settings: PlanSettings) -> tuple[Panel, dict[str, int], tuple[str, ...]]:
    """Keep the agents that sold lately; count and name the rest."""
    mask = active_agents(panel, settings.active_weeks)
    if not mask.any():
        raise InputError(
            f"none of the {panel.n_agents} products sold in the last {settings.active_weeks} weeks; "
            "raise `active_weeks` or give a later table"
        )
    dropped = [str(name) for name in panel.agents[~mask]]
    counts = {
        "agents": panel.n_agents,
        "active": int(mask.sum()),
        "inactive": len(dropped),
        "history_weeks": panel.n_weeks,
        "scenarios": settings.scenarios,
        "paths": settings.paths,
    }
    if not dropped:
        return panel, counts, ()
    named = ", ".join(dropped[:5]) + (f" and {len(dropped) - 5} more" if len(dropped) > 5 else "")
    note = (
        f"{len(dropped)} products sold nothing in the last {settings.active_weeks} weeks and are not planned: {named}."
    )
    return panel.take(mask), counts, (note,)
