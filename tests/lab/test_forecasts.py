"""Intervals of slopes and cohorts cover, and priced weeks are counted alone."""

import numpy as np
import pytest

from lab.eval_maps import MapEvaluation
from lab.forecast_study import errors_of, errors_of_priced, leave_one_out, root_interval, slope_of


def test_a_slope_is_that_of_the_kept_paths_and_its_interval_spans_them():
    random = np.random.default_rng(0)
    forecast = random.uniform(1, 2, (6, 3, 26, 1))
    true = np.linspace(0.8, 1.0, 6)
    actual = true[:, None, None, None] * (forecast - 1.5)
    assert slope_of(forecast, actual, [0]) == pytest.approx(0.8) and slope_of(forecast, actual, [5]) == pytest.approx(
        1.0
    )
    found = leave_one_out(lambda kept: slope_of(forecast, actual, kept), 6)
    assert found["low"] < found["estimate"] < found["high"] and found["estimate"] == pytest.approx(0.9, abs=0.02)
    spread = np.std(true, ddof=1) / np.sqrt(6)
    assert found["high"] - found["estimate"] == pytest.approx(2.57 * spread, rel=0.15)


def test_what_a_single_path_or_a_flat_forecast_says_has_no_interval():
    flat = np.ones((3, 2, 26, 1))
    assert leave_one_out(lambda kept: slope_of(flat, flat, kept), 3) == {"estimate": None, "low": None, "high": None}
    assert leave_one_out(lambda kept: 1.0, 2) == {"estimate": 1.0, "low": None, "high": None}


def test_the_root_of_mean_squares_is_covered():
    random, hit = np.random.default_rng(1), 0
    for _ in range(2000):
        found = root_interval(random.normal(0, 0.3, 5).tolist())
        hit += found["low"] <= 0.3 <= found["high"]
    assert 0.93 <= hit / 2000 <= 0.97


def test_weeks_with_a_price_are_counted_alone():
    """Two forecasts that err by a tenth where nothing is charged, and by a half where something is."""
    actual = np.full((2, 26, 1), 10.0)
    priced = np.zeros((2, 26, 1), bool)
    priced[:, 5:9] = True
    said = np.where(priced, 15.0, 11.0)
    rows = [MapEvaluation({}, np.ones(1), actual, priced, {"map": said}, None)] * 2
    assert errors_of_priced(rows, "map").mape == pytest.approx(0.5)
    assert errors_of(rows, "map").mape == pytest.approx((4 * 0.5 + 22 * 0.1) / 26)
    assert errors_of_priced(rows, "map").dropped_weeks == 2 * 2 * 22
