"""Own the search for the week and agent in which a simulation first went wrong, without storing all its traces.

CONTRACT: ranges of agents are simulated again, so what is found depends on neither the engine nor the block size.
"""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from jaxtyping import Array, Float

from walras.errors import NotFiniteError
from walras.population.population import Population
from walras.simulation.checks import locate
from walras.simulation.week import WeekRecord

RANGE_AGENTS = 8192
"""Agents traced at a time, over all scenarios: half a gigabyte for years of weeks."""

LEAST_RANGE = 256
"""Fewest agents traced at a time, however many scenarios there are."""

Place = tuple[int, int, int]
"""Week, scenario and agent, in the order in which places are compared."""


def raise_if_nonfinite(
    population: Population,
    reward: Float[Array | np.ndarray, "*scenario week"],
    end_value: Float[Array | np.ndarray, "*scenario"],
    rerun: Callable[[int, int], WeekRecord],
) -> None:
    """Refuse a simulation whose money is not finite; name the week and agent where that began.

    Args:
        population: who the agents are.
        reward: total of every week [money].
        end_value: value of what is left [money].
        rerun: simulate agents first to last - 1 again and return their traces [*scenario, week, agent]. All ranges
            asked for have the same length, so that one compilation serves them.

    Raises:
        NotFiniteError: naming the order or reward that was NaN or infinite first. Never inside a JAX transform.
    """
    if isinstance(reward, jax.core.Tracer) or isinstance(end_value, jax.core.Tracer):
        return
    if np.isfinite(np.asarray(reward)).all() and np.isfinite(np.asarray(end_value)).all():
        return
    n_scenarios = reward.shape[0] if reward.ndim == 2 else 1
    order, spoilt = _first_troubles(population.n_agents, n_scenarios, rerun)
    several = reward.ndim == 2
    if order is not None and (spoilt is None or order[0] <= spoilt[0]):
        raise NotFiniteError(
            f"the policy's order is not a finite number {_words(population, order, several)}; "
            "check the policy and the paths of that agent for NaN and huge values"
        )
    if spoilt is not None:
        raise NotFiniteError(
            f"the reward is not a finite number {_words(population, spoilt, several)}; "
            "check that agent's demand, prices and costs for NaN and huge values"
        )
    raise NotFiniteError("the total reward is not a finite number; check the prices, costs and weights for huge values")


def _first_troubles(
    n_agents: int, n_scenarios: int, rerun: Callable[[int, int], WeekRecord]
) -> tuple[Place | None, Place | None]:
    """Find the first order and the first reward that are not finite, range by range."""
    orders, rewards = [], []
    for first, last in agent_ranges(n_agents, n_scenarios):
        traces = rerun(first, last)
        orders.append(_first(traces.orders, first))
        rewards.append(_first(traces.reward, first))
    earliest = lambda places: min((p for p in places if p is not None), default=None)  # noqa: E731
    return earliest(orders), earliest(rewards)


def agent_ranges(n_agents: int, n_scenarios: int = 1) -> Iterator[tuple[int, int]]:
    """Cut the agents into ranges of one length; the last range overlaps the one before it.

    Args:
        n_agents: agents to cover.
        n_scenarios: paths on which each is traced; more paths, shorter ranges.
    """
    size = min(n_agents, max(RANGE_AGENTS // n_scenarios, LEAST_RANGE))
    for first in range(0, n_agents, size):
        start = min(first, n_agents - size)
        yield start, start + size


def _first(values: Float[Array | np.ndarray, "*scenario week agent"], offset: int) -> Place | None:
    """Find the earliest week, and the first scenario and agent in it, whose number is NaN or infinite."""
    bad = ~np.isfinite(np.asarray(values))
    by_week = np.moveaxis(bad.reshape(-1, *bad.shape[-2:]), 1, 0)  # [week, scenario, agent]
    weeks = by_week.any((1, 2))
    if not weeks.any():
        return None
    week = int(np.argmax(weeks))
    scenario, agent = np.unravel_index(int(np.argmax(by_week[week])), by_week[week].shape)
    return week, int(scenario), int(agent) + offset


def _words(population: Population, place: Place, several: bool) -> str:
    week, scenario, agent = place
    return locate(population, week=week, scenario=scenario if several else None, agent=agent)
