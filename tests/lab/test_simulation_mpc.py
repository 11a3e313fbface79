"""MPC by simulation: no use of the future, violation near the oracle, counted work."""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from lab.capacity_benchmark import BenchmarkCase, BenchmarkSizes, CapacityBenchmark
from lab.evaluate_control import ClairvoyantBound
from lab.simulation_mpc import SimulationMPC
from walras.planning.prices.dual_ascent import GaussNewton, ProjectedDual
from walras.policies.base_stock import PricedNewsvendor
from walras.population.generate import generate_panel
from walras.train.agent_pool import AgentPool

pytestmark = pytest.mark.slow

SIZES = BenchmarkSizes(agents=300, cohort=24, paths=1, history=40, weeks=30, burn_in=6)
FEW = ProjectedDual(max_queries=6)
CHANGED = 12
"""Coordinated week from which on another pool differs."""


@pytest.fixture(scope="module")
def agent_pool() -> AgentPool:
    return AgentPool.from_panel(generate_panel(400, 120, 3), refit_weeks=8)


@pytest.fixture(scope="module")
def case(agent_pool) -> BenchmarkCase:
    """Keep a population to a little less than it uses, the same in every week: few agents are lumpy enough."""
    episode = CapacityBenchmark(agent_pool, PricedNewsvendor(), 0.0, SIZES).episode(0)
    return BenchmarkCase(episode, np.full((SIZES.weeks, 1), 0.9 * episode.free.utilization[SIZES.burn_in :].mean()))


def elsewhere(agent_pool: AgentPool, case: BenchmarkCase) -> BenchmarkCase:
    """Let everything be different from a coordinated week on: demand, sale prices, and what is expected of them."""
    now = case.episode.week_of_pool(CHANGED)
    rows = (jnp.arange(agent_pool.n_weeks) >= now)[:, None]
    paths = agent_pool.exogenous
    fields = lambda e: (e.demand, e.sale_price, e.lead_demand_mean)  # noqa: E731
    moved = (jnp.where(rows, 2 * part + 1, part) for part in fields(paths))
    other = replace(
        agent_pool,
        exogenous=eqx.tree_at(fields, paths, tuple(moved)),
        expected=np.where((agent_pool.fit_week >= now)[:, None, None], 2 * agent_pool.expected, agent_pool.expected),
    )
    found = CapacityBenchmark(other, PricedNewsvendor(), 0.0, SIZES).episode(case.episode.path)
    return BenchmarkCase(found, case.capacity)


def over(kept, case) -> float:
    return float((np.maximum(kept.utilization - case.capacity, 0) / case.capacity)[SIZES.burn_in :].mean())


def test_prices_follow_from_what_is_known(agent_pool, case):
    method = SimulationMPC("mpc", FEW, 2, agents=40)
    mine, other = method.run(case), method.run(elsewhere(agent_pool, case))
    # Issued in the week itself, before its demand and sale prices: charged a week later.
    np.testing.assert_array_equal(mine.shadow_prices[:CHANGED], other.shadow_prices[:CHANGED])
    assert (mine.shadow_prices[:CHANGED] > 0).any()
    assert not np.array_equal(mine.shadow_prices[CHANGED + 1 :], other.shadow_prices[CHANGED + 1 :])


def test_a_perfect_forecast_looks_ahead(agent_pool, case):
    method = SimulationMPC("mpc", FEW, None)
    mine, other = method.run(case), method.run(elsewhere(agent_pool, case))
    assert not np.array_equal(mine.shadow_prices[:CHANGED], other.shadow_prices[:CHANGED])


def test_with_a_perfect_forecast_violation_is_near_the_oracles(case):
    kept = SimulationMPC("mpc", ProjectedDual(max_queries=40), None).run(case)
    best = ClairvoyantBound(ceilings=(2.0,), ascent_steps=2, solver=ProjectedDual(max_queries=150)).outcomes(case, [])[
        0
    ]
    free = over(case.episode.free, case)
    assert over(best, case) < 0.5 * free and over(kept, case) < over(best, case) + 0.2 * free


def test_newton_keeps_to_it_too(case):
    newton = SimulationMPC("newton", GaussNewton(max_iterations=2), None).run(case)
    assert over(newton, case) < 0.8 * over(case.episode.free, case)


def test_work_is_counted(case):
    one = SimulationMPC("one", ProjectedDual(max_queries=3, tolerance=0.0), 1).run(case).work
    two = SimulationMPC("two", ProjectedDual(max_queries=3, tolerance=0.0), 2).run(case).work
    assert one.simulations == 3 * SIZES.weeks and two.simulations == 2 * one.simulations
    assert one.seconds > 0 and one.queries == 0


def test_what_is_charged_in_the_first_week_is_nothing(case):
    kept = SimulationMPC("mpc", FEW).run(case)
    assert not kept.shadow_prices[0].any() and kept.utilization.shape == case.capacity.shape
    again = SimulationMPC("mpc", FEW).run(case)
    np.testing.assert_array_equal(kept.shadow_prices, again.shadow_prices)


def test_no_price_leaves_everybody_alone_where_there_is_room(case):
    roomy = replace(case, capacity=100 * case.capacity)
    kept, free = SimulationMPC("mpc", FEW).run(roomy), case.episode.free
    assert not kept.shadow_prices.any()
    np.testing.assert_allclose(kept.utilization, free.utilization, rtol=1e-4, atol=1e-3)
    assert kept.reward == pytest.approx(free.reward, rel=1e-4)
