"""Model-predictive control by simulation, and the standard set of control methods.

Every week the coming weeks are simulated on scenarios until prices fit them. `walras.planning.prices.mpc` does the same
on one expected path; here scenarios, the simulated sample and the count of simulations are parts of the comparison.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lab.capacity_benchmark import BenchmarkCase, ComputeCost, ControlOutcome
from lab.controllers import ControlMethod, DualMapController, NoControl, PrimalMapController, ProportionalRationing
from lab.elasticity import ElasticityControl
from lab.resampling import PastBootstrap, realised_path
from walras.exogenous.paths import ExogenousPaths
from walras.maps.closed_loop import price_window, step_week
from walras.maps.features import HORIZON
from walras.maps.file import LearnedMap
from walras.maps.rollout import PopulationWindow
from walras.planning.prices.dual_ascent import (
    AbstractDualSolver,
    DualProblem,
    GaussNewton,
    NewtonThenProjected,
    ProjectedDual,
)
from walras.policies.base import Policy
from walras.policies.user_policies import callback_names, number_agents
from walras.population.cohort import ProportionalSample, demand_size
from walras.population.population import Population
from walras.simulation.controller import Controller, ControlObservation, closed_loop
from walras.simulation.gradients import utilization_jacobian
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.week import State
from walras.train.agent_pool import AgentPool

SLOPE_AGENTS = 300
"""Agents of the weekly Jacobian, which only steers the search; the package's MPC takes more, but is not timed."""


def scenario_paths(
    agent_pool: AgentPool,
    agents: Int[np.ndarray, " slot"],
    now: int,
    random: np.random.Generator,
    scenarios: int | None,
) -> ExogenousPaths:
    """Return the week of the origin and the horizon after it; every array has a leading scenario axis.

    Args:
        pool, agents: the pool, and the index in it of each simulated agent.
        now: week of the pool that is the origin.
        random: source of randomness.
        scenarios: bootstrapped from weeks that were over by the origin; more begin with those of fewer. None is the
            path that will happen, the only use of weeks that are still to come.
    """
    if scenarios is None:
        paths = [realised_path(agent_pool, agents, now)]
    else:
        bootstrap = PastBootstrap(agent_pool, agents, now)
        paths = [bootstrap.sample(random) for _ in range(scenarios)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *paths)


@dataclass(frozen=True)
class SimulationMPC(ControlMethod):
    """Solve every week for the prices of the coming weeks by simulation, charge the first, and go on.

    Each week starts from the true state of all agents with receipts known, draws scenarios, and searches for the prices
    at which mean use fits the capacity, starting from last week's prices shifted by a week.

    Attributes:
        name: in tables.
        solver: of the weekly problem; few steps are enough, since the start is good.
        scenarios: of the coming weeks; None knows what will happen.
        agents: simulated, drawn in proportion to demand with weights; None simulates all.
        ceiling: highest price, in price scales; isolated price spikes would shift orders into the week before.
        seed: of scenarios and sample.
    """

    name: str
    solver: AbstractDualSolver = field(default_factory=lambda: ProjectedDual(max_queries=20))
    scenarios: int | None = 1
    agents: int | None = None
    ceiling: float = 2.0
    seed: int = 0

    def run(self, case: BenchmarkCase) -> ControlOutcome:
        """Simulate week by week."""
        episode, weeks, resources = case.episode, *case.capacity.shape
        controller = _WeeklySearch(self, case)
        issued: list[np.ndarray] = []

        def run_week(week: int, state: State, charged: Array, prices: np.ndarray) -> tuple[State, tuple]:
            issued.append(prices)
            prices = jnp.asarray(prices, jnp.float32)
            now = jnp.asarray(episode.first + week)
            state, row, end = _step(episode.pop_window, episode.policy, state, now, charged, prices)
            return state, (np.asarray(row, float), float(end))

        with callback_names(episode.pop_window.population):
            controller.compile(episode.state, resources)
            results = closed_loop(controller, run_week, episode.state, weeks, resources)
        rows = np.stack([row for row, _ in results])
        reward = float(rows[:, -1].sum()) + results[-1][1]
        charged = np.stack([np.zeros(resources), *(prices[0] for prices in issued[:-1])])
        work = ComputeCost(simulations=controller.simulations, seconds=controller.seconds)
        return ControlOutcome(rows[:, :-1], reward, charged, work)


class _WeeklySearch(Controller):
    """Controller of `SimulationMPC`; counts simulations and seconds."""

    def __init__(self, method: SimulationMPC, case: BenchmarkCase) -> None:
        """Draw the simulated agents, and among them those of the Jacobian."""
        self.method, self.case, self.scale = method, case, case.episode.price_scale
        self.simulations, self.seconds = 0, 0.0
        episode, random = case.episode, np.random.default_rng([method.seed, 0xC0])
        everybody = episode.pop_window.population
        agents = everybody.n_agents if method.agents is None else method.agents
        self.sample = ProportionalSample().draw(demand_size(everybody), agents, random)
        self.population = self.sample.subset(everybody)
        self.policy = self.sample.select(number_agents(episode.policy, everybody.n_agents))
        size = np.asarray(everybody.demand_scale, float)[self.sample.index] * self.sample.weight
        self.slope_sample = ProportionalSample().draw(size, SLOPE_AGENTS, random)

    def compile(self, state: State, resources: int) -> None:
        """Issue the first week's prices once without counting."""
        self.issue(ControlObservation(0, state, self.opening_prices(resources)))
        self.simulations, self.seconds = 0, 0.0

    def issue(self, observation: ControlObservation) -> Float[np.ndarray, "ahead resource"]:
        """Search for the prices of the weeks after this one."""
        started = time.perf_counter()
        last, week = observation.announced, int(observation.week)
        shape = (HORIZON, self.case.capacity.shape[1])
        start = np.zeros(shape) if last is None else np.concatenate([last[1:], last[-1:]])
        charged = np.zeros(shape[1]) if last is None else last[0]
        prices = self._solve(week, observation.state, charged, start)
        self.seconds += time.perf_counter() - started
        return prices

    def _solve(self, week: int, state: State, charged: np.ndarray, start: np.ndarray) -> np.ndarray:
        method, episode, shape = self.method, self.case.episode, start.shape
        random = np.random.default_rng([method.seed, episode.path, week, 0xF07])
        now = episode.week_of_pool(week)
        paths = scenario_paths(episode.agent_pool, episode.agents[self.sample.index], now, random, method.scenarios)
        parts = (self.population, paths, self.policy, self.sample.select(state))
        cut = self.slope_sample.select
        first = jax.tree.map(lambda leaf: leaf[0], paths)
        few = (self.slope_sample.subset(self.population), cut(first), cut(self.policy), cut(parts[3]))

        def with_charged(free: Float[np.ndarray, "path entry"]) -> Array:
            return jnp.asarray(np.concatenate([charged[None], free[0].reshape(shape)]), jnp.float32)

        def response(free: Float[np.ndarray, "path entry"]) -> np.ndarray:
            self.simulations += method.scenarios or 1
            return np.asarray(_mean_use(*parts, with_charged(free)), float)[1:].reshape(1, -1)

        def jacobian(free: Float[np.ndarray, "path entry"]) -> np.ndarray:
            self.simulations += 1
            return np.asarray(_slope(*few, with_charged(free)), float)

        capacity = self.case.capacity
        target = capacity[np.minimum(week + 1 + np.arange(HORIZON), len(capacity) - 1)].reshape(1, -1)
        problem = DualProblem(response, jacobian, target, self.scale, method.ceiling * self.scale)
        return method.solver.solve(problem, start.reshape(1, -1)).prices.reshape(shape)


@eqx.filter_jit
def _mean_use(
    population: Population, paths: ExogenousPaths, policy: Policy, state: State, prices: Float[Array, "week resource"]
) -> Float[Array, "week resource"]:
    """Return use averaged over scenarios, which are simulated one by one so that each stays in the cache."""

    def one(path: ExogenousPaths) -> Float[Array, "week resource"]:
        record = Record.use_and_reward()
        rollout = simulate(population, path, policy, initial=state, shadow_prices=prices, record=record, throw=False)
        return rollout.totals.utilization

    return jax.lax.map(one, paths).mean(0)


@eqx.filter_jit
def _slope(
    population: Population, path: ExogenousPaths, policy: Policy, state: State, prices: Float[Array, "week resource"]
) -> Float[Array, "entry entry"]:
    """Differentiate use after the first week in the prices after the first week (forward mode)."""
    slope = utilization_jacobian(population, path, policy, initial=state, shadow_prices=prices)
    entries = prices[1:].size
    return slope[1:, :, 1:].reshape(entries, entries)


@eqx.filter_jit
def _step(
    pop_window: PopulationWindow, policy: Policy, state: State, week: Array, charged: Array, issued: Array
) -> tuple[State, Float[Array, " total"], Float[Array, ""]]:
    """Simulate one week; return the state after it, use and then reward, and the value of what is left."""
    total, _, after, end = step_week(pop_window, policy, state, week, price_window(policy, state, charged, issued))
    return after, total, end


NONE, THROTTLE, ELASTICITY = "none", "throttle", "elasticity"
"""Names of the methods that neither simulate nor learn."""

UZAWA, GAUSS_NEWTON = "Uzawa", "Gauss-Newton"
"""Weekly problems solved on one scenario with all agents: the effect of the solver, on equal scenarios."""

MPC_PERFECT, MPC_ONE, MPC_SIXTEEN = "MPC perfect forecast", "MPC one scenario", "MPC sixteen scenarios"
"""Weekly problems solved by one solver: the value of better forecasts."""

SIXTEEN_AGENTS = 1_000
"""Agents simulated on sixteen scenarios: as much work as two scenarios of eight thousand."""

DUAL, PRIMAL = "dual {}", "primal {}"
"""Names of the methods that follow maps: kind of the map and the name given, e.g. its representation."""


def mpc_solver() -> NewtonThenProjected:
    """Return the solver of all MPC methods: two Newton steps, then projected ones."""
    return NewtonThenProjected(GaussNewton(max_iterations=2), ProjectedDual(step=0.3, max_queries=12))


def standard_methods(
    duals: Mapping[str, LearnedMap] | None = None, primals: Mapping[str, LearnedMap] | None = None, *, seed: int = 0
) -> dict[str, ControlMethod]:
    """Return all methods by name in the order of tables; the bound is `lab.evaluate_control.ClairvoyantBound`.

    Args:
        duals, primals: maps by the name that follows the method's, e.g. "global"; None has no such methods.
        seed: of scenarios and samples.
    """
    methods: list[ControlMethod] = [
        NoControl(NONE),
        ProportionalRationing(THROTTLE),
        ElasticityControl(name=ELASTICITY),
    ]
    methods += [DualMapController(DUAL.format(name), dual) for name, dual in (duals or {}).items()]
    methods += [PrimalMapController(PRIMAL.format(name), primal) for name, primal in (primals or {}).items()]
    return {method.name: method for method in (*methods, *simulating_methods(seed))}


def simulating_methods(seed: int = 0) -> list[ControlMethod]:
    """Return the five methods that simulate the coming weeks."""
    return [
        SimulationMPC(UZAWA, ProjectedDual(max_queries=20), seed=seed),
        SimulationMPC(GAUSS_NEWTON, GaussNewton(max_iterations=4), seed=seed),
        SimulationMPC(MPC_PERFECT, mpc_solver(), None, seed=seed),
        SimulationMPC(MPC_ONE, mpc_solver(), 1, seed=seed),
        SimulationMPC(MPC_SIXTEEN, mpc_solver(), 16, SIXTEEN_AGENTS, seed=seed),
    ]
