"""Own the road from a panel to a verified plan.

CONTRACT: `plan_panel` is what commands call; the other functions are its steps, for whoever wants to look inside.
"""

from dataclasses import replace

import numpy as np

from walras.config import CostSettings, PlanSettings
from walras.data.panel import Panel
from walras.errors import InputError
from walras.planning.costs import PiecewiseLinearCost
from walras.planning.previous_plan import ChangePenalty, PreviousPlan
from walras.planning.prices.simulated_view import SimulatedView
from walras.planning.problem import build_problem
from walras.planning.result import PlanResult
from walras.planning.search import encoded, open_maps, plan_by_maps, plan_by_simulation
from walras.planning.verify import verified_result
from walras.progress import Progress


def plan_panel(
    panel: Panel,
    settings: PlanSettings,
    costs: CostSettings,
    *,
    last: PreviousPlan | None = None,
    progress: Progress | None = None,
) -> PlanResult:
    """Plan capacity for a panel, verify the plan on paths it was not made on, and say in words what it is worth.

    Args:
        panel: as read from a table or made by the generator.
        settings: what to plan and how.
        costs: what capacity costs.
        last: the plan that this one revises; changes cost `revision_rate`, and its regular capacity stays granted.
        progress: told about stages and steps.
    """
    progress = Progress() if progress is None else progress
    for name in settings.resources:
        _weekly(costs.of(name).regular_capacity or 0.0, settings.weeks, name)
    maps = open_maps(settings) if settings.interface == "learned" else None
    case = build_problem(panel, settings, progress=progress)
    progress.stage("Planning")
    cost = acquisition_cost(case.view, settings, costs, last)
    if maps is None:
        record, search = plan_by_simulation(case, cost, settings, progress)
    else:
        progress.stage("Encoding the population")
        view = encoded(case, maps, settings)
        progress.stage("Planning by learned maps")
        record, search = plan_by_maps(case, view, cost, settings, progress)
    result = verified_result(case, record, cost, settings, costs, progress)
    if last is not None:
        note = f"In {int(last.known.any(1).sum())} weeks that the last plan planned, capacity moves by "
        result = replace(result, moved=last.moved(record.capacity))
        result = replace(result, notes=(*result.notes, f"{note}{result.moved:.1%} on average."))
    return replace(result, search=search)


def acquisition_cost(
    view: SimulatedView, settings: PlanSettings, costs: CostSettings, last: PreviousPlan | None = None
) -> PiecewiseLinearCost:
    """Build the cost of capacity.

    K0 is what the settings give, else what the last plan was granted, else a share of mean expected use without prices.
    Frozen weeks stay as the last plan has them; without one they are regular.
    """
    free = view.expected(np.zeros((view.n_weeks, len(view.resources))))
    regular = np.empty_like(free)
    for index, name in enumerate(view.resources):
        given = costs.of(name).regular_capacity
        regular[:, index] = (
            settings.regular_share * free[:, index].mean() if given is None else _weekly(given, view.n_weeks, name)
        )
    if last is not None:
        granted = last.regular(regular)
        own = [costs.of(name).regular_capacity is not None for name in view.resources]
        regular = np.where(own, regular, granted)
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
    stays = regular if last is None else np.where(last.known, last.capacity, regular)
    cost = cost.frozen(stays[: settings.frozen_weeks]) if settings.frozen_weeks else cost
    return cost if last is None else ChangePenalty.around(cost, last, rate("revision_rate"))


def _weekly(given: float | tuple[float, ...], weeks: int, name: str) -> np.ndarray:
    values = np.asarray(given, float)
    if values.ndim and len(values) != weeks:
        raise InputError(
            f"`regular_capacity` of {name} has {len(values)} weeks but {weeks} are planned; "
            "give one number, or one per week"
        )
    return np.broadcast_to(values, (weeks,))
