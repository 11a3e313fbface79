"""Own what a local policy is: a pure function of what an agent sees and the announced shadow prices.

CONTRACT: users bring their own; a policy is an Equinox module whose arrays, if any, have the agent axis last.
"""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int

from walras.clipping import positive_part
from walras.population.population import Population


class PolicyMemory(eqx.Module):
    """Hold what a policy carries from week to week; all arrays have the agent axis last.

    Attributes:
        read: what it needs to go on reading: the past that happened whatever the agents did.
        own: what it remembers of its own doing, such as its last orders.
    """

    exogenous_state: Any = None
    own_state: Any = None


class PublicObservation(eqx.Module):
    """Hold what every agent knows in a week whatever it did before: everything but its stock.

    Fields but the population have a week axis first where all weeks of a run are read at once.

    Attributes:
        week: index of the week in the run.
        population: static attributes.
        lead_demand_mean, lead_demand_sd: forecast of the demand of weeks t .. t + lead time [units].
        sale_price: money per unit sold this week.
        unit_cost: money per unit ordered this week; `next_unit_cost` the same next week.
        read: what the policy has read of the past up to this week, where it reads (`Policy.read`).
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
    """Hold what every agent knows when it orders (after receipts, before this week's demand).

    Attributes:
        stock_start: stock after receipts [units].
        position: stock_start plus open orders [units].
        memory: what the policy remembers, where it remembers anything (`Policy.begin`).
    """

    stock_start: Float[Array, " agent"]
    position: Float[Array, " agent"]
    memory: PolicyMemory | None = eqx.field(default=None, kw_only=True)


class Policy(eqx.Module):
    """Decide what every agent orders; every agent on its own (relabelling agents relabels orders).

    A policy may part its work: `encode` sees all that does not depend on stock, and is computed for all weeks (and once
    for all scenarios) before the first; `decide` finishes within the week. Then `orders` has to equal `decide` of
    `encode`.

    A policy may also remember: `begin` says what it starts with, `remember` what it keeps of a week, and the state
    carries it on. What happens whatever the agents do (demand, prices, costs) it can `read` for all weeks of a run in
    one pass; a run of one week after the other reads the same, a column at a time.
    """

    @property
    def ahead(self) -> int:
        """Count the weeks beyond the longest lead time whose announced prices the policy wants to see."""
        return 1

    @property
    def reads_history(self) -> bool:
        """Tell whether the policy reads the past."""
        return type(self).read is not Policy.read

    @property
    def scan_scenarios(self) -> bool:
        """Tell whether scenarios are better simulated one after the other: what is read of all would fill the cache."""
        return False

    @abc.abstractmethod
    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return orders >= 0 [units], which is not checked: a negative order would take stock back from the pipeline.

        Args:
            observation: what is known now.
            shadow_prices: the announced path: this week's price first, then the coming weeks'
                [money per unit of resource].
        """

    def encode(self, outlook: PublicObservation, shadow_prices: Float[Array, "lead resource"]) -> Any:
        """Return what can be said of a week's orders without knowing the stock; by default nothing."""
        return None

    def decide(
        self, encoded: Any, observation: Observation, shadow_prices: Float[Array, "lead resource"]
    ) -> Float[Array, " agent"]:
        """Return orders >= 0 [units], given what `encode` returned for this week."""
        return self.orders(observation, shadow_prices)

    def begin(self, population: Population) -> PolicyMemory | None:
        """Return the memory of agents of whom nothing is known yet; None for a policy that remembers nothing."""
        return None

    def read(self, memory: Any, outlooks: PublicObservation, demand: Float[Array, "week agent"]) -> tuple[Any, Any]:
        """Read the weeks of a run in one pass.

        Args:
            memory: `PolicyMemory.exogenous_state` at the start of the run.
            outlooks: what was known in each week, week axis first (the population has none).
            demand: what was asked for in each week [units]; it is known from the next week on.

        Returns:
            What is known in each week (week axis first, agent axis last), which becomes `PublicObservation.read`: of week t it
            may depend on what was known in weeks up to t and on the demand of weeks before t. And `PolicyMemory.exogenous_state` after
            the last week, such that reading on from it is the same as reading all in one pass.
        """
        return None, memory

    def remember(self, observation: Observation, orders: Float[Array, " agent"]) -> Any:
        """Return `PolicyMemory.own_state` for the next week, given what was accepted of this week's orders [units]."""
        return None if observation.memory is None else observation.memory.own_state


class AbstractWrapper(Policy):
    """Change what another policy orders; all that it sees, says beforehand and remembers stays its own.

    Attributes:
        policy: whose orders are changed.
    """

    policy: eqx.AbstractVar[Policy]

    @property
    def ahead(self) -> int:
        """Count the weeks that the inner policy looks ahead."""
        return self.policy.ahead

    @property
    def reads_history(self) -> bool:
        """Tell whether the inner policy reads the past."""
        return self.policy.reads_history

    @property
    def scan_scenarios(self) -> bool:
        """Tell whether the inner policy wants one scenario at a time."""
        return self.policy.scan_scenarios

    def begin(self, population: Population) -> PolicyMemory | None:
        """Return the inner policy's memory."""
        return self.policy.begin(population)

    def read(self, memory: Any, outlooks: PublicObservation, demand: Float[Array, "week agent"]) -> tuple[Any, Any]:
        """Let the inner policy read."""
        return self.policy.read(memory, outlooks, demand)

    def remember(self, observation: Observation, orders: Float[Array, " agent"]) -> Any:
        """Let the inner policy remember what was accepted."""
        return self.policy.remember(observation, orders)

    def encode(self, outlook: PublicObservation, shadow_prices: Float[Array, "lead resource"]) -> Any:
        """Return what the inner policy can say beforehand."""
        return self.policy.encode(outlook, shadow_prices)

    @abc.abstractmethod
    def decide(
        self, encoded: Any, observation: Observation, shadow_prices: Float[Array, "lead resource"]
    ) -> Float[Array, " agent"]:
        """Return what becomes of the inner policy's orders [units], given what it said beforehand."""

    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return what encoding and deciding in one go gives."""
        return self.decide(self.encode(observation, shadow_prices), observation, shadow_prices)


class AbstractOrderUpTo(Policy):
    """Order the inventory position up to a level that does not depend on stock."""

    @abc.abstractmethod
    def target(
        self, outlook: PublicObservation, shadow_prices: Float[Array, "lead resource"]
    ) -> Float[Array, " agent"]:
        """Return the order-up-to level [units]."""

    def encode(
        self, outlook: PublicObservation, shadow_prices: Float[Array, "lead resource"]
    ) -> Float[Array, " agent"]:
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
