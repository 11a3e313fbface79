"""Own the proof that the loop is the same week by week and as a fixed point, in values and in slopes, and is causal.

FREE: a tiny made-up stretch with two resources, an untrained map whose prices move, and a policy that is quick to
compile, since both loops are compiled with their derivatives.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_maps import TWO
from small_stretches import FIRST, WEEKS, Shy, dual_map, plan, readers, stretch

from walras.maps.closed_loop import DualMap, fixed_point, reissue, run_closed_loop
from walras.maps.features import HORIZON, units_of

POLICY, ASKED = Shy(), 8


@eqx.filter_jit
def by_week(network, scaling, given, who, target):
    def issued(network):
        done = run_closed_loop(given, who, POLICY, target, DualMap(network, scaling))
        return (done.issued * direction(done.issued)).mean(), done

    return eqx.filter_value_and_grad(issued, has_aux=True)(network)


@eqx.filter_jit
def at_once(network, scaling, given, who, target):
    def issued(network):
        found = fixed_point(given, who, POLICY, target, DualMap(network, scaling))
        return (found.issued * direction(found.issued)).mean(), found

    (value, found), slope = eqx.filter_value_and_grad(issued, has_aux=True)(network)
    rolled = reissue(given, who, POLICY, target, DualMap(network, scaling), found.issued)[1]
    return (value, (found, rolled)), slope


def direction(issued: jax.Array) -> jax.Array:
    return jnp.asarray(np.random.default_rng(8).uniform(0, 1, issued.shape), jnp.float32)


@pytest.fixture(scope="module")
def case():
    given, dual = stretch(TWO), dual_map("deep-sets", TWO, ASKED)
    return dual.network, dual.scaling, given, readers(given, ASKED), plan(given)


@pytest.fixture(scope="module")
def slow(case):
    return by_week(*case)


@pytest.fixture(scope="module")
def fast(case):
    return at_once(*case)


def test_the_loop_is_lived_through(case, slow):
    """Prices move, agents answer to them, and the price charged in a week is the one issued the week before."""
    (_, done), _ = slow
    prices = np.asarray(done.issued) / np.asarray(units_of(case[2].population).price)
    assert prices.shape == (WEEKS - FIRST, HORIZON, len(case[2].population.resources))
    assert 0.05 < prices.mean() < 5 and prices.std(0).mean() > 0.005
    np.testing.assert_array_equal(done.charged[1:], done.issued[:-1, 0])
    assert not np.asarray(done.charged[0]).any()
    assert done.states.stock_end.shape == (WEEKS - FIRST, 40)


def test_as_a_fixed_point_it_gives_the_same_numbers(slow, fast):
    (_, done), _ = slow
    (_, (found, rolled)), _ = fast
    np.testing.assert_allclose(found.issued, done.issued, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(rolled.utilization[FIRST:], done.utilization, rtol=2e-4, atol=1e-2)
    np.testing.assert_allclose(rolled.reward[FIRST:], done.reward, rtol=1e-3, atol=0.5)
    assert float(rolled.end_value) == pytest.approx(float(done.end_value), rel=1e-4)


def test_fewer_sweeps_than_weeks_are_enough(fast):
    """Of a map that overreacts by far: trained ones settle sooner."""
    (_, (found, _)), _ = fast
    assert 2 <= int(found.sweeps) <= 25 < WEEKS - FIRST and float(found.change) <= 1e-5


def test_slopes_in_the_weights_are_the_same(slow, fast):
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slow[1]))
    assert largest > 1e-4
    for one, other in zip(*(jax.tree.leaves(each[1]) for each in (slow, fast)), strict=True):
        np.testing.assert_allclose(other, one, rtol=5e-3, atol=2e-3 * largest)


def test_slopes_are_those_of_the_loop(case, slow):
    """Hold the derivative to a difference quotient: agents' answers are in it."""
    network, *rest = case
    (value, _), slope = slow
    weights, fixed = eqx.partition(network, eqx.is_inexact_array)
    length = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(slope))
    step = 2e-3 / length**0.5

    def moved(by: float):
        nearby = jax.tree.map(lambda weight, along: weight + by * along, weights, eqx.filter(slope, eqx.is_array))
        return float(by_week(eqx.combine(nearby, fixed), *rest)[0][0])

    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(length, rel=0.05)


def test_later_demand_does_not_change_earlier_prices(case, slow):
    network, scaling, given, *rest = case
    week = FIRST + 9
    later = eqx.tree_at(lambda s: s.exogenous.demand, given, given.exogenous.demand.at[week].mul(3.0))
    (_, other), _ = by_week(network, scaling, later, *rest)
    (_, done), _ = slow
    known = week - FIRST + 1  # prices of the week itself are issued before its demand
    np.testing.assert_array_equal(other.issued[:known], done.issued[:known])
    assert (np.asarray(other.issued[known]) != np.asarray(done.issued[known])).any()


def test_a_plan_holds_its_last_week():
    target = plan(stretch())
    found = np.asarray(target.coming(jnp.asarray(WEEKS - 3)))
    np.testing.assert_array_equal(found[:2], target.capacity[-2:])
    np.testing.assert_array_equal(found[2:], np.repeat(target.capacity[-1:], HORIZON - 2, 0))
