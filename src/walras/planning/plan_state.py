"""Own the state of the planning loop and how far it is from a plan that fits: the three residuals.

CONTRACT: revision rules take and return `PlanState`; the loop stops on `Residuals`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from walras.planning.costs import AbstractAcquisitionCost
from walras.planning.protocols import DifferentiableView

PULSE = 0.05
"""Size of a test pulse in median margins: about what holding stock for weeks costs; beyond it all orders have moved."""

PULSE_SPACING = 5
"""Weeks between the pulses of one query: a price acts on its own week and mostly on the two on either side."""

LEAST_OWN_RESPONSE = 0.05
"""Least response believed, relative to the median week's: steps are never longer than twenty times the usual one."""

LEAST_MOVE = 1e-5
"""Root mean square change of prices, in median margins, below which a difference in use is mostly rounding."""


@dataclass(frozen=True, eq=False)
class Response:
    """Hold the slope matrix `-dU/dlambda` without units: use over capacity scale, prices over median margin.

    Attributes:
        slope: [use entry, price entry], entries in the order week, then resource; the diagonal is mostly positive.
        price_scale: the median margin [money/unit].
        capacity_scale: typical use [units; week, resource].
    """

    slope: Float[np.ndarray, "entry entry"]
    price_scale: float
    capacity_scale: Float[np.ndarray, "week resource"]

    def strength(self) -> Float[np.ndarray, "week resource"]:
        """Bound each entry's response, own and cross, by row sums, so that steps of its inverse do not overshoot."""
        size = np.abs(self.slope)
        rows = 0.5 * (size.sum(axis=0) + size.sum(axis=1))
        positive = rows[rows > 0]
        least = LEAST_OWN_RESPONSE * float(np.median(positive)) if positive.size else 1.0
        return np.maximum(rows, least).reshape(self.capacity_scale.shape)

    def stiffened(self, extra: float) -> "Response":
        """Raise the diagonal by `extra`, and until more price never means more use: a model then has one solution."""
        spectrum = np.linalg.eigvalsh(0.5 * (self.slope + self.slope.T))
        lift = max(0.0, 1e-3 * max(float(spectrum[-1]), 1e-3) - float(spectrum[0]))
        return replace(self, slope=self.slope + (lift + extra) * np.eye(len(self.slope)))

    def change(self, move: Float[np.ndarray, "week resource"]) -> Float[np.ndarray, "week resource"]:
        """Predict how use changes with prices [units]."""
        return -(self.slope @ (move / self.price_scale).ravel()).reshape(move.shape) * self.capacity_scale

    def learned(
        self, move: Float[np.ndarray, "week resource"], change: Float[np.ndarray, "week resource"]
    ) -> "Response":
        """Agree with one observed change of use, and otherwise stay as near as possible (Broyden's update)."""
        step = (move / self.price_scale).ravel()
        if float(np.sqrt(np.mean(step**2))) < LEAST_MOVE:
            return self
        missed = -(change / self.capacity_scale).ravel() - self.slope @ step
        return replace(self, slope=self.slope + np.outer(missed, step) / float(step @ step))


def estimate_response(
    view: Any,
    shadow_prices: Float[np.ndarray, "week resource"],
    utilization: Float[np.ndarray, "week resource"],
    capacity_scale: Float[np.ndarray, "week resource"],
) -> Response:
    """Take the view's own Jacobian where it has one, else ask with pulses of price, all in one call."""
    scale = float(view.price_scale)
    if isinstance(view, DifferentiableView):
        slope = -view.jacobian(shadow_prices) * scale / capacity_scale.reshape(-1, 1)
        return Response(slope, scale, capacity_scale)
    return Response(_pulse_slopes(view, shadow_prices, utilization, capacity_scale), scale, capacity_scale)


def _pulse_slopes(
    view: Any, shadow_prices: np.ndarray, utilization: np.ndarray, capacity_scale: np.ndarray
) -> Float[np.ndarray, "entry entry"]:
    """Read the response at each pulse and in the weeks nearest to it."""
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


Grid = Float[np.ndarray, "week resource"]

LEAST_CAPACITY = 0.01
"""Shortage is relative to capacity, but at least to this share of typical use: weeks of nearly none are not noise."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """Hold what does not change while planning.

    Attributes:
        price_scale: the median margin [money/unit].
        capacity_scale: typical use [units; week, resource].
        ceiling: the highest price that is tried [money/unit; week, resource].
        committed: weeks whose use no price changes [week, resource].
    """

    price_scale: float
    capacity_scale: Grid
    ceiling: Grid
    committed: Bool[np.ndarray, "week resource"]

    def weight(self) -> Grid:
        """Return the scale-free penalty weight, one median margin per typical use [money/unit^2]."""
        return self.price_scale / self.capacity_scale

    def capped(self, capacity: Grid, shadow_prices: Grid, utilization: Grid) -> Bool[np.ndarray, "week resource"]:
        """Say where use exceeds capacity although the price is at its ceiling."""
        return (shadow_prices >= self.ceiling * (1 - 1e-9)) & (utilization > capacity)

    def room(self, capacity: Grid, utilization: Grid) -> Grid:
        """Return capacity left over, relative to capacity; negative where it is short."""
        return (capacity - utilization) / np.maximum(capacity, LEAST_CAPACITY * self.capacity_scale)


@dataclass(frozen=True)
class Residuals:
    """Say how far a plan is from fitting; all zero at the solution, without units.

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
    frame: Scaling, cost: AbstractAcquisitionCost, capacity: Grid, shadow_prices: Grid, utilization: Grid
) -> Residuals:
    """Measure one plan."""
    weight = frame.weight()
    gap = np.abs(capacity - cost.prox(capacity + shadow_prices / weight, weight)) / frame.capacity_scale
    helped = ~frame.capped(capacity, shadow_prices, utilization)
    room = np.where(helped, frame.room(capacity, utilization), 0.0)
    complement = np.abs(np.minimum(shadow_prices / frame.price_scale, room))
    merit = np.sqrt(np.mean(gap**2 + complement**2))
    short, complementarity, price_gap = (float(np.max(part, initial=0.0)) for part in (-room, complement, gap))
    return Residuals(short, complementarity, price_gap, float(merit))


@dataclass(frozen=True, eq=False)
class PlanState:
    """Hold one iterate of the loop.

    Attributes:
        frame: what does not change.
        capacity, shadow_prices, utilization: the iterate; utilization is F(shadow prices).
        residuals: how far it is from fitting.
        response: what is believed about dU/dlambda.
        step: the rule's step size, without units.
        bar: merit that a candidate must beat, an average over the last iterates.
        age: revisions since the response was asked for.
        worth: G(capacity), where a rule asks for it; the prices may be others that fit as well [money/unit].
        pace: step of every entry, where a rule keeps one each; `heading` is the last move of the prices.
    """

    frame: Scaling
    capacity: Grid
    shadow_prices: Grid
    utilization: Grid
    residuals: Residuals
    response: Response
    step: float = 1.0
    bar: float = np.inf
    age: int = 0
    worth: Grid | None = None
    pace: Grid | None = None
    heading: Grid | None = None

    def moved(
        self, cost: AbstractAcquisitionCost, shadow_prices: Grid, utilization: Grid, capacity: Grid | None = None
    ) -> "PlanState":
        """Return the state at other prices, with the capacity that suits them where none is given."""
        fitted = cheapest_capacity(self.frame, cost, shadow_prices, utilization) if capacity is None else capacity
        residuals = plan_residuals(self.frame, cost, fitted, shadow_prices, utilization)
        return replace(self, capacity=fitted, shadow_prices=shadow_prices, utilization=utilization, residuals=residuals)

    def taught(self, others: "list[PlanState]") -> "PlanState":
        """Return the state with the response learned from what other prices did."""
        response = self.response
        for other in others:
            response = response.learned(other.shadow_prices - self.shadow_prices, other.utilization - self.utilization)
        return replace(self, response=response)


def cheapest_capacity(frame: Scaling, cost: AbstractAcquisitionCost, shadow_prices: Grid, utilization: Grid) -> Grid:
    """Return the cheapest capacity for this use, shortage priced at lambda and softly penalised."""
    weight = frame.weight()
    return cost.cover(utilization + shadow_prices / weight, weight)
