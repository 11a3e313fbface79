"""Benchmark of coordination: held-out populations that have to keep to a capacity fixed beforehand.

A case follows from the agent pool, a composition, a capacity family and the number of its path alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from lab.capacity_families import calibrate_level
from lab.encoding import index_cohort
from lab.shift_cases import demand_ratio
from walras.errors import SettingsError
from walras.evaluation.metrics import BURN_IN_WEEKS
from walras.exogenous.capacity import AbstractCapacityFamily, HaarCapacity
from walras.exogenous.paths import ExogenousPaths
from walras.maps.agent_layout import CohortIndex
from walras.maps.closed_loop import CapacityTarget
from walras.maps.file import LearnedMap
from walras.maps.rollout import PopulationWindow
from walras.planning.prices.simulated_view import PricedSimulation, SimulatedView, broadcast_scenarios
from walras.policies.base import Policy
from walras.policies.base_stock import ConstantOrder
from walras.population.cohort import Cohort, StratifiedSample
from walras.population.population import price_scale
from walras.population.shift import CompositionShift
from walras.simulation.record import Record
from walras.simulation.run import simulate, week_of
from walras.simulation.week import State
from walras.train.agent_pool import AgentPool

COMPOSITIONS: Mapping[str, float] = {"low": -0.5, "baseline": 0.0, "high": 0.5}
"""Tilts by demand of the evaluated populations: low, baseline and high demand."""

FIRST_SEED = 7_000_000
"""Seeds of the benchmark's capacity paths start here; training draws its own below 2^31, tuning below 64."""

WeekResource = Float[np.ndarray, "week resource"]


@dataclass(frozen=True)
class BenchmarkSizes:
    """Sizes of the cases.

    Attributes:
        agents: simulated.
        cohort: of them, read by maps (stratified by demand).
        paths: cases of each composition.
        history: weeks before the first coordinated one.
        weeks: coordinated.
        burn_in: first of these weeks that are not evaluated.
    """

    agents: int = 20_000
    cohort: int = 2_000
    paths: int = 50
    history: int = 64
    weeks: int = 52
    burn_in: int = BURN_IN_WEEKS

    def fitted_to(self, agent_pool: AgentPool) -> "BenchmarkSizes":
        """Reduce the sizes to the weeks and agents of a short table, of which half is history."""
        spare, agents = agent_pool.n_weeks - 1, min(self.agents, agent_pool.n_agents)
        if self.history + self.weeks <= spare:
            return replace(self, agents=agents)
        return replace(self, agents=agents, history=spare // 2, weeks=spare - spare // 2)


QUICK = BenchmarkSizes(agents=3_000, cohort=1_000, paths=6)
"""A few paths of a small population."""


@dataclass(frozen=True)
class ComputeCost:
    """Work of deciding on the prices of a case, without simulating its weeks.

    Attributes:
        simulations: of the horizon ahead, of one scenario each, of all agents or of a cohort; a Jacobian counts as one.
        queries: of a map.
        seconds: spent deciding, without compilation where a method is compiled as a whole.
    """

    simulations: int = 0
    queries: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class ControlOutcome:
    """The coordinated weeks of a case under a method.

    Attributes:
        utilization: U [units of resource].
        reward: without payments for resources; end stock and open orders are valued [money].
        shadow_prices: charged [money per unit of resource].
        work: of deciding on them.
    """

    utilization: WeekResource
    reward: float
    shadow_prices: WeekResource
    work: ComputeCost = ComputeCost()


@dataclass(frozen=True, eq=False)
class BenchmarkPopulation:
    """A population before its first coordinated week, and what is known of it whatever the plan.

    Attributes:
        path: its number.
        pop_window: all agents over history and coordinated weeks.
        cohort: whose histories maps read.
        policy: of the agents.
        first: first coordinated week of the window.
        state: before that week's receipts.
        free: outcome without prices.
        committed: use if no orders were placed any more [units of resource].
        agent_pool: pool from which it was drawn.
        agents: index in the pool of each agent.
        start: week of the pool that is the window's first.
    """

    path: int
    pop_window: PopulationWindow
    cohort: Cohort
    policy: Policy
    first: int
    state: State
    free: ControlOutcome
    committed: WeekResource
    agent_pool: AgentPool
    agents: Int[np.ndarray, " slot"]
    start: int

    @property
    def price_scale(self) -> float:
        """Median unit margin [money per unit of resource]."""
        return float(price_scale(self.pop_window.population)[0])

    def week_of_pool(self, week: int) -> int:
        """Return the week of the pool of a coordinated week, counted from the first coordinated one."""
        return self.start + self.first + week

    def future(self, copies: int) -> ExogenousPaths:
        """Return the coordinated weeks as they will happen, on several equal paths."""
        return broadcast_scenarios(_future(self.pop_window, self.first), copies)

    def view(self, copies: int = 1) -> SimulatedView:
        """Return the simulated view with knowledge of the future."""
        return SimulatedView(self.pop_window.population, self.future(copies), self.policy, self.state)

    def respond(self, shadow_prices: WeekResource) -> ControlOutcome:
        """Simulate the coordinated weeks under prices that are announced in full."""
        return _simulate(self.pop_window, self.first, self.policy, self.state, shadow_prices)

    def cohort_index(self, learned: LearnedMap) -> CohortIndex:
        """Sort the cohort into the demand buckets of a map, with the probe agents that it queries."""
        return index_cohort(self.pop_window.population, learned, self.cohort)


@dataclass(frozen=True, eq=False)
class BenchmarkCase:
    """A population and the capacity that it has to keep to.

    Attributes:
        episode: the population.
        capacity: K of the coordinated weeks [units of resource].
    """

    episode: BenchmarkPopulation
    capacity: WeekResource

    @property
    def target(self) -> CapacityTarget:
        """The capacity for the closed loop, which does not read K of the weeks of history."""
        history = np.repeat(self.capacity[:1], self.episode.first, axis=0)
        return CapacityTarget(jnp.asarray(np.concatenate([history, self.capacity]), jnp.float32), self.episode.first)


@dataclass(frozen=True, eq=False)
class CapacityBenchmark:
    """Cases of one composition; each path has its own agents, weeks and capacity.

    Attributes:
        agent_pool: held-out agent pool.
        policy: of the agents.
        alpha: tilt of the composition by demand.
        sizes: of the cases.
        family: of the capacity paths; its level is calibrated so that about 55 % of the weeks are near their limit.
    """

    agent_pool: AgentPool
    policy: Policy
    alpha: float = 0.0
    sizes: BenchmarkSizes = field(default_factory=BenchmarkSizes)
    family: AbstractCapacityFamily = field(default_factory=HaarCapacity)

    def __post_init__(self) -> None:
        """Check that the pool is long enough."""
        needed = self.sizes.history + self.sizes.weeks
        if self.agent_pool.n_weeks < needed:
            raise SettingsError(
                f"the agent pool has {self.agent_pool.n_weeks} weeks but {needed} are needed, {self.sizes.history} of "
                f"history and {self.sizes.weeks} coordinated ones; give a longer table or fewer weeks"
            )

    @property
    def demand_ratio(self) -> float:
        """Expected mean demand under the tilt over that of the baseline."""
        demand = np.asarray(self.agent_pool.population.demand_scale)
        return demand_ratio(self._shift, demand, self.alpha, demand)

    @property
    def _shift(self) -> CompositionShift:
        return CompositionShift.fit(np.asarray(self.agent_pool.population.demand_scale))

    def episode(self, path: int) -> BenchmarkPopulation:
        """Draw the agents and weeks of a path; they are the same for all capacity families."""
        sizes, agent_pool, policy = self.sizes, self.agent_pool, self.policy
        random = np.random.default_rng([path, 0xF1CED])
        start = int(random.integers(agent_pool.n_weeks - sizes.history - sizes.weeks + 1))
        demand = np.asarray(agent_pool.population.demand_scale)
        active = agent_pool.active[start + sizes.history].astype(float)
        chosen = self._shift.draw(demand, self.alpha, sizes.agents, random, within=active, replace=False)
        pop_window, first = agent_pool.window(chosen, start, sizes.history + sizes.weeks), sizes.history
        cohort = StratifiedSample().draw(demand[chosen], sizes.cohort, random)
        past = week_of(pop_window.exogenous, jnp.asarray(0), first)
        record = Record.use_and_reward()
        state = simulate(pop_window.population, past, policy, initial=pop_window.initial, record=record).final
        no_prices = np.zeros((pop_window.n_weeks - first, len(pop_window.population.resources)))
        free = _simulate(pop_window, first, policy, state, no_prices)
        committed = _simulate(pop_window, first, ConstantOrder(jnp.zeros(())), state, no_prices).utilization
        return BenchmarkPopulation(
            path, pop_window, cohort, policy, first, state, free, committed, agent_pool, agents=chosen, start=start
        )

    def cases(self) -> Iterator[BenchmarkCase]:
        """Draw all cases one by one; a path's capacity is at the scale of its own use without prices."""
        free = np.stack([self.episode(path).free.utilization for path in range(self.sizes.paths)])
        family = self.calibrated_family(free[:, self.sizes.burn_in :])
        for path, use in enumerate(free):
            yield BenchmarkCase(self.episode(path), family.sample(FIRST_SEED + path, len(use), use.mean(0)))

    def calibrated_family(self, free: Float[np.ndarray, "path week resource"]) -> AbstractCapacityFamily:
        """Return the family at the level that comes closest to 55 % near-limit weeks.

        Args:
            free: use without prices after the burn-in [units of resource].
        """
        return calibrate_level(self.family, free / free.mean(1, keepdims=True)).family

    def with_family(self, family: AbstractCapacityFamily, paths: int) -> "CapacityBenchmark":
        """Return the first `paths` of the same populations under another capacity family."""
        return replace(self, family=family, sizes=replace(self.sizes, paths=paths))


def _future(pop_window: PopulationWindow, first: int) -> ExogenousPaths:
    return week_of(pop_window.exogenous, jnp.asarray(first), pop_window.n_weeks - first)


def _simulate(
    pop_window: PopulationWindow, first: int, policy: Policy, state: State, shadow_prices: WeekResource
) -> ControlOutcome:
    future = broadcast_scenarios(_future(pop_window, first), 1)
    simulation = PricedSimulation(pop_window.population, future, policy, state)
    use, reward = simulation(np.asarray(shadow_prices, np.float32))
    return ControlOutcome(np.asarray(use[0], float), float(reward[0]), np.asarray(shadow_prices, float))
