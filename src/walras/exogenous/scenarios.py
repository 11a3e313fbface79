"""Own the assembly of exogenous paths: demand, prices, costs and lead times of the coming and of the past weeks.

CONTRACT: builds `ExogenousPaths` from a completed panel and a demand model; same seed, same paths.
"""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from walras.data.panel import Panel
from walras.exogenous.arrivals import ORDER_LOG_SD, IntegerLeadTimes, draw_lead_times, lead_time_sd, longest_lead_time
from walras.exogenous.paths import ExogenousPaths, lead_time_demand

SMALLEST_DEMAND = 1e-6
"""Mean demand below this has no meaningful coefficient of variation [units/week]."""


@runtime_checkable
class Demand(Protocol):
    """Promise what a demand model must offer (see `exogenous.demand_model.DemandModel`)."""

    def mean(self, weeks: int) -> np.ndarray:
        """Return expected demand of the coming weeks [week, agent]."""

    def sd(self, weeks: int) -> np.ndarray:
        """Return its standard deviation [week, agent]."""

    def sample(self, scenarios: int, weeks: int, *, seed: int) -> np.ndarray:
        """Return demand paths [scenario, week, agent]."""

    def history_mean(self) -> np.ndarray:
        """Return what was expected in the past weeks [week, agent]."""


def coming_paths(
    panel: Panel,
    lead_time: np.ndarray,
    demand: Demand,
    *,
    scenarios: int,
    weeks: int,
    seed: int,
    log_sd: float = ORDER_LOG_SD,
) -> ExogenousPaths:
    """Draw possible futures: the weeks after the panel's last one, prices and costs held at their latest.

    Args:
        panel: completed panel.
        lead_time: planned lead time of each agent [weeks] [agent].
        demand: fitted demand model.
        scenarios: number of futures.
        weeks: weeks ahead.
        seed: decides demand and lead times.
        log_sd: spread of the log lead time between orders.
    """
    ahead = weeks + int(lead_time.max(initial=1)) + 1
    mean, sd = lead_time_demand(demand.mean(ahead), demand.sd(ahead), lead_time, lead_time_sd(lead_time, log_sd), weeks)
    drawn = draw_lead_times(lead_time, (scenarios, weeks), log_sd=log_sd, seed=seed)
    return _paths(panel, demand.sample(scenarios, weeks, seed=seed), drawn, mean, sd)


def past_paths(
    panel: Panel, lead_time: np.ndarray, demand: Demand, *, weeks: int, seed: int, log_sd: float = ORDER_LOG_SD
) -> ExogenousPaths:
    """Replay the last `weeks` weeks of history, with the forecasts that would have been made then (one path)."""
    expected = demand.history_mean()[-weeks:]
    next_mean = np.maximum(demand.mean(1)[0], SMALLEST_DEMAND)
    variation = np.minimum(demand.sd(1)[0] / next_mean, 10.0)
    mean, sd = lead_time_demand(expected, expected * variation, lead_time, lead_time_sd(lead_time, log_sd), weeks)
    drawn = draw_lead_times(lead_time, (1, weeks), log_sd=log_sd, seed=seed)[0]
    return _paths(panel, panel.units[-weeks:], drawn, mean, sd)


def mixed_path(paths: ExogenousPaths, seed: int) -> ExogenousPaths:
    """Mix the scenarios into one path: every agent follows a scenario of its own.

    What agents have in common averages out over the population while every agent's demand stays as lumpy as it is:
    the expected future of the totals in a single path.
    """
    agents, count = paths.n_agents, paths.n_scenarios or 1
    pick = np.random.default_rng([seed, 0x71]).integers(count, size=agents)

    def mix(leaf: jax.Array) -> jax.Array:
        return jnp.take_along_axis(leaf, jnp.asarray(pick)[None, None, :], axis=0)[0]

    return paths.map_scenarios(mix)


def pipeline_length(lead_time: np.ndarray, log_sd: float = ORDER_LOG_SD) -> int:
    """Return the room that a pipeline needs for every lead time that can be drawn [weeks]."""
    return longest_lead_time(lead_time, log_sd)


def _paths(
    panel: Panel,
    demand: Float[np.ndarray, "*scenario week agent"],
    lead_times: np.ndarray,
    mean: Float[np.ndarray, "week agent"],
    sd: Float[np.ndarray, "week agent"],
) -> ExogenousPaths:
    weeks = demand.shape[-2]
    latest = (np.asarray(panel.price)[-1], np.asarray(panel.unit_cost)[-1])
    price, cost = (jnp.asarray(np.repeat(x[None].astype(np.float32), weeks, axis=0)) for x in latest)
    return ExogenousPaths(
        demand=jnp.asarray(demand, jnp.float32),
        sale_price=price,
        unit_cost=cost,
        arrivals=IntegerLeadTimes(jnp.asarray(lead_times)),
        lead_demand_mean=jnp.asarray(mean, jnp.float32),
        lead_demand_sd=jnp.asarray(sd, jnp.float32),
    )
