"""Standard methods: their names, and the work that they report."""

import numpy as np
import pytest
from small_maps import untrained

from lab.capacity_benchmark import BenchmarkSizes, CapacityBenchmark
from lab.controllers import DualMapController, NoControl, PrimalMapController, TimedJit
from lab.evaluate_control import CLAIRVOYANT, ClairvoyantBound, MethodMetrics, evaluate
from lab.simulation_mpc import standard_methods
from walras.maps.file import DUAL, PRIMAL
from walras.planning.prices.dual_ascent import ProjectedDual
from walras.policies.base_stock import PricedNewsvendor
from walras.population.generate import generate_panel
from walras.train.agent_pool import AgentPool

pytestmark = pytest.mark.slow

SIZES = BenchmarkSizes(agents=40, cohort=24, paths=2, history=10, weeks=28, burn_in=3)


def test_all_methods_have_their_names():
    found = standard_methods({"global": untrained(DUAL, "global")}, {"bottom-up": untrained(PRIMAL)})
    assert list(found) == [
        *("none", "throttle", "elasticity", "dual global", "primal bottom-up", "Uzawa", "Gauss-Newton"),
        *("MPC perfect forecast", "MPC one scenario", "MPC sixteen scenarios"),
    ]
    assert all(name == each.name for name, each in found.items())
    assert len(standard_methods()) == len(found) - 2


def test_work_is_judged_per_coordinated_week():
    agent_pool = AgentPool.from_panel(generate_panel(60, 56, 3), refit_weeks=8)
    cases = CapacityBenchmark(agent_pool, PricedNewsvendor(), 0.5, SIZES).cases()
    primal = PrimalMapController("primal", untrained(PRIMAL, "global"), {"most": 3, "tolerance": 0.0})
    judged = evaluate(
        cases,
        [NoControl(), DualMapController("dual", untrained(DUAL, "global")), primal],
        ClairvoyantBound(ceilings=(), ascent_steps=2, solver=ProjectedDual(max_queries=5, tolerance=0.0)),
    )
    figures = {name: MethodMetrics.of(judged, name, SIZES.burn_in).summary for name in judged[0].outcomes}
    asked = {name: each["queries"]["estimate"] for name, each in figures.items()}
    assert asked == {"none": 0, "dual": 1, "primal": 4, CLAIRVOYANT: 0}
    assert figures[CLAIRVOYANT]["simulations"]["estimate"] == pytest.approx((5 + 3) / SIZES.weeks)
    assert figures["none"]["seconds"]["estimate"] == 0 < figures[CLAIRVOYANT]["seconds"]["estimate"]
    assert figures["primal"]["seconds"]["low"] is not None


def test_compilation_is_no_work():
    timed = TimedJit(lambda x: x + 1)
    for each in (np.ones(3), np.zeros(3), np.ones(4)):
        answer, seconds = timed(each)
        np.testing.assert_array_equal(answer, each + 1)
        assert 0 < seconds < 5
    assert timed.traces == 2
