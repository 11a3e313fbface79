"""Exact minimiser of a convex piecewise-linear capacity cost with ramps plus quadratic terms.

One resource: `min over K  sum_t a_t(K_t) + ramps(K_t - K_{t-1})`, every a_t convex with a piecewise-linear derivative.
Without ramps the weeks are separate (`separable_minimum`). With ramps, dynamic programming as for the fused lasso
(Johnson 2013): `m_t(K)`, the least cost of weeks 0..t that ends at K, has a nondecreasing piecewise-linear derivative,
and the ramp into week t+1 clips it to [-ramp_down, ramp_up]. Each week adds a few knots and every knot is removed at
most once. Ties go to the largest capacity: capacity that costs nothing is granted.
"""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

TIE_TOLERANCE = 1e-11
"""Relative error of a derivative below which two are equal: some 10^5 roundings of float64."""


@dataclass(frozen=True, eq=False)
class QuadraticTerms:
    """The terms `weight/2 (K - target)^2 + floor_weight/2 ([floor - K]^+)^2`, all of one shape."""

    target: np.ndarray
    weight: np.ndarray
    floor: np.ndarray
    floor_weight: np.ndarray

    def column(self, resource: int) -> "QuadraticTerms":
        """Take one resource."""
        parts = (self.target, self.weight, self.floor, self.floor_weight)
        return QuadraticTerms(*(part[:, resource] for part in parts))


def separable_minimum(
    edges: Float[np.ndarray, "*shape edge"], rates: Float[np.ndarray, "*shape segment"], terms: QuadraticTerms
) -> Float[np.ndarray, "*shape"]:
    """Minimise each week alone: segment s costs `rates[..., s]` per unit between edges s and s + 1."""
    minimum = edges[..., 0]
    for segment in range(rates.shape[-1]):
        # Rates rise, so stationary points fall from segment to segment and the last one reached counts.
        reached = stationary(rates[..., segment], np.zeros_like(minimum), terms)
        minimum = np.maximum(minimum, np.minimum(reached, edges[..., segment + 1]))
    return minimum


def stationary(
    rate: Float[np.ndarray, "*shape"], slope: Float[np.ndarray, "*shape"], terms: QuadraticTerms
) -> Float[np.ndarray, "*shape"]:
    """Return the largest minimiser of `rate K + slope/2 K^2` plus the quadratic terms (possibly infinite)."""
    drift = terms.weight * terms.target - rate
    below = _ratio(drift + terms.floor_weight * terms.floor, slope + terms.weight + terms.floor_weight)
    above = _ratio(drift, slope + terms.weight)
    return np.where(below < terms.floor, below, np.maximum(above, terms.floor))


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Divide, with the largest root of a constant derivative where the slope is zero."""
    flat = np.where(top >= 0, np.inf, -np.inf)
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), flat)


@dataclass(frozen=True, eq=False)
class Ramps:
    """Cost per unit of change into each week [week], and the capacity of the week before the first."""

    up: np.ndarray
    down: np.ndarray
    previous: float | None


def ramped_minimum(
    edges: Float[np.ndarray, "week edge"], rates: Float[np.ndarray, "week segment"], ramps: Ramps, terms: QuadraticTerms
) -> Float[np.ndarray, " week"]:
    """Minimise one resource over all weeks at once, exactly; frozen weeks have all their edges at one value."""
    n_weeks = len(edges)
    message = PiecewiseLinear()
    limits: list[tuple[float, float]] = []
    for week in range(n_weeks):
        if week == 0 and ramps.previous is not None:
            message.start_with_step(ramps.previous, float(ramps.up[0]), float(ramps.down[0]))
        message.add_week(edges[week].tolist(), rates[week].tolist(), terms, week)
        low, high = float(edges[week, 0]), float(edges[week, -1])
        # The last week leaves freely: its message is cut at zero, where the whole cost is least.
        down, up = (ramps.down[week + 1], ramps.up[week + 1]) if week + 1 < n_weeks else (0.0, 0.0)
        limits.append(message.clip(-float(down), float(up), low, high))
    capacity = np.empty(n_weeks)
    reached = limits[-1][1]
    for week in reversed(range(n_weeks)):
        reached = min(max(reached, limits[week][0]), limits[week][1])
        capacity[week] = reached
    return capacity


class PiecewiseLinear:
    """A nondecreasing piecewise-linear function: the lines at its two ends and the changes at its knots."""

    def __init__(self) -> None:
        self.knots: list[tuple[float, float, float]] = []  # place, change of slope, change of intercept
        self.left = (0.0, 0.0)  # slope, intercept
        self.right = (0.0, 0.0)
        self.size = 0.0  # of the terms added so far, for the tie tolerance

    def start_with_step(self, place: float, up: float, down: float) -> None:
        """Start from the derivative of the ramp out of a known capacity."""
        self.left, self.right = (0.0, -down), (0.0, up)
        self.knots = [(place, 0.0, up + down)]

    def add_week(self, edges: Sequence[float], rates: Sequence[float], terms: QuadraticTerms, week: int) -> None:
        """Add the derivative of one week's own cost."""
        weight, target = float(terms.weight[week]), float(terms.target[week])
        floor_weight, floor = float(terms.floor_weight[week]), float(terms.floor[week])
        target_part, floor_part = (
            (-weight * target if weight else 0.0),
            (-floor_weight * floor if floor_weight else 0.0),
        )
        self._add_everywhere(
            (weight + floor_weight, rates[0] + target_part + floor_part), (weight, rates[-1] + target_part)
        )
        for place, jump in zip(edges[1:-1], np.diff(rates).tolist(), strict=True):
            if jump:
                insort(self.knots, (place, 0.0, jump))
        if floor_weight:
            insort(self.knots, (floor, -floor_weight, -floor_part))
        self.size += max(abs(target_part), abs(floor_part), *map(abs, rates))

    def _add_everywhere(self, left: tuple[float, float], right: tuple[float, float]) -> None:
        self.left = (self.left[0] + left[0], self.left[1] + left[1])
        self.right = (self.right[0] + right[0], self.right[1] + right[1])

    def clip(self, least: float, most: float, low: float, high: float) -> tuple[float, float]:
        """Restrict to [low, high], clip to [least, most]; return the largest places at or below both levels."""
        tie = TIE_TOLERANCE * self.size
        start = self._cut_left(least, tie, low, high)
        if start >= high:  # the bound stops what would rise further: all of the step is there
            self.knots, self.right = [(high, 0.0, most - least)], (0.0, most)
            return high, high
        return start, self._cut_right(most, tie, start, high)

    def _cut_left(self, level: float, tie: float, low: float, high: float) -> float:
        """Make everything left of the crossing constant; the first knot then is the crossing."""
        (slope, intercept), place, passed = self.left, low, 0
        for knot, d_slope, d_intercept in self.knots:
            after = (slope + d_slope, intercept + d_intercept)
            if knot > low and after[0] * knot + after[1] > level + tie:
                break
            (slope, intercept), place, passed = after, max(low, knot), passed + 1
        bound = min(high, self.knots[passed][0]) if passed < len(self.knots) else high
        place = min(max(place, _crossing(slope, intercept, level, tie)), max(bound, low))
        # Knots at the place itself join it: a partial sum there would fall, and a later cut would stop too early.
        while passed < len(self.knots) and self.knots[passed][0] <= place:
            slope, intercept = slope + self.knots[passed][1], intercept + self.knots[passed][2]
            passed += 1
        self.knots = [(place, slope, intercept - level), *self.knots[passed:]]
        self.left = (0.0, level)
        return place

    def _cut_right(self, level: float, tie: float, start: float, high: float) -> float:
        """Make everything right of the crossing constant; the first knot, at `start`, stays the first."""
        slope, intercept = self.right
        while True:
            knot, d_slope, d_intercept = self.knots[-1]
            first = len(self.knots) == 1
            inside = first or knot < high
            if inside and slope * knot + intercept <= level + tie:
                place = min(max(_crossing(slope, intercept, level, tie), knot), high)
                self.knots.append((place, -slope, level - intercept))
                break
            slope, intercept = slope - d_slope, intercept - d_intercept
            if first or (inside and slope * knot + intercept <= level + tie):
                place = knot
                self.knots[-1] = (knot, -slope, level - intercept)
                break
            self.knots.pop()
        self.right = (0.0, level)
        return place


def _crossing(slope: float, intercept: float, level: float, tie: float) -> float:
    """Return the largest place where the line is at or below the level."""
    if slope > 0:
        return (level - intercept) / slope
    return float("inf") if intercept <= level + tie else float("-inf")
