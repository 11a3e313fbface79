"""Own the cases that maps are judged on: populations of another mix under prices that a planner would ask about.

OPEN: add an attribute to shift by or a source of prices here; training must never see this module's draws.
"""

from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lab.fitted_prices import fitted_prices, sampled, use_under
from walras.evaluation.metrics import NEAR_LIMIT
from walras.exogenous.capacity import (
    AbstractCapacityFamily,
    HaarCapacity,
    HaarPrices,
    PulsePrices,
    calibrate_level,
    unseen_families,
)
from walras.maps.features import HORIZON
from walras.maps.rollout import MapRollout, PopulationWindow, roll_out
from walras.policies.base import Policy
from walras.population.shift import CompositionShift
from walras.train.agent_pool import AgentPool
from walras.train.shocks import typical_prices

BY = ("demand", "economics", "lead_time", "weeks_of_cover")
"""Attributes along which judged populations shift; training knows the first two."""

FREE_PRICES = {"Haar prices": HaarPrices(), "pulse prices": PulsePrices()}
"""Prices that follow no capacity."""


def families() -> dict[str, AbstractCapacityFamily]:
    """Return capacity families of which every path is drawn anew; only the last has a law that training knows."""
    return {**unseen_families(), "held-out Haar": HaarCapacity()}


def kinds() -> tuple[str, ...]:
    """Name where prices come from, in the order in which cases take turns."""
    return (*families(), *FREE_PRICES)


@dataclass(frozen=True)
class ShiftSizes:
    """Say how large cases are.

    Attributes:
        target: agents of a judged population.
        sample: agents that prices are fitted on.
        weeks: weeks simulated.
        origins, spacing: weeks that are forecast from, and weeks between them; the last has a whole horizon after it.
        priced: first week with a price.
        steps: dual steps.
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
        """Count the weeks up to and with the last origin."""
        return self.weeks - HORIZON

    @property
    def origin_weeks(self) -> Int[np.ndarray, " origin"]:
        """Return the origins."""
        return self.known - 1 - self.spacing * np.arange(self.origins)[::-1]


@dataclass(frozen=True, eq=False)
class ShiftCase:
    """Hold a population over some weeks under announced prices, and what it did.

    Attributes:
        by, alpha: how its composition was shifted.
        kind: where its prices come from.
        number: cases of one number share weeks and kind, whatever their shift.
        demand_ratio: its mean demand over that of an unshifted population.
        near_limit: share of priced weeks whose use without prices is above 0.9 of capacity; None without a capacity.
        agents, start: who of the world, and its first week.
        stretch: the population and its paths.
        prices: announced in full [money per unit of resource].
        rolled: what happened.
    """

    by: str
    alpha: float
    kind: str
    number: int
    demand_ratio: float
    near_limit: float | None
    agents: Int[np.ndarray, " slot"]
    start: int
    stretch: PopulationWindow
    prices: Float[Array, "week resource"]
    rolled: MapRollout


@dataclass(frozen=True, eq=False)
class ShiftCases:
    """Draw cases out of a world that training never saw.

    Attributes:
        world: the pool.
        policy: what agents follow.
        sizes: of the cases.
        seed: of all that is drawn.
    """

    world: AgentPool
    policy: Policy
    sizes: ShiftSizes = ShiftSizes()
    seed: int = 0

    def draw(self, by: str, alpha: float, number: int) -> ShiftCase:
        """Draw a case; its weeks and its kind of prices follow from the number alone.

        Args:
            by: attribute, one of `BY`.
            alpha: strength of the shift.
            number: of the case.
        """
        chance = np.random.default_rng([self.seed, number, 0x1D6E])
        start = int(chance.integers(self.world.n_weeks - self.sizes.weeks + 1))
        random = np.random.default_rng([self.seed, number, BY.index(by), round(1000 * alpha) + 10**6])
        agents = self._agents(by, alpha, start, random)
        kind = kinds()[number % len(kinds())]
        prices, near_limit = self._prices(kind, agents, start, chance)
        stretch = self.world.window(agents, start, self.sizes.weeks)
        rolled = roll_out(stretch, self.policy, prices)
        ratio = self._ratio(by, alpha, start)
        return ShiftCase(by, alpha, kind, number, ratio, near_limit, agents, start, stretch, prices, rolled)

    def values(self, by: str) -> Float[np.ndarray, " agent"]:
        """Return an attribute of every agent of the world."""
        population = self.world.population
        if by == "weeks_of_cover":
            return self._cover
        named = {"demand": "demand_scale", "economics": "unit_margin", "lead_time": "lead_time"}
        return np.asarray(getattr(population, named[by]), float)

    @cached_property
    def _cover(self) -> Float[np.ndarray, " agent"]:
        """Simulate everybody without prices and return mean stock over mean demand [weeks]."""
        weeks = self.sizes.weeks
        stretch = self.world.window(np.arange(self.world.n_agents), 0, weeks)
        ledger = roll_out(stretch, self.policy, jnp.zeros((weeks, stretch.population.use.shape[1]))).agent_history
        stock = np.asarray(ledger.stock_start[self.sizes.priced :]).mean(0)
        return stock / np.maximum(np.asarray(stretch.exogenous.demand).mean(0), 1e-3)

    def _shift(self, by: str) -> CompositionShift:
        demand = np.asarray(self.world.population.demand_scale)
        return CompositionShift.fit(self.values(by), by, demand)

    def _lately(self, start: int) -> Float[np.ndarray, " agent"]:
        return self.world.active[start + int(self.sizes.origin_weeks[0])].astype(float)

    def _agents(self, by: str, alpha: float, start: int, random: np.random.Generator) -> Int[np.ndarray, " slot"]:
        shift, within = self._shift(by), self._lately(start)
        return shift.draw(self.values(by), alpha, self.sizes.target, random, within, replace=False)

    def _ratio(self, by: str, alpha: float, start: int) -> float:
        demand = np.asarray(self.world.population.demand_scale)
        return self._shift(by).induced_mean_ratio(self.values(by), alpha, demand, self._lately(start))

    def _prices(
        self, kind: str, agents: Int[np.ndarray, " slot"], start: int, random: np.random.Generator
    ) -> tuple[Float[Array, "week resource"], float | None]:
        """Draw prices of a kind: those that fit a capacity, or free ones."""
        sizes, seed = self.sizes, int(random.integers(2**31))
        sample = sampled(self.world, agents, start, sizes.weeks, sizes.sample, random)
        unit = typical_prices(self.world.population)
        if kind in FREE_PRICES:
            return jnp.asarray(FREE_PRICES[kind].sample(seed, sizes.weeks, unit).prices, jnp.float32), None
        free = np.asarray(use_under(sample, self.policy, jnp.zeros((sizes.weeks, len(unit)))))
        capacity, near = tuned_capacity(families()[kind], free, sizes.priced, seed)
        limit = jnp.asarray(capacity, jnp.float32)
        return fitted_prices(sample, self.policy, limit, sizes.priced, sizes.steps), near


def tuned_capacity(
    family: AbstractCapacityFamily, free: Float[np.ndarray, "week resource"], first: int, seed: int
) -> tuple[Float[np.ndarray, "week resource"], float]:
    """Draw a capacity path of which about 55 % of the weeks are near-limit, and say how many are.

    Args:
        family: its shape; level and spread are tuned.
        free: use without prices.
        first: first week that counts; before it capacity is that of this week.
        seed: draws the path.
    """
    counted = np.maximum(free[first:], 1e-6)
    tuned = calibrate_level(family, counted).family
    path = tuned.sample(seed, len(counted), counted.mean(0))
    near = float(np.mean(counted > NEAR_LIMIT * path))
    return np.concatenate([np.repeat(path[:1], first, axis=0), path]), near
