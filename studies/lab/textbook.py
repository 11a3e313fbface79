"""Textbook stores whose mean cost is known exactly, and their simulation.

Demand of every store is drawn independently, so that errors are independent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import norm, poisson

from walras.exogenous.arrivals import IntegerLeadTimes
from walras.exogenous.paths import ExogenousPaths, constant_paths
from walras.policies.base import Policy
from walras.policies.base_stock import OrderUpTo, ReorderPoint
from walras.population.population import Population
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.week import State, empty_state

WEEKS = 300
"""Simulated; the first third is dropped."""

MAX_LEAD = 10
"""Longest lead time of the compiled shape, the same for all stores: compiling takes longer than simulating."""

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


@dataclass(frozen=True, eq=False)
class Store:
    """A store, its policy, and its exact cost.

    Attributes:
        group, name: source of the instance, and its parameters.
        demand: draws demand [week, agent].
        policy: of the store.
        start: initial stock [units], or the probabilities of 0, 1, 2, ... units.
        exact: mean cost of a week [money].
        lead: lead time [weeks].
        holding, penalty: cost of a unit held, of a unit short, for a week [money].
        order: fixed cost of an order [money].
        backlog: unmet demand waits.
    """

    group: str
    name: str
    demand: Draw
    policy: Policy
    start: float | np.ndarray
    exact: float
    lead: int = 0
    holding: float = 1.0
    penalty: float = 4.0
    order: float = 0.0
    backlog: bool = False


LOST_SALES: Mapping[tuple[int, int], Mapping[int, float]] = {
    (1, 4): {11: 4.2104, 12: 4.1628, 13: 4.38953},
    (1, 9): {13: 5.54747, 14: 5.55746},
    (1, 19): {15: 6.72779},
    (2, 4): {15: 4.75809, 16: 4.63864, 17: 4.70188},
    (2, 9): {18: 6.33153, 19: 6.31626, 20: 6.55397},
    (2, 19): {20: 7.84895, 21: 7.84217, 22: 8.14729},
    (3, 4): {19: 5.09924, 20: 4.975, 21: 4.97791},
    (3, 9): {22: 7.05712, 23: 6.86403, 24: 6.87858},
    (4, 4): {23: 5.33178, 24: 5.21796, 25: 5.19777},
}
"""Cost by (lead time, penalty) and base-stock level: Poisson(5) demand, holding cost 1, lost sales."""

NEWSVENDOR = ((0, 56.60395592743389, 1.997605193176645), (0, 40.0, 7.356131552870388), (4, 264.7667943741548, 4.466781))
"""Lead time, level and cost: Normal(50, 8) demand, holding cost .18, penalty .70, backlog."""

BACKLOGGED = tuple((lead, penalty) for lead in (0, 1, 4, 7, 10) for penalty in (4, 9))
"""Lead time and penalty of stores with Normal(5, 1.6) demand cut at 0, each at its best level."""

REORDER = (
    (15, 10, 49, 42.698),
    (25, 19, 56, 54.262),
    (35, 28, 77, 61.215),
    (45, 37, 97, 67.776),
    (55, 47, 118, 74.149),
    (65, 56, 75, 78.518),
    (75, 67, 86, 79.554),
    (22, 16, 68, 51.632),
    (24, 18, 54, 53.518),
    (52, 44, 112, 72.246),
    (61, 52, 131, 77.929),
    (64, 55, 74, 78.402),
)
"""Mean demand, s, S and cost of Zheng and Federgruen (1991): holding cost 1, penalty 9, order cost 64, backlog."""


def up_to(level: float) -> OrderUpTo:
    """Return the order-up-to policy of a level [units]."""
    return OrderUpTo(jnp.asarray(level, jnp.float32))


def lost_sales() -> list[Store]:
    """Return base-stock stores with lost sales, exact by dynamic programming."""
    draw: Draw = lambda random, shape: random.poisson(5.0, shape)  # noqa: E731
    return [
        Store("lost sales", f"L {lead}, p {penalty}, S {level}", draw, up_to(level), level, cost, lead, 1.0, penalty)
        for (lead, penalty), costs in LOST_SALES.items()
        for level, cost in costs.items()
    ]


def newsvendors() -> list[Store]:
    """Return newsvendors, whose cost is a formula or a sum."""
    draw: Draw = lambda random, shape: random.normal(50.0, 8.0, shape)  # noqa: E731
    six: Draw = lambda random, shape: random.poisson(6.0, shape)  # noqa: E731
    found = [
        Store("newsvendor", f"L {lead}, S {level:.1f}", draw, up_to(level), level, cost, lead, 0.18, 0.7, 0.0, True)
        for lead, level, cost in NEWSVENDOR
    ]
    return [*found, Store("newsvendor", "Poisson(6), S 8", six, up_to(8), 8, 3.570106945770946)]


def backlogged() -> list[Store]:
    """Return stores with backlog, each at the level that is optimal for demand that is not cut at 0."""
    draw: Draw = lambda random, shape: random.normal(5.0, 1.6, shape).clip(0)  # noqa: E731
    found = []
    for lead, penalty in BACKLOGGED:
        level = float(5 * (lead + 1) + norm.ppf(penalty / (penalty + 1)) * 1.6 * np.sqrt(lead + 1))
        cost = cut_normal_cost(level, lead, 1.0, penalty)
        name = f"L {lead}, p {penalty}"
        found.append(Store("backlogged", name, draw, up_to(level), level, cost, lead, 1.0, penalty, 0.0, backlog=True))
    return found


def _poisson(mean: float, random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return random.poisson(mean, shape)


def reorder_points() -> list[Store]:
    """Return stores with a fixed cost of ordering, which start from their stationary distribution.

    Otherwise stores that order every second week would stay in phase for hundreds of weeks (with mean demand 55, s 47
    and S 118 one cycle in sixty has another length), and 200 weeks would be .05 % off.
    """
    return [
        Store(
            "reorder point",
            f"mean {mean}, s {low}, S {level}",
            partial(_poisson, mean),
            ReorderPoint(jnp.asarray(low, jnp.float32), jnp.asarray(level, jnp.float32)),
            stationary_stock(mean, low, level),
            cost,
            penalty=9.0,
            order=64.0,
            backlog=True,
        )
        for mean, low, level, cost in REORDER
    ]


GROUPS: Mapping[str, Callable[[], list[Store]]] = {
    "lost sales": lost_sales,
    "newsvendor": newsvendors,
    "backlogged": backlogged,
    "reorder point": reorder_points,
}
"""Stores by group."""


def cut_normal_cost(level: float, lead: int, holding: float, penalty: float, step: float = 1e-3) -> float:
    """Return a week's cost of a backlogged store with Normal(5, 1.6) demand cut at 0, by convolution on a grid.

    Args:
        level: base-stock level [units].
        lead: time [weeks]; lead + 1 demands lie between decision and effect.
        holding, penalty: cost of a unit and week [money].
        step: of the grid [units]; halving it changes less than the seventh digit.
    """
    grid = np.arange(0.0, 20.0, step)
    mass = np.diff(norm.cdf(np.append(grid - step / 2, grid[-1] + step / 2), 5.0, 1.6))
    mass[0] = norm.cdf(step / 2, 5.0, 1.6)
    size = 1 << int(np.ceil(np.log2((lead + 1) * len(grid))))
    total = np.fft.irfft(np.fft.rfft(mass, size) ** (lead + 1), size).clip(0)
    short = level - step * np.arange(size)
    return float((total * np.where(short > 0, holding * short, -penalty * short)).sum() / total.sum())


def stationary_stock(mean: float, low: int, level: int) -> Float[np.ndarray, " units"]:
    """Return the stationary distribution of the stock of an (s,S) store without lead time after its review.

    Args:
        mean: of its Poisson demand [units/week].
        low, level: s and S [units].
    """
    held = np.arange(low + 1, level + 1)
    stays = poisson.pmf(held[:, None] - held[None, :], mean)
    stays[:, -1] += 1 - stays.sum(1)  # what falls to s or below is filled up
    share = np.linalg.lstsq(np.vstack([stays.T - np.eye(len(held)), np.ones(len(held))]), np.eye(len(held) + 1)[-1])[0]
    distribution = np.zeros(level + 1)
    distribution[low + 1 :] = share.clip(0) / share.clip(0).sum()
    return distribution


def identical_agents(
    count: int, *, holding: float = 1.0, penalty: float = 4.0, lead: int = 0, demand: float = 1.0, margin: float = 0.0
) -> Population:
    """Return agents that do not differ; costs are money per unit, lead time is in weeks."""
    full = lambda value, kind=jnp.float32: jnp.full(count, value, kind)  # noqa: E731
    return Population(
        holding_cost=full(holding),
        lost_sale_penalty=full(penalty),
        lead_time=full(lead, jnp.int32),
        demand_scale=full(demand),
        unit_margin=full(margin),
        use=jnp.ones((count, 1)),
        weight=full(1.0),
        resources=("inbound_units",),
    )


def simulate_store(store: Store, agents: int, seed: int, weeks: int = WEEKS) -> dict[str, Any]:
    """Simulate many equal stores and compare their mean cost with the exact one.

    Returns:
        `group`, `name`, `exact`, `cost`, `error` (standard error over stores), `z` and `relative`.
    """
    random = np.random.default_rng([seed, 0x7E47])
    demand = store.demand(random, (weeks, agents)).astype(np.float32)
    lead = jnp.broadcast_to(jnp.asarray(store.lead, jnp.int32), demand.shape)
    paths = constant_paths(demand, IntegerLeadTimes(lead))
    stock: Any = store.start
    if isinstance(stock, np.ndarray):
        stock = random.choice(len(stock), agents, p=stock)
    start = empty_state(agents, MAX_LEAD, jnp.asarray(np.broadcast_to(stock, agents), jnp.float32))
    population = identical_agents(agents, holding=store.holding, penalty=store.penalty, lead=store.lead)
    money, ordering = _mean_costs(population, paths, store.policy, start, store.backlog, weeks // 3)
    costs = np.asarray(money, float) + store.order * np.asarray(ordering, float)
    mean, error = float(costs.mean()), float(costs.std(ddof=1) / np.sqrt(agents))
    exact = store.exact
    row = {"group": store.group, "name": store.name, "exact": exact, "cost": mean, "error": error}
    return row | {"z": (mean - exact) / error, "relative": mean / exact - 1}


@eqx.filter_jit
def _mean_costs(
    population: Population, paths: ExogenousPaths, policy: Policy, initial: State, backlog: bool, warm_up: int
) -> tuple[Float[Array, " agent"], Float[Array, " agent"]]:
    """Return every store's mean cost and share of weeks with an order, after the warm-up."""
    record = Record.traces()
    traces = simulate(population, paths, policy, initial=initial, record=record, backlog=backlog, throw=False).agents
    assert traces is not None  # requested by the record
    return -traces.reward[warm_up:].mean(0), (traces.orders[warm_up:] > 0).mean(0)


def pool_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each store, the mean over its seeds."""
    pooled = []
    for name in dict.fromkeys((row["group"], row["name"]) for row in rows):
        mine = [row for row in rows if (row["group"], row["name"]) == name]
        cost = float(np.mean([row["cost"] for row in mine]))
        error = float(np.sqrt(np.sum([row["error"] ** 2 for row in mine])) / len(mine))
        exact = mine[0]["exact"]
        changed = {"cost": cost, "error": error, "z": (cost - exact) / error, "relative": cost / exact - 1}
        pooled.append({**mine[0], **changed, "seeds": len(mine)})
    return pooled


def summarise_errors(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the largest errors of simulated stores, and whether they are compatible with chance.

    `mean_square_z` is 1 on average for an exact simulator; 95 % of such simulators lie in its interval.
    """
    z = np.array([row["z"] for row in rows])
    spread = 1.96 * np.sqrt(2 / len(z))
    return {
        "instances": len(rows),
        "worst_z": float(np.abs(z).max()),
        "worst_relative": float(max(abs(row["relative"]) for row in rows)),
        "beyond_3.5": int((np.abs(z) > 3.5).sum()),
        "beyond_1.96": float((np.abs(z) > 1.96).mean()),
        "mean_square_z": float((z**2).mean()),
        "expected_mean_square_z": {"estimate": 1.0, "low": float(max(1 - spread, 0.0)), "high": float(1 + spread)},
    }
