"""Own rollouts as maps read them: a stretch simulated under prices, read into what a map sees and should say.

FREE: compiled once per shape; how a map is trained on them is in `train.primal` and `train.dual`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.maps.delegates import Asked, Delegates, Standing, asked, pipeline_at
from walras.maps.inputs import (
    HORIZON,
    KnownFuture,
    Ledger,
    MapInputs,
    Scales,
    ledger_of,
    map_inputs,
    open_orders,
    scales,
    standing_of,
    stock_use,
)
from walras.maps.readers import Readers
from walras.maps.stretch import Stretch
from walras.model.record import Record
from walras.policies.base import AbstractPolicy
from walras.simulate import Rollout, simulate, simulate_issued


class Rolled(eqx.Module):
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

    ledger: Ledger
    known: KnownFuture
    received: Float[Array, "week slot"]
    utilization: Float[Array, "week resource"]
    reward: Float[Array, " week"]
    end_value: Float[Array, ""]
    units: Scales
    policy: AbstractPolicy


@eqx.filter_jit
def roll(stretch: Stretch, policy: AbstractPolicy, shadow_prices: Float[Array, "week resource"]) -> Rolled:
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


def roll_issued(stretch: Stretch, policy: AbstractPolicy, issued: Float[Array, "week ahead resource"]) -> Rolled:
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


def _rolled(stretch: Stretch, rollout: Rollout, policy: AbstractPolicy) -> Rolled:
    happened = rollout.agents
    assert happened is not None  # traces were asked for
    population = stretch.population
    ledger = ledger_of(stretch.exogenous, happened, stretch.initial, stretch.valid.astype(jnp.float32))
    return Rolled(
        ledger=ledger,
        known=known_future(stretch, ledger, happened.orders),
        received=happened.receipts,
        utilization=rollout.totals.utilization,
        reward=rollout.totals.reward,
        end_value=rollout.end_value,
        units=scales(population),
        policy=policy,
    )


def known_future(stretch: Stretch, ledger: Ledger, orders: Float[Array, "week slot"]) -> KnownFuture:
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
    rolled: Rolled,
    stretch: Stretch,
    readers: Readers,
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


def asked_at(rolled: Rolled, stretch: Stretch, delegates: Delegates, weeks: int, origins: int, spacing: int) -> Asked:
    """Make delegates ready to answer at the last origins of the first `weeks` weeks, as `inputs_of` counts them."""
    them, ledger = delegates.index, jax.tree.map(lambda leaf: leaf[:, delegates.index], rolled.ledger)
    initial = jax.tree.map(lambda leaf: leaf[..., them], stretch.initial)
    arrivals = jax.tree.map(lambda leaf: leaf[..., them], stretch.exogenous.arrivals)
    orders = jnp.concatenate([ledger.orders_before[1:], ledger.orders_before[-1:]])

    def standing(week: Array) -> Standing:
        now = jax.tree.map(lambda leaf: leaf[week][None], ledger)
        return standing_of(now, pipeline_at(arrivals, orders, initial, week))

    at = weeks - 1 - spacing * jnp.arange(origins)[::-1]
    units = (rolled.units.price, rolled.units.use)
    there = jax.vmap(standing)(at)
    return asked(stretch.population, delegates, there, stretch.expected_use[at], rolled.policy, *units)


def coming(
    series: Float[Array, "week resource"], weeks: int, origins: int, spacing: int = 1
) -> Float[Array, "origin ahead resource"]:
    """Return the weeks after each origin of a series."""
    first = weeks - 1 - spacing * (origins - 1)
    start = first + spacing * jnp.arange(origins)
    return series[start[:, None] + jnp.arange(1, HORIZON + 1)[None, :]]
