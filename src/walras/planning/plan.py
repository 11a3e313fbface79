"""From a panel to a verified plan: `plan` is what `walras plan` calls."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from walras.config import CostSettings, PlanSettings, checked, read_costs
from walras.data.panel import Panel
from walras.errors import InputError
from walras.planning.costs import ChangePenalty, PiecewiseLinearCost, PreviousPlan
from walras.planning.prices.simulated_view import SimulatedView
from walras.planning.problem import build_problem
from walras.planning.protocols import Grid
from walras.planning.result import PlanResult
from walras.planning.search import encode_population, load_maps, plan_by_maps, plan_by_simulation
from walras.planning.verify import verified_result
from walras.progress import Progress


def plan(
    panel: Panel,
    settings: PlanSettings | None = None,
    costs: CostSettings | str | Path | None = None,
    *,
    previous: PreviousPlan | PlanResult | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> PlanResult:
    """Plan capacity for a panel and verify the plan on paths it was not made on.

    Args:
        panel: as read from a table or made by the generator.
        settings: what to plan and how.
        costs: what capacity costs, or the TOML file that says so.
        previous: the plan that this one revises; changes cost `revision_rate`, and its regular capacity stays granted.
        progress: notified of stages and steps.
        options: fields of `PlanSettings` that take precedence, such as `weeks=26` or `interface="learned"`.

    Raises:
        InputError, SettingsError: one sentence on what the panel or the settings lack.
    """
    if settings is None or options:
        settings = checked(PlanSettings, {**(settings.model_dump() if settings else {}), **options}, "`plan`")
    costs = costs or CostSettings()
    costs = costs if isinstance(costs, CostSettings) else read_costs(Path(costs))
    if isinstance(previous, PlanResult):
        previous = _on_weeks(previous, panel.next_weeks(settings.weeks), settings.resources)
    return _plan(panel, settings, costs, previous, progress or Progress())


def _plan(
    panel: Panel, settings: PlanSettings, costs: CostSettings, last: PreviousPlan | None, progress: Progress
) -> PlanResult:
    for name in settings.resources:  # refused before any work is done
        _weekly(costs.of(name).regular_capacity or 0.0, settings.weeks, name)
    maps = load_maps(settings) if settings.interface == "learned" else None
    closed = weeks_without_capacity(panel.next_weeks(settings.weeks), settings, costs)
    problem = build_problem(panel, settings, closed=np.any(closed, axis=1), progress=progress)
    progress.stage("Planning")
    cost = acquisition_cost(problem.view, settings, costs, last, closed)
    if maps is None:
        record, search = plan_by_simulation(problem, cost, settings, progress)
    else:
        progress.stage("Encoding the population")
        view = encode_population(problem, maps, settings)
        progress.stage("Planning by learned maps")
        record, search = plan_by_maps(problem, view, cost, settings, progress)
    result = replace(verified_result(problem, record, cost, settings, costs, progress), search=search)
    if last is None:
        return result
    moved, weeks = last.moved(record.capacity), int(last.known.any(1).sum())
    note = f"In {weeks} weeks that the last plan planned, capacity moves by {moved:.1%} on average."
    return replace(result, moved=moved, notes=(*result.notes, note))


def weeks_without_capacity(
    weeks: np.ndarray, settings: PlanSettings, costs: CostSettings
) -> Bool[np.ndarray, "week resource"]:
    """Mark the weeks in which nothing can be received: days of `closed`, or a regular capacity of 0; never storage."""
    closed = np.zeros((len(weeks), len(settings.resources)), bool)
    for index, name in enumerate(settings.resources):
        if name != "storage":
            part = costs.of(name)
            days = np.asarray(part.closed, "datetime64[D]")
            closed[:, index] = ((weeks[:, None] <= days) & (days < weeks[:, None] + 7)).any(1)
            if part.regular_capacity is not None:
                closed[:, index] |= _weekly(part.regular_capacity, len(weeks), name) == 0
    return closed & ~closed.all(0)  # without any capacity there is no week to wait for


def acquisition_cost(
    view: SimulatedView,
    settings: PlanSettings,
    costs: CostSettings,
    last: PreviousPlan | None = None,
    closed: Bool[np.ndarray, "week resource"] | None = None,
) -> PiecewiseLinearCost:
    """Build the cost of capacity; frozen weeks keep the last plan's capacity, else the regular one.

    That is what `costs` give, else what the last plan was granted, else `regular_share` of mean expected use without
    prices; 0 in closed weeks.
    """
    names = view.resources
    free = view.expected(np.zeros((view.n_weeks, len(names))))
    regular = np.tile([settings.regular_share * use.mean() for use in free.T], (view.n_weeks, 1))
    if last is not None:
        regular = last.regular(regular)
    for index, name in enumerate(names):
        given = costs.of(name).regular_capacity
        if given is not None:
            regular[:, index] = _weekly(given, view.n_weeks, name)
    regular = regular if closed is None else np.where(closed, 0.0, regular)
    parts = [costs.of(name) for name in names]
    unit = view.price_scale if costs.rates == "margin" else 1.0

    def rate(field: str) -> Grid:
        return np.broadcast_to([unit * getattr(part, field) for part in parts], regular.shape).copy()

    cost = PiecewiseLinearCost.tiers(
        regular,
        rates=(rate("regular_rate"), rate("overtime_rate"), rate("agency_rate")),
        tops=[np.asarray(tops) for tops in zip(*(part.tier_ends for part in parts), strict=True)],
        lower=regular * np.asarray([part.lower_bound for part in parts]),
        ramp_up=rate("ramp_up"),
        ramp_down=rate("ramp_down"),
    )
    if settings.frozen_weeks:
        frozen = regular if last is None else np.where(last.known, last.capacity, regular)
        cost = cost.frozen(frozen[: settings.frozen_weeks])
    return cost if last is None else ChangePenalty.around(cost, last, rate("revision_rate"))


def _weekly(given: float | tuple[float, ...], weeks: int, name: str) -> Float[np.ndarray, " week"]:
    values = np.asarray(given, float)
    if values.ndim and len(values) != weeks:
        wrong = f"`regular_capacity` of {name} has {len(values)} weeks but {weeks} are planned"
        raise InputError(f"{wrong}; give one number, or one per week")
    return np.broadcast_to(values, (weeks,))


def _on_weeks(result: PlanResult, weeks: np.ndarray, resources: tuple[str, ...]) -> PreviousPlan:
    """Return an earlier plan on the weeks and resources that are planned now, NaN where it has none."""
    rows = {week: index for index, week in enumerate(result.weeks.tolist())}
    row = np.array([rows.get(week, -1) for week in weeks.tolist()])
    columns = np.array([result.resources.index(name) if name in result.resources else -1 for name in resources])
    if (row < 0).all() or (columns < 0).all():
        wrong = f"`previous` plans no week from {weeks[0]} to {weeks[-1]} for {', '.join(resources)}"
        raise InputError(f"{wrong}; give the plan that this one revises, or leave it out")

    def aligned(values: Grid) -> Grid:
        known = (row >= 0)[:, None] & (columns >= 0)
        return np.where(known, values[row][:, columns], np.nan)

    record = result.record
    return PreviousPlan(aligned(record.capacity), aligned(result.regular_capacity), aligned(record.shadow_prices))
