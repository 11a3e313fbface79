"""Hold the search on a primal map to a map made by hand, and its closed loop to what may be known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_maps import ONE, untrained
from small_stretches import FIRST, WEEKS, Shy, plan, readers, stretch

from walras.maps.closed_loop import run_closed_loop
from walras.maps.features import HORIZON, units_of
from walras.maps.file import PRIMAL
from walras.maps.price_controller import PrimalSearch

POLICY = Shy()


def search(representation: str = "global", delegates: int = 0, **rules) -> PrimalSearch:
    learned = untrained(PRIMAL, representation, ONE, delegates=delegates)
    return PrimalSearch(learned.network, learned.scaling, **rules)


def answered(prices):
    """Use falls with the week's own price, and a little of it moves to the weeks beside."""
    beside = 0.5 * (jnp.roll(prices, 1, 0) + jnp.roll(prices, -1, 0))
    return jnp.exp(-0.8 * prices + 0.2 * (beside - prices))


def test_a_monotone_map_is_brought_to_capacity():
    capacity = jnp.asarray(np.random.default_rng(0).uniform(0.6, 1.3, (HORIZON, 1)), jnp.float32)
    rules = search(most=400, tolerance=1e-2)
    nu, asked = eqx.filter_jit(rules.search)(answered, capacity, jnp.zeros((HORIZON, 1)))
    prices = rules.prices(nu)
    over = answered(prices) / capacity - 1
    assert float(rules.residual(prices, over)) <= 1e-2 and int(asked) < 400
    assert float(over.max()) < 0.04
    assert float(prices[capacity > 1.25].max()) < 0.1 < float(prices[capacity < 0.7].min())


def test_a_good_start_ends_the_search_at_once():
    capacity = jnp.full((HORIZON, 1), 0.8)
    rules = search(most=400, tolerance=1e-2)
    nu, asked = rules.search(answered, capacity, jnp.zeros((HORIZON, 1)))
    again, once = rules.search(answered, capacity, nu)
    assert int(asked) > 2 and int(once) == 1
    np.testing.assert_array_equal(again, nu)


def test_the_search_ends_after_its_steps_and_below_its_ceiling():
    capacity = jnp.full((HORIZON, 1), 0.1)
    rules = search(most=50, ceiling=1.5)
    nu, asked = rules.search(lambda prices: 0.0 * prices + 1.0, capacity, jnp.full((HORIZON, 1), 9.0))
    assert float(rules.prices(nu).max()) == pytest.approx(1.5, rel=1e-5)
    # No price can do more, so that there is nothing left to search.
    assert int(asked) == 1
    nu, asked = rules.search(answered, capacity, jnp.zeros((HORIZON, 1)))
    assert int(asked) <= 51 and float(rules.prices(nu).max()) <= 1.5 * (1 + 1e-5)


def in_closed_loop(representation, delegates=0, change=None):
    given = stretch()
    if change is not None:
        given = eqx.tree_at(lambda s: s.exogenous.demand, given, given.exogenous.demand.at[change].mul(3.0))
    issuer = search(representation, delegates, most=6)
    return eqx.filter_jit(run_closed_loop)(given, readers(given, delegates), POLICY, plan(given, 0.7), issuer), given


@pytest.mark.parametrize(("representation", "delegates"), [("global", 0), ("bottom-up", 0), ("bucketized", 8)])
def test_maps_of_every_kind_are_searched_in_the_loop(representation, delegates):
    done, given = in_closed_loop(representation, delegates)
    prices = np.asarray(done.issued) / np.asarray(units_of(given.population).price)
    assert (
        prices.shape == (WEEKS - FIRST, HORIZON, 1) and np.isfinite(prices).all() and prices.max() <= 4.0 * (1 + 1e-5)
    )
    np.testing.assert_array_equal(done.charged[1:], done.issued[:-1, 0])
    assert ((np.asarray(done.asked) >= 1) & (np.asarray(done.asked) <= 7)).all()
    assert prices.std() > 0


def test_later_demand_does_not_change_earlier_prices():
    week = FIRST + 9
    (done, _), (other, _) = in_closed_loop("global"), in_closed_loop("global", change=week)
    known = week - FIRST + 1
    np.testing.assert_array_equal(other.issued[:known], done.issued[:known])
    assert (np.asarray(other.issued[known:]) != np.asarray(done.issued[known:])).any()


def test_what_is_searched_starts_from_last_weeks_answer():
    rules = search()
    start = rules.begin(2)
    assert start.shape == (HORIZON, 2) and not start.any()
    assert jax.nn.softplus(start[0, 0]) == pytest.approx(np.log(2))
