"""A contest tunes on training weeks, judges all on the same later weeks, and takes newcomers.

A tiny made-up table.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from walras.config import HistorySettings
from walras.errors import SettingsError
from walras.policies.base_stock import ConstantOrder
from walras.population.generate import generate_panel
from walras.simulation.run import simulate
from walras.train.history import train_test_split
from walras.train.policy_comparison import (
    COMPETITORS,
    compare_on_split,
    evaluate_policy,
    price_path,
    select_names,
    tuning_problem,
)
from walras.train.policy_value import TunedPolicy

NAMES = ("newsvendor", "base-stock", "constant-order")


def row_of(comparison, name):
    return next(row for row in comparison.ranking.rows if row.name == name)


@pytest.fixture(scope="module")
def case():
    return train_test_split(generate_panel(12, 44, 5), HistorySettings(holdout=12, draws=2))


@pytest.fixture(scope="module")
def result(case):
    return compare_on_split(case, NAMES)


def test_all_are_ranked_on_the_held_out_weeks(case, result):
    assert {row.name for row in result.ranking.rows} == set(NAMES)
    rewards = [row.reward for row in result.ranking.rows]
    assert rewards == sorted(rewards, reverse=True)
    for one in result.outcomes.values():
        np.testing.assert_allclose(one.demand, np.asarray(case.panel.units[-12:]).sum(0), rtol=1e-6)
        assert (one.sales <= one.demand + 1e-3).all() and one.weeks == 12


def test_reward_is_what_the_held_out_weeks_earned_after_living_with_ones_own_stock(case, result):
    policy = result.tuned["newsvendor"].policy
    before = simulate(case.population, case.training.exogenous, policy, initial=case.training.initial)
    after = simulate(case.population, case.holdout.exogenous, policy, initial=before.final)
    earned = float(np.mean(after.reward - before.end_value))
    assert row_of(result, "newsvendor").reward == pytest.approx(earned, rel=1e-3)


def test_all_can_begin_with_the_same_stock_instead(case, result):
    tuned, weeks = result.tuned["newsvendor"], case.holdout
    rollout = simulate(case.population, weeks.exogenous, tuned.policy, initial=weeks.initial)
    held = np.asarray(weeks.initial.stock_end) + np.asarray(weeks.initial.pipeline).sum(0)
    given = float((np.asarray(weeks.exogenous.unit_cost)[0] * held).sum())
    judged = evaluate_policy(case, tuned, initial=weeks.initial)
    assert judged.reward.sum() == pytest.approx(float(np.mean(rollout.reward)) - given, rel=1e-4)


def test_tuned_policies_are_best_where_they_were_tuned(case, result):
    problem = tuning_problem(case)
    for tuned in result.tuned.values():
        value = problem.evaluate(tuned.policy).value
        np.testing.assert_allclose(value, tuned.value, rtol=1e-5, atol=1e-2)


def test_a_newcomer_takes_part_under_its_own_name(case):
    ready = TunedPolicy("constant", ConstantOrder(jnp.zeros(case.n_agents)), np.zeros(case.n_agents), {}, 3.0)
    entered = {**COMPETITORS, "idle": lambda split, problem: ready}
    found = compare_on_split(case, ("newsvendor", "idle"), competitors=entered, against="newsvendor")
    assert row_of(found, "idle").seconds == 3.0 and row_of(found, "idle").difference.estimate < 0
    assert evaluate_policy(case, ready).name == "constant"


@pytest.mark.parametrize("kind", ["pulse", "haar"])
def test_prices_are_charged_and_announced(case, kind):
    prices = price_path(kind, case.population, 12, 0)
    assert prices.shape == (12, 1) and (np.asarray(prices) >= 0).all() and float(prices.max()) > 0
    again, other = (price_path(kind, case.population, 12, seed) for seed in (0, 1))
    np.testing.assert_array_equal(prices, again)
    assert kind == "pulse" or not np.array_equal(prices, other)
    free, priced = (
        evaluate_policy(case, compare_on_split(case, ("newsvendor",)).tuned["newsvendor"], shadow_prices=p)
        for p in (None, prices)
    )
    assert priced.reward.sum() < free.reward.sum()
    assert price_path("none", case.population, 12, 0) is None


@pytest.mark.parametrize(
    "names, words",
    [
        (("base-stok",), "policy `base-stok` is not known; did you mean `base-stock`?"),
        (("luck",), "policy `luck` is not known; choose from buyer, newsvendor"),
        (("newsvendor", "newsvendor"), "`policies` names newsvendor twice"),
    ],
)
def test_a_wrong_name_is_one_sentence(names, words):
    with pytest.raises(SettingsError) as error:
        select_names(names)
    assert words in str(error.value)


def test_no_name_is_everybody():
    assert select_names(()) == tuple(COMPETITORS)
