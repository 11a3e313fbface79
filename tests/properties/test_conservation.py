"""In no shop do units appear or vanish, or the laws of a week fail to add up (hypothesis)."""

from functools import lru_cache

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shops import MAX_LEAD, SCENARIOS, WEEKS, happenings, order_up_to, prices, reorder_point, shop, start

from walras.policies.base_stock import PricedNewsvendor
from walras.simulation.record import Record
from walras.simulation.run import simulate

# (arrivals, backlog, policy): few, since each is a compilation.
CONFIGURATIONS = (
    ("integer", False, order_up_to),
    ("shares", False, reorder_point),
    ("integer", True, reorder_point),
    ("shares", True, order_up_to),
    ("integer", False, lambda population, seed: PricedNewsvendor()),
)
WHOLE = 4
"""So many of them, the first ones, order whole units."""

runs = given(st.integers(0, 10_000), st.integers(0, len(CONFIGURATIONS) - 1))


@lru_cache
def run(seed: int, number: int):
    """Simulate; return the start, the paths, the rollout and the traces as numpy."""
    kind, backlog, policy = CONFIGURATIONS[number]
    population = shop(seed=seed)
    paths = happenings(population, seed=seed, scenarios=SCENARIOS, kind=kind, supply=True)
    first = start(population, seed)
    charged = prices(population, seed=seed)
    rollout = simulate(
        population,
        paths,
        policy(population, seed),
        initial=first,
        shadow_prices=charged,
        record=Record.traces(),
        backlog=backlog,
    )
    return first, paths, rollout, jax.tree.map(np.asarray, rollout.agents)


@runs
@example(1, 0)
@example(1, 1)
@example(1, 2)
@example(1, 3)
@settings(max_examples=20)
def test_units_are_conserved_agent_by_agent(seed, number):
    first, _, rollout, seen = run(seed, number)
    before = np.asarray(first.stock_end) + np.asarray(first.pipeline).sum(0)
    after = np.asarray(rollout.final.stock_end) + np.asarray(rollout.final.pipeline).sum(-2)
    np.testing.assert_allclose(before + seen.orders.sum(1), seen.sales.sum(1) + after, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(
        np.asarray(first.stock_end) + seen.receipts.sum(1),
        seen.sales.sum(1) + np.asarray(rollout.final.stock_end),
        rtol=1e-5,
        atol=1e-4,
    )
    if number < WHOLE:  # whole units and eighths add up to the bit
        np.testing.assert_array_equal(before + seen.orders.sum(1), seen.sales.sum(1) + after)


@runs
@settings(max_examples=20)
def test_demand_is_served_lost_or_waits(seed, number):
    _, paths, _, seen = run(seed, number)
    np.testing.assert_array_equal(seen.demand, paths.demand)
    np.testing.assert_allclose(seen.sales + seen.lost_sales, seen.demand, rtol=1e-6)
    assert (seen.sales <= seen.demand).all() and (seen.lost_sales >= 0).all()
    if CONFIGURATIONS[number][1]:
        np.testing.assert_array_equal(seen.sales, seen.demand)
    else:
        assert (seen.stock_end >= 0).all() and (seen.sales >= 0).all()
        short = seen.lost_sales > 0
        assert (seen.stock_end[short] == 0).all()


@runs
@settings(max_examples=20)
def test_vendors_never_supply_more_than_they_can(seed, number):
    _, paths, _, seen = run(seed, number)
    limit = np.broadcast_to(paths.supply.units, seen.orders.shape)
    assert (seen.orders >= 0).all() and (seen.refused >= 0).all()
    assert (seen.orders <= limit).all()
    np.testing.assert_array_equal(seen.orders[seen.refused > 0], limit[seen.refused > 0])


def test_what_was_wanted_is_ordered_or_refused():
    population = shop()
    free, short = (happenings(population, supply=supply, seed=1) for supply in (False, True))
    run = [
        simulate(population, paths, order_up_to(population), initial=start(population), record=Record.traces()).agents
        for paths in (free, short)
    ]
    # In the first week both shops want the same, since nothing has been refused yet.
    np.testing.assert_array_equal(run[1].orders[0] + run[1].refused[0], run[0].orders[0])
    assert float(run[1].refused[0].sum()) > 0


def test_refused_units_leave_the_order_position():
    population = shop()
    paths = happenings(population, supply=True, seed=1)
    policy = order_up_to(population)
    first = start(population)
    seen = jax.tree.map(np.asarray, simulate(population, paths, policy, initial=first, record=Record.traces()).agents)
    position = np.asarray(first.stock_end) + np.asarray(first.pipeline).sum(0)
    for week in range(WEEKS):
        wanted = np.maximum(np.asarray(policy.level) - position, 0)
        np.testing.assert_array_equal(seen.orders[week] + seen.refused[week], wanted)
        position = position + seen.orders[week] - seen.sales[week]


@runs
@settings(max_examples=15)
def test_receipts_come_within_the_longest_lead_time(seed, number):
    first, _, _, seen = run(seed, number)
    orders, receipts = seen.orders.astype(float), seen.receipts.astype(float)
    placed = np.cumsum(orders, axis=1)
    begun = np.cumsum(np.asarray(first.pipeline, float), axis=0)
    known = np.concatenate([begun, np.repeat(begun[-1:], WEEKS - MAX_LEAD, axis=0)])[None]
    arrived = np.cumsum(receipts, axis=1) - known
    late = np.concatenate([np.zeros_like(placed[:, :MAX_LEAD]), placed[:, :-MAX_LEAD]], axis=1)
    assert (arrived <= placed + 1e-3).all() and (arrived >= late - 1e-3).all()


@pytest.mark.parametrize("backlog", [False, True])
def test_money_is_what_the_flows_say(backlog):
    population, first = shop(), start(shop())
    paths = happenings(population, supply=True, seed=1)
    rollout = simulate(
        population, paths, order_up_to(population), initial=first, record=Record.traces(), backlog=backlog
    )
    seen = jax.tree.map(lambda leaf: np.asarray(leaf, float), rollout.agents)
    short = np.maximum(-seen.stock_end, 0) if backlog else seen.lost_sales
    expected = (
        np.asarray(paths.sale_price) * seen.sales
        - np.asarray(paths.unit_cost) * seen.orders
        - np.asarray(population.holding_cost) * np.maximum(seen.stock_end, 0)
        - np.asarray(population.lost_sale_penalty) * short
    )
    np.testing.assert_array_equal(seen.reward, expected)
    left = np.asarray(rollout.final.stock_end) + np.asarray(rollout.final.pipeline).sum(0)
    assert float(rollout.end_value) == float((np.asarray(paths.unit_cost[-1]) * left).sum())
    assert float(rollout.reward) == pytest.approx(expected.sum() + float(rollout.end_value), rel=1e-6)
