"""What capacity costs: tiers, ramps, bounds, frozen weeks, and changes against the plan that is revised.

Money per unit of resource throughout. Add a cost by subclassing `AbstractAcquisitionCost`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float

from walras.errors import InputError, shape_mismatch
from walras.planning.protocols import Grid
from walras.planning.proximal import QuadraticTerms, Ramps, ramped_minimum, separable_minimum

EDGE_TOLERANCE = 1e-9
"""Relative distance within which a capacity counts as equal to an edge, which it reaches through float64 sums."""


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
    """Tiers of capacity at rising rates, and a charge for every change from week to week.

    The first rate also applies below the lower bound, so that `total` is the whole bill.

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
        _check_tiers(self.edges, self.rates)
        shape = self.edges.shape[:2]
        for name in ("lower", "upper", "ramp_up", "ramp_down"):
            _same_shape(name, getattr(self, name), shape)
        _ordered_bounds(self.lower, self.upper)
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
        tops: Sequence[float] = (1.0, 1.15, 1.3),
        lower: Float[np.ndarray, "..."] | float = 0.0,
        ramp_up: Float[np.ndarray, "..."] | float = 0.0,
        ramp_down: Float[np.ndarray, "..."] | float = 0.0,
        previous: Float[np.ndarray, "..."] | None = None,
    ) -> "PiecewiseLinearCost":
        """Build tiers that end at multiples of the regular capacity: regular, overtime, agency.

        Args:
            regular_capacity: K0, granted at the first rate [week, resource].
            rates: of each tier, rising; numbers or [week, resource].
            tops: where each tier ends, in multiples of K0, rising.
            lower, ramp_up, ramp_down, previous: as in the class; numbers or arrays. `lower` is K0 where the regular
                capacity is paid for whether used or not.
        """
        if previous is not None:
            _same_shape("previous", previous, regular_capacity.shape[1:])
        if len(rates) != len(tops) or not rates:
            raise InputError(f"`rates` has {len(rates)} tiers but `tops` has {len(tops)}; give one rate per tier")
        shape = regular_capacity.shape
        _finite("regular_capacity", regular_capacity)
        negative = regular_capacity < 0
        _refuse_where("regular_capacity", regular_capacity, negative, "capacity cannot be negative: give 0 or more")
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

    def _tier_rate(self, capacity: Grid) -> Grid:
        segment = np.sum(capacity[..., None] > self.edges[..., 1:-1], axis=-1)
        return np.take_along_axis(self.rates, segment[..., None], axis=-1)[..., 0]

    def top_rate(self) -> Grid:
        """Return the highest tier's rate within the bounds, with the ramps into and out of a single high week."""
        out = np.vstack([self.ramp_down[1:], np.zeros_like(self.ramp_down[:1])])
        return self._tier_rate(self.upper * (1 - EDGE_TOLERANCE)) + self.ramp_up + out

    def minimise(self, terms: QuadraticTerms) -> Grid:
        """Return the exact minimiser: week by week where no ramp is charged, else by dynamic programming."""
        bounds = (self.lower[..., None], self.upper[..., None])
        edges = np.clip(self.edges, *bounds)
        edges[..., 0], edges[..., -1] = self.lower, self.upper
        capacity = separable_minimum(edges, self.rates, terms)
        for resource in np.flatnonzero(np.any((self.ramp_up > 0) | (self.ramp_down > 0), axis=0)):
            previous = None if self.previous is None else float(self.previous[resource])
            ramps = Ramps(self.ramp_up[:, resource], self.ramp_down[:, resource], previous)
            column = terms.column(int(resource))
            capacity[:, resource] = ramped_minimum(edges[:, resource], self.rates[:, resource], ramps, column)
        return capacity


@dataclass(frozen=True, eq=False)
class PreviousPlan:
    """An earlier plan on the weeks that are planned now; NaN in those that it did not plan.

    Attributes:
        capacity: planned [units of resource].
        regular_capacity: granted at the regular rate [units of resource].
        shadow_prices: charged for it [money per unit of resource].
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
    """The cost `plain`, and `rate` for every unit by which a week differs from the last plan.

    Attributes:
        plain: the cost without penalty.
        last: the last plan.
        rate: money per unit of change [week, resource].
    """

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


def _check_tiers(edges: np.ndarray, rates: np.ndarray) -> None:
    """Check shapes, and that edges and rates are finite and do not fall."""
    if rates.shape != (*edges.shape[:2], edges.shape[2] - 1) or edges.shape[2] < 2:
        needed = f"{(*edges.shape[:2], edges.shape[2] - 1)}, one tier between two edges"
        raise shape_mismatch("rates", rates.shape, needed, "give one rate per tier")
    _finite("edges", edges)
    _finite("rates", rates)
    narrow = np.any(np.diff(edges, axis=-1) < 0, axis=-1)
    _refuse_where("edges", edges[..., -1], narrow, "the tiers' edges must not fall: sort them")
    falling = np.any(np.diff(rates, axis=-1) < 0, axis=-1)
    remedy = "a later tier must not be cheaper than an earlier one: sort the rates or merge the tiers"
    _refuse_where("rates", rates[..., -1], falling, remedy)


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
    bad = ~np.isfinite(array)
    if bad.any():
        place = np.argwhere(bad)[0]
        raise InputError(f"`{name}` is {array[tuple(place)]} in {_place(place)}; every number must be finite")


def _ordered_bounds(lower: Grid, upper: Grid) -> None:
    _refuse_where("lower", lower, ~np.isfinite(lower), "it must be finite: give 0 where there is no least capacity")
    _refuse_where("upper", upper, ~(lower <= upper), "the upper bound lies below the lower one: raise it")


def _refuse_where(name: str, array: np.ndarray, bad: np.ndarray, remedy: str) -> None:
    """Raise an error that names the first bad week and resource."""
    if bad.any():
        place = np.argwhere(bad)[0]
        raise InputError(f"`{name}` is {array[tuple(place)]:g} in {_place(place)}; {remedy}")


def _place(place: np.ndarray) -> str:
    words = ("week", "resource", "tier")
    return ", ".join(f"{word} {int(index)}" for word, index in zip(words, place, strict=False))
