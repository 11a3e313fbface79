"""Ask whether the score is honest: no look at the held-out weeks, right errors, intervals that cover."""

import json
from dataclasses import replace

import numpy as np
import pytest

import walras.exogenous.demand.backtest as module
from walras.errors import SettingsError
from walras.exogenous.demand.backtest import backtest
from walras.exogenous.demand.model import DemandModel

from .test_demand_model import lumpy, panel_of, seasonal


def test_held_out_weeks_change_neither_fit_nor_choice_of_products():
    panel = panel_of(lumpy(70, 30))
    other = panel.units.copy()
    other[44:] = np.random.default_rng(9).poisson(50.0, other[44:].shape)
    first = module._run(panel, 44, 20, 0, "auto", None)
    second = module._run(replace(panel, units=other), 44, 20, 0, "auto", None)
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(first.totals, second.totals)
    np.testing.assert_array_equal(first.naive, second.naive)
    assert (first.truth != second.truth).any()


def test_a_season_seen_once_beats_or_meets_the_naive_forecast():
    units, _ = seasonal(96, 200, seed=4)
    noisy = units * np.exp(np.random.default_rng(4).normal(0.0, 0.15, (96, 1)))
    result = backtest(panel_of(np.rint(noisy)), scenarios=60)
    assert result.reason == ""
    assert "last year" in result.naive
    assert result.ratio_to_naive < 0.95
    assert result.coverage_90 >= result.coverage_80
    assert result.product_error < result.naive_product_error


def test_intervals_cover_about_as_often_as_they_say():
    inside80, inside90 = [], []
    for seed in range(5):
        random = np.random.default_rng(seed)
        shock = np.exp(random.normal(0.0, 0.15, (60, 1)))
        result = backtest(panel_of(random.poisson(8.0 * shock, (60, 60))), holdout=16, scenarios=80)
        inside80.append(result.coverage_80)
        inside90.append(result.coverage_90)
    assert 0.68 <= np.mean(inside80) <= 0.92
    assert 0.80 <= np.mean(inside90) <= 0.98


def test_without_a_year_the_naive_forecast_is_the_recent_mean():
    panel = panel_of(np.full((40, 25), 5.0))
    result = backtest(panel, scenarios=20)
    assert result.naive == "the mean of the last 8 weeks"
    assert result.naive_error == pytest.approx(0.0, abs=1e-9)
    assert result.aggregate_error < 0.02


def test_only_products_sold_before_the_origin_are_scored():
    units = lumpy(60, 20)
    units[0] += 1
    units[:34, :5] = 0
    result = backtest(panel_of(units), scenarios=20)
    assert result.agents == 15


def test_too_short_a_history_says_so():
    result = backtest(panel_of(lumpy(20, 3)))
    assert "20 weeks" in result.reason
    assert result.aggregate_error is None
    assert json.loads(json.dumps(result.as_dict()))["origins"] == 0


def test_nothing_sold_says_so():
    assert "sold" in backtest(panel_of(np.zeros((60, 3)))).reason


def test_the_dictionary_is_ready_for_json():
    result = backtest(panel_of(lumpy(60, 10)), scenarios=20)
    read = json.loads(json.dumps(result.as_dict()))
    assert read["scored_weeks"] == result.scored_weeks > 26


def test_crps_is_the_mean_absolute_error_of_a_sure_forecast():
    truth = np.array([[3.0], [5.0]])
    sure = module._Origin(truth, truth, truth, False, np.full((10, 2), 6.0))
    assert sure.crps() == pytest.approx((3.0 + 1.0) / 2.0 / 4.0)


def test_settings_are_checked():
    with pytest.raises(SettingsError, match="holdout"):
        backtest(panel_of(lumpy(60, 3)), holdout=0)


def test_the_model_is_the_one_that_plans_use():
    panel = panel_of(lumpy(70, 12))
    run = module._run(panel, 44, 20, 0, "auto", None)
    np.testing.assert_array_equal(run.mean.astype(np.float32), DemandModel.fit(panel.before(44)).mean(26))


def test_of_many_products_a_sample_is_scored_that_sells_as_all_do(monkeypatch):
    panel = panel_of(lumpy(70, 200))
    assert module.scored_products(panel) is panel
    monkeypatch.setattr(module, "MOST_SCORED", 50)
    scored = module.scored_products(panel)
    assert scored.n_agents == 50 and set(scored.agents) < set(panel.agents)
    mean_of_all = panel.units[: -module.HOLDOUT].mean()
    assert scored.units[: -module.HOLDOUT].mean() == pytest.approx(mean_of_all, rel=0.1)
