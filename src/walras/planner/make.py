"""Own the road from a panel to a verified plan.

CONTRACT: `plan_panel` is what commands call; the other functions are its steps, for whoever wants to look inside.
"""

from dataclasses import replace

import numpy as np

from walras.config import CostSettings, PlanSettings
from walras.control.dual import GaussNewton, NewtonThenProjected, ProjectedDual
from walras.control.simulated_view import SimulatedView
from walras.data.panel import Panel
from walras.errors import InputError
from walras.planner.case import build_case
from walras.planner.costs import PiecewiseLinearCost
from walras.planner.loop import StopRule, plan
from walras.planner.result import PlanRecord, PlanResult
from walras.planner.rules import AbstractRule, Consensus, EntrywiseConsensus, MarginalCost, ProximalPoint
from walras.planner.verify import verified_result
from walras.progress import Progress

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
