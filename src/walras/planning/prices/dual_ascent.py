"""Solvers for the shadow prices at which a response fits a capacity: projected dual steps and Gauss-Newton."""

import abc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from walras.planning.protocols import Grid, Plans, SearchableView

Entries = Float[np.ndarray, "path entry"]
"""One row per problem; entries are week x resource, flattened."""

ResponseFunction = Callable[[Entries], Entries]
"""Utilization at shadow prices, one price path per problem."""

JacobianFunction = Callable[[Entries], Float[np.ndarray, "entry entry"]]
"""dU/dlambda [utilization entry, price entry], one for all problems: it only steers the search."""

SMALLEST_CAPACITY = 1e-9  # capacities below this are treated as this when ratios are formed [units of resource]
STEP_GROWTH, STEP_CUT = 1.1, 0.5  # factors of an entry's step while its direction holds, and when it reverses
MAX_DAMPING = 20.0  # a problem whose damping has grown to this no longer makes progress
ENOUGH_GAIN = 0.95  # a step that leaves more than this share of the residual gained too little; a shorter one is tried


@dataclass(frozen=True)
class DualProblem:
    """Independent complementarity problems 0 <= lambda _|_ K - U(lambda) >= 0 (docs/concepts/coordination.md).

    Attributes:
        response: U(lambda); problem p depends on row p of the prices only.
        jacobian: dU/dlambda, shared by the problems; None for solvers that need none.
        capacity: K [units of resource].
        price_scale, max_price: unit in which prices are compared, and the highest one; a week that needs more stays
            violated [money per unit of resource].
    """

    response: ResponseFunction
    jacobian: JacobianFunction | None
    capacity: Entries
    price_scale: float
    max_price: float

    def excess(self, use: Entries) -> Entries:
        """Return (U - K) / K; -1 where capacity is infinite, so that the price stays at zero there."""
        bounded = np.isfinite(self.capacity)
        limit = np.maximum(np.where(bounded, self.capacity, 1.0), SMALLEST_CAPACITY)
        return np.where(bounded, (use - limit) / limit, -1.0)

    def residual(self, prices: Entries, use: Entries) -> Entries:
        """Return min(lambda / scale, (K - U) / K); 0 where the price is at its maximum and capacity still short."""
        room = -self.excess(use)
        capped = (prices >= self.max_price) & (room < 0)
        return np.where(capped, 0.0, np.minimum(prices / self.price_scale, room))

    def room(self, use: Entries) -> Entries:
        """Return K - U, large where capacity is infinite [units of resource]."""
        return np.where(np.isfinite(self.capacity), self.capacity - use, 1e6 * np.maximum(use, 1.0))

    def score(self, prices: Entries, use: Entries) -> Float[np.ndarray, " path"]:
        """Return the mean absolute residual of every problem."""
        return np.abs(self.residual(prices, use)).mean(-1)


@dataclass(frozen=True)
class DualSolution:
    """Prices of every problem, the use at them, how well they fit and what they cost to find.

    Attributes:
        residual: mean absolute complementarity residual of every problem; `converged` if all are within the tolerance.
        queries: calls of the response; `jacobians` counts the Jacobians formed.
        trace: mean residual after every query.
    """

    prices: Entries
    utilization: Entries
    residual: Float[np.ndarray, " path"]
    converged: bool
    queries: int
    jacobians: int
    trace: tuple[float, ...] = field(default=())


class AbstractDualSolver(abc.ABC):
    """Find shadow prices for a capacity; all stop on the same complementarity residual, so that they compare."""

    @abc.abstractmethod
    def solve(self, problem: DualProblem, start: Entries) -> DualSolution:
        """Solve from the prices `start` and return the best prices met."""


def adapt_step(step: Any, change: Any, last_change: Any, smallest: float, largest: float) -> Any:
    """Return the next step of every entry, numpy or JAX: halved where the direction reversed, else a tenth longer."""
    xp: Any = jnp if isinstance(step, jax.Array) else np
    return xp.clip(xp.where(change * last_change < 0, STEP_CUT, STEP_GROWTH) * step, smallest, largest)


@dataclass(frozen=True)
class ProjectedDual(AbstractDualSolver):
    """Projected dual ascent (Uzawa): lambda <- [lambda + step (U - K) / K]+ with a step of its own for every entry.

    The first step is in price scales per relative violation of one, the tolerance a mean absolute residual.
    """

    step: float = 0.5
    tolerance: float = 2e-3
    max_queries: int = 400

    def solve(self, problem: DualProblem, start: Entries) -> DualSolution:
        """Step until the residual is small or the queries are used up."""
        prices, step, last = start.copy(), np.full(start.shape, self.step), np.zeros_like(start)
        best, best_use, best_score = start.copy(), np.zeros_like(start), np.full(len(start), np.inf)
        trace: list[float] = []
        for _ in range(self.max_queries):
            use = problem.response(prices)
            score = problem.score(prices, use)
            better = score < best_score
            best[better], best_use[better], best_score[better] = prices[better], use[better], score[better]
            trace.append(float(best_score.mean()))
            if (best_score <= self.tolerance).all():
                break
            excess = problem.excess(use)
            step, last = adapt_step(step, excess, last, 1e-3 * self.step, 4 * self.step), excess
            prices = np.clip(prices + step * problem.price_scale * excess, 0.0, problem.max_price)
        done = bool((best_score <= self.tolerance).all())
        return DualSolution(best, best_use, best_score, done, len(trace), 0, tuple(trace))


@dataclass(frozen=True)
class GaussNewton(AbstractDualSolver):
    """Newton steps on the linearised complementarity problem, with the simulator's Jacobian and a line search.

    Attributes:
        tolerance: mean absolute complementarity residual to stop at.
        max_iterations: most Newton steps; the Jacobian is renewed when a step gains little.
        damping: added to the diagonal at first, as a share of its mean.
        step_lengths: step lengths tried in turn until a problem's residual falls.
    """

    tolerance: float = 2e-3
    max_iterations: int = 30
    damping: float = 0.05
    step_lengths: tuple[float, ...] = (1.0, 0.4, 0.1)

    def solve(self, problem: DualProblem, start: Entries) -> DualSolution:
        """Solve the linearised problem, step along it as far as the residual falls, repeat."""
        assert problem.jacobian is not None  # Newton steps need one
        prices, use = start.copy(), problem.response(start)
        score = problem.score(prices, use)
        damping, slope = np.full(len(start), self.damping), None
        jacobians, trace = 0, [float(score.mean())]  # one entry per query
        for _ in range(self.max_iterations):
            if (score <= self.tolerance).all() or (damping >= MAX_DAMPING).all():
                break
            if slope is None:
                slope, jacobians = problem.jacobian(prices), jacobians + 1
            target = newton_target(slope, prices, problem.room(use), damping, problem.max_price)
            before, base, searching = score.copy(), prices.copy(), score > self.tolerance
            for length in self.step_lengths:  # the first that gains enough
                if not searching.any():
                    break
                candidate = np.where(searching[:, None], base + length * (target - base), prices)
                new_use = problem.response(candidate)
                new_score = problem.score(candidate, new_use)
                better = searching & (new_score < score)
                prices[better], use[better], score[better] = candidate[better], new_use[better], new_score[better]
                searching &= score > ENOUGH_GAIN * before
                trace.append(float(score.mean()))
            gained = score < ENOUGH_GAIN * before
            damping = np.where(gained, np.maximum(damping * 0.5, 0.02), np.minimum(damping * 4, MAX_DAMPING))
            slope = None if (score > 0.6 * before).mean() > 0.25 else slope
        done = bool((score <= self.tolerance).all())
        return DualSolution(prices, use, score, done, len(trace), jacobians, tuple(trace))


@dataclass(frozen=True)
class NewtonThenProjected(AbstractDualSolver):
    """Try Gauss-Newton first, and let projected dual steps finish what it leaves.

    Newton needs a tenth of the queries where the response is smooth (many agents, even demand) and stalls where few
    agents or jumps make the linearisation poor; projected steps make slow but steady progress there.
    """

    newton: GaussNewton = GaussNewton(max_iterations=8)
    projected: ProjectedDual = ProjectedDual(step=0.3)

    def solve(self, problem: DualProblem, start: Entries) -> DualSolution:
        """Return the first solver's answer where it converged, else the second's from there."""
        first = self.newton.solve(problem, start)
        if first.converged:
            return first
        second = self.projected.solve(problem, first.prices)
        queries, trace = first.queries + second.queries, first.trace + second.trace
        return replace(second, queries=queries, jacobians=first.jacobians, trace=trace)


ROUGH = 0.01  # residual at which prices are good enough to start another search from

ROUGH_SOLVER = NewtonThenProjected(GaussNewton(ROUGH, 8), ProjectedDual(0.3, ROUGH, 150))  # for prices to start from


def newton_target(
    slope: Float[np.ndarray, "entry entry"],
    prices: Entries,
    room: Entries,
    damping: Float[np.ndarray, " path"],
    max_price: float,
    sweeps: int = 60,
) -> Entries:
    """Solve the linearised problems: 0 <= x <= max_price, room - slope (x - prices) >= 0, complementary.

    Projected Gauss-Seidel on M = -slope, its diagonal raised by `damping` times the mean diagonal.
    """
    matrix = -slope
    diagonal = np.diag(matrix).copy()
    mean = max(float(np.abs(diagonal).mean()), 1e-12)
    damped = np.maximum(diagonal, 0.05 * mean)[None, :] + damping[:, None] * mean
    off = matrix - np.diag(diagonal)
    low, high = -prices, max_price - prices
    step = np.zeros_like(prices)
    for _ in range(sweeps):
        largest = 0.0
        for entry in range(prices.shape[-1]):
            wanted = -(room[:, entry] + step @ off[entry]) / damped[:, entry]
            new = np.clip(wanted, low[:, entry], high[:, entry])
            largest = max(largest, float(np.abs(new - step[:, entry]).max()))
            step[:, entry] = new
        if largest <= 1e-6 * max_price:
            break
    return prices + step


def solve_prices(view: SearchableView, capacity: Grid, start: Grid | None, solver: AbstractDualSolver) -> DualSolution:
    """Find the prices for one capacity, from `start` or 0; only controllable weeks are made to fit."""
    shape = capacity.shape
    problem = DualProblem(
        response=lambda prices: view.utilization(prices.reshape(-1, *shape)).reshape(len(prices), -1),
        jacobian=lambda prices: view.jacobian(prices[0].reshape(shape)),
        capacity=np.where(view.controllable, capacity, np.inf).reshape(1, -1),
        price_scale=view.price_scale,
        max_price=view.max_price,
    )
    first = np.zeros((1, capacity.size)) if start is None else np.asarray(start, float).reshape(1, -1)
    return solver.solve(problem, first)


def solve_prices_of_plans(view: SearchableView, capacity: Plans, solver: AbstractDualSolver) -> Plans:
    """Find the prices for every plan, one search each from price 0."""
    capacity = np.asarray(capacity, float)
    plans = capacity.reshape(-1, *capacity.shape[-2:])
    prices = [solve_prices(view, plan, None, solver).prices[0].reshape(plan.shape) for plan in plans]
    return np.stack(prices).reshape(capacity.shape)
