"""Own the cases on which coordination is judged: held-out populations that have to keep to a capacity fixed beforehand.

CONTRACT: a case follows from a world, a composition, a capacity family and the number of its path alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from walras.errors import SettingsError
from walras.evaluation.metrics import BURN_IN_WEEKS
from walras.exogenous.capacity import AbstractCapacityFamily, HaarCapacity, calibrate_level
from walras.exogenous.paths import ExogenousPaths
from walras.maps.closed_loop import CapacityTarget
from walras.maps.file import LearnedMap, probes_for
from walras.maps.pooling import CohortIndex
from walras.maps.rollout import PopulationWindow
from walras.planning.prices.mpc import broadcast_scenarios
from walras.planning.prices.simulated_view import SimulatedView, simulate_prices
from walras.policies.base import Policy
from walras.policies.simple import ConstantOrder
from walras.population.cohort import Cohort, StratifiedSample
from walras.population.population import price_scale
from walras.population.shift import CompositionShift
from walras.simulation.record import Record
from walras.simulation.run import simulate, week_of
from walras.simulation.state import State
from walras.train.agent_pool import AgentPool

COMPOSITIONS: Mapping[str, float] = {"low": -0.5, "baseline": 0.0, "high": 0.5}
"""Tilts by demand of the populations that are judged: low, baseline and high demand (spec section 12)."""

TILE = 16
"""Agents of a cohort that are pooled at a time, as in training."""

FIRST_SEED = 7_000_000
"""Seeds of the capacity paths that judge start here; training draws its own anywhere below 2^31, tuning below 64."""


@dataclass(frozen=True)
class BenchmarkSizes:
    """Say how large the cases are.

    Attributes:
        agents: simulated.
        cohort: of them, read by maps (stratified by demand).
        paths: cases of each composition.
        history: weeks before the first coordinated one.
        weeks: coordinated.
        burn_in: of these, first weeks that are not judged.
    """

    agents: int = 20_000
    cohort: int = 2_000
    paths: int = 50
    history: int = 64
    weeks: int = 52
    burn_in: int = BURN_IN_WEEKS


QUICK = BenchmarkSizes(agents=3_000, cohort=1_000, paths=6)
"""A few paths of a small population."""


@dataclass(frozen=True)
class ComputeCost:
    """Say what it took to decide on the prices of a case; living through its weeks is not counted.

    Attributes:
        simulations: of the horizon ahead, on one scenario each, of everybody or of a cohort; a Jacobian counts as one.
        queries: answers asked of a map.
        seconds: spent deciding, compilation left out where a method is compiled as a whole.
    """

    simulations: int = 0
    queries: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class ControlOutcome:
    """Hold what came about in the coordinated weeks of a case.

    Attributes:
        utilization: U [units of resource].
        reward: without payments for resources, end stock and open orders valued [money].
        shadow_prices: what was charged [money per unit of resource].
        work: what deciding on them took.
    """

    utilization: Float[np.ndarray, "week resource"]
    reward: float
    shadow_prices: Float[np.ndarray, "week resource"]
    work: ComputeCost = ComputeCost()


@dataclass(frozen=True, eq=False)
class BenchmarkPopulation:
    """Hold a population before its first coordinated week, and what is to be known of it whatever the plan.

    Attributes:
        path: its number.
        stretch: everybody, history and coordinated weeks.
        cohort: whose histories maps read.
        policy: what agents follow.
        first: first coordinated week of the stretch.
        state: before that week's receipts.
        free: what comes about without prices.
        committed: use if nobody ordered any more [units of resource].
        mean_demand: mean demand scale of its agents [units/week].
        world: out of which it was drawn.
        agents: who of the world is in each slot.
        start: week of the world that is the stretch's first.
    """

    path: int
    stretch: PopulationWindow
    cohort: Cohort
    policy: Policy
    first: int
    state: State
    free: ControlOutcome
    committed: Float[np.ndarray, "week resource"]
    mean_demand: float
    world: AgentPool
    agents: Int[np.ndarray, " slot"]
    start: int

    @property
    def price_scale(self) -> float:
        """Return the median unit margin [money per unit of resource]."""
        return float(price_scale(self.stretch.population)[0])

    def now(self, week: int) -> int:
        """Return which week of the world a coordinated week is.

        Args:
            week: counted from the first coordinated one.
        """
        return self.start + self.first + week

    def future(self, copies: int) -> ExogenousPaths:
        """Return the coordinated weeks as they will happen, on several equal paths."""
        return broadcast_scenarios(_rest(self.stretch, self.first), copies)

    def view(self, copies: int = 1) -> SimulatedView:
        """Return the simulated view of those who know what will happen."""
        return SimulatedView(self.stretch.population, self.future(copies), self.policy, self.state)

    def respond(self, shadow_prices: Float[np.ndarray, "week resource"]) -> ControlOutcome:
        """Simulate the coordinated weeks under prices that are announced in full."""
        return _announced(self.stretch, self.first, self.policy, self.state, shadow_prices)

    def readers(self, learned: LearnedMap) -> CohortIndex:
        """Lay the cohort out in the demand buckets of a map, with the delegates that it asks."""
        population = self.stretch.population
        size = np.asarray(population.demand_scale)
        delegates = probes_for(learned, population, self.cohort)
        return CohortIndex.of(size, self.cohort, learned.edges, TILE, delegates)


@dataclass(frozen=True, eq=False)
class BenchmarkCase:
    """Hold a scene and the capacity that is to be kept to.

    Attributes:
        scene: who, when, and what comes about without prices.
        capacity: K of the coordinated weeks [units of resource].
    """

    scene: BenchmarkPopulation
    capacity: Float[np.ndarray, "week resource"]

    @property
    def plan(self) -> CapacityTarget:
        """Return the plan as the closed loop reads it; K of the weeks of history is never looked at."""
        history = np.repeat(self.capacity[:1], self.scene.first, axis=0)
        return CapacityTarget(jnp.asarray(np.concatenate([history, self.capacity]), jnp.float32), self.scene.first)


@dataclass(frozen=True, eq=False)
class CapacityBenchmark:
    """Draw the cases of one composition out of a held-out world: each path with its own agents, weeks and capacity.

    Attributes:
        world: held out.
        policy: what agents follow.
        alpha: tilt of the composition by demand.
        sizes: of the cases.
        family: of the capacity paths; its level is tuned so that about 55 % of the weeks are near their limit.
    """

    world: AgentPool
    policy: Policy
    alpha: float = 0.0
    sizes: BenchmarkSizes = field(default_factory=BenchmarkSizes)
    family: AbstractCapacityFamily = field(default_factory=HaarCapacity)

    def __post_init__(self) -> None:
        """Refuse a world that is too short."""
        needed = self.sizes.history + self.sizes.weeks
        if self.world.n_weeks < needed:
            raise SettingsError(
                f"the world has {self.world.n_weeks} weeks but {needed} are needed, {self.sizes.history} of history "
                f"and {self.sizes.weeks} coordinated ones; give a longer table or ask for fewer weeks"
            )

    @property
    def demand_ratio(self) -> float:
        """Return expected mean demand under the tilt over that of the baseline."""
        return self._shift.mean_ratio(self.alpha)

    @property
    def _shift(self) -> CompositionShift:
        return CompositionShift.fit(np.asarray(self.world.population.demand_scale))

    def scene(self, path: int) -> BenchmarkPopulation:
        """Draw the agents and weeks of a path; the same for all capacity families."""
        sizes, world = self.sizes, self.world
        random = np.random.default_rng([path, 0xF1CED])
        start = int(random.integers(world.n_weeks - sizes.history - sizes.weeks + 1))
        demand = np.asarray(world.population.demand_scale)
        lately = world.active[start + sizes.history].astype(float)
        chosen = self._shift.draw(demand, self.alpha, sizes.agents, random, within=lately, replace=False)
        stretch = world.window(chosen, start, sizes.history + sizes.weeks)
        cohort = StratifiedSample().draw(demand[chosen], sizes.cohort, random)
        drawn = (world, chosen, start)
        return _scene(path, stretch, cohort, self.policy, sizes.history, drawn)

    def cases(self) -> Iterator[BenchmarkCase]:
        """Draw all cases, one after the other; a path's capacity is at the scale of its own use without prices."""
        free = np.stack([self.scene(path).free.utilization for path in range(self.sizes.paths)])
        family = self.tuned(free[:, self.sizes.burn_in :])
        for path, use in enumerate(free):
            yield BenchmarkCase(self.scene(path), family.sample(FIRST_SEED + path, len(use), use.mean(0)))

    def tuned(self, free: Float[np.ndarray, "path week resource"]) -> AbstractCapacityFamily:
        """Return the family at the level that comes nearest to 55 % near-limit weeks.

        Args:
            free: use without prices after the burn-in [units of resource].
        """
        return calibrate_level(self.family, free / free.mean(1, keepdims=True)).family

    def under(self, family: AbstractCapacityFamily, paths: int) -> "CapacityBenchmark":
        """Return the same populations, the first so many, under another capacity family."""
        return replace(self, family=family, sizes=replace(self.sizes, paths=paths))


def _scene(
    path: int,
    stretch: PopulationWindow,
    cohort: Cohort,
    policy: Policy,
    first: int,
    drawn: tuple[AgentPool, Int[np.ndarray, " slot"], int],
) -> BenchmarkPopulation:
    past = week_of(stretch.exogenous, jnp.asarray(0), first)
    record = Record.use_and_reward()
    lived = simulate(stretch.population, past, policy, initial=stretch.initial, record=record)
    weeks, resources = stretch.n_weeks - first, len(stretch.population.resources)
    quiet, nobody = np.zeros((weeks, resources)), ConstantOrder(jnp.zeros(()))
    free = _announced(stretch, first, policy, lived.final, quiet)
    committed = _announced(stretch, first, nobody, lived.final, quiet).utilization
    mean = float(np.asarray(stretch.population.demand_scale).mean())
    return BenchmarkPopulation(path, stretch, cohort, policy, first, lived.final, free, committed, mean, *drawn)


def _rest(stretch: PopulationWindow, first: int) -> ExogenousPaths:
    return week_of(stretch.exogenous, jnp.asarray(first), stretch.n_weeks - first)


def _announced(
    stretch: PopulationWindow,
    first: int,
    policy: Policy,
    state: State,
    shadow_prices: Float[np.ndarray, "week resource"],
) -> ControlOutcome:
    prices = jnp.asarray(shadow_prices, jnp.float32)
    use, reward = simulate_prices(
        stretch.population, broadcast_scenarios(_rest(stretch, first), 1), policy, state, prices
    )
    return ControlOutcome(np.asarray(use[0], float), float(reward[0]), np.asarray(shadow_prices, float))
