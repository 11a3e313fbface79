"""Rollouts for training maps: a population window simulated under prices, and what maps read in each of its weeks."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from walras.exogenous.paths import ExogenousPaths
from walras.maps.agent_layout import CohortIndex
from walras.maps.features import (
    HORIZON,
    AgentHistory,
    KnownFuture,
    MapInputs,
    Units,
    agent_state_of,
    map_inputs,
    open_orders,
    stock_use,
    units_of,
)
from walras.maps.probes import AgentState, PreparedProbes, ProbeAgents, pipeline_at, prepare_probes
from walras.policies.base import Policy
from walras.population.population import Population
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.week import State


class PopulationWindow(eqx.Module):
    """Some agents over some weeks, cut out of a pool of agents."""

    population: Population  # the agent in each slot; weight 0 marks an empty slot, which repeats some agent
    exogenous: ExogenousPaths  # one path, every field with a row for every week
    initial: State  # stock of the expected demand of a lead time, nothing on order
    valid: Bool[Array, "week slot"]  # the slot's agent was on sale in that week: it has a history
    # Use if all receive the expected demand of weeks t .. t + HORIZON, as known in week t [units of resource]
    expected_use: Float[Array, "week ahead resource"]
    holidays: Float[Array, "reach 2"]  # weeks since the last holiday and to the next, 0..1; HORIZON more weeks

    @property
    def n_weeks(self) -> int:
        """Number of weeks."""
        return self.valid.shape[0]


class MapRollout(eqx.Module):
    """A simulated window: what maps read in every week, and what happened."""

    agent_history: AgentHistory  # what agents did and knew
    known: KnownFuture  # what was known of the coming weeks, every week being an origin
    received: Float[Array, "week slot"]  # by each agent, of orders placed in the same week as well [units]
    utilization: Float[Array, "week resource"]  # use of each resource [units of resource]
    reward: Float[Array, " week"]  # money of each week, price payments not deducted
    end_value: Float[Array, ""]  # value of what is left at the end [money]
    units: Units  # in which maps see the population
    policy: Policy  # of the agents


@eqx.filter_jit
def roll_out(window: PopulationWindow, policy: Policy, shadow_prices: Float[Array, "week resource"]) -> MapRollout:
    """Simulate a window under prices that are announced in full."""
    options: Any = {"record": Record(agents=True, flows=()), "throw": False}
    parts = (window.population, window.exogenous, policy)
    rollout = simulate(*parts, initial=window.initial, shadow_prices=shadow_prices, **options)
    traces = rollout.agents
    assert traces is not None  # they are in the record
    valid = window.valid.astype(jnp.float32)
    history = AgentHistory.from_traces(window.exogenous, traces, window.initial, valid)
    return MapRollout(
        agent_history=history,
        known=known_future(window, history, traces.orders),
        received=traces.receipts,
        utilization=rollout.totals.utilization,
        reward=rollout.totals.reward,
        end_value=rollout.end_value,
        units=units_of(window.population),
        policy=policy,
    )


def known_future(window: PopulationWindow, history: AgentHistory, orders: Float[Array, "week slot"]) -> KnownFuture:
    """Return what was known of the coming weeks in each week."""
    weeks = history.receipts.shape[0]
    ahead = jnp.arange(weeks)[:, None] + jnp.arange(1, HORIZON + 1)[None, :]
    return KnownFuture(
        expected=window.expected_use,
        committed=open_orders(window.population, window.exogenous, orders, window.initial),
        stock=stock_use(window.population, history),
        holidays=window.holidays[ahead],
    )


def inputs_of(
    rollout: MapRollout,
    window: PopulationWindow,
    cohort_index: CohortIndex,
    weeks: int,
    origins: int,
    spacing: int = 1,
    *,
    reads_agents: bool,
) -> MapInputs:
    """Return what a map reads, not yet scaled, at a number of origins with a spacing, the last in row `weeks - 1`."""
    first = weeks - 1 - spacing * (origins - 1)
    history = jax.tree.map(lambda leaf: leaf[:weeks], rollout.agent_history)
    known = jax.tree.map(lambda leaf: leaf[first:weeks:spacing], rollout.known)
    probes = cohort_index.probes
    prepared = None if probes is None else probes_at(rollout, window, probes, weeks, origins, spacing)
    parts = (window.population, cohort_index, history, known, rollout.units)
    return map_inputs(*parts, reads_agents=reads_agents, probes=prepared)


def probes_at(
    rollout: MapRollout, window: PopulationWindow, probes: ProbeAgents, weeks: int, origins: int, spacing: int
) -> PreparedProbes:
    """Prepare probes at the origins of `inputs_of`."""
    index, history = probes.index, rollout.agent_history.of_agents(probes.index)
    initial = jax.tree.map(lambda leaf: leaf[..., index], window.initial)
    arrivals = jax.tree.map(lambda leaf: leaf[..., index], window.exogenous.arrivals)
    orders = jnp.concatenate([history.orders_before[1:], history.orders_before[-1:]])

    def state_at(week: Array) -> AgentState:
        now = jax.tree.map(lambda leaf: leaf[week][None], history)
        return agent_state_of(now, pipeline_at(arrivals, orders, initial, week))

    at = weeks - 1 - spacing * jnp.arange(origins)[::-1]
    states, units = jax.vmap(state_at)(at), rollout.units
    parts = (window.population, probes, states, window.expected_use[at], rollout.policy)
    return prepare_probes(*parts, units.price, units.use)


def horizon_slices(
    series: Float[Array, "week resource"], weeks: int, origins: int, spacing: int = 1
) -> Float[Array, "origin ahead resource"]:
    """Return the weeks after each origin of a series."""
    start = weeks - 1 - spacing * (origins - 1) + spacing * jnp.arange(origins)
    return series[start[:, None] + jnp.arange(1, HORIZON + 1)[None, :]]
