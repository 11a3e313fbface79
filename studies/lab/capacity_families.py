"""Capacity families that training never sees, and the calibration of a family to a share of near-limit weeks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from walras.errors import InputError, SettingsError
from walras.evaluation.metrics import NEAR_LIMIT
from walras.exogenous.capacity import (
    LARGEST_SPREAD,
    USUAL_LEVEL,
    AbstractCapacityFamily,
    Amount,
    HaarCapacity,
    Path,
    Uniform,
    bounds,
    checked_nonnegative,
)

NEAR_LIMIT_TARGET = 0.55
"""Share of near-limit weeks that the published figures imply."""

NEAR_LIMIT_TOLERANCE = 0.03
"""Distance from the target that counts as reached."""

TUNING_SEEDS = tuple(range(64))
"""Seeds of the paths on which a level is calibrated."""


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
    free = checked_nonnegative("unconstrained", unconstrained, axes=(2, 3))
    free = free.reshape(-1, *free.shape[-2:])
    tried: list[CalibratedLevel] = []
    candidate: AbstractCapacityFamily | None = family
    while candidate is not None and not (tried and tried[-1].reached and tried[-1].usual_level):
        tried.append(_level_for(candidate, free, target))
        candidate = _widened(candidate, 1.25)
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
    low, high = bounds(tuned.level)
    middle_is_usual = USUAL_LEVEL[0] <= (low + high) / 2 <= USUAL_LEVEL[1]
    return CalibratedLevel(tuned, share, abs(share - target) <= NEAR_LIMIT_TOLERANCE, middle_is_usual)


def _widened(family: AbstractCapacityFamily, factor: float) -> AbstractCapacityFamily | None:
    """Return the family with a larger spread, or None where it is fixed or at the largest that is usual."""
    if not isinstance(family, HaarCapacity):
        return None
    low, high = bounds(family.spread)
    if low >= LARGEST_SPREAD:
        return None
    grown = Uniform(min(max(low, 0.05) * factor, LARGEST_SPREAD), min(max(high, 0.05) * factor, LARGEST_SPREAD))
    return replace(family, spread=grown if isinstance(family.spread, Uniform) else grown.low)


def _scaled(amount: Amount, factor: float) -> Amount:
    return Uniform(amount.low * factor, amount.high * factor) if isinstance(amount, Uniform) else amount * factor


def _starts(start: int | None, rng: np.random.Generator, weeks: int, resources: int) -> Int[np.ndarray, " resource"]:
    if start is None:
        return rng.integers(weeks // 4, max(3 * weeks // 4, weeks // 4 + 1), resources)
    return np.full(resources, start)


def _change(change: float) -> float:
    if not abs(change) <= 1:
        raise SettingsError(f"a relative change of {change} is not possible here; pass a number from -1 to 1")
    return change
