"""Own the linear program whose shadow prices are known: perfect information, no lead time, capacity for most demand.

FREE: the program is solved by HiGHS, the agents by the level bundle through the simulator.
"""

import time
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sparse
from jaxtyping import Float
from scipy.optimize import linprog

from lab.bundle import LevelBundle, ValuedProblem
from lab.perfect_foresight import PerfectForesight
from walras.exogenous.arrivals import IntegerLeadTimes
from walras.exogenous.paths import constant_paths
from walras.planning.prices.simulated_view import SimulatedView
from walras.population.population import Population
from walras.simulation.state import empty_state

WEEKS, UNIT_COST, GRANTED = 26, 0.01, 0.8
"""Weeks; cost of a unit; share of demand that capacity covers from the third week on."""


class Plan:
    """Hold an instance: demand, costs, starting stock and capacity.

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


def program(plan: Plan) -> tuple[float, Float[np.ndarray, " week"]]:
    """Solve the linear program; return its cost [money] and the prices of capacity [money/unit]."""
    products = len(plan.demand)
    size = products * WEEKS
    index = np.arange(size).reshape(products, WEEKS)
    places = (index[:, 1:].ravel(), index[:, :-1].ravel())
    shift = sparse.csr_matrix((np.ones(size - products), places), shape=(size, size))
    eye = sparse.identity(size, format="csr")
    balance = sparse.hstack([-eye, eye - shift, -eye]).tocsr()
    right = -plan.demand.copy()
    right[:, 0] += plan.stock
    bought = sparse.kron(np.ones((1, products)), sparse.identity(WEEKS))
    rows = sparse.hstack([bought, sparse.csr_matrix((WEEKS, 2 * size))]).tocsr()
    cost = np.concatenate([np.full(size, UNIT_COST), np.repeat(plan.holding, WEEKS), np.repeat(plan.penalty, WEEKS)])
    limits = {"A_ub": rows, "b_ub": plan.capacity, "A_eq": balance, "b_eq": right.ravel()}
    solved = linprog(cost, **limits, bounds=(0, None), method="highs")
    return float(solved.fun), -np.asarray(solved.ineqlin.marginals)


def view_of(plan: Plan) -> SimulatedView:
    """Let every product be run by an agent that knows its demand and answers prices as is best for it."""
    products = len(plan.demand)
    single = lambda values: jnp.asarray(values, jnp.float32)  # noqa: E731
    population = Population(
        holding_cost=single(plan.holding),
        lost_sale_penalty=single(plan.penalty),
        lead_time=jnp.zeros(products, jnp.int32),
        demand_scale=single(plan.demand.mean(1)),
        unit_margin=single(plan.penalty - UNIT_COST),
        use=jnp.ones((products, 1)),
        weight=jnp.ones(products),
        resources=("inbound_units",),
    )
    arrivals = IntegerLeadTimes(jnp.zeros((1, WEEKS, products), jnp.int8))
    paths = constant_paths(plan.demand.T[None], arrivals, unit_cost=UNIT_COST)
    initial = empty_state(products, WEEKS, single(plan.stock))
    return SimulatedView(population, paths, PerfectForesight(single(plan.demand.T)), initial)


def against_program(products: int, seed: int) -> dict[str, Any]:
    """Find prices through the simulator, and compare with the program's.

    Args:
        products: of the instance.
        seed: draws it; 0 is the published one.

    Returns:
        Relative differences of `dual` value, `primal` objective and `prices` (their sum), the distance of single
        prices as a share of the largest, `queries`, and `seconds` of both.
    """
    plan = Plan(products, seed)
    started = time.perf_counter()
    cost, exact = program(plan)
    middle = time.perf_counter()
    problem = ValuedProblem.from_view(view_of(plan), plan.capacity[:, None])
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
