"""Plans of maps that are off are refined by simulation, and all of it is counted and reported."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from walras.config import CostSettings, PlanSettings
from walras.planning.costs import PiecewiseLinearCost
from walras.planning.plan import acquisition_cost
from walras.planning.problem import PlanningProblem, build_problem
from walras.planning.result import PlanRecord
from walras.planning.revision_loop import run_revision_loop
from walras.planning.revision_rules import ProximalPoint
from walras.planning.search import (
    NEAR,
    TOLERANCE,
    assess_feasibility,
    complementarity_residual,
    refine_by_simulation,
    stop_rule,
)
from walras.population.generate import generate_panel

SETTINGS = PlanSettings(weeks=10, scenarios=4, paths=2, policy="newsvendor")


@lru_cache
def case() -> PlanningProblem:
    return build_problem(generate_panel(agents=400, weeks=110, seed=0), SETTINGS)


@lru_cache
def known() -> tuple[PiecewiseLinearCost, PlanRecord]:
    """Plan by simulation throughout."""
    cost = acquisition_cost(case().view, SETTINGS, CostSettings())
    stop = stop_rule(case().view, 30, 30)
    return cost, assess_feasibility(case().view, run_revision_loop(case().view, cost, rule=ProximalPoint(), stop=stop))


def off(factor: float) -> tuple[PlanRecord, np.ndarray]:
    """Say what maps would have planned that misjudge all prices, and what came of it."""
    prices = factor * known()[1].shadow_prices
    record = replace(known()[1], shadow_prices=prices, converged=True, iterations=3, stop_reason="converged")
    return record, case().view.utilization(prices)


@pytest.mark.parametrize("factor", [0.7, 1.3, 2.5])
def test_a_plan_of_maps_that_are_off_is_finished_by_simulation(factor):
    view, (cost, best) = case().view, known()
    record, simulated = off(factor)
    missed = complementarity_residual(view, record, simulated).mean()
    before = view.simulations
    found = refine_by_simulation(view, cost, record, simulated)
    asked = view.simulations - before
    assert missed > 0.03 and assess_feasibility(view, record).feasible == (factor > 1) and 2 <= asked <= 45
    now = complementarity_residual(view, found, view.utilization(found.shadow_prices))
    assert (
        now.mean() <= TOLERANCE and assess_feasibility(view, found).feasible and assess_feasibility(view, best).feasible
    )
    assert found.iterations > 3 and "by simulation" in found.stop_reason
    assert found.converged == found.stop_reason.startswith("converged after 3 revisions and")
    assert cost.total(found.capacity) == pytest.approx(cost.total(best.capacity), rel=0.02)


def test_what_fits_is_left_alone():
    cost, best = known()
    use = case().view.utilization(best.shadow_prices)
    before = case().view.simulations
    roomy = replace(best, shadow_prices=np.zeros_like(use), capacity=1.2 * case().view.utilization(np.zeros_like(use)))
    assert refine_by_simulation(case().view, cost, roomy, roomy.capacity / 1.2) is roomy
    assert case().view.simulations == before + 1


def test_a_plan_that_gets_no_better_is_kept_and_not_called_converged():
    """One week is short by what costs money to add and no price may help: nothing better is found in no time."""
    cost, _ = known()
    record, simulated = off(1.0)
    short = replace(record, capacity=np.where(np.arange(len(simulated))[:, None] == 6, 0.97, 1.0) * record.capacity)
    found = refine_by_simulation(case().view, cost, short, simulated, revisions=1)
    kept = found.capacity is short.capacity
    assert found.converged is not kept and ("not converged: after 3" in found.stop_reason) == kept


def test_misses_forgive_what_no_price_can_change():
    record, simulated = off(1.0)
    top = replace(record, shadow_prices=np.full_like(simulated, case().view.max_price), capacity=0.5 * simulated)
    assert not complementarity_residual(case().view, top, simulated).any()
    free = replace(record, shadow_prices=np.zeros_like(simulated), capacity=0.5 * simulated)
    np.testing.assert_allclose(complementarity_residual(case().view, free, simulated)[case().view.controllable], 1.0)
    assert complementarity_residual(case().view, free, simulated).mean() > NEAR
