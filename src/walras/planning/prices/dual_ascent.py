"""Own the solvers that find the shadow prices at which a response fits a capacity.

OPEN: add a solver as a class with `solve`; all stop on the same complementarity residual, so they can be compared.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float

from walras.planning.protocols import DifferentiableView

Response = Callable[[Float[np.ndarray, "path entry"]], Float[np.ndarray, "path entry"]]
"""Utilization at shadow prices, one price path per problem; entries are week x resource, flattened."""

Jacobian = Callable[[Float[np.ndarray, "path entry"]], Float[np.ndarray, "entry entry"]]
"""dU/dlambda [utilization entry, price entry], one for all problems: it only steers the search."""

SMALLEST_CAPACITY = 1e-9
"""Capacities below this are treated as this when ratios are formed [units of resource]."""


@dataclass(frozen=True)
class DualProblem:
    """State independent problems 0 <= lambda, K - U(lambda) >= 0, one of them zero in every entry (spec 1).

    Attributes:
        response: U(lambda); problem p depends on row p of the prices only.
        jacobian: dU/dlambda, shared by the problems.
        capacity: K [units of resource] [path, entry].
        price_scale: unit in which prices are compared [money per unit of resource].
        max_price: no price goes above this; a week that needs more is left violated [money per unit of resource].
    """

    response: Response
    jacobian: Jacobian
    capacity: Float[np.ndarray, "path entry"]
    price_scale: float
    max_price: float

    def excess(self, use: Float[np.ndarray, "path entry"]) -> Float[np.ndarray, "path entry"]:
        """Return (U - K) / K; -1 where capacity is infinite, which says that prices cannot help in that week."""
        bounded = np.isfinite(self.capacity)
        limit = np.maximum(np.where(bounded, self.capacity, 1.0), SMALLEST_CAPACITY)
        return np.where(bounded, (use - limit) / limit, -1.0)

    def residual(
        self, prices: Float[np.ndarray, "path entry"], use: Float[np.ndarray, "path entry"]
    ) -> Float[np.ndarray, "path entry"]:
        """Return min(lambda / scale, (K - U) / K); 0 where a capped price cannot do more."""
        room = -self.excess(use)
        capped = (prices >= self.max_price) & (room < 0)
        return np.where(capped, 0.0, np.minimum(prices / self.price_scale, room))

    def room(self, use: Float[np.ndarray, "path entry"]) -> Float[np.ndarray, "path entry"]:
        """Return K - U, large where capacity is infinite [units of resource]."""
        return np.where(np.isfinite(self.capacity), self.capacity - use, 1e6 * np.maximum(use, 1.0))

    def score(
        self, prices: Float[np.ndarray, "path entry"], use: Float[np.ndarray, "path entry"]
    ) -> Float[np.ndarray, " path"]:
        """Return the mean absolute residual of every problem."""
        return np.abs(self.residual(prices, use)).mean(-1)


@dataclass(frozen=True)
class DualSolution:
    """Hold the prices found and how.

    Attributes:
        prices: lambda; `utilization` is U at them.
        residual: mean absolute complementarity residual of every problem.
        converged: every residual fell below the tolerance.
        queries: calls of the response, `jacobians` Jacobians formed.
        trace: mean residual after every query.
    """

    prices: Float[np.ndarray, "path entry"]
    utilization: Float[np.ndarray, "path entry"]
    residual: Float[np.ndarray, " path"]
    converged: bool
    queries: int
    jacobians: int
    trace: tuple[float, ...] = field(default=())


class AbstractDualSolver(abc.ABC):
    """Find shadow prices for a capacity."""

    @abc.abstractmethod
    def solve(self, problem: DualProblem, start: Float[np.ndarray, "path entry"]) -> DualSolution:
        """Solve from `start` and return the best prices met."""


@dataclass(frozen=True)
class ProjectedDual(AbstractDualSolver):
    """Projected dual steps with full simulation (Uzawa): lambda <- [lambda + step (U - K)]+, step scaled per entry.

    Attributes:
        step: price step in price scales per relative violation of one.
        tolerance: mean absolute complementarity residual to stop at.
        max_queries: most queries.
    """

    step: float = 0.5
    tolerance: float = 2e-3
    max_queries: int = 400

    def solve(self, problem: DualProblem, start: Float[np.ndarray, "path entry"]) -> DualSolution:
        """Step until the residual is small; an entry's step halves when its excess changes sign and grows otherwise."""
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
            step = np.clip(np.where(excess * last < 0, 0.5 * step, 1.1 * step), 1e-3 * self.step, 4 * self.step)
            last = excess
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

    def solve(self, problem: DualProblem, start: Float[np.ndarray, "path entry"]) -> DualSolution:
        """Solve the linearised problem, step along it as far as the residual falls, repeat."""
        prices, use = start.copy(), problem.response(start)
        score = problem.score(prices, use)
        damping, slope = np.full(len(start), self.damping), None
        queries, jacobians, trace = 1, 0, [float(score.mean())]
        for _ in range(self.max_iterations):
            if (score <= self.tolerance).all() or (damping >= MOST_DAMPING).all():
                break
            if slope is None:
                slope, jacobians = problem.jacobian(prices), jacobians + 1
            target = newton_target(slope, prices, problem.room(use), damping, problem.max_price)
            before, base = score.copy(), prices.copy()
            open_ = score > self.tolerance
            for length in self.step_lengths:
                if not open_.any():
                    break
                tried = np.where(open_[:, None], base + length * (target - base), prices)
                tried_use = problem.response(tried)
                queries += 1
                tried_score = problem.score(tried, tried_use)
                better = open_ & (tried_score < score)
                prices[better], use[better], score[better] = tried[better], tried_use[better], tried_score[better]
                open_ &= score > ENOUGH_GAIN * before
                trace.append(float(score.mean()))
            gained = score < ENOUGH_GAIN * before
            damping = np.where(gained, np.maximum(damping * 0.5, 0.02), np.minimum(damping * 4, MOST_DAMPING))
            slope = None if (score > 0.6 * before).mean() > 0.25 else slope
        done = bool((score <= self.tolerance).all())
        return DualSolution(prices, use, score, done, queries, jacobians, tuple(trace))


MOST_DAMPING = 20.0
"""A problem whose damping has grown to this makes no progress any more."""

ENOUGH_GAIN = 0.95
"""A step that leaves more than this share of the residual has gained too little; a shorter one is tried."""


@dataclass(frozen=True)
class NewtonThenProjected(AbstractDualSolver):
    """Try Gauss-Newton first, and let projected dual steps finish what it leaves.

    Newton needs a tenth of the queries where the response is smooth (many agents, even demand) and stalls where few
    agents or jumps make the linearisation poor; projected steps always creep on.

    Attributes:
        newton: the first solver, given few iterations.
        projected: the second.
    """

    newton: GaussNewton = GaussNewton(max_iterations=8)
    projected: ProjectedDual = ProjectedDual(step=0.3)

    def solve(self, problem: DualProblem, start: Float[np.ndarray, "path entry"]) -> DualSolution:
        """Return the first solver's answer where it converged, else the second's from there."""
        first = self.newton.solve(problem, start)
        if first.converged:
            return first
        second = self.projected.solve(problem, first.prices)
        return replace(
            second,
            queries=first.queries + second.queries,
            jacobians=first.jacobians,
            trace=first.trace + second.trace,
        )


def newton_target(
    slope: Float[np.ndarray, "entry entry"],
    prices: Float[np.ndarray, "path entry"],
    room: Float[np.ndarray, "path entry"],
    damping: Float[np.ndarray, " path"],
    max_price: float,
    sweeps: int = 60,
) -> Float[np.ndarray, "path entry"]:
    """Solve the linearised problems: 0 <= x <= max_price, room - slope (x - prices) >= 0, complementary.

    Projected Gauss-Seidel on M = -slope, its diagonal strengthened by `damping` times the mean diagonal.
    """
    matrix = -slope
    diagonal = np.diag(matrix).copy()
    mean = max(float(np.abs(diagonal).mean()), 1e-12)
    strong = np.maximum(diagonal, 0.05 * mean)[None, :] + damping[:, None] * mean
    off = matrix - np.diag(diagonal)
    low, high = -prices, max_price - prices
    step = np.zeros_like(prices)
    for _ in range(sweeps):
        moved = 0.0
        for entry in range(prices.shape[-1]):
            wanted = -(room[:, entry] + step @ off[entry]) / strong[:, entry]
            new = np.clip(wanted, low[:, entry], high[:, entry])
            moved = max(moved, float(np.abs(new - step[:, entry]).max()))
            step[:, entry] = new
        if moved <= 1e-6 * max_price:
            break
    return prices + step


class SearchableView(DifferentiableView, Protocol):
    """Know besides utilization and its slope where prices make a difference, and how high they may be.

    Attributes:
        controllable: weeks in which orders still to be placed make a difference [week, resource].
        max_price: the price beyond which nobody would order [money per unit of resource].
    """

    @property
    def controllable(self) -> Bool[np.ndarray, "week resource"]:
        """Mark the weeks in which orders still to be placed make a difference."""
        ...

    @property
    def max_price(self) -> float:
        """Give the price beyond which nobody would order [money per unit of resource]."""
        ...


def search_prices(
    view: SearchableView,
    capacity: Float[np.ndarray, "week resource"],
    start: Float[np.ndarray, "week resource"] | None,
    solver: AbstractDualSolver,
) -> DualSolution:
    """Find the prices for one capacity, and say how well and with how much work.

    Args:
        view: the population; only weeks that it can change are made to fit.
        capacity: K [units of resource].
        start: first prices tried; 0 where None.
        solver: how.
    """
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
