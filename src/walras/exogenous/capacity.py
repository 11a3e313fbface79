"""Families of capacity paths and of shadow-price paths for training and testing, drawn from integer seeds.

A capacity family draws `K_t = level * mean utilization * shape_t` with a shape that varies about 1. Add a family as a
class beside the others; the same seed gives the same path on every machine.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from walras.errors import InputError, SettingsError, shape_mismatch
from walras.evaluation.metrics import NEAR_LIMIT

NEAR_LIMIT_TARGET = 0.55
"""Share of near-limit weeks that the published figures imply."""

NEAR_LIMIT_TOLERANCE = 0.03
"""Distance from the target that counts as reached."""

USUAL_LEVEL = (0.9, 1.3)
"""Mean capacity over mean utilization in training."""

LARGEST_SPREAD = 0.3
"""Largest standard deviation of a path's shape in planning."""

LONGEST_NOTICE = 26
"""Longest notice of a price [weeks]: the horizon of the issued price path."""

TUNING_SEEDS = tuple(range(64))
"""Seeds of the paths on which a level is calibrated."""

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


def _scaled(amount: Amount, factor: float) -> Amount:
    return Uniform(amount.low * factor, amount.high * factor) if isinstance(amount, Uniform) else amount * factor


def _bounds(amount: Amount) -> tuple[float, float]:
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

    def widened(self, factor: float) -> "AbstractCapacityFamily | None":
        """Return the family with more variation, or None where it is fixed or cannot grow."""
        return None

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
        mean = _positive("mean_utilization", mean_utilization)
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
        if _bounds(self.spread)[0] < 0:
            raise SettingsError(f"`spread` is {self.spread} and needs to be 0 or more; 0.05 to 0.3 is usual")

    def shape(self, rng: np.random.Generator, weeks: int, resources: int) -> Path:
        """Draw clipped Haar paths about 1."""
        spread = _draw(self.spread, rng, resources)
        noise = haar_noise(rng, weeks, resources, self.finest_block, self.beta)
        return np.clip(1.0 + spread * noise, self.kmin, self.kmax)

    def widened(self, factor: float) -> "AbstractCapacityFamily | None":
        """Return the family with a larger spread; None beyond the largest that is usual."""
        low, high = _bounds(self.spread)
        if low >= LARGEST_SPREAD:
            return None
        grown = Uniform(min(max(low, 0.05) * factor, LARGEST_SPREAD), min(max(high, 0.05) * factor, LARGEST_SPREAD))
        return replace(self, spread=grown if isinstance(self.spread, Uniform) else grown.low)


@dataclass(frozen=True)
class StepCapacity(AbstractCapacityFamily):
    """Change capacity once and permanently; -20 % is the size of the published real study.

    Attributes:
        change: relative change.
        start: week of the change; None draws it from the middle half of the path.
    """

    change: float = -0.2
    start: int | None = None

    def shape(self, rng: np.random.Generator, weeks: int, resources: int) -> Path:
        """Draw paths that are 1 before and 1 + change from the start on."""
        return 1.0 + _change(self.change) * (np.arange(weeks)[:, None] >= _starts(self.start, rng, weeks, resources))


@dataclass(frozen=True)
class PulseCapacity(AbstractCapacityFamily):
    """Change capacity for a few weeks.

    Attributes:
        change: relative change during the pulse.
        length: weeks that it lasts.
        start: first week; None draws it from the middle half of the path.
    """

    change: float = -0.4
    length: int = 4
    start: int | None = None

    def shape(self, rng: np.random.Generator, weeks: int, resources: int) -> Path:
        """Draw paths that are 1 but for the pulse."""
        since = np.arange(weeks)[:, None] - _starts(self.start, rng, weeks, resources)
        return 1.0 + _change(self.change) * ((since >= 0) & (since < self.length))


@dataclass(frozen=True)
class OnOffCapacity(AbstractCapacityFamily):
    """Alternate between two capacities, equally long each (a square wave about 1).

    Attributes:
        depth: distance of both from 1.
        half_period: weeks at each; the phase is drawn.
    """

    depth: float = 0.25
    half_period: int = 8

    def shape(self, rng: np.random.Generator, weeks: int, resources: int) -> Path:
        """Draw square waves with a random phase."""
        if self.half_period < 1:
            raise SettingsError(f"`half_period` is {self.half_period} and needs to be at least 1 week; 8 is usual")
        phase = rng.integers(0, 2 * self.half_period, resources)
        high = (np.arange(weeks)[:, None] + phase) // self.half_period % 2 == 0
        return np.where(high, 1.0 + abs(_change(self.depth)), 1.0 - abs(_change(self.depth)))


def unseen_families() -> Mapping[str, AbstractCapacityFamily]:
    """Return the families for testing that training never sees, by name."""
    return {
        "finer and wider": HaarCapacity(finest_block=2, beta=0.5, spread=Uniform(0.3, 0.4)),
        "coarser": HaarCapacity(finest_block=13, beta=2.0, spread=0.15),
        "step of -20 %": StepCapacity(),
        "pulse": PulseCapacity(),
        "on and off": OnOffCapacity(),
    }


@dataclass(frozen=True, eq=False)
class CalibratedLevel:
    """A calibrated family and what it reaches.

    Attributes:
        family: with level, and where needed spread, set.
        share: share of near-limit weeks on the calibration paths.
        reached: `share` lies within the tolerance of the target.
        usual_level: the level lies within the usual range.
    """

    family: AbstractCapacityFamily
    share: float
    reached: bool
    usual_level: bool


def calibrate_level(
    family: AbstractCapacityFamily, unconstrained: npt.ArrayLike, target: float = NEAR_LIMIT_TARGET
) -> CalibratedLevel:
    """Set the level, and where that does not suffice a wider spread, such that the target share of weeks is near-limit.

    Args:
        family: what to calibrate; a range of levels keeps its relative width.
        unconstrained: U0 of the population [week, resource] or [path, week, resource].
        target: share of weeks with U0 above 0.9 of capacity, between 0 and 1.
    """
    if not 0 < target < 1:
        raise SettingsError(f"`target` is {target} and needs to be between 0 and 1; 0.55 is usual")
    free = _positive("unconstrained", unconstrained, axes=(2, 3))
    free = free.reshape(-1, *free.shape[-2:])
    tried: list[CalibratedLevel] = []
    candidate: AbstractCapacityFamily | None = family
    while candidate is not None and not (tried and tried[-1].reached and tried[-1].usual_level):
        tried.append(_level_for(candidate, free, target))
        candidate = candidate.widened(1.25)
    best = min(abs(level.share - target) for level in tried)
    return max(tried, key=lambda level: (level.reached, level.usual_level, abs(level.share - target) == best))


def _level_for(
    family: AbstractCapacityFamily, free: Float[np.ndarray, "path week resource"], target: float
) -> CalibratedLevel:
    """Scale the level; K is proportional to it, so the factor is a quantile of U0 / (0.9 K) and needs no search."""
    paths = np.stack([family.sample(seed, free.shape[1], free.mean(axis=(0, 1))) for seed in TUNING_SEEDS])
    # Paths are paired in turn: all pairs would say no more and take more memory.
    free = np.resize(free, (max(len(free), len(paths)), *free.shape[1:]))
    limit = NEAR_LIMIT * np.resize(paths, free.shape)
    # Without capacity a week is near-limit at any level if it is used, and never if it is not.
    ratio = np.divide(free, limit, out=np.where(free > 0, np.inf, 0.0), where=limit > 0)
    factor = float(np.quantile(ratio, 1.0 - target, method="lower"))
    if not 0 < factor < np.inf:
        raise InputError(
            f"`unconstrained` is 0 in too many weeks for a share of {target:.2f}; pass weeks with utilization"
        )
    tuned = replace(family, level=_scaled(family.level, factor))
    share = float(np.mean(ratio > factor))
    low, high = _bounds(tuned.level)
    middle_is_usual = USUAL_LEVEL[0] <= (low + high) / 2 <= USUAL_LEVEL[1]
    return CalibratedLevel(tuned, share, abs(share - target) <= NEAR_LIMIT_TOLERANCE, middle_is_usual)


@dataclass(frozen=True, eq=False)
class AnnouncedPrices:
    """Shadow prices and how long ahead each week's price is announced.

    Attributes:
        prices: charged in each week [money per unit of resource; week, resource].
        notice: weeks ahead of which that price is announced [week, resource].
    """

    prices: Path
    notice: Int[np.ndarray, "week resource"]

    def issued(self, week: int, horizon: int = LONGEST_NOTICE) -> Float[np.ndarray, "horizon resource"]:
        """Return the prices of the weeks after `week` as known in it; 0 where not announced or past the end."""
        ahead = np.arange(1, horizon + 1)[:, None]
        prices, notice = (values[week + 1 : week + 1 + horizon] for values in (self.prices, self.notice))
        path = np.zeros((horizon, self.prices.shape[1]))
        path[: len(prices)] = np.where(notice >= ahead[: len(prices)], prices, 0.0)
        return path


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
        scale = _positive("price_scale", price_scale, axes=(1,))
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
        scale = _positive("price_scale", price_scale, axes=(1,))
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


def _starts(start: int | None, rng: np.random.Generator, weeks: int, resources: int) -> Int[np.ndarray, " resource"]:
    if start is None:
        return rng.integers(weeks // 4, max(3 * weeks // 4, weeks // 4 + 1), resources)
    return np.full(resources, start)


def _change(change: float) -> float:
    if not abs(change) <= 1:
        raise SettingsError(f"a relative change of {change} is not possible here; pass a number from -1 to 1")
    return change


def _check_weeks(weeks: int) -> None:
    if weeks < 1:
        raise SettingsError(f"`weeks` is {weeks} and needs to be at least 1; pass the length of the horizon")


def _positive(name: str, values: npt.ArrayLike, axes: tuple[int, ...] = (1, 2)) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in axes or array.size == 0:
        needed = " or ".join(["[path, week, resource]", "[week, resource]", "[resource]"][3 - axis] for axis in axes)
        raise shape_mismatch(name, array.shape, needed, "add or select the missing axes")
    if not np.isfinite(array).all() or array.min() < 0:
        raise InputError(f"`{name}` has a negative number or one that is not finite; pass numbers of 0 or more")
    return array
