"""Elasticity control: planted elasticities, roots of expected use, no use of the future."""

from dataclasses import asdict, replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from lab.capacity_benchmark import BenchmarkCase, BenchmarkSizes, CapacityBenchmark
from lab.elasticity import Elasticities, ElasticityControl, _Response, fit_elasticities, fit_to_examples
from walras.errors import InputError
from walras.maps.features import HORIZON
from walras.policies.base_stock import PricedNewsvendor
from walras.population.generate import generate_panel
from walras.train.agent_pool import AgentPool

pytestmark = pytest.mark.slow

SIZES = BenchmarkSizes(agents=150, cohort=24, paths=1, history=40, weeks=30, burn_in=6)
PLANTED = Elasticities(np.array([5.0]), np.array([0.4, 0.9]), np.array([1.1, 0.2]))


@pytest.fixture(scope="module")
def plans() -> CapacityBenchmark:
    agent_pool = AgentPool.from_panel(generate_panel(200, 120, 3), refit_weeks=16)
    return CapacityBenchmark(agent_pool, PricedNewsvendor(), 0.0, SIZES)


@pytest.fixture(scope="module")
def case(plans) -> BenchmarkCase:
    """Keep a population to a little less than it uses, the same in every week: few agents are lumpy enough."""
    episode = plans.episode(0)
    return BenchmarkCase(episode, np.full((SIZES.weeks, 1), 0.9 * episode.free.utilization[SIZES.burn_in :].mean()))


def test_planted_elasticities_are_recovered():
    random = np.random.default_rng(0)
    price = np.maximum(random.normal(0.3, 0.4, 400), 0)
    gap = random.normal(0, 0.2, 400)
    free = random.uniform(50, 100, (400, 2))
    answer = np.exp(-np.outer(price, PLANTED.own) - np.outer(gap, PLANTED.shift))
    noise = np.exp(random.normal(0, 0.05, (400, 2)))
    found = fit_to_examples(PLANTED.edges, np.stack([price, gap], 1), free, free * answer * noise)
    np.testing.assert_allclose(found.own, PLANTED.own, atol=0.03)
    np.testing.assert_allclose(found.shift, PLANTED.shift, atol=0.05)


def test_a_population_that_answers_is_found_to_answer(plans):
    found = fit_elasticities(plans, buckets=2)
    assert found.own.shape == (2,) and (found.own >= 0).all() and (found.own + found.shift > 0.1).any()


def test_prices_are_the_roots_of_expected_use(case):
    response = _Response.of(PLANTED, case.episode.pop_window, 2.0)
    expected = jnp.full((HORIZON, 1), 100.0)
    room = 0.75 * response.use(jnp.zeros((HORIZON, 1)), jnp.zeros((HORIZON, 1)), expected)
    room = room.at[5].set(1e6).at[9].set(-1.0)
    prices = np.asarray(response.prices(room, expected, jnp.zeros(1), jnp.zeros((HORIZON, 1))))
    around = np.concatenate([np.zeros((1, 1)), prices, prices[-1:]])
    use = response.use(jnp.asarray(prices), jnp.asarray(0.5 * (around[:-2] + around[2:])), expected)
    inner = (prices > 1e-3) & (prices < 1.999)
    np.testing.assert_allclose(np.asarray(use)[inner], np.asarray(room)[inner], rtol=5e-3)
    assert inner.sum() > 10 and prices[5] == 0 and prices[9] == pytest.approx(2.0, abs=1e-3)


def test_violation_falls():
    """A hundred agents are too lumpy for a law of averages: this takes some more."""
    agent_pool = AgentPool.from_panel(generate_panel(900, 120, 3), refit_weeks=16)
    *_, case = CapacityBenchmark(agent_pool, PricedNewsvendor(), 0.0, replace(SIZES, agents=760, paths=2)).cases()
    kept = ElasticityControl().run(case)
    over, free = (
        np.maximum(use - case.capacity, 0)[SIZES.burn_in :].sum()
        for use in (kept.utilization, case.episode.free.utilization)
    )
    assert over < 0.5 * free and kept.work.simulations == 0
    assert not kept.shadow_prices[0].any() and kept.shadow_prices.any()


def test_later_demand_does_not_change_earlier_prices(case):
    episode, week = case.episode, 12
    demand = lambda s: s.exogenous.demand  # noqa: E731
    moved = eqx.tree_at(demand, episode.pop_window, demand(episode.pop_window).at[episode.first + week].mul(4.0))
    mine, other = (
        ElasticityControl().run(each) for each in (case, replace(case, episode=replace(episode, pop_window=moved)))
    )
    np.testing.assert_array_equal(mine.shadow_prices[: week + 1], other.shadow_prices[: week + 1])
    assert not np.array_equal(mine.shadow_prices, other.shadow_prices)


def test_numbers_are_stored_and_read_again(tmp_path):
    PLANTED.write(tmp_path / "found.json")
    again = Elasticities.read(tmp_path / "found.json")
    for one, other in zip(asdict(PLANTED).values(), asdict(again).values(), strict=True):
        np.testing.assert_allclose(one, other)
    shipped = Elasticities.shipped()
    assert len(shipped.own) == len(shipped.edges) + 1 and (shipped.own > 0).all()


@pytest.mark.parametrize("text", ["", "[1]", '{"edges": [1], "own": [1], "shift": [1, 2]}'])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "found.json").write_text(text)
    with pytest.raises(InputError, match="not a file of elasticities"):
        Elasticities.read(tmp_path / "found.json")
    with pytest.raises(InputError, match="not a file of elasticities"):
        Elasticities.read(tmp_path / "none.json")
