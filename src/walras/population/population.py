"""The population: static attributes of the agents, read from a product table, and the buckets that group them.

CONTRACT: every field is an array with the agent axis first.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.data.panel import Panel
from walras.errors import InputError, SettingsError

RESOURCES = ("inbound_units", "inbound_volume", "storage")
"""Resources that can be priced: the first two are used on arrival, storage by stock at the end of a week."""

N_BUCKETS = 10


class AgentNames:
    """Names of a population's agents, for error sentences only.

    Strings cannot be arrays of a JAX transform, so names are static fields, which are compared when a compiled function
    is looked up. All names therefore compare equal, or every new table would compile anew. Compare `labels` instead.
    Inside a compiled function the names are those of the population it was compiled with, so compiled code neither
    reads names nor returns populations.

    Attributes:
        labels: one string per agent [agent]; None where agents have no names.
    """

    __slots__ = ("labels",)

    def __init__(self, labels: Any = None) -> None:
        self.labels: np.ndarray | None = None if labels is None else np.asarray(labels, np.str_)

    def take(self, index: Any) -> "AgentNames":
        """Keep the names that `index` (mask, index or slice) selects, in that order."""
        return self if self.labels is None else AgentNames(self.labels[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AgentNames)

    def __hash__(self) -> int:
        return hash(AgentNames)

    def __repr__(self) -> str:
        return f"AgentNames({'none' if self.labels is None else len(self.labels)})"


NO_NAMES = AgentNames()


class Population(eqx.Module):
    """Static attributes of the agents.

    Attributes:
        holding_cost: money per unit of stock at the end of a week [money/unit/week].
        lost_sale_penalty: money per unit of demand not served, beyond the lost margin [money/unit].
        lead_time: typical lead time the agent plans with [weeks, integer].
        demand_scale: historical mean demand m_i [units/week].
        unit_margin: typical sale price minus unit cost [money/unit].
        use: units of resource per unit received (flow) or per unit on hand (stock) [agent, resource].
        weight: agents of the target population that this agent stands for (1 / inclusion probability).
        resources: names along the resource axis, a subset of `RESOURCES`.
        names: of the agents, for sentences; see `AgentNames`.
    """

    holding_cost: Float[Array, " agent"]
    lost_sale_penalty: Float[Array, " agent"]
    lead_time: Int[Array, " agent"]
    demand_scale: Float[Array, " agent"]
    unit_margin: Float[Array, " agent"]
    use: Float[Array, "agent resource"]
    weight: Float[Array, " agent"]
    resources: tuple[str, ...] = eqx.field(static=True)
    names: AgentNames = eqx.field(static=True, default=NO_NAMES)

    @property
    def n_agents(self) -> int:
        """Count the agents."""
        return self.demand_scale.shape[0]

    def __str__(self) -> str:
        """Return a small table of medians and ranges."""
        if isinstance(self.demand_scale, jax.core.Tracer):
            return repr(self)
        rows: list[tuple[str, ...]] = [("", "5 %", "median", "95 %")]
        for name in ("demand_scale", "unit_margin", "holding_cost", "lead_time"):
            rows.append((name, *(f"{value:.4g}" for value in np.quantile(getattr(self, name), (0.05, 0.5, 0.95)))))
        table = "\n".join(f"  {row[0]:<14}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows)
        return f"Population: {self.n_agents:,} agents, resources {', '.join(self.resources)}\n{table}"

    @property
    def stock_resource(self) -> tuple[bool, ...]:
        """Tell for each resource whether stock on hand uses it (True) or receipts do (False)."""
        return tuple(name == "storage" for name in self.resources)

    def take(self, index: Any) -> "Population":
        """Keep the agents that `index` selects, in that order, with their names.

        Args:
            index: mask, index or slice along the agent axis; names cannot follow a traced one and are dropped.
        """
        selected = jax.tree.map(lambda leaf: leaf[index], self)
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((self, index)))
        return selected.named(NO_NAMES if traced else self.names.take(index))

    def named(self, names: AgentNames) -> "Population":
        """Return the same agents under these names."""
        return dataclasses.replace(self, names=names)

    def name_of(self, agent: int) -> str:
        """Name an agent in a sentence: `agent "X"`, or `agent 12` where names are missing or a transform runs."""
        labels = self.names.labels
        if isinstance(self.demand_scale, jax.core.Tracer) or labels is None or len(labels) != self.n_agents:
            return f"agent {agent}"
        label = str(labels[agent])
        return f'agent "{label if label.isprintable() else ascii(label)[1:-1]}"'


def choke_price(population: Population) -> float:
    """Return the choke price, the 99th percentile of margin per unit of resource [money per unit of resource]."""
    use = np.maximum(np.asarray(population.use), np.finfo(np.float32).tiny)
    ratios = np.asarray(population.unit_margin)[:, None] / use
    return float(np.quantile(ratios[np.asarray(population.demand_scale) > 0], 0.99))


def price_scale(population: Population) -> Float[np.ndarray, " resource"]:
    """Return the median margin per unit of each resource, the unit in which shadow prices are compared [money/unit].

    An agent with weight w counts as w agents.
    """
    use = np.maximum(np.asarray(population.use), np.finfo(np.float32).tiny)
    margin = np.maximum(np.asarray(population.unit_margin), 0.0)[:, None] / use
    order = np.argsort(margin, axis=0)
    below = np.cumsum(np.asarray(population.weight, float)[order], axis=0)
    half = 0.5 * below[-1]
    middle = np.argmax(below >= half, axis=0), np.argmax(below > half, axis=0)
    lower, upper = (np.take_along_axis(np.take_along_axis(margin, order, 0), at[None], 0)[0] for at in middle)
    return 0.5 * (lower + upper)


def latest_prices(panel: Panel) -> tuple[Float[np.ndarray, " agent"], Float[np.ndarray, " agent"]]:
    """Return the last week's sale price and unit cost, which the coming weeks are planned with [money/unit]."""
    return np.asarray(panel.price)[-1].astype(np.float32), np.asarray(panel.unit_cost)[-1].astype(np.float32)


def mean_demand(panel: Panel) -> Float[np.ndarray, " agent"]:
    """Return mean weekly units over the weeks on sale and in stock [units/week]."""
    known = panel.on_sale & ~panel.out_of_stock
    return (panel.units * known).sum(0, dtype=np.float64) / np.maximum(known.sum(0), 1)


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
    lead = np.maximum(np.rint(np.asarray(panel.lead_time)), 1).astype(np.int32)
    if lead.max() > 52:  # mostly days mistaken for weeks
        agent = panel.agents[np.argmax(lead)]
        what = f"`lead_time` of `{agent}` is {lead.max()} weeks but at most 52 are planned"
        raise InputError(f"{what}; give lead times in weeks")
    volume = np.asarray(panel.volume, np.float32)
    per_unit = {"inbound_units": np.ones_like(volume), "inbound_volume": volume, "storage": volume}
    return Population(
        holding_cost=jnp.asarray(annual_holding_rate / 52.0 * cost),
        lost_sale_penalty=jnp.asarray(lost_sale_penalty_share * price),
        lead_time=jnp.asarray(lead),
        demand_scale=jnp.asarray(mean_demand(panel), jnp.float32),
        unit_margin=jnp.asarray(price - cost),
        use=jnp.asarray(np.stack([per_unit[name] for name in resources], axis=-1)),
        weight=jnp.ones(panel.n_agents, jnp.float32),
        resources=tuple(resources),
        names=AgentNames(panel.agents),
    )


def bucket_edges(value: Float[np.ndarray, " agent"], n_buckets: int = N_BUCKETS) -> Float[np.ndarray, " edge"]:
    """Return the inner quantile edges that cut a baseline population into equal buckets."""
    return np.quantile(value, np.arange(1, n_buckets) / n_buckets)


def bucket_of(value: Float[np.ndarray, " agent"], edges: Float[np.ndarray, " edge"]) -> Int[np.ndarray, " agent"]:
    """Return the bucket of each agent under frozen edges, 0 for the smallest."""
    return np.searchsorted(edges, value, side="right").astype(np.int32)
