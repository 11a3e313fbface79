"""Own the revision rules Psi: how a plan is changed when its prices or its use do not fit (spec section 8, eq. 4).

OPEN: add a rule beside these by subclassing `AbstractRevisionRule`; tests/reference holds every rule to closed forms.

All rules look for the same point: `0 <= lambda _|_ K - U(lambda) >= 0` with lambda a marginal cost of K. Step sizes are
free of units (one median margin per typical use) and learn: what every query taught about dU/dlambda is kept, a step
that makes the plan much worse is shortened along its line, and one that still does is undone.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from walras.planning.costs import AbstractAcquisitionCost
from walras.planning.plan_state import PlanState, Response, Scaling, estimate_response
from walras.planning.protocols import PlannerView
from walras.planning.proximal import QuadraticTerms

Grid = Float[np.ndarray, "week resource"]

LEAST_STEP = 1e-6
"""Step below which a rule no longer moves anything that float64 and lumpy populations can tell apart."""

MOST_GROWTH = 1.5
"""Factor by which a revision may make the merit worse for once."""

SLOW = 0.7
"""Merit left by a revision above which the belief about the response is in doubt."""

STRETCHES = (2.0, 5.0)
"""Longer moves tried when a whole one helps little: the response is steep near a price and flat farther off."""

RENEWED_AFTER = 3
"""Revisions before the response is asked for again, which costs a batch of queries."""


class AbstractRevisionRule(ABC):
    """Revise a plan, once per call, by asking the view as little as possible."""

    def begin(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Prepare the first state; most rules take it as it is."""
        return state

    @abstractmethod
    def revise(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Return the next state; the same prices with a shorter step where nothing better was found."""


@dataclass(frozen=True)
class Consensus(AbstractRevisionRule):
    """Let cost and population agree on the capacity through prices (ADMM).

    `K+ = argmin A(K) + rho/2 |[F(lambda) + lambda/rho - K]^+|^2`, `lambda+ = [lambda + rho (F(lambda) - K+)]^+`. Where
    capacity has a nonnegative marginal cost this is the usual `A(K) - lambda.K + rho/2 |K - F(lambda)|^2`; where more
    capacity than is used saves ramps, the two-sided form would pull K down to U at price 0, the one-sided does not. The
    penalty rho is per week and resource: the inverse of the believed response, times the step.

    Attributes:
        first_step: relaxation at the start, 1 = trust the row-sum bound of the response.
        longest_step: over-relaxation allowed; 2 is where a linear response starts to oscillate.
        fallbacks: shorter steps tried together, in one batch, when the whole step is worse.
    """

    first_step: float = 1.0
    longest_step: float = 1.9
    fallbacks: tuple[float, ...] = (0.5, 0.2)

    def begin(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Set the first step."""
        return replace(state, step=self.first_step)

    def revise(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Fit capacity to use, then move prices by what is still short."""
        rho = state.step * state.frame.weight() / state.response.strength()
        prices, _ = _priced_cover(state.frame, cost, state.shadow_prices, state.utilization, rho)
        found, whole = _line_search(state, view, cost, prices, self.fallbacks)
        return replace(found, step=_resized(state.step, whole, 1.15, 0.5, self.longest_step))


@dataclass(frozen=True)
class AdaptiveSubgradient(AbstractRevisionRule):
    """Let cost and population agree as `Consensus` does, each week and resource at a pace of its own.

    An entry whose price turns back halves its step, the others lengthen theirs; no revision is refused and nothing is
    believed about the response. It creeps where a lumpy population stalls the other rules, one query per revision, and
    needs a loop that keeps the best plan met and has patience.

    Attributes:
        first_step: step at the start, in median margins per typical use short.
        longest_step: where a step stops growing.
        shortest_step: where it stops shrinking.
    """

    first_step: float = 0.15
    longest_step: float = 1.0
    shortest_step: float = 1e-3

    def revise(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Fit capacity to use, move every price by what is still short, and adapt the paces."""
        pace = np.full(state.shadow_prices.shape, self.first_step) if state.pace is None else state.pace
        prices, _ = _priced_cover(
            state.frame, cost, state.shadow_prices, state.utilization, pace * state.frame.weight()
        )
        move = prices - state.shadow_prices
        turned = np.zeros(move.shape, bool) if state.heading is None else move * state.heading < 0
        pace = np.clip(pace * np.where(turned, 0.5, 1.1), self.shortest_step, self.longest_step)
        found = state.moved(cost, prices, view.utilization(prices[None])[0])
        return replace(found, pace=pace, heading=move)


@dataclass(frozen=True)
class ProximalPoint(AbstractRevisionRule):
    """Solve the whole plan on a model of the response that is linear around the last answer, held near it.

    `K+ = argmin A(K) - V(K) + 1/(2 eta) |K - K_k|^2` in its dual form: `dV/dK = lambda` is inverted by the model
    `U(lambda) = U_k + dU/dlambda (lambda - lambda_k)`, so cross-week effects are undone together, and the inner
    iterations ask the view nothing. Prices are held near the last ones by the same eta (the proximal method of
    multipliers), which damps them where the model is wrong. With a right model and a long step this is Newton's method.

    Attributes:
        first_step: eta at the start, in typical use per median margin.
        longest_step: where eta stops growing.
        fallbacks: shorter steps tried together, in one batch, when the whole step is worse.
        inner_iterations: at most so many accelerated steps on the model.
        inner_tolerance: change of prices, in median margins, at which the model counts as solved.
    """

    first_step: float = 10.0
    longest_step: float = 1e4
    fallbacks: tuple[float, ...] = (0.5, 0.2)
    inner_iterations: int = 300
    inner_tolerance: float = 1e-8

    def begin(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Set the first step."""
        return replace(state, step=self.first_step)

    def revise(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Solve the model, ask the view, and renew the model where it misled."""
        found, whole = _line_search(state, view, cost, self._model_prices(state, cost), self.fallbacks)
        return replace(found, step=_resized(state.step, whole, 3.0, 0.25, self.longest_step))

    def _model_prices(self, state: PlanState, cost: AbstractAcquisitionCost) -> Grid:
        """Find the model's fixed point by accelerated steps that restart when they turn back."""
        model, frame = state.response.stiffened(1 / state.step), state.frame
        rho, tie = frame.weight() / model.strength(), frame.weight() / state.step
        prices = ahead = state.shadow_prices
        momentum = 1.0
        for _ in range(self.inner_iterations):
            use = state.utilization + model.change(ahead - state.shadow_prices)
            following, _ = _priced_cover(frame, cost, ahead, use, rho, (state.capacity, tie))
            turned = float(np.sum((ahead - following) / rho * (following - prices))) > 0
            faster = 1.0 if turned else 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
            moved = following - prices
            ahead = following + (0.0 if turned else (momentum - 1) / faster) * moved
            prices, momentum = following, faster
            if float(np.max(np.abs(moved), initial=0.0)) <= self.inner_tolerance * frame.price_scale:
                break
        return prices


@dataclass(frozen=True)
class MarginalCost(AbstractRevisionRule):
    """Move capacity by what its price exceeds its marginal cost, `K+ = K + eta (G(K) - A'(K+))`.

    The marginal cost is taken at the new plan, `K+ = argmin A(K) + |K - K_k - eta G(K_k)|^2 / (2 eta)`: the projected
    step of spec section 8, but exact at kinks, ramps and bounds, where A' is an interval and an explicit step would hop
    across. In weeks that no price changes, capacity covers what is committed.

    Attributes:
        first_step: relaxation at the start, 1 = trust the row-sum bound of the inverse response.
        longest_step: where the step stops growing.
        fallbacks: shorter steps tried together, in one batch, when the whole step is worse.
    """

    first_step: float = 1.0
    longest_step: float = 20.0
    fallbacks: tuple[float, ...] = (0.5, 0.2)

    def begin(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Ask the dual map about the first plan."""
        [first] = self._asked(state, view, cost, [state.capacity])
        return replace(first, step=self.first_step)

    def revise(self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost) -> PlanState:
        """Step towards the capacities that are worth more than they cost."""
        frame = state.frame
        # In committed weeks the two pulls change places: no value pulls at K, a floor stands under it.
        tie = np.where(frame.committed, 0.0, frame.weight() * _inverse_strength(state.response, frame) / state.step)
        worth = state.shadow_prices if state.worth is None else state.worth
        reach = np.divide(worth, tie, out=np.zeros_like(tie), where=tie > 0)
        rho = np.where(frame.committed, frame.weight(), 0.0)
        floor = state.utilization + state.shadow_prices / frame.weight()
        target = cost.minimum(QuadraticTerms(state.capacity + reach, tie, floor, rho))
        move = target - state.capacity
        tried = self._asked(state, view, cost, [target])
        # Where use is flat or lumpy G has many answers; the marginal cost of the new plan may be one of them.
        implied = np.clip(np.where(frame.committed, tried[0].shadow_prices, worth - tie * move), 0.0, frame.ceiling)
        fitting = state.moved(cost, implied, view.utilization(implied), target)
        tried.append(replace(fitting, worth=tried[0].worth))
        whole = _best(state, tried) is not state
        if not whole and self.fallbacks:
            tried += self._asked(state, view, cost, [state.capacity + part * move for part in self.fallbacks])
        found = _best(state, tried)
        return replace(found, step=_resized(state.step, whole, 1.3, 0.5, self.longest_step))

    def _asked(
        self, state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost, plans: list[Grid]
    ) -> list[PlanState]:
        """Ask for the prices of some plans, and what use they bring about."""
        frame = state.frame
        prices = np.clip(view.shadow_prices(np.stack(plans)), 0.0, frame.ceiling)
        for plan, price in zip(plans, prices, strict=True):
            short = state.shadow_prices + frame.weight() * (state.utilization - plan)
            price[frame.committed] = np.clip(short, 0.0, frame.ceiling)[frame.committed]
        uses = view.utilization(prices)
        moved = (state.moved(cost, *parts) for parts in zip(prices, uses, plans, strict=True))
        return [replace(other, worth=other.shadow_prices) for other in moved]


def _priced_cover(
    frame: Scaling,
    cost: AbstractAcquisitionCost,
    shadow_prices: Grid,
    utilization: Grid,
    rho: Grid,
    held: tuple[Grid, Grid] | None = None,
) -> tuple[Grid, Grid]:
    """Return the next prices and capacity of a consensus step, the plan held near another one where that is given."""
    floor = utilization + shadow_prices / rho
    near, tie = held if held is not None else (np.zeros_like(floor), np.zeros_like(floor))
    capacity = cost.minimum(QuadraticTerms(near, tie, floor, rho))
    return np.clip(rho * np.maximum(floor - capacity, 0.0), 0.0, frame.ceiling), capacity


def _line_search(
    state: PlanState, view: PlannerView, cost: AbstractAcquisitionCost, prices: Grid, fallbacks: tuple[float, ...]
) -> tuple[PlanState, bool]:
    """Ask about new prices, and about shorter or longer moves where they disappoint; say whether the move held."""
    move = prices - state.shadow_prices

    def along(parts: tuple[float, ...]) -> list[PlanState]:
        line = np.stack([np.clip(state.shadow_prices + part * move, 0.0, state.frame.ceiling) for part in parts])
        return [state.moved(cost, *answer) for answer in zip(line, view.utilization(line), strict=True)]

    [whole] = tried = along((1.0,))
    held = _best(state, tried) is whole
    if not held and fallbacks:
        tried += along(fallbacks)
    elif held and SLOW * state.residuals.merit < whole.residuals.merit < state.residuals.merit:
        tried += along(STRETCHES)
    found = _best(state, tried)
    taught = state.taught(sorted(tried, key=lambda other: -other.residuals.merit))
    slow = found.residuals.merit > SLOW * state.residuals.merit
    response, age = taught.response, state.age + 1
    if slow and age >= RENEWED_AFTER:
        fresh = estimate_response(view, found.shadow_prices, found.utilization, state.frame.capacity_scale)
        # Pulses see only near weeks, secants only the ways gone: their mean has something of both.
        response, age = replace(fresh, slope=0.5 * (fresh.slope + response.slope)), 0
    bar = found.residuals.merit if not np.isfinite(state.bar) else 0.5 * (state.bar + found.residuals.merit)
    return replace(found, response=response, age=age, bar=bar), held


def _best(state: PlanState, tried: list[PlanState]) -> PlanState:
    """Return the best of the tried states, or the old one where none passes the bar.

    The bar lies a little above the last merit: on a lumpy response the way down is not monotone.
    """
    best = min(tried, key=lambda other: other.residuals.merit)
    bar = max(state.residuals.merit, min(state.bar, MOST_GROWTH * state.residuals.merit))
    return best if best.residuals.merit <= bar else state


def _resized(step: float, whole: bool, longer: float, shorter: float, longest: float) -> float:
    """Lengthen a step that held, shorten one that did not."""
    return min(step * longer, longest) if whole else max(step * shorter, LEAST_STEP)


def _inverse_strength(response: Response, frame: Scaling) -> Grid:
    """Bound the slope of the dual map, dlambda/dK, by row sums of the inverse response; 1 where use is committed."""
    free = np.flatnonzero(~frame.committed.ravel())
    slope = response.slope[np.ix_(free, free)]
    values, vectors = np.linalg.eigh(0.5 * (slope + slope.T))
    values = np.maximum(values, 0.05 * max(float(np.max(values, initial=0.0)), 1e-3))
    inverse = np.abs((vectors / values) @ vectors.T)
    rows = np.ones(frame.committed.size)
    rows[free] = inverse.sum(axis=1)
    return rows.reshape(frame.committed.shape)
