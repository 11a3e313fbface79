"""Probes: a few hundred agents, drawn by demand, whose own policies are simulated in every query of a map.

Demand and lead times of the coming weeks are drawn once around forecasts, so that equal queries have equal answers.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8

from walras.exogenous.arrivals import AbstractArrivals, IntegerLeadTimes, draw_lead_times
from walras.exogenous.paths import ExogenousPaths
from walras.maps.layers import prepend_axes
from walras.policies.base import Policy
from walras.policies.user_policies import number_agents
from walras.population.agent_axis import map_per_agent
from walras.population.cohort import ProportionalSample
from walras.population.population import Population
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.week import State

LEAST = 1e-6  # forecasts below count as this, so that shares of them are defined
LEAST_SHAPE, MOST_SHAPE = 0.05, 1e4  # smallest and largest shape of the gamma distribution of weekly demand


class ProbeAgents(eqx.Module):
    """The drawn agents, and their random numbers."""

    index: Int[Array, " probe"]  # agents; one may be there several times with other random numbers
    weight: Float[Array, " probe"]  # agents that each represents
    noise: Float[Array, "from_now probe"]  # standard normal, for the demand of the origin's week and those after it
    lead_times: Int8[Array, "from_now probe"]  # of orders placed in these weeks [weeks]


def draw_probes(population: Population, count: int, weeks: int, seed: int) -> ProbeAgents:
    """Draw probes with probability proportional to demand, and random numbers for the weeks from the origin on.

    Agents of weight 0 are not drawn; of fewer agents than `count`, each is drawn several times.
    """
    random = np.random.default_rng([seed, 0xDE1E])
    size = np.asarray(population.weight, float) * np.maximum(np.asarray(population.demand_scale, float), LEAST)
    eligible = np.flatnonzero(size > 0)
    cohort = ProportionalSample().draw(size[eligible], min(count, len(eligible)), random)
    copies = max(count // max(cohort.n_drawn, 1), 1)
    index = np.tile(eligible[cohort.index], copies)
    lead = np.asarray(population.lead_time)[index]
    return ProbeAgents(
        index=jnp.asarray(index, jnp.int32),
        weight=jnp.asarray(np.tile(cohort.weight / copies, copies), jnp.float32),
        noise=jnp.asarray(random.standard_normal((weeks, len(index))), jnp.float32),
        lead_times=jnp.asarray(draw_lead_times(lead, (1, weeks), seed=seed)[0]),
    )


class AgentState(eqx.Module):
    """State of agents at an origin, before its receipts."""

    stock_end: Float[Array, "*origin agent"]  # of the week before [units]
    pipeline: Float[Array, "*origin lead agent"]  # open orders by week of arrival, the origin's own first [units]
    sale_price: Float[Array, "*origin agent"]  # of the origin's week [money/unit]
    unit_cost: Float[Array, "*origin agent"]
    lead_demand_mean: Float[Array, "*origin agent"]  # forecast demand of a lead time from the origin on [units]
    lead_demand_sd: Float[Array, "*origin agent"]


class PreparedProbes(eqx.Module):
    """Probes at one or several origins, ready for queries."""

    population: Population  # the probes, with weights
    exogenous: ExogenousPaths  # the coming weeks as drawn for them, the origin's own first
    state: State  # at each origin
    policy: Policy  # of the probes
    unit: Float[Array, " resource"]  # median margin per unit of each resource [money per unit of resource]
    scale: Float[Array, " resource"]  # S(P) [units of resource/week]
    due: Float[Array, "*origin ahead resource"]  # use by their open orders, relative to S(P); 0 for storage
    free: Float[Array, "*origin ahead resource"]  # use without prices, relative to S(P)

    def use(self, shadow_prices: Float[Array, "*axes ahead resource"]) -> Float[Array, "*axes ahead resource"]:
        """Simulate the probes under prices in median unit margins; return use relative to S(P).

        Axes in front of those of origins are free.
        """
        parts = (self.population, self.exogenous, self.policy, self.state)
        return _simulated_use(*parts, shadow_prices, self.unit, self.scale)


def prepare_probes(
    population: Population,
    probes: ProbeAgents,
    states: AgentState,
    expected: Float[Array, "*origin from_now resource"],
    policy: Policy,
    unit: Float[Array, " resource"],
    scale: Float[Array, " resource"],
) -> PreparedProbes:
    """Prepare probes at one or several origins; `unit` and `scale` as in `PreparedProbes`.

    Args:
        population, policy: of all agents.
        states: of the probes alone.
        expected: forecast use of the origin's week and the coming ones; only its shape over time counts.
    """
    drawn = population.take(probes.index)
    drawn = eqx.tree_at(lambda p: p.weight, drawn, drawn.weight * probes.weight)
    numbered = number_agents(policy, population.n_agents)  # a callback sees agents' numbers in the whole population
    own_policy = map_per_agent(lambda leaf: leaf[..., probes.index], numbered, population.n_agents)
    states, expected = jax.lax.stop_gradient((states, expected))
    paths = partial(_gamma_paths, drawn, probes)
    exogenous = (jax.vmap(paths) if expected.ndim == 3 else paths)(states, expected)
    state = State(states.stock_end, states.pipeline)
    per_unit = drawn.weight[:, None] * drawn.use / scale[None, :]
    flow = prepend_axes(1.0 - jnp.asarray(drawn.stock_resource, jnp.float32), expected.ndim)
    rows, ahead = (states.pipeline @ per_unit)[..., 1 : expected.shape[-2], :], expected.shape[-2] - 1
    due = jnp.pad(rows, [(0, 0)] * (rows.ndim - 2) + [(0, ahead - rows.shape[-2]), (0, 0)]) * flow
    free = _simulated_use(drawn, exogenous, own_policy, state, jnp.zeros(due.shape), unit, scale)
    return PreparedProbes(drawn, exogenous, state, own_policy, unit, scale, due, free)


def _simulated_use(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    state: State,
    prices: Float[Array, "*axes ahead resource"],
    unit: Float[Array, " resource"],
    scale: Float[Array, " resource"],
) -> Float[Array, "*axes ahead resource"]:
    run = partial(simulate, record=Record.use_and_reward(), throw=False)

    def one(exogenous: ExogenousPaths, state: State, row: Array) -> Array:
        charged = jnp.pad(row * unit[None, :], ((1, 0), (0, 0)))
        rollout = run(population, exogenous, policy, initial=state, shadow_prices=charged)
        return rollout.totals.utilization[1:] / scale[None, :]

    n_origin_axes = state.stock_end.ndim - 1
    per_plan = jax.vmap(one) if n_origin_axes else one
    plans = prices.reshape(-1, *prices.shape[prices.ndim - 2 - n_origin_axes :])
    if len(plans) == 1:
        return per_plan(exogenous, state, plans[0])[None].reshape(prices.shape)
    return jax.vmap(lambda plan: per_plan(exogenous, state, plan))(plans).reshape(prices.shape)


def _gamma_paths(
    population: Population, probes: ProbeAgents, state: AgentState, expected: Float[Array, "from_now resource"]
) -> ExogenousPaths:
    """Draw the coming weeks around agents' forecasts: each agent's own level, and the common shape over time."""
    shape = jnp.maximum(expected.sum(-1), LEAST)
    weeks, longest = shape.shape[0], state.pipeline.shape[0]
    reach = jnp.cumsum(jnp.concatenate([jnp.zeros(1), shape, jnp.full(longest + 1, shape[-1])]))
    lead = jnp.minimum(population.lead_time.astype(jnp.int32), longest)
    week = jnp.arange(weeks)[:, None]
    covered = reach[week + lead[None, :] + 1] - reach[week]
    growth = covered / covered[:1]
    mean = state.lead_demand_mean[None] * shape[:, None] / covered[:1]
    sd = state.lead_demand_sd[None] * (shape / shape[0])[:, None] / jnp.sqrt(lead + 1.0)[None]
    return ExogenousPaths(
        demand=gamma_demand(mean, sd, probes.noise),
        sale_price=state.sale_price[None],
        unit_cost=state.unit_cost[None],
        arrivals=IntegerLeadTimes(jnp.minimum(probes.lead_times, longest).astype(jnp.int8)),
        lead_demand_mean=state.lead_demand_mean[None] * growth,
        lead_demand_sd=state.lead_demand_sd[None] * growth,
    )


def gamma_demand(
    mean: Float[Array, "week agent"], sd: Float[Array, "week agent"], noise: Float[Array, "week agent"]
) -> Float[Array, "week agent"]:
    """Turn normal noise into approximately gamma-distributed demand (Wilson and Hilferty 1931) [units]."""
    mean = jnp.maximum(mean, LEAST)
    shape = jnp.clip((mean / jnp.maximum(sd, LEAST)) ** 2, LEAST_SHAPE, MOST_SHAPE)
    root = 1.0 - 1.0 / (9.0 * shape) + noise / (3.0 * jnp.sqrt(shape))
    return mean * jnp.maximum(root, 0.0) ** 3


def pipeline_at(
    arrivals: AbstractArrivals, orders: Float[Array, "week agent"], initial: State, week: Array | int
) -> Float[Array, "lead agent"]:
    """Return open orders before a week's receipts by the week in which they arrive, that week first [units].

    Of `orders`, accepted in each week, those of the week itself and later ones do not count.
    """
    lead, last = initial.max_lead, orders.shape[0] - 1
    none = jnp.zeros_like(initial.pipeline)

    def add(ago: Array, due: Array) -> Array:
        placed = week - ago
        index = jnp.clip(placed, 0, last)
        rows = jax.tree.map(lambda leaf: leaf[index], arrivals).spread(orders[index], lead)
        open_rows = jax.lax.dynamic_slice_in_dim(jnp.concatenate([rows, none]), ago, lead)
        return due + jnp.where(placed >= 0, open_rows, 0.0)

    before = jnp.concatenate([initial.pipeline, none])
    start = jax.lax.dynamic_slice_in_dim(before, jnp.minimum(week, lead), lead)
    return jax.lax.fori_loop(1, lead + 1, add, start)
