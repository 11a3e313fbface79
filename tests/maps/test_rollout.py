"""A window holds the agents and weeks of its pool; empty slots count for nothing."""

from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest

from walras.errors import InputError, ShapeError
from walras.maps.features import HORIZON
from walras.maps.rollout import PopulationWindow
from walras.policies.base_stock import PricedNewsvendor
from walras.population.generate import generate_panel
from walras.population.population import RESOURCES
from walras.simulation.run import simulate
from walras.train.agent_pool import AgentPool
from walras.train.shocks import draw_common, lagged_forecast

WEEKS, START = 18, 5
AGENTS = np.array([3, -1, 7, 3, -1])
WEIGHT = np.array([2.0, 9.0, 0.5, 1.0, 9.0])


@pytest.fixture(scope="module")
def world() -> AgentPool:
    return AgentPool.from_panel(generate_panel(12, 48, 4), resources=RESOURCES, refit_weeks=3)


@pytest.fixture(scope="module")
def cut(world) -> PopulationWindow:
    return world.window(AGENTS, START, WEEKS, weight=WEIGHT)


def expected_by_hand(world: AgentPool, week: int, ahead: int) -> np.ndarray:
    """Add up, from the latest fit at or before a week, what is expected of a week after it."""
    fit = max(index for index, first in enumerate(world.fit_week) if first <= week)
    row = week - world.fit_week[fit] + ahead
    use = np.asarray(world.population.use)
    filled = zip(AGENTS, WEIGHT, strict=True)
    return sum(weight * use[agent] * world.expected[fit, row, agent] for agent, weight in filled if agent >= 0)


def test_slots_hold_their_agents_and_weeks(world, cut):
    rows, filled = slice(START, START + WEEKS), AGENTS >= 0
    for name in ("demand", "sale_price", "unit_cost", "lead_demand_mean", "lead_demand_sd"):
        found, whole = np.asarray(getattr(cut.exogenous, name)), np.asarray(getattr(world.exogenous, name))
        np.testing.assert_array_equal(found[:, filled], whole[rows][:, AGENTS[filled]])
    lead_times = np.asarray(world.exogenous.arrivals.weeks)[rows][:, AGENTS[filled]]
    np.testing.assert_array_equal(np.asarray(cut.exogenous.arrivals.weeks)[:, filled], lead_times)
    np.testing.assert_array_equal(cut.valid[:, filled], world.on_sale[rows][:, AGENTS[filled]])
    np.testing.assert_array_equal(np.asarray(cut.population.use)[filled], world.population.use[AGENTS[filled]])
    np.testing.assert_array_equal(cut.population.names.labels[filled], world.population.names.labels[AGENTS[filled]])
    np.testing.assert_array_equal(cut.holidays, world.holidays[START : START + WEEKS + HORIZON])
    assert (cut.n_weeks, len(cut.population.weight)) == (WEEKS, len(AGENTS))


def test_empty_slots_weigh_nothing(world, cut):
    np.testing.assert_array_equal(cut.population.weight, [2.0, 0.0, 0.5, 1.0, 0.0])
    assert not np.asarray(cut.valid)[:, AGENTS < 0].any()
    np.testing.assert_array_equal(world.window(AGENTS, START, WEEKS).population.weight, [1.0, 0.0, 1.0, 1.0, 0.0])
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(cut))
    nobody = world.window(np.array([-1, -1]), START, WEEKS)
    assert not np.asarray(nobody.expected_use).any() and not np.asarray(nobody.population.weight).any()


def test_an_agent_has_no_history_before_its_launch(world):
    late = int(np.argmax(~world.on_sale[START]))
    launch = int(np.argmax(world.on_sale[:, late]))
    valid = np.asarray(world.window(np.array([late]), START, WEEKS).valid)[:, 0]
    np.testing.assert_array_equal(valid, np.arange(START, START + WEEKS) >= launch)
    assert launch > START


@pytest.mark.parametrize("week", [0, 1, 2, 3, 10, WEEKS - 1])
@pytest.mark.parametrize("ahead", [0, 1, HORIZON])
def test_expected_use_adds_up_the_latest_fit(world, cut, week, ahead):
    assert cut.expected_use.shape == (WEEKS, HORIZON + 1, len(RESOURCES))
    np.testing.assert_allclose(cut.expected_use[week, ahead], expected_by_hand(world, START + week, ahead), rtol=1e-5)


def test_a_common_surprise_is_in_the_demand_at_once_and_in_forecasts_late(world, cut):
    common = draw_common(np.random.default_rng(0), WEEKS, 0.4)
    found = world.window(AGENTS, START, WEEKS, weight=WEIGHT, common=common)
    level = lagged_forecast(common)
    np.testing.assert_allclose(found.exogenous.demand, cut.exogenous.demand * common[:, None], rtol=1e-5)
    for name in ("lead_demand_mean", "lead_demand_sd"):
        there, before = getattr(found.exogenous, name), getattr(cut.exogenous, name)
        np.testing.assert_allclose(there, before * level[:, None], rtol=1e-5)
    np.testing.assert_allclose(found.expected_use, cut.expected_use * level[:, None, None], rtol=1e-5)
    np.testing.assert_array_equal(found.initial.stock_end, cut.initial.stock_end)


@pytest.mark.parametrize("week", [0, 6])
def test_forecasts_follow_earlier_weeks_only(world, cut, week):
    common = np.ones(WEEKS)
    common[week] = 4.0
    found = world.window(AGENTS, START, WEEKS, weight=WEIGHT, common=common)
    for part in (lambda s: s.expected_use, lambda s: s.exogenous.lead_demand_mean):
        np.testing.assert_array_equal(part(found)[: week + 1], part(cut)[: week + 1])
        assert (np.asarray(part(found))[week + 1 :] >= part(cut)[week + 1 :]).all()
        assert np.asarray(part(found))[week + 1].sum() > np.asarray(part(cut))[week + 1].sum()


def test_it_starts_with_the_demand_of_a_lead_time_and_room_for_the_longest(world, cut):
    np.testing.assert_array_equal(cut.initial.stock_end, cut.exogenous.lead_demand_mean[0])
    assert cut.initial.pipeline.shape == (world.max_lead, len(AGENTS)) and not np.asarray(cut.initial.pipeline).any()
    roomy = replace(world, max_lead=world.max_lead + 2).window(AGENTS, START, WEEKS)
    assert roomy.initial.max_lead == world.max_lead + 2


def run(stretch: PopulationWindow):
    return simulate(stretch.population, stretch.exogenous, PricedNewsvendor(), initial=stretch.initial).totals


def test_it_simulates_and_empty_slots_contribute_nothing(world, cut):
    filled = AGENTS >= 0
    fewer = world.window(AGENTS[filled], START, WEEKS, weight=WEIGHT[filled])
    for one, other in zip(jax.tree.leaves(run(cut)), jax.tree.leaves(run(fewer)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)
    assert np.asarray(run(cut).utilization).sum() > 0
    np.testing.assert_allclose(cut.expected_use, fewer.expected_use, rtol=1e-5)


def test_equal_sizes_are_compiled_once(world):
    traces = []

    @eqx.filter_jit
    def look(stretch: PopulationWindow) -> jax.Array:
        traces.append(0)
        return stretch.expected_use.sum() + stretch.exogenous.demand.sum()

    random = np.random.default_rng(0)
    for start in (0, 7, world.n_weeks - WEEKS):
        agents = random.integers(-1, world.n_agents, 5)
        look(world.window(agents, start, WEEKS))
        look(world.window(agents, start, WEEKS, weight=random.random(5), common=draw_common(random, WEEKS, 0.2)))
    assert len(traces) == 1
    look(world.window(agents, 0, WEEKS + 1))
    assert len(traces) == 2


@pytest.mark.parametrize("start, weeks", [(-1, 5), (0, 41), (36, 5), (0, 0)])
def test_weeks_outside_the_pool_are_refused(world, start, weeks):
    with pytest.raises(InputError, match=f"{weeks} weeks from week {start} on .* weeks 0 to 39;"):
        world.window(AGENTS, start, weeks)


def test_unknown_agents_and_other_shapes_are_refused(world):
    with pytest.raises(InputError, match="agents from 0 to 12 .* agents 0 to 11"):
        world.window(np.array([0, 12]), 0, 5)
    with pytest.raises(ShapeError, match=r"`common` has shape \(4,\) but needs \(5,\)"):
        world.window(AGENTS, 0, 5, common=np.ones(4))
