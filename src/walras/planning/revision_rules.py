"""Revision rules Psi: how a plan is changed where its prices or its use do not fit (spec section 8, eq. 4).

All look for the same point: `0 <= lambda _|_ K - U(lambda) >= 0` with lambda a marginal cost of K. Step sizes have no
units (1 = one price scale per typical use) and adapt: a step that makes the plan much worse is shortened along its
line, and undone if that does not help. Add a rule by subclassing `AbstractRevisionRule`; tests/reference holds every
rule to closed forms.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from walras.planning.costs import AbstractAcquisitionCost
from walras.planning.plan_state import PlanScaling, PlanState, Response, estimate_response
from walras.planning.prices.dual_ascent import adapt_step
from walras.planning.protocols import Grid, PlannerView
from walras.planning.proximal import QuadraticTerms

LEAST_STEP = 1e-6
"""Step below which nothing changes any more that float64 and lumpy populations can tell apart."""

MAX_GROWTH = 1.5
"""Factor by which one revision may make the merit worse."""

SLOW = 0.7
"""Share of the merit left by a revision above which the response model is in doubt."""

STRETCHES = (2.0, 5.0)
"""Longer steps tried when a whole one gains little: the response is steep near a price and flat farther off."""

RENEWED_AFTER = 3
"""Revisions before the response is estimated again, which costs a batch of queries."""


class AbstractRevisionRule(ABC):
    """Revise a plan, once per call, with few queries of the view."""

    first_step: float

    def begin(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Prepare the first state: set the first step."""
        return replace(state, step=self.first_step)

    @abstractmethod
    def revise(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Return the next state; the same prices with a shorter step where nothing better was found."""


@dataclass(frozen=True)
class _SteppedRule(AbstractRevisionRule):
    """A rule with one step for all entries, lengthened where a whole step is accepted and shortened where it is not.

    Attributes:
        first_step, longest_step: the step at the start, and where it stops growing.
        fallbacks: shorter steps tried together, in one batch, when the whole step is worse.
        growth, cut: factors of the step.
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

    def revise(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Fit capacity to use, then move prices by the remaining shortage."""
        rho = state.step * state.scaling.weight() / state.response.row_sum_bound()
        prices = _consensus_prices(state.scaling, cost, state.shadow_prices, state.utilization, rho)
        best, accepted = _line_search(state, view, cost, prices, self.fallbacks)
        return self._resized(best, state.step, accepted)


@dataclass(frozen=True)
class AdaptiveSubgradient(AbstractRevisionRule):
    """Consensus with a step of its own for every week and resource, which adapts to the sign of its changes.

    No revision is refused and no response model is used. Slow, but it makes progress where a lumpy population stalls
    the other rules, with one query per revision; it needs a loop that keeps the best plan and has patience.

    Attributes:
        first_step: step at the start, in price scales per typical use short.
        longest_step, shortest_step: bounds of a step.
    """

    first_step: float = 0.15
    longest_step: float = 1.0
    shortest_step: float = 1e-3

    def begin(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Give every entry the first step."""
        shape = state.shadow_prices.shape
        return replace(state, step_per_entry=np.full(shape, self.first_step), last_step=np.zeros(shape))

    def revise(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Fit capacity to use, move every price by the remaining shortage, and adapt the steps."""
        rho = state.step_per_entry * state.scaling.weight()
        prices = _consensus_prices(state.scaling, cost, state.shadow_prices, state.utilization, rho)
        change = prices - state.shadow_prices
        steps = adapt_step(state.step_per_entry, change, state.last_step, self.shortest_step, self.longest_step)
        following = state.at_prices(cost, prices, view.utilization(prices[None])[0])
        return replace(following, step_per_entry=steps, last_step=change)


@dataclass(frozen=True)
class ProximalPoint(_SteppedRule):
    """Solve the whole plan on the linear response model, with a proximal term that keeps it near the last plan.

    `K+ = argmin A(K) - V(K) + 1/(2 eta) |K - K_k|^2` in its dual form: `dV/dK = lambda` is inverted by the model
    `U(lambda) = U_k + dU/dlambda (lambda - lambda_k)`, so cross-week effects are solved for together, and the inner
    iterations need no query. Prices are held near the last ones by the same eta (proximal method of multipliers),
    which damps them where the model is wrong. With a right model and a long step this is Newton's method.

    The step is eta, in typical use per price scale.

    Attributes:
        inner_iterations: most accelerated gradient steps on the model.
        inner_tolerance: change of prices, in price scales, at which the model counts as solved.
    """

    first_step: float = 10.0
    longest_step: float = 1e4
    growth: float = 3.0
    cut: float = 0.25
    inner_iterations: int = 300
    inner_tolerance: float = 1e-8

    def revise(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Solve the model, query the view there, and update the model."""
        best, accepted = _line_search(state, view, cost, self._model_prices(state, cost), self.fallbacks)
        return self._resized(best, state.step, accepted)

    def _model_prices(self, state: PlanState, cost: AbstractAcquisitionCost) -> Grid:
        """Find the model's fixed point by Nesterov steps with adaptive restart (O'Donoghue & Candes 2015)."""
        model, scaling = state.response.regularised(1 / state.step), state.scaling
        rho, tie = scaling.weight() / model.row_sum_bound(), scaling.weight() / state.step
        prices = ahead = state.shadow_prices
        momentum = 1.0
        for _ in range(self.inner_iterations):
            use = state.utilization + model.predicted_change(ahead - state.shadow_prices)
            following = _consensus_prices(scaling, cost, ahead, use, rho, near=state.capacity, tie=tie)
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
    step of spec section 8, but exact at kinks, ramps and bounds, where A' is an interval and an explicit step would
    jump across. A step of 1 trusts the row-sum bound of the inverse response.
    """

    longest_step: float = 20.0
    growth: float = 1.3

    def begin(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Ask for the prices of the first plan."""
        [first] = self._candidates(state, view, cost, [state.capacity])
        return replace(first, step=self.first_step)

    def revise(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Step towards the capacities that are worth more than they cost."""
        value = state.shadow_prices if state.marginal_value is None else state.marginal_value
        tie = self._proximal_weight(state)
        target = self._target(state, cost, value, tie)
        change = target - state.capacity
        candidates = self._candidates(state, view, cost, [target])
        # Where use is flat or lumpy G has many answers; the marginal cost of the new plan may be one of them.
        candidates.append(self._at_implied_prices(candidates[0], state, view, cost, value - tie * change))
        accepted = _best(state, candidates) is not state
        if not accepted and self.fallbacks:
            shorter = [state.capacity + part * change for part in self.fallbacks]
            candidates += self._candidates(state, view, cost, shorter)
        best = _best(state, candidates)
        return self._resized(best, state.step, accepted)

    def _proximal_weight(self, state: PlanState) -> Grid:
        """Return 1 / eta, 0 in committed weeks, where capacity has no marginal value."""
        scaling = state.scaling
        weight = scaling.weight() * _inverse_row_sums(state.response, scaling) / state.step
        return np.where(scaling.committed, 0.0, weight)

    def _target(self, state: PlanState, cost: AbstractAcquisitionCost, value: Grid, tie: Grid) -> Grid:
        """Return the new capacity; in committed weeks a penalty on shortage replaces the proximal term."""
        scaling = state.scaling
        ahead = np.divide(value, tie, out=np.zeros_like(tie), where=tie > 0)
        floor = state.utilization + state.shadow_prices / scaling.weight()
        floor_weight = np.where(scaling.committed, scaling.weight(), 0.0)
        return cost.minimise(QuadraticTerms(state.capacity + ahead, tie, floor, floor_weight))

    def _at_implied_prices(
        self, whole: PlanState, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost, implied: Grid
    ) -> PlanState:
        """Return the whole step's capacity with its marginal costs as prices."""
        scaling = state.scaling
        prices = np.clip(np.where(scaling.committed, whole.shadow_prices, implied), 0.0, scaling.ceiling)
        candidate = state.at_prices(cost, prices, view.utilization(prices), whole.capacity)
        return replace(candidate, marginal_value=whole.marginal_value)

    def _candidates(
        self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost, plans: list[Grid]
    ) -> list[PlanState]:
        """Query the prices of some plans, and the use at these prices."""
        scaling = state.scaling
        prices = np.clip(view.shadow_prices(np.stack(plans)), 0.0, scaling.ceiling)
        for plan, price in zip(plans, prices, strict=True):
            penalty = state.shadow_prices + scaling.weight() * (state.utilization - plan)
            price[scaling.committed] = np.clip(penalty, 0.0, scaling.ceiling)[scaling.committed]
        uses = view.utilization(prices)
        states = (state.at_prices(cost, *parts) for parts in zip(prices, uses, plans, strict=True))
        return [replace(candidate, marginal_value=candidate.shadow_prices) for candidate in states]


def _consensus_prices(
    scaling: PlanScaling,
    cost: AbstractAcquisitionCost,
    shadow_prices: Grid,
    utilization: Grid,
    rho: Grid,
    near: Grid | None = None,
    tie: Grid | None = None,
) -> Grid:
    """Return the prices after a consensus step, optionally with a proximal term of weight `tie` around `near`."""
    floor = utilization + shadow_prices / rho
    zero = np.zeros_like(floor)
    terms = QuadraticTerms(zero if near is None else near, zero if tie is None else tie, floor, rho)
    return np.clip(rho * np.maximum(floor - cost.minimise(terms), 0.0), 0.0, scaling.ceiling)


def _line_search(
    state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost, prices: Grid, fallbacks: tuple[float, ...]
) -> tuple[PlanState, bool]:
    """Try a whole step, then shorter ones where it fails or longer ones where it gains little.

    Returns:
        The best state with an updated response model, and whether the whole step was accepted.
    """
    candidates = _along(state, view, cost, prices, (1.0,))
    whole = candidates[0]
    accepted = _best(state, candidates) is whole
    if not accepted and fallbacks:
        candidates += _along(state, view, cost, prices, fallbacks)
    elif accepted and SLOW * state.residuals.merit < whole.residuals.merit < state.residuals.merit:
        candidates += _along(state, view, cost, prices, STRETCHES)
    best = _best(state, candidates)
    response, age = _updated_response(state, view, best, candidates)
    merit, level = best.residuals.merit, state.acceptance_level
    level = 0.5 * (level + merit) if np.isfinite(level) else merit
    return replace(best, response=response, age=age, acceptance_level=level), accepted


def _along(
    state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost, prices: Grid, lengths: tuple[float, ...]
) -> list[PlanState]:
    """Query the states at some step lengths towards new prices, in one batch."""
    change = prices - state.shadow_prices
    line = np.stack([np.clip(state.shadow_prices + part * change, 0.0, state.scaling.ceiling) for part in lengths])
    return [state.at_prices(cost, *answer) for answer in zip(line, view.utilization(line), strict=True)]


def _updated_response(
    state: PlanState, view: PlannerView, best: PlanState, candidates: Sequence[PlanState]
) -> tuple[Response, int]:
    """Return the response with all observed secants, estimated anew where progress is slow, and its age."""
    response = state.with_secants(sorted(candidates, key=lambda candidate: -candidate.residuals.merit)).response
    age = state.age + 1
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


def _inverse_row_sums(response: Response, scaling: PlanScaling) -> Grid:
    """Bound the slope of the dual map, dlambda/dK, by row sums of the inverse response; 1 where use is committed."""
    free = np.flatnonzero(~scaling.committed.ravel())
    slope = response.slope[np.ix_(free, free)]
    values, vectors = np.linalg.eigh(0.5 * (slope + slope.T))
    values = np.maximum(values, 0.05 * max(float(np.max(values, initial=0.0)), 1e-3))
    inverse = np.abs((vectors / values) @ vectors.T)
    rows = np.ones(scaling.committed.size)
    rows[free] = inverse.sum(axis=1)
    return rows.reshape(scaling.committed.shape)
