"""Own receding-horizon control by simulation: every week the coming weeks are simulated until prices fit them.

OPEN: what varies is an object: the futures planned on, who is simulated, and the solver.
"""

import time
from dataclasses import dataclass, field

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lab.capacity_benchmark import BenchmarkCase, ComputeCost, ControlOutcome
from lab.controllers import AbstractController
from lab.scenario_forecasts import AbstractScenarioForecast, SampledScenarios
from walras.exogenous.paths import ExogenousPaths
from walras.maps.closed_loop import price_window, step_week
from walras.maps.features import HORIZON
from walras.maps.rollout import PopulationWindow
from walras.planning.prices.dual_ascent import AbstractDualSolver, DualProblem, ProjectedDual
from walras.policies.base import Policy
from walras.policies.user_policies import callback_names, number_agents
from walras.population.cohort import ProportionalSample, demand_size
from walras.population.population import Population
from walras.simulation.gradients import utilization_jacobian
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.state import State

SLOPE_AGENTS = 300
"""Agents of the weekly Jacobian, which only steers the search."""


@dataclass(frozen=True)
class SimulationMPC(AbstractController):
    """Solve every week for the prices of the coming weeks by simulation, charge the first, and go on.

    Each week starts from everybody's true state, its receipts in, draws futures from what is known by then, and looks
    for the prices at which mean use over them fits the plan; last week's prices, shifted by a week, are the start.
    With a `Perfect` future it knows more than it could, and shows what forecasts cost.

    Attributes:
        name: in tables.
        solver: of the weekly problem; given few steps, since the start is good.
        futures: what is planned on.
        agents: simulated, drawn in proportion to demand with weights; None simulates everybody.
        ceiling: highest price, in price scales: those that tower over their neighbours make agents stock up in the week
            before.
        seed: of futures and of who is drawn.
    """

    name: str
    solver: AbstractDualSolver = field(default_factory=lambda: ProjectedDual(max_queries=20))
    futures: AbstractScenarioForecast = field(default_factory=SampledScenarios)
    agents: int | None = None
    ceiling: float = 2.0
    seed: int = 0

    def keep(self, case: BenchmarkCase) -> ControlOutcome:
        """Go week by week."""
        scene, weeks = case.scene, len(case.capacity)
        outlook = _Outlook(self, case)
        state, charged = scene.state, np.zeros(case.capacity.shape[1])
        guess = np.zeros((HORIZON, case.capacity.shape[1]))
        rows, prices, ends, seconds = [], [], [], 0.0
        with callback_names(scene.stretch.population):
            outlook.compile(state, charged, guess)
            for week in range(weeks):
                started = time.perf_counter()
                guess = outlook.issue(week, state, charged, guess)
                seconds += time.perf_counter() - started
                prices.append(charged)
                announcement = jnp.asarray(charged, jnp.float32), jnp.asarray(guess, jnp.float32)
                now = jnp.asarray(scene.first + week)
                state, row, end = _lived(scene.stretch, scene.policy, state, now, *announcement)
                rows.append(np.asarray(row, float))
                ends.append(float(end))
                charged, guess = guess[0], np.concatenate([guess[1:], guess[-1:]])
        lived = np.stack(rows)
        work = ComputeCost(simulations=outlook.simulations, seconds=seconds)
        return ControlOutcome(lived[:, :-1], float(lived[:, -1].sum()) + ends[-1], np.stack(prices), work)


class _Outlook:
    """Hold what does not change from week to week, and count simulations."""

    def __init__(self, keeper: SimulationMPC, case: BenchmarkCase) -> None:
        """Draw who is simulated, and of them those who steer."""
        self.keeper, self.case, self.scale = keeper, case, case.scene.price_scale
        self.simulations = 0
        scene, random = case.scene, np.random.default_rng([keeper.seed, 0xC0])
        everybody = scene.stretch.population
        agents = everybody.n_agents if keeper.agents is None else keeper.agents
        self.crowd = ProportionalSample().draw(demand_size(everybody), agents, random)
        self.people = self.crowd.subset(everybody)
        self.policy = self.crowd.select(number_agents(scene.policy, everybody.n_agents))
        size = np.asarray(everybody.demand_scale, float)[self.crowd.index] * self.crowd.weight
        self.steering = ProportionalSample().draw(size, SLOPE_AGENTS, random)

    def compile(
        self, state: State, charged: Float[np.ndarray, " resource"], start: Float[np.ndarray, "ahead resource"]
    ) -> None:
        """Ask for the first week's prices once without counting it, so that the seconds of deciding are those alone."""
        before = self.simulations
        self.issue(0, state, charged, start)
        self.simulations = before

    def issue(
        self,
        week: int,
        state: State,
        charged: Float[np.ndarray, " resource"],
        start: Float[np.ndarray, "ahead resource"],
    ) -> Float[np.ndarray, "ahead resource"]:
        """Return prices for the weeks after a week.

        Args:
            week: counted from the first coordinated one.
            state: of everybody before it.
            charged: in it.
            start: last week's answer for the weeks after it.
        """
        here, shape = self._here(week, state), start.shape
        some = self._few(here)

        def full(free: Float[np.ndarray, "path entry"]) -> Array:
            return jnp.asarray(np.concatenate([charged[None], free[0].reshape(shape)]), jnp.float32)

        def response(free: Float[np.ndarray, "path entry"]) -> np.ndarray:
            self.simulations += self.keeper.futures.scenarios
            return np.asarray(_mean_use(*here, full(free)), float)[1:].reshape(1, -1)

        def jacobian(free: Float[np.ndarray, "path entry"]) -> np.ndarray:
            self.simulations += 1
            return np.asarray(_slope(*some, full(free)), float)

        problem = DualProblem(response, jacobian, self._target(week), self.scale, self.keeper.ceiling * self.scale)
        return self.keeper.solver.solve(problem, start.reshape(1, -1)).prices.reshape(shape)

    def _target(self, week: int) -> Float[np.ndarray, "path entry"]:
        rows = np.minimum(week + 1 + np.arange(HORIZON), len(self.case.capacity) - 1)
        return self.case.capacity[rows].reshape(1, -1)

    def _here(self, week: int, state: State) -> "_Known":
        scene, keeper = self.case.scene, self.keeper
        random = np.random.default_rng([keeper.seed, scene.path, week, 0xF07])
        paths = keeper.futures.paths(scene.world, scene.agents[self.crowd.index], scene.now(week), random)
        return self.people, paths, self.policy, self.crowd.select(state)

    def _few(self, here: "_Known") -> "_Known":
        """Cut out who steers, and the first scenario."""
        people, paths, policy, state = here
        first = jax.tree.map(lambda leaf: leaf[0], paths)
        cut = self.steering.select
        return self.steering.subset(people), cut(first), cut(policy), cut(state)


_Known = tuple[Population, ExogenousPaths, Policy, State]
"""Who is simulated, what may come with a scenario axis in front, what they follow, and from where."""


@eqx.filter_jit
def _mean_use(
    population: Population,
    paths: ExogenousPaths,
    policy: Policy,
    state: State,
    prices: Float[Array, "week resource"],
) -> Float[Array, "week resource"]:
    """Return use averaged over scenarios, one simulated after the other so that each stays in the cache."""

    def one(path: ExogenousPaths) -> Float[Array, "week resource"]:
        record = Record.use_and_reward()
        rollout = simulate(population, path, policy, initial=state, shadow_prices=prices, record=record, throw=False)
        return rollout.totals.utilization

    return jax.lax.map(one, paths).mean(0)


@eqx.filter_jit
def _slope(
    population: Population,
    path: ExogenousPaths,
    policy: Policy,
    state: State,
    prices: Float[Array, "week resource"],
) -> Float[Array, "entry entry"]:
    """Differentiate use after the first week in the prices after the first week (forward mode)."""
    slope = utilization_jacobian(population, path, policy, initial=state, shadow_prices=prices)
    entries = prices[1:].size
    return slope[1:, :, 1:].reshape(entries, entries)


@eqx.filter_jit
def _lived(
    stretch: PopulationWindow,
    policy: Policy,
    state: State,
    week: Array,
    charged: Float[Array, " resource"],
    issued: Float[Array, "ahead resource"],
) -> tuple[State, Float[Array, " total"], Float[Array, ""]]:
    """Go through one week; return the state after it, use and then reward, and the value of what is left."""
    total, _, after, end = step_week(stretch, policy, state, week, price_window(policy, state, charged, issued))
    return after, total, end
