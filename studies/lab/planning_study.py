"""Own the comparison of planners: by learned maps, by simulating everybody, knowing the future, week after week.

FREE: cases are `planner.case`; every plan is verified by the same simulation on the same unseen futures.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from walras.config import CostSettings, PlanSettings
from walras.data.panel import Panel
from walras.exogenous.paths import ExogenousPaths
from walras.planning.calibrated_view import CalibratedView
from walras.planning.costs import ChangePenalty, PiecewiseLinearCost, PreviousPlan
from walras.planning.plan import acquisition_cost
from walras.planning.policy_selection import select_policy
from walras.planning.prices.oracle import path_outcome
from walras.planning.prices.simulated_view import SimulatedView
from walras.planning.problem import PlanningProblem, build_problem
from walras.planning.refine import assess_feasibility
from walras.planning.result import PlanRecord
from walras.planning.search import encode_population, load_maps, plan_by_maps, search_plan
from walras.progress import Progress

Grid = Float[np.ndarray, "week resource"]


def prepared(panel: Panel, settings: PlanSettings) -> tuple[PlanningProblem, PiecewiseLinearCost]:
    """Build a case that both planners plan, and what capacity costs."""
    case = build_problem(panel, settings, select_policy(panel, settings))
    return case, acquisition_cost(case.view, settings, CostSettings())


def timed(make: Callable[[], tuple[PlanRecord, int, int]]) -> dict[str, Any]:
    """Make a plan twice, and time the second time, when all is compiled."""
    make()
    started = time.perf_counter()
    record, queries, simulations = make()
    seconds = time.perf_counter() - started
    return {"record": record, "queries": queries, "simulations": simulations, "seconds": seconds}


def by_simulation(case: PlanningProblem, cost: PiecewiseLinearCost, settings: PlanSettings) -> dict[str, Any]:
    """Plan by simulating everybody at every step."""

    def make() -> tuple[PlanRecord, int, int]:
        before = case.view.simulations
        record = assess_feasibility(case.view, search_plan(case.view, cost, settings, Progress()))
        return record, record.queries, case.view.simulations - before

    return timed(make)


def by_maps(case: PlanningProblem, cost: PiecewiseLinearCost, settings: PlanSettings) -> dict[str, Any]:
    """Plan by learned maps, the reading of the population included."""
    interface = load_maps(settings)

    def make() -> tuple[PlanRecord, int, int]:
        record, search = plan_by_maps(case, encode_population(case, interface, settings), cost, settings, Progress())
        return record, search.queries, search.simulations

    return timed(make)


def worth(
    case: PlanningProblem, cost: PiecewiseLinearCost, record: PlanRecord, paths: ExogenousPaths | None = None
) -> dict[str, Any]:
    """Simulate unseen futures under the planned prices, and add up what the plan costs on each.

    Args:
        case: who answers.
        cost: of capacity.
        record: the plan.
        paths: the futures; default the case's unseen ones.

    Returns:
        `total`: acquisition less reward, on each path [money]; `with_overflow`: with use beyond capacity bought at the
        dearest rate; `violation`: mean excess over capacity on each path; `acquisition` [money].
    """
    paths = case.unseen if paths is None else paths
    seen = path_outcome(case.population, paths, case.policy, case.initial, record.shadow_prices)
    bought, excess = cost.total(record.capacity), np.maximum(seen.utilization - record.capacity, 0.0)
    total = bought - seen.reward
    over = (excess * cost.top_rate()).sum((1, 2))
    violation = (excess / np.maximum(record.capacity, 1e-9)).mean((1, 2))
    return {"acquisition": bought, "total": total, "with_overflow": total + over, "violation": violation}


def compared_planners(panel: Panel, settings: PlanSettings, foreseen: int) -> dict[str, Any]:
    """Plan by maps and by simulation, verify both, and plan some futures as if they were known.

    Args:
        panel: to be planned after its last week.
        settings: with learned maps.
        foreseen: unseen futures that are planned knowing them, for the regret.

    Returns:
        Costs in shares of the simulated plan's acquisition cost; path by path where there are paths.
    """
    case, cost = prepared(panel, settings)
    plans = {"maps": by_maps(case, cost, settings), "simulation": by_simulation(case, cost, settings)}
    costs = {name: worth(case, cost, each["record"]) for name, each in plans.items()}
    unit = costs["simulation"]["acquisition"]
    told: dict[str, Any] = {"agents": case.population.n_agents, "acquisition": unit, "planners": {}}
    for name, each in plans.items():
        record, facts = each.pop("record"), costs[name]
        plans[name]["plan"] = record
        told["planners"][name] = {
            **{key: value for key, value in each.items() if key != "plan"},
            "feasible": record.feasible,
            "violation": facts["violation"].tolist(),
            "acquisition": facts["acquisition"] / unit,
        }
    for key in ("total", "with_overflow"):
        told[f"excess_{key}"] = ((costs["maps"][key] - costs["simulation"][key]) / unit).tolist()
    told["plan_difference"] = moved(plans["maps"]["plan"].capacity, plans["simulation"]["plan"].capacity)
    told["regret"] = regrets(case, cost, settings, {name: each["plan"] for name, each in plans.items()}, foreseen)
    return told


def regrets(
    case: PlanningProblem, cost: PiecewiseLinearCost, settings: PlanSettings, plans: dict[str, PlanRecord], count: int
) -> dict[str, list[float]]:
    """Return how much more each plan costs than the best that was found knowing the future, path by path.

    A search on a single future is caught easily: it is begun from the usual start and from each plan's own prices, and
    the plans themselves count as well, since whoever knows could choose them. Overflow is bought.

    Args:
        case, cost, settings: as planned.
        plans: by name.
        count: futures, each planned once.

    Returns:
        Shares of the acquisition cost of the plan that knew.
    """
    lost: dict[str, list[float]] = {name: [] for name in plans}
    for number in range(count):
        path = _only(case.unseen, number)
        view = SimulatedView(case.population, path, case.policy, case.initial)
        tried = [search_plan(view, cost, settings, Progress()), *plans.values()]
        tried += [search_plan(view, cost, settings, Progress(), record.shadow_prices) for record in plans.values()]
        knew = min((worth(case, cost, each, path) for each in tried), key=lambda each: float(each["with_overflow"][0]))
        for name, record in plans.items():
            extra = worth(case, cost, record, path)["with_overflow"] - knew["with_overflow"]
            lost[name].append(float(extra[0] / knew["acquisition"]))
    return lost


def _only(paths: ExogenousPaths, number: int) -> ExogenousPaths:
    own = jax.tree.map(lambda leaf: leaf[number : number + 1], (paths.demand, paths.arrivals))
    return eqx.tree_at(lambda each: (each.demand, each.arrivals), paths, own)


def moved(plan: Grid, other: Grid) -> float:
    """Return the mean distance of two plans of the same weeks, as a share of the mean capacity."""
    return float(np.abs(plan - other).mean() / np.maximum(other.mean(), 1e-9))


DAMPED = 0.5
"""Share of the way from the last plan to the new one that a damped revision goes."""

WAYS = ("afresh", "warm start", "damped", "change charged", "same data, other futures")
"""How the plan is revised; the last one is no revision, but how much plans differ that know the same."""


def revised(panel: Panel, settings: PlanSettings, weeks: int) -> dict[str, Any]:
    """Plan by maps week after week as the table's last weeks become known, and see how far the plan moves.

    Args:
        panel: table; its last `weeks` weeks are revealed one by one.
        settings: with learned maps.
        weeks: revisions.

    Returns:
        For each of `WAYS`: `moved`, by how much the plan of the coming weeks changes at each revision, as a share of
        capacity; `cost`: expected cost of the plan beyond that of planning afresh, as a share of the acquisition cost.
    """
    interface = load_maps(settings)
    told: dict[str, dict[str, list[float]]] = {way: {"moved": [], "cost": []} for way in WAYS}
    regular: np.ndarray | None = None
    last: dict[str, PlanRecord] = {}
    for week in range(weeks + 1):
        case, cost = prepared(panel.before(panel.n_weeks - weeks + week), settings)
        # Regular capacity is a fact, not a forecast: it stays as it was when planning began.
        regular = cost.regular[:1] if regular is None else regular
        cost = _at(cost, regular)
        asked = CalibratedView.of(encode_population(case, interface, settings))
        free = np.zeros_like(cost.lower)
        asked = asked.calibrated_at(free, case.view.utilization(free))
        now = {"afresh": _searched(asked, cost, settings, asked.shadow_prices(cost.middle))}
        for way in ("warm start", "damped", "change charged"):
            now[way] = _revision(way, asked, cost, settings, last.get(way))
        other, _ = prepared(panel.before(panel.n_weeks - weeks + week), replace_seed(settings))
        again = CalibratedView.of(encode_population(other, interface, settings))
        again = again.calibrated_at(free, other.view.utilization(free))
        twin = _searched(again, cost, settings, again.shadow_prices(cost.middle))
        told["same data, other futures"]["moved"].append(moved(twin.capacity, now["afresh"].capacity))
        usual = _expected(case, cost, now["afresh"])
        for way, record in now.items():
            if way in last:
                told[way]["moved"].append(moved(record.capacity[:-1], last[way].capacity[1:]))
                told[way]["cost"].append((_expected(case, cost, record) - usual) / cost.total(now["afresh"].capacity))
        last = now
    return told


def replace_seed(settings: PlanSettings) -> PlanSettings:
    """Return settings whose futures are drawn otherwise."""
    return settings.model_copy(update={"seed": settings.seed + 7919})


def _at(cost: PiecewiseLinearCost, regular: np.ndarray) -> PiecewiseLinearCost:
    factor = regular / cost.regular
    return replace(cost, edges=cost.edges * factor[..., None], lower=cost.lower * factor, upper=cost.upper * factor)


def _searched(asked: CalibratedView, cost: PiecewiseLinearCost, settings: PlanSettings, start: Grid) -> PlanRecord:
    return search_plan(asked, cost, settings, Progress(), start)


def _revision(
    way: str, asked: CalibratedView, cost: PiecewiseLinearCost, settings: PlanSettings, last: PlanRecord | None
) -> PlanRecord:
    """Start from the last plan's prices; damped, go a part of the way from the last plan and price that.

    Where change is charged, the cost has a kink at the last plan in every week that it planned.
    """
    if last is None:
        return _searched(asked, cost, settings, asked.shadow_prices(cost.middle))
    if way == "change charged":
        gone = np.full_like(cost.lower[-1:], np.nan)
        parts = (last.capacity, cost.regular, last.shadow_prices)
        before = PreviousPlan(*(np.concatenate([part[1:], gone]) for part in parts))
        rate = np.full_like(cost.lower, CostSettings().revision_rate * asked.price_scale)
        revised = ChangePenalty.around(cost, before, rate)
        return _searched(asked, revised, settings, before.prices(np.zeros_like(cost.lower)))
    record = _searched(asked, cost, settings, _later(last.shadow_prices))
    if way != "damped":
        return record
    before = np.clip(_later(last.capacity), cost.lower, cost.upper)
    capacity = before + DAMPED * (record.capacity - before)
    capacity[-1] = record.capacity[-1]
    prices = asked.shadow_prices(capacity)
    return replace(record, capacity=capacity, shadow_prices=prices, utilization=asked.utilization(prices))


def _later(grid: Grid) -> Grid:
    return np.concatenate([grid[1:], grid[-1:]])


def _expected(case: PlanningProblem, cost: PiecewiseLinearCost, record: PlanRecord) -> float:
    return float(worth(case, cost, record)["with_overflow"].mean())
