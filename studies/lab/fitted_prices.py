"""Own prices that make a population fit a capacity, by projected dual steps on what came about: what planners ask.

FREE: near enough to ask about; how prices are found well is `walras.planning.prices`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.maps.features import units_of
from walras.maps.rollout import PopulationWindow
from walras.policies.base import Policy
from walras.population.cohort import ProportionalSample
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.train.agent_pool import AgentPool

FIRST_STEP = 0.5
"""Price step in median margins where use is twice the capacity."""

MOST = 3.0
"""Prices go no higher, in median margins: a week that needs more is left violated."""

GROWN, CUT, SMALLEST, LARGEST = 1.1, 0.5, 1e-3, 4.0
"""An entry's step grows while its excess keeps its sign and is halved when it changes, within bounds."""


@eqx.filter_jit
def use_under(
    stretch: PopulationWindow, policy: Policy, prices: Float[Array, "week resource"]
) -> Float[Array, "week resource"]:
    """Simulate a stretch under announced prices and return utilization alone."""
    parts = (stretch.population, stretch.exogenous, policy)
    record = Record.use_and_reward()
    rollout = simulate(*parts, initial=stretch.initial, shadow_prices=prices, record=record, throw=False)
    return rollout.totals.utilization


@eqx.filter_jit
def fitted_prices(
    stretch: PopulationWindow,
    policy: Policy,
    capacity: Float[Array, "week resource"],
    first: int,
    steps: int = 40,
) -> Float[Array, "week resource"]:
    """Return the best prices met in projected dual steps lambda <- [lambda + step (U - K) / K]+.

    Args:
        stretch: who is asked, usually a weighted sample.
        policy: what they follow.
        capacity: K [units of resource].
        first: first week that may have a price.
        steps: simulations.

    Returns:
        Prices [money per unit of resource].
    """
    unit = units_of(stretch.population).price[None, :]
    priced = (jnp.arange(stretch.n_weeks) >= first)[:, None]

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        prices, pace, last, best, least = carry
        use = use_under(stretch, policy, prices * unit)
        excess = jnp.where(priced, (use - capacity) / capacity, 0.0)
        gap = jnp.where(prices >= MOST, jnp.maximum(-excess, 0.0), jnp.minimum(prices, -excess))
        missed = jnp.abs(jnp.where(priced, gap, 0.0)).sum()
        best = jnp.where(missed < least, prices, best)
        pace = jnp.clip(jnp.where(excess * last < 0, CUT, GROWN) * pace, SMALLEST * FIRST_STEP, LARGEST * FIRST_STEP)
        prices = jnp.clip(prices + pace * excess, 0.0, MOST)
        return (prices, pace, excess, best, jnp.minimum(missed, least)), None

    zeros = jnp.zeros_like(capacity)
    start = (zeros, jnp.full_like(capacity, FIRST_STEP), zeros, zeros, jnp.inf)
    return jax.lax.scan(step, start, None, length=steps)[0][3] * unit


def sampled(
    world: AgentPool, agents: np.ndarray, start: int, weeks: int, count: int, random: np.random.Generator
) -> PopulationWindow:
    """Cut a weighted sample of agents that stands for all of them, drawn in proportion to demand.

    Args:
        world, agents, start, weeks: what the stretch of everybody is cut from.
        count: agents of the sample.
        random: draws it.
    """
    size = np.asarray(world.population.demand_scale)[agents]
    cohort = ProportionalSample().draw(size, count, random)
    return world.window(agents[cohort.index], start, weeks, weight=cohort.weight)
