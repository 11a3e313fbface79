"""Own what the planner believes about the response dU/dlambda: asked by pulses or taken from the view, then learned.

FREE: it only steers the revision rules; a wrong belief costs queries, never the answer.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from walras.maps.interface import DifferentiableView

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
