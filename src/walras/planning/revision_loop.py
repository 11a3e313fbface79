"""The planning loop: start, revise, compare, stop, and say why (spec section 8, eq. 4)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from walras.errors import InputError, NotFiniteError, SettingsError, shape_mismatch
from walras.planning.costs import AbstractAcquisitionCost
from walras.planning.plan_state import (
    PlanScaling,
    PlanState,
    Residuals,
    Response,
    cheapest_capacity,
    estimate_response,
    plan_residuals,
)
from walras.planning.protocols import DifferentiableView, Grid, PlannerView, Plans, ValuedView
from walras.planning.result import PlanRecord
from walras.planning.revision_rules import LEAST_STEP, AbstractRevisionRule, Consensus, ProximalPoint
from walras.progress import Progress

LEAST_RESPONSE = 1e-4
"""Share of typical use that a test pulse must move for a week to count as responding to prices."""

SATURATED = 0.01
"""Where halving a price at its ceiling frees less than this share of use, a higher price would not help either."""

PROGRESS = 0.99
"""Residual left by a revision, relative to the best so far, that still counts as progress."""

WEEKS_NAMED = 6
"""Weeks named in a sentence before the rest is counted."""


@dataclass(frozen=True)
class StopRule:
    """When a plan is good enough, and when to give up.

    Attributes:
        max_iterations: revisions at most.
        feasibility: shortage accepted, relative to capacity.
        complementarity: `|min(lambda / price_scale, (K - U) / K)|` accepted.
        price_gap: distance of lambda from the marginal costs accepted, in price scales per typical use.
        patience: revisions without progress before the loop counts as stalled.
        max_price: highest price tried [money/unit]; None takes the view's, or ten price scales.
    """

    max_iterations: int = 100
    feasibility: float = 0.01
    complementarity: float = 0.01
    price_gap: float = 0.01
    patience: int = 12
    max_price: float | None = None

    def __post_init__(self) -> None:
        """Check that every limit can be met."""
        for name in ("feasibility", "complementarity", "price_gap", "max_price"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingsError(f"`{name}` is {value} but must be above 0; give a positive number")
        for name in ("max_iterations", "patience"):
            if getattr(self, name) < 1:
                raise SettingsError(f"`{name}` is {getattr(self, name)} but must be 1 or more; give a whole number")

    def score(self, residuals: Residuals) -> float:
        """Return the worst residual in units of its tolerance: at 1 and below the plan is good enough."""
        return max(
            getattr(residuals, name) / getattr(self, name) for name in ("feasibility", "complementarity", "price_gap")
        )


@dataclass
class _CountingView:
    """Forward queries to a view, count the candidate plans and check that answers are finite."""

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

    def utilization(self, shadow_prices: Plans) -> Plans:
        """Return the view's utilization, checked."""
        self.queries += int(np.prod(shadow_prices.shape[:-2], dtype=int))
        return self._checked("utilization", self.view.utilization(shadow_prices), shadow_prices)

    def shadow_prices(self, capacity: Plans) -> Plans:
        """Return the view's shadow prices, checked."""
        return self._checked("shadow prices", self.view.shadow_prices(capacity), capacity)

    def _checked(self, name: str, answer: np.ndarray, query: np.ndarray) -> np.ndarray:
        answer = np.array(answer, dtype=np.float64)
        if answer.shape != query.shape:
            raise shape_mismatch(name, answer.shape, query.shape, "the view must answer in the shape of the query")
        bad = ~np.isfinite(answer)
        if bad.any():
            *_, week, resource = np.argwhere(bad)[0]
            raise NotFiniteError(
                f"the view's {name} is {answer[bad][0]} in week {week} for {self.resources[resource]}; "
                "a plan needs finite numbers: check the inputs of that week"
            )
        return answer


class _CountingJacobianView(_CountingView):
    """Forward the Jacobian too, where the view has one."""

    view: DifferentiableView

    def jacobian(self, shadow_prices: Grid) -> Float[np.ndarray, "entry entry"]:
        """Return the view's dU/dlambda, with 0 where it is not a number: it only steers."""
        return np.nan_to_num(np.asarray(self.view.jacobian(shadow_prices), dtype=np.float64))


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
        acquisition_cost: what capacity costs, its bounds and its frozen weeks.
        rule: how the plan is revised; by default `ProximalPoint()` where the view has a Jacobian, else `Consensus()`.
        start: first shadow prices [money/unit; week, resource], for instance the last plan's; default 0.
        stop: when to stop; default `StopRule()`.
        progress: notified of revisions made and allowed.

    Raises:
        InputError, ShapeError: the cost, the start and the view do not fit together.
        NotFiniteError: the view's answer is not finite.
    """
    stop, differentiable = stop or StopRule(), isinstance(view, DifferentiableView)
    rule = rule or (ProximalPoint() if differentiable else Consensus())
    counting = (_CountingJacobianView if differentiable else _CountingView)(view)
    state = rule.begin(_first_state(counting, acquisition_cost, start, stop), counting, acquisition_cost)
    trace = _Trace(state, acquisition_cost, counting, stop, progress or Progress())
    reason = trace.append(state)
    while reason is None:
        state = rule.revise(state, counting, acquisition_cost)
        reason = trace.append(state)
    return _record(trace, reason)


@dataclass
class _Trace:
    """Record the iterates, keep the best one, and decide when to stop."""

    best: PlanState
    cost: AbstractAcquisitionCost
    view: _CountingView
    stop: StopRule
    progress: Progress
    without_progress: int = 0
    least_score: float = np.inf
    least_merit: float = np.inf
    entries: list[Mapping[str, float]] = field(default_factory=list)

    def append(self, state: PlanState) -> str | None:
        """Record a state; return why to stop, or None to go on."""
        self.progress.step(len(self.entries), self.stop.max_iterations)
        self.entries.append(self._entry(state))
        score, merit = self.stop.score(state.residuals), state.residuals.merit
        # One bad week can hide that all others improve, so the mean counts as well, if it improves by 1 %.
        improved = score < PROGRESS * self.least_score or merit < PROGRESS * self.least_merit
        self.without_progress = 0 if improved else self.without_progress + 1
        self.least_merit = min(self.least_merit, merit)
        if score < self.least_score:
            self.best, self.least_score = state, score
        if score <= 1:
            return "converged"
        if self.without_progress >= self.stop.patience or state.step <= LEAST_STEP:
            return "stalled"
        return "iteration limit" if len(self.entries) > self.stop.max_iterations else None

    def _entry(self, state: PlanState) -> Mapping[str, float]:
        capped = state.scaling.capped(state.capacity, state.shadow_prices, state.utilization)
        return {
            "iteration": float(len(self.entries)),
            "queries": float(self.view.queries),
            **vars(state.residuals),
            "step": state.step,
            "weeks_at_ceiling": float(np.sum(capped)),
            "acquisition_cost": self.cost.total(state.capacity),
        }

    def closed(self) -> tuple[Mapping[str, float], ...]:
        """Return all entries; the last has the returned plan's total cost where the view knows the reward."""
        view, state = self.view.view, self.best
        if not isinstance(view, ValuedView):
            return tuple(self.entries)
        total = self.cost.total(state.capacity) - float(view.value(state.shadow_prices))
        return (*self.entries[:-1], {**self.entries[-1], "total_cost": total})


def _first_state(view: _CountingView, cost: AbstractAcquisitionCost, start: Grid | None, stop: StopRule) -> PlanState:
    """Query the first prices, estimate the response, and find the weeks that no price changes."""
    shape = (view.n_weeks, len(view.resources))
    if cost.lower.shape != shape:
        raise shape_mismatch("acquisition_cost", cost.lower.shape, f"{shape} [week, resource]", "cut it to the horizon")
    prices = np.zeros(shape) if start is None else np.array(start, dtype=np.float64)
    if prices.shape != shape:
        raise shape_mismatch("start", prices.shape, f"{shape} [week, resource]", "cut it to the horizon")
    if not (np.isfinite(prices) & (prices >= 0)).all():
        raise InputError("`start` holds a price that is negative or not finite; give finite prices of 0 or more")
    use = view.utilization(prices)
    typical = np.maximum(use.mean(axis=0), 1e-3 * float(np.max(np.abs(use), initial=0.0)))
    scale = np.broadcast_to(np.where(typical > 0, typical, 1.0), shape).copy()
    response = estimate_response(view, prices, use, scale)
    highest = stop.max_price
    if highest is None:
        highest = float(getattr(view.view, "max_price", 10 * view.price_scale))
    committed = _committed(view, response, prices, use, highest)
    # Where prices change nothing they are the cost of capacity, and no higher than the highest rate.
    top_rate = np.maximum(cost.top_rate(), 0.0)
    ceiling = np.where(committed, top_rate, np.maximum(highest, top_rate))
    scaling = PlanScaling(view.price_scale, scale, ceiling, committed)
    prices = np.minimum(prices, ceiling)
    capacity = cheapest_capacity(scaling, cost, prices, use)
    return PlanState(scaling, capacity, prices, use, plan_residuals(scaling, cost, capacity, prices, use), response)


def _committed(
    view: _CountingView, response: Response, prices: Grid, use: Grid, highest: float
) -> Bool[np.ndarray, "week resource"]:
    """Mark the weeks in which use does not respond to any price, as the view says or by trying."""
    controllable = getattr(view.view, "controllable", None)
    if controllable is not None:
        return ~np.asarray(controllable, dtype=bool)
    largest = np.max(np.abs(response.slope), axis=1).reshape(response.capacity_scale.shape)
    still = largest < LEAST_RESPONSE
    if still.any():  # a lumpy population may not respond to a pulse: try the highest price
        loud = view.utilization(np.where(still, np.maximum(prices, highest), prices))
        still &= np.abs(loud - use) < LEAST_RESPONSE * response.capacity_scale
    return still


def _record(trace: _Trace, reason: str) -> PlanRecord:
    """Return the best state, and say how the loop ended."""
    state, stop = trace.best, trace.stop
    over = state.scaling.capped(state.capacity, state.shadow_prices, state.utilization)
    over &= -state.scaling.room(state.capacity, state.utilization) > stop.feasibility
    hopeless = over & (state.scaling.committed | _saturated(trace.view, state, over))
    too_cheap = over & ~hopeless
    return PlanRecord(
        capacity=state.capacity,
        shadow_prices=state.shadow_prices,
        utilization=state.utilization,
        feasible=bool(state.residuals.feasibility <= stop.feasibility and not too_cheap.any()),
        converged=reason == "converged",
        stop_reason=_sentence(trace, reason, too_cheap, hopeless),
        iterations=len(trace.entries) - 1,
        queries=trace.view.queries,
        trace=trace.closed(),
    )


def _saturated(view: _CountingView, state: PlanState, over: np.ndarray) -> Bool[np.ndarray, "week resource"]:
    """Mark weeks whose price is at its ceiling and would free as much use at half of it."""
    if not (over & ~state.scaling.committed).any():
        return np.zeros_like(over)
    halved = view.utilization(np.where(over, 0.5 * state.shadow_prices, state.shadow_prices))
    return halved - state.utilization < SATURATED * state.utilization


def _sentence(trace: _Trace, reason: str, too_cheap: np.ndarray, hopeless: np.ndarray) -> str:
    """Say why the loop stopped, naming the weeks that do not fit."""
    revisions, residuals = len(trace.entries) - 1, trace.best.residuals
    worst = (
        f"largest shortage {residuals.feasibility:.2%} of capacity, largest gap between price and marginal cost "
        f"{residuals.price_gap:.3g} median margins"
    )
    parts = [
        {
            "converged": f"converged after {revisions} revisions",
            "stalled": f"stalled: no progress in the last of {revisions} revisions, best plan returned ({worst})",
            "iteration limit": f"iteration limit: {revisions} revisions made, best plan returned ({worst})",
        }[reason]
    ]
    if hopeless.any():
        parts.append(f"not feasible whatever the price in {_name_weeks(hopeless, trace)}")
    if too_cheap.any():
        parts.append(f"not feasible up to the highest price tried in {_name_weeks(too_cheap, trace)}")
    return "; ".join(parts)


def _name_weeks(where: np.ndarray, trace: _Trace) -> str:
    """Name weeks, with their use and their largest possible capacity."""
    resources, names = trace.view.resources, []
    for week, resource in np.argwhere(where)[:WEEKS_NAMED]:
        use, most = trace.best.utilization[week, resource], trace.cost.upper[week, resource]
        name = f" {resources[resource]}" if len(resources) > 1 else ""
        names.append(f"week {week}{name} ({use:.4g} of {most:.4g})")
    rest = int(where.sum()) - len(names)
    return ", ".join(names) + (f" and {rest} more" if rest else "")
