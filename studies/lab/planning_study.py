"""Comparisons of planners: learned maps or simulation, small or large populations, weekly revisions, known futures.

All plans are verified by the same simulation on the same unseen scenarios.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from walras.config import CostSettings, PlanSettings
from walras.data.panel import Panel
from walras.exogenous.paths import ExogenousPaths
from walras.maps.file import LearnedMap
from walras.maps.interface import Interface
from walras.maps.view import LearnedView
from walras.planning.costs import ChangePenalty, PiecewiseLinearCost, PreviousPlan
from walras.planning.plan import acquisition_cost
from walras.planning.prices.oracle import path_outcome
from walras.planning.prices.simulated_view import SimulatedView
from walras.planning.problem import PlanningProblem, build_problem
from walras.planning.result import PlanRecord, Search
from walras.planning.search import (
    CHECKING,
    CalibratedView,
    assess_feasibility,
    encode_population,
    load_maps,
    plan_by_maps,
    plan_by_simulation,
    search_plan,
)
from walras.progress import Progress

Grid = Float[np.ndarray, "week resource"]

EVERYBODY = "everybody simulated"
"""The planner of a large population that others are compared with."""

PLANNER_NAMES = {"simulated": "cohort of {}", "learned": "maps, cohort of {}"}
"""Planners on a cohort by the `interface` of their settings."""

NOT_CONVERGED = "did not settle"
"""In the reason for stopping of a plan that was searched by simulation in the end."""

DAMPED = 0.5
"""Share of the way from the last plan to the new one that a damped revision goes."""

WAYS = ("afresh", "warm start", "damped", "change charged", "same data, other futures")
"""How the plan is revised; the last one is no revision, but the difference of plans on the same data."""


def build_case(panel: Panel, settings: PlanSettings) -> tuple[PlanningProblem, PiecewiseLinearCost]:
    """Build a planning problem and the cost of capacity."""
    problem = build_problem(panel, settings)
    return problem, acquisition_cost(problem.view, settings, CostSettings())


def plan_costs(
    problem: PlanningProblem, cost: PiecewiseLinearCost, record: PlanRecord, paths: ExogenousPaths | None = None
) -> dict[str, Any]:
    """Simulate scenarios under the planned prices, and return what the plan costs on each.

    Args:
        problem, cost, record: the plan.
        paths: scenarios; default the unseen ones of the problem.

    Returns:
        `total`: acquisition less reward, on each path [money]; `with_overflow`: with use beyond capacity bought at the
        highest rate; `violation`: mean excess over capacity on each path; `acquisition` [money].
    """
    paths = problem.unseen if paths is None else paths
    outcome = path_outcome(problem.population, paths, problem.policy, problem.initial, record.shadow_prices)
    bought, excess = cost.total(record.capacity), np.maximum(outcome.utilization - record.capacity, 0.0)
    total = bought - outcome.reward
    overflow = (excess * cost.top_rate()).sum((1, 2))
    violation = (excess / np.maximum(record.capacity, 1e-9)).mean((1, 2))
    return {"acquisition": bought, "total": total, "with_overflow": total + overflow, "violation": violation}


def plan_distance(plan: Grid, other: Grid) -> float:
    """Return the mean distance of two plans of the same weeks, as a share of the mean capacity."""
    return float(np.abs(plan - other).mean() / np.maximum(other.mean(), 1e-9))


def _timed(make: Callable[[], tuple[PlanRecord, int, int]]) -> dict[str, Any]:
    """Make a plan twice, and time the second one, which is compiled."""
    make()
    started = time.perf_counter()
    record, queries, simulations = make()
    seconds = time.perf_counter() - started
    return {"record": record, "queries": queries, "simulations": simulations, "seconds": seconds}


def compare_planners(panel: Panel, settings: PlanSettings, foreseen: int) -> dict[str, Any]:
    """Plan by maps and by simulation, verify both, and plan some scenarios as if they were known.

    Returns:
        Costs as shares of the simulated plan's acquisition cost; by path where there are paths.
    """
    problem, cost = build_case(panel, settings)
    interface = load_maps(settings)

    def by_maps() -> tuple[PlanRecord, int, int]:
        view = encode_population(problem, interface, settings)
        record, search = plan_by_maps(problem, view, cost, settings, Progress())
        return record, search.queries, search.simulations

    def by_simulation() -> tuple[PlanRecord, int, int]:
        before = problem.view.simulations
        record = assess_feasibility(problem.view, search_plan(problem.view, cost, settings, Progress()))
        return record, record.queries, problem.view.simulations - before

    plans = {"maps": _timed(by_maps), "simulation": _timed(by_simulation)}
    records = {name: plan.pop("record") for name, plan in plans.items()}
    costs = {name: plan_costs(problem, cost, record) for name, record in records.items()}
    unit = costs["simulation"]["acquisition"]
    planners = {
        name: {
            **facts,
            "feasible": records[name].feasible,
            "violation": costs[name]["violation"].tolist(),
            "acquisition": costs[name]["acquisition"] / unit,
        }
        for name, facts in plans.items()
    }
    excess = {
        f"excess_{key}": ((costs["maps"][key] - costs["simulation"][key]) / unit).tolist()
        for key in ("total", "with_overflow")
    }
    return {
        "agents": problem.population.n_agents,
        "acquisition": unit,
        "planners": planners,
        **excess,
        "plan_difference": plan_distance(records["maps"].capacity, records["simulation"].capacity),
        "regret": _regrets(problem, cost, settings, records, foreseen),
    }


def _regrets(
    problem: PlanningProblem,
    cost: PiecewiseLinearCost,
    settings: PlanSettings,
    plans: dict[str, PlanRecord],
    count: int,
) -> dict[str, list[float]]:
    """Return how much more each plan costs than the best plan with the future known, by path.

    A search on a single scenario easily ends in a local optimum: it starts from the usual prices and from each plan's,
    and the plans themselves are candidates. Overflow is bought.

    Returns:
        Shares of the acquisition cost of the best plan.
    """
    regrets: dict[str, list[float]] = {name: [] for name in plans}
    for number in range(count):
        path = _only(problem.unseen, number)
        view = SimulatedView(problem.population, path, problem.policy, problem.initial)
        tried = [search_plan(view, cost, settings, Progress()), *plans.values()]
        tried += [search_plan(view, cost, settings, Progress(), record.shadow_prices) for record in plans.values()]
        costs = (plan_costs(problem, cost, record, path) for record in tried)
        best = min(costs, key=lambda each: float(each["with_overflow"][0]))
        for name, record in plans.items():
            extra = plan_costs(problem, cost, record, path)["with_overflow"] - best["with_overflow"]
            regrets[name].append(float(extra[0] / best["acquisition"]))
    return regrets


def _only(paths: ExogenousPaths, number: int) -> ExogenousPaths:
    return paths.map_scenarios(lambda leaf: leaf[number : number + 1])


def revise_weekly(panel: Panel, settings: PlanSettings, weeks: int) -> dict[str, Any]:
    """Plan by maps week after week as the table's last weeks become known, and measure how far the plan moves.

    Returns:
        For each of `WAYS`: `moved`, by how much the plan of the coming weeks changes at each revision, as a share of
        capacity; `cost`: expected cost of the plan beyond that of planning afresh, as a share of the acquisition cost.
    """
    interface = load_maps(settings)
    figures: dict[str, dict[str, list[float]]] = {way: {"moved": [], "cost": []} for way in WAYS}
    other_seed = settings.model_copy(update={"seed": settings.seed + 7919})
    regular: np.ndarray | None = None
    last: dict[str, PlanRecord] = {}
    for week in range(weeks + 1):
        known = panel.before(panel.n_weeks - weeks + week)
        problem, cost = build_case(known, settings)
        # Regular capacity is a fact, not a forecast: it stays as it was when planning began.
        regular = cost.regular[:1] if regular is None else regular
        cost = _with_regular(cost, regular)
        view = _calibrated(problem, cost, interface, settings)
        now = {way: _revise(way, view, cost, settings, last.get(way)) for way in WAYS[:-1]}
        view = _calibrated(build_case(known, other_seed)[0], cost, interface, settings)
        twin = _revise(WAYS[-1], view, cost, settings, None)
        figures[WAYS[-1]]["moved"].append(plan_distance(twin.capacity, now["afresh"].capacity))
        afresh, unit = _expected_cost(problem, cost, now["afresh"]), cost.total(now["afresh"].capacity)
        for way, record in now.items():
            if way in last:
                figures[way]["moved"].append(plan_distance(record.capacity[:-1], last[way].capacity[1:]))
                figures[way]["cost"].append((_expected_cost(problem, cost, record) - afresh) / unit)
        last = now
    return figures


def _calibrated(
    problem: PlanningProblem, cost: PiecewiseLinearCost, interface: Interface, settings: PlanSettings
) -> CalibratedView:
    view = CalibratedView.of(encode_population(problem, interface, settings))
    free = np.zeros_like(cost.lower)
    return view.calibrated_at(free, problem.view.utilization(free))


def _with_regular(cost: PiecewiseLinearCost, regular: np.ndarray) -> PiecewiseLinearCost:
    factor = regular / cost.regular
    return replace(cost, edges=cost.edges * factor[..., None], lower=cost.lower * factor, upper=cost.upper * factor)


def _revise(
    way: str, view: CalibratedView, cost: PiecewiseLinearCost, settings: PlanSettings, last: PlanRecord | None
) -> PlanRecord:
    """Start from the last plan's prices; damped, go a part of the way from the last plan and price that.

    Where change is charged, the cost has a kink at the last plan in every week that it planned.
    """
    if last is None or way == "afresh":
        return search_plan(view, cost, settings, Progress(), view.shadow_prices(cost.middle))
    if way == "change charged":
        unknown = np.full_like(cost.lower[-1:], np.nan)
        parts = (last.capacity, cost.regular, last.shadow_prices)
        previous = PreviousPlan(*(np.concatenate([part[1:], unknown]) for part in parts))
        rate = np.full_like(cost.lower, CostSettings().revision_rate * view.price_scale)
        charged = ChangePenalty.around(cost, previous, rate)
        return search_plan(view, charged, settings, Progress(), previous.prices(np.zeros_like(cost.lower)))
    record = search_plan(view, cost, settings, Progress(), _shift(last.shadow_prices))
    if way != "damped":
        return record
    before = np.clip(_shift(last.capacity), cost.lower, cost.upper)
    capacity = before + DAMPED * (record.capacity - before)
    capacity[-1] = record.capacity[-1]
    prices = view.shadow_prices(capacity)
    return replace(record, capacity=capacity, shadow_prices=prices, utilization=view.utilization(prices))


def _shift(grid: Grid) -> Grid:
    return np.concatenate([grid[1:], grid[-1:]])


def _expected_cost(problem: PlanningProblem, cost: PiecewiseLinearCost, record: PlanRecord) -> float:
    return float(plan_costs(problem, cost, record)["with_overflow"].mean())


def large_plan_settings(
    settings: PlanSettings, cohorts: list[int], interfaces: list[str]
) -> Mapping[str, PlanSettings]:
    """Return settings by planner: all agents simulated, then each cohort size by every interface."""
    planners = {EVERYBODY: settings.model_copy(update={"interface": "simulated", "cohort": 0})}
    for count in cohorts:
        for interface in interfaces:
            update = {"interface": interface, "cohort": count}
            planners[PLANNER_NAMES[interface].format(count)] = settings.model_copy(update=update)
    return planners


def compare_large_plans(
    panel: Panel, settings: PlanSettings, cohorts: list[int], interfaces: list[str]
) -> dict[str, Any]:
    """Plan one problem by each planner, measure the time of finding and checking, and verify all plans alike.

    Returns:
        `agents`; of each planner `find`, `check` and `seconds` of both [wall], `processor` [seconds of all cores],
        `queries`, `simulations` of a cohort or a sample, `everybody`: simulations of all agents, `excess` cost over
        the first planner on each scenario as shares of its acquisition cost, `violation` on each, `difference` of the
        plans, and whether it `converged`.
    """
    started = time.perf_counter()
    problem, cost = build_case(panel, settings)
    table: dict[str, Any] = {"agents": problem.population.n_agents, "preparing": time.perf_counter() - started}
    table["planners"], plans = {}, {}
    for name, own in large_plan_settings(settings, cohorts, interfaces).items():
        _plan_timed(problem, cost, own)  # compiles
        plans[name], table["planners"][name] = _plan_timed(problem, cost, own)
    costs = {name: plan_costs(problem, cost, record) for name, record in plans.items()}
    unit, reference = costs[EVERYBODY]["acquisition"], costs[EVERYBODY]["with_overflow"]
    for name, facts in table["planners"].items():
        facts["excess"] = ((costs[name]["with_overflow"] - reference) / unit).tolist()
        facts["violation"] = costs[name]["violation"].tolist()
        facts["difference"] = plan_distance(plans[name].capacity, plans[EVERYBODY].capacity)
    return table


def _plan_timed(
    problem: PlanningProblem, cost: PiecewiseLinearCost, settings: PlanSettings
) -> tuple[PlanRecord, dict[str, Any]]:
    before, progress = (problem.view.queries, problem.view.jacobians), Progress()
    wall, processor = time.perf_counter(), time.process_time()
    progress.stage("Finding")
    record, search = _plan(problem, cost, settings, progress)
    progress.close()
    seconds, processor = time.perf_counter() - wall, time.process_time() - processor
    check, everybody = progress.seconds[CHECKING], problem.view.queries - before[0]
    # Simulations of the same problem by earlier planners are not counted here.
    others = search.simulations - search.full_simulations - (before[1] if settings.interface == "simulated" else 0)
    facts = {"find": seconds - check, "check": check, "seconds": seconds, "processor": processor}
    facts |= {"queries": search.queries, "simulations": others, "everybody": everybody}
    return record, {**facts, "converged": record.converged, "feasible": record.feasible, "why": record.stop_reason}


def _plan(
    problem: PlanningProblem, cost: PiecewiseLinearCost, settings: PlanSettings, progress: Progress
) -> tuple[PlanRecord, Search]:
    if settings.interface == "simulated":
        return plan_by_simulation(problem, cost, settings, progress)
    view = encode_population(problem, load_maps(settings), settings)  # loading and encoding are part of the time
    return plan_by_maps(problem, view, cost, settings, progress)


def join_seeds(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the tables of several seeds: every figure of a planner becomes the list of all seeds' values."""
    planners = {
        name: {key: [part["planners"][name][key] for part in parts] for key in first if key != "why"}
        for name, first in parts[0]["planners"].items()
    }
    return {"agents": int(np.mean([part["agents"] for part in parts])), "planners": planners}


def compare_dagger(panel: Panel, settings: PlanSettings, maps: Mapping[str, LearnedMap]) -> dict[str, Any]:
    """Plan by maps trained with and without the planner's own queries (DAgger), and by simulating all agents.

    Returns:
        `agents`; of each map `error_free` and `error_plan`: sum of |map's use - simulated use| relative to its sum, of
        expected use, without prices and at those that the plan by simulation ends with; `error_found` and
        `error_last`: of use with its reserve, corrected, at those that the map's first and last plan end with;
        `slope`: of its Jacobian at the plan by simulation on the simulated one, entry by entry through the origin;
        `queries`; `simulations`; whether it `settled` without a search by simulation; `excess` cost on each scenario as
        shares of the acquisition cost of the plan by simulation.
    """
    settings = settings.model_copy(update={"cohort": 0})
    problem, cost = build_case(panel, settings)
    reference = search_plan(problem.view, cost, settings, Progress())
    free, prices = np.zeros_like(reference.shadow_prices), reference.shadow_prices
    simulated, slope = problem.view.expected(prices), problem.view.jacobian(prices)
    costs = plan_costs(problem, cost, reference)
    table: dict[str, Any] = {"agents": problem.population.n_agents, "maps": {}}
    for name, learned in maps.items():
        view = encode_population(problem, Interface(learned, None, None, name), settings)
        facts = {
            "error_free": _relative_error(view, free, problem.view.expected(free)),
            "error_plan": _relative_error(view, prices, simulated),
            "slope": float((view.jacobian(prices) * slope).sum() / max((slope**2).sum(), 1e-30)),
        }
        record, search = plan_by_maps(problem, view, cost, settings, Progress())
        excess = plan_costs(problem, cost, record)["with_overflow"] - costs["with_overflow"]
        table["maps"][name] = {
            **facts,
            "error_found": search.errors[0],
            "error_last": search.errors[-1],
            "queries": search.queries,
            "simulations": search.simulations,
            "settled": NOT_CONVERGED not in record.stop_reason,
            "excess": (excess / costs["acquisition"]).tolist(),
        }
    return table


def _relative_error(view: LearnedView, prices: Grid, simulated: Grid) -> float:
    return float(np.abs(view.expected(prices) - simulated).sum() / max(simulated.sum(), 1e-9))
