"""Own the delegates: a few hundred agents, drawn by demand, whose own policies are asked in every query.

LAW: delegates know what agents know at the origin and no more: demand and lead times of the coming weeks are drawn once
around forecasts, the same for all queries, so that equal questions have equal answers.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8

from walras.exogenous.arrivals import AbstractArrivals, IntegerLeadTimes, draw_lead_times
from walras.exogenous.paths import ExogenousPaths
from walras.policies.base import Policy
from walras.policies.user_policies import number_agents
from walras.population.agent_axis import map_per_agent
from walras.population.cohort import ProportionalSample
from walras.population.population import Population
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.state import State

LEAST = 1e-6
"""Forecasts below count as this, so that shares of them are defined."""

LEAST_SHAPE, MOST_SHAPE = 0.05, 1e4
"""Smallest and largest shape of a gamma law that weekly demand is drawn from."""


class ProbeAgents(eqx.Module):
    """Hold who is asked, and the luck they are given.

    Attributes:
        index: agents; somebody may be there several times, each time with other luck.
        weight: agents that each stands for.
        noise: standard normal, of the demand of the origin's week and those after it.
        lead_times: of orders placed in these weeks [weeks].
    """

    index: Int[Array, " delegate"]
    weight: Float[Array, " delegate"]
    noise: Float[Array, "from_now delegate"]
    lead_times: Int8[Array, "from_now delegate"]


def draw_probes(population: Population, count: int, weeks: int, seed: int) -> ProbeAgents:
    """Draw delegates with a chance proportional to demand, and their luck.

    Args:
        population: everybody; agents of weight 0 are not drawn.
        count: delegates; fewer agents than that are asked several times each.
        weeks: that they are asked about, the origin's own included.
        seed: same seed, same draw.
    """
    random = np.random.default_rng([seed, 0xDE1E])
    size = np.asarray(population.weight, float) * np.maximum(np.asarray(population.demand_scale, float), LEAST)
    there = np.flatnonzero(size > 0)
    cohort = ProportionalSample().draw(size[there], min(count, len(there)), random)
    copies = max(count // max(cohort.n_drawn, 1), 1)
    index = np.tile(there[cohort.index], copies)
    lead = np.asarray(population.lead_time)[index]
    return ProbeAgents(
        index=jnp.asarray(index, jnp.int32),
        weight=jnp.asarray(np.tile(cohort.weight / copies, copies), jnp.float32),
        noise=jnp.asarray(random.standard_normal((weeks, len(index))), jnp.float32),
        lead_times=jnp.asarray(draw_lead_times(lead, (1, weeks), seed=seed)[0]),
    )


class AgentState(eqx.Module):
    """Hold where agents stand at an origin, its receipts not yet in.

    Attributes:
        stock_end: of the week before [units].
        pipeline: open orders by the week in which they arrive, the origin's own first [units].
        sale_price, unit_cost: of the origin's week [money/unit].
        lead_demand_mean, lead_demand_sd: forecast demand of a lead time from the origin on [units].
    """

    stock_end: Float[Array, "*origin agent"]
    pipeline: Float[Array, "*origin lead agent"]
    sale_price: Float[Array, "*origin agent"]
    unit_cost: Float[Array, "*origin agent"]
    lead_demand_mean: Float[Array, "*origin agent"]
    lead_demand_sd: Float[Array, "*origin agent"]


class PreparedProbes(eqx.Module):
    """Hold delegates at one or several origins, ready to answer.

    Attributes:
        population: them, with weights.
        exogenous: the coming weeks as drawn for them, the origin's own first.
        state: at each origin.
        policy: what they follow.
        unit: median margin per unit of each resource [money per unit of resource].
        scale: S(P) [units of resource/week].
        due: use by what they have on order, relative to S(P); 0 for storage.
        free: use without prices, relative to S(P).
    """

    population: Population
    exogenous: ExogenousPaths
    state: State
    policy: Policy
    unit: Float[Array, " resource"]
    scale: Float[Array, " resource"]
    due: Float[Array, "*origin ahead resource"]
    free: Float[Array, "*origin ahead resource"]

    def use(self, shadow_prices: Float[Array, "*axes ahead resource"]) -> Float[Array, "*axes ahead resource"]:
        """Simulate the delegates; return use relative to S(P).

        Args:
            shadow_prices: of the weeks after the origin, in median unit margins; axes in front of origins' are free.
        """
        return _answers(self, shadow_prices)


def prepare_probes(
    population: Population,
    delegates: ProbeAgents,
    standing: AgentState,
    expected: Float[Array, "*origin from_now resource"],
    policy: Policy,
    unit: Float[Array, " resource"],
    scale: Float[Array, " resource"],
) -> PreparedProbes:
    """Make delegates ready to answer at one or several origins.

    Args:
        population: everybody, with weights.
        delegates: who is asked.
        standing: of the delegates alone, slot by slot.
        expected: forecast use of the origin's week and the coming ones; only its shape over time counts.
        policy: what everybody follows.
        unit: median margin per unit of each resource.
        scale: S(P).
    """
    them = population.take(delegates.index)
    them = eqx.tree_at(lambda p: p.weight, them, them.weight * delegates.weight)
    known = number_agents(policy, population.n_agents)  # a black box is told who they are among everybody
    mine = map_per_agent(lambda leaf: leaf[..., delegates.index], known, population.n_agents)
    standing, expected = jax.lax.stop_gradient((standing, expected))

    def paths(where: AgentState, shape: Array) -> ExogenousPaths:
        return gamma_paths(them, delegates, where, shape)

    many = expected.ndim == 3
    exogenous = (jax.vmap(paths) if many else paths)(standing, expected)
    state = State(standing.stock_end, standing.pipeline)
    per_unit = them.weight[:, None] * them.use / scale[None, :]
    flow = 1.0 - jnp.asarray(them.stock_resource, jnp.float32)
    ahead = expected.shape[-2] - 1
    due = _rows(standing.pipeline @ per_unit, 1, ahead) * flow.reshape((1,) * (expected.ndim - 1) + flow.shape)
    ready = PreparedProbes(them, exogenous, state, mine, unit, scale, due, due)
    return eqx.tree_at(lambda a: a.free, ready, ready.use(jnp.zeros(due.shape)))


def _rows(values: Float[Array, "*axes lead resource"], first: int, count: int) -> Float[Array, "*axes ahead resource"]:
    """Return some rows; beyond the last there is nothing."""
    cut = values[..., first : first + count, :]
    return jnp.pad(cut, [(0, 0)] * (cut.ndim - 2) + [(0, count - cut.shape[-2]), (0, 0)])


def _answers(
    ready: PreparedProbes, prices: Float[Array, "*axes ahead resource"]
) -> Float[Array, "*axes ahead resource"]:
    def one(exogenous: ExogenousPaths, state: State, row: Array) -> Array:
        charged = jnp.pad(row * ready.unit[None, :], ((1, 0), (0, 0)))
        done = simulate(
            ready.population,
            exogenous,
            ready.policy,
            initial=state,
            shadow_prices=charged,
            record=Record.use_and_reward(),
            throw=False,
        )
        return done.totals.utilization[1:] / ready.scale[None, :]

    origins = ready.state.stock_end.ndim - 1
    ask: Any = jax.vmap(one) if origins else one
    there = ready.exogenous, ready.state
    plans = prices.reshape(-1, *prices.shape[prices.ndim - 2 - origins :])
    found = jax.vmap(lambda plan: ask(*there, plan))(plans) if len(plans) > 1 else ask(*there, plans[0])[None]
    return found.reshape(prices.shape)


def gamma_paths(
    population: Population,
    delegates: ProbeAgents,
    standing: AgentState,
    expected: Float[Array, "from_now resource"],
) -> ExogenousPaths:
    """Draw the coming weeks around what agents expect: each one's own level, and everybody's common shape over time."""
    shape = jnp.maximum(expected.sum(-1), LEAST)
    weeks, longest = shape.shape[0], standing.pipeline.shape[0]
    reach = jnp.cumsum(jnp.concatenate([jnp.zeros(1), shape, jnp.full(longest + 1, shape[-1])]))
    lead = jnp.minimum(population.lead_time.astype(jnp.int32), longest)
    week = jnp.arange(weeks)[:, None]
    covered = reach[week + lead[None, :] + 1] - reach[week]
    growth = covered / covered[:1]
    mean = standing.lead_demand_mean[None] * shape[:, None] / covered[:1]
    each = standing.lead_demand_sd[None] * (shape / shape[0])[:, None] / jnp.sqrt(lead + 1.0)[None]
    return ExogenousPaths(
        demand=gamma_demand(mean, each, delegates.noise),
        sale_price=standing.sale_price[None],
        unit_cost=standing.unit_cost[None],
        arrivals=IntegerLeadTimes(jnp.minimum(delegates.lead_times, longest).astype(jnp.int8)),
        lead_demand_mean=standing.lead_demand_mean[None] * growth,
        lead_demand_sd=standing.lead_demand_sd[None] * growth,
    )


def gamma_demand(
    mean: Float[Array, "week agent"], sd: Float[Array, "week agent"], noise: Float[Array, "week agent"]
) -> Float[Array, "week agent"]:
    """Turn normal noise into demand of about a gamma law (the cube of a normal, Wilson and Hilferty 1931) [units]."""
    mean = jnp.maximum(mean, LEAST)
    shape = jnp.clip((mean / jnp.maximum(sd, LEAST)) ** 2, LEAST_SHAPE, MOST_SHAPE)
    root = 1.0 - 1.0 / (9.0 * shape) + noise / (3.0 * jnp.sqrt(shape))
    return mean * jnp.maximum(root, 0.0) ** 3


def pipeline_at(
    arrivals: AbstractArrivals, orders: Float[Array, "week agent"], initial: State, week: Array | int
) -> Float[Array, "lead agent"]:
    """Return open orders at a week by the week in which they arrive, that week first.

    Args:
        arrivals: of all weeks; when orders arrive.
        orders: accepted in each week [units]; those of the week itself and later ones do not count.
        initial: its pipeline was placed before the first week.
        week: its receipts are not yet in.
    """
    lead, last = initial.max_lead, orders.shape[0] - 1
    none = jnp.zeros_like(initial.pipeline)

    def add(ago: Array, due: Array) -> Array:
        placed = week - ago
        index = jnp.clip(placed, 0, last)
        rows = jax.tree.map(lambda leaf: leaf[index], arrivals).spread(orders[index], lead)
        seen = jax.lax.dynamic_slice_in_dim(jnp.concatenate([rows, none]), ago, lead)
        return due + jnp.where(placed >= 0, seen, 0.0)

    before = jnp.concatenate([initial.pipeline, none])
    start = jax.lax.dynamic_slice_in_dim(before, jnp.minimum(week, lead), lead)
    return jax.lax.fori_loop(1, lead + 1, add, start)
