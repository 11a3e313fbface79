"""Own the proof that calibration lines and twin errors are those of their definitions, and add up over pieces.

FREE: a few random numbers.
"""

import numpy as np
import pytest

from lab.calibration import calibration_tally
from lab.twin_metrics import twin_tally
from walras.errors import InputError, ShapeError


@pytest.fixture
def numbers() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    forecast = random.uniform(1, 2, (6, 3, 5, 1))
    return forecast, 0.3 + 0.7 * forecast + random.normal(0, 0.1, forecast.shape)


def test_the_line_is_that_of_least_squares(numbers):
    forecast, actual = numbers
    found = calibration_tally(forecast, actual).metrics()
    slope, intercept = np.polyfit(forecast.ravel(), actual.ravel(), 1)
    correlation = np.corrcoef(forecast.ravel(), actual.ravel())[0, 1]
    assert found.as_dict() == pytest.approx({"slope": slope, "intercept": intercept, "correlation": correlation})


def test_pieces_of_a_line_add(numbers):
    forecast, actual = numbers
    parts = calibration_tally(forecast[:2], actual[:2]) + calibration_tally(forecast[2:], actual[2:], first_path=2)
    assert parts.metrics().as_dict() == pytest.approx(calibration_tally(forecast, actual).metrics().as_dict())
    assert parts.paths.tolist() == list(range(6))


def test_forecasts_that_never_vary_have_no_line(numbers):
    flat = np.full_like(numbers[0], 1.1)
    assert calibration_tally(flat, numbers[1]).metrics().slope is None
    assert calibration_tally(numbers[0], flat).metrics().slope == pytest.approx(0.0, abs=1e-9)
    assert calibration_tally(numbers[0], flat).metrics().correlation is None


def test_lines_of_other_weeks_are_refused(numbers):
    with pytest.raises(ShapeError, match="realised weeks"):
        calibration_tally(numbers[0][:, :1], numbers[1])
    with pytest.raises(InputError, match="at least one week"):
        calibration_tally(numbers[0][:, :0], numbers[1][:, :0])


@pytest.fixture
def twins() -> np.ndarray:
    return np.random.default_rng(1).uniform(1, 2, (4, 2, 3, 5, 1))


def test_who_sees_no_difference_misses_all_of_it(twins):
    blind = np.broadcast_to(twins.mean(axis=1, keepdims=True), twins.shape)
    found = twin_tally(blind, twins).metrics()
    difference = np.abs(twins[:, 0] - twins[:, 1]).mean() / twins.mean()
    assert found.twin_error == pytest.approx(difference) == pytest.approx(found.difference)
    assert found.predicted_difference == 0.0 and found.captured is None and found.explained == pytest.approx(0.0)


def test_who_is_wrong_in_both_alike_is_right_about_the_difference(twins):
    found = twin_tally(twins + 5.0, twins).metrics()
    assert found.twin_error == pytest.approx(0.0, abs=1e-12) and found.captured == pytest.approx(1.0)
    assert twin_tally(twins[:, ::-1], twins).metrics().captured == pytest.approx(-1.0)


def test_half_of_the_difference_is_captured_twice(twins):
    middle = twins.mean(axis=1, keepdims=True)
    found = twin_tally(middle + 0.5 * (twins - middle), twins).metrics()
    assert found.captured == pytest.approx(2.0) and found.explained == pytest.approx(0.75)


def test_pieces_of_twins_add(twins):
    parts = twin_tally(twins[:1] * 1.1, twins[:1]) + twin_tally(twins[1:] * 1.1, twins[1:], first_pair=1)
    whole = twin_tally(twins * 1.1, twins)
    assert parts.metrics().as_dict() == pytest.approx(whole.metrics().as_dict())
    assert parts.pair_values() == pytest.approx(whole.pair_values()) and len(parts.pair_values()) == 4


def test_twins_need_two_of_the_same_weeks(twins):
    with pytest.raises(ShapeError, match="both twins"):
        twin_tally(twins[:, :1], twins[:, :1])
    with pytest.raises(InputError, match="uses nothing"):
        twin_tally(twins, 0.0 * twins)
