"""Cases that maps are evaluated on: populations of another mix under prices that a planner would query.

Training never sees these draws.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lab.capacity_families import calibrate_level, unseen_families
from walras.evaluation.metrics import NEAR_LIMIT
from walras.exogenous.capacity import AbstractCapacityFamily, HaarCapacity, HaarPrices, PulsePrices
from walras.maps.features import HORIZON, units_of
from walras.maps.rollout import MapRollout, PopulationWindow, roll_out
from walras.planning.prices.dual_ascent import adapt_step
from walras.policies.base import Policy
from walras.population.cohort import ProportionalSample
from walras.population.shift import CompositionShift
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.train.agent_pool import AgentPool
from walras.train.shocks import typical_prices

BY = ("demand", "economics", "lead_time", "weeks_of_cover")
"""Attributes along which populations shift; training shifts along the first two."""

FREE_PRICES = {"Haar prices": HaarPrices(), "pulse prices": PulsePrices()}
"""Prices that follow no capacity."""

FIRST_STEP = 0.5
"""Price step in median margins where use is twice the capacity."""

MOST = 3.0
"""Highest fitted price, in median margins: a week that needs more stays violated."""

WeekResource = Float[Array, "week resource"]


def families() -> dict[str, AbstractCapacityFamily]:
    """Return the capacity families; training knows the law of the last one only."""
    return {**unseen_families(), "held-out Haar": HaarCapacity()}


def kinds() -> tuple[str, ...]:
    """Return the names of the sources of prices, in the order in which cases take turns."""
    return (*families(), *FREE_PRICES)


@dataclass(frozen=True)
class ShiftSizes:
    """Sizes of the cases.

    Attributes:
        target: agents of a population.
        sample: agents that prices are fitted on.
        weeks: simulated.
        origins, spacing: weeks to forecast from, and weeks between them; the last has a whole horizon after it.
        priced: first week with a price.
        steps: of dual ascent.
    """

    target: int = 5000
    sample: int = 800
    weeks: int = 142
    origins: int = 4
    spacing: int = 16
    priced: int = 26
    steps: int = 40

    @property
    def known(self) -> int:
        """Number of weeks up to and with the last origin."""
        return self.weeks - HORIZON

    @property
    def origin_weeks(self) -> Int[np.ndarray, " origin"]:
        """The origins."""
        return self.known - 1 - self.spacing * np.arange(self.origins)[::-1]

    def fitted_to(self, agent_pool: AgentPool) -> "ShiftSizes":
        """Reduce the sizes to the weeks and agents of a short table; all origins are in its second half."""
        weeks = min(self.weeks, agent_pool.n_weeks)
        origins = min(self.origins, max((weeks - weeks // 2 - HORIZON - 1) // self.spacing + 1, 1))
        target = min(self.target, agent_pool.n_agents)
        return replace(self, weeks=weeks, origins=origins, target=target, priced=min(self.priced, weeks // 4))


@dataclass(frozen=True, eq=False)
class ShiftCase:
    """A population over some weeks under announced prices, as simulated.

    Attributes:
        by, alpha: shift of its composition.
        kind: source of its prices.
        number: cases of one number share weeks and kind, whatever their shift.
        demand_ratio: its mean demand over that of an unshifted population.
        near_limit: share of priced weeks whose use without prices is above 0.9 of capacity; None without a capacity.
        agents, start: index in the pool of each agent, and first week in the pool.
        pop_window: the population and its paths.
        prices: announced in full [money per unit of resource].
        rolled: simulation.
    """

    by: str
    alpha: float
    kind: str
    number: int
    demand_ratio: float
    near_limit: float | None
    agents: Int[np.ndarray, " slot"]
    start: int
    pop_window: PopulationWindow
    prices: WeekResource
    rolled: MapRollout


def demand_ratio(
    shift: CompositionShift,
    values: Float[np.ndarray, " agent"],
    alpha: float,
    demand: Float[np.ndarray, " agent"],
    within: Float[np.ndarray, " agent"] | None = None,
) -> float:
    """Return expected mean demand of agents drawn under `alpha` over that of agents drawn under 0.

    Args:
        shift, values, alpha, within: how agents are drawn, see `CompositionShift.chances`.
        demand: mean demand of the same agents [units/week].
    """
    mean = np.asarray(demand, float)
    return float(shift.chances(values, alpha, within) @ mean / (shift.chances(values, 0.0, within) @ mean))


@dataclass(frozen=True, eq=False)
class ShiftCases:
    """Cases drawn out of an agent pool that training never saw.

    Attributes:
        agent_pool: the pool.
        policy: of the agents.
        sizes: of the cases.
        seed: of all draws.
    """

    agent_pool: AgentPool
    policy: Policy
    sizes: ShiftSizes = ShiftSizes()
    seed: int = 0

    def draw(self, by: str, alpha: float, number: int) -> ShiftCase:
        """Draw a case; its weeks and its kind of prices follow from the number alone."""
        common = np.random.default_rng([self.seed, number, 0x1D6E])
        start = int(common.integers(self.agent_pool.n_weeks - self.sizes.weeks + 1))
        random = np.random.default_rng([self.seed, number, BY.index(by), round(1000 * alpha) + 10**6])
        demand = np.asarray(self.agent_pool.population.demand_scale)
        shift, values = CompositionShift.fit(self.values(by), by), self.values(by)
        active = self.agent_pool.active[start + int(self.sizes.origin_weeks[0])].astype(float)
        agents = shift.draw(values, alpha, self.sizes.target, random, active, replace=False)
        kind = kinds()[number % len(kinds())]
        prices, near_limit = self._prices(kind, agents, start, common)
        pop_window = self.agent_pool.window(agents, start, self.sizes.weeks)
        rolled = roll_out(pop_window, self.policy, prices)
        ratio = demand_ratio(shift, values, alpha, demand, active)
        return ShiftCase(by, alpha, kind, number, ratio, near_limit, agents, start, pop_window, prices, rolled)

    def values(self, by: str) -> Float[np.ndarray, " agent"]:
        """Return an attribute of every agent of the pool."""
        if by == "weeks_of_cover":
            return self._cover
        named = {"demand": "demand_scale", "economics": "unit_margin", "lead_time": "lead_time"}
        return np.asarray(getattr(self.agent_pool.population, named[by]), float)

    @cached_property
    def _cover(self) -> Float[np.ndarray, " agent"]:
        """Mean stock over mean demand of all agents, simulated without prices [weeks]."""
        weeks = self.sizes.weeks
        pop_window = self.agent_pool.window(np.arange(self.agent_pool.n_agents), 0, weeks)
        rolled = roll_out(pop_window, self.policy, jnp.zeros((weeks, pop_window.population.use.shape[1])))
        stock = np.asarray(rolled.agent_history.stock_start[self.sizes.priced :]).mean(0)
        return stock / np.maximum(np.asarray(pop_window.exogenous.demand).mean(0), 1e-3)

    def _prices(
        self, kind: str, agents: Int[np.ndarray, " slot"], start: int, random: np.random.Generator
    ) -> tuple[WeekResource, float | None]:
        """Draw prices of a kind: those that fit a capacity, or free ones."""
        sizes, seed = self.sizes, int(random.integers(2**31))
        sample = sample_window(self.agent_pool, agents, start, sizes.weeks, sizes.sample, random)
        unit = typical_prices(self.agent_pool.population)
        if kind in FREE_PRICES:
            return jnp.asarray(FREE_PRICES[kind].sample(seed, sizes.weeks, unit).prices, jnp.float32), None
        free = np.asarray(use_under_prices(sample, self.policy, jnp.zeros((sizes.weeks, len(unit)))))
        capacity, near = draw_capacity(families()[kind], free, sizes.priced, seed)
        limit = jnp.asarray(capacity, jnp.float32)
        return fit_prices(sample, self.policy, limit, sizes.priced, sizes.steps), near


def draw_capacity(
    family: AbstractCapacityFamily, free: Float[np.ndarray, "week resource"], first: int, seed: int
) -> tuple[Float[np.ndarray, "week resource"], float]:
    """Draw a capacity path of which about 55 % of the weeks are near-limit, and return their share."""
    counted = np.maximum(free[first:], 1e-6)
    path = calibrate_level(family, counted).family.sample(seed, len(counted), counted.mean(0))
    near = float(np.mean(counted > NEAR_LIMIT * path))
    return np.concatenate([np.repeat(path[:1], first, axis=0), path]), near


def sample_window(
    agent_pool: AgentPool, agents: np.ndarray, start: int, weeks: int, count: int, random: np.random.Generator
) -> PopulationWindow:
    """Cut out a weighted sample of `count` agents, drawn in proportion to demand."""
    cohort = ProportionalSample().draw(np.asarray(agent_pool.population.demand_scale)[agents], count, random)
    return agent_pool.window(agents[cohort.index], start, weeks, weight=cohort.weight)


@eqx.filter_jit
def use_under_prices(pop_window: PopulationWindow, policy: Policy, prices: WeekResource) -> WeekResource:
    """Simulate a window under announced prices, and return utilization."""
    parts, record = (pop_window.population, pop_window.exogenous, policy), Record.use_and_reward()
    rollout = simulate(*parts, initial=pop_window.initial, shadow_prices=prices, record=record, throw=False)
    return rollout.totals.utilization


@eqx.filter_jit
def fit_prices(
    pop_window: PopulationWindow, policy: Policy, capacity: WeekResource, first: int, steps: int = 40
) -> WeekResource:
    """Return the best prices met in projected dual ascent, lambda <- [lambda + step (U - K) / K]+.

    The search of `walras.planning.prices` finds better ones; these only have to be prices that a planner would query.

    Args:
        pop_window: usually a weighted sample.
        policy: of the agents.
        capacity: K [units of resource].
        first: first week that may have a price.
        steps: simulations.

    Returns:
        Prices [money per unit of resource].
    """
    unit = units_of(pop_window.population).price[None, :]
    priced = (jnp.arange(pop_window.n_weeks) >= first)[:, None]

    def ascend(carry: tuple, _: None) -> tuple[tuple, None]:
        prices, step, last, best, least = carry
        use = use_under_prices(pop_window, policy, prices * unit)
        excess = jnp.where(priced, (use - capacity) / capacity, 0.0)
        gap = jnp.where(prices >= MOST, jnp.maximum(-excess, 0.0), jnp.minimum(prices, -excess))
        residual = jnp.abs(jnp.where(priced, gap, 0.0)).sum()
        best = jnp.where(residual < least, prices, best)
        step = adapt_step(step, excess, last, 1e-3 * FIRST_STEP, 4.0 * FIRST_STEP)
        prices = jnp.clip(prices + step * excess, 0.0, MOST)
        return (prices, step, excess, best, jnp.minimum(residual, least)), None

    zeros = jnp.zeros_like(capacity)
    start = (zeros, jnp.full_like(capacity, FIRST_STEP), zeros, zeros, jnp.inf)
    return jax.lax.scan(ascend, start, None, length=steps)[0][3] * unit
