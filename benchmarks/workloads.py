"""The two workloads: what `simulate` is given so that it does the bare scan's work, and its own full work.

Needs no more than jax, numpy and equinox, so that it runs where the rest of the package is not installed.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from bare_scan import HOLDING, LEVEL, PENALTY, SALE_PRICE, UNIT_COST

from walras.clipping import positive_part
from walras.exogenous.arrivals import (
    ConstantLeadTime,
    IntegerLeadTimes,
    draw_lead_times,
    lead_time_sd,
    longest_lead_time,
)
from walras.exogenous.paths import ExogenousPaths, constant_paths, lead_time_demand
from walras.policies.base import Policy
from walras.policies.base_stock import GammaDemand, PricedNewsvendor
from walras.population.population import Population
from walras.simulation.gradients import reward_gradient
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.week import State, empty_state

WEEKS = 156
LEAD, MEAN_DEMAND = 2, 5.0
DISTINCT = 20_000
"""Agents drawn; larger populations repeat them, since what is drawn changes neither the time nor the memory."""

DEFAULT, LEANEST = "nine totals", "two totals"
RECORDS = {DEFAULT: Record.totals(), LEANEST: Record.use_and_reward()}
"""What ours keeps, by the name in the table: by default nine totals a week, or the two that the bare scan keeps."""


class PricedLevel(Policy):
    """Order up to a fixed level less this week's shadow price, as the bare scan does."""

    level: float = LEVEL

    def orders(self, observation, shadow_prices):
        return positive_part(self.level - shadow_prices[0, 0] - observation.position)


@dataclass(frozen=True)
class Workload:
    """Hold everything one call of the simulator needs.

    Attributes:
        name: as it stands in the table.
        bytes_each: bytes of input that an agent-week must read, however well it is done.
        population, exogenous, policy, initial, prices: the arguments of `simulate`.
    """

    name: str
    bytes_each: int
    population: Population
    exogenous: ExogenousPaths
    policy: Policy
    initial: State
    prices: jax.Array

    def forward(self, record: Record, block: int | None = None) -> Any:
        """Run all weeks as a user does, checks of the input included."""
        return _simulate(self.prices, self._rest, record, block).totals

    def gradient(self, record: Record, block: int | None = None) -> jax.Array:
        """Return the derivative of the reward in the prices of all weeks; it has two totals, whatever the record."""
        return reward_gradient(
            self.population,
            self.exogenous,
            self.policy,
            initial=self.initial,
            shadow_prices=self.prices,
            block_agents=block,
        )[1]

    @property
    def _rest(self) -> tuple:
        return self.population, self.exogenous, self.policy, self.initial


def _simulate(prices, rest, record, block):
    population, exogenous, policy, initial = rest
    sized = {} if block is None else {"block_agents": block}
    return simulate(population, exogenous, policy, initial=initial, shadow_prices=prices, record=record, **sized)


def price_path(weeks: int = WEEKS) -> np.ndarray:
    """Give a price for every week, never a whole number, so that no stock ends exactly at zero by chance."""
    return (0.5 + 0.3 * np.sin(np.arange(weeks) / 8.0)).astype(np.float32)


def poisson_demand(agents: int, weeks: int = WEEKS) -> jax.Array:
    """Draw whole units per week and agent."""
    drawn = np.random.default_rng(0).poisson(MEAN_DEMAND, (weeks, min(agents, DISTINCT)))
    return repeat(drawn.astype(np.float32), agents)


def repeat(drawn: np.ndarray, agents: int) -> jax.Array:
    """Repeat the agents drawn (last axis) until there are as many as asked for."""
    times = -(-agents // drawn.shape[-1])
    whole = jnp.tile(jnp.asarray(drawn), (1,) * (drawn.ndim - 1) + (times,))
    return whole if whole.shape[-1] == agents else whole[..., :agents]


def bare_workload(demand: jax.Array) -> Workload:
    """Give the simulator the bare scan's work: constant prices and costs, lead time 2, a level lowered by the price."""
    weeks, agents = demand.shape
    exogenous = constant_paths(np.asarray(demand), ConstantLeadTime(LEAD), sale_price=SALE_PRICE, unit_cost=UNIT_COST)
    population = _population(
        np.full(agents, HOLDING), np.full(agents, PENALTY), np.full(agents, LEAD), np.full(agents, MEAN_DEMAND), agents
    )
    prices = jnp.asarray(price_path(weeks))[:, None]
    return Workload("bare", 4, population, exogenous, PricedLevel(), empty_state(agents, LEAD), prices)


def full_workload(agents: int, weeks: int = WEEKS) -> Workload:
    """Give the simulator everything by week and agent: demand, prices, costs, forecasts, a lead time for each order."""
    distinct = min(agents, DISTINCT)
    generator = np.random.default_rng(1)
    scale = np.exp(generator.standard_normal(distinct)).astype(np.float32) * 5
    typical = generator.integers(1, 5, distinct)
    money = np.exp(0.5 * generator.standard_normal(distinct)).astype(np.float32) * 10
    demand = scale * generator.standard_gamma(2.0, (weeks, distinct), dtype=np.float32) / 2
    mean, sd = lead_time_demand(
        np.broadcast_to(scale, demand.shape), demand.std(0) + 0 * demand, typical, lead_time_sd(typical), weeks
    )
    exogenous = ExogenousPaths(
        demand=repeat(demand, agents),
        sale_price=repeat(_wander(money, weeks, generator), agents),
        unit_cost=repeat(_wander(0.6 * money, weeks, generator), agents),
        arrivals=IntegerLeadTimes(repeat(draw_lead_times(typical, (1, weeks))[0], agents)),
        lead_demand_mean=repeat(mean, agents),
        lead_demand_sd=repeat(sd, agents),
    )
    population = _population(0.01 * money, 0.1 * money, typical, scale, agents)
    prices = jnp.asarray(price_path(weeks))[:, None]
    initial = empty_state(agents, longest_lead_time(typical))
    return Workload("full", 21, population, exogenous, PricedNewsvendor(GammaDemand()), initial, prices)


def _wander(level: np.ndarray, weeks: int, generator: np.random.Generator) -> np.ndarray:
    """Vary each agent's price by a twentieth from week to week."""
    return level * (1 + np.float32(0.05) * generator.standard_normal((weeks, len(level)), dtype=np.float32))


def _population(holding, penalty, lead_time, scale, agents) -> Population:
    def floats(values):
        return repeat(np.asarray(values, np.float32), agents)

    one = jnp.ones(agents, jnp.float32)
    return Population(
        holding_cost=floats(holding),
        lost_sale_penalty=floats(penalty),
        lead_time=repeat(np.asarray(lead_time, np.int32), agents),
        demand_scale=floats(scale),
        unit_margin=one,
        use=one[:, None],
        weight=one,
        resources=("inbound_units",),
    )
