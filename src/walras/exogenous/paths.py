"""Exogenous paths: everything that happens whatever the agents do, so that all randomness is in one place.

CONTRACT: generators build them, `simulate` replays them; the week axis comes first (after an optional scenario axis).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.exogenous.arrivals import AbstractArrivals, AbstractSupply


class ExogenousPaths(eqx.Module):
    """One path, or with a leading scenario axis on `demand` and `arrivals` several.

    Fields other than demand and arrivals may have a single row for all weeks.

    Attributes:
        demand: units that customers want [units/week].
        sale_price: money per unit sold.
        unit_cost: money per unit ordered.
        arrivals: when orders placed in a week arrive.
        lead_demand_mean: the agent's forecast of the demand of weeks t .. t + lead time [units].
        lead_demand_sd: standard deviation of that [units].
        supply: what the vendor accepts of an order placed in that week; None accepts all.
    """

    demand: Float[Array, "*scenario week agent"]
    sale_price: Float[Array, "#week agent"]
    unit_cost: Float[Array, "#week agent"]
    arrivals: AbstractArrivals
    lead_demand_mean: Float[Array, "#week agent"]
    lead_demand_sd: Float[Array, "#week agent"]
    supply: AbstractSupply | None = None

    @property
    def n_weeks(self) -> int:
        """Count the weeks."""
        return self.demand.shape[-2]

    @property
    def n_agents(self) -> int:
        """Count the agents."""
        return self.demand.shape[-1]

    @property
    def n_scenarios(self) -> int | None:
        """Count the scenarios; None for a single path."""
        return self.demand.shape[0] if self.demand.ndim == 3 else None

    def map_scenarios(self, change: Callable[[Array], Array]) -> "ExogenousPaths":
        """Apply a function to every array that may have a scenario axis."""
        changed = jax.tree.map(change, (self.demand, self.arrivals))
        return eqx.tree_at(lambda paths: (paths.demand, paths.arrivals), self, changed)


def lead_time_demand(
    mean: Float[np.ndarray, "ahead agent"],
    sd: Float[np.ndarray, "ahead agent"],
    lead_time: np.ndarray,
    lead_time_sd: Float[np.ndarray, " agent"],
    weeks: int,
) -> tuple[Float[np.ndarray, "week agent"], Float[np.ndarray, "week agent"]]:
    """Add weekly forecasts up to the demand of weeks t .. t + L that an order of week t must cover.

    The variance is the sum of the weekly variances plus (mean weekly demand)^2 x variance of the lead time.

    Args:
        mean: forecast of weekly demand, at least `weeks` + the longest lead time rows [units/week].
        sd: standard deviation of weekly demand [units/week].
        lead_time: planned lead time L [weeks] [agent].
        lead_time_sd: standard deviation of the lead time [weeks].
        weeks: number of ordering weeks.

    Returns:
        Mean and standard deviation of lead-time demand [units].
    """
    longest = int(lead_time.max(initial=0))
    short = weeks + longest + 1 - mean.shape[0]
    if short > 0:  # beyond the forecast, its last week is repeated
        mean, sd = (np.concatenate([x, np.repeat(x[-1:], short, axis=0)]) for x in (mean, sd))
    total, variance = np.zeros((weeks, mean.shape[1])), np.zeros((weeks, mean.shape[1]))
    for ahead in range(longest + 1):
        counts = (lead_time >= ahead)[None, :]
        total += counts * mean[ahead : ahead + weeks]
        variance += counts * sd[ahead : ahead + weeks].astype(float) ** 2
    variance += (total / (lead_time + 1.0)[None, :]) ** 2 * lead_time_sd[None, :] ** 2
    return total.astype(np.float32), np.sqrt(variance).astype(np.float32)


def constant_paths(
    demand: Float[np.ndarray, "*scenario week agent"],
    arrivals: AbstractArrivals,
    *,
    sale_price: float = 0.0,
    unit_cost: float = 0.0,
    lead_demand_mean: float = 0.0,
    lead_demand_sd: float = 0.0,
) -> ExogenousPaths:
    """Build paths with the same prices, costs and forecasts in every week for every agent (textbook stores)."""

    def full(value: float) -> Float[Array, "1 agent"]:
        return jnp.full((1, demand.shape[-1]), value, jnp.float32)

    return ExogenousPaths(
        demand=jnp.asarray(demand, jnp.float32),
        sale_price=full(sale_price),
        unit_cost=full(unit_cost),
        arrivals=arrivals,
        lead_demand_mean=full(lead_demand_mean),
        lead_demand_sd=full(lead_demand_sd),
    )
