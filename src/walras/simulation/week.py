"""The law of one week, in the order of docs/concepts/week.md.

LAW: receipts, stock, orders, arrivals of lead time 0, demand, money, resource use; nothing here is random.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.clipping import minimum, positive_part
from walras.errors import shape_mismatch
from walras.policies.base import Observation, Policy, PolicyMemory
from walras.population.population import Population
from walras.simulation.state import State, WeekInputs


class WeekCarry(eqx.Module):
    """The state from week to week, with the position updated instead of summed over the pipeline every week.

    Attributes:
        stock_end, pipeline, memory: as in `State`.
        position: stock plus all open orders [units].
    """

    stock_end: Float[Array, " agent"]
    pipeline: Float[Array, "lead agent"]
    position: Float[Array, " agent"]
    memory: PolicyMemory | None = None

    @property
    def state(self) -> State:
        """Return the state alone."""
        return State(self.stock_end, self.pipeline, self.memory)


class WeekRecord(eqx.Module):
    """What happened to every agent in one week [units, money].

    Attributes:
        receipts: units received, those of lead time 0 included.
        orders: units ordered and accepted by the vendor; `refused` are those it could not supply.
        demand, sales, lost_sales: units demanded, sold, lost (0 under backlog).
        stock_end: stock after demand.
        reward: sales revenue - purchases - holding - penalties, without payments for resources [money].
        utilization: units of each resource used.
    """

    receipts: Float[Array, "*steps agent"]
    orders: Float[Array, "*steps agent"]
    refused: Float[Array, "*steps agent"]
    demand: Float[Array, "*steps agent"]
    sales: Float[Array, "*steps agent"]
    lost_sales: Float[Array, "*steps agent"]
    stock_end: Float[Array, "*steps agent"]
    reward: Float[Array, "*steps agent"]
    utilization: Float[Array, "*steps agent resource"]


class Week(eqx.Module):
    """Advance all agents by one week: a transition for any engine.

    Attributes:
        population: who the agents are.
        policy: what they order.
        backlog: unmet demand waits (True) or is lost (False).
    """

    population: Population
    policy: Policy
    backlog: bool = eqx.field(static=True, default=False)

    def begin(self, state: State) -> WeekCarry:
        """Return the carry of a run that starts from a state."""
        return WeekCarry(state.stock_end, state.pipeline, state.stock_end + state.pipeline.sum(0), state.memory)

    def __call__(self, carry: WeekCarry, inputs: WeekInputs) -> tuple[WeekCarry, WeekRecord]:
        """Advance by one week (spec section 2)."""
        # 1. receipts; they leave the position unchanged
        receipts, pipeline = carry.pipeline[0], _advance(carry.pipeline)
        # 2. stock at the start
        stock_start = carry.stock_end + receipts
        # 3. shadow prices are announced: inputs.shadow_prices
        observation = self._observe(stock_start, carry, inputs)
        # 4. every agent orders, the vendor accepts what it can supply, and orders of lead time 0 arrive
        placed = self.policy.decide(inputs.encoded, observation, inputs.shadow_prices)
        if jnp.shape(placed) != stock_start.shape:
            raise shape_mismatch(
                "the policy's orders", jnp.shape(placed), "[agents]", "order one number for every agent"
            )
        orders = placed if inputs.supply is None else inputs.supply.accept(placed)
        arriving = inputs.arrivals.spread(orders, pipeline.shape[0])
        pipeline = pipeline + arriving[1:]
        receipts, available = receipts + arriving[0], stock_start + arriving[0]
        # 5. demand is served from stock; the rest is lost or backlogged
        stock_end, sales, lost = self._serve(available, inputs.demand)
        record = WeekRecord(
            receipts=receipts,
            orders=orders,
            refused=placed - orders,
            demand=inputs.demand,
            sales=sales,
            lost_sales=lost,
            stock_end=stock_end,
            reward=self._money(inputs, orders, sales, lost, stock_end),
            utilization=self._use(receipts, stock_end),
        )
        position = carry.position + orders - sales
        return WeekCarry(stock_end, pipeline, position, self._remember(observation, orders)), record

    def _remember(self, observation: Observation, orders: Float[Array, " agent"]) -> PolicyMemory | None:
        """Update the policy's memory."""
        if observation.memory is None:
            return None
        return PolicyMemory(observation.memory.exogenous_state, self.policy.remember(observation, orders))

    def _observe(self, stock_start: Float[Array, " agent"], carry: WeekCarry, inputs: WeekInputs) -> Observation:
        return Observation(
            week=inputs.week,
            population=self.population,
            stock_start=stock_start,
            position=carry.position,
            lead_demand_mean=inputs.lead_demand_mean,
            lead_demand_sd=inputs.lead_demand_sd,
            sale_price=inputs.sale_price,
            unit_cost=inputs.unit_cost,
            next_unit_cost=inputs.next_unit_cost,
            memory=carry.memory,
        )

    def _serve(
        self, available: Float[Array, " agent"], demand: Float[Array, " agent"]
    ) -> tuple[Float[Array, " agent"], Float[Array, " agent"], Float[Array, " agent"]]:
        """Return stock at the end, sales and lost sales; under backlog stock goes negative and all demand is sold."""
        if self.backlog:
            return available - demand, demand, jnp.zeros_like(demand)
        sales = minimum(demand, available)
        return available - sales, sales, demand - sales

    def _money(
        self,
        inputs: WeekInputs,
        orders: Float[Array, " agent"],
        sales: Float[Array, " agent"],
        lost: Float[Array, " agent"],
        stock_end: Float[Array, " agent"],
    ) -> Float[Array, " agent"]:
        """Return sale price x sales - unit cost x accepted orders - holding cost - penalty for lost or waiting demand."""
        on_hand = positive_part(stock_end)
        # (-stock)^+, written so that at zero both parts have the derivative of falling stock
        short = on_hand - stock_end if self.backlog else lost
        holding = self.population.holding_cost * on_hand
        return (
            inputs.sale_price * sales - inputs.unit_cost * orders - holding - self.population.lost_sale_penalty * short
        )

    def _use(
        self, receipts: Float[Array, " agent"], stock_end: Float[Array, " agent"]
    ) -> Float[Array, "agent resource"]:
        """Return use per unit x receipts for flow resources, x stock on hand for storage."""
        on_hand = positive_part(stock_end)
        used_by = [on_hand if is_stock else receipts for is_stock in self.population.stock_resource]
        return self.population.use * jnp.stack(used_by, axis=-1)


def _advance(pipeline: Float[Array, "lead agent"]) -> Float[Array, "lead agent"]:
    """Move every open order one week closer; the last row becomes zero."""
    return jax.lax.pad(pipeline, jnp.zeros((), pipeline.dtype), [(-1, 1, 0), (0, 0, 0)])
