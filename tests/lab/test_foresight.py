"""Perfect foresight is the best response: a linear program per agent does no better."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from lab.linear_program import PerfectForesight
from walras.exogenous.arrivals import IntegerLeadTimes
from walras.exogenous.paths import constant_paths
from walras.population.population import Population
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.week import empty_state

WEEKS, AGENTS = 26, 30
UNIT_COST, SALE_PRICE = 0.5, 2.0
RESOURCES = ("inbound_units", "inbound_volume", "storage")


class Instance:
    """Draw agents whose numbers single precision holds exactly, so that only decisions can differ."""

    def __init__(self, seed: int, agents: int = AGENTS) -> None:
        rng = np.random.default_rng(seed)
        mean = rng.uniform(1, 9, agents)
        self.demand = rng.poisson(mean, (WEEKS, agents)).astype(float)
        self.holding = rng.integers(32, 96, agents) / 64
        self.penalty = rng.integers(5 * 64, 15 * 64, agents) / 64
        self.stock = rng.integers(0, 40, agents) / 4
        self.use = np.stack([np.ones(agents), rng.integers(0, 128, agents) / 64, rng.integers(0, 64, agents) / 64], -1)

    def population(self) -> Population:
        single = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
        agents = len(self.stock)
        return Population(
            holding_cost=single(self.holding),
            lost_sale_penalty=single(self.penalty),
            lead_time=jnp.zeros(agents, jnp.int32),
            demand_scale=single(self.demand.mean(0)),
            unit_margin=jnp.full(agents, SALE_PRICE - UNIT_COST),
            use=single(self.use),
            weight=jnp.ones(agents),
            resources=RESOURCES,
        )

    def simulated(self, prices: np.ndarray) -> np.ndarray:
        """Return what each agent pays in the simulator, revenue deducted, with perfect foresight."""
        agents = len(self.stock)
        arrivals = IntegerLeadTimes(jnp.zeros((WEEKS, agents), jnp.int8))
        paths = constant_paths(self.demand, arrivals, sale_price=SALE_PRICE, unit_cost=UNIT_COST)
        rollout = simulate(
            self.population(),
            paths,
            PerfectForesight(jnp.asarray(self.demand, jnp.float32)),
            initial=empty_state(agents, WEEKS, jnp.asarray(self.stock, jnp.float32)),
            shadow_prices=jnp.asarray(prices, jnp.float32),
            record=Record.traces(),
        )
        happened = jax.tree.map(lambda leaf: np.asarray(leaf, float), rollout.agents)
        paid = np.einsum("tir,tr->i", happened.utilization, prices)
        return paid - happened.reward.sum(0)

    def program(self, prices: np.ndarray, agent: int) -> float:
        """Return the least that an agent can pay: orders, stock at the end of a week and lost sales >= 0."""
        flow, storage = prices[:, :2] @ self.use[agent, :2], prices[:, 2] * self.use[agent, 2]
        demand = self.demand[:, agent]
        cost = np.concatenate(
            [UNIT_COST + flow, self.holding[agent] + storage, np.full(WEEKS, SALE_PRICE + self.penalty[agent])]
        )
        eye = np.eye(WEEKS)
        balance = np.hstack([eye, np.eye(WEEKS, k=-1) - eye, eye])
        right = demand - self.stock[agent] * (np.arange(WEEKS) == 0)
        found = linprog(cost, A_eq=balance, b_eq=right, bounds=(0, None), method="highs")
        return found.fun - SALE_PRICE * demand.sum()


def path(seed: int, top: float) -> np.ndarray:
    """Draw prices on a grid that single precision holds; every fourth is 0."""
    rng = np.random.default_rng(seed)
    prices = rng.integers(0, int(top * 64), (WEEKS, 3)) / 64 * [1.0, 0.5, 0.25]
    return prices * (rng.uniform(size=prices.shape) > 0.25)


@pytest.mark.parametrize(("seed", "top"), [(0, 0.1), (1, 3.0), (2, 12.0), (3, 40.0)])
def test_no_program_does_better(seed: int, top: float) -> None:
    instance, prices = Instance(seed), path(seed, top)
    least = [instance.program(prices, agent) for agent in range(AGENTS)]
    np.testing.assert_allclose(instance.simulated(prices), least, rtol=1e-6, atol=1e-4)


def test_a_path_is_cut_with_its_agents() -> None:
    """More agents than fit one block: everybody still knows its own demand."""
    many, prices = Instance(5, agents=2100), path(5, 8.0)
    paid = many.simulated(prices)
    for agent in (0, 51, 52, 2047, 2048, 2099):  # the second block starts at 52, so that it is full
        assert paid[agent] == pytest.approx(many.program(prices, agent), rel=1e-6, abs=1e-4)


def test_a_dear_week_is_bought_for_before() -> None:
    """A pulse below the holding cost of one week moves nothing, one above moves one week's demand one week forward."""
    arrivals = IntegerLeadTimes(jnp.zeros((6, 1), jnp.int8))
    population = Population(
        *(jnp.ones(1), jnp.full(1, 10.0), jnp.zeros(1, jnp.int32), jnp.ones(1), jnp.ones(1)),
        use=jnp.ones((1, 1)),
        weight=jnp.ones(1),
        resources=("inbound_units",),
    )
    demand = np.array([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])
    policy, paths = PerfectForesight(jnp.asarray(demand, jnp.float32)), constant_paths(demand, arrivals)
    for pulse, expected in ((0.9, [1, 2, 3, 4, 5, 6]), (1.1, [1, 2, 7, 0, 5, 6])):
        prices = jnp.zeros((6, 1)).at[3].set(pulse)
        rollout = simulate(population, paths, policy, initial=empty_state(1, 6), shadow_prices=prices)
        np.testing.assert_array_equal(rollout.totals.orders, expected)
