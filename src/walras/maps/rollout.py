"""Own rollouts as maps read them: a stretch simulated under prices, read into what a map sees and should say.

FREE: compiled once per shape; how a map is trained on them is in `train.primal` and `train.dual`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from walras.exogenous.paths import ExogenousPaths
from walras.maps.features import (
    HORIZON,
    AgentHistory,
    KnownFuture,
    MapInputs,
    Units,
    agent_history,
    agent_state_of,
    map_inputs,
    open_orders,
    stock_use,
    units_of,
)
from walras.maps.pooling import CohortIndex
from walras.maps.probes import AgentState, PreparedProbes, ProbeAgents, pipeline_at, prepare_probes
from walras.policies.base import Policy
from walras.population.population import Population
from walras.simulation.record import Record
from walras.simulation.run import Rollout, simulate, simulate_issued
from walras.simulation.state import State


class PopulationWindow(eqx.Module):
    """Hold some agents over some weeks, cut out of a `World`.

    Attributes:
        population: who is in each slot; weight 0 marks an empty slot, whose numbers are those of some agent.
        exogenous: one path, every field with a row for every week [week, slot].
        initial: stock of the expected demand of a lead time, nothing on order.
        valid: the slot's agent was on sale in that week: it has a history.
        expected_use: sum over agents of weight x use x expected demand of weeks t, t + 1, ..., t + HORIZON, as known in
            week t before its demand [resource].
        holidays: weeks since the last holiday and to the next, 0..1, of weeks t .. t + HORIZON for every week t.
    """

    population: Population
    exogenous: ExogenousPaths
    initial: State
    valid: Bool[Array, "week slot"]
    expected_use: Float[Array, "week ahead resource"]
    holidays: Float[Array, "reach 2"]

    @property
    def n_weeks(self) -> int:
        """Count the weeks."""
        return self.valid.shape[0]

    @property
    def n_slots(self) -> int:
        """Count the slots, empty ones included."""
        return self.valid.shape[1]


class MapRollout(eqx.Module):
    """Hold what a rollout says: what maps read in every week, and what happened.

    Attributes:
        ledger: what agents did and knew.
        known: what was known of the coming weeks, every week being an origin.
        received: by each agent, of orders placed in the same week as well [units].
        utilization: use of each resource [week, resource].
        reward: money of each week, price payments not deducted [week].
        end_value: value of what is left at the end [money].
        units: in which maps see the population.
        policy: what agents followed.
    """

    ledger: AgentHistory
    known: KnownFuture
    received: Float[Array, "week slot"]
    utilization: Float[Array, "week resource"]
    reward: Float[Array, " week"]
    end_value: Float[Array, ""]
    units: Units
    policy: Policy


@eqx.filter_jit
def roll_out(stretch: PopulationWindow, policy: Policy, shadow_prices: Float[Array, "week resource"]) -> MapRollout:
    """Simulate a stretch under prices that are announced in full."""
    rollout = simulate(
        stretch.population,
        stretch.exogenous,
        policy,
        initial=stretch.initial,
        shadow_prices=shadow_prices,
        record=Record(agents=True, flows=()),
        throw=False,
    )
    return _rolled(stretch, rollout, policy)


def roll_out_issued(
    stretch: PopulationWindow, policy: Policy, issued: Float[Array, "week ahead resource"]
) -> MapRollout:
    """Simulate a stretch under prices that are issued anew every week (`simulate.simulate_issued`)."""
    rollout = simulate_issued(
        stretch.population,
        stretch.exogenous,
        policy,
        initial=stretch.initial,
        issued=issued,
        record=Record(agents=True, flows=()),
    )
    return _rolled(stretch, rollout, policy)


def _rolled(stretch: PopulationWindow, rollout: Rollout, policy: Policy) -> MapRollout:
    happened = rollout.agents
    assert happened is not None  # traces were asked for
    population = stretch.population
    ledger = agent_history(stretch.exogenous, happened, stretch.initial, stretch.valid.astype(jnp.float32))
    return MapRollout(
        ledger=ledger,
        known=known_future(stretch, ledger, happened.orders),
        received=happened.receipts,
        utilization=rollout.totals.utilization,
        reward=rollout.totals.reward,
        end_value=rollout.end_value,
        units=units_of(population),
        policy=policy,
    )


def known_future(stretch: PopulationWindow, ledger: AgentHistory, orders: Float[Array, "week slot"]) -> KnownFuture:
    """Return what was known of the coming weeks in each week."""
    weeks = ledger.receipts.shape[0]
    ahead = jnp.arange(weeks)[:, None] + jnp.arange(1, HORIZON + 1)[None, :]
    return KnownFuture(
        expected=stretch.expected_use,
        committed=open_orders(stretch.population, stretch.exogenous, orders, stretch.initial),
        stock=stock_use(stretch.population, ledger),
        holidays=stretch.holidays[ahead],
    )


def inputs_of(
    rolled: MapRollout,
    stretch: PopulationWindow,
    readers: CohortIndex,
    weeks: int,
    origins: int,
    spacing: int = 1,
    *,
    reads_agents: bool,
) -> MapInputs:
    """Return what a map reads at the last origins of the first `weeks` weeks, not yet scaled.

    Args:
        rolled: the rollout.
        stretch: what was simulated.
        readers: whose histories are read.
        weeks: weeks up to and with the last origin.
        origins: their number.
        spacing: weeks between two.
        reads_agents: whether agents' own histories are wanted.
    """
    first = weeks - 1 - spacing * (origins - 1)
    ledger = jax.tree.map(lambda leaf: leaf[:weeks], rolled.ledger)
    known = jax.tree.map(lambda leaf: leaf[first:weeks:spacing], rolled.known)
    ask = None if readers.delegates is None else asked_at(rolled, stretch, readers.delegates, weeks, origins, spacing)
    return map_inputs(stretch.population, readers, ledger, known, rolled.units, reads_agents=reads_agents, asked=ask)


def asked_at(
    rolled: MapRollout, stretch: PopulationWindow, delegates: ProbeAgents, weeks: int, origins: int, spacing: int
) -> PreparedProbes:
    """Make delegates ready to answer at the last origins of the first `weeks` weeks, as `inputs_of` counts them."""
    them, ledger = delegates.index, jax.tree.map(lambda leaf: leaf[:, delegates.index], rolled.ledger)
    initial = jax.tree.map(lambda leaf: leaf[..., them], stretch.initial)
    arrivals = jax.tree.map(lambda leaf: leaf[..., them], stretch.exogenous.arrivals)
    orders = jnp.concatenate([ledger.orders_before[1:], ledger.orders_before[-1:]])

    def standing(week: Array) -> AgentState:
        now = jax.tree.map(lambda leaf: leaf[week][None], ledger)
        return agent_state_of(now, pipeline_at(arrivals, orders, initial, week))

    at = weeks - 1 - spacing * jnp.arange(origins)[::-1]
    units = (rolled.units.price, rolled.units.use)
    there = jax.vmap(standing)(at)
    return prepare_probes(stretch.population, delegates, there, stretch.expected_use[at], rolled.policy, *units)


def horizon_slices(
    series: Float[Array, "week resource"], weeks: int, origins: int, spacing: int = 1
) -> Float[Array, "origin ahead resource"]:
    """Return the weeks after each origin of a series."""
    first = weeks - 1 - spacing * (origins - 1)
    start = first + spacing * jnp.arange(origins)
    return series[start[:, None] + jnp.arange(1, HORIZON + 1)[None, :]]
