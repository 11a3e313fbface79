"""Ask that plans of maps that are off are finished by simulation, and that all of it is counted and told."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from walras.config import CostSettings, PlanSettings
from walras.planner.case import PlanningCase, build_case
from walras.planner.costs import PiecewiseLinearCost
from walras.planner.loop import plan
from walras.planner.make import acquisition_cost
from walras.planner.polish import NEAR, misses, polished
from walras.planner.result import PlanRecord
from walras.planner.rules import ProximalPoint
from walras.planner.search import TOLERANCE, judged, stop_rule
from walras.population.generate import generate_panel

SETTINGS = PlanSettings(weeks=10, scenarios=4, paths=2, policy="newsvendor")


@lru_cache
def case() -> PlanningCase:
    return build_case(generate_panel(agents=400, weeks=110, seed=0), SETTINGS)


@lru_cache
def known() -> tuple[PiecewiseLinearCost, PlanRecord]:
    """Plan by simulation throughout."""
    cost = acquisition_cost(case().view, SETTINGS, CostSettings())
    stop = stop_rule(case().view, 30, 30)
    return cost, judged(case().view, plan(case().view, cost, rule=ProximalPoint(), stop=stop))


def off(factor: float) -> tuple[PlanRecord, np.ndarray]:
    """Say what maps would have planned that misjudge all prices, and what came of it."""
    prices = factor * known()[1].shadow_prices
    record = replace(known()[1], shadow_prices=prices, converged=True, iterations=3, stop_reason="converged")
    return record, case().view.utilization(prices)


@pytest.mark.parametrize("factor", [0.7, 1.3, 2.5])
def test_a_plan_of_maps_that_are_off_is_finished_by_simulation(factor):
    view, (cost, best) = case().view, known()
    record, simulated = off(factor)
    missed = misses(view, record, simulated).mean()
    before = view.simulations
    found = polished(view, cost, record, simulated)
    asked = view.simulations - before
    assert missed > 0.03 and judged(view, record).feasible == (factor > 1) and 2 <= asked <= 45
    now = misses(view, found, view.utilization(found.shadow_prices))
    assert now.mean() <= TOLERANCE and judged(view, found).feasible and judged(view, best).feasible
    assert found.iterations > 3 and "by simulation" in found.stop_reason
    assert found.converged == found.stop_reason.startswith("converged after 3 revisions and")
    assert cost.total(found.capacity) == pytest.approx(cost.total(best.capacity), rel=0.02)


def test_what_fits_is_left_alone():
    cost, best = known()
    use = case().view.utilization(best.shadow_prices)
    before = case().view.simulations
    roomy = replace(best, shadow_prices=np.zeros_like(use), capacity=1.2 * case().view.utilization(np.zeros_like(use)))
    assert polished(case().view, cost, roomy, roomy.capacity / 1.2) is roomy
    assert case().view.simulations == before + 1


def test_a_plan_that_gets_no_better_is_kept_and_not_called_converged():
    """One week is short by what costs money to add and no price may help: nothing better is found in no time."""
    cost, _ = known()
    record, simulated = off(1.0)
    short = replace(record, capacity=np.where(np.arange(len(simulated))[:, None] == 6, 0.97, 1.0) * record.capacity)
    found = polished(case().view, cost, short, simulated, revisions=1)
    kept = found.capacity is short.capacity
    assert found.converged is not kept and ("not converged: after 3" in found.stop_reason) == kept


def test_misses_forgive_what_no_price_can_change():
    record, simulated = off(1.0)
    top = replace(record, shadow_prices=np.full_like(simulated, case().view.max_price), capacity=0.5 * simulated)
    assert not misses(case().view, top, simulated).any()
    free = replace(record, shadow_prices=np.zeros_like(simulated), capacity=0.5 * simulated)
    np.testing.assert_allclose(misses(case().view, free, simulated)[case().view.controllable], 1.0)
    assert misses(case().view, free, simulated).mean() > NEAR
