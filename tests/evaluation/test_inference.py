"""Hold intervals to their nominal coverage, on skewed samples too, and to known values."""

import numpy as np
import pytest

from walras.errors import InputError, SettingsError, ShapeError
from walras.evaluation.inference import (
    DRAWS,
    LEAST_SPREAD,
    interval_bounds,
    jackknife_interval,
    mean_interval,
    paired_interval,
)

REPETITIONS = 2000


def coverage(samples: np.ndarray, mean: float, level: float = 0.95) -> float:
    low, high = interval_bounds(samples, level, seed=1)
    return float(np.mean((low <= mean) & (mean <= high)))


def half_zero(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return rng.exponential(size=size) * (rng.random(size) < 0.5)


# Bands: two standard errors of 2,000 repetitions are one point; a strong skew costs up to four points, as written.
@pytest.mark.parametrize(
    ("draw", "mean", "low", "high"),
    [
        pytest.param(lambda rng, size: rng.normal(size=size), 0.0, 0.935, 0.965, id="normal"),
        pytest.param(lambda rng, size: rng.exponential(size=size), 1.0, 0.93, 0.97, id="exponential"),
        pytest.param(half_zero, 0.5, 0.93, 0.975, id="often zero"),
        pytest.param(lambda rng, size: rng.lognormal(0, 1, size), np.exp(0.5), 0.89, 0.95, id="lognormal"),
        pytest.param(
            lambda rng, size: rng.exponential(size=size) - 1.5 * rng.exponential(size=size),
            -0.5,
            0.91,
            0.96,
            id="paired difference",
        ),
    ],
)
@pytest.mark.parametrize("paths", [20, 50])
def test_nominal_95_percent_covers(draw, mean, low, high, paths):
    samples = draw(np.random.default_rng(paths), (REPETITIONS, paths))
    assert low <= coverage(samples, mean) <= high


def test_few_paths_use_students_t_and_cover():
    samples = np.random.default_rng(3).normal(size=(REPETITIONS, 4))
    assert 0.935 <= coverage(samples, 0.0) <= 0.965


def test_other_levels_cover():
    samples = np.random.default_rng(4).normal(size=(REPETITIONS, 30))
    assert 0.78 <= coverage(samples, 0.0, level=0.8) <= 0.82


def test_a_narrower_interval_would_be_caught():
    """Prove that the bands can fail: the same bounds at level 0.9 lie outside them."""
    samples = np.random.default_rng(20).normal(size=(REPETITIONS, 20))
    assert coverage(samples, 0.0, level=0.9) < 0.935


def test_students_t_by_hand():
    # Mean 2, standard error 1 / sqrt(3), t(.975; 2) = 4.302653.
    got = mean_interval([1.0, 2.0, 3.0])
    assert got.estimate == 2.0 and got.count == 3
    assert got.high == pytest.approx(2 + 4.302653 / np.sqrt(3), abs=1e-5)
    assert got.low == pytest.approx(2 - 4.302653 / np.sqrt(3), abs=1e-5)


def test_studentised_bootstrap_equals_resampling_written_out():
    values = np.random.default_rng(8).exponential(size=9)
    number, error = len(values), values.std(ddof=1) / 3.0
    statistics = []
    for counts in np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), size=DRAWS):
        resample = np.repeat(values, counts)
        spread = max((resample.std(ddof=1) / 3.0) ** 2, LEAST_SPREAD * error**2) ** 0.5
        statistics.append((resample.mean() - values.mean()) / spread)
    high, low = np.quantile(statistics, [0.025, 0.975])
    got = mean_interval(values)
    assert got.low == pytest.approx(values.mean() - low * error)
    assert got.high == pytest.approx(values.mean() - high * error)


def test_equal_values_give_a_point():
    got = mean_interval(np.full(12, 0.25))
    assert (got.low, got.estimate, got.high) == (0.25, 0.25, 0.25)


def test_pairing_removes_what_paths_share():
    rng = np.random.default_rng(6)
    path = rng.normal(0, 10, 30)
    ours, theirs = path + rng.normal(0, 0.1, 30), path + 0.5 + rng.normal(0, 0.1, 30)
    got = paired_interval(ours, theirs)
    assert got.high < 0
    assert got.high - got.low < 0.2
    back = paired_interval(theirs, ours)
    assert back.estimate == pytest.approx(-got.estimate)


def test_seed_decides_and_units_do_not():
    values = np.random.default_rng(7).exponential(size=25)
    one, same, other = mean_interval(values, seed=1), mean_interval(values, seed=1), mean_interval(values, seed=2)
    assert one == same
    assert one.low != other.low
    scaled = mean_interval(1e6 * values + 3.0, seed=1)
    assert scaled.low == pytest.approx(1e6 * one.low + 3.0)
    assert scaled.high == pytest.approx(1e6 * one.high + 3.0)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="two"):
        mean_interval([1.0])
    with pytest.raises(SettingsError, match="level"):
        mean_interval([1.0, 2.0], level=95.0)
    with pytest.raises(ShapeError, match="theirs"):
        paired_interval([1.0, 2.0], [1.0, 2.0, 3.0])


def test_mostly_equal_values_do_not_stretch_the_interval_without_end():
    values = np.zeros(16)
    values[:2] = (0.04, 0.08)
    interval = mean_interval(values)
    assert interval.low <= values.mean() <= interval.high < 0.1


def slope(x: np.ndarray, y: np.ndarray) -> float:
    return float((x * y).sum() / (x**2).sum())


def left_out(x: np.ndarray, y: np.ndarray) -> list[float]:
    return [slope(np.delete(x, place, 0), np.delete(y, place, 0)) for place in range(len(x))]


def test_leaving_out_one_path_at_a_time_covers_a_slope():
    rng, hit, repetitions = np.random.default_rng(7), 0, 500
    for _ in range(repetitions):
        size = rng.lognormal(0, 0.2, (8, 1))
        x = size * rng.lognormal(0, 0.2, (8, 10))
        y = 0.9 * x + size * (rng.normal(0, 0.3, (8, 10)) + rng.normal(0, 0.2, (8, 1)))
        interval = jackknife_interval(slope(x, y), left_out(x, y))
        hit += interval.low <= 0.9 <= interval.high
    assert 0.91 <= hit / repetitions <= 0.97


def test_for_a_mean_the_jackknife_is_students_t():
    values = np.random.default_rng(8).normal(size=5)
    without = [np.delete(values, place).mean() for place in range(5)]
    found, known = jackknife_interval(values.mean(), without), mean_interval(values)
    np.testing.assert_allclose((found.low, found.high), (known.low, known.high))
