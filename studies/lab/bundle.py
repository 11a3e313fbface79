"""Level bundle method: shadow prices where use jumps with the prices, as for exact, bang-bang best responders.

`walras.planning.prices.dual_ascent` looks for prices at which use itself fits the capacity, which needs use that
changes gradually, as it does with uncertain demand. Agents that maximise exactly what they earn minus what they pay use
all or nothing of a week: Gauss-Newton sees no slope, and only a mix of responses fits. For maximisers the dual function
`D(lambda) = reward - lambda.(U - K)` is convex and piecewise linear, its minimum is the best attainable reward, and
`LevelBundle` bounds the distance to it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.optimize import linprog, nnls

from walras.errors import InputError, SettingsError
from walras.planning.prices.dual_ascent import SMALLEST_CAPACITY
from walras.planning.prices.simulated_view import SimulatedView

ValuedResponse = Callable[[Float[np.ndarray, " entry"]], tuple[float, Float[np.ndarray, " entry"]]]
"""Reward without payments for resources [money], and utilization, at a price path; entries are week x resource."""

ROUNDING = 1e-4
"""Share of the reward by which single-precision sums may break the convexity of the dual function."""


@dataclass(frozen=True)
class ValuedProblem:
    """min over 0 <= lambda <= max_price of D(lambda) = reward - lambda.(U - K).

    Attributes:
        response: what the population earns and uses; must maximise reward - lambda.U.
        capacity: K; an infinite one has no price [units of resource].
        max_price: no price goes above this [money per unit of resource].
    """

    response: ValuedResponse
    capacity: Float[np.ndarray, " entry"]
    max_price: float

    @staticmethod
    def from_view(view: SimulatedView, capacity: Float[np.ndarray, "week resource"]) -> "ValuedProblem":
        """Use a simulated population; weeks that open orders overfill at any price get no price."""

        def response(prices: Float[np.ndarray, " entry"]) -> tuple[float, Float[np.ndarray, " entry"]]:
            use, reward = view.valued(prices.reshape(capacity.shape))
            return float(reward), use.ravel()

        reachable = np.where(view.committed > capacity, np.inf, capacity).ravel()
        return ValuedProblem(response, reachable, view.max_price)


@dataclass(frozen=True)
class MixedSolution:
    """Prices, and the mix of responses that fits the capacity at them.

    Attributes:
        prices: lambda with the lowest dual value met [money per unit of resource].
        dual_value: D(lambda), no plan within the capacity earns more [money].
        primal_value: reward of the mix [money]; `utilization` is its use.
        shares: share of every query's response in the mix; they sum to 1.
        gap: dual value minus its lower bound, over the size of the dual value. The bound is the reward of the mix, less
            the highest price for every unit that the mix uses beyond the capacity.
        violation: largest (U - K)^+ / K of the mix; it stays where no mix fits at any price below the ceiling.
        converged: the gap fell below the tolerance.
        queries: calls of the response.
        trace: gap after every query.
    """

    prices: Float[np.ndarray, " entry"]
    dual_value: float
    primal_value: float
    utilization: Float[np.ndarray, " entry"]
    shares: Float[np.ndarray, " query"]
    gap: float
    violation: float
    converged: bool
    queries: int
    trace: tuple[float, ...] = field(default=())


@dataclass(frozen=True)
class LevelBundle:
    """Level bundle method (Lemarechal, Nemirovskii, Nesterov 1995): each response cuts off prices from below.

    Every query gives a plane under D. The planes' minimum (a linear program) bounds the best reward from below and its
    multipliers mix the responses seen into one that fits; the next prices are the nearest to the best so far at which
    the planes allow a value `level` of the way up from that bound, so that prices do not jump between far corners.
    100 and 1,000 products over 26 weeks took 50 to 90 queries at levels from .5 to .95, 176 at .2.

    Attributes:
        tolerance: gap to stop at, relative to the dual value.
        max_queries: most queries.
        level: where between the bound (0) and the best value (1) the next prices aim.
    """

    tolerance: float = 1e-4
    max_queries: int = 400
    level: float = 0.8

    def __post_init__(self) -> None:
        """Check the settings."""
        if not (self.tolerance > 0 and 0 < self.level < 1 and self.max_queries >= 1):
            raise SettingsError(
                f"tolerance {self.tolerance}, level {self.level} and max_queries {self.max_queries} cannot work "
                "together; give a tolerance above 0, a level between 0 and 1 and at least 1 query"
            )

    def solve(self, problem: ValuedProblem, start: Float[np.ndarray, " entry"]) -> MixedSolution:
        """Add cuts until the best value is close to the bound, and return the mix that proves it."""
        bundle = _Bundle(problem)
        prices, trace = np.minimum(start, bundle.ceiling), []
        while True:
            bundle.add_cut(prices)
            lowest, shares = bundle.bound()
            gap = (bundle.best - lowest) / max(abs(bundle.best), SMALLEST_CAPACITY)
            trace.append(gap)
            if gap <= self.tolerance or len(trace) >= self.max_queries:
                return bundle.result(shares, gap <= self.tolerance, tuple(trace))
            prices = bundle.project(lowest + self.level * (bundle.best - lowest))


class _Bundle:
    """Planes under D and the best prices met."""

    def __init__(self, problem: ValuedProblem) -> None:
        bounded = np.isfinite(problem.capacity)
        self.problem = problem
        self.capacity = np.where(bounded, problem.capacity, 0.0)
        self.ceiling = np.where(bounded, problem.max_price, 0.0)
        self.rewards: list[float] = []
        self.uses: list[np.ndarray] = []
        self.best, self.best_prices = np.inf, np.zeros_like(self.capacity)
        self.lowest_prices = self.best_prices

    @property
    def slopes(self) -> Float[np.ndarray, "query entry"]:
        """dD/dlambda = K - U of every plane, 0 where there is no price."""
        return np.where(self.ceiling > 0, self.capacity - np.array(self.uses), 0.0)

    def add_cut(self, prices: Float[np.ndarray, " entry"]) -> None:
        """Query the response and add its plane, which must be consistent with all planes before it."""
        reward, use = self.problem.response(prices)
        slope = np.where(self.ceiling > 0, self.capacity - use, 0.0)
        value = reward + float(prices @ slope)
        if self.rewards:
            scale = max(abs(reward), abs(self.best))
            self._require_convex(value, float(np.max(np.array(self.rewards) + self.slopes @ prices)), scale)
            self._require_convex(self.best, reward + float(self.best_prices @ slope), scale)
        self.rewards.append(reward)
        self.uses.append(use)
        if value < self.best:
            self.best, self.best_prices = value, prices

    def _require_convex(self, earned: float, possible: float, scale: float) -> None:
        """Refuse a population that could have earned more with a response that it gave at other prices."""
        if earned < possible - ROUNDING * scale:
            raise InputError(
                f"the population's net value is {earned:.6g} where its response to other prices is worth "
                f"{possible:.6g}, found at query {len(self.rewards)}, but a bundle needs agents that maximise exactly "
                "what they earn minus what they pay; use GaussNewton or ProjectedDual"
            )

    def bound(self) -> tuple[float, Float[np.ndarray, " query"]]:
        """Return the minimum of the planes, and the shares of the responses that attain it."""
        slopes = self.slopes
        scale = np.maximum(np.abs(slopes).max(axis=0), SMALLEST_CAPACITY)
        rows = np.hstack([slopes / scale, -np.ones((len(slopes), 1))])
        cost = np.append(np.zeros(slopes.shape[1]), 1.0)
        limits = [*zip(np.zeros_like(scale), self.ceiling * scale, strict=True), (None, None)]
        found = linprog(cost, A_ub=rows, b_ub=-np.array(self.rewards), bounds=limits, method="highs")
        if not found.success:
            raise RuntimeError(f"the bundle's linear program failed: {found.message}")
        self.lowest_prices = found.x[:-1] / scale
        shares = np.maximum(-found.ineqlin.marginals, 0.0)
        return float(found.fun), shares / shares.sum()

    def project(self, level: float) -> Float[np.ndarray, " entry"]:
        """Return the prices nearest to the best at which no plane is above the level (Lawson and Hanson's LDP)."""
        top = float(self.ceiling.max(initial=0.0))
        slopes = self.slopes * top
        size = np.linalg.norm(slopes, axis=1) + SMALLEST_CAPACITY
        here = self.best_prices / max(top, SMALLEST_CAPACITY)
        eye = np.eye(len(here))
        rows = np.vstack([-slopes / size[:, None], eye, -eye])
        needs = (np.array(self.rewards) + slopes @ here - level) / size
        least = np.concatenate([needs, -here, here - (self.ceiling > 0)])
        target = np.zeros(len(here) + 1)
        target[-1] = 1.0
        system = np.vstack([rows.T, least[None, :]])
        weights, _ = nnls(system, target)
        left = system @ weights - target
        if left[-1] > -1e-14:  # numerically empty: between the best prices and the planes' minimum it never is
            return 0.5 * (self.best_prices + self.lowest_prices)
        return np.clip((here - left[:-1] / left[-1]) * top, 0.0, self.ceiling)

    def result(self, shares: Float[np.ndarray, " query"], converged: bool, trace: tuple[float, ...]) -> MixedSolution:
        """Mix the responses, and measure how well the mix fits."""
        use = shares @ np.array(self.uses)
        priced = self.ceiling > 0
        over = np.where(priced, use - self.capacity, 0.0) / np.maximum(self.capacity, SMALLEST_CAPACITY)
        return MixedSolution(
            prices=self.best_prices,
            dual_value=float(self.best),
            primal_value=float(shares @ np.array(self.rewards)),
            utilization=use,
            shares=shares,
            gap=trace[-1],
            violation=float(max(over.max(initial=0.0), 0.0)),
            converged=converged,
            queries=len(trace),
            trace=trace,
        )
