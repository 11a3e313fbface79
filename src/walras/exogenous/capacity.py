"""Families of capacity paths and of shadow-price paths for training and testing, drawn from integer seeds.

A capacity family draws `K_t = level * mean utilization * shape_t` with a shape that varies about 1. Add a family as a
class beside the others; the same seed gives the same path on every machine.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from walras.errors import InputError, SettingsError, shape_mismatch

USUAL_LEVEL = (0.9, 1.3)
"""Mean capacity over mean utilization in training."""

LARGEST_SPREAD = 0.3
"""Largest standard deviation of a path's shape in planning."""

LONGEST_NOTICE = 26
"""Longest notice of a price [weeks]: the horizon of the issued price path."""

Path = Float[np.ndarray, "week resource"]


@dataclass(frozen=True)
class Uniform:
    """A range from which a number is drawn for every path and resource."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse bounds in the wrong order."""
        if not (np.isfinite([self.low, self.high]).all() and self.low <= self.high):
            raise SettingsError(f"a range from {self.low} to {self.high} is empty; pass the smaller bound first")

    def draw(self, rng: np.random.Generator, number: int) -> Float[np.ndarray, " resource"]:
        """Draw one value per resource."""
        return rng.uniform(self.low, self.high, number)


Amount = float | Uniform
"""A fixed number, or the range that it is drawn from."""


def _draw(amount: Amount, rng: np.random.Generator, number: int) -> Float[np.ndarray, " resource"]:
    return amount.draw(rng, number) if isinstance(amount, Uniform) else np.full(number, float(amount))


def bounds(amount: Amount) -> tuple[float, float]:
    """Return the smallest and largest value."""
    return (amount.low, amount.high) if isinstance(amount, Uniform) else (amount, amount)


@dataclass(frozen=True)
class AbstractCapacityFamily(ABC):
    """Draw capacity paths for a population with a known mean utilization.

    Attributes:
        level: mean capacity as a multiple of mean utilization.
    """

    level: Amount = 1.0

    @abstractmethod
    def shape(self, rng: np.random.Generator, weeks: int, resources: int) -> Path:
        """Draw paths about 1."""

    def sample(self, seed: int, weeks: int, mean_utilization: npt.ArrayLike) -> Path:
        """Draw one capacity path.

        Args:
            seed: the same seed gives the same path.
            weeks: length, at least 1; any number.
            mean_utilization: the population's own mean utilization [units of resource; resource], or one value per week
                (a forecast with its season) [week, resource].

        Returns:
            capacity K [units of resource; week, resource].
        """
        _check_weeks(weeks)
        mean = checked_nonnegative("mean_utilization", mean_utilization)
        if mean.ndim == 2 and len(mean) != weeks:
            raise shape_mismatch("mean_utilization", mean.shape, (weeks, "resource"), "pass one row per week")
        rng = np.random.default_rng(seed)
        resources = mean.shape[-1]
        level = _draw(self.level, rng, resources)
        scale = np.broadcast_to(level * mean, (weeks, resources))
        return scale * self.shape(rng, weeks, resources)


def haar_noise(
    rng: np.random.Generator, weeks: int, resources: int, finest_block: int, beta: float
) -> Float[np.ndarray, "week resource"]:
    """Draw Gaussian coefficients on a truncated Haar basis: constant on blocks, mean 0, standard deviation 1.

    `x(t) = sum_{j<=J0} sum_k c_jk psi_jk(t)`, `c_jk ~ N(0, 2^{-beta j})`, psi orthonormal on `finest_block * 2^{J0+1}`
    weeks, the least such length that holds the path, which is then cut and centred. A path of one block is 0.

    Args:
        rng: source of the coefficients.
        weeks: length of the path.
        resources: independent paths.
        finest_block: weeks on which every path is constant (half the support of the finest wavelets).
        beta: decay over scales; 1 gives every scale the same variance, more makes paths smoother.
    """
    blocks = -(-weeks // finest_block)
    scales = (blocks - 1).bit_length()
    noise = np.zeros((2**scales, resources))
    for j in range(scales):
        coefficients = rng.normal(0.0, 2.0 ** (-beta * j / 2), (2**j, resources))
        # psi_jk is 2^{j/2} on the first half of its support and minus that on the second.
        waves = 2.0 ** (j / 2) * np.stack([coefficients, -coefficients], axis=1).reshape(2 ** (j + 1), resources)
        noise += np.repeat(waves, 2 ** (scales - j - 1), axis=0)
    path = np.repeat(noise, finest_block, axis=0)[:weeks]
    path = path - path.mean(axis=0)
    deviation = path.std(axis=0)
    return np.divide(path, deviation, out=np.zeros_like(path), where=deviation > 0)


@dataclass(frozen=True)
class HaarCapacity(AbstractCapacityFamily):
    """Draw piecewise-constant paths with controlled variation, as in training.

    `K_t = level * mean * clip(1 + spread * x_t, kmin, kmax)` with x of `haar_noise`.

    Attributes:
        finest_block: weeks on which a path is constant, 4 to 8 in training.
        beta: decay of the coefficients' variance over scales.
        spread: standard deviation of the shape.
        kmin, kmax: bounds of the shape.
    """

    level: Amount = Uniform(*USUAL_LEVEL)
    finest_block: int = 4
    beta: float = 1.0
    spread: Amount = Uniform(0.05, LARGEST_SPREAD)
    kmin: float = 0.4
    kmax: float = 1.8

    def __post_init__(self) -> None:
        """Refuse settings that give no path."""
        if self.finest_block < 1:
            raise SettingsError(f"`finest_block` is {self.finest_block} and needs to be at least 1 week; 4 is usual")
        if not 0 <= self.kmin <= 1 <= self.kmax:
            raise SettingsError(f"`kmin` {self.kmin} and `kmax` {self.kmax} need to enclose 1; pass 0.4 and 1.8")
        if bounds(self.spread)[0] < 0:
            raise SettingsError(f"`spread` is {self.spread} and needs to be 0 or more; 0.05 to 0.3 is usual")

    def shape(self, rng: np.random.Generator, weeks: int, resources: int) -> Path:
        """Draw clipped Haar paths about 1."""
        spread = _draw(self.spread, rng, resources)
        noise = haar_noise(rng, weeks, resources, self.finest_block, self.beta)
        return np.clip(1.0 + spread * noise, self.kmin, self.kmax)


@dataclass(frozen=True, eq=False)
class AnnouncedPrices:
    """Shadow prices and how long ahead each week's price is announced.

    Attributes:
        prices: charged in each week [money per unit of resource; week, resource].
        notice: weeks ahead of which that price is announced [week, resource].
    """

    prices: Path
    notice: Int[np.ndarray, "week resource"]


class AbstractPriceFamily(ABC):
    """Draw shadow-price paths to train and test responders with."""

    @abstractmethod
    def sample(self, seed: int, weeks: int, price_scale: npt.ArrayLike) -> AnnouncedPrices:
        """Draw one path.

        Args:
            seed: the same seed gives the same path.
            weeks: length, at least 1.
            price_scale: median unit margin of the population per unit of each resource [money; resource].
        """


@dataclass(frozen=True)
class HaarPrices(AbstractPriceFamily):
    """Draw piecewise-constant prices that are announced from the start.

    `lambda_t = price_scale * max(level + spread * x_t, 0)` with x of `haar_noise`: where spread exceeds level, many
    weeks have no price, as in a real plan.

    Attributes:
        level: mean price in unit margins before the cut at 0.
        spread: its standard deviation.
        finest_block, beta: as in `HaarCapacity`.
    """

    level: Amount = Uniform(0.0, 0.6)
    spread: Amount = Uniform(0.1, 0.6)
    finest_block: int = 4
    beta: float = 1.0

    def sample(self, seed: int, weeks: int, price_scale: npt.ArrayLike) -> AnnouncedPrices:
        """Draw one path."""
        _check_weeks(weeks)
        scale = checked_nonnegative("price_scale", price_scale, axes=(1,))
        rng = np.random.default_rng(seed)
        level, spread = _draw(self.level, rng, len(scale)), _draw(self.spread, rng, len(scale))
        noise = haar_noise(rng, weeks, len(scale), self.finest_block, self.beta)
        prices = scale * np.maximum(level + spread * noise, 0.0)
        return AnnouncedPrices(prices, np.full(prices.shape, LONGEST_NOTICE))


@dataclass(frozen=True)
class PulsePrices(AbstractPriceFamily):
    """Draw pulses, each announced 0 to 26 weeks ahead; later pulses replace earlier ones where they meet.

    Attributes:
        height: price in unit margins.
        every: mean weeks between pulses (their number is drawn, at least one).
        longest: weeks that a pulse lasts at most.
        longest_notice: weeks ahead of which it is announced at most.
    """

    height: Amount = Uniform(0.1, 1.5)
    every: int = 26
    longest: int = 8
    longest_notice: int = LONGEST_NOTICE

    def sample(self, seed: int, weeks: int, price_scale: npt.ArrayLike) -> AnnouncedPrices:
        """Draw one path."""
        _check_weeks(weeks)
        scale = checked_nonnegative("price_scale", price_scale, axes=(1,))
        if min(self.every, self.longest) < 1 or self.longest_notice < 0:
            raise SettingsError("`every` and `longest` need at least 1 week and `longest_notice` 0; raise them")
        rng = np.random.default_rng(seed)
        prices = np.zeros((weeks, len(scale)))
        notice = np.zeros(prices.shape, dtype=np.int64)
        for resource, unit in enumerate(scale):
            for _ in range(max(1, rng.poisson(weeks / self.every))):
                first, length = rng.integers(0, weeks), rng.integers(1, self.longest + 1)
                prices[first : first + length, resource] = unit * _draw(self.height, rng, 1)[0]
                # A pulse is announced as a whole, so its later weeks have a longer notice.
                known = rng.integers(0, self.longest_notice + 1)
                span = min(length, weeks - first)
                notice[first : first + length, resource] = known + np.arange(span)
        return AnnouncedPrices(prices, notice)


def _check_weeks(weeks: int) -> None:
    if weeks < 1:
        raise SettingsError(f"`weeks` is {weeks} and needs to be at least 1; pass the length of the horizon")


def checked_nonnegative(name: str, values: npt.ArrayLike, axes: tuple[int, ...] = (1, 2)) -> np.ndarray:
    """Return finite numbers >= 0 with one of these numbers of axes."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in axes or array.size == 0:
        needed = " or ".join(["[path, week, resource]", "[week, resource]", "[resource]"][3 - axis] for axis in axes)
        raise shape_mismatch(name, array.shape, needed, "add or select the missing axes")
    if not np.isfinite(array).all() or array.min() < 0:
        raise InputError(f"`{name}` has a negative number or one that is not finite; pass numbers of 0 or more")
    return array
