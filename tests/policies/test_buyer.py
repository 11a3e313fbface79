"""A neural buyer uses what it may know, and orders the same however a run is cut; networks here are random and loud."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from buyers import FORGETFUL, FULL, loud, past_of, profile_of, untrained
from shops import AGENTS, MAX_LEAD, SCENARIOS, WEEKS, Announcer, assert_same, happenings, prices, shop, start

from walras.exogenous.arrivals import IntegerLeadTimes
from walras.exogenous.paths import ExogenousPaths
from walras.policies.base import Observation
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.buyer import (
    MOST_VARIATION,
    MOST_WEEKS,
    PROFILE,
    PROFILE_RATIOS,
    Buyer,
    BuyerShape,
    _quantile_of,
    demand_profile,
)
from walras.population.agent_axis import map_per_agent
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.setup import cut_agents
from walras.simulation.week import State

PEOPLE = shop()
PATHS = happenings(PEOPLE)
STATE = start(PEOPLE)
CHARGED = prices(PEOPLE)
BUYERS = {
    "full": loud(FULL).with_profile(profile_of(PEOPLE)),
    "stranger": loud(FULL),  # the same network, but nothing is known of the agents' history
    "forgetful": loud(FORGETFUL),
}
every_buyer = pytest.mark.parametrize("buyer", BUYERS.values(), ids=BUYERS.keys())
every_shape = pytest.mark.parametrize("buyer", [BUYERS["full"], BUYERS["forgetful"]], ids=["full", "forgetful"])


def run(buyer, paths=PATHS, charged=CHARGED, people=PEOPLE, state=STATE, **how):
    given = {} if "controller" in how else {"shadow_prices": charged}
    return simulate(people, paths, buyer, initial=state, record=Record.traces(), **given, **how)


def orders_of(*given, **how) -> np.ndarray:
    return np.asarray(run(*given, **how).agents.orders)


@eqx.filter_jit
def _orders(buyer, seen, window):
    return buyer.orders(seen, window)


def long_sighted(path) -> Announcer:
    return Announcer(path, max_lead=2 * WEEKS)


# --- what it orders ---------------------------------------------------------------------------------------------------


@every_buyer
def test_a_loud_network_acts(buyer):
    orders, usual = orders_of(buyer), orders_of(PricedNewsvendor())
    assert np.abs(orders - usual).mean() > 0.05 * usual.mean() > 0


def test_an_untrained_buyer_orders_nearly_what_the_newsvendor_does():
    usual, *others = (orders_of(each) for each in (PricedNewsvendor(), untrained(FULL), loud(FULL)))
    fresh, acting = (np.abs(each - usual).mean() for each in others)
    # The softplus rounds the corner of the positive part, by log(2) / sharpness weeks of demand where it is most.
    assert fresh < 0.02 * usual.mean() and acting > 5 * fresh


@every_buyer
def test_orders_are_what_deciding_makes_of_encoding(buyer):
    seen = _seen_in_week(buyer, 4)
    window = jnp.asarray(CHARGED[: MAX_LEAD + 1 + buyer.ahead])
    parts = eqx.filter_jit(lambda buyer, seen: buyer.decide(buyer.encode(seen, window), seen, window))(buyer, seen)
    assert_same(_orders(buyer, seen, window), parts, exactly=False)


def _extreme(**changes) -> tuple:
    """Put agents into odd places: some fields of population, paths or state are filled with one number."""
    parts = [PEOPLE, PATHS, STATE]
    for name, value in changes.items():
        owner = next(index for index, part in enumerate(parts) if hasattr(part, name))
        filled = jnp.full_like(getattr(parts[owner], name), value)
        parts[owner] = eqx.tree_at(lambda part, name=name: getattr(part, name), parts[owner], filled)
    return tuple(parts)


EXTREMES = {
    "no scale": {"demand_scale": 0.0},
    "no margin": {"sale_price": 1.0, "unit_cost": 1.0, "lost_sale_penalty": 0.0, "unit_margin": 0.0},
    "a loss on every unit": {"sale_price": 0.0, "unit_cost": 1e6, "lost_sale_penalty": 0.0},
    "full shelves": {"stock_end": 1e9, "pipeline": 1e8},
    "no forecast": {"lead_demand_mean": 0.0, "lead_demand_sd": 0.0},
    "no demand": {"demand": 0.0},
    "great demand": {"demand": 1e7, "lead_demand_mean": 1e8, "lead_demand_sd": 1e8},
    "free to hold": {"holding_cost": 0.0},
    "dear to hold": {"holding_cost": 1e9},
    "nothing at all": {
        "demand_scale": 0.0,
        "holding_cost": 0.0,
        "lost_sale_penalty": 0.0,
        "sale_price": 0.0,
        "unit_cost": 0.0,
        "demand": 0.0,
        "lead_demand_mean": 0.0,
        "lead_demand_sd": 0.0,
        "stock_end": 0.0,
        "pipeline": 0.0,
    },
}


@every_shape
@pytest.mark.parametrize("extreme", EXTREMES)
def test_orders_are_finite_and_not_negative_in_odd_places(buyer, extreme):
    people, paths, state = _extreme(**EXTREMES[extreme])
    for charged in (CHARGED, 1e6 * CHARGED):
        orders = orders_of(buyer, paths, charged, people, state)
        assert np.isfinite(orders).all() and (orders >= 0).all()


@pytest.mark.parametrize("extreme", EXTREMES)
def test_derivatives_in_the_weights_are_finite_in_odd_places(extreme):
    people, paths, state = _extreme(**EXTREMES[extreme])
    slopes = _reward_slope(BUYERS["full"], people, paths, state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@eqx.filter_jit
@eqx.filter_grad
def _reward_slope(buyer, people, paths, state):
    return simulate(people, paths, buyer, initial=state, shadow_prices=CHARGED, throw=False).reward


# --- however a run is cut ---------------------------------------------------------------------------------------------


@every_shape
def test_relabelled_agents_order_the_same(buyer):
    order = np.random.default_rng(3).permutation(AGENTS)
    moved = lambda tree: map_per_agent(lambda leaf: leaf[..., order], tree, AGENTS)  # noqa: E731
    people = jax.tree.map(lambda leaf: leaf[order], PEOPLE)
    relabelled = orders_of(moved(buyer), moved(PATHS), CHARGED, people, moved(STATE))
    assert_same(orders_of(buyer)[:, order], relabelled, exactly=False)


@every_shape
@pytest.mark.parametrize("own_prices", [False, True])
def test_every_scenario_is_the_run_by_itself(buyer, own_prices):
    several = happenings(PEOPLE, scenarios=SCENARIOS)
    charged = prices(PEOPLE, scenarios=SCENARIOS) if own_prices else CHARGED
    together = orders_of(buyer, several, charged)
    for index in range(SCENARIOS):
        mine = dataclasses.replace(
            several, demand=several.demand[index], arrivals=IntegerLeadTimes(several.arrivals.weeks[index])
        )
        alone = orders_of(buyer, mine, charged[index] if own_prices else charged)
        assert_same(together[index], alone, exactly=False)
    assert np.abs(together[0] - together[1]).max() > 1


@pytest.mark.parametrize("scenarios", [None, SCENARIOS])
def test_week_by_week_is_the_same_as_one_pass(scenarios):
    buyer = BUYERS["full"]
    paths = happenings(PEOPLE, scenarios=scenarios)
    whole, apart = run(buyer, paths), run(buyer, paths, controller=long_sighted(CHARGED))
    assert_same(whole.agents.orders, apart.agents.orders, exactly=False)
    assert_same(whole.final, apart.final, exactly=False)


def test_a_run_in_two_stretches_is_the_same_as_one():
    buyer = BUYERS["full"]
    # Without prices and with costs that stay, since both are seen a few weeks ahead.
    paths = dataclasses.replace(PATHS, unit_cost=PATHS.unit_cost[:1])
    whole, half = run(buyer, paths, None), WEEKS // 2
    first, second = (_weeks(paths, slice(*span)) for span in ((0, half), (half, WEEKS)))
    begun = run(buyer, first, None)
    ended = run(buyer, second, None, state=begun.final)
    joined = jnp.concatenate([begun.agents.orders, ended.agents.orders])
    assert_same(joined, whole.agents.orders, exactly=False)
    assert_same(ended.final, whole.final, exactly=False)


def _weeks(paths: ExogenousPaths, span: slice) -> ExogenousPaths:
    return jax.tree.map(lambda leaf: leaf[span] if len(leaf) == WEEKS else leaf, paths)


def test_blocks_are_the_same_as_all_at_once():
    shape = dataclasses.replace(FULL, hidden=(600, 4))
    people = shop(600)
    paths, state, charged = happenings(people), start(people), prices(people)
    buyer = loud(shape, gain=100.0).with_profile(profile_of(people))
    whole, blocks = (orders_of(buyer, paths, charged, people, state, block_agents=size) for size in (768, 256))
    # Products of matrices are summed in another order in blocks of another size.
    assert_same(whole, blocks, exactly=False, rtol=1e-3, atol=1e-3)


def test_weights_of_which_there_are_as_many_as_agents_are_not_cut():
    agents, count = 32, 8
    people = shop(agents)
    buyer = loud(BuyerShape(history=agents, hidden=(agents, agents))).with_profile(profile_of(people))
    _, _, cut, _ = cut_agents(people, happenings(people), buyer, start(people), 5, count)
    assert_same(cut.network, buyer.network)
    np.testing.assert_array_equal(cut.profile, buyer.profile[:, 5 : 5 + count])


# --- the future -------------------------------------------------------------------------------------------------------

TODAY = 3
CHANGES = {"demand": 0, "sale_price": 1, "unit_cost": 2, "lead_demand_mean": 1, "lead_demand_sd": 1, "arrivals": 0}
"""Weeks after which a change is not known yet in `TODAY`: next week's cost is known, this week's demand is not."""


def _changed(name: str, first: int) -> ExogenousPaths:
    def later(leaf):
        weeks = jnp.arange(WEEKS)[:, None]
        return jnp.where(weeks >= first, (leaf + 1) % 4 if name == "arrivals" else 1.5 * leaf + 1, leaf)

    changed = jax.tree.map(lambda leaf: later(leaf).astype(leaf.dtype), getattr(PATHS, name))
    return dataclasses.replace(PATHS, **{name: changed})


@every_shape
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("apart", [False, True], ids=["one pass", "week by week"])
def test_the_future_is_never_used(buyer, name, apart):
    how = {"controller": long_sighted(CHARGED)} if apart else {}
    before = orders_of(buyer, **how)
    after = orders_of(buyer, _changed(name, TODAY + CHANGES[name]), **how)
    np.testing.assert_array_equal(before[: TODAY + 1], after[: TODAY + 1])
    assert np.abs(before[TODAY + 1] - after[TODAY + 1]).max() > 1e-3 or name == "arrivals"
    assert np.abs(before - after).max() > 1e-3


@pytest.mark.parametrize("name", ["full", "stranger"])
def test_last_weeks_demand_is_read_and_not_only_felt_in_stock(name):
    """Agents with empty shelves have the same stock whatever was asked for; who reads still knows the difference."""
    bare = State(jnp.zeros(AGENTS), jnp.zeros((MAX_LEAD, AGENTS)))
    paths = dataclasses.replace(PATHS, arrivals=IntegerLeadTimes(jnp.full((WEEKS, AGENTS), MAX_LEAD, jnp.int8)))
    more = dataclasses.replace(paths, demand=paths.demand.at[0].add(20.0))
    before, after = (orders_of(BUYERS[name], each, state=bare) for each in (paths, more))
    np.testing.assert_array_equal(before[0], after[0])
    assert (np.abs(after[1] - before[1]) > 0.01 * before[1]).all()
    forgetful = [orders_of(BUYERS["forgetful"], each, state=bare) for each in (paths, more)]
    np.testing.assert_array_equal(forgetful[0][1], forgetful[1][1])


@every_shape
def test_prices_are_not_seen_before_their_notice(buyer):
    notice = jnp.full((WEEKS, 3), 1, jnp.int32)
    dearer = CHARGED.at[TODAY + 2 :].add(1.0)
    before, after = (orders_of(buyer, charged=path, notice=notice) for path in (CHARGED, dearer))
    np.testing.assert_array_equal(before[: TODAY + 1], after[: TODAY + 1])
    told = orders_of(buyer, charged=dearer)
    assert np.abs(told[: TODAY + 1] - before[: TODAY + 1]).max() > 1e-3


# --- prices -----------------------------------------------------------------------------------------------------------


def _seen_in_week(buyer: Buyer, week: int, arrivals=None, people=PEOPLE) -> Observation:
    """Run some weeks, then build what agents see in the next one from the state that is left."""
    paths = PATHS if arrivals is None else dataclasses.replace(PATHS, arrivals=arrivals)
    left = run(buyer, _weeks_before(paths, week), None, people).final
    today = {name: getattr(paths, name)[week] for name in ("lead_demand_mean", "lead_demand_sd", "sale_price")}
    read = None
    if buyer.reads_history:
        read = 0.1 * jax.random.normal(jax.random.key(week), (buyer.shape.history, AGENTS))
    return Observation(
        week=jnp.asarray(week),
        population=people,
        unit_cost=paths.unit_cost[week],
        next_unit_cost=paths.unit_cost[week + 1],
        stock_start=left.stock_end + left.pipeline[0],
        position=left.stock_end + left.pipeline.sum(0),
        memory=left.memory,
        read=read,
        **today,
    )


def _weeks_before(paths: ExogenousPaths, week: int) -> ExogenousPaths:
    return _weeks(paths, slice(0, week))


@every_buyer
@pytest.mark.parametrize("resource", range(3))
def test_an_order_looks_at_the_prices_around_its_arrival_and_no_others(buyer, resource):
    seen = _seen_in_week(buyer, 4)
    seen = eqx.tree_at(lambda o: (o.stock_start, o.position), seen, (jnp.zeros(AGENTS), jnp.zeros(AGENTS)))
    window = jnp.full((MAX_LEAD + 1 + buyer.ahead, 3), 0.125)
    usual, lead = np.asarray(_orders(buyer, seen, window)), np.asarray(PEOPLE.lead_time)
    for ahead in range(len(window)):
        moved = np.asarray(_orders(buyer, seen, window.at[ahead, resource].add(0.125))) != usual
        offset = ahead - lead
        looked_at = (-buyer.shape.before <= offset) & (offset <= buyer.shape.after)
        np.testing.assert_array_equal(moved, looked_at)


@every_shape
def test_prices_beyond_what_it_looks_ahead_change_nothing(buyer):
    reach = MAX_LEAD + buyer.ahead
    assert buyer.ahead == buyer.shape.after and TODAY + reach < WEEKS + 2
    paths, charged = happenings(PEOPLE, weeks=2 * WEEKS), prices(PEOPLE, weeks=2 * WEEKS)
    usual = orders_of(buyer, paths, charged)
    for first, same in ((TODAY + reach + 1, True), (TODAY + reach, False)):
        moved = orders_of(buyer, paths, charged.at[first:].add(0.5))
        assert np.array_equal(moved[: TODAY + 1], usual[: TODAY + 1]) is same


@every_buyer
def test_flow_and_storage_are_told_apart_and_flows_are_not(buyer):
    seen = _seen_in_week(buyer, 4)
    alike = eqx.tree_at(lambda o: o.population.use, seen, jnp.ones((AGENTS, 3)))
    window = jnp.zeros((MAX_LEAD + 1 + buyer.ahead, 3))
    units, volume, storage = (_orders(buyer, alike, window.at[:, index].set(0.25)) for index in range(3))
    assert_same(units, volume)
    assert np.abs(units - storage).max() > 1e-2


@every_buyer
def test_resources_may_come_in_any_order(buyer):
    seen = _seen_in_week(buyer, 4)
    window, turned = CHARGED[: MAX_LEAD + 1 + buyer.ahead], np.array([2, 0, 1])
    people = dataclasses.replace(
        PEOPLE, use=PEOPLE.use[:, turned], resources=tuple(PEOPLE.resources[index] for index in turned)
    )
    other = dataclasses.replace(seen, population=people)
    assert_same(_orders(buyer, seen, window), _orders(buyer, other, window[:, turned]), exactly=False)


# --- stock and open orders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [1, 2, MAX_LEAD])
def test_open_orders_by_age_are_the_pipeline_where_the_lead_time_is_fixed(lead):
    people = dataclasses.replace(PEOPLE, lead_time=jnp.full(AGENTS, lead, jnp.int32))
    constant = IntegerLeadTimes(jnp.full((WEEKS, AGENTS), lead, jnp.int8))
    buyer = BUYERS["full"]
    seen = _seen_in_week(buyer, 5, constant, people)
    left = run(buyer, _weeks_before(dataclasses.replace(PATHS, arrivals=constant), 5), None, people).final
    scale = np.asarray(PEOPLE.demand_scale)
    _, features = buyer._seen(seen, jnp.asarray(scale))
    # What arrives `k` weeks from now was placed `lead - k` weeks ago: the youngest arrives last.
    due = np.asarray(left.pipeline)[1:lead][::-1] / scale
    assert due.sum() > 0 or lead == 1
    features = np.asarray(features)
    np.testing.assert_allclose(features[0], np.minimum(seen.stock_start / scale, MOST_WEEKS), rtol=1e-5)
    np.testing.assert_allclose(features[1:lead], due, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(features[lead:], 0.0, atol=1e-4)


def test_what_is_too_old_to_be_told_apart_is_one_number():
    buyer = loud(dataclasses.replace(FULL, open_orders=1))
    seen = eqx.tree_at(
        lambda o: (o.stock_start, o.position, o.memory.own_state),
        _seen_in_week(buyer, 4),
        (jnp.full(AGENTS, 2.0), jnp.full(AGENTS, 10.0), jnp.full((1, AGENTS), 3.0)),
    )
    position, features = buyer._seen(seen, jnp.full(AGENTS, 2.0))
    np.testing.assert_array_equal(position, np.full(AGENTS, 5.0))
    np.testing.assert_allclose(features, np.tile([[1.0], [1.5], [2.5]], AGENTS))


def test_the_last_orders_are_remembered_the_youngest_first():
    done = run(BUYERS["full"])
    np.testing.assert_array_equal(done.final.memory.own_state, done.agents.orders[::-1][: FULL.open_orders])


# --- the profile ------------------------------------------------------------------------------------------------------


def test_a_profile_by_hand():
    units = np.array([[4.0, 0.0, 5.0], [0.0, 0.0, 5.0], [2.0, 0.0, 5.0], [6.0, 0.0, 5.0]], np.float32)
    profile = demand_profile(units, np.array([1, 0, 9]))
    assert profile.shape == (PROFILE, 3) and profile.dtype == np.float32
    # Of weeks in pairs: 4, 2, 8. A lead time longer than the history is one sum over all of it.
    expected = [0.0, *np.interp(PROFILE_RATIOS[1:], [0.0, 0.5, 1.0], [2.0, 4.0, 8.0])]
    np.testing.assert_allclose(profile[: len(PROFILE_RATIOS), 0], expected, rtol=1e-6)
    np.testing.assert_allclose(profile[-2:, 0], [np.sqrt(5.0) / 3.0 / MOST_VARIATION, 0.75], rtol=1e-6)
    np.testing.assert_array_equal(profile[:, 1], np.zeros(PROFILE))
    np.testing.assert_array_equal(profile[:, 2], [0.0, *[20.0] * (len(PROFILE_RATIOS) - 1), 0.0, 1.0])


def test_quantiles_are_read_off_a_profile_by_straight_lines():
    profile = profile_of(PEOPLE)
    rows = np.asarray(profile[: len(PROFILE_RATIOS)])
    for ratio in (*PROFILE_RATIOS, 0.1, 0.375, 0.6, 0.93, 1.0):
        expected = [np.interp(ratio, PROFILE_RATIOS, rows[:, agent]) for agent in range(AGENTS)]
        np.testing.assert_allclose(_quantile_of(profile, jnp.full(AGENTS, ratio)), expected, rtol=1e-5, atol=1e-5)


def test_a_profile_moves_only_its_own_agent():
    profile = profile_of(PEOPLE)
    usual, moved = (orders_of(loud(FULL).with_profile(each)) for each in (profile, profile.at[3:6, 2].multiply(2.0)))
    changed = np.abs(usual - moved).max(0) > 1e-3
    np.testing.assert_array_equal(np.flatnonzero(changed), [2])


def test_half_of_the_way_to_the_agents_own_quantile_is_the_start():
    buyer, seen = untrained(dataclasses.replace(FULL, sharpness=64.0)), _seen_in_week(BUYERS["full"], 4)
    buyer = eqx.tree_at(lambda b: b.network.value.last.weight, buyer, replace_fn=jnp.zeros_like)
    empty = eqx.tree_at(lambda o: (o.stock_start, o.position), seen, (jnp.zeros(AGENTS), jnp.zeros(AGENTS)))
    window, profile = jnp.zeros((MAX_LEAD + 1 + buyer.ahead, 3)), profile_of(PEOPLE)
    own = _quantile_of(profile, buyer.base.critical_ratio(seen, window))
    expected = 0.5 * (own + buyer.base.target(seen, window))
    np.testing.assert_allclose(buyer.with_profile(profile).orders(empty, window), expected, rtol=1e-3)
    np.testing.assert_allclose(buyer.orders(empty, window), buyer.base.target(seen, window), rtol=1e-3)


def test_a_past_in_other_units_is_the_same_agent_in_other_units():
    past = past_of(PEOPLE)
    tens, ones = (demand_profile(times * past, np.asarray(PEOPLE.lead_time)) for times in (10.0, 1.0))
    np.testing.assert_allclose(tens[:-2], 10.0 * ones[:-2], rtol=1e-5)
    np.testing.assert_allclose(tens[-2:], ones[-2:], rtol=1e-5)
