"""Own what a local policy is: a pure function of what an agent sees and the announced shadow prices.

CONTRACT: users bring their own; a policy is an Equinox module whose arrays, if any, have the agent axis last.
"""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int

from walras.population.population import Population
from walras.ties import positive_part


class Outlook(eqx.Module):
    """Hold what every agent knows in a week whatever it did before: everything but its stock.

    Attributes:
        week: index of the week in the run.
        population: static attributes.
        lead_demand_mean, lead_demand_sd: forecast of the demand of weeks t .. t + lead time [units].
        sale_price: money per unit sold this week.
        unit_cost: money per unit ordered this week; `next_unit_cost` the same next week.
    """

    week: Int[Array, ""]
    population: Population
    lead_demand_mean: Float[Array, " agent"]
    lead_demand_sd: Float[Array, " agent"]
    sale_price: Float[Array, " agent"]
    unit_cost: Float[Array, " agent"]
    next_unit_cost: Float[Array, " agent"]


class Observation(Outlook):
    """Hold what every agent knows when it orders (after receipts, before this week's demand).

    Attributes:
        stock_start: stock after receipts [units].
        position: stock_start plus open orders [units].
    """

    stock_start: Float[Array, " agent"]
    position: Float[Array, " agent"]


class AbstractPolicy(eqx.Module):
    """Decide what every agent orders; every agent on its own (relabelling agents relabels orders).

    A policy may part its work: `encode` sees all that does not depend on stock, and is computed for all weeks (and once
    for all scenarios) before the first; `decide` finishes within the week. Then `orders` has to equal `decide` of
    `encode`.
    """

    @abc.abstractmethod
    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return orders >= 0 [units], which is not checked: a negative order would take stock back from the pipeline.

        Args:
            observation: what is known now.
            shadow_prices: the announced path: this week's price first, then the coming weeks'
                [money per unit of resource].
        """

    def encode(self, outlook: Outlook, shadow_prices: Float[Array, "lead resource"]) -> Any:
        """Return what can be said of a week's orders without knowing the stock; by default nothing."""
        return None

    def decide(
        self, encoded: Any, observation: Observation, shadow_prices: Float[Array, "lead resource"]
    ) -> Float[Array, " agent"]:
        """Return orders >= 0 [units], given what `encode` returned for this week."""
        return self.orders(observation, shadow_prices)


class AbstractOrderUpTo(AbstractPolicy):
    """Order the inventory position up to a level that does not depend on stock."""

    @abc.abstractmethod
    def target(self, outlook: Outlook, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return the order-up-to level [units]."""

    def encode(self, outlook: Outlook, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return the order-up-to level [units]."""
        return self.target(outlook, shadow_prices)

    def decide(
        self,
        encoded: Float[Array, " agent"],
        observation: Observation,
        shadow_prices: Float[Array, "lead resource"],
    ) -> Float[Array, " agent"]:
        """Return (target - position)^+."""
        return positive_part(encoded - observation.position)

    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return (target - position)^+."""
        return self.decide(self.target(observation, shadow_prices), observation, shadow_prices)
