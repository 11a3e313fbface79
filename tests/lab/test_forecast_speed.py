"""Hold the measures of forecasts and speed to numbers worked out by hand."""

import numpy as np
import pytest

from lab.forecast_metrics import forecast_metrics, forecast_tally
from lab.speedup import calls_per_order, flatness, is_moderate_shift, speed_ratio
from walras.errors import InputError


def test_forecast_by_hand():
    # Mean 40, so that the week of 1 is below 5 % of it and dropped; 10 % over, 20 % under, exact.
    realised = np.array([[[100.0, 50.0], [9.0, 1.0]]])[..., None]
    forecast = np.array([[[110.0, 40.0], [9.0, 7.0]]])[..., None]
    got = forecast_metrics(forecast, realised)
    assert got.mape == pytest.approx((0.1 + 0.2 + 0.0) / 3)
    assert got.bias == pytest.approx((0.1 - 0.2 + 0.0) / 3)
    assert (got.weeks, got.dropped_weeks) == (3, 1)


def test_forecast_of_nothing_is_none():
    got = forecast_metrics(np.ones((1, 1, 3, 1)), np.zeros((1, 1, 3, 1)))
    assert got.mape is None
    assert got.dropped_weeks == 3


def test_forecast_pieces_add():
    rng = np.random.default_rng(0)
    realised = rng.gamma(1, 50, (4, 3, 5, 2))
    forecast = realised * rng.uniform(0.7, 1.3, realised.shape)
    mean = realised.mean(axis=(1, 2))
    parts = [
        forecast_tally(forecast[:, origin : origin + 1], realised[:, origin : origin + 1], mean_utilization=mean)
        for origin in range(3)
    ]
    whole = forecast_tally(forecast, realised)
    assert whole.metrics().dropped_weeks > 0
    assert sum(parts).metrics().as_dict() == pytest.approx(whole.metrics().as_dict())
    assert np.mean(list(whole.path_values().values())) == pytest.approx(whole.metrics().mape)


def test_speed_is_the_reference_over_ours():
    assert speed_ratio([4.0, 4.0, 4.0, 4.0, 40.0], [2.0] * 5) == pytest.approx(2.0)
    with pytest.raises(InputError, match="5"):
        speed_ratio([1.0] * 4, [1.0] * 5)


def test_flatness_ignores_small_sizes():
    assert flatness([1_000, 10_000, 100_000], 10, [5.0, 1.0, 12.0]) == pytest.approx(1.2)
    assert flatness([1_000, 10_000], 10, [5.0, 1.0]) is None


def test_calls_and_moderate_shift():
    assert calls_per_order(360, 100) == pytest.approx(3.6)
    assert is_moderate_shift(2.0, 1.0) and is_moderate_shift(0.5, 1.0)
    assert not is_moderate_shift(2.1, 1.0)
    with pytest.raises(InputError):
        calls_per_order(3, 0)
