"""Own the Population: what each agent is, as numbers the simulator and the maps read.

CONTRACT: built by `from_panel` or the generator; every field is an array with the agent axis first.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from walras.population.names import NO_NAMES, AgentNames

RESOURCES = ("inbound_units", "inbound_volume", "storage")
"""Resources in the order of the resource axis: the first two are used on arrival, storage by stock on hand."""

STOCK_RESOURCES = frozenset({"storage"})
"""Resources that are used by stock at the end of a week; all others are used by receipts."""


class Population(eqx.Module):
    """Hold the static attributes of the active agents.

    Attributes:
        holding_cost: money per unit of stock at the end of a week [money/unit/week].
        lost_sale_penalty: money per unit of demand not served, beyond the lost margin [money/unit].
        lead_time: typical lead time the agent plans with [weeks, integer].
        demand_scale: historical mean demand m_i [units/week].
        unit_margin: typical sale price minus unit cost [money/unit].
        use: units of resource per unit received (flow) or per unit on hand (stock) [agent, resource].
        weight: agents of the target population that this agent stands for (1 / inclusion probability).
        resources: names along the resource axis, a subset of `RESOURCES`.
        names: what agents are called in sentences; never compared, see `AgentNames`.
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

    @property
    def stock_resource(self) -> tuple[bool, ...]:
        """Tell for each resource whether stock on hand uses it (True) or receipts do (False)."""
        return tuple(name in STOCK_RESOURCES for name in self.resources)

    @property
    def price_scale(self) -> Float[Array, ""]:
        """Give the median unit margin, the unit in which shadow prices are compared [money/unit]."""
        return jnp.median(self.unit_margin)

    def take(self, index: Any) -> "Population":
        """Keep the agents that `index` selects, in that order, with their names.

        Args:
            index: mask, index or slice along the agent axis; names cannot follow a traced one and are dropped.
        """
        kept = jax.tree.map(lambda leaf: leaf[index], self)
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((self, index)))
        return kept.named(NO_NAMES if traced else self.names.take(index))

    def named(self, names: AgentNames) -> "Population":
        """Return the same agents under these names."""
        return dataclasses.replace(self, names=names)

    def name_of(self, agent: int) -> str:
        """Name an agent in a sentence: `agent "X"`, or `agent 12` where it has no name or a transform runs."""
        if isinstance(self.demand_scale, jax.core.Tracer):
            return f"agent {agent}"
        return self.names.of(agent, self.n_agents)
