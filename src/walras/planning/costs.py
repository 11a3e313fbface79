"""What capacity costs: tiers, ramps, bounds, frozen weeks and changes of the last plan; and its exact minimiser."""

from abc import ABC, abstractmethod
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float

from walras.errors import InputError, shape_mismatch
from walras.planning.protocols import Grid

TIE_TOLERANCE = 1e-11  # relative error of a derivative below which two are equal: some 10^5 roundings of float64


@dataclass(frozen=True, eq=False)
class QuadraticTerms:
    """The terms `weight/2 (K - target)^2 + floor_weight/2 ([floor - K]^+)^2`, all of one shape."""

    target: np.ndarray
    weight: np.ndarray
    floor: np.ndarray
    floor_weight: np.ndarray


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
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.where(top >= 0, np.inf, -np.inf))


@dataclass(frozen=True, eq=False)
class Ramps:
    """Cost per unit of change into each week [week], and the capacity of the week before the first."""

    up: np.ndarray
    down: np.ndarray
    previous: float | None


def ramped_minimum(
    edges: Float[np.ndarray, "week edge"], rates: Float[np.ndarray, "week segment"], ramps: Ramps, terms: QuadraticTerms
) -> Float[np.ndarray, " week"]:
    """Minimise one resource over all weeks at once; frozen weeks have all their edges at one value.

    `min over K  sum_t a_t(K_t) + ramps(K_t - K_{t-1})`, every a_t convex with a piecewise-linear derivative, by dynamic
    programming as for the fused lasso (Johnson 2013): `m_t(K)`, the least cost of weeks 0..t that ends at K, has a
    nondecreasing piecewise-linear derivative, and the ramp into week t+1 clips it to [-ramp_down, ramp_up]. Each week
    adds a few knots and every knot is removed at most once. Ties go to the largest capacity.
    """
    n_weeks, message = len(edges), PiecewiseLinear()
    limits: list[tuple[float, float]] = []
    for week in range(n_weeks):
        if week == 0 and ramps.previous is not None:
            message.start_with_step(ramps.previous, float(ramps.up[0]), float(ramps.down[0]))
        message.add_week(edges[week].tolist(), rates[week].tolist(), terms, week)
        low, high = float(edges[week, 0]), float(edges[week, -1])
        # The last week leaves freely: its message is cut at zero, where the whole cost is least.
        down, up = (ramps.down[week + 1], ramps.up[week + 1]) if week + 1 < n_weeks else (0.0, 0.0)
        limits.append(message.clip(-float(down), float(up), low, high))
    capacity, reached = np.empty(n_weeks), limits[-1][1]
    for week, (low, high) in reversed(list(enumerate(limits))):
        capacity[week] = reached = min(max(reached, low), high)
    return capacity


class PiecewiseLinear:
    """A nondecreasing piecewise-linear function: the lines at its two ends and the changes at its knots."""

    def __init__(self) -> None:
        self.knots: list[tuple[float, float, float]] = []  # place, change of slope, change of intercept
        self.left = self.right = (0.0, 0.0)  # slope, intercept
        self.size = 0.0  # of the terms added so far, for the tie tolerance

    def start_with_step(self, place: float, up: float, down: float) -> None:
        """Start from the derivative of the ramp out of a known capacity."""
        self.left, self.right = (0.0, -down), (0.0, up)
        self.knots = [(place, 0.0, up + down)]

    def add_week(self, edges: Sequence[float], rates: Sequence[float], terms: QuadraticTerms, week: int) -> None:
        """Add the derivative of one week's own cost."""
        weight, target = float(terms.weight[week]), float(terms.target[week])
        floor_weight, floor = float(terms.floor_weight[week]), float(terms.floor[week])
        target_part = -weight * target if weight else 0.0
        floor_part = -floor_weight * floor if floor_weight else 0.0
        (left_slope, left_intercept), (right_slope, right_intercept) = self.left, self.right
        self.left = (left_slope + (weight + floor_weight), left_intercept + (rates[0] + target_part + floor_part))
        self.right = (right_slope + weight, right_intercept + (rates[-1] + target_part))
        for place, jump in zip(edges[1:-1], np.diff(rates).tolist(), strict=True):
            if jump:
                insort(self.knots, (place, 0.0, jump))
        if floor_weight:
            insort(self.knots, (floor, -floor_weight, -floor_part))
        self.size += max(abs(target_part), abs(floor_part), *map(abs, rates))

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


EDGE_TOLERANCE = 1e-9  # relative distance within which capacity equals an edge, which it reaches through float64 sums


class AbstractAcquisitionCost(ABC):
    """Cost A(K) of a capacity plan, convex and finite between `lower` and `upper`.

    Attributes:
        lower, upper: bounds of capacity [units; week, resource]; equal in frozen weeks.
    """

    lower: Grid
    upper: Grid

    @abstractmethod
    def total(self, capacity: Grid) -> float:
        """Return A(K) [money]."""

    @abstractmethod
    def top_rate(self) -> Grid:
        """Return the highest marginal cost: just below `upper`, with the ramps of a single high week [money/unit]."""

    def prox(self, target: Grid, weight: Grid) -> Grid:
        """Return `argmin_K A(K) + sum weight/2 (K - target)^2`, exactly; the weight is per week and resource."""
        zero = np.zeros_like(target)
        return self.minimise(QuadraticTerms(target, weight, zero, zero))

    def cover(self, floor: Grid, weight: Grid) -> Grid:
        """Return `argmin_K A(K) + sum weight/2 ([floor - K]^+)^2`, the largest where several are."""
        zero = np.zeros_like(floor)
        return self.minimise(QuadraticTerms(zero, zero, floor, weight))

    @abstractmethod
    def minimise(self, terms: QuadraticTerms) -> Grid:
        """Return the minimiser of A(K) plus quadratic terms, the largest where several are."""


@dataclass(frozen=True, eq=False)
class PiecewiseLinearCost(AbstractAcquisitionCost):
    """Tiers at rising rates, the first also below the lower bound, and a charge for every change between weeks.

    Attributes:
        edges: bounds of the tiers, nondecreasing [units; week, resource, edge].
        rates: money per unit within each tier, nondecreasing [week, resource, segment].
        lower, upper: bounds of capacity, within the outer edges; equal in frozen weeks.
        ramp_up, ramp_down: money per unit by which capacity rises or falls against the week before.
        previous: capacity of the week before the first, or None where that change is free.
    """

    edges: Float[np.ndarray, "week resource edge"]
    rates: Float[np.ndarray, "week resource segment"]
    lower: Grid
    upper: Grid
    ramp_up: Grid
    ramp_down: Grid
    previous: Float[np.ndarray, " resource"] | None = None

    def __post_init__(self) -> None:
        """Check that the cost is convex and the bounds are ordered."""
        shape, tiers = self.edges.shape[:2], self.edges.shape[2] - 1
        if self.rates.shape != (*shape, tiers) or tiers < 1:
            needed = f"{(*shape, tiers)}, one tier between two edges"
            raise shape_mismatch("rates", self.rates.shape, needed, "give one rate per tier")
        _finite("edges", self.edges)
        _finite("rates", self.rates)
        narrow, falling = (np.any(np.diff(part, axis=-1) < 0, axis=-1) for part in (self.edges, self.rates))
        _refuse_where("edges", self.edges[..., -1], narrow, "the tiers' edges must not fall: sort them")
        remedy = "a later tier must not be cheaper than an earlier one: sort the rates or merge the tiers"
        _refuse_where("rates", self.rates[..., -1], falling, remedy)
        for name in ("lower", "upper", "ramp_up", "ramp_down"):
            _same_shape(name, getattr(self, name), shape)
        remedy = "it must be finite: give 0 where there is no least capacity"
        _refuse_where("lower", self.lower, ~np.isfinite(self.lower), remedy)
        reversed_ = ~(self.lower <= self.upper)
        _refuse_where("upper", self.upper, reversed_, "the upper bound lies below the lower one: raise it")
        outside = (self.lower < self.edges[..., 0]) | (self.upper > self.edges[..., -1])
        _refuse_where("lower", self.lower, outside, "bounds must lie within the tiers: widen the tiers or the bounds")
        for name in ("ramp_up", "ramp_down"):
            ramp = getattr(self, name)
            _finite(name, ramp)
            _refuse_where(name, ramp, ramp < 0, "a change cannot earn money: give a rate of 0 or more")
        if self.previous is not None:
            _same_shape("previous", self.previous, shape[1:])
            _finite("previous", self.previous[None])

    @classmethod
    def tiers(
        cls,
        regular_capacity: Grid,
        *,
        rates: Sequence[Grid | float],
        tops: Sequence[float | Float[np.ndarray, " resource"]] = (1.0, 1.15, 1.3),
        lower: Float[np.ndarray, "..."] | float = 0.0,
        ramp_up: Float[np.ndarray, "..."] | float = 0.0,
        ramp_down: Float[np.ndarray, "..."] | float = 0.0,
        previous: Float[np.ndarray, "..."] | None = None,
    ) -> "PiecewiseLinearCost":
        """Build tiers that end at `tops`, rising multiples of the regular capacity K0: regular, overtime, agency.

        Numbers hold for all weeks and resources. `lower` is K0 where that is paid for whether used or not.
        """
        if previous is not None:
            _same_shape("previous", previous, regular_capacity.shape[1:])
        if len(rates) != len(tops) or not rates:
            raise InputError(f"`rates` has {len(rates)} tiers but `tops` has {len(tops)}; give one rate per tier")
        shape = regular_capacity.shape
        _finite("regular_capacity", regular_capacity)
        remedy = "capacity cannot be negative: give 0 or more"
        _refuse_where("regular_capacity", regular_capacity, regular_capacity < 0, remedy)
        edges = np.stack([np.zeros(shape), *(top * regular_capacity for top in tops)], axis=-1)
        spread = np.stack([_spread(f"rates[{i}]", rate, shape) for i, rate in enumerate(rates)], axis=-1)
        ramps = (_spread("ramp_up", ramp_up, shape), _spread("ramp_down", ramp_down, shape))
        return cls(edges, spread, _spread("lower", lower, shape), edges[..., -1].copy(), *ramps, previous)

    def frozen(self, capacity: Float[np.ndarray, "frozen_week resource"]) -> "PiecewiseLinearCost":
        """Fix the first weeks to the given capacity; they are paid for and ramped from."""
        weeks, (n_weeks, n_resources) = len(capacity), self.lower.shape
        if weeks > n_weeks or capacity.shape[1] != n_resources:
            needed = f"at most [{n_weeks} weeks, {n_resources} resources]"
            raise shape_mismatch("frozen", capacity.shape, needed, "cut the frozen zone to the horizon")
        lower, upper, edges = self.lower.copy(), self.upper.copy(), self.edges.copy()
        _finite("frozen", capacity)
        too_low = capacity < edges[:weeks, :, 0]
        too_high = capacity > edges[:weeks, :, -1] * (1 + EDGE_TOLERANCE)
        remedy = "it must lie within the tiers: raise the tiers of that week or correct the frozen capacity"
        _refuse_where("frozen", capacity, too_low | too_high, remedy)
        fixed = np.minimum(capacity, edges[:weeks, :, -1])
        lower[:weeks], upper[:weeks] = fixed, fixed
        return replace(self, lower=lower, upper=upper, edges=edges)

    @property
    def regular(self) -> Grid:
        """Give the regular capacity, where the first tier ends."""
        return self.edges[..., 1]

    @property
    def middle(self) -> Grid:
        """Give the end of the second tier, a capacity to start from."""
        return self.edges[..., 2]

    @property
    def first_prices(self) -> Grid | None:
        """Give shadow prices to start from, where any are known [money/unit]."""
        return None

    def bill(self, capacity: Grid) -> float:
        """Return the cost of capacity alone, without the penalty on changes against a previous plan."""
        return self.total(capacity)

    def total(self, capacity: Grid) -> float:
        """Return the cost of tiers and ramps [money]."""
        filled = np.clip(capacity[..., None], self.edges[..., :-1], self.edges[..., 1:]) - self.edges[..., :-1]
        tiers = np.sum(self.rates * filled) + np.sum(self.rates[..., 0] * self.edges[..., 0])
        before = capacity[:1] if self.previous is None else self.previous[None]
        change = np.diff(capacity, axis=0, prepend=before)
        ramps = self.ramp_up * np.maximum(change, 0.0) + self.ramp_down * np.maximum(-change, 0.0)
        return float(tiers + np.sum(ramps))

    def top_rate(self) -> Grid:
        """Return the highest tier's rate within the bounds, with the ramps into and out of a single high week."""
        highest = self.upper * (1 - EDGE_TOLERANCE)
        segment = np.sum(highest[..., None] > self.edges[..., 1:-1], axis=-1)
        rate = np.take_along_axis(self.rates, segment[..., None], axis=-1)[..., 0]
        out = np.vstack([self.ramp_down[1:], np.zeros_like(self.ramp_down[:1])])
        return rate + self.ramp_up + out

    def minimise(self, terms: QuadraticTerms) -> Grid:
        """Return the exact minimiser: week by week where no ramp is charged, else by dynamic programming."""
        edges = np.clip(self.edges, self.lower[..., None], self.upper[..., None])
        edges[..., 0], edges[..., -1] = self.lower, self.upper
        capacity = separable_minimum(edges, self.rates, terms)
        for resource in np.flatnonzero(np.any((self.ramp_up > 0) | (self.ramp_down > 0), axis=0)):
            previous = None if self.previous is None else float(self.previous[resource])
            ramps = Ramps(self.ramp_up[:, resource], self.ramp_down[:, resource], previous)
            column = QuadraticTerms(*(part[:, resource] for part in vars(terms).values()))
            capacity[:, resource] = ramped_minimum(edges[:, resource], self.rates[:, resource], ramps, column)
        return capacity


@dataclass(frozen=True, eq=False)
class PreviousPlan:
    """An earlier plan on the weeks that are planned now; NaN in those that it did not plan.

    Capacity, also the part granted at the regular rate, in units of resource; prices in money per unit.
    """

    capacity: Grid
    regular_capacity: Grid
    shadow_prices: Grid

    @property
    def known(self) -> Bool[np.ndarray, "week resource"]:
        """Mark the weeks that it planned."""
        return np.isfinite(self.capacity)

    def moved(self, capacity: Grid) -> float:
        """Return by how much a plan differs from it, as a share of what it planned, in the weeks of both."""
        known = self.known
        return float(np.abs(capacity - self.capacity)[known].sum() / max(self.capacity[known].sum(), 1e-9))

    def regular(self, otherwise: Grid) -> Grid:
        """Return the regular capacity granted, held over later weeks; `otherwise` for resources without one."""
        return _held(self.regular_capacity, otherwise)

    def prices(self, otherwise: Grid) -> Grid:
        """Return its prices, held over later weeks; `otherwise` for resources without one."""
        return _held(self.shadow_prices, otherwise)


def _held(given: Grid, otherwise: Grid) -> Grid:
    """Carry the value of the last known week on, and that of the first known one back."""
    filled = otherwise.copy()
    for resource in range(given.shape[1]):
        known = np.flatnonzero(np.isfinite(given[:, resource]))
        if len(known):
            nearest = known[np.clip(np.searchsorted(known, np.arange(len(given)), side="right") - 1, 0, None)]
            filled[:, resource] = given[nearest, resource]
    return filled


@dataclass(frozen=True, eq=False)
class ChangePenalty(PiecewiseLinearCost):
    """The cost `plain`, and `rate` [money/unit; week, resource] for every unit by which a week differs from `last`."""

    plain: PiecewiseLinearCost = field(kw_only=True)
    last: PreviousPlan = field(kw_only=True)
    rate: Grid = field(kw_only=True)

    @classmethod
    def around(cls, plain: PiecewiseLinearCost, last: PreviousPlan, rate: Grid) -> "ChangePenalty":
        """Split the tiers of each week at the last plan: below it a unit saves less, beyond it one costs more.

        Weeks that it did not plan change without penalty; `rate` is 0 or more.
        """
        bounds = plain.edges[..., 0], plain.edges[..., -1]
        kink = np.clip(np.where(last.known, last.capacity, bounds[0]), *bounds)[..., None]
        edges = np.sort(np.concatenate([plain.edges, kink], -1), -1)
        middle = (edges[..., 1:] + edges[..., :-1]) / 2
        tier = (middle[..., None] > plain.edges[..., None, 1:-1]).sum(-1)
        change = np.where(last.known, rate, 0.0)[..., None] * np.where(middle > kink, 1.0, -1.0)
        rates = np.take_along_axis(plain.rates, tier, -1) + change
        bounded = plain.lower, plain.upper, plain.ramp_up, plain.ramp_down, plain.previous
        return cls(edges, rates, *bounded, plain=plain, last=last, rate=rate)

    @property
    def regular(self) -> Grid:
        """Give the regular capacity of the tiers."""
        return self.plain.regular

    @property
    def middle(self) -> Grid:
        """Give the end of the middle tier."""
        return self.plain.middle

    @property
    def first_prices(self) -> Grid | None:
        """Give the last plan's prices to start from."""
        return self.last.prices(np.zeros_like(self.lower))

    def total(self, capacity: Grid) -> float:
        """Return the bill, changes included."""
        change = np.abs(capacity - np.where(self.last.known, self.last.capacity, capacity))
        return self.plain.total(capacity) + float((self.rate * change).sum())

    def bill(self, capacity: Grid) -> float:
        """Return what capacity alone costs."""
        return self.plain.bill(capacity)


def _spread(name: str, value: Float[np.ndarray, "..."] | float, shape: tuple[int, ...]) -> Grid:
    """Return one number per week and resource."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim:
        _same_shape(name, array, shape)
    return np.broadcast_to(array, shape).copy()


def _same_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        axes = "week and resource" if len(shape) > 1 else "resource"
        raise shape_mismatch(name, array.shape, f"{shape}, one number per {axes}", "give as many as are planned")


def _finite(name: str, array: np.ndarray) -> None:
    _refuse_where(name, array, ~np.isfinite(array), "every number must be finite")


def _refuse_where(name: str, array: np.ndarray, bad: np.ndarray, remedy: str) -> None:
    """Raise an error that names the first bad week, resource and tier."""
    if bad.any():
        first = np.argwhere(bad)[0]
        place = ", ".join(f"{axis} {at}" for axis, at in zip(("week", "resource", "tier"), first, strict=False))
        raise InputError(f"`{name}` is {array[tuple(first)]:g} in {place}; {remedy}")
