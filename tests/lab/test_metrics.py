"""Metrics of forecasts, twins and prices: numbers worked out by hand."""

import numpy as np
import pytest

from lab.metrics import calibration_slope, forecast_errors, price_values, twin_errors
from walras.errors import InputError, ShapeError


@pytest.fixture
def numbers() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    forecast = random.uniform(1, 2, (6, 3, 5, 1))
    return forecast, 0.3 + 0.7 * forecast + random.normal(0, 0.1, forecast.shape)


def test_the_slope_is_that_of_least_squares(numbers):
    forecast, actual = numbers
    assert calibration_slope(forecast, actual) == pytest.approx(np.polyfit(forecast.ravel(), actual.ravel(), 1)[0])


def test_forecasts_that_never_vary_have_no_slope(numbers):
    flat = np.full_like(numbers[0], 1.1)
    assert calibration_slope(flat, numbers[1]) is None
    assert calibration_slope(numbers[0], flat) == pytest.approx(0.0, abs=1e-9)


def test_lines_of_other_weeks_are_refused(numbers):
    with pytest.raises(ShapeError, match="realised weeks"):
        calibration_slope(numbers[0][:, :1], numbers[1])
    with pytest.raises(InputError, match="at least one week"):
        calibration_slope(numbers[0][:, :0], numbers[1][:, :0])


@pytest.fixture
def twins() -> np.ndarray:
    return np.random.default_rng(1).uniform(1, 2, (4, 2, 3, 5, 1))


def test_who_sees_no_difference_misses_all_of_it(twins):
    blind = np.broadcast_to(twins.mean(axis=1, keepdims=True), twins.shape)
    found = twin_errors(blind, twins)
    difference = np.abs(twins[:, 0] - twins[:, 1]).mean() / twins.mean()
    assert found.twin_error == pytest.approx(difference) == pytest.approx(found.difference)
    assert found.predicted_difference == 0.0 and found.captured is None and found.explained == pytest.approx(0.0)


def test_who_is_wrong_in_both_alike_is_right_about_the_difference(twins):
    found = twin_errors(twins + 5.0, twins)
    assert found.twin_error == pytest.approx(0.0, abs=1e-12) and found.captured == pytest.approx(1.0)
    assert twin_errors(twins[:, ::-1], twins).captured == pytest.approx(-1.0)


def test_half_of_the_difference_is_captured_twice(twins):
    middle = twins.mean(axis=1, keepdims=True)
    found = twin_errors(middle + 0.5 * (twins - middle), twins)
    assert found.captured == pytest.approx(2.0) and found.explained == pytest.approx(0.75)


def test_pairs_have_errors_of_their_own(twins):
    parts = [twin_errors(1.1 * twins[[pair]], twins[[pair]]) for pair in range(4)]
    whole = twin_errors(1.1 * twins, twins)
    assert whole.by_pair == pytest.approx([part.twin_error for part in parts])
    assert whole.difference_by_pair == pytest.approx([part.difference for part in parts])


def test_twins_need_two_of_the_same_weeks(twins):
    with pytest.raises(ShapeError, match="both twins"):
        twin_errors(twins[:, :1], twins[:, :1])
    with pytest.raises(InputError, match="uses nothing"):
        twin_errors(twins, 0.0 * twins)


def test_forecast_by_hand():
    # Mean 40, so that the week of 1 is below 5 % of it and dropped; 10 % over, 20 % under, exact.
    realised = np.array([[[100.0, 50.0], [9.0, 1.0]]])[..., None]
    forecast = np.array([[[110.0, 40.0], [9.0, 7.0]]])[..., None]
    got = forecast_errors(forecast, realised)
    assert got.mape == pytest.approx((0.1 + 0.2 + 0.0) / 3)
    assert got.bias == pytest.approx((0.1 - 0.2 + 0.0) / 3)
    assert got.dropped_weeks == 1


def test_forecast_of_nothing_is_none():
    got = forecast_errors(np.ones((1, 1, 3, 1)), np.zeros((1, 1, 3, 1)))
    assert got.mape is None
    assert got.dropped_weeks == 3


def test_paths_have_errors_whose_mean_is_the_error():
    rng = np.random.default_rng(0)
    realised = rng.gamma(1, 50, (4, 3, 5, 2))
    whole = forecast_errors(realised * rng.uniform(0.7, 1.3, realised.shape), realised)
    assert whole.dropped_weeks > 0 and np.mean(list(whole.by_path.values())) == pytest.approx(whole.mape)


REFERENCE = np.array([0.0, 1.0, 2.0, 3.0]).reshape(1, 4, 1)


def test_a_line_is_found():
    found = price_values(2.0 * REFERENCE + 1.0, REFERENCE, [2.0])
    assert found["price_slope"][0] == pytest.approx(2.0) and found["price_correlation"][0] == pytest.approx(1.0)
    assert found["mean_price"][0] == pytest.approx(2.0) and found["mean_price_over_reference"][0] == pytest.approx(
        8 / 3
    )


def test_weeks_without_a_meaning_do_not_count():
    counted = np.array([True, True, True, False]).reshape(1, 4, 1)
    wild = np.where(counted, REFERENCE, 100.0)
    found = price_values(REFERENCE, wild, [1.0], counted=counted)
    assert found["price_slope"][0] == pytest.approx(1.0) and found["mean_price"][0] == pytest.approx(1.5)
    assert price_values(REFERENCE, wild, [1.0])["price_slope"][0] < 0.1


def test_a_reference_that_charges_nothing_says_nothing():
    found = price_values(REFERENCE, 0 * REFERENCE, [1.0])
    assert found["price_slope"] == {} and found["mean_price"] == {0: 1.5}


def test_the_burn_in_is_left_out():
    assert price_values(REFERENCE, REFERENCE, [1.0], 2)["mean_price"][0] == pytest.approx(2.5)


def test_other_weeks_are_refused():
    with pytest.raises(ShapeError):
        price_values(REFERENCE, REFERENCE[:, :3], [1.0])
