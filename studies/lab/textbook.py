"""Own the stores and populations whose costs and prices are known, and what simulator and planner make of them.

OPEN: add an instance with its exact cost. Demand of every instance is drawn anew, so that errors are independent.
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
from walras.policies.simple import OrderUpTo, ReorderPoint
from walras.population.population import Population
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.state import State, empty_state

WEEKS, WARM_UP = 300, 100
"""Simulated, and of these dropped: half of the weeks after it cost what the other half costs."""

ROOM = 10
"""Longest lead time of the compiled shape, the same for all stores: compiling takes longer than simulating."""

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


@dataclass(frozen=True, eq=False)
class Instance:
    """Hold a store, what it does, and what that costs.

    Attributes:
        group, name: where it comes from, and which one it is.
        demand: draws demand [week, agent].
        policy: what it follows.
        start: stock that it starts with [units], or the chance of starting with 0, 1, 2, ... units.
        exact: mean cost of a week [money].
        lead: time [weeks].
        holding, penalty: cost of a unit held, of a unit short, for a week [money].
        order: fixed cost of an order [money].
        backlog: demand that cannot be served waits.
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
    """Return the policy that orders up to a level [units]."""
    return OrderUpTo(jnp.asarray(level, jnp.float32))


def lost_sales() -> list[Instance]:
    """Return base-stock stores with lost sales, exact by dynamic programming."""
    draw: Draw = lambda random, shape: random.poisson(5.0, shape)  # noqa: E731
    return [
        Instance("lost sales", f"L {lead}, p {penalty}, S {level}", draw, up_to(level), level, cost, lead, 1.0, penalty)
        for (lead, penalty), costs in LOST_SALES.items()
        for level, cost in costs.items()
    ]


def newsvendors() -> list[Instance]:
    """Return stores whose cost is a formula or a sum."""
    draw: Draw = lambda random, shape: random.normal(50.0, 8.0, shape)  # noqa: E731
    six: Draw = lambda random, shape: random.poisson(6.0, shape)  # noqa: E731
    found = [
        Instance("newsvendor", f"L {lead}, S {level:.1f}", draw, up_to(level), level, cost, lead, 0.18, 0.7, 0.0, True)
        for lead, level, cost in NEWSVENDOR
    ]
    return [*found, Instance("newsvendor", "Poisson(6), S 8", six, up_to(8), 8, 3.570106945770946)]


def backlogged() -> list[Instance]:
    """Return stores that backlog, each at the level that is best where demand is not cut at 0."""
    draw: Draw = lambda random, shape: random.normal(5.0, 1.6, shape).clip(0)  # noqa: E731
    found = []
    for lead, penalty in BACKLOGGED:
        level = float(5 * (lead + 1) + norm.ppf(penalty / (penalty + 1)) * 1.6 * np.sqrt(lead + 1))
        cost = cut_normal_cost(level, lead, 1.0, penalty)
        name = f"L {lead}, p {penalty}"
        found.append(
            Instance("backlogged", name, draw, up_to(level), level, cost, lead, 1.0, penalty, 0.0, backlog=True)
        )
    return found


def _poisson(mean: float, random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return random.poisson(mean, shape)


def reorder_points() -> list[Instance]:
    """Return stores with a fixed cost of ordering.

    They start as in the long run: those that order every second week would else do so in step for hundreds of weeks
    (with mean demand 55, s 47 and S 118 one cycle in sixty has another length), and 200 weeks would be .05 % off.
    """
    return [
        Instance(
            "reorder point",
            f"mean {mean}, s {low}, S {level}",
            partial(_poisson, mean),
            ReorderPoint(jnp.asarray(low, jnp.float32), jnp.asarray(level, jnp.float32)),
            lasting_stock(mean, low, level),
            cost,
            penalty=9.0,
            order=64.0,
            backlog=True,
        )
        for mean, low, level, cost in REORDER
    ]


GROUPS: Mapping[str, Callable[[], list[Instance]]] = {
    "lost sales": lost_sales,
    "newsvendor": newsvendors,
    "backlogged": backlogged,
    "reorder point": reorder_points,
}
"""What is simulated, by group."""


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


def lasting_stock(mean: float, low: int, level: int) -> Float[np.ndarray, " units"]:
    """Return how often an (s,S) store without lead time has 0, 1, ..., S units after its review, in the long run.

    Args:
        mean: of its Poisson demand [units/week].
        low, level: s and S [units].
    """
    held = np.arange(low + 1, level + 1)
    stays = poisson.pmf(held[:, None] - held[None, :], mean)
    stays[:, -1] += 1 - stays.sum(1)  # what falls to s or below is filled up
    share = np.linalg.lstsq(np.vstack([stays.T - np.eye(len(held)), np.ones(len(held))]), np.eye(len(held) + 1)[-1])[0]
    found = np.zeros(level + 1)
    found[low + 1 :] = share.clip(0) / share.clip(0).sum()
    return found


def simulated(instance: Instance, agents: int, seed: int, weeks: int = WEEKS) -> dict[str, Any]:
    """Simulate many equal stores and compare their mean cost with the exact one.

    Args:
        instance: store, policy and exact cost.
        agents: stores.
        seed: of the demand.
        weeks: simulated; the first third is dropped.

    Returns:
        `group`, `name`, `exact`, `cost`, `error` (standard error over stores), `z` and `relative`.
    """
    random = np.random.default_rng([seed, 0x7E47])
    demand = instance.demand(random, (weeks, agents)).astype(np.float32)
    lead = jnp.broadcast_to(jnp.asarray(instance.lead, jnp.int32), demand.shape)
    paths = constant_paths(demand, IntegerLeadTimes(lead))
    stock: Any = instance.start
    if isinstance(stock, np.ndarray):
        stock = random.choice(len(stock), agents, p=stock)
    start = empty_state(agents, ROOM, jnp.asarray(np.broadcast_to(stock, agents), jnp.float32))
    money, ordering = _means(_equal(instance, agents), paths, instance.policy, start, instance.backlog, weeks // 3)
    costs = np.asarray(money, float) + instance.order * np.asarray(ordering, float)
    mean, error = float(costs.mean()), float(costs.std(ddof=1) / np.sqrt(agents))
    return {
        "group": instance.group,
        "name": instance.name,
        "exact": instance.exact,
        "cost": mean,
        "error": error,
        "z": (mean - instance.exact) / error,
        "relative": mean / instance.exact - 1,
    }


def _equal(instance: Instance, agents: int) -> Population:
    """Return agents that do not differ."""
    full = lambda value, kind=jnp.float32: jnp.full(agents, value, kind)  # noqa: E731
    return Population(
        holding_cost=full(instance.holding),
        lost_sale_penalty=full(instance.penalty),
        lead_time=full(instance.lead, jnp.int32),
        demand_scale=full(1.0),
        unit_margin=full(0.0),
        use=jnp.ones((agents, 1)),
        weight=full(1.0),
        resources=("inbound_units",),
    )


@eqx.filter_jit
def _means(
    people: Population, paths: ExogenousPaths, policy: Policy, initial: State, backlog: bool, warm_up: int
) -> tuple[Float[Array, " agent"], Float[Array, " agent"]]:
    """Return every store's mean cost and share of weeks with an order, after the warm-up."""
    rollout = simulate(people, paths, policy, initial=initial, record=Record.traces(), backlog=backlog, throw=False)
    happened = rollout.agents
    assert happened is not None  # traces were asked for
    return -happened.reward[warm_up:].mean(0), (happened.orders[warm_up:] > 0).mean(0)


def pooled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each store, the mean over the seeds that it was simulated with."""
    found = []
    for name in dict.fromkeys((row["group"], row["name"]) for row in rows):
        mine = [row for row in rows if (row["group"], row["name"]) == name]
        cost = float(np.mean([row["cost"] for row in mine]))
        error = float(np.sqrt(np.sum([row["error"] ** 2 for row in mine])) / len(mine))
        exact = mine[0]["exact"]
        changed = {"cost": cost, "error": error, "z": (cost - exact) / error, "relative": cost / exact - 1}
        found.append({**mine[0], **changed, "seeds": len(mine)})
    return found


def summed_up(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the worst of simulated stores and whether their errors are what chance makes them.

    `mean_square_z` is 1 on average where the simulator is exact; its interval would hold 95 % of such simulators.
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
