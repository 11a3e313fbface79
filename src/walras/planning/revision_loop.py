"""Own the planning loop: start, revise, compare, stop, and say why (spec section 8, eq. 4).

CONTRACT: `run_revision_loop` is the planner's public function; everything is asked through `maps.interface.PlannerView`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from walras.errors import InputError, NotFiniteError, SettingsError, shape_mismatch
from walras.planning.costs import AbstractAcquisitionCost
from walras.planning.plan_state import (
    PlanState,
    Residuals,
    Response,
    Scaling,
    cheapest_capacity,
    estimate_response,
    plan_residuals,
)
from walras.planning.protocols import DifferentiableView, PlannerView, ValuedView
from walras.planning.result import PlanRecord
from walras.planning.revision_rules import LEAST_STEP, AbstractRevisionRule, Consensus, ProximalPoint
from walras.progress import Progress

Grid = Float[np.ndarray, "week resource"]

LEAST_RESPONSE = 1e-4
"""Share of typical use that a test pulse must move for a week to count as responding to prices."""

SATURATED = 0.01
"""Halving a price at its ceiling frees less than this share of use: more price would not help either."""

PROGRESS = 0.99
"""Residual left by a revision, relative to the best so far, that still counts as progress."""

WEEKS_NAMED = 6
"""Weeks named in a sentence before the rest is counted."""


@dataclass(frozen=True)
class StopRule:
    """Say when a plan is good enough, and when to give up.

    Attributes:
        max_iterations: revisions at most.
        feasibility: shortage accepted, relative to capacity.
        complementarity: `|min(lambda / price_scale, (K - U) / K)|` accepted.
        price_gap: distance of lambda from the marginal costs accepted, in median margins per typical use.
        patience: revisions without progress before the loop counts as stalled.
        max_price: highest price tried [money/unit]; None takes the view's, or ten median margins.
    """

    max_iterations: int = 100
    feasibility: float = 0.01
    complementarity: float = 0.01
    price_gap: float = 0.01
    patience: int = 12
    max_price: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that could never be met."""
        for name in ("feasibility", "complementarity", "price_gap", "max_price"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingsError(f"`{name}` is {value} but must be above 0; give a positive number")
        for name in ("max_iterations", "patience"):
            if getattr(self, name) < 1:
                raise SettingsError(f"`{name}` is {getattr(self, name)} but must be 1 or more; give a whole number")

    def score(self, residuals: Residuals) -> float:
        """Return the worst residual in units of its tolerance: at 1 and below the plan is good enough."""
        parts = (
            residuals.feasibility / self.feasibility,
            residuals.complementarity / self.complementarity,
            residuals.price_gap / self.price_gap,
        )
        return max(parts)


@dataclass
class _CountingView:
    """Pass questions on to a view, count the candidate plans and refuse answers that are no numbers."""

    view: PlannerView
    n_weeks: int = field(init=False)
    resources: tuple[str, ...] = field(init=False)
    price_scale: float = field(init=False)
    queries: int = 0

    def __post_init__(self) -> None:
        self.n_weeks, self.resources = self.view.n_weeks, tuple(self.view.resources)
        self.price_scale = float(self.view.price_scale)
        if not (np.isfinite(self.price_scale) and self.price_scale > 0):
            raise InputError(
                f"the view's `price_scale` is {self.price_scale} but must be a positive amount of money; "
                "check that the products' sale prices exceed their unit costs"
            )

    def utilization(
        self, shadow_prices: Float[np.ndarray, "*plans week resource"]
    ) -> Float[np.ndarray, "*plans week resource"]:
        """Return the view's utilization, checked."""
        self.queries += int(np.prod(shadow_prices.shape[:-2], dtype=int))
        return self._checked("utilization", self.view.utilization(shadow_prices), shadow_prices)

    def shadow_prices(
        self, capacity: Float[np.ndarray, "*plans week resource"]
    ) -> Float[np.ndarray, "*plans week resource"]:
        """Return the view's shadow prices, checked."""
        return self._checked("shadow prices", self.view.shadow_prices(capacity), capacity)

    def _checked(self, name: str, answer: np.ndarray, question: np.ndarray) -> np.ndarray:
        answer = np.array(answer, dtype=np.float64)
        if answer.shape != question.shape:
            raise shape_mismatch(name, answer.shape, question.shape, "the view must answer in the shape it was asked")
        bad = ~np.isfinite(answer)
        if bad.any():
            *_, week, resource = np.argwhere(bad)[0]
            raise NotFiniteError(
                f"the view's {name} is {answer[bad][0]} in week {week} for {self.resources[resource]}; "
                "a plan needs finite numbers: check the inputs of that week"
            )
        return answer


class _CountingJacobianView(_CountingView):
    """Pass on the Jacobian too, where the view has one."""

    def jacobian(self, shadow_prices: Grid) -> Float[np.ndarray, "entry entry"]:
        """Return the view's dU/dlambda, with 0 where it is no number: it only steers."""
        return np.nan_to_num(np.asarray(self.view.jacobian(shadow_prices), dtype=np.float64))  # type: ignore[attr-defined]


def run_revision_loop(
    view: PlannerView,
    acquisition_cost: AbstractAcquisitionCost,
    *,
    rule: AbstractRevisionRule | None = None,
    start: Grid | None = None,
    stop: StopRule | None = None,
    progress: Progress | None = None,
) -> PlanRecord:
    """Find `min_K A(K) - V(K; P)`: the capacity, the prices that make the population fit it, and its use.

    Args:
        view: the population, as the planner sees it.
        acquisition_cost: what capacity costs, its bounds and its frozen zone.
        rule: how the plan is revised; unless given `ProximalPoint()` where the view has a Jacobian, else
            `Consensus()`, which needs to know less.
        start: first shadow prices [money/unit; week, resource], for instance the last plan's; 0 unless given.
        stop: when to stop; `StopRule()` unless given.
        progress: told how many of the revisions allowed are made.

    Raises:
        InputError, ShapeError: the cost, the start and the view do not fit together.
        NotFiniteError: the view answered with something that is no number.
    """
    stop, known = stop or StopRule(), isinstance(view, DifferentiableView)
    rule = rule or (ProximalPoint() if known else Consensus())
    asked = (_CountingJacobianView if known else _CountingView)(view)
    state = rule.begin(_first_state(asked, acquisition_cost, start, stop), asked, acquisition_cost)
    log = _Trace(view, acquisition_cost, asked, stop, progress or Progress())
    reason = log.entered(state)
    while reason is None:
        state = rule.revise(state, asked, acquisition_cost)
        reason = log.entered(state)
    return _record(log, reason)


@dataclass
class _Trace:
    """Keep the trace and the best state, and decide when it is enough."""

    view: PlannerView
    cost: AbstractAcquisitionCost
    asked: _CountingView
    stop: StopRule
    progress: Progress
    best: PlanState | None = None
    since_better: int = 0
    least_merit: float = np.inf
    trace: list[Mapping[str, float]] = field(default_factory=list)

    def entered(self, state: PlanState) -> str | None:
        """Note a state; return why to stop, or None to go on."""
        self.progress.step(len(self.trace), self.stop.max_iterations)
        self.trace.append(self._entry(state))
        score = self.stop.score(state.residuals)
        record = np.inf if self.best is None else self.stop.score(self.best.residuals)
        # One bad week can hide that all others improve, so the mean counts as well; creeping does not.
        better = score < PROGRESS * record or state.residuals.merit < PROGRESS * self.least_merit
        self.since_better = 0 if better else self.since_better + 1
        self.least_merit = min(self.least_merit, state.residuals.merit)
        if score < record:
            self.best = state
        if score <= 1:
            return "converged"
        if self.since_better >= self.stop.patience or state.step <= LEAST_STEP:
            return "stalled"
        return "iteration limit" if len(self.trace) > self.stop.max_iterations else None

    def _entry(self, state: PlanState) -> Mapping[str, float]:
        frame, residuals = state.frame, state.residuals
        over = frame.capped(state.capacity, state.shadow_prices, state.utilization)
        entry = {
            "iteration": float(len(self.trace)),
            "queries": float(self.asked.queries),
            "feasibility": residuals.feasibility,
            "complementarity": residuals.complementarity,
            "price_gap": residuals.price_gap,
            "merit": residuals.merit,
            "step": state.step,
            "weeks_at_ceiling": float(np.sum(over)),
            "acquisition_cost": self.cost.total(state.capacity),
        }
        return entry

    def closed(self, state: PlanState) -> tuple[Mapping[str, float], ...]:
        """Return the trace; its last entry has the returned plan's total cost where the view says what is earned."""
        if not isinstance(self.view, ValuedView):
            return tuple(self.trace)
        total = self.cost.total(state.capacity) - float(self.view.value(state.shadow_prices))
        return (*self.trace[:-1], {**self.trace[-1], "total_cost": total})


def _first_state(asked: _CountingView, cost: AbstractAcquisitionCost, start: Grid | None, stop: StopRule) -> PlanState:
    """Ask once at the first prices, learn the response, and find out what no price changes."""
    shape = (asked.n_weeks, len(asked.resources))
    if cost.lower.shape != shape:
        raise shape_mismatch("acquisition_cost", cost.lower.shape, f"{shape} [week, resource]", "cut it to the horizon")
    prices = np.zeros(shape) if start is None else np.array(start, dtype=np.float64)
    if prices.shape != shape:
        raise shape_mismatch("start", prices.shape, f"{shape} [week, resource]", "cut it to the horizon")
    if not (np.isfinite(prices) & (prices >= 0)).all():
        raise InputError("`start` holds a price that is negative or no number; give finite prices of 0 or more")
    use = asked.utilization(prices)
    typical = np.maximum(use.mean(axis=0), 1e-3 * float(np.max(np.abs(use), initial=0.0)))
    scale = np.broadcast_to(np.where(typical > 0, typical, 1.0), shape).copy()
    response = estimate_response(asked, prices, use, scale)
    committed = _committed(asked, response, prices, use, stop)
    ceiling = _ceiling(asked.view, cost, committed, stop)
    frame = Scaling(asked.price_scale, scale, ceiling, committed)
    prices = np.minimum(prices, ceiling)
    capacity = cheapest_capacity(frame, cost, prices, use)
    return PlanState(frame, capacity, prices, use, plan_residuals(frame, cost, capacity, prices, use), response)


def _committed(
    asked: _CountingView, response: Response, prices: Grid, use: Grid, stop: StopRule
) -> Bool[np.ndarray, "week resource"]:
    """Say in which weeks use does not answer to any price, from the view where it knows."""
    known: Any = getattr(asked.view, "controllable", None)
    if known is not None:
        return ~np.asarray(known, dtype=bool)
    answers = np.max(np.abs(response.slope), axis=1).reshape(response.capacity_scale.shape)
    still = answers < LEAST_RESPONSE
    if still.any():  # a lumpy population may sleep through a pulse: wake it with the highest price
        loud = asked.utilization(np.where(still, np.maximum(prices, _highest(asked.view, stop)), prices))
        still &= np.abs(loud - use) < LEAST_RESPONSE * response.capacity_scale
    return still


def _highest(view: PlannerView, stop: StopRule) -> float:
    """Return the highest price worth trying, as set, as the view knows, or ten median margins."""
    return stop.max_price if stop.max_price is not None else float(getattr(view, "max_price", 10 * view.price_scale))


def _ceiling(view: PlannerView, cost: AbstractAcquisitionCost, committed: np.ndarray, stop: StopRule) -> Grid:
    """Return the highest prices tried: no higher than capacity costs where they would change nothing."""
    dearest = np.maximum(cost.top_rate(), 0.0)
    return np.where(committed, dearest, np.maximum(_highest(view, stop), dearest))


def _record(log: _Trace, reason: str) -> PlanRecord:
    """Collect the best state and put into words how it ended."""
    state, stop = log.best, log.stop
    if state is None:  # entered() always keeps the first state
        raise RuntimeError("the planning loop ended before its first state")
    frame = state.frame
    over = frame.capped(state.capacity, state.shadow_prices, state.utilization)
    over &= -frame.room(state.capacity, state.utilization) > stop.feasibility
    hopeless = over & (frame.committed | _saturated(log.asked, state, over))
    sentence = _sentence(log, reason, over & ~hopeless, hopeless)
    return PlanRecord(
        capacity=state.capacity,
        shadow_prices=state.shadow_prices,
        utilization=state.utilization,
        feasible=bool(state.residuals.feasibility <= stop.feasibility and not (over & ~hopeless).any()),
        converged=reason == "converged",
        stop_reason=sentence,
        iterations=len(log.trace) - 1,
        queries=log.asked.queries,
        trace=log.closed(state),
    )


def _saturated(asked: _CountingView, state: PlanState, over: np.ndarray) -> Bool[np.ndarray, "week resource"]:
    """Ask whether half the price would do as much in the weeks whose price is at its ceiling."""
    if not (over & ~state.frame.committed).any():
        return np.zeros_like(over)
    halved = asked.utilization(np.where(over, 0.5 * state.shadow_prices, state.shadow_prices))
    return halved - state.utilization < SATURATED * state.utilization


def _sentence(log: _Trace, reason: str, too_cheap: np.ndarray, hopeless: np.ndarray) -> str:
    """Say why the loop stopped, naming the weeks that do not fit."""
    rounds = len(log.trace) - 1
    residuals = log.best.residuals if log.best is not None else None
    worst = (
        ""
        if residuals is None
        else (
            f"largest shortage {residuals.feasibility:.2%} of capacity, largest gap between price and marginal cost "
            f"{residuals.price_gap:.3g} median margins"
        )
    )
    words = {
        "converged": f"converged after {rounds} revisions",
        "stalled": f"stalled: no progress in the last of {rounds} revisions, the best plan is returned ({worst})",
        "iteration limit": f"iteration limit: {rounds} revisions made, the best plan is returned ({worst})",
    }
    parts = [words[reason]]
    if hopeless.any():
        parts.append(f"not feasible whatever the price in {_weeks(hopeless, log)}")
    if too_cheap.any():
        parts.append(f"not feasible up to the highest price tried in {_weeks(too_cheap, log)}")
    return "; ".join(parts)


def _weeks(where: np.ndarray, log: _Trace) -> str:
    """Name weeks with how much they use of how much at most."""
    state = log.best
    named = []
    for week, resource in np.argwhere(where)[:WEEKS_NAMED]:
        most = f"of {log.cost.upper[week, resource]:.4g}"
        use = "" if state is None else f"{state.utilization[week, resource]:.4g} {most}"
        name = f" {log.asked.resources[resource]}" if len(log.asked.resources) > 1 else ""
        named.append(f"week {week}{name} ({use})")
    rest = int(where.sum()) - len(named)
    return ", ".join(named) + (f" and {rest} more" if rest else "")
