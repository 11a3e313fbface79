"""Search for the week and agent in which a simulation first went wrong, without storing all its traces.

Ranges of agents are simulated again, so the answer depends on neither the engine nor the block size.
"""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from jaxtyping import Array, Float

from walras.errors import NotFiniteError
from walras.population.population import Population
from walras.simulation.checks import locate
from walras.simulation.week import WeekRecord

TRACED_AGENTS = 8192
"""Agents traced at a time, over all scenarios: half a gigabyte for years of weeks."""

FEWEST_TRACED = 256
"""Fewest agents traced at a time, however many scenarios there are."""

Place = tuple[int, int, int]
"""Week, scenario and agent, in the order in which places are compared."""


def raise_if_nonfinite(
    population: Population,
    reward: Float[Array | np.ndarray, "*scenario week"],
    end_value: Float[Array | np.ndarray, "*scenario"],
    retrace: Callable[[int, int], WeekRecord],
) -> None:
    """Refuse a simulation whose money is not finite; never inside a JAX transform.

    Args:
        population: who the agents are.
        reward: total of every week [money].
        end_value: value of what is left [money].
        retrace: simulates agents first to last - 1 again and returns their traces [*scenario, week, agent]. All calls
            have ranges of one length, so that one compilation serves them.

    Raises:
        NotFiniteError: naming the week and agent of the first order or reward that is NaN or infinite.
    """
    if isinstance(reward, jax.core.Tracer) or isinstance(end_value, jax.core.Tracer):
        return
    if np.isfinite(np.asarray(reward)).all() and np.isfinite(np.asarray(end_value)).all():
        return
    several = reward.ndim == 2
    places: dict[str, list[Place]] = {"orders": [], "reward": []}
    for first, last in agent_ranges(population.n_agents, reward.shape[0] if several else 1):
        traces = retrace(first, last)
        for name, earlier in places.items():
            earlier += _first_nonfinite(getattr(traces, name), first)
    order, money = (min(earlier, default=None) for earlier in places.values())

    def words(place: Place) -> str:
        week, scenario, agent = place
        return locate(population, week=week, scenario=scenario if several else None, agent=agent)

    if order is not None and (money is None or order[0] <= money[0]):
        raise NotFiniteError(
            f"the policy's order is not a finite number {words(order)}; "
            "check the policy and the paths of that agent for NaN and huge values"
        )
    if money is not None:
        raise NotFiniteError(
            f"the reward is not a finite number {words(money)}; "
            "check that agent's demand, prices and costs for NaN and huge values"
        )
    raise NotFiniteError("the total reward is not a finite number; check the prices, costs and weights for huge values")


def agent_ranges(n_agents: int, n_scenarios: int = 1) -> Iterator[tuple[int, int]]:
    """Cut agents into ranges of one length, shorter for more scenarios; the last range overlaps the one before it."""
    size = min(n_agents, max(TRACED_AGENTS // n_scenarios, FEWEST_TRACED))
    for first in range(0, n_agents, size):
        start = min(first, n_agents - size)
        yield start, start + size


def _first_nonfinite(values: Float[Array | np.ndarray, "*scenario week agent"], offset: int) -> list[Place]:
    """Return the earliest week, and the first scenario and agent in it, whose number is NaN or infinite, if any."""
    bad = ~np.isfinite(np.asarray(values))
    by_week = np.moveaxis(bad.reshape(-1, *bad.shape[-2:]), 1, 0)  # [week, scenario, agent]
    week, scenario, agent = np.unravel_index(int(np.argmax(by_week)), by_week.shape)
    return [(int(week), int(scenario), int(agent) + offset)] if by_week[week, scenario, agent] else []
