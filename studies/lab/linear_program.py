"""A linear program with known shadow prices: perfect information, no lead time, capacity for most of the demand.

HiGHS solves the program; the level bundle finds the same prices by simulating agents with perfect foresight.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sparse
from jaxtyping import Array, Float
from scipy.optimize import linprog

from lab.bundle import LevelBundle, ValuedProblem
from walras.clipping import positive_part
from walras.exogenous.arrivals import IntegerLeadTimes
from walras.exogenous.paths import constant_paths
from walras.planning.prices.simulated_view import SimulatedView
from walras.policies.base import Observation, Policy
from walras.population.population import Population
from walras.simulation.week import empty_state

WEEKS, UNIT_COST, GRANTED = 26, 0.01, 0.8
"""Weeks; cost of a unit; share of demand that capacity covers from the third week on."""


class PerfectForesight(Policy):
    """Optimal orders of an agent that knows all demand to come and the announced prices.

    A unit bought in week s for week u costs C_s + H_u - H_s, with C_s = unit cost + use x flow prices of week s, and
    H_u the holding cost and storage prices of the weeks before u; losing the sale costs sale price + penalty. What a
    week's demand costs at best rises by at most the holding cost from one week to the next, so stock serves the
    earliest demand first, as the laws of the week do anyway, and the rest of the demand decides unit by unit.

    Exact with lead time 0, lost sales, nothing on order at the start, a pipeline with room for the whole horizon (so
    that the announced window shows every price to come), and costs and sale price that stay as they are this week.
    Each response is bang-bang: use jumps with the prices, see `lab.bundle`.

    Attributes:
        demand: of each agent in every week of the run [units/week].
    """

    demand: Float[Array, "week agent"]

    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return the demand of this and coming weeks that stock does not cover and that is best bought now."""
        ahead = jnp.arange(shadow_prices.shape[0])
        demand = jnp.take(self.demand, observation.week + ahead, axis=0, mode="fill", fill_value=0.0)
        before = jnp.cumsum(demand, axis=0) - demand
        uncovered = demand - jnp.clip(observation.position[None, :] - before, 0.0, demand)
        bought, held = _costs(observation, shadow_prices)
        relative = bought - held  # what differs between the weeks in which a unit can be bought
        cheapest_now = relative[:1] <= jax.lax.cummin(relative, axis=0)
        worthwhile = relative[:1] + held < (observation.sale_price + observation.population.lost_sale_penalty)[None, :]
        return positive_part(jnp.sum(jnp.where(cheapest_now & worthwhile, uncovered, 0.0), axis=0))


def _costs(
    observation: Observation, shadow_prices: Float[Array, "lead resource"]
) -> tuple[Float[Array, "lead agent"], Float[Array, "lead agent"]]:
    """Return what a unit bought in each coming week costs, and what holding one from now until that week costs."""
    population = observation.population
    is_stock = jnp.asarray(population.stock_resource, shadow_prices.dtype)
    flow = shadow_prices @ (population.use * (1.0 - is_stock)[None, :]).T
    storage = shadow_prices @ (population.use * is_stock[None, :]).T
    weekly = population.holding_cost[None, :] + storage
    return observation.unit_cost[None, :] + flow, jnp.cumsum(weekly, axis=0) - weekly


class InventoryProgram:
    """Demand, costs, initial stock and capacity.

    Attributes:
        demand: of every product [units; product, week].
        holding, penalty: of a unit [money].
        stock: at the start [units].
        capacity: K [units/week].
    """

    def __init__(self, products: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.demand = random.poisson(random.uniform(1, 9, products)[:, None], (products, WEEKS)).astype(float)
        self.holding, self.penalty = random.uniform(0.5, 1.5, products), random.uniform(5, 15, products)
        self.stock = 2 * self.demand.mean(1)
        self.capacity = GRANTED * self.demand.sum(0)
        self.capacity[:2] = self.demand.sum(0)[:2]


def solve_program(instance: InventoryProgram) -> tuple[float, Float[np.ndarray, " week"]]:
    """Solve the linear program; return its cost [money] and the prices of capacity [money/unit]."""
    products = len(instance.demand)
    size = products * WEEKS
    index = np.arange(size).reshape(products, WEEKS)
    places = (index[:, 1:].ravel(), index[:, :-1].ravel())
    shift = sparse.csr_matrix((np.ones(size - products), places), shape=(size, size))
    eye = sparse.identity(size, format="csr")
    balance = sparse.hstack([-eye, eye - shift, -eye]).tocsr()
    right = -instance.demand.copy()
    right[:, 0] += instance.stock
    bought = sparse.kron(np.ones((1, products)), sparse.identity(WEEKS))
    rows = sparse.hstack([bought, sparse.csr_matrix((WEEKS, 2 * size))]).tocsr()
    cost = np.concatenate(
        [np.full(size, UNIT_COST), np.repeat(instance.holding, WEEKS), np.repeat(instance.penalty, WEEKS)]
    )
    limits = {"A_ub": rows, "b_ub": instance.capacity, "A_eq": balance, "b_eq": right.ravel()}
    solved = linprog(cost, **limits, bounds=(0, None), method="highs")
    return float(solved.fun), -np.asarray(solved.ineqlin.marginals)


def view_of(instance: InventoryProgram) -> SimulatedView:
    """Return a view of agents that know their demand and respond optimally to prices."""
    products = len(instance.demand)
    single = lambda values: jnp.asarray(values, jnp.float32)  # noqa: E731
    population = Population(
        holding_cost=single(instance.holding),
        lost_sale_penalty=single(instance.penalty),
        lead_time=jnp.zeros(products, jnp.int32),
        demand_scale=single(instance.demand.mean(1)),
        unit_margin=single(instance.penalty - UNIT_COST),
        use=jnp.ones((products, 1)),
        weight=jnp.ones(products),
        resources=("inbound_units",),
    )
    arrivals = IntegerLeadTimes(jnp.zeros((1, WEEKS, products), jnp.int8))
    paths = constant_paths(instance.demand.T[None], arrivals, unit_cost=UNIT_COST)
    initial = empty_state(products, WEEKS, single(instance.stock))
    return SimulatedView(population, paths, PerfectForesight(single(instance.demand.T)), initial)


def compare_with_program(products: int, seed: int) -> dict[str, Any]:
    """Find prices through the simulator, and compare them with the program's.

    Returns:
        Relative differences of `dual` value, `primal` objective and `prices` (their sum), the distance of single
        prices as a share of the largest, `queries`, and `seconds` of both.
    """
    instance = InventoryProgram(products, seed)
    started = time.perf_counter()
    cost, exact = solve_program(instance)
    middle = time.perf_counter()
    problem = ValuedProblem.from_view(view_of(instance), instance.capacity[:, None])
    found = LevelBundle().solve(problem, np.zeros(WEEKS))
    return {
        "products": products,
        "dual": -found.dual_value / cost - 1,
        "primal": -found.primal_value / cost - 1,
        "prices": float(found.prices.sum() / exact.sum() - 1),
        "largest_price_gap": float(np.abs(found.prices - exact).max() / exact.max()),
        "violation": found.violation,
        "queries": found.queries,
        "program_seconds": middle - started,
        "seconds": time.perf_counter() - middle,
    }
