"""Scenarios of the coming weeks, the replayed past, and generated examples: assembled `ExogenousPaths`.

The same seed gives the same paths.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from walras.data.panel import Panel
from walras.exogenous.arrivals import (
    ORDER_LOG_SD,
    IntegerLeadTimes,
    draw_lead_times,
    lead_time_sd,
    longest_lead_time,
    postponed,
)
from walras.exogenous.demand.model import DemandModel
from walras.exogenous.paths import ExogenousPaths, lead_time_demand
from walras.population.generate import generate_panel
from walras.population.population import Population, population_from_panel

SMALLEST_DEMAND = 1e-6
"""Mean demand below this has no meaningful coefficient of variation [units/week]."""

WEEKS_BEFORE = 52
"""History before a generated path, on which its forecasts are fitted [weeks]."""


@runtime_checkable
class Demand(Protocol):
    """Methods that a demand model needs (see `exogenous.demand.model.DemandModel`)."""

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
    closed: Bool[np.ndarray, " closed_week"] | None = None,
) -> ExogenousPaths:
    """Draw scenarios of the weeks after the panel's last one; prices and costs stay at their latest.

    Args:
        panel: completed panel.
        lead_time: planned lead time of each agent [weeks] [agent].
        demand: fitted demand model.
        scenarios: number of scenarios.
        weeks: weeks ahead.
        seed: of demand and lead times.
        log_sd: spread of the log lead time between orders.
        closed: first coming weeks in which nothing arrives; orders wait for the next open week.
    """
    ahead = weeks + int(lead_time.max(initial=1)) + 1
    mean, sd = lead_time_demand(demand.mean(ahead), demand.sd(ahead), lead_time, lead_time_sd(lead_time, log_sd), weeks)
    drawn = draw_lead_times(lead_time, (scenarios, weeks), log_sd=log_sd, seed=seed)
    if closed is not None and closed.any():
        drawn = postponed(drawn, closed)
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


def mixed_path(paths: ExogenousPaths, seed: int, copies: int = 1) -> ExogenousPaths:
    """Mix the scenarios into one path: every agent follows a randomly chosen scenario.

    Shared shocks average out over the population while each agent's demand stays as lumpy as it is, so that totals
    follow their expectation in a single path. Of few agents this takes several copies of all, one after the other,
    each of which follows another scenario.
    """
    count = paths.n_scenarios or 1
    first = np.random.default_rng([seed, 0x71]).integers(count, size=paths.n_agents)
    pick = jnp.asarray((first + np.arange(copies)[:, None]) % count)[:, None, :]

    def mix(leaf: jax.Array) -> jax.Array:
        followed = jnp.take_along_axis(leaf, pick, axis=0)  # [copy, week, agent]
        return jnp.moveaxis(followed, 0, 1).reshape(leaf.shape[1], -1)

    mixed = paths.map_scenarios(mix)
    shared = eqx.tree_at(lambda mixed: (mixed.demand, mixed.arrivals), mixed, (None, None))
    repeated = jax.tree.map(lambda leaf: jnp.tile(leaf, copies), shared)
    return replace(repeated, demand=mixed.demand, arrivals=mixed.arrivals)


def generate(
    agents: int = 1000, weeks: int = 52, seed: int = 0, *, resources: Sequence[str] = ("inbound_units",)
) -> tuple[Population, ExogenousPaths]:
    """Generate a population of stores' products and one path, ready to simulate.

    The path is the end of a generated history; prices and costs are those of its last week.

    Args:
        agents: number of agents.
        weeks: length of the path.
        seed: another seed gives another population and path.
        resources: shared resources that are priced, in the order of the resource axis.
    """
    panel = generate_panel(agents, weeks + WEEKS_BEFORE, seed)
    population = population_from_panel(panel, resources=resources)
    model = DemandModel.fit(panel)
    return population, past_paths(panel, np.asarray(population.lead_time), model, weeks=weeks, seed=seed)


def pipeline_length(lead_time: np.ndarray, log_sd: float = ORDER_LOG_SD) -> int:
    """Return the pipeline length that fits every lead time that can be drawn [weeks]."""
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
        demand=jnp.asarray(demand, jnp.float32),  # aligned as `aligned_empty` makes it, this is no copy
        sale_price=price,
        unit_cost=cost,
        arrivals=IntegerLeadTimes(jnp.asarray(lead_times)),
        lead_demand_mean=jnp.asarray(mean, jnp.float32),
        lead_demand_sd=jnp.asarray(sd, jnp.float32),
    )
