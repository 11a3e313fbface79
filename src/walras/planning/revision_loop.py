"""The planning loop: start, revise, compare, stop, and say why (docs/concepts/coordination.md)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from walras.errors import InputError, NotFiniteError, SettingsError, shape_mismatch
from walras.planning.costs import AbstractAcquisitionCost
from walras.planning.protocols import DifferentiableView, Grid, PlannerView, Plans, ValuedView
from walras.planning.result import PlanRecord
from walras.planning.revision_rules import (
    LEAST_STEP,
    AbstractRevisionRule,
    Consensus,
    PlanScaling,
    PlanState,
    ProximalPoint,
    Residuals,
    Response,
    estimate_response,
)
from walras.progress import Progress

LEAST_RESPONSE = 1e-4  # share of typical use that a test pulse must move for a week to count as responding to prices
SATURATED = 0.01  # where halving a price at its ceiling frees less than this share of use, a higher one would not help
PROGRESS = 0.99  # residual left by a revision, relative to the best so far, that still counts as progress
WEEKS_NAMED = 6  # weeks named in a sentence before the rest is counted


@dataclass(frozen=True)
class StopRule:
    """When a plan is good enough, and when to give up.

    Attributes:
        max_iterations: revisions.
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
        limits = ("feasibility", "complementarity", "price_gap")
        return max(getattr(residuals, name) / getattr(self, name) for name in limits)


@dataclass
class _CountingView:
    """Forward queries to a view, count the candidate plans and check that answers are finite."""

    view: PlannerView
    queries: int = 0
    jacobian: Callable[[Grid], Grid] = field(init=False, repr=False)  # only where the view has one

    def __post_init__(self) -> None:
        self.n_weeks, self.resources = self.view.n_weeks, tuple(self.view.resources)
        self.price_scale = float(self.view.price_scale)
        if not (np.isfinite(self.price_scale) and self.price_scale > 0):
            wrong = f"the view's `price_scale` is {self.price_scale} but must be a positive amount of money"
            raise InputError(f"{wrong}; check that the products' sale prices exceed their unit costs")
        view = self.view
        if isinstance(view, DifferentiableView):  # 0 where it is not a number: it only steers
            self.jacobian = lambda prices: np.nan_to_num(np.asarray(view.jacobian(prices), dtype=np.float64))

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
            wrong = f"the view's {name} is {answer[bad][0]} in week {week} for {self.resources[resource]}"
            raise NotFiniteError(f"{wrong}; a plan needs finite numbers: check the inputs of that week")
        return answer


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
        view, acquisition_cost: the population; what capacity costs, its bounds and its frozen weeks.
        rule: how the plan is revised; by default `ProximalPoint()` where the view has a Jacobian, else `Consensus()`.
        start: first shadow prices [money/unit], for instance the last plan's; default 0.
        stop, progress: when to stop; notified of revisions made and allowed.

    Raises:
        InputError, ShapeError: the cost, the start and the view do not fit together.
        NotFiniteError: the view's answer is not finite.
    """
    stop, counting = stop or StopRule(), _CountingView(view)
    rule = rule or (ProximalPoint() if isinstance(view, DifferentiableView) else Consensus())
    state = rule.begin(_first_state(counting, acquisition_cost, start, stop), counting)
    trace = _Trace(state, counting, stop, progress or Progress())
    reason = trace.append(state)
    while reason is None:
        state = rule.revise(state, counting)
        reason = trace.append(state)
    return _record(trace, reason)


@dataclass
class _Trace:
    """Record the iterates, keep the best one, and decide when to stop."""

    best: PlanState
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
        entry = {"iteration": float(len(self.entries)), "queries": float(self.view.queries), **vars(state.residuals)}
        at_ceiling = state.scaling.capped(state.capacity, state.shadow_prices, state.utilization).sum()
        limits = {"step": state.step, "weeks_at_ceiling": float(at_ceiling)}
        self.entries.append({**entry, **limits, "acquisition_cost": state.scaling.cost.total(state.capacity)})
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


def _first_state(view: _CountingView, cost: AbstractAcquisitionCost, start: Grid | None, stop: StopRule) -> PlanState:
    """Query the first prices, estimate the response, and find the weeks that no price changes."""
    shape = (view.n_weeks, len(view.resources))
    prices = np.zeros(shape) if start is None else np.array(start, dtype=np.float64)
    for name, array in (("acquisition_cost", cost.lower), ("start", prices)):
        if array.shape != shape:
            raise shape_mismatch(name, array.shape, f"{shape} [week, resource]", "cut it to the horizon")
    if not (np.isfinite(prices) & (prices >= 0)).all():
        raise InputError("`start` holds a price that is negative or not finite; give finite prices of 0 or more")
    use = view.utilization(prices)
    typical = np.maximum(use.mean(axis=0), 1e-3 * float(np.max(np.abs(use), initial=0.0)))
    scale = np.broadcast_to(np.where(typical > 0, typical, 1.0), shape).copy()
    response = estimate_response(view, prices, use, scale)
    given = stop.max_price
    highest = float(getattr(view.view, "max_price", 10 * view.price_scale)) if given is None else given
    committed = _committed(view, response, prices, use, highest)
    # Where prices change nothing they are the cost of capacity, and no higher than the highest rate.
    top_rate = np.maximum(cost.top_rate(), 0.0)
    ceiling = np.where(committed, top_rate, np.maximum(highest, top_rate))
    scaling = PlanScaling(cost, view.price_scale, scale, ceiling, committed)
    prices = np.minimum(prices, ceiling)
    plan = scaling.cheapest_capacity(prices, use), prices, use
    return PlanState(scaling, *plan, scaling.residuals(*plan), response)


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
    hopeless = over & state.scaling.committed
    if (over & ~hopeless).any():  # a price at its ceiling that would free as much use at half of it is hopeless too
        halved = trace.view.utilization(np.where(over, 0.5 * state.shadow_prices, state.shadow_prices))
        hopeless |= over & (halved - state.utilization < SATURATED * state.utilization)
    too_cheap, entries = over & ~hopeless, trace.entries
    if isinstance(trace.view.view, ValuedView):
        reward = float(trace.view.view.value(state.shadow_prices))
        entries[-1] = {**entries[-1], "total_cost": state.scaling.cost.total(state.capacity) - reward}
    feasible = bool(state.residuals.feasibility <= stop.feasibility and not too_cheap.any())
    plan = state.capacity, state.shadow_prices, state.utilization
    sentence = _sentence(trace, reason, too_cheap, hopeless)
    counts = len(entries) - 1, trace.view.queries
    return PlanRecord(*plan, feasible, reason == "converged", sentence, *counts, tuple(entries))


def _sentence(trace: _Trace, reason: str, too_cheap: np.ndarray, hopeless: np.ndarray) -> str:
    """Say why the loop stopped, naming the weeks that do not fit."""
    revisions, residuals = len(trace.entries) - 1, trace.best.residuals
    gap = f"largest gap between price and marginal cost {residuals.price_gap:.3g} median margins"
    worst = f"largest shortage {residuals.feasibility:.2%} of capacity, {gap}"
    endings = {
        "converged": f"converged after {revisions} revisions",
        "stalled": f"stalled: no progress in the last of {revisions} revisions, best plan returned ({worst})",
        "iteration limit": f"iteration limit: {revisions} revisions made, best plan returned ({worst})",
    }
    parts = [endings[reason]]
    if hopeless.any():
        parts.append(f"not feasible whatever the price in {_name_weeks(hopeless, trace)}")
    if too_cheap.any():
        parts.append(f"not feasible up to the highest price tried in {_name_weeks(too_cheap, trace)}")
    return "; ".join(parts)


def _name_weeks(where: np.ndarray, trace: _Trace) -> str:
    """Name weeks, with their use and their largest possible capacity."""
    resources, names = trace.view.resources, []
    for week, resource in np.argwhere(where)[:WEEKS_NAMED]:
        use, most = trace.best.utilization[week, resource], trace.best.scaling.cost.upper[week, resource]
        name = f" {resources[resource]}" if len(resources) > 1 else ""
        names.append(f"week {week}{name} ({use:.4g} of {most:.4g})")
    rest = int(where.sum()) - len(names)
    return ", ".join(names) + (f" and {rest} more" if rest else "")
