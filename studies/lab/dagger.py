"""Own the measurement of what the planner's own queries are worth, fed back into the training of the map it asks.

FREE: maps are trained alike but for the prices that they learn under, and plan the same cases.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from lab.planning_study import prepared, worth
from walras.config import PlanSettings
from walras.data.panel import Panel
from walras.maps.file import LearnedMap
from walras.maps.interface import Interface
from walras.maps.view import LearnedView
from walras.planning.search import encode_population, plan_by_maps, search_plan
from walras.progress import Progress

UNSETTLED = "did not settle"
"""In the reason for stopping of a plan that was searched by simulation in the end."""

Grid = Float[np.ndarray, "week resource"]


def dagger_planners(panel: Panel, settings: PlanSettings, maps: Mapping[str, LearnedMap]) -> dict[str, Any]:
    """Plan one case by each map and by simulating everybody.

    Args:
        panel: to be planned after its last week.
        settings: with learned maps; everybody is simulated to correct them.
        maps: primal ones by name.

    Returns:
        `agents`; of each map `error_free` and `error_plan`: sum of |map's use - simulated use| relative to its sum, of
        expected use, without prices and at those that the plan by simulation ends with; `error_found` and
        `error_last`: of use with its reserve, corrected, at those that the map's first and last plan end with;
        `slope`: of its Jacobian at the plan by simulation on the simulated one, entry by entry through the origin;
        `queries`; `simulations`; whether it `settled` without a search by simulation; `excess` cost on each future in
        shares of the acquisition cost of the plan by simulation.
    """
    own = settings.model_copy(update={"cohort": 0})
    case, cost = prepared(panel, own)
    usual = search_plan(case.view, cost, own, Progress())
    free, prices = np.zeros_like(usual.shadow_prices), usual.shadow_prices
    simulated, slope = case.view.expected(prices), case.view.jacobian(prices)
    spent = worth(case, cost, usual)
    told: dict[str, Any] = {"agents": case.population.n_agents, "maps": {}}
    for name, learned in maps.items():
        view = encode_population(case, Interface(learned, None, None, name), own)
        facts = {
            "error_free": _off(view, free, case.view.expected(free)),
            "error_plan": _off(view, prices, simulated),
            "slope": _slope(view.jacobian(prices), slope),
        }
        record, search = plan_by_maps(case, view, cost, own, Progress())
        mine = worth(case, cost, record)
        told["maps"][name] = {
            **facts,
            "error_found": search.errors[0],
            "error_last": search.errors[-1],
            "queries": search.queries,
            "simulations": search.simulations,
            "settled": UNSETTLED not in record.stop_reason,
            "excess": ((mine["with_overflow"] - spent["with_overflow"]) / spent["acquisition"]).tolist(),
        }
    return told


def _off(view: LearnedView, prices: Grid, simulated: Grid) -> float:
    return float(np.abs(view.expected(prices) - simulated).sum() / max(simulated.sum(), 1e-9))


def _slope(ours: Float[np.ndarray, "entry entry"], theirs: Float[np.ndarray, "entry entry"]) -> float:
    return float((ours * theirs).sum() / max((theirs**2).sum(), 1e-30))
