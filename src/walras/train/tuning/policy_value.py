"""Own what a policy earns every single agent on given paths: the number that tuning and comparisons rest on.

CONTRACT: simulates in blocks of agents and keeps sums over weeks only, so that large populations fit in memory.
"""

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.errors import SettingsError
from walras.exogenous.paths import ExogenousPaths
from walras.policies.base import Policy
from walras.population.population import Population
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.setup import cut_agents
from walras.simulation.state import State
from walras.simulation.week import WeekRecord

BLOCK = 4096
"""Agents whose weeks are traced at a time: 156 weeks of them, summed as they come, are a few megabytes."""


@dataclass(frozen=True)
class Objective:
    """Say what counts.

    Attributes:
        warm_up: first weeks that do not count; what a policy added to its stock in them is charged at unit cost.
        backlog: unmet demand waits instead of being lost.
        order_cost: cost of placing an order, whatever its size [money/order].
        stop: weeks from this one on do not count, as if the paths ended before it; None counts all.
    """

    warm_up: int = 0
    backlog: bool = False
    order_cost: float = 0.0
    stop: int | None = None


@dataclass(frozen=True, eq=False)
class PolicyValue:
    """Hold what a policy did for each agent in the weeks that count, mean over scenarios.

    Attributes:
        value: reward - payments - order costs + worth of what is left - worth of what the warm-up added [money].
        payments: shadow prices x use [money].
        demand, sales, orders: units in all weeks that count.
        stock: mean stock at the end of a week [units].
        order_weeks: weeks with an order.
    """

    value: Float[np.ndarray, " agent"]
    payments: Float[np.ndarray, " agent"]
    demand: Float[np.ndarray, " agent"]
    sales: Float[np.ndarray, " agent"]
    orders: Float[np.ndarray, " agent"]
    stock: Float[np.ndarray, " agent"]
    order_weeks: Float[np.ndarray, " agent"]


def policy_value(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    *,
    initial: State,
    shadow_prices: Float[Array, "*priced week resource"] | None = None,
    objective: Objective | None = None,
    block_agents: int = BLOCK,
) -> PolicyValue:
    """Simulate all agents and sum over weeks, agent by agent.

    Args:
        population: who the agents are.
        exogenous: what happens; with a scenario axis the mean over scenarios is returned.
        policy: what agents order.
        initial: stock and pipeline at the start.
        shadow_prices: announced in full at the start [money per unit of resource]; 0 where not given.
        objective: what counts; all weeks, lost sales and no order cost where not given.
        block_agents: agents traced at a time.

    Raises:
        SettingsError: a warm-up as long as the paths.
    """
    objective = Objective() if objective is None else objective
    stop = exogenous.n_weeks if objective.stop is None else objective.stop
    if not 0 <= objective.warm_up < stop <= exogenous.n_weeks:
        raise SettingsError(
            f"`warm_up` is {objective.warm_up} weeks of {min(stop, exogenous.n_weeks)}; leave at least one week that "
            "counts"
        )
    agents = population.n_agents
    size = min(block_agents, agents)
    if shadow_prices is None:
        shadow_prices = jnp.zeros((exogenous.n_weeks, len(population.resources)))
    prices = jnp.asarray(shadow_prices, jnp.float32)
    span = jnp.asarray([objective.warm_up, stop], jnp.int32)
    order_cost = jnp.asarray(objective.order_cost, jnp.float32)
    shared = (population, exogenous, policy, initial, prices)
    parts = []
    for first in range(0, agents, size):
        # The last block reaches back into the one before it: blocks of one size are one compilation.
        start = min(first, agents - size)
        block = _block(*shared, jnp.asarray(start), span, order_cost, size, objective.backlog)
        parts.append([np.asarray(leaf)[first - start :] for leaf in block])
    return PolicyValue(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))


@eqx.filter_jit
def _block(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    prices: Float[Array, "*priced week resource"],
    start: Array,
    span: Int[Array, "2"],
    order_cost: Float[Array, ""],
    size: int,
    backlog: bool,
) -> tuple[Array, ...]:
    """Simulate `size` agents from `start` on; traces that are not summed are not stored either."""
    people, paths, own, state = cut_agents(population, exogenous, policy, initial, start, size)
    rollout = simulate(
        people, paths, own, initial=state, shadow_prices=prices, record=Record.traces(), backlog=backlog, throw=False
    )
    happened = rollout.agents
    assert happened is not None  # traces were asked for
    weeks, (first, stop) = jnp.arange(paths.n_weeks)[:, None], span
    sums = _sums(happened, prices, (weeks >= first) & (weeks < stop))
    earned = sums["reward"] - sums["payments"] - order_cost * sums["order_weeks"]
    grown = happened.orders - happened.sales
    before, within = (jnp.where(weeks < end, grown, 0.0).sum(-2) for end in (first, stop))
    left = jnp.broadcast_to(state.stock_end + state.pipeline.sum(-2), within.shape) + within
    value = earned + _cost_of_week(paths, stop - 1, left) - _cost_of_week(paths, first, before)
    names = ("payments", "demand", "sales", "orders", "stock", "order_weeks")
    rows = [value, *(sums[name] / ((stop - first) if name == "stock" else 1.0) for name in names)]
    return tuple(row if row.ndim == 1 else row.mean(0) for row in rows)


def _sums(
    happened: WeekRecord, prices: Float[Array, "*priced week resource"], counts: Array
) -> dict[str, Float[Array, "*scenario agent"]]:
    """Sum over the weeks that count."""
    paid = jnp.einsum("...war,...wr->...wa", happened.utilization, _like(prices, happened.reward.ndim))
    weekly = {
        "reward": happened.reward,
        "payments": paid,
        "demand": happened.demand,
        "sales": happened.sales,
        "orders": happened.orders,
        "stock": happened.stock_end,
        "order_weeks": (happened.orders > 0).astype(jnp.float32),
    }
    kept = lambda leaf: jnp.where(jnp.broadcast_to(counts, leaf.shape), leaf, 0.0).sum(-2)  # noqa: E731
    return {name: kept(leaf) for name, leaf in weekly.items()}


def _like(prices: Array, rank: int) -> Array:
    """Give prices that all scenarios share the scenario axis that what happened has."""
    return prices if prices.ndim == rank else prices[None]


def _cost_of_week(
    paths: ExogenousPaths, week: Int[Array, ""], units: Float[Array, "*scenario agent"]
) -> Float[Array, "*scenario agent"]:
    """Return what units cost in a week; one row of costs holds for all weeks."""
    cost = jnp.take(paths.unit_cost, week, axis=0, mode="clip")
    return jnp.broadcast_to(cost, units.shape) * units
