"""Own what maps read: the ledger of what agents did and knew, what is known of the coming weeks, and their features.

LAW: features and their order are stored with trained maps; a change of either is a new `FEATURES`.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.exogenous.paths import ExogenousPaths
from walras.maps.pooling import CohortIndex, PooledAgents
from walras.maps.probes import AgentState, PreparedProbes, ProbeAgents, prepare_probes
from walras.policies.base import Policy
from walras.population.population import Population
from walras.simulation.state import State
from walras.simulation.week import WeekRecord

FEATURES = 1
"""Version of the features below."""

HORIZON = 26
"""Coming weeks that maps answer for."""

LOOK_BACK = 64
"""Weeks of history that an embedding knows."""

LEAST_DEMAND = 0.02
"""Demand scales below count as this [units/week]."""

LEAST_BASE = 0.05
"""Answers are relative to at least this share of S(P)."""

AGENT_FEATURES, ATTRIBUTES, TOTALS, AHEAD = 13, 7, 4, 3
"""Numbers per agent and week, static ones per agent, numbers per total and resource, per coming week and resource."""


class AgentHistory(eqx.Module):
    """Hold what agents did and knew, in the moment in which prices are issued: receipts are in, orders not yet placed.

    Attributes:
        receipts: of this week [units].
        stock_start: stock after receipts [units].
        position: stock plus all open orders [units].
        demand_before, orders_before: of the week before [units].
        sale_price, unit_cost: of this week [money/unit].
        lead_demand_mean, lead_demand_sd: the agent's own forecast of the demand of its lead time [units].
        valid: 1 where the agent has a history, else 0.
    """

    receipts: Float[Array, "week agent"]
    stock_start: Float[Array, "week agent"]
    position: Float[Array, "week agent"]
    demand_before: Float[Array, "week agent"]
    orders_before: Float[Array, "week agent"]
    sale_price: Float[Array, "week agent"]
    unit_cost: Float[Array, "week agent"]
    lead_demand_mean: Float[Array, "week agent"]
    lead_demand_sd: Float[Array, "week agent"]
    valid: Float[Array, "week agent"]


class KnownFuture(eqx.Module):
    """Hold what is known of the coming weeks of one or several origins, summed over agents with their weights.

    Attributes:
        expected: forecast use if everybody received what is asked for, of this week and the coming ones.
        committed: use by what is on order already, likewise; for storage what of it is left.
        stock: use by stock on hand, in units of a flow resource, after this week's receipts.
        holidays: nearness of public holidays in the coming weeks.
    """

    expected: Float[Array, "*origin week resource"]
    committed: Float[Array, "*origin week resource"]
    stock: Float[Array, "*origin resource"]
    holidays: Float[Array, "*origin ahead side"]


class Units(eqx.Module):
    """Hold the units in which a map sees a population.

    Attributes:
        use: S(P), the sum over agents of weight x demand scale x use per unit [units of resource/week].
        price: the median over demand of the margin per unit of resource [money per unit of resource].
        demand: the sum over agents of weight x demand scale [units/week].
    """

    use: Float[Array, " resource"]
    price: Float[Array, " resource"]
    demand: Float[Array, ""]


class Baseline(eqx.Module):
    """Hold what answers start from, relative to S(P).

    Attributes:
        level: mean expected use over the coming weeks.
        due: use by what is on order already, which no price changes; 0 for storage.
    """

    level: Float[Array, "*origin resource"]
    due: Float[Array, "*origin ahead resource"]


class MapInputs(eqx.Module):
    """Hold all that a map reads of a population: features before they are scaled.

    Attributes:
        agents: of every agent in every week; None for maps that read none.
        totals: of the population in every week.
        future: of the coming weeks of every origin.
        base: what answers start from.
        crowd: who the agents are.
        valid: 1 where there is history; None for maps that read no agents.
        asked: delegates, ready to answer; None for maps that ask nobody.
    """

    agents: Float[Array, "week slot trait"] | None
    totals: Float[Array, "week total"]
    future: Float[Array, "*origin ahead outlook"]
    base: Baseline
    crowd: PooledAgents
    valid: Float[Array, "week slot"] | None
    asked: PreparedProbes | None = None


def agent_history(
    exogenous: ExogenousPaths, happened: WeekRecord, initial: State, valid: Float[Array, "week agent"]
) -> AgentHistory:
    """Read the ledger off a simulation that kept its traces.

    Orders that arrive in the week in which they are placed are receipts of it in the traces, but not in the ledger.

    Args:
        exogenous: one path, all fields with all weeks.
        happened: traces of the same weeks.
        initial: state before the first of them.
        valid: 1 where an agent has a history.
    """
    before = initial.stock_end + initial.pipeline.sum(0)
    at_once = jax.vmap(lambda arrivals, placed: arrivals.spread(placed, initial.max_lead)[0])
    receipts = happened.receipts - at_once(exogenous.arrivals, happened.orders)
    change = jnp.cumsum(happened.orders - happened.sales, axis=0)
    stock_before = jnp.concatenate([initial.stock_end[None], happened.stock_end[:-1]])
    return AgentHistory(
        receipts=receipts,
        stock_start=stock_before + receipts,
        position=before[None] + jnp.concatenate([jnp.zeros_like(change[:1]), change[:-1]]),
        demand_before=_week_before(happened.demand),
        orders_before=_week_before(happened.orders),
        sale_price=exogenous.sale_price,
        unit_cost=exogenous.unit_cost,
        lead_demand_mean=exogenous.lead_demand_mean,
        lead_demand_sd=exogenous.lead_demand_sd,
        valid=valid,
    )


def _week_before(series: Float[Array, "week agent"]) -> Float[Array, "week agent"]:
    return jnp.concatenate([series[:1], series[:-1]])


def open_orders(
    population: Population, exogenous: ExogenousPaths, orders: Float[Array, "week agent"], initial: State
) -> Float[Array, "week ahead resource"]:
    """Return what is due in weeks t, t + 1, ..., t + HORIZON from orders placed before week t, summed over agents.

    Args:
        population: weights and use per unit.
        exogenous: its arrivals say when an order arrives.
        orders: accepted orders [units].
        initial: its pipeline was placed before the first week.
    """
    weight = population.weight[:, None] * population.use
    lead = initial.max_lead

    def due(week: tuple) -> Float[Array, "lead resource"]:
        arrivals, placed = week
        return arrivals.spread(placed, lead) @ weight

    new = jax.lax.map(due, (exogenous.arrivals, orders))
    weeks = orders.shape[0]
    by_week = jnp.zeros((weeks + lead + HORIZON + 1, weight.shape[1])).at[:lead].add(initial.pipeline @ weight)

    def step(due_by: Array, each: tuple) -> tuple[Array, Array]:
        week, row = each
        seen = jax.lax.dynamic_slice_in_dim(due_by, week, HORIZON + 1)
        there = jax.lax.dynamic_slice_in_dim(due_by, week, lead + 1)
        return jax.lax.dynamic_update_slice_in_dim(due_by, there + row, week, 0), seen

    return jax.lax.scan(step, by_week, (jnp.arange(weeks), new))[1]


def stock_use(population: Population, ledger: AgentHistory) -> Float[Array, "week resource"]:
    """Return use per unit x stock after receipts, summed over agents."""
    return ledger.stock_start @ (population.weight[:, None] * population.use)


def units_of(population: Population) -> Units:
    """Return the units in which a map sees a population.

    The median margin counts agents by their demand, not all alike as spec section 5 has it: what a price does to a
    total depends on those who make it up (docs/decisions/0009).
    """
    size = population.weight * _demand(population)
    margin = jnp.maximum(population.unit_margin, 0.0)[:, None] / _use(population)
    price = weighted_median(margin, size)
    return Units(size @ population.use, jnp.maximum(price, jnp.finfo(jnp.float32).tiny), size.sum())


def weighted_median(values: Float[Array, "agent column"], weight: Float[Array, " agent"]) -> Float[Array, " column"]:
    """Return the value below which half of the weight lies; agents of weight 0 count for nothing."""
    order = jnp.argsort(values, axis=0)
    below = jnp.cumsum(weight[order], axis=0) / weight.sum()
    first = jnp.argmax(below >= 0.5, axis=0)
    return jnp.take_along_axis(jnp.take_along_axis(values, order, 0), first[None, :], 0)[0]


def _demand(population: Population) -> Float[Array, " agent"]:
    return jnp.maximum(population.demand_scale, LEAST_DEMAND)


def _use(population: Population) -> Float[Array, "agent resource"]:
    return jnp.maximum(population.use, jnp.finfo(jnp.float32).tiny)


def attributes(population: Population, units: Units) -> Float[Array, "slot attribute"]:
    """Return the static numbers of each agent: demand, margin, holding cost, penalty, lead time, use."""
    per_use = units.price[0] * _use(population)[:, 0]
    money = (population.unit_margin, population.holding_cost, population.lost_sale_penalty)
    mean_use = units.use / units.demand  # of everybody: a cohort's own would be different numbers for the same agent
    return jnp.stack(
        [
            jnp.log(_demand(population)),
            *(_log(each / per_use) for each in money),
            population.lead_time.astype(jnp.float32),
            _log(_use(population)[:, 0] / mean_use[0]),
            _log(_use(population)[:, -1] / mean_use[-1]),
        ],
        -1,
    )


def _log(share: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.log(jnp.maximum(share, 0.0) + 1e-3)


def agent_features(population: Population, ledger: AgentHistory, units: Units) -> Float[Array, "week slot feature"]:
    """Return what is known of each agent in each week, in units of its own demand and of the population's margin."""
    demand = _demand(population)[None, :]
    counts = (ledger.orders_before, ledger.demand_before, ledger.receipts, ledger.stock_start, ledger.position)
    per_use = (units.price[0] * _use(population)[:, 0])[None, :]
    margin = (ledger.sale_price - ledger.unit_cost) / per_use
    span = demand * (population.lead_time[None, :] + 1.0)
    fixed = attributes(population, units)
    changing = [
        *(jnp.log1p(jnp.maximum(each, 0.0) / demand) for each in counts),
        _log(margin),
        jnp.log(ledger.lead_demand_mean / span + 0.05),
        jnp.log(ledger.lead_demand_sd / jnp.maximum(ledger.lead_demand_mean, 0.05 * span) + 0.05),
    ]
    static = [jnp.broadcast_to(fixed[None, :, index], margin.shape) for index in (0, 2, 4, 5)]
    return jnp.stack([*changing, *static, ledger.valid], -1)


def total_features(population: Population, ledger: AgentHistory, units: Units) -> Float[Array, "week feature"]:
    """Return orders, stock, demand and receipts of all agents together, relative to S(P)."""
    weight = population.weight[:, None] * population.use / units.use[None, :]
    flows = (ledger.orders_before, ledger.stock_start, ledger.demand_before, ledger.receipts)
    return jnp.concatenate([jnp.log1p(jnp.maximum(each @ weight, 0.0)) for each in flows], -1)


def future_features(known: KnownFuture, units: Units) -> Float[Array, "*origin ahead feature"]:
    """Return forecast use, use by open orders and projected stock of the coming weeks, and nearness of holidays."""
    scale = units.use.reshape((1,) * (known.expected.ndim - 1) + units.use.shape)
    expected, committed = known.expected / scale, known.committed / scale
    inflow = jnp.cumsum(committed[..., 1:, :], -2)
    drain = jnp.cumsum(expected[..., :-1, :], -2)
    projected = known.stock[..., None, :] / scale + inflow - drain
    rows = [expected[..., 1:, :], committed[..., 1:, :], jnp.arcsinh(projected)]
    return jnp.concatenate([*rows, known.holidays], -1)


def baseline_of(population: Population, known: KnownFuture, units: Units) -> Baseline:
    """Return what answers are relative to (`Baseline`), relative to S(P)."""
    scale = units.use.reshape((1,) * (known.stock.ndim - 1) + units.use.shape)
    level = jnp.maximum(known.expected[..., 1:, :].mean(-2) / scale, LEAST_BASE)
    flow = 1.0 - jnp.asarray(population.stock_resource, jnp.float32)
    due = known.committed[..., 1:, :] / scale[..., None, :] * flow.reshape((1,) * (known.stock.ndim) + flow.shape)
    return Baseline(level, due)


def cohort_of(population: Population, index: Int[Array, " slot"], weight: Float[Array, " slot"]) -> Population:
    """Take the agents in each slot, each weighing for those it stands for."""
    cohort = population.take(index)
    return eqx.tree_at(lambda p: p.weight, cohort, cohort.weight * weight)


def map_inputs(
    population: Population,
    readers: CohortIndex,
    ledger: AgentHistory,
    known: KnownFuture,
    units: Units,
    *,
    reads_agents: bool,
    asked: PreparedProbes | None = None,
) -> MapInputs:
    """Put together what a map reads, not yet scaled.

    Args:
        population: everybody.
        readers: whose histories are read.
        ledger: of everybody, up to the last origin.
        known: of the coming weeks of every origin.
        units: from `units_of`.
        reads_agents: whether agents' own histories are wanted.
        asked: delegates of the same origins.
    """
    cohort = cohort_of(population, readers.index, readers.weight)
    read = jax.tree.map(lambda leaf: leaf[:, readers.index], ledger) if reads_agents else None
    return MapInputs(
        agents=None if read is None else agent_features(cohort, read, units),
        totals=total_features(population, ledger, units),
        future=future_features(known, units),
        base=baseline_of(population, known, units),
        crowd=pool_agents(cohort, readers.bucket, readers.n_buckets, units),
        valid=None if read is None else read.valid,
        asked=asked,
    )


def agent_state_of(ledger: AgentHistory, on_order: Float[Array, "lead agent"]) -> AgentState:
    """Return where agents stand in the ledger's last week, before its receipts."""
    now = jax.tree.map(lambda leaf: leaf[-1], ledger)
    return AgentState(
        stock_end=now.stock_start - now.receipts,
        pipeline=on_order,
        sale_price=now.sale_price,
        unit_cost=now.unit_cost,
        lead_demand_mean=now.lead_demand_mean,
        lead_demand_sd=now.lead_demand_sd,
    )


def prepare_probes_now(
    population: Population,
    delegates: ProbeAgents,
    ledger: AgentHistory,
    known: KnownFuture,
    on_order: Float[Array, "lead agent"],
    policy: Policy,
    units: Units,
) -> PreparedProbes:
    """Make delegates ready to answer at the ledger's last week.

    Args:
        population: everybody.
        delegates: who is asked.
        ledger: of everybody.
        known: of the coming weeks at this one origin.
        on_order: open orders of everybody by the week in which they arrive, the ledger's last first.
        policy: what everybody follows.
        units: from `units_of`.
    """
    theirs = jax.tree.map(lambda leaf: leaf[:, delegates.index], ledger)
    standing = agent_state_of(theirs, on_order[:, delegates.index])
    return prepare_probes(population, delegates, standing, known.expected, policy, units.price, units.use)


def pool_agents(population: Population, bucket: Array, n_buckets: int, units: Units) -> PooledAgents:
    """Describe agents that were laid out in tiles (`maps.crowd.lay_out`).

    Args:
        population: slot by slot; empty ones have weight 0.
        bucket: of each tile.
        n_buckets: number of buckets.
        units: from `units_of`.
    """
    size = population.weight * _demand(population)
    return PooledAgents(population.weight, size, jnp.asarray(bucket), attributes(population, units), n_buckets)


HIDDEN: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {"economics": ((5, 9), (1, 2, 3)), "prices": ((), ())}
"""What a map may be kept from seeing: places among agents' features (margin, holding cost) and among attributes (both
and the penalty). The unit of shadow prices stays the population's median margin. Prices are no feature: the network
leaves them out (`MapShape.sees_prices`)."""

UNSEEN = 1e30
"""Spread of features that are not seen: whatever their values are, they are scaled to 0."""


class Scaling(eqx.Module):
    """Hold mean and spread of features over training, by which they are scaled; frozen with the map.

    Attributes:
        agents, attributes, totals, future: mean and standard deviation of each [2, feature].
    """

    agents: Float[Array, "moment trait"]
    attributes: Float[Array, "moment attribute"]
    totals: Float[Array, "moment total"]
    future: Float[Array, "moment outlook"]

    @staticmethod
    def fit(examples: list[MapInputs], blind: Sequence[str] = ()) -> "Scaling":
        """Measure features over examples; those that do not vary are left as they are but for their mean.

        Args:
            examples: not scaled.
            blind: what the map is not to see, keys of `HIDDEN`; whoever asks it has its features hidden likewise.
        """
        hidden = [list(sum(places, ())) for places in zip(*(HIDDEN[each] for each in blind), strict=True)] or [[], []]

        def moments(rows: list[np.ndarray], unseen: Sequence[int] = ()) -> Array:
            if not rows:  # a map that reads no agents
                return jnp.zeros((2, 0), jnp.float32)
            values = np.concatenate([np.asarray(row).reshape(-1, row.shape[-1]) for row in rows])
            spread = values.std(0)
            spread = np.where(spread > 1e-3, spread, 1.0)
            spread[list(unseen)] = UNSEEN
            return jnp.asarray(np.stack([values.mean(0), spread]), jnp.float32)

        pairs = [(each, np.asarray(each.crowd.weight) > 0) for each in examples]
        return Scaling(
            moments([np.asarray(e.agents)[:, ok] for e, ok in pairs if e.agents is not None], hidden[0]),
            moments([np.asarray(e.crowd.attributes)[ok] for e, ok in pairs], hidden[1]),
            moments([np.asarray(each.totals) for each in examples]),
            moments([np.asarray(each.future) for each in examples]),
        )

    def __call__(self, inputs: MapInputs) -> MapInputs:
        """Scale all features; what is further than `FAR` spreads away counts as that far."""
        agents = None if inputs.agents is None else self.of_agents(inputs.agents)
        crowd = eqx.tree_at(lambda c: c.attributes, inputs.crowd, _scaled(inputs.crowd.attributes, self.attributes))
        rows = self.of_totals(inputs.totals), _scaled(inputs.future, self.future)
        return MapInputs(agents, *rows, inputs.base, crowd, inputs.valid, inputs.asked)

    def of_agents(self, features: Float[Array, "*axes feature"]) -> Float[Array, "*axes feature"]:
        """Scale what is known of agents alone."""
        return _scaled(features, self.agents)

    def of_totals(self, features: Float[Array, "*axes feature"]) -> Float[Array, "*axes feature"]:
        """Scale what is known of totals alone."""
        return _scaled(features, self.totals)


FAR = 6.0
"""Spreads from the mean beyond which a feature says no more."""


def _scaled(values: Float[Array, "*axes feature"], moments: Float[Array, "moment feature"]) -> Array:
    mean, spread = (row.reshape((1,) * (values.ndim - 1) + row.shape) for row in moments)
    return jnp.clip((values - mean) / spread, -FAR, FAR)
