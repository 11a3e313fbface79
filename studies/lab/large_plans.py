"""Own the comparison of planners on a large population: everybody simulated, or a cohort, with and without maps.

FREE: all plan one and the same case, and every plan is verified by everybody on the same unseen futures.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from lab.planning_study import moved, prepared, worth
from walras.config import PlanSettings
from walras.data.panel import Panel
from walras.planning.costs import PiecewiseLinearCost
from walras.planning.problem import PlanningProblem
from walras.planning.refine import CHECKING
from walras.planning.result import PlanRecord, Search
from walras.planning.search import encode_population, load_maps, plan_by_maps, plan_by_simulation
from walras.progress import Progress

EVERYBODY = "everybody simulated"
"""The planner that others are compared with."""


NAMES = {"simulated": "cohort of {}", "learned": "maps, cohort of {}"}
"""Planners on a cohort by the `interface` of their settings."""


def planners(settings: PlanSettings, cohorts: list[int], interfaces: list[str]) -> Mapping[str, PlanSettings]:
    """Return the settings of each planner by name: everybody simulated, then cohorts by every interface.

    Args:
        settings: with learned maps.
        cohorts: agents of each.
        interfaces: names in `NAMES`.
    """
    told = {EVERYBODY: settings.model_copy(update={"interface": "simulated", "cohort": 0})}
    for count in cohorts:
        for interface in interfaces:
            told[NAMES[interface].format(count)] = settings.model_copy(update={"interface": interface, "cohort": count})
    return told


def large_planners(panel: Panel, settings: PlanSettings, cohorts: list[int], interfaces: list[str]) -> dict[str, Any]:
    """Plan one case by each planner, tell the time that finding and checking take, and verify all plans alike.

    Args:
        panel: to be planned after its last week.
        settings: with learned maps.
        cohorts: agents of each cohort.
        interfaces: by which each is planned, names in `NAMES`.

    Returns:
        `agents`; of each planner `find`, `check` and `seconds` of both [wall], `processor` [seconds of all cores],
        `queries`, `simulations` of a cohort or a sample, `everybody` simulated so often, `excess` cost over
        everybody's planner on each future in shares of its acquisition cost, `violation` on each, `difference` of the
        plans, and whether it `converged`.
    """
    started = time.perf_counter()
    case, cost = prepared(panel, settings)
    told: dict[str, Any] = {"agents": case.population.n_agents, "preparing": time.perf_counter() - started}
    told["planners"], plans = {}, {}
    for name, own in planners(settings, cohorts, interfaces).items():
        _planned(case, cost, own)  # compiles
        plans[name], told["planners"][name] = _planned(case, cost, own)
    costs = {name: worth(case, cost, record) for name, record in plans.items()}
    unit, usual = costs[EVERYBODY]["acquisition"], costs[EVERYBODY]["with_overflow"]
    for name, facts in told["planners"].items():
        facts["excess"] = ((costs[name]["with_overflow"] - usual) / unit).tolist()
        facts["violation"] = costs[name]["violation"].tolist()
        facts["difference"] = moved(plans[name].capacity, plans[EVERYBODY].capacity)
    return told


def _planned(
    case: PlanningProblem, cost: PiecewiseLinearCost, settings: PlanSettings
) -> tuple[PlanRecord, dict[str, Any]]:
    before, progress = (case.view.queries, case.view.jacobians), Progress()
    wall, processor = time.perf_counter(), time.process_time()
    progress.stage("Finding")
    record, search = _found(case, cost, settings, progress)
    progress.close()
    seconds, processor = time.perf_counter() - wall, time.process_time() - processor
    check = progress.seconds[CHECKING]
    everybody = case.view.queries - before[0]
    # What a case was simulated for before is nobody's work here.
    others = search.simulations - search.full_simulations - (before[1] if settings.interface == "simulated" else 0)
    facts = {"find": seconds - check, "check": check, "seconds": seconds, "processor": processor}
    facts |= {"queries": search.queries, "simulations": others, "everybody": everybody}
    return record, {**facts, "converged": record.converged, "feasible": record.feasible, "why": record.stop_reason}


def _found(
    case: PlanningProblem, cost: PiecewiseLinearCost, settings: PlanSettings, progress: Progress
) -> tuple[PlanRecord, Search]:
    if settings.interface == "simulated":
        return plan_by_simulation(case, cost, settings, progress)
    # Maps read the population and are loaded once a plan.
    return plan_by_maps(case, encode_population(case, load_maps(settings), settings), cost, settings, progress)


def summed(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the tables of several seeds: every figure of a planner becomes the list of all seeds' values.

    Args:
        parts: as `large_planners` returns them.
    """
    told: dict[str, Any] = {"agents": int(np.mean([part["agents"] for part in parts])), "planners": {}}
    for name, first in parts[0]["planners"].items():
        rows = [part["planners"][name] for part in parts]
        told["planners"][name] = {key: [row[key] for row in rows] for key in first if key != "why"}
    return told
