"""Tuned classical policies find the known best ones.

Known costs are from Zipkin (2008), Operations Research 56(5), table 3, and Zheng and Federgruen (1991).
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from shops import AGENTS, happenings, prices, shop, start
from textbook import lead_times, standard_error, stores

from walras.errors import SettingsError
from walras.exogenous.paths import constant_paths
from walras.policies.base_stock import OrderUpTo
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.week import empty_state
from walras.train.policy_families import (
    BestBaseStock,
    CappedBaseStockFamily,
    ConstantOrderFamily,
    CrossValidated,
    ForecastBaseStockFamily,
    Newsvendor,
    Rescaled,
    SsPolicy,
    TunedNewsvendor,
)
from walras.train.policy_value import BLOCK, Objective, TuningProblem

STORES, WEEKS, WARM_UP = 400, 260, 60
COUNTED = WEEKS - WARM_UP
ZIPKIN = {(1, 4): ({12}, 4.16), (2, 9): ({18, 19}, 6.32), (4, 4): ({24, 25}, 5.20)}
"""Best base-stock level (with those that cost less than half a percent more) and its cost, by lead time and penalty."""


@pytest.fixture(scope="module")
def poisson() -> np.ndarray:
    return np.random.default_rng(9).poisson(5.0, (WEEKS, STORES)).astype(np.float32)


def lost_sales(demand: np.ndarray, lead: int, penalty: float) -> dict:
    paths = constant_paths(demand, lead_times(demand, lead), lead_demand_mean=5.0 * (lead + 1), lead_demand_sd=5.0)
    people = stores(demand.shape[1], penalty=penalty, lead=lead)
    return {"population": people, "exogenous": paths, "initial": empty_state(people.n_agents, 4, 5.0 * (lead + 1))}


def tune(family, population, exogenous, *, initial, round_to=None, **objective):
    """Tune a family; what is not named otherwise belongs to the objective."""
    return family.tune(TuningProblem(population, exogenous, initial, None, Objective(**objective), round_to))


def policy_value(policy, population, exogenous, *, block=BLOCK, **given):
    return TuningProblem(population, exogenous, **given).evaluate(policy, block)


def costs(tuned) -> np.ndarray:
    return -np.asarray(tuned.value, float) / COUNTED


@pytest.mark.parametrize(("lead", "penalty"), ZIPKIN)
def test_one_base_stock_level_for_all_is_the_known_best(poisson, lead, penalty):
    """All stores are alike, so that tuning them together finds the exact level, and its exact cost."""
    levels, cost = ZIPKIN[lead, penalty]
    given = lost_sales(poisson, lead, float(penalty))
    shared = tune(BestBaseStock(groups=1), **given, warm_up=WARM_UP, round_to=1.0)
    assert len(set(shared.parameters["level"])) == 1 and set(shared.parameters["level"]) <= levels
    assert abs(costs(shared).mean() - cost) < 3.5 * standard_error(costs(shared)) + 0.005


def test_own_levels_fit_their_weeks_and_other_families_do_no_worse_than_base_stock(poisson):
    given = {**lost_sales(poisson, 2, 9.0), "warm_up": WARM_UP, "round_to": 1.0}
    shared, own = (tune(BestBaseStock(groups=groups), **given) for groups in (1, 0))
    assert (costs(own) <= costs(shared) + 1e-5).all() and costs(own).mean() < costs(shared).mean()
    capped = tune(CappedBaseStockFamily(groups=1), **given)
    assert costs(capped).mean() < costs(shared).mean() - 0.05
    assert 5 < capped.parameters["cap"][0] < 12


def test_the_best_constant_order_is_four_a_week(poisson):
    given = {**lost_sales(poisson, 2, 4.0), "warm_up": WARM_UP, "round_to": 1.0}
    found = tune(ConstantOrderFamily(groups=1), **given)
    assert set(found.parameters["quantity"]) == {4.0}
    assert abs(costs(found).mean() - 5.27) < 3.5 * standard_error(costs(found)) + 0.005


@pytest.mark.parametrize(("mean", "cost"), [(15, 42.698), (52, 72.246)])
def test_reorder_points_cost_what_is_published(mean, cost):
    """Holding cost 1, penalty 9, order cost 64, lead time 0, backlog: found within a few tenths of a percent."""
    demand = np.random.default_rng(mean).poisson(mean, (WEEKS, STORES)).astype(np.float32)
    people = stores(STORES, penalty=9.0)
    paths = constant_paths(demand, lead_times(demand, 0))
    given = {"initial": empty_state(STORES, 1, float(mean)), "backlog": True, "warm_up": WARM_UP, "order_cost": 64.0}
    found = tune(SsPolicy(groups=1), people, paths, **given, round_to=1.0)
    assert abs(costs(found).mean() - cost) < 3.5 * standard_error(costs(found)) + 0.003 * cost
    assert found.parameters["gap"][0] > mean


def test_factors_are_no_worse_than_the_newsvendor_and_correct_a_wrong_forecast(poisson):
    given = {**lost_sales(poisson, 1, 4.0), "warm_up": WARM_UP}
    wrong = constant_paths(poisson, given["exogenous"].arrivals, lead_demand_mean=20.0, lead_demand_sd=5.0)
    given = {**given, "exogenous": wrong}
    plain, tuned, level = (
        tune(family, **given) for family in (Newsvendor(), TunedNewsvendor(groups=1), ForecastBaseStockFamily(groups=1))
    )
    assert tuned.value.sum() >= plain.value.sum() and costs(plain).mean() > 1.5 * costs(tuned).mean()
    best = 4.16
    for found in (tuned, level):
        assert costs(found).mean() < 1.03 * best and found.parameters["mean_factor"][0] < 0.9


def test_buckets_share_and_agents_do_not(poisson):
    given = {**lost_sales(poisson[:, :40], 1, 4.0), "warm_up": WARM_UP}
    people = given["population"]
    scale = jnp.asarray(np.repeat([1.0, 9.0], 20), jnp.float32)
    given["population"] = type(people)(**{**people.__dict__, "demand_scale": scale})
    buckets = tune(BestBaseStock(groups=2), **given)
    level = buckets.parameters["level"]
    assert len(set(level[:20])) == len(set(level[20:])) == 1 and buckets.name == "base-stock, 2 demand buckets"
    assert len(set(tune(BestBaseStock(), **given).parameters["level"])) > 10


def test_weeks_that_follow_choose_between_families(poisson):
    """Own levels fit the noise of few weeks; with all agents alike, one level for all wins in the weeks after."""
    given = lost_sales(poisson[:27], 1, 4.0)
    chosen = tune(CrossValidated((BestBaseStock(), BestBaseStock(groups=1)), "base-stock"), **given)
    assert chosen.name == "base-stock: base-stock, one for all" and len(set(chosen.parameters["level"])) == 1
    with pytest.raises(SettingsError, match="cannot be cut into so many"):
        tune(CrossValidated((Newsvendor(),), "x", folds=20), **given)


def test_levels_that_are_best_in_hindsight_are_raised_for_weeks_to_come():
    """Skewed demand and dear lost sales: what few weeks have seen falls short of what will come."""
    skewed = np.random.default_rng(4).negative_binomial(1, 1 / 6, (150, STORES)).astype(np.float32)
    given = lost_sales(skewed[:27], 1, 99.0)
    plain, raised = tune(BestBaseStock(), **given), tune(Rescaled(BestBaseStock()), **given)
    factor = float(raised.name.split(" x ")[1])
    assert factor > 1.0
    np.testing.assert_allclose(raised.parameters["level"], factor * plain.parameters["level"])
    later = lost_sales(skewed[27:], 1, 99.0)
    costs = [-policy_value(one.policy, **later).value for one in (plain, raised)]
    assert costs[1].sum() < costs[0].sum()
    whole = tune(Rescaled(BestBaseStock(), factors=(1.15,)), **given, round_to=1.0).parameters["level"]
    np.testing.assert_array_equal(whole, np.rint(whole))


# --- what is tuned ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenarios, block", [(None, 3), (3, 4096)])
def test_values_add_up_to_the_simulator_s_own_total(scenarios, block):
    people = shop()
    paths, state, charged = happenings(people, scenarios=scenarios), start(people), prices(people)
    policy = OrderUpTo(jnp.arange(10.0, 10.0 + AGENTS))
    found = policy_value(policy, people, paths, initial=state, shadow_prices=charged, block=block)
    rollout = simulate(people, paths, policy, initial=state, shadow_prices=charged)
    paid = (np.asarray(rollout.totals.utilization) * np.asarray(charged)).sum((-1, -2)).mean()
    np.testing.assert_allclose(found.payments.sum(), paid, rtol=1e-5)
    np.testing.assert_allclose(found.value.sum(), np.mean(rollout.reward) - paid, rtol=1e-5)
    np.testing.assert_allclose(found.sales.sum(), np.asarray(rollout.totals.sales).sum(-1).mean(), rtol=1e-5)


def test_a_warm_up_is_charged_for_what_it_added_to_stock_and_a_stop_is_an_end():
    people = shop()
    paths, state = happenings(people), start(people)
    policy, kept = OrderUpTo(jnp.arange(10.0, 10.0 + AGENTS)), 3
    found = policy_value(policy, people, paths, initial=state, objective=Objective(warm_up=kept))
    happened = simulate(people, paths, policy, initial=state, record=Record.traces())
    final = happened.final
    added = np.asarray(happened.agents.orders - happened.agents.sales)[:kept].sum(0)
    value = np.asarray(happened.agents.reward)[kept:].sum(0) - np.asarray(paths.unit_cost)[kept] * added
    value += np.asarray(paths.unit_cost)[-1] * np.asarray(final.stock_end + final.pipeline.sum(0))
    np.testing.assert_allclose(found.value, value, rtol=1e-4)
    cut = happenings(people, weeks=paths.n_weeks - 2)
    for name in ("demand", "sale_price", "unit_cost", "lead_demand_mean", "lead_demand_sd"):
        cut = eqx.tree_at(lambda p, n=name: getattr(p, n), cut, getattr(paths, name)[:-2])
    cut = eqx.tree_at(lambda p: p.arrivals.weeks, cut, paths.arrivals.weeks[:-2])
    shorter = policy_value(policy, people, cut, initial=state, objective=Objective(warm_up=kept))
    stopped = policy_value(
        policy, people, paths, initial=state, objective=Objective(warm_up=kept, stop=paths.n_weeks - 2)
    )
    for name in ("value", "sales", "stock", "order_weeks"):
        np.testing.assert_allclose(getattr(stopped, name), getattr(shorter, name), rtol=1e-5, atol=1e-3)
    with pytest.raises(SettingsError, match="leave at least one week that counts"):
        policy_value(policy, people, paths, initial=state, objective=Objective(warm_up=paths.n_weeks))
