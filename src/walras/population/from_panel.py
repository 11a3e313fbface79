"""Own how a completed Panel becomes a Population, and the buckets that reports group agents by.

CONTRACT: reads a panel that has no missing attribute (`data.assume.complete_panel`), returns arrays of the same agents.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from walras.data.panel import Panel
from walras.errors import InputError, SettingsError
from walras.population.population import RESOURCES, AgentNames, Population

WEEKS_PER_YEAR = 52.0
SHORTEST_LEAD_TIME, LONGEST_LEAD_TIME = 1, 52
"""Typical lead times that are planned with [weeks]."""

N_BUCKETS = 10


def population_from_panel(
    panel: Panel,
    *,
    resources: Sequence[str] = ("inbound_units",),
    annual_holding_rate: float = 0.25,
    lost_sale_penalty_share: float = 0.0,
) -> Population:
    """Read the static attributes of every agent off the latest weeks of a completed panel.

    Args:
        panel: completed panel (price, unit_cost, lead_time, volume present).
        resources: which shared resources are priced, in the order of the resource axis.
        annual_holding_rate: holding cost per year as a share of unit cost.
        lost_sale_penalty_share: penalty for a lost sale beyond the lost margin, as a share of the sale price.

    Raises:
        SettingsError: an unknown resource.
        InputError: a typical lead time of more than a year.
    """
    unknown = [name for name in resources if name not in RESOURCES]
    if unknown:
        raise SettingsError(f"resource `{unknown[0]}` is not known; choose from {', '.join(RESOURCES)}")
    price, cost = latest_prices(panel)
    lead = np.maximum(np.rint(np.asarray(panel.lead_time)), SHORTEST_LEAD_TIME).astype(np.int32)
    _refuse_long(panel, lead)
    volume = np.asarray(panel.volume, np.float32)
    per_unit = {"inbound_units": np.ones_like(volume), "inbound_volume": volume, "storage": volume}
    return Population(
        holding_cost=jnp.asarray(annual_holding_rate / WEEKS_PER_YEAR * cost),
        lost_sale_penalty=jnp.asarray(lost_sale_penalty_share * price),
        lead_time=jnp.asarray(lead),
        demand_scale=jnp.asarray(mean_demand(panel), jnp.float32),
        unit_margin=jnp.asarray(price - cost),
        use=jnp.asarray(np.stack([per_unit[name] for name in resources], axis=-1)),
        weight=jnp.ones(panel.n_agents, jnp.float32),
        resources=tuple(resources),
        names=AgentNames(panel.agents),
    )


def _refuse_long(panel: Panel, lead: np.ndarray) -> None:
    """Refuse lead times beyond a year, which are mostly days taken for weeks."""
    worst = int(np.argmax(lead))
    if lead[worst] > LONGEST_LEAD_TIME:
        raise InputError(
            f"`lead_time` of `{panel.agents[worst]}` is {lead[worst]} weeks but at most {LONGEST_LEAD_TIME} are "
            "planned; give lead times in weeks"
        )


def latest_prices(panel: Panel) -> tuple[Float[np.ndarray, " agent"], Float[np.ndarray, " agent"]]:
    """Return the last week's sale price and unit cost, which the coming weeks are planned with [money/unit]."""
    return np.asarray(panel.price)[-1].astype(np.float32), np.asarray(panel.unit_cost)[-1].astype(np.float32)


def mean_demand(panel: Panel) -> Float[np.ndarray, " agent"]:
    """Return mean weekly units over the weeks on sale [units/week]."""
    weeks = np.maximum(panel.on_sale.sum(0), 1)
    return (panel.units * panel.on_sale).sum(0, dtype=np.float64) / weeks


def bucket_edges(value: Float[np.ndarray, " agent"], n_buckets: int = N_BUCKETS) -> Float[np.ndarray, " edge"]:
    """Return the inner quantile edges that cut a baseline population into equal buckets."""
    return np.quantile(value, np.arange(1, n_buckets) / n_buckets)


def bucket_of(value: Float[np.ndarray, " agent"], edges: Float[np.ndarray, " edge"]) -> Int[np.ndarray, " agent"]:
    """Return the bucket of each agent under frozen edges, 0 for the smallest."""
    return np.searchsorted(edges, value, side="right").astype(np.int32)
