"""Own the state of the planning loop and how far it is from a plan that fits: the three residuals.

CONTRACT: revision rules take and return `PlanState`; the loop stops on `Residuals`.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from walras.planner.costs import AbstractAcquisitionCost
from walras.planner.response import Response

Grid = Float[np.ndarray, "week resource"]

LEAST_CAPACITY = 0.01
"""Shortage is relative to capacity, but at least to this share of typical use: weeks of nearly none are not noise."""


@dataclass(frozen=True, eq=False)
class Frame:
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


def assess(
    frame: Frame, cost: AbstractAcquisitionCost, capacity: Grid, shadow_prices: Grid, utilization: Grid
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

    frame: Frame
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
        fitted = covering(self.frame, cost, shadow_prices, utilization) if capacity is None else capacity
        residuals = assess(self.frame, cost, fitted, shadow_prices, utilization)
        return replace(self, capacity=fitted, shadow_prices=shadow_prices, utilization=utilization, residuals=residuals)

    def taught(self, others: "list[PlanState]") -> "PlanState":
        """Return the state with the response learned from what other prices did."""
        response = self.response
        for other in others:
            response = response.learned(other.shadow_prices - self.shadow_prices, other.utilization - self.utilization)
        return replace(self, response=response)


def covering(frame: Frame, cost: AbstractAcquisitionCost, shadow_prices: Grid, utilization: Grid) -> Grid:
    """Return the cheapest capacity for this use, shortage priced at lambda and softly penalised."""
    weight = frame.weight()
    return cost.cover(utilization + shadow_prices / weight, weight)
