"""Hold the measures of reward, forecasts and speed to numbers worked out by hand."""

import numpy as np
import pytest

from lab.forecast_metrics import forecast_metrics, forecast_tally
from lab.speedup import calls_per_order, flatness, is_moderate_shift, speed_ratio
from walras.errors import InputError, ShapeError
from walras.evaluation import reward_metrics, reward_tally


def test_reward_by_hand():
    got = reward_metrics([90.0, 160.0], [95.0, 180.0], [100.0, 200.0])
    assert got.reward_kept == pytest.approx((90 / 95 + 160 / 180) / 2)
    assert got.regret_ratio == pytest.approx((10 / 5 + 40 / 20) / 2)
    assert got.pooled_regret_ratio == pytest.approx(50 / 25)
    assert (got.paths, got.reward_kept_left_out, got.regret_left_out) == (2, 0, 0)


def test_regret_averages_ratios_and_pooled_does_not():
    got = reward_metrics([90.0, 190.0], [95.0, 180.0], [100.0, 200.0])
    assert got.regret_ratio == pytest.approx((2.0 + 0.5) / 2)
    assert got.pooled_regret_ratio == pytest.approx(20 / 25)


def test_a_path_where_the_oracle_gave_up_nothing_has_no_regret_ratio():
    got = reward_metrics([90.0, 99.0, 50.0], [95.0, 100.0, 120.0], [100.0, 100.00001, 100.0])
    assert got.regret_ratio == pytest.approx(2.0)
    assert got.regret_left_out == 2
    slack = reward_metrics([99.0], [100.0], [100.0])
    assert slack.regret_ratio is None and slack.pooled_regret_ratio is None
    assert slack.reward_kept == pytest.approx(0.99)


def test_a_share_of_no_reward_is_none():
    got = reward_metrics([-2.0, 0.0], [-1.0, 0.0], [5.0, 0.0])
    assert got.reward_kept is None
    assert got.reward_kept_left_out == 2


def test_reward_pieces_add_by_path():
    whole = reward_tally([90.0, 160.0], [95.0, 180.0], [100.0, 200.0])
    weeks = reward_tally([40.0, 100.0], [45.0, 80.0], [60.0, 90.0]) + reward_tally(
        [50.0, 60.0], [50.0, 100.0], [40.0, 110.0]
    )
    paths = reward_tally([160.0], [180.0], [200.0], first_path=1) + reward_tally([90.0], [95.0], [100.0])
    assert weeks.metrics() == whole.metrics() == paths.metrics()


def test_rewards_of_other_paths_are_refused():
    with pytest.raises(ShapeError, match="oracle_reward"):
        reward_metrics([1.0, 2.0], [1.0], [1.0, 2.0])


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
