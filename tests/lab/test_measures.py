"""Figures of studies: intervals, explained variance, marginal values, known answers."""

import jax.numpy as jnp
import numpy as np
import pytest

from lab.formulas import FORMULAS
from lab.linear_program import compare_with_program
from lab.marginal_values import Outcomes, compare_prices
from lab.planning_study import EVERYBODY, join_seeds, large_plan_settings
from lab.price_response import LASTING, explain_variance, price_pulse, pulse_starts
from lab.results import format_interval, path_interval
from lab.textbook import cut_normal_cost, pool_seeds, reorder_points, stationary_stock, summarise_errors
from walras.config import PlanSettings
from walras.policies.base_stock import ReorderPoint


def test_an_interval_leaves_out_what_says_nothing_and_is_cut_at_limits():
    found = path_interval([0.1, None, 0.3, float("nan"), 0.9], least=0.0)
    assert found["paths"] == 3 and found["low"] == 0.0 < found["estimate"] < found["high"]
    assert path_interval([None, 2.0]) == {"estimate": 2.0, "low": None, "high": None, "paths": 1}
    assert format_interval(path_interval([])) == "unknown" and format_interval(path_interval([0.25]), 0, 100) == "25"


def test_variance_is_explained_by_what_made_it_and_by_nothing_else():
    random = np.random.default_rng(0)
    made, other = random.normal(size=(2, 4000))
    own = np.abs(made) + 0.5 * random.normal(size=(6, 4000))
    found = explain_variance(own, {"made": made, "other": other})
    assert found["linear"] < 0.05 < 0.8 < found["tenths"] <= found["reliability"] + 0.02
    assert found["alone"]["made"] > 0.8 and abs(found["alone"]["other"]) < 0.02
    assert found["only"]["made"] > 0.8 and abs(found["only"]["other"]) < 0.02


def test_pulses_charge_the_weeks_that_they_say():
    prices, charged = price_pulse(20, 12, 2, 0.5)
    assert prices.sum() == 1.0 and (prices[charged] == 0.5).all() and charged == slice(12, 14)
    assert price_pulse(20, 12, LASTING, 0.5)[1] == slice(12, 20)
    assert pulse_starts(27, 6)[0] == 10 and pulse_starts(27, 6)[-1] == 22 and len(pulse_starts(12, 6)) <= 6


def test_values_rise_with_capacity_and_count_every_outcome():
    tried = Outcomes(np.array([10.0, 8.0]), np.array([[5.0, 5.0], [4.0, 5.0]]))
    plans = np.array([[5.0, 5.0], [4.0, 5.0], [4.9, 5.0], [4.0, 4.0]])
    np.testing.assert_allclose(tried.value(plans, 4.0), [10.0, 8.0, 9.6, 4.0])


def test_prices_are_compared_with_values():
    values = np.array([0.0, 1.0, 2.0, 3.0])
    found = compare_prices(0.5 * values, values, 1.0)
    assert found["rank"] == pytest.approx(1.0) and found["slope"] == pytest.approx(2.0)
    assert found["ratio"] == pytest.approx(0.5) and found["scarce"] == 1.0
    assert compare_prices(np.zeros(4), values, 1.0)["rank"] is None


def test_the_program_is_met_by_a_small_population():
    found = compare_with_program(20, 1)
    assert abs(found["dual"]) < 0.01 and abs(found["primal"]) < 0.01 and abs(found["prices"]) < 0.02


def test_cut_demand_costs_hardly_more_than_the_formula():
    from scipy.stats import norm

    z = norm.ppf(0.8)
    formula = 5 * norm.pdf(z) * 1.6 * np.sqrt(2)
    cost = cut_normal_cost(10 + z * 1.6 * np.sqrt(2), 1, 1.0, 4.0)
    assert abs(cost / formula - 1) < 1e-3 and cost != formula


def test_lasting_stock_is_what_a_store_has_in_the_long_run():
    share, random = stationary_stock(5, 3, 9), np.random.default_rng(0)
    stock = np.full(4000, 9)
    for demand in random.poisson(5, (60, 4000)):
        left = stock - demand
        stock = np.where(left <= 3, 9, left)
    assert share.sum() == pytest.approx(1.0) and (share[:4] == 0).all()
    np.testing.assert_allclose(np.bincount(stock, minlength=10) / 4000, share, atol=0.03)


def test_seeds_are_pooled_and_a_biased_simulator_is_seen():
    row = {"group": "g", "name": "a", "exact": 1.0, "cost": 1.02, "error": 0.01, "z": 2.0, "relative": 0.02}
    (one,) = pool_seeds([row] * 4)
    assert one["z"] == pytest.approx(4.0) and one["seeds"] == 4
    assert summarise_errors([one])["beyond_3.5"] == 1 and summarise_errors([row])["beyond_3.5"] == 0
    assert all(isinstance(each.policy, ReorderPoint) and jnp.ndim(each.exact) == 0 for each in reorder_points())


@pytest.mark.parametrize("name", ["59 days, to the unit", "pulse, three weeks", "plan, fixed point"])
def test_formulas_are_met(name):
    assert FORMULAS[name]() < 1e-4


def test_planners_of_a_large_population_differ_in_whom_they_simulate():
    told = large_plan_settings(PlanSettings(interface="learned"), [50, 20], ["simulated", "learned"])
    assert [(each.interface, each.cohort) for each in told.values()] == [
        ("simulated", 0),
        ("simulated", 50),
        ("learned", 50),
        ("simulated", 20),
        ("learned", 20),
    ]
    part = {"agents": 100, "planners": {EVERYBODY: {"seconds": 1.0, "why": "converged"}}}
    assert join_seeds([part, part]) == {"agents": 100, "planners": {EVERYBODY: {"seconds": [1.0, 1.0]}}}
