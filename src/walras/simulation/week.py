"""One week, in the order of docs/concepts/week.md: the state before and after it, its inputs, and what happens.

LAW: receipts, stock, orders, arrivals of lead time 0, demand, money, resource use; nothing here is random. The pipeline
conserves units: what is ordered and accepted is in it until it arrives.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from walras.clipping import minimum, positive_part
from walras.errors import shape_mismatch
from walras.exogenous.arrivals import AbstractArrivals, AbstractSupply
from walras.exogenous.paths import ExogenousPaths
from walras.policies.base import Observation, Policy, PolicyMemory, PublicObservation
from walras.population.population import Population

Agents = Float[Array, " agent"]


class State(eqx.Module):
    """Stock and open orders at the end of a week.

    Attributes:
        stock_end: stock on hand; negative is backlog where backlogging is on [units].
        pipeline: units that arrive 1, 2, ..., max_lead weeks from now [units].
        memory: what the policy remembers of the past, if anything.
    """

    stock_end: Float[Array, "*scenario agent"]
    pipeline: Float[Array, "*scenario lead agent"]
    memory: PolicyMemory | None = None

    @property
    def max_lead(self) -> int:
        """Return the longest lead time the pipeline can hold [weeks]."""
        return self.pipeline.shape[-2]


def empty_state(n_agents: int, max_lead: int, stock: float | Float[Array, " agent"] = 0.0) -> State:
    """Return a state with stock on hand, one number or one per agent [units], and nothing on order."""
    on_hand = jnp.broadcast_to(jnp.asarray(stock, jnp.float32), (n_agents,))
    return State(stock_end=on_hand, pipeline=jnp.zeros((max_lead, n_agents), jnp.float32))


class WeekInputs(eqx.Module):
    """What happens in one week and the shadow prices announced in it; engines get all weeks stacked.

    Attributes: as in `ExogenousPaths`; `week` counts from the start of the run, `shadow_prices` starts with this week's
    price, and `encoded` is what the policy computed for this week before the run.
    """

    week: Int[Array, "*steps"]
    demand: Float[Array, "*steps agent"]
    sale_price: Float[Array, "*steps agent"]
    unit_cost: Float[Array, "*steps agent"]
    next_unit_cost: Float[Array, "*steps agent"]
    arrivals: AbstractArrivals
    lead_demand_mean: Float[Array, "*steps agent"]
    lead_demand_sd: Float[Array, "*steps agent"]
    supply: AbstractSupply | None
    shadow_prices: Float[Array, "*steps lead resource"]
    encoded: Any


class WeekCarry(eqx.Module):
    """`State` with the position (stock plus open orders [units]), updated instead of summed over the pipeline."""

    stock_end: Agents
    pipeline: Float[Array, "lead agent"]
    position: Agents
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
    """Advance all agents by one week, a transition for any engine; with `backlog` unmet demand waits."""

    population: Population
    policy: Policy
    backlog: bool = eqx.field(static=True, default=False)

    def begin(self, state: State) -> WeekCarry:
        """Return the carry of a run that starts from a state."""
        return WeekCarry(state.stock_end, state.pipeline, state.stock_end + state.pipeline.sum(0), state.memory)

    def __call__(self, carry: WeekCarry, inputs: WeekInputs) -> tuple[WeekCarry, WeekRecord]:
        """Advance by one week."""
        # 1. receipts; they leave the position unchanged
        receipts, pipeline = carry.pipeline[0], _advance(carry.pipeline)
        # 2. stock at the start
        stock_start = carry.stock_end + receipts
        # 3. shadow prices are announced: inputs.shadow_prices
        observation = Observation(
            week=inputs.week,
            population=self.population,
            stock_start=stock_start,
            position=carry.position,
            memory=carry.memory,
            **{name: getattr(inputs, name) for name in KNOWN},
        )
        # 4. every agent orders, the vendor accepts what it can supply, and orders of lead time 0 arrive
        placed = self.policy.decide(inputs.encoded, observation, inputs.shadow_prices)
        if jnp.shape(placed) != stock_start.shape:
            remedy = "order one number for every agent"
            raise shape_mismatch("the policy's orders", jnp.shape(placed), "[agents]", remedy)
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
        position, memory = carry.position + orders - sales, observation.memory
        if memory is not None:
            memory = PolicyMemory(memory.exogenous_state, self.policy.remember(observation, orders))
        return WeekCarry(stock_end, pipeline, position, memory), record

    def _serve(self, available: Agents, demand: Agents) -> tuple[Agents, Agents, Agents]:
        """Return stock at the end, sales and lost sales; under backlog stock goes negative and all demand is sold."""
        if self.backlog:
            return available - demand, demand, jnp.zeros_like(demand)
        sales = minimum(demand, available)
        return available - sales, sales, demand - sales

    def _money(self, inputs: WeekInputs, orders: Agents, sales: Agents, lost: Agents, stock_end: Agents) -> Agents:
        """Return revenue - purchases of accepted orders - holding cost - penalty for lost or waiting demand."""
        on_hand = positive_part(stock_end)
        # (-stock)^+, written so that at zero both parts have the derivative of falling stock
        short = on_hand - stock_end if self.backlog else lost
        holding = self.population.holding_cost * on_hand
        return (
            inputs.sale_price * sales - inputs.unit_cost * orders - holding - self.population.lost_sale_penalty * short
        )

    def _use(self, receipts: Agents, stock_end: Agents) -> Float[Array, "agent resource"]:
        """Return use per unit x receipts for flow resources, x stock on hand for storage."""
        on_hand = positive_part(stock_end)
        used_by = [on_hand if is_stock else receipts for is_stock in self.population.stock_resource]
        return self.population.use * jnp.stack(used_by, axis=-1)


def _advance(pipeline: Float[Array, "lead agent"]) -> Float[Array, "lead agent"]:
    """Move every open order one week closer; the last row becomes zero."""
    return jax.lax.pad(pipeline, jnp.zeros((), pipeline.dtype), [(-1, 1, 0), (0, 0, 0)])


KNOWN = ("lead_demand_mean", "lead_demand_sd", "sale_price", "unit_cost", "next_unit_cost")
"""Fields that a policy knows independently of its stock, in the order of `PublicObservation`."""


def shared_inputs(exogenous: ExogenousPaths, following_cost: Float[Array, " agent"] | None) -> dict[str, Any]:
    """Return the fields that all scenarios share, each with one row per week or one row for all weeks.

    `following_cost` is the unit cost of the week after the last one; None for that of the last week.
    """
    following = exogenous.unit_cost[-1] if following_cost is None else following_cost
    names = ("sale_price", "unit_cost", "lead_demand_mean", "lead_demand_sd", "supply")
    fields = {name: getattr(exogenous, name) for name in names}
    return {**fields, "next_unit_cost": _next_week(exogenous.unit_cost, following)}


def _next_week(values: Float[Array, "#week agent"], following: Float[Array, " agent"]) -> Float[Array, "#week agent"]:
    """Return for every week the values of the next one, and `following` for the last week.

    Copied row by row: a concatenation would be fused into its consumers, which then run several times slower.
    """
    last = values.shape[0] - 1
    if last == 0:
        return following[None]

    def row(week: Int[Array, ""]) -> Float[Array, " agent"]:
        return jnp.where(week < last, values[jnp.minimum(week + 1, last)], following)

    return jax.lax.map(row, jnp.arange(last + 1))


def split_static(fields: dict[str, Any], weeks: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split fields into those with one row for all weeks (returned as that row) and those that change."""
    static, changing = {}, {}
    for name, field in fields.items():
        if {leaf.shape[0] for leaf in jax.tree.leaves(field)} <= {1}:
            static[name] = jax.tree.map(lambda leaf: leaf[0], field)
        else:
            changing[name] = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (weeks, *leaf.shape[1:])), field)
    return static, changing


def encode_weeks(
    population: Population,
    policy: Policy,
    fields: dict[str, Any],
    weeks: Int[Array, " week"],
    windows: Float[Array, "*scenario week lead resource"],
    read: Any = None,
) -> Any:
    """Let the policy compute what does not depend on stock, for all weeks at once.

    `read` is what it has read of the past, by week; where it reads, windows are those of one scenario.
    """

    def one(week: Array, window: Array, read: Any, *known: Array) -> Any:
        return policy.encode(PublicObservation(week, population, *known, read=read), window)

    all_weeks = jax.vmap(one)
    known = _known(fields, weeks)
    if windows.ndim == 4:
        return jax.vmap(lambda window: all_weeks(weeks, window, read, *known))(windows)
    return all_weeks(weeks, windows, read, *known)


def read_weeks(
    population: Population,
    policy: Policy,
    fields: dict[str, Any],
    weeks: Int[Array, " week"],
    demand: Float[Array, "week agent"],
    memory: PolicyMemory,
) -> tuple[Any, PolicyMemory]:
    """Let the policy read all weeks of a run in one pass, each with what was known in it."""
    outlooks = PublicObservation(weeks, population, *_known(fields, weeks))
    read, after = policy.read(memory.exogenous_state, outlooks, demand)
    return read, PolicyMemory(after, memory.own_state)


def _known(fields: dict[str, Any], weeks: Int[Array, " week"]) -> list[Float[Array, "week agent"]]:
    return [jnp.broadcast_to(fields[name], (len(weeks), fields[name].shape[1])) for name in KNOWN]
