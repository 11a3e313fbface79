"""Own what a local policy is: a pure function of what an agent sees and the announced shadow prices.

CONTRACT: users bring their own; a policy is an Equinox module whose arrays, if any, have the agent axis last.
"""

import abc

import equinox as eqx
from jaxtyping import Array, Float, Int

from walras.population.population import Population


class Observation(eqx.Module):
    """Hold what every agent knows when it orders (after receipts, before this week's demand).

    Attributes:
        week: index of the week in the run.
        population: static attributes.
        stock_start: stock after receipts [units].
        position: stock_start plus open orders [units].
        lead_demand_mean, lead_demand_sd: forecast of the demand of weeks t .. t + lead time [units].
        sale_price: money per unit sold this week.
        unit_cost: money per unit ordered this week; `next_unit_cost` the same next week.
    """

    week: Int[Array, ""]
    population: Population
    stock_start: Float[Array, " agent"]
    position: Float[Array, " agent"]
    lead_demand_mean: Float[Array, " agent"]
    lead_demand_sd: Float[Array, " agent"]
    sale_price: Float[Array, " agent"]
    unit_cost: Float[Array, " agent"]
    next_unit_cost: Float[Array, " agent"]


class AbstractPolicy(eqx.Module):
    """Decide what every agent orders; every agent on its own (relabelling agents relabels orders)."""

    @abc.abstractmethod
    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return orders >= 0 [units].

        Args:
            observation: what is known now.
            shadow_prices: the announced path: this week's price first, then the coming weeks'
                [money per unit of resource].
        """
