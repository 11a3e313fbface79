"""Model-predictive control by simulation: re-issue shadow prices weekly so that expected use fits a fixed plan."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.exogenous.paths import ExogenousPaths
from walras.planning.prices.dual_ascent import DualProblem, ProjectedDual
from walras.planning.prices.simulated_view import (
    WEEKLY_AGENTS,
    WEEKLY_READERS,
    PricedSimulation,
    SimulatedView,
    broadcast_scenarios,
)
from walras.planning.protocols import Grid
from walras.population.cohort import Cohort, ProportionalSample, demand_size
from walras.progress import Progress
from walras.simulation.controller import Controller, ControlObservation
from walras.simulation.run import week_of, window_length
from walras.simulation.week import State

SOLVER = ProjectedDual(step=0.1, tolerance=3e-3, max_queries=30)
"""Of the weekly problem, from last week's prices: small steps are stable where a few agents order by jumps."""


class MPCController(Controller):
    """Re-issue prices each week so that expected utilization of the coming weeks fits the plan, path by path.

    It simulates the agents from the present state along the expected future (a path of its own, not the realised one)
    and solves the complementarity problem for the weeks that a policy looks ahead, from last week's prices. Of more
    than `WEEKLY_AGENTS`, all are simulated once a week, at these prices; the search simulates a sample whose use is
    multiplied by the ratio of the two. Few agents are lumpy: copies of them follow different scenarios.
    """

    def __init__(
        self,
        view: SimulatedView,
        expected: ExogenousPaths,
        capacity: Grid,
        shadow_prices: Grid,
        *,
        reserve: Float[np.ndarray, "ahead resource"] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Extend plan and prices beyond the last week, and draw the sample.

        Args:
            view: its population, policy, price scale and highest price.
            expected: one path, at least the policy's window longer than the plan; of all agents or of several copies.
            capacity, shadow_prices: the plan K, whose last week holds afterwards; its prices open the first week.
            reserve: share of expected use to leave free 0, 1, 2, ... weeks ahead; the last row holds. Default none.
            progress: notified after every week.
        """
        self.population, self.policy, self._expected = view.population, view.policy, expected
        self.price_scale, self.max_price = view.price_scale, view.max_price
        self.window = window_length(view.policy, view.initial.max_lead)
        self.weeks = len(capacity)
        self.capacity = _hold(capacity, self.window)
        self.planned = _hold(shadow_prices, self.window)
        self.price_week = np.concatenate([view.price_week, self.weeks + np.arange(self.window)])
        self.progress = progress or Progress()
        reserve = np.zeros((1, self.capacity.shape[1])) if reserve is None else reserve
        self.reserve = _hold(reserve, self.window)[: self.window]
        agents = self.population.n_agents
        copies = expected.n_agents // agents
        if copies > 1:
            index, weight = np.tile(np.arange(agents), copies), np.full(agents * copies, 1.0 / copies)
            self._sample, self._sampled = Cohort(index, weight, 0 * index, agents, "copies of all"), expected
        else:  # always the same sample, so that the same plan gets the same prices
            random = np.random.default_rng(0)
            count = WEEKLY_READERS if self.policy.reads_history else WEEKLY_AGENTS
            self._sample = ProportionalSample().draw(demand_size(self.population), count, random)
            self._sampled = self._sample.select(expected)
        self._whole: PricedSimulation | None = None
        self._part: PricedSimulation | None = None

    def opening_prices(self, n_resources: int) -> Float[Array, " resource"]:
        """Charge the planned prices in the first week."""
        return jnp.asarray(self.planned[0], jnp.float32)

    def issue(self, observation: ControlObservation) -> Float[np.ndarray, "path ahead resource"]:
        """Solve the coming weeks' problem from the present state."""
        week, state = int(observation.week), observation.state
        paths = state.stock_end.shape[0]
        start = np.repeat(self.planned[None, week : week + self.window], paths, axis=0)
        if observation.announced is not None:  # last week's prices, for all weeks but the last
            start = np.concatenate([np.asarray(observation.announced), start[:, -1:]], axis=1)
        charged, shape = start[:, :1], start[:, 1:].shape

        same = np.minimum(self.price_week[week : week + self.window] - week, self.window - 1)
        same[0] = 0  # the price of this week is announced

        def window_prices(ahead: np.ndarray) -> np.ndarray:
            prices = [charged[: len(ahead)], ahead.reshape(-1, *shape[1:])]
            return np.concatenate(prices, axis=1)[:, same].astype(np.float32)

        def use(simulation: PricedSimulation, ahead: np.ndarray) -> np.ndarray:
            return np.asarray(simulation(window_prices(ahead))[0], float)[:, 1:].reshape(len(ahead), -1)

        sample = self._simulate_sample(week, state)
        factor = np.ones((1, 1))
        if self._sample.n_drawn < self.population.n_agents:
            ahead = start[:, 1:].reshape(paths, -1)
            least = np.finfo(np.float32).tiny
            factor = use(self._simulate_all(week, state), ahead) / np.maximum(use(sample, ahead), least)

        def response(ahead: np.ndarray) -> np.ndarray:
            return factor * use(sample, ahead)

        limit = self.capacity[week : week + self.window] / (1.0 + self.reserve)
        limit = np.where(limit > 0, limit, np.inf)  # closed weeks receive what is on order, at any price
        target = np.repeat(limit[1:].reshape(1, -1), paths, axis=0)
        problem = DualProblem(response, None, target, self.price_scale, self.max_price)
        prices = SOLVER.solve(problem, start[:, 1:].reshape(paths, -1)).prices
        prices = prices.reshape(shape)[:, same[1:] - 1]
        self.progress.step(week + 1, self.weeks)
        return prices

    def _simulate_all(self, week: int, state: State) -> PricedSimulation:
        paths = week_of(self._expected, jnp.asarray(week), self.window)
        if self._whole is None:  # checked once
            several = broadcast_scenarios(paths, len(state.stock_end))
            self._whole = PricedSimulation(self.population, several, self.policy, state)
        return self._whole.at(paths, state)

    def _simulate_sample(self, week: int, state: State) -> PricedSimulation:
        paths, state = week_of(self._sampled, jnp.asarray(week), self.window), self._sample.select(state)
        if self._part is None:
            several, policy = broadcast_scenarios(paths, len(state.stock_end)), self._sample.select(self.policy)
            self._part = PricedSimulation(self._sample.subset(self.population), several, policy, state)
        return self._part.at(paths, state)


def _hold(values: np.ndarray, extra: int) -> np.ndarray:
    """Repeat the last week `extra` times."""
    values = np.asarray(values, float)
    return np.concatenate([values, np.repeat(values[-1:], extra, axis=0)])
