"""Search of prices on a primal map: it fits capacity, ends, and runs in the closed loop."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from small_maps import ONE, untrained
from small_stretches import FIRST, WEEKS, Shy, cohort_index, target_of, window

from lab.controllers import PrimalSearch
from walras.maps.closed_loop import run_closed_loop, softplus_prices
from walras.maps.features import HORIZON, units_of
from walras.maps.file import PRIMAL

POLICY = Shy()


def search(representation: str = "global", probes: int = 0, **settings) -> PrimalSearch:
    learned = untrained(PRIMAL, representation, ONE, probes=probes)
    return PrimalSearch(learned.network, learned.scaling, **settings)


def falling_use(prices):
    """Use falls with the week's own price, and some of it moves to the weeks beside."""
    beside = 0.5 * (jnp.roll(prices, 1, 0) + jnp.roll(prices, -1, 0))
    return jnp.exp(-0.8 * prices + 0.2 * (beside - prices))


def test_a_monotone_map_is_brought_to_capacity_and_a_good_start_ends_at_once():
    capacity = jnp.asarray(np.random.default_rng(0).uniform(0.6, 1.3, (HORIZON, 1)), jnp.float32)
    controller = search(most=400, tolerance=1e-2)
    find = eqx.filter_jit(controller.search)
    nu, queries = find(falling_use, capacity, jnp.zeros((HORIZON, 1)))
    prices = softplus_prices(nu, controller.ceiling)
    over = falling_use(prices) / capacity - 1
    assert float(controller.residual(prices, over)) <= 1e-2 and 2 < int(queries) < 400
    assert float(over.max()) < 0.04
    assert float(prices[capacity > 1.25].max()) < 0.1 < float(prices[capacity < 0.7].min())
    again, once = find(falling_use, capacity, nu)
    assert int(once) == 1
    np.testing.assert_array_equal(again, nu)


def test_the_search_ends_after_its_steps_and_below_its_ceiling():
    capacity = jnp.full((HORIZON, 1), 0.1)
    controller = search(most=50, ceiling=1.5)
    nu, queries = controller.search(lambda prices: 0.0 * prices + 1.0, capacity, jnp.full((HORIZON, 1), 9.0))
    assert float(softplus_prices(nu, 1.5).max()) == pytest.approx(1.5, rel=1e-5)
    assert int(queries) == 1  # no price can do more, so that there is nothing left to search
    nu, queries = controller.search(falling_use, capacity, jnp.zeros((HORIZON, 1)))
    assert int(queries) <= 51 and float(softplus_prices(nu, 1.5).max()) <= 1.5 * (1 + 1e-5)


@pytest.mark.parametrize(("representation", "probes"), [("bottom-up", 0), ("bucketized", 8)])
def test_primal_maps_are_searched_in_the_loop(representation, probes):
    agents, controller = window(), search(representation, probes, most=6)
    index = cohort_index(agents, probes)
    result = eqx.filter_jit(run_closed_loop)(agents, index, POLICY, target_of(agents, 0.7), controller)
    prices = np.asarray(result.issued) / np.asarray(units_of(agents.population).price)
    assert prices.shape == (WEEKS - FIRST, HORIZON, 1) and np.isfinite(prices).all()
    assert prices.max() <= 4.0 * (1 + 1e-5) and prices.std() > 0
    np.testing.assert_array_equal(result.charged[1:], result.issued[:-1, 0])
    assert ((np.asarray(result.queries) >= 1) & (np.asarray(result.queries) <= 7)).all()
