"""Model-predictive control by simulation: re-issue shadow prices weekly so that expected use fits a fixed plan."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.exogenous.paths import ExogenousPaths
from walras.planning.prices.dual_ascent import AbstractDualSolver, DualProblem, GaussNewton
from walras.planning.prices.simulated_view import simulate_prices
from walras.policies.base import Policy
from walras.population.cohort import ProportionalSample, demand_size
from walras.population.population import Population
from walras.progress import Progress
from walras.simulation.controller import Controller, ControlObservation, Prices
from walras.simulation.gradients import utilization_jacobian
from walras.simulation.run import week_of, window_length
from walras.simulation.state import State

SLOPE_AGENTS = 2000
"""Agents simulated for the weekly Jacobian, which only steers the search."""


class MPCController(Controller):
    """Re-issue prices each week so that expected utilization of the coming weeks fits the plan, path by path.

    Each week it simulates everybody from the state as it is along the expected future (a path the controller made
    itself, not the one that will happen) and solves the complementarity problem for the weeks that a policy looks
    ahead, starting from last week's prices.
    """

    def __init__(
        self,
        population: Population,
        expected: ExogenousPaths,
        policy: Policy,
        capacity: Float[np.ndarray, "week resource"],
        shadow_prices: Float[np.ndarray, "week resource"],
        *,
        price_scale: float,
        max_price: float,
        max_lead: int,
        reserve: Float[np.ndarray, "ahead resource"] | None = None,
        solver: AbstractDualSolver | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Keep the plan and the expected future.

        Args:
            population, policy: who answers and how.
            expected: one path, at least `max_lead` + 2 weeks longer than the plan.
            capacity: the plan K; its last week holds afterwards.
            shadow_prices: the plan's prices, the first guess.
            price_scale: unit in which prices are compared.
            max_price: no price above this.
            max_lead: length of the pipeline [weeks].
            reserve: share of expected use to keep free so many weeks ahead (0, 1, 2, ...), since what is further
                away is less certain; the last row holds. Default none.
            solver: for the weekly problem.
            progress: told after every week.
        """
        self.population, self.expected, self.policy = population, expected, policy
        self.window = window_length(policy, max_lead)
        self.weeks = len(capacity)
        self.capacity = _hold(capacity, self.window)
        self.planned = _hold(shadow_prices, self.window)
        self.price_scale, self.max_price = price_scale, max_price
        self.solver = GaussNewton(tolerance=3e-3, max_iterations=6) if solver is None else solver
        self.progress = Progress() if progress is None else progress
        kept = np.zeros((1, self.capacity.shape[1])) if reserve is None else np.asarray(reserve, float)
        self.reserve = _hold(kept, self.window)[: self.window]
        # Always the same agents: they only steer the search, and the same plan shall be answered the same way.
        self._sample = ProportionalSample().draw(demand_size(population), SLOPE_AGENTS, np.random.default_rng(0))
        self._people = self._sample.people(population)

    def opening_prices(self, n_resources: int) -> Float[Array, " resource"]:
        """Charge the planned prices in the first week."""
        return jnp.asarray(self.planned[0], jnp.float32)

    def issue(self, observation: ControlObservation) -> Float[np.ndarray, "path ahead resource"]:
        """Solve the coming weeks' problem from the present state."""
        week, state = int(observation.week), observation.state
        paths = state.stock_end.shape[0]
        start = self._start(week, paths, observation.announced)
        future = week_of(self.expected, jnp.asarray(week), self.window)
        shape = start[:, 1:].shape
        held = start[:, :1]

        def full(free: np.ndarray) -> Array:
            return jnp.asarray(np.concatenate([held[: len(free)], free.reshape(-1, *shape[1:])], axis=1), jnp.float32)

        def response(free: np.ndarray) -> np.ndarray:
            use = _use(self.population, future, self.policy, state, full(free))
            return np.asarray(use, float)[:, 1:].reshape(len(free), -1)

        def jacobian(free: np.ndarray) -> np.ndarray:
            sample = jax.tree.map(lambda leaf: leaf[:1], state)
            return self._slope(future, sample, full(free.mean(0, keepdims=True)))

        limit = self.capacity[week : week + self.window] / (1.0 + self.reserve)
        target = np.repeat(limit[1:].reshape(1, -1), paths, axis=0)
        problem = DualProblem(response, jacobian, target, self.price_scale, self.max_price)
        prices = self.solver.solve(problem, start[:, 1:].reshape(paths, -1)).prices.reshape(shape)
        self.progress.step(week + 1, self.weeks)
        return prices

    def _start(self, week: int, paths: int, announced: Prices | None) -> Float[np.ndarray, "path window resource"]:
        """Return last week's prices for this week and those after it, or the planned ones."""
        planned = self.planned[week : week + self.window]
        if announced is None:
            return np.repeat(planned[None], paths, axis=0)
        return np.concatenate([np.asarray(announced), np.repeat(planned[None, -1:], paths, axis=0)], axis=1)

    def _slope(self, future: ExogenousPaths, state: State, prices: Array) -> np.ndarray:
        cut = self._sample.along
        return np.asarray(_slope(self._people, cut(future), cut(self.policy), cut(state), prices), float)


def _hold(values: np.ndarray, extra: int) -> np.ndarray:
    """Repeat the last week `extra` times."""
    return np.concatenate([np.asarray(values, float), np.repeat(np.asarray(values, float)[-1:], extra, axis=0)])


def broadcast_scenarios(future: ExogenousPaths, paths: int) -> ExogenousPaths:
    """Let one future happen on several paths, for as many price paths."""
    own = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (paths, *leaf.shape)), (future.demand, future.arrivals))
    return eqx.tree_at(lambda e: (e.demand, e.arrivals), future, own)


@eqx.filter_jit
def _use(
    population: Population, future: ExogenousPaths, policy: Policy, state: State, prices: Array
) -> Float[Array, "path week resource"]:
    paths = broadcast_scenarios(future, prices.shape[0])
    return simulate_prices(population, paths, policy, state, prices)[0]


@eqx.filter_jit
def _slope(
    population: Population, future: ExogenousPaths, policy: Policy, state: State, prices: Array
) -> Float[Array, "entry entry"]:
    """Differentiate utilization after the first week in the prices after the first week (forward mode)."""
    slope = utilization_jacobian(
        population, broadcast_scenarios(future, 1), policy, initial=state, shadow_prices=prices
    )
    entries = prices[0, 1:].size
    return slope[0, 1:, :, 1:].reshape(entries, entries)
