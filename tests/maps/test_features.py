"""Maps read what was known in a week, no more, and see every population in its own units."""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from shops import AGENTS, MAX_LEAD, WEEKS, happenings, shop
from small_maps import TWO, past, people, unscaled, weighted

from walras.maps.agent_layout import PooledAgents
from walras.maps.features import (
    AGENT_FEATURES,
    AHEAD,
    ATTRIBUTES,
    FAR,
    HORIZON,
    LEAST_BASE,
    MASKED_COLUMNS,
    TOTALS,
    AgentHistory,
    Baseline,
    FeatureScaling,
    KnownFuture,
    MapInputs,
    _scaled,
    agent_features,
    attributes,
    baseline_of,
    future_features,
    open_orders,
    stock_use,
    total_features,
    units_of,
    weighted_median,
)
from walras.maps.representations import MapShape
from walras.policies.base_stock import OrderUpTo
from walras.simulation.record import Record
from walras.simulation.run import simulate, week_of
from walras.simulation.week import State

SHOP = replace(shop(), weight=jnp.asarray([1, 2, 0.5, 1, 0, 3, 1], jnp.float32))
POLICY = OrderUpTo(jnp.asarray(40.0 + 5.0 * np.arange(AGENTS), jnp.float32))
START = State(
    jnp.full(AGENTS, 10.0), jnp.asarray(np.arange(MAX_LEAD * AGENTS).reshape(MAX_LEAD, AGENTS) % 5, jnp.float32)
)
USE = np.asarray(SHOP.weight)[:, None] * np.asarray(SHOP.use)
VALID = jnp.ones((WEEKS, AGENTS))


@pytest.fixture(scope="module", params=["integer", "shares"])
def lived(request):
    """Live through the weeks in one piece, and one by one; a state is that before its week."""
    exogenous, found = happenings(SHOP, kind=request.param), [START]
    for week in range(WEEKS - 1):
        one = week_of(exogenous, jnp.asarray(week), 1)
        found.append(simulate(SHOP, one, POLICY, initial=found[-1]).final)
    return exogenous, simulate(SHOP, exogenous, POLICY, initial=START, record=Record.traces()).agents, found


def test_open_orders_are_the_pipeline_of_every_week(lived):
    exogenous, happened, states = lived
    due = np.asarray(open_orders(SHOP, exogenous, happened.orders, START))
    assert due.shape == (WEEKS, HORIZON + 1, 3) and not due[:, MAX_LEAD:].any()
    for week, state in enumerate(states):
        np.testing.assert_allclose(due[week, :MAX_LEAD], np.asarray(state.pipeline) @ USE, rtol=1e-5, atol=1e-4)
    assert due[-1].any()


def test_the_history_is_that_of_the_moment_in_which_prices_are_issued(lived):
    """Receipts are in, the week's own orders are not placed: some of them arrive in the week itself."""
    exogenous, happened, states = lived
    past_weeks = AgentHistory.from_traces(exogenous, happened, START, VALID)
    for week, state in enumerate(states):
        in_stock = state.stock_end + state.pipeline[0]
        np.testing.assert_allclose(past_weeks.receipts[week], state.pipeline[0], atol=1e-4)
        np.testing.assert_allclose(past_weeks.stock_start[week], in_stock, atol=1e-4)
        np.testing.assert_allclose(past_weeks.position[week], state.stock_end + state.pipeline.sum(0), atol=1e-3)
        if week:
            np.testing.assert_array_equal(past_weeks.orders_before[week], happened.orders[week - 1])
            np.testing.assert_array_equal(past_weeks.demand_before[week], happened.demand[week - 1])


def test_a_history_knows_nothing_of_its_own_weeks_demand_and_orders():
    exogenous, week = happenings(SHOP), 4
    other = eqx.tree_at(lambda e: e.demand, exogenous, exogenous.demand.at[week].add(7.0))
    higher = OrderUpTo(POLICY.level + 30.0)
    till = week_of(exogenous, jnp.asarray(0), week)
    before = simulate(SHOP, till, POLICY, initial=START).final
    now = [week_of(each, jnp.asarray(week), 1) for each in (exogenous, other)]
    found = []
    for paths, policy in ((now[0], POLICY), (now[1], POLICY), (now[0], higher)):
        happened = simulate(SHOP, paths, policy, initial=before, record=Record.traces()).agents
        past_weeks = AgentHistory.from_traces(paths, happened, before, VALID[:1])
        # The first row has no week before it, so that its own stands in for what a longer past_weeks knows.
        found.append(
            [
                past_weeks.receipts,
                past_weeks.stock_start,
                past_weeks.position,
                open_orders(SHOP, paths, happened.orders, before),
            ]
        )
    for one in found[1:]:
        for mine, first in zip(one, found[0], strict=True):
            np.testing.assert_allclose(mine, first, atol=1e-4)


def test_the_median_counts_agents_by_their_weight():
    values = jnp.asarray([[3.0, 10.0], [1.0, 20.0], [2.0, 30.0], [99.0, 0.0]])
    np.testing.assert_array_equal(weighted_median(values, jnp.asarray([1.0, 1.0, 1.0, 0.0])), [2.0, 20.0])
    np.testing.assert_array_equal(weighted_median(values, jnp.asarray([5.0, 1.0, 1.0, 0.0])), [3.0, 10.0])
    np.testing.assert_array_equal(weighted_median(values, jnp.asarray([0.0, 0.0, 0.0, 2.0])), [99.0, 0.0])


def test_scales_are_those_of_demand_and_count_weights():
    population = people(resources=TWO)
    found = units_of(population)
    demand, use = np.asarray(population.demand_scale), np.asarray(population.use)
    np.testing.assert_allclose(found.use, demand @ use, rtol=1e-5)
    assert float(found.demand) == pytest.approx(demand.sum(), rel=1e-5)
    twice = units_of(weighted(population, np.full(40, 2.0)))
    np.testing.assert_allclose(twice.use, 2 * found.use, rtol=1e-5)
    np.testing.assert_array_equal(twice.price, found.price)
    ratio = np.asarray(population.unit_margin) / use[:, 0]
    order = np.argsort(ratio)
    median = ratio[order][np.searchsorted(np.cumsum(demand[order]) / demand.sum(), 0.5)]
    assert float(found.price[0]) == pytest.approx(median, rel=1e-6)
    worthless = units_of(replace(population, unit_margin=-population.unit_margin))
    assert (np.asarray(worthless.price) > 0).all()


def known(expected, committed, stock) -> KnownFuture:
    rows = [np.broadcast_to(np.asarray(each, np.float32)[..., None], (27, 1)) for each in (expected, committed)]
    return KnownFuture(*map(jnp.asarray, rows), jnp.asarray([stock], jnp.float32), jnp.full((26, 2), 0.5))


def test_what_answers_start_from():
    """Flows have what is due, the weeks after this one; storage has none."""
    flow, stored = (weighted(people(resources=each), np.ones(40)) for each in (("inbound_units",), ("storage",)))
    size = [float(units_of(each).use[0]) for each in (flow, stored)]
    due = np.concatenate([[9.0], np.arange(26.0)])
    found = baseline_of(flow, known(np.r_[1e6, np.full(26, 2.0)] * size[0], due * size[0], 0.0), units_of(flow))
    np.testing.assert_allclose(found.level, [2.0], rtol=1e-5)
    np.testing.assert_allclose(found.due[:, 0], due[1:], rtol=1e-5)
    found = baseline_of(stored, known(np.zeros(27), due * size[1], 0.0), units_of(stored))
    np.testing.assert_allclose(found.level, [LEAST_BASE])
    assert not np.asarray(found.due).any()


def test_what_is_known_of_coming_weeks_is_projected():
    population = people()
    units = units_of(population)
    size = float(units.use[0])
    expected, due = np.r_[0.5, np.full(26, 1.0)], np.r_[9.0, 2.0, np.zeros(25)]
    rows = np.asarray(future_features(known(expected * size, due * size, 3.0 * size), units))
    assert rows.shape == (HORIZON, AHEAD + 2)
    np.testing.assert_allclose(rows[:, 0], 1.0, rtol=1e-5)
    np.testing.assert_allclose(rows[:2, 1], [2.0, 0.0], atol=1e-5)
    np.testing.assert_allclose(np.sinh(rows[:3, 2]), [3 + 2 - 0.5, 3 + 2 - 1.5, 3 + 2 - 2.5], rtol=1e-5)
    assert (rows[:, 3:] == 0.5).all()


def test_features_know_no_units_of_agents():
    """Everything in other pieces, and money in another currency: the same numbers but for the size itself."""
    population = people()
    past_weeks = past(population)
    times, money = 4.0, 3.0
    flows = (
        "receipts",
        "stock_start",
        "position",
        "demand_before",
        "orders_before",
        "lead_demand_mean",
        "lead_demand_sd",
    )
    more = {name: getattr(past_weeks, name) * times for name in flows}
    worth = {name: getattr(past_weeks, name) * money for name in ("sale_price", "unit_cost")}
    costs = {name: getattr(population, name) * money for name in ("unit_margin", "holding_cost", "lost_sale_penalty")}
    other = replace(population, demand_scale=population.demand_scale * times, **costs)
    before = np.asarray(agent_features(population, past_weeks, units_of(population)))
    after = np.asarray(agent_features(other, replace(past_weeks, **more, **worth), units_of(other)))
    assert before.shape == (64, 40, AGENT_FEATURES) and attributes(population, units_of(population)).shape == (
        40,
        ATTRIBUTES,
    )
    moved = [
        index for index in range(AGENT_FEATURES) if not np.allclose(before[..., index], after[..., index], atol=1e-3)
    ]
    assert len(moved) == 1
    np.testing.assert_allclose(after[..., moved[0]] - before[..., moved[0]], np.log(times), rtol=1e-4)
    totals = np.asarray(total_features(population, past_weeks, units_of(population)))
    assert totals.shape == (64, TOTALS)
    np.testing.assert_allclose(
        totals, total_features(other, replace(past_weeks, **more, **worth), units_of(other)), rtol=1e-4, atol=1e-5
    )
    by_hand = np.asarray(past_weeks.stock_start) @ np.asarray(population.use)
    np.testing.assert_allclose(stock_use(population, past_weeks), by_hand, rtol=1e-5)


def test_features_are_scaled_by_those_of_agents_who_are_there():
    random = np.random.default_rng(0)
    pooled = PooledAgents(jnp.asarray([1.0, 2, 0]), jnp.ones(3), jnp.asarray([0]), jnp.asarray([[1.0], [3], [1e6]]), 1)
    agents = np.stack([np.full((9, 2), 7.0), random.normal(3, 2, (9, 2)), np.full((9, 2), 1e6)], 1)
    rows = [
        jnp.asarray(each, jnp.float32) for each in (agents, random.normal(size=(9, 4)), random.normal(size=(2, 26, 5)))
    ]
    inputs = MapInputs(*rows, Baseline(jnp.ones((2, 1)), jnp.zeros((2, 26, 1))), pooled, jnp.ones((9, 3)))
    fitted = FeatureScaling.fit([inputs, inputs])
    np.testing.assert_allclose(fitted.attributes, [[2.0], [1.0]], rtol=1e-6)
    np.testing.assert_allclose(fitted.agents[0], agents[:, :2].reshape(-1, 2).mean(0), rtol=1e-5)
    done = fitted(inputs)
    np.testing.assert_allclose(np.asarray(done.totals).std(0), 1.0, rtol=1e-4)
    assert np.asarray(done.agents).max() == FAR and np.asarray(done.pooled.attributes).max() == FAR
    np.testing.assert_array_equal(done.baseline.level, inputs.baseline.level)
    blind = FeatureScaling.fit([replace(inputs, agents=None, valid=None)])
    assert blind.agents.shape == (2, 0) and blind(replace(inputs, agents=None, valid=None)).agents is None
    assert unscaled(MapShape("global", history_width=4)).agents.shape == (2, 0)


def test_what_a_map_is_blind_for_is_scaled_to_nothing():
    """Agents who earn and pay twice as much look the same to it; their demand still shows."""
    population, past_weeks = people(), past(people())
    units = units_of(population)

    def seen(margin: float, demand: float, scaling: FeatureScaling) -> list[np.ndarray]:
        names = ("unit_margin", "holding_cost", "lost_sale_penalty")
        other = replace(population, **{name: margin * getattr(population, name) for name in names})
        lived = replace(past_weeks, sale_price=margin * past_weeks.sale_price, unit_cost=margin * past_weeks.unit_cost)
        lived = replace(lived, demand_before=demand * lived.demand_before)
        rows = agent_features(other, lived, units), attributes(other, units)
        return [
            np.asarray(_scaled(each, part))
            for each, part in zip(rows, (scaling.agents, scaling.attributes), strict=True)
        ]

    random = np.random.default_rng(0)
    ones = jnp.ones(population.n_agents)
    pooled = PooledAgents(ones, ones, jnp.asarray([0]), attributes(population, units), 1)
    rows = [jnp.asarray(random.normal(size=size), jnp.float32) for size in ((64, TOTALS), (1, 26, 5))]
    features = agent_features(population, past_weeks, units)
    inputs = MapInputs(features, *rows, Baseline(jnp.ones((1, 1)), jnp.zeros((1, 26, 1))), pooled, past_weeks.valid)
    plain, blind = FeatureScaling.fit([inputs]), FeatureScaling.fit([inputs], ("economics",))
    for before, after in zip(seen(1.0, 1.0, blind), seen(2.0, 1.0, blind), strict=True):
        np.testing.assert_allclose(before, after, atol=1e-6)
    assert all((a != b).any() for a, b in zip(seen(1.0, 1.0, plain), seen(2.0, 1.0, plain), strict=True))
    assert (seen(1.0, 1.0, blind)[0] != seen(1.0, 3.0, blind)[0]).any()
    assert sorted(MASKED_COLUMNS) == ["economics", "prices"] and np.isfinite(np.asarray(blind.agents)).all()
