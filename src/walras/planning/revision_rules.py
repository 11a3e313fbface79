"""Revision rules Psi: how a plan is changed where its prices or its use do not fit (docs/concepts/coordination.md).

All look for `0 <= lambda _|_ K - U(lambda) >= 0` with lambda a marginal cost of K. Steps have no units (1 = one price
scale per typical use); one that makes the plan much worse is shortened along its line, and undone if that fails.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from walras.planning.costs import AbstractAcquisitionCost, QuadraticTerms
from walras.planning.prices.dual_ascent import adapt_step
from walras.planning.protocols import DifferentiableView, Grid, PlannerView

PULSE = 0.05  # test pulse in price scales, about what holding stock for weeks costs: beyond it all orders have moved
PULSE_SPACING = 5  # weeks between the pulses of one query: a price acts mostly on its own week and two on either side
LEAST_OWN_RESPONSE = 0.05  # least response believed, relative to the median week's: steps are at most 20 times it
LEAST_MOVE = 1e-5  # root mean square change of prices, in price scales, below which use changes mostly by rounding
LEAST_CAPACITY = 0.01  # shortage is relative to capacity, but at least to this share of typical use


@dataclass(frozen=True, eq=False)
class Response:
    """Slope matrix `-dU/dlambda` without units: use over typical use [units], prices over price scale [money/unit]."""

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
        return Response(slope, scale, capacity_scale)
    # Raise the prices of every `PULSE_SPACING`th week at a time, and attribute changes to the nearest pulse.
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
    return Response(slope.reshape(n_weeks * n_resources, -1), scale, capacity_scale)


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


@dataclass(frozen=True, eq=False)
class PlanScaling:
    """The cost of capacity, units and limits, constant while planning.

    Attributes:
        price_scale: unit of prices; `ceiling` is the highest that is tried [money/unit].
        capacity_scale: typical use [units].
        committed: weeks whose use no price changes.
    """

    cost: AbstractAcquisitionCost
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

    def residuals(self, capacity: Grid, shadow_prices: Grid, utilization: Grid) -> Residuals:
        """Measure one plan."""
        weight = self.weight()
        gap = np.abs(capacity - self.cost.prox(capacity + shadow_prices / weight, weight)) / self.capacity_scale
        adjustable = ~self.capped(capacity, shadow_prices, utilization)
        room = np.where(adjustable, self.room(capacity, utilization), 0.0)
        complement = np.abs(np.minimum(shadow_prices / self.price_scale, room))
        merit = np.sqrt(np.mean(gap**2 + complement**2))
        short, complementarity, price_gap = (float(np.max(part, initial=0.0)) for part in (-room, complement, gap))
        return Residuals(short, complementarity, price_gap, float(merit))

    def cheapest_capacity(self, shadow_prices: Grid, utilization: Grid) -> Grid:
        """Return the cheapest capacity for this use, shortage priced at lambda and penalised quadratically."""
        return self.cost.cover(utilization + shadow_prices / self.weight(), self.weight())

    def consensus_prices(
        self, shadow_prices: Grid, utilization: Grid, rho: Grid, near: Grid | float = 0.0, tie: Grid | float = 0.0
    ) -> Grid:
        """Return the prices after a consensus step, optionally with a proximal term of weight `tie` around `near`."""
        floor = utilization + shadow_prices / rho
        terms = QuadraticTerms(near + np.zeros_like(floor), tie + np.zeros_like(floor), floor, rho)
        return np.clip(rho * np.maximum(floor - self.cost.minimise(terms), 0.0), 0.0, self.ceiling)


@dataclass(frozen=True, eq=False)
class PlanState:
    """One iterate of the loop: capacity, prices, the use F(prices) at them, and how far they are from fitting.

    Attributes:
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

    def at_prices(self, shadow_prices: Grid, utilization: Grid, capacity: Grid | None = None) -> "PlanState":
        """Return the state at other prices, with the cheapest capacity for them unless one is given."""
        if capacity is None:
            capacity = self.scaling.cheapest_capacity(shadow_prices, utilization)
        plan: dict[str, Any] = {"capacity": capacity, "shadow_prices": shadow_prices, "utilization": utilization}
        return replace(self, **plan, residuals=self.scaling.residuals(**plan))


LEAST_STEP = 1e-6  # step below which nothing changes any more that float64 and lumpy populations can tell apart
MAX_GROWTH = 1.5  # factor by which one revision may make the merit worse
SLOW = 0.7  # share of the merit left by a revision above which the response model is in doubt
STRETCHES = (2.0, 5.0)  # longer steps, tried when a whole one gains little: the response is flat far from a steep price
RENEWED_AFTER = 3  # revisions before the response is estimated again, which costs a batch of queries


class AbstractRevisionRule(ABC):
    """Revise a plan, once per call, with few queries of the view; tests/reference holds every rule to closed forms."""

    first_step: float

    def begin(self, state: PlanState, view: PlannerView) -> PlanState:
        """Prepare the first state: set the first step."""
        return replace(state, step=self.first_step)

    @abstractmethod
    def revise(self, state: PlanState, view: PlannerView) -> PlanState:
        """Return the next state; the same prices with a shorter step where nothing better was found."""


@dataclass(frozen=True)
class _SteppedRule(AbstractRevisionRule):
    """A rule with one step for all entries: times `growth` where a whole step is accepted, else times `cut`.

    Where the whole step is worse, the shorter `fallbacks` are tried together, in one batch.
    """

    first_step: float = 1.0
    longest_step: float = 1.9
    fallbacks: tuple[float, ...] = (0.5, 0.2)
    growth: float = 1.15
    cut: float = 0.5

    def _resized(self, best: PlanState, step: float, accepted: bool) -> PlanState:
        longer, shorter = min(step * self.growth, self.longest_step), max(step * self.cut, LEAST_STEP)
        return replace(best, step=longer if accepted else shorter)


@dataclass(frozen=True)
class Consensus(_SteppedRule):
    """ADMM: cost and population agree on the capacity through prices.

    `K+ = argmin A(K) + rho/2 |[F(lambda) + lambda/rho - K]^+|^2`, `lambda+ = [lambda + rho (F(lambda) - K+)]^+`. Where
    capacity has a nonnegative marginal cost this is the usual `A(K) - lambda.K + rho/2 |K - F(lambda)|^2`; where more
    capacity than is used saves ramps, the two-sided form would pull K down to U at price 0, the one-sided does not. The
    penalty rho is the inverse of the response model, times the step: 1 trusts its row-sum bound, and from 2 on a linear
    response oscillates.
    """

    def revise(self, state: PlanState, view: PlannerView) -> PlanState:
        """Fit capacity to use, then move prices by the remaining shortage."""
        rho = state.step * state.scaling.weight() / state.response.row_sum_bound()
        prices = state.scaling.consensus_prices(state.shadow_prices, state.utilization, rho)
        best, accepted = _line_search(state, view, prices, self.fallbacks)
        return self._resized(best, state.step, accepted)


@dataclass(frozen=True)
class AdaptiveSubgradient(AbstractRevisionRule):
    """Consensus with a step of its own for every week and resource, which adapts to the sign of its changes.

    Slow, but it makes progress where a lumpy population stalls the other rules, with one query per revision, none of
    them refused; it needs a loop that keeps the best plan and has patience.
    """

    first_step: float = 0.15
    longest_step: float = 1.0
    shortest_step: float = 1e-3

    def begin(self, state: PlanState, view: PlannerView) -> PlanState:
        """Give every entry the first step."""
        shape = state.shadow_prices.shape
        return replace(state, step_per_entry=np.full(shape, self.first_step), last_step=np.zeros(shape))

    def revise(self, state: PlanState, view: PlannerView) -> PlanState:
        """Fit capacity to use, move every price by the remaining shortage, and adapt the steps."""
        rho = state.step_per_entry * state.scaling.weight()
        prices = state.scaling.consensus_prices(state.shadow_prices, state.utilization, rho)
        change = prices - state.shadow_prices
        steps = adapt_step(state.step_per_entry, change, state.last_step, self.shortest_step, self.longest_step)
        following = state.at_prices(prices, view.utilization(prices[None])[0])
        return replace(following, step_per_entry=steps, last_step=change)


@dataclass(frozen=True)
class ProximalPoint(_SteppedRule):
    """Solve the whole plan on the linear response model, with a proximal term that keeps it near the last plan.

    `K+ = argmin A(K) - V(K) + 1/(2 eta) |K - K_k|^2` in its dual form: `dV/dK = lambda` is inverted by the model
    `U(lambda) = U_k + dU/dlambda (lambda - lambda_k)`, so cross-week effects are solved for together, and the inner
    iterations need no query. Prices are held near the last ones by the same eta (proximal method of multipliers),
    which damps them where the model is wrong. With a right model and a long step this is Newton's method. The step is
    eta, in typical use per price scale; `inner_tolerance` is in price scales.
    """

    first_step: float = 10.0
    longest_step: float = 1e4
    growth: float = 3.0
    cut: float = 0.25
    inner_iterations: int = 300
    inner_tolerance: float = 1e-8

    def revise(self, state: PlanState, view: PlannerView) -> PlanState:
        """Solve the model, query the view there, and update the model."""
        best, accepted = _line_search(state, view, self._model_prices(state), self.fallbacks)
        return self._resized(best, state.step, accepted)

    def _model_prices(self, state: PlanState) -> Grid:
        """Find the model's fixed point by Nesterov steps with adaptive restart (O'Donoghue & Candes 2015)."""
        model, scaling = state.response.regularised(1 / state.step), state.scaling
        rho, tie = scaling.weight() / model.row_sum_bound(), scaling.weight() / state.step
        prices = ahead = state.shadow_prices
        momentum = 1.0
        for _ in range(self.inner_iterations):
            use = state.utilization + model.predicted_change(ahead - state.shadow_prices)
            following = scaling.consensus_prices(ahead, use, rho, near=state.capacity, tie=tie)
            change = following - prices
            restart = float(np.sum((ahead - following) / rho * change)) > 0
            next_momentum = 1.0 if restart else 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
            ahead = following + (0.0 if restart else (momentum - 1) / next_momentum) * change
            prices, momentum = following, next_momentum
            if float(np.max(np.abs(change), initial=0.0)) <= self.inner_tolerance * scaling.price_scale:
                break
        return prices


@dataclass(frozen=True)
class MarginalCost(_SteppedRule):
    """Move capacity by the difference of its price and its marginal cost, `K+ = K + eta (G(K) - A'(K+))`.

    The marginal cost is taken at the new plan, `K+ = argmin A(K) + |K - K_k - eta G(K_k)|^2 / (2 eta)`: the projected
    step, but exact at kinks, ramps and bounds, where A' is an interval and an explicit step would
    jump across. A step of 1 trusts the row-sum bound of the inverse response.
    """

    longest_step: float = 20.0
    growth: float = 1.3

    def begin(self, state: PlanState, view: PlannerView) -> PlanState:
        """Ask for the prices of the first plan."""
        [first] = self._candidates(state, view, [state.capacity])
        return replace(first, step=self.first_step)

    def revise(self, state: PlanState, view: PlannerView) -> PlanState:
        """Step towards the capacities that are worth more than they cost."""
        value = state.shadow_prices if state.marginal_value is None else state.marginal_value
        tie, scaling = self._proximal_weight(state), state.scaling
        ahead = np.divide(value, tie, out=np.zeros_like(tie), where=tie > 0)
        # In committed weeks a penalty on shortage replaces the proximal term.
        floor = state.utilization + state.shadow_prices / scaling.weight()
        floor_weight = np.where(scaling.committed, scaling.weight(), 0.0)
        target = scaling.cost.minimise(QuadraticTerms(state.capacity + ahead, tie, floor, floor_weight))
        change = target - state.capacity
        [whole] = candidates = self._candidates(state, view, [target])
        # Where use is flat or lumpy G has many answers; the marginal cost of the new plan may be one of them.
        prices = np.where(scaling.committed, whole.shadow_prices, value - tie * change)
        prices = np.clip(prices, 0.0, scaling.ceiling)
        implied = state.at_prices(prices, view.utilization(prices), whole.capacity)
        candidates.append(replace(implied, marginal_value=whole.marginal_value))
        accepted = _best(state, candidates) is not state
        if not accepted and self.fallbacks:
            shorter = [state.capacity + part * change for part in self.fallbacks]
            candidates += self._candidates(state, view, shorter)
        best = _best(state, candidates)
        return self._resized(best, state.step, accepted)

    def _proximal_weight(self, state: PlanState) -> Grid:
        """Return 1 / eta, from a bound of dlambda/dK by row sums; 0 in committed weeks, without marginal value."""
        committed = state.scaling.committed
        free = np.flatnonzero(~committed.ravel())
        slope = state.response.slope[np.ix_(free, free)]
        values, vectors = np.linalg.eigh(0.5 * (slope + slope.T))
        values = np.maximum(values, 0.05 * max(float(np.max(values, initial=0.0)), 1e-3))
        rows = np.ones(committed.size)
        rows[free] = np.abs((vectors / values) @ vectors.T).sum(axis=1)
        return np.where(committed, 0.0, state.scaling.weight() * rows.reshape(committed.shape) / state.step)

    def _candidates(self, state: PlanState, view: PlannerView, plans: list[Grid]) -> list[PlanState]:
        """Query the prices of some plans, and the use at these prices."""
        scaling = state.scaling
        prices = np.clip(view.shadow_prices(np.stack(plans)), 0.0, scaling.ceiling)
        for plan, price in zip(plans, prices, strict=True):
            penalty = state.shadow_prices + scaling.weight() * (state.utilization - plan)
            price[scaling.committed] = np.clip(penalty, 0.0, scaling.ceiling)[scaling.committed]
        uses = view.utilization(prices)
        states = (state.at_prices(*parts) for parts in zip(prices, uses, plans, strict=True))
        return [replace(candidate, marginal_value=candidate.shadow_prices) for candidate in states]


def _line_search(
    state: PlanState, view: PlannerView, prices: Grid, fallbacks: tuple[float, ...]
) -> tuple[PlanState, bool]:
    """Try a whole step, then shorter ones where it fails or longer ones where it gains little.

    Return the best state with an updated response model, and whether the whole step was accepted.
    """
    candidates = _along(state, view, prices, (1.0,))
    whole = candidates[0]
    accepted = _best(state, candidates) is whole
    if not accepted and fallbacks:
        candidates += _along(state, view, prices, fallbacks)
    elif accepted and SLOW * state.residuals.merit < whole.residuals.merit < state.residuals.merit:
        candidates += _along(state, view, prices, STRETCHES)
    best = _best(state, candidates)
    response, age = _updated_response(state, view, best, candidates)
    merit, level = best.residuals.merit, state.acceptance_level
    level = 0.5 * (level + merit) if np.isfinite(level) else merit
    return replace(best, response=response, age=age, acceptance_level=level), accepted


def _along(state: PlanState, view: PlannerView, prices: Grid, lengths: tuple[float, ...]) -> list[PlanState]:
    """Query the states at some step lengths towards new prices, in one batch."""
    change = prices - state.shadow_prices
    line = np.stack([np.clip(state.shadow_prices + part * change, 0.0, state.scaling.ceiling) for part in lengths])
    return [state.at_prices(*answer) for answer in zip(line, view.utilization(line), strict=True)]


def _updated_response(
    state: PlanState, view: PlannerView, best: PlanState, candidates: Sequence[PlanState]
) -> tuple[Response, int]:
    """Return the response with all observed secants, estimated anew where progress is slow, and its age."""
    response, age = state.response, state.age + 1
    for other in sorted(candidates, key=lambda candidate: -candidate.residuals.merit):
        price_change = other.shadow_prices - state.shadow_prices
        response = response.broyden_update(price_change, other.utilization - state.utilization)
    if best.residuals.merit <= SLOW * state.residuals.merit or age < RENEWED_AFTER:
        return response, age
    fresh = estimate_response(view, best.shadow_prices, best.utilization, state.scaling.capacity_scale)
    # Pulses see only near weeks, secants only the directions taken: average them.
    return replace(fresh, slope=0.5 * (fresh.slope + response.slope)), 0


def _best(state: PlanState, candidates: Sequence[PlanState]) -> PlanState:
    """Return the best candidate, or the old state where none is acceptable (merit may rise a little for once)."""
    best = min(candidates, key=lambda candidate: candidate.residuals.merit)
    merit = state.residuals.merit
    level = max(merit, min(state.acceptance_level, MAX_GROWTH * merit))
    return best if best.residuals.merit <= level else state
