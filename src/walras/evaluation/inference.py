"""Confidence intervals over independent paths: studentised bootstrap, Student's t, jackknife.

LAW: every reported interval follows from here; `mean_interval` says how the method was chosen.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from scipy.special import stdtrit

from walras.errors import InputError, NotFiniteError, SettingsError, shape_mismatch

FEW_PATHS = 8  # below this Student's t replaces the bootstrap
DRAWS = 2000  # bootstrap samples; 50 of them lie beyond each end of a 95 % interval
DRAWS_AT_ONCE = 4_000_000  # resampling counts in memory at a time (32 MB)
LEAST_SPREAD = 0.1
"""Smallest squared standard error of a resample, relative to the sample's: if most values are equal some resamples have
no spread, and dividing by it would make the interval arbitrarily wide."""

Samples = Float[np.ndarray, "sample path"]
Ends = tuple[Float[np.ndarray, " sample"], Float[np.ndarray, " sample"]]


@dataclass(frozen=True)
class Interval:
    """A mean over `count` paths with the ends of its confidence interval, nominal coverage and method."""

    estimate: float
    low: float
    high: float
    level: float
    count: int
    method: str

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def mean_interval(values: npt.ArrayLike, level: float = 0.95, seed: int = 0) -> Interval:
    """Return a confidence interval of the mean over independent paths.

    From eight paths on by the studentised bootstrap, with fewer by Student's t. Measured coverage of nominal 95 % at
    20 paths (4,000 samples each); violations are skewed and often zero, which decided the choice:

    | % | normal | exponential | half zeros, half exponential | lognormal(0, 1) |
    |---|---|---|---|---|
    | percentile | 92.6 | 91.1 | 87.7 | 86.0 |
    | BCa | 92.6 | 92.3 | 90.3 | 87.4 |
    | Student's t | 95.1 | 92.2 | 88.7 | 87.6 |
    | studentised | 94.9 | 95.5 | 95.9 | 91.7 |

    Args:
        values: one number per path, at least two [path].
        level: nominal coverage, between 0 and 1.
        seed: of the resampling.

    Raises:
        InputError, SettingsError: fewer than two paths, or a level outside 0 and 1.
    """
    given = _ready(values, level)
    method = "Student's t over paths" if len(given) < FEW_PATHS else "studentised bootstrap by path"
    low, high = interval_bounds(given[None, :], level, seed)
    return Interval(float(given.mean()), float(low[0]), float(high[0]), level, len(given), method)


def paired_interval(ours: npt.ArrayLike, theirs: npt.ArrayLike, level: float = 0.95, seed: int = 0) -> Interval:
    """Return an interval of the mean difference `ours - theirs` of two methods on the same paths, in the same order."""
    left, right = finite_array("ours", ours, ("path",)), finite_array("theirs", theirs, ("path",))
    if left.shape != right.shape:
        raise shape_mismatch("theirs", right.shape, left.shape, "pass both methods' values on the same paths")
    return mean_interval(left - right, level, seed)


def jackknife_interval(whole: float, without: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Return a jackknife interval of a measure that is not a mean over paths, such as a slope.

    The estimate is the measure of all paths; its standard error is Tukey's (1958), the interval Student's t.
    Measured coverage of nominal 95 % at 4, 8 and 20 paths (2,000 samples each), for a slope through 0 with noise in
    proportion to the path's size: sizes spread by 0.2 (standard deviation of the logarithm) 94.8, 93.6, 94.0; by 0.5
    92.0, 90.1, 92.3.

    Args:
        whole: the measure of all paths.
        without: the measure with each path left out in turn, at least two [path].
        level: nominal coverage, between 0 and 1.
    """
    left = _ready(without, level)
    # The standard error of the mean of these pseudo-values is that of the measure.
    low, high = _student(-(len(left) - 1) * (left - left.mean())[None, :], level)
    method = "jackknife by path, Student's t"
    return Interval(float(whole), whole + float(low[0]), whole + float(high[0]), level, len(left), method)


def interval_bounds(samples: Samples, level: float, seed: int) -> Ends:
    """Return both ends for many samples at once, which share the resampling."""
    return _student(samples, level) if samples.shape[1] < FEW_PATHS else _studentised(samples, level, seed)


def finite_array(name: str, values: npt.ArrayLike, axes: tuple[str, ...]) -> np.ndarray:
    """Return the array in double precision.

    Raises:
        ShapeError: the number of axes differs from `axes`.
        NotFiniteError: a number is NaN or infinite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != len(axes):
        raise shape_mismatch(name, array.shape, list(axes), "add or select the missing axes")
    if not np.isfinite(array).all():
        place = np.argwhere(~np.isfinite(array))[0]
        where = ", ".join(f"{axis} {index}" for axis, index in zip(axes, place, strict=True))
        raise NotFiniteError(f"`{name}` is not finite at {where} and needs finite numbers; repair that entry")
    return array


def _ready(values: npt.ArrayLike, level: float) -> Float[np.ndarray, " path"]:
    if not 0 < level < 1:
        raise SettingsError(f"`level` is {level} and needs to be between 0 and 1; 0.95 is usual")
    array = finite_array("values", values, ("path",))
    if len(array) < 2:
        raise InputError(f"`values` has {len(array)} paths and needs two for an interval; add paths")
    return array


def _moments(samples: Samples) -> Ends:
    return samples.mean(axis=1), samples.std(axis=1, ddof=1) / np.sqrt(samples.shape[1])


def _student(samples: Samples, level: float) -> Ends:
    mean, error = _moments(samples)
    reach = stdtrit(samples.shape[1] - 1, (1 + level) / 2) * error
    return mean - reach, mean + reach


def _studentised(samples: Samples, level: float, seed: int) -> Ends:
    """Bootstrap the t statistic, whose skewness corrects the interval."""
    mean, error = _moments(samples)
    centred = samples - mean[:, None]
    # Scaled to unit standard error, so that the test for a degenerate resample is free of units.
    scaled = np.divide(centred, error[:, None], out=np.zeros_like(centred), where=error[:, None] > 0)
    statistic = _resampled_t(scaled, np.random.default_rng(seed))
    low, high = np.quantile(statistic, [(1 + level) / 2, (1 - level) / 2], axis=1)
    return mean - low * error, mean - high * error


def _resampled_t(scaled: Samples, rng: np.random.Generator) -> Float[np.ndarray, "sample draw"]:
    number = scaled.shape[1]
    step = max(1, DRAWS_AT_ONCE // number)
    pieces = []
    for first in range(0, DRAWS, step):
        shares = rng.multinomial(number, np.full(number, 1 / number), size=min(step, DRAWS - first)).T / number
        mean = scaled @ shares
        variance = np.maximum((scaled**2) @ shares - mean**2, 0.0) / (number - 1)
        pieces.append(mean / np.sqrt(np.maximum(variance, LEAST_SPREAD)))
    return np.concatenate(pieces, axis=1)
