"""The compiled closed loop: slopes through it and causality."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_maps import TWO
from small_stretches import FIRST, WEEKS, Shy, cohort_index, dual_map, target_of, window

from walras.maps.closed_loop import DualMap, run_closed_loop
from walras.maps.features import HORIZON, units_of

POLICY, PROBES = Shy(), 8


@eqx.filter_jit
def loop_with_slope(network, scaling, window, index, target):
    """Run a dual map in the loop; return a mean of its prices and the slope in its weights."""

    def issued(network):
        result = run_closed_loop(window, index, POLICY, target, DualMap(network, scaling))
        direction = np.random.default_rng(8).uniform(0, 1, result.issued.shape)
        return (result.issued * jnp.asarray(direction, jnp.float32)).mean(), result

    return eqx.filter_value_and_grad(issued, has_aux=True)(network)


@pytest.fixture(scope="module")
def case():
    agents, dual = window(TWO), dual_map("deep-sets", TWO, PROBES)
    return dual.network, dual.scaling, agents, cohort_index(agents, PROBES), target_of(agents)


@pytest.fixture(scope="module")
def run(case):
    return loop_with_slope(*case)


def test_a_price_is_charged_a_week_after_it_was_issued(case, run):
    (_, result), _ = run
    prices = np.asarray(result.issued) / np.asarray(units_of(case[2].population).price)
    assert prices.shape == (WEEKS - FIRST, HORIZON, len(case[2].population.resources))
    assert 0.05 < prices.mean() < 5 and prices.std(0).mean() > 0.005
    np.testing.assert_array_equal(result.charged[1:], result.issued[:-1, 0])
    assert not np.asarray(result.charged[0]).any()
    assert result.states.stock_end.shape == (WEEKS - FIRST, 40)
    np.testing.assert_array_equal(result.queries, 1)


def test_slopes_are_those_of_the_loop(case, run):
    """The derivative agrees with a difference quotient, agents' responses included."""
    network, *rest = case
    _, slope = run
    weights, fixed = eqx.partition(network, eqx.is_inexact_array)
    length = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(slope))
    step = 2e-3 / length**0.5

    def moved(by: float):
        nearby = jax.tree.map(lambda weight, along: weight + by * along, weights, eqx.filter(slope, eqx.is_array))
        return float(loop_with_slope(eqx.combine(nearby, fixed), *rest)[0][0])

    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(length, rel=0.05)


def test_later_demand_does_not_change_earlier_prices(case, run):
    network, scaling, agents, *rest = case
    week = FIRST + 9
    later = eqx.tree_at(lambda w: w.exogenous.demand, agents, agents.exogenous.demand.at[week].mul(3.0))
    (_, other), _ = loop_with_slope(network, scaling, later, *rest)
    (_, result), _ = run
    known = week - FIRST + 1  # prices of the week itself are issued before its demand
    np.testing.assert_array_equal(other.issued[:known], result.issued[:known])
    assert (np.asarray(other.issued[known]) != np.asarray(result.issued[known])).any()


def test_a_target_holds_its_last_week():
    target = target_of(window())
    coming = np.asarray(target.coming(jnp.asarray(WEEKS - 3)))
    np.testing.assert_array_equal(coming[:2], target.capacity[-2:])
    np.testing.assert_array_equal(coming[2:], np.repeat(target.capacity[-1:], HORIZON - 2, 0))
