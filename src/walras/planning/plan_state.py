"""State of the planning loop: an iterate, its residuals, and a linear model of how use responds to prices.

CONTRACT: revision rules take and return `PlanState`; the loop stops on `Residuals`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from walras.planning.costs import AbstractAcquisitionCost
from walras.planning.protocols import DifferentiableView, Grid, PlannerView

PULSE = 0.05
"""Size of a test pulse in price scales: about what holding stock for weeks costs; beyond it all orders have moved."""

PULSE_SPACING = 5
"""Weeks between the pulses of one query: a price acts on its own week and mostly on the two on either side."""

LEAST_OWN_RESPONSE = 0.05
"""Least response believed, relative to the median week's: steps are at most twenty times the usual one."""

LEAST_MOVE = 1e-5
"""Root mean square change of prices, in price scales, below which a difference in use is mostly rounding."""

LEAST_CAPACITY = 0.01
"""Shortage is relative to capacity, but at least to this share of typical use."""


@dataclass(frozen=True, eq=False)
class Response:
    """Slope matrix `-dU/dlambda` without units: use over capacity scale, prices over price scale.

    Attributes:
        slope: [use entry, price entry], entries in the order week, then resource; the diagonal is mostly positive.
        price_scale: unit of prices [money/unit].
        capacity_scale: typical use [units; week, resource].
    """

    slope: Float[np.ndarray, "entry entry"]
    price_scale: float
    capacity_scale: Grid

    def row_sum_bound(self) -> Grid:
        """Bound each entry's response, own and cross, by row sums, so that steps of its inverse do not overshoot."""
        size = np.abs(self.slope)
        rows = 0.5 * (size.sum(axis=0) + size.sum(axis=1))
        positive = rows[rows > 0]
        least = LEAST_OWN_RESPONSE * float(np.median(positive)) if positive.size else 1.0
        return np.maximum(rows, least).reshape(self.capacity_scale.shape)

    def regularised(self, extra: float) -> "Response":
        """Raise the diagonal by `extra`, and until the symmetric part is positive definite (unique solutions)."""
        spectrum = np.linalg.eigvalsh(0.5 * (self.slope + self.slope.T))
        lift = max(0.0, 1e-3 * max(float(spectrum[-1]), 1e-3) - float(spectrum[0]))
        return replace(self, slope=self.slope + (lift + extra) * np.eye(len(self.slope)))

    def predicted_change(self, price_change: Grid) -> Grid:
        """Predict how use changes with prices [units]."""
        step = (price_change / self.price_scale).ravel()
        return -(self.slope @ step).reshape(price_change.shape) * self.capacity_scale

    def broyden_update(self, price_change: Grid, use_change: Grid) -> "Response":
        """Agree with one observed change of use, and otherwise stay as near as possible (Broyden 1965)."""
        step = (price_change / self.price_scale).ravel()
        if float(np.sqrt(np.mean(step**2))) < LEAST_MOVE:
            return self
        error = -(use_change / self.capacity_scale).ravel() - self.slope @ step
        return replace(self, slope=self.slope + np.outer(error, step) / float(step @ step))


def estimate_response(view: PlannerView, shadow_prices: Grid, utilization: Grid, capacity_scale: Grid) -> Response:
    """Return the view's own Jacobian where it has one, else finite differences by price pulses, in one query."""
    scale = float(view.price_scale)
    if isinstance(view, DifferentiableView):
        slope = -view.jacobian(shadow_prices) * scale / capacity_scale.reshape(-1, 1)
    else:
        slope = _pulse_slopes(view, shadow_prices, utilization, capacity_scale)
    return Response(slope, scale, capacity_scale)


def _pulse_slopes(
    view: PlannerView, shadow_prices: Grid, utilization: Grid, capacity_scale: Grid
) -> Float[np.ndarray, "entry entry"]:
    """Raise the prices of every `PULSE_SPACING`th week at a time, and attribute changes to the nearest pulse."""
    n_weeks, n_resources = shadow_prices.shape
    starts = [(first, kind) for first in range(min(PULSE_SPACING, n_weeks)) for kind in range(n_resources)]
    plans = np.repeat(shadow_prices[None], len(starts), axis=0)
    for plan, (first, kind) in zip(plans, starts, strict=True):
        plan[first::PULSE_SPACING, kind] += PULSE * view.price_scale
    drop = (utilization - view.utilization(plans)) / capacity_scale / PULSE
    slope = np.zeros((n_weeks, n_resources, n_weeks, n_resources))
    for answer, (first, kind) in zip(drop, starts, strict=True):
        for week in range(first, n_weeks, PULSE_SPACING):
            near = slice(max(week - PULSE_SPACING // 2, 0), week + PULSE_SPACING // 2 + 1)
            slope[near, :, week, kind] = answer[near]
    return slope.reshape(n_weeks * n_resources, -1)


@dataclass(frozen=True, eq=False)
class PlanScaling:
    """Units and limits, constant while planning.

    Attributes:
        price_scale: unit of prices [money/unit].
        capacity_scale: typical use [units; week, resource].
        ceiling: the highest price that is tried [money/unit; week, resource].
        committed: weeks whose use no price changes [week, resource].
    """

    price_scale: float
    capacity_scale: Grid
    ceiling: Grid
    committed: Bool[np.ndarray, "week resource"]

    def weight(self) -> Grid:
        """Return the penalty weight of one price scale per typical use [money/unit^2]."""
        return self.price_scale / self.capacity_scale

    def capped(self, capacity: Grid, shadow_prices: Grid, utilization: Grid) -> Bool[np.ndarray, "week resource"]:
        """Mark where use exceeds capacity although the price is at its ceiling."""
        return (shadow_prices >= self.ceiling * (1 - 1e-9)) & (utilization > capacity)

    def room(self, capacity: Grid, utilization: Grid) -> Grid:
        """Return unused capacity, relative to capacity; negative where it is short."""
        return (capacity - utilization) / np.maximum(capacity, LEAST_CAPACITY * self.capacity_scale)


@dataclass(frozen=True)
class Residuals:
    """Distance of a plan from fitting, without units; all zero at the solution.

    Attributes:
        feasibility: the largest shortage relative to capacity, where the price is below its ceiling.
        complementarity: the largest `|min(lambda / price_scale, (K - U) / K)|`, likewise.
        price_gap: the largest distance of lambda from the marginal costs of K, `|K - prox(K + lambda / rho)|`.
        merit: root mean square of the last two over weeks, by which rules compare candidates.
    """

    feasibility: float
    complementarity: float
    price_gap: float
    merit: float


def plan_residuals(
    scaling: PlanScaling, cost: AbstractAcquisitionCost, capacity: Grid, shadow_prices: Grid, utilization: Grid
) -> Residuals:
    """Measure one plan."""
    weight = scaling.weight()
    gap = np.abs(capacity - cost.prox(capacity + shadow_prices / weight, weight)) / scaling.capacity_scale
    adjustable = ~scaling.capped(capacity, shadow_prices, utilization)
    room = np.where(adjustable, scaling.room(capacity, utilization), 0.0)
    complement = np.abs(np.minimum(shadow_prices / scaling.price_scale, room))
    merit = np.sqrt(np.mean(gap**2 + complement**2))
    short, complementarity, price_gap = (float(np.max(part, initial=0.0)) for part in (-room, complement, gap))
    return Residuals(short, complementarity, price_gap, float(merit))


def cheapest_capacity(
    scaling: PlanScaling, cost: AbstractAcquisitionCost, shadow_prices: Grid, utilization: Grid
) -> Grid:
    """Return the cheapest capacity for this use, shortage priced at lambda and penalised quadratically."""
    weight = scaling.weight()
    return cost.cover(utilization + shadow_prices / weight, weight)


@dataclass(frozen=True, eq=False)
class PlanState:
    """One iterate of the loop.

    Attributes:
        scaling: units and limits.
        capacity, shadow_prices, utilization: the iterate; utilization is F(shadow prices).
        residuals: how far it is from fitting.
        response: linear model of dU/dlambda.
        step: the rule's step size, without units.
        acceptance_level: merit that a candidate must beat, an average over the last iterates.
        age: revisions since the response was estimated.
        marginal_value: G(capacity), where a rule asks for it; the prices may be others that fit as well [money/unit].
        step_per_entry: for rules with one step per entry; `last_step` is the last change of the prices.
    """

    scaling: PlanScaling
    capacity: Grid
    shadow_prices: Grid
    utilization: Grid
    residuals: Residuals
    response: Response
    step: float = 1.0
    acceptance_level: float = np.inf
    age: int = 0
    marginal_value: Grid | None = None
    step_per_entry: Grid | None = None
    last_step: Grid | None = None

    def at_prices(
        self, cost: AbstractAcquisitionCost, shadow_prices: Grid, utilization: Grid, capacity: Grid | None = None
    ) -> "PlanState":
        """Return the state at other prices, with the cheapest capacity for them unless one is given."""
        if capacity is None:
            capacity = cheapest_capacity(self.scaling, cost, shadow_prices, utilization)
        residuals = plan_residuals(self.scaling, cost, capacity, shadow_prices, utilization)
        return replace(
            self, capacity=capacity, shadow_prices=shadow_prices, utilization=utilization, residuals=residuals
        )

    def with_secants(self, others: "Sequence[PlanState]") -> "PlanState":
        """Return the state with its response updated by the use observed at other prices."""
        response = self.response
        for other in others:
            price_change = other.shadow_prices - self.shadow_prices
            response = response.broyden_update(price_change, other.utilization - self.utilization)
        return replace(self, response=response)
