"""What policies remember and read: the same whether a run is one pass, weeks apart, in blocks, scenarios or ranges."""

import jax.numpy as jnp
import numpy as np
import pytest

from walras.exogenous.arrivals import ConstantLeadTime
from walras.exogenous.paths import constant_paths
from walras.policies.base import AbstractPolicy, Memory
from walras.population.along import Shared
from walras.ties import positive_part

from shops import textbook_shop  # isort: skip

WEEKS, AGENTS = 9, 6


class Recaller(AbstractPolicy):
    """Order last week's demand plus a shared share of the last order; as many shared numbers as there are agents."""

    share: Shared

    def begin(self, population):
        nothing = jnp.zeros(population.n_agents)
        return Memory(nothing, nothing)

    def read(self, memory, outlooks, demand):
        known = jnp.concatenate([memory[None], demand[:-1]])
        return known, demand[-1]

    def remember(self, observation, orders):
        return orders

    def encode(self, outlook, shadow_prices):
        return outlook.read

    def decide(self, encoded, observation, shadow_prices):
        return positive_part(encoded + self.share.value.mean() * observation.memory.own)

    def orders(self, observation, shadow_prices):
        return self.decide(observation.read, observation, shadow_prices)


@pytest.fixture
def case():
    demand = np.random.default_rng(1).poisson(5.0, (WEEKS, AGENTS)).astype(np.float32)
    paths = constant_paths(demand, ConstantLeadTime(2), sale_price=3.0, unit_cost=2.0)
    return textbook_shop(AGENTS, lead_time=2), paths, Recaller(Shared(jnp.full(AGENTS, 0.25)))


def by_hand(demand):
    orders, last = [], np.zeros(demand.shape[1])
    for week in range(len(demand)):
        last = (demand[week - 1] if week else 0.0) + 0.25 * last
        orders.append(last)
    return np.stack(orders)
