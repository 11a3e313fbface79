"""What a policy is: a pure function of an agent's observation and the announced shadow prices.

CONTRACT: users bring their own; a policy is an Equinox module whose arrays, if any, have the agent axis last.
"""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int

from walras.clipping import positive_part
from walras.errors import InputError
from walras.population.population import Population

ShadowPrices = Float[Array, "lead resource"]  # announced, this week's first [money per unit of resource]
PerAgent = Float[Array, " agent"]  # such as orders [units]


class PolicyMemory(eqx.Module):
    """What a policy carries from week to week; all arrays have the agent axis last.

    Attributes:
        exogenous_state: state of `Policy.read`, which depends on exogenous history only.
        own_state: state that depends on the policy's own actions, such as its last orders.
    """

    exogenous_state: Any = None
    own_state: Any = None


class PublicObservation(eqx.Module):
    """What every agent knows in a week whatever it did before: everything but its stock.

    Where all weeks of a run are read at once, fields except the population have a week axis first.

    Attributes:
        week: index of the week in the run.
        population: static attributes.
        lead_demand_mean, lead_demand_sd: forecast of the demand of weeks t .. t + lead time [units].
        sale_price: money per unit sold this week.
        unit_cost: money per unit ordered this week; `next_unit_cost` the same next week.
        read: output of `Policy.read` for this week, where the policy reads history.
    """

    week: Int[Array, "*steps"]
    population: Population
    lead_demand_mean: Float[Array, "*steps agent"]
    lead_demand_sd: Float[Array, "*steps agent"]
    sale_price: Float[Array, "*steps agent"]
    unit_cost: Float[Array, "*steps agent"]
    next_unit_cost: Float[Array, "*steps agent"]
    read: Any = eqx.field(default=None, kw_only=True)


class Observation(PublicObservation):
    """What every agent knows when it orders (after receipts, before this week's demand).

    Attributes:
        stock_start: stock after receipts [units].
        position: stock_start plus open orders [units].
        memory: of the policy, where it has one (`Policy.begin`).
    """

    stock_start: Float[Array, " agent"]
    position: Float[Array, " agent"]
    memory: PolicyMemory | None = eqx.field(default=None, kw_only=True)


class Policy(eqx.Module):
    """Decide what every agent orders, each agent on its own (relabelling agents relabels orders).

    A policy may split its work: `encode` computes all that does not depend on stock, for all weeks (and once for all
    scenarios) in advance; `decide` finishes within the week. A policy gives either `orders`, or `decide` and perhaps
    `encode`.

    A policy may have a memory: `begin` initialises it, `remember` updates what depends on its own orders, and `read`
    processes exogenous history (demand, prices, costs) for all weeks of a run in one pass.
    """

    @property
    def ahead(self) -> int:
        """Count the weeks beyond the longest lead time whose announced prices the policy uses."""
        return 1

    @property
    def reads_history(self) -> bool:
        """Tell whether the policy reads exogenous history."""
        return type(self).read is not Policy.read

    @property
    def scan_scenarios(self) -> bool:
        """Tell whether scenarios are better simulated one after the other, to keep what is read in the cache."""
        return False

    def orders(self, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return orders >= 0 [units]; negative orders are not refused and would take stock from the pipeline.

        Args:
            observation: what is known now.
            shadow_prices: the announced path, this week's price first [money per unit of resource].
        """
        return self.decide(self.encode(observation, shadow_prices), observation, shadow_prices)

    def encode(self, outlook: PublicObservation, shadow_prices: ShadowPrices) -> Any:
        """Compute what does not depend on stock; by default nothing."""
        return None

    def decide(self, encoded: Any, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return orders >= 0 [units], given what `encode` returned for this week."""
        if type(self).orders is Policy.orders:
            raise InputError(
                f"the policy `{type(self).__name__}` orders nothing; give it a method `orders` or `decide`"
            )
        return self.orders(observation, shadow_prices)

    def begin(self, population: Population) -> PolicyMemory | None:
        """Return the initial memory; None for a policy without one."""
        return None

    def read(self, memory: Any, outlooks: PublicObservation, demand: Float[Array, "week agent"]) -> tuple[Any, Any]:
        """Process exogenous history for all weeks of a run in one pass.

        Args:
            memory: `PolicyMemory.exogenous_state` at the start of the run.
            outlooks: observations of each week, week axis first (the population has none).
            demand: demand of each week [units], known from the next week on.

        Returns:
            `PublicObservation.read` for each week (week axis first, agent axis last), which in week t may depend on
            observations up to t and demand before t; and the state after the last week, from which reading continues
            exactly as in one pass.
        """
        return None, memory

    def remember(self, observation: Observation, orders: PerAgent) -> Any:
        """Return `PolicyMemory.own_state` for the next week, given this week's accepted orders [units]."""
        return None if observation.memory is None else observation.memory.own_state


class AbstractWrapper(Policy):
    """Change the orders of another policy, whose encoding and memory are kept."""

    policy: eqx.AbstractVar[Policy]

    @property
    def ahead(self) -> int:
        """Count the weeks that the inner policy looks ahead."""
        return self.policy.ahead

    @property
    def reads_history(self) -> bool:
        """Tell whether the inner policy reads history."""
        return self.policy.reads_history

    @property
    def scan_scenarios(self) -> bool:
        """Tell whether the inner policy scans scenarios."""
        return self.policy.scan_scenarios

    def begin(self, population: Population) -> PolicyMemory | None:
        """Return the inner policy's initial memory."""
        return self.policy.begin(population)

    def read(self, memory: Any, outlooks: PublicObservation, demand: Float[Array, "week agent"]) -> tuple[Any, Any]:
        """Read by the inner policy."""
        return self.policy.read(memory, outlooks, demand)

    def remember(self, observation: Observation, orders: PerAgent) -> Any:
        """Update the inner policy's own state."""
        return self.policy.remember(observation, orders)

    def encode(self, outlook: PublicObservation, shadow_prices: ShadowPrices) -> Any:
        """Encode by the inner policy."""
        return self.policy.encode(outlook, shadow_prices)

    @abc.abstractmethod
    def decide(self, encoded: Any, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the changed orders [units], given the inner policy's encoding."""


class AbstractOrderUpTo(Policy):
    """Order the inventory position up to a level that does not depend on stock."""

    @abc.abstractmethod
    def target(self, outlook: PublicObservation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the level [units]."""

    def encode(self, outlook: PublicObservation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the order-up-to level [units]."""
        return self.target(outlook, shadow_prices)

    def decide(self, encoded: PerAgent, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return (target - position)^+."""
        return positive_part(encoded - observation.position)
