"""What maps read of a population: agents' histories, what is known of the coming weeks, and the features made of them.

LAW: features and their order are stored with trained maps; a change of either is a new `FEATURES`.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.exogenous.paths import ExogenousPaths
from walras.maps.agent_layout import CohortIndex, PooledAgents
from walras.maps.layers import prepend_axes
from walras.maps.probes import AgentState, PreparedProbes, ProbeAgents, prepare_probes
from walras.policies.base import Policy
from walras.population.population import Population
from walras.simulation.week import State, WeekRecord

FEATURES = 1  # version of the features below
HORIZON = 26  # coming weeks that maps answer for
LOOK_BACK = 64  # weeks of history that an embedding sees
LEAST_DEMAND = 0.02  # demand scales below count as this [units/week]
LEAST_BASE = 0.05  # answers are relative to at least this share of S(P)

# Numbers per agent and week, static ones per agent, numbers per total and resource, per coming week and resource.
AGENT_FEATURES, ATTRIBUTES, TOTALS, AHEAD = 13, 7, 4, 3

PRICES_AND_FORECASTS = ("sale_price", "unit_cost", "lead_demand_mean", "lead_demand_sd")


class AgentHistory(eqx.Module):
    """What agents did and knew at the moment when prices are issued: receipts are in, orders not yet placed.

    Attributes:
        receipts: of this week [units].
        stock_start: stock after receipts [units].
        position: stock plus all open orders [units].
        demand_before, orders_before: of the previous week [units].
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

    @staticmethod
    def from_traces(
        exogenous: ExogenousPaths, traces: WeekRecord, initial: State, valid: Float[Array, "week agent"]
    ) -> "AgentHistory":
        """Read the history off a simulation of one path that kept its traces, from its initial state.

        Orders that arrive in the week in which they are placed are receipts in the traces, but not here.
        """
        position = initial.stock_end + initial.pipeline.sum(0)
        at_once = jax.vmap(lambda arrivals, placed: arrivals.spread(placed, initial.max_lead)[0])
        receipts = traces.receipts - at_once(exogenous.arrivals, traces.orders)
        change = jnp.cumsum(traces.orders - traces.sales, axis=0)
        stock_before = jnp.concatenate([initial.stock_end[None], traces.stock_end[:-1]])
        return AgentHistory(
            receipts=receipts,
            stock_start=stock_before + receipts,
            position=position[None] + jnp.concatenate([jnp.zeros_like(change[:1]), change[:-1]]),
            demand_before=jnp.concatenate([traces.demand[:1], traces.demand[:-1]]),
            orders_before=jnp.concatenate([traces.orders[:1], traces.orders[:-1]]),
            **{name: getattr(exogenous, name) for name in PRICES_AND_FORECASTS},
            valid=valid,
        )

    @staticmethod
    def of_week(
        exogenous: ExogenousPaths,
        state: State,
        week: Array | int,
        demand_before: Float[Array, " agent"],
        orders_before: Float[Array, " agent"],
        valid: Float[Array, " agent"],
    ) -> "AgentHistory":
        """Return the history of one week alone, given the state before its receipts; `exogenous` holds all weeks."""
        receipts = state.pipeline[0]
        fields = {name: getattr(exogenous, name)[week] for name in PRICES_AND_FORECASTS}
        fields |= {"demand_before": demand_before, "orders_before": orders_before, "valid": valid}
        fields |= {"stock_start": state.stock_end + receipts, "position": state.stock_end + state.pipeline.sum(0)}
        return AgentHistory(receipts=receipts[None], **{name: row[None] for name, row in fields.items()})

    def of_agents(self, index: Int[Array, " slot"]) -> "AgentHistory":
        """Return the history of some agents."""
        return jax.tree.map(lambda leaf: leaf[:, index], self)


class KnownFuture(eqx.Module):
    """What is known of the coming weeks at one or several origins, summed over agents with their weights.

    Attributes:
        expected: forecast use if all agents received what they ask for, of this week and the coming ones.
        committed: use by open orders, of the same weeks; for storage what of it is left.
        stock: use by stock on hand, in units of a flow resource, after this week's receipts.
        holidays: nearness of public holidays in the coming weeks.
    """

    expected: Float[Array, "*origin week resource"]
    committed: Float[Array, "*origin week resource"]
    stock: Float[Array, "*origin resource"]
    holidays: Float[Array, "*origin ahead side"]


class Units(eqx.Module):
    """The units in which a map sees a population."""

    use: Float[Array, " resource"]  # S(P): sum of weight x demand scale x use per unit [units of resource/week]
    price: Float[Array, " resource"]  # median over demand of the margin [money per unit of resource]
    demand: Float[Array, ""]  # the sum over agents of weight x demand scale [units/week]


class Baseline(eqx.Module):
    """What answers start from, relative to S(P)."""

    level: Float[Array, "*origin resource"]  # mean expected use over the coming weeks
    due: Float[Array, "*origin ahead resource"]  # use by open orders, which no price changes; 0 for storage


class MapInputs(eqx.Module):
    """All that a map reads of a population."""

    agents: Float[Array, "week slot trait"] | None  # features of every agent; None for maps that read none
    totals: Float[Array, "week total"]  # features of the population in every week
    future: Float[Array, "*origin ahead outlook"]  # features of the coming weeks of every origin
    baseline: Baseline  # what answers start from
    pooled: PooledAgents  # who the agents are
    valid: Float[Array, "week slot"] | None  # 1 where there is history; None for maps that read no agents
    probes: PreparedProbes | None = None  # agents to simulate in every query; None for maps without


def open_orders(
    population: Population, exogenous: ExogenousPaths, orders: Float[Array, "week agent"], initial: State
) -> Float[Array, "week ahead resource"]:
    """Return use in weeks t, t + 1, ..., t + HORIZON by orders accepted before week t [units], summed over agents."""
    weight = population.weight[:, None] * population.use
    lead = initial.max_lead
    new = jax.lax.map(lambda week: week[0].spread(week[1], lead) @ weight, (exogenous.arrivals, orders))
    weeks = orders.shape[0]
    by_week = jnp.zeros((weeks + lead + HORIZON + 1, weight.shape[1])).at[:lead].add(initial.pipeline @ weight)

    def step(due_by: Array, week_and_row: tuple) -> tuple[Array, Array]:
        week, row = week_and_row
        known = jax.lax.dynamic_slice_in_dim(due_by, week, HORIZON + 1)
        before = jax.lax.dynamic_slice_in_dim(due_by, week, lead + 1)
        return jax.lax.dynamic_update_slice_in_dim(due_by, before + row, week, 0), known

    return jax.lax.scan(step, by_week, (jnp.arange(weeks), new))[1]


def stock_use(population: Population, history: AgentHistory) -> Float[Array, "week resource"]:
    """Return use per unit x stock after receipts, summed over agents."""
    return history.stock_start @ (population.weight[:, None] * population.use)


def units_of(population: Population) -> Units:
    """Return a population's units.

    The median margin weights agents by their demand, not equally: what a price does to a total
    depends on the agents that make it up (docs/decisions/0009).
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


def _log(share: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.log(jnp.maximum(share, 0.0) + 1e-3)


def attributes(population: Population, units: Units) -> Float[Array, "slot attribute"]:
    """Return the static numbers of each agent: demand, margin, holding cost, penalty, lead time, use."""
    per_use = units.price[0] * _use(population)[:, 0]
    money = (population.unit_margin, population.holding_cost, population.lost_sale_penalty)
    mean_use = units.use / units.demand  # of the whole population: a cohort's own mean would change an agent's numbers
    return jnp.stack(
        [
            jnp.log(_demand(population)),
            *(_log(amount / per_use) for amount in money),
            population.lead_time.astype(jnp.float32),
            _log(_use(population)[:, 0] / mean_use[0]),
            _log(_use(population)[:, -1] / mean_use[-1]),
        ],
        -1,
    )


def agent_features(population: Population, history: AgentHistory, units: Units) -> Float[Array, "week slot feature"]:
    """Return what is known of each agent in each week, in units of its own demand and of the population's margin."""
    demand = _demand(population)[None, :]
    counts = (history.orders_before, history.demand_before, history.receipts, history.stock_start, history.position)
    per_use = (units.price[0] * _use(population)[:, 0])[None, :]
    margin = (history.sale_price - history.unit_cost) / per_use
    span = demand * (population.lead_time[None, :] + 1.0)
    fixed = attributes(population, units)
    changing = [
        *(jnp.log1p(jnp.maximum(count, 0.0) / demand) for count in counts),
        _log(margin),
        jnp.log(history.lead_demand_mean / span + 0.05),
        jnp.log(history.lead_demand_sd / jnp.maximum(history.lead_demand_mean, 0.05 * span) + 0.05),
    ]
    static = [jnp.broadcast_to(fixed[None, :, index], margin.shape) for index in (0, 2, 4, 5)]
    return jnp.stack([*changing, *static, history.valid], -1)


def total_features(population: Population, history: AgentHistory, units: Units) -> Float[Array, "week feature"]:
    """Return orders, stock, demand and receipts of all agents together, relative to S(P)."""
    weight = population.weight[:, None] * population.use / units.use[None, :]
    flows = (history.orders_before, history.stock_start, history.demand_before, history.receipts)
    return jnp.concatenate([jnp.log1p(jnp.maximum(flow @ weight, 0.0)) for flow in flows], -1)


def future_features(known: KnownFuture, units: Units) -> Float[Array, "*origin ahead feature"]:
    """Return forecast use, use by open orders and projected stock of the coming weeks, and nearness of holidays."""
    scale = prepend_axes(units.use, known.expected.ndim)
    expected, committed = known.expected / scale, known.committed / scale
    inflow = jnp.cumsum(committed[..., 1:, :], -2)
    drain = jnp.cumsum(expected[..., :-1, :], -2)
    projected = known.stock[..., None, :] / scale + inflow - drain
    rows = [expected[..., 1:, :], committed[..., 1:, :], jnp.arcsinh(projected)]
    return jnp.concatenate([*rows, known.holidays], -1)


def baseline_of(population: Population, known: KnownFuture, units: Units) -> Baseline:
    """Return what answers start from."""
    scale = prepend_axes(units.use, known.stock.ndim)
    level = jnp.maximum(known.expected[..., 1:, :].mean(-2) / scale, LEAST_BASE)
    flow = 1.0 - jnp.asarray(population.stock_resource, jnp.float32)
    due = known.committed[..., 1:, :] / scale[..., None, :] * prepend_axes(flow, known.committed.ndim)
    return Baseline(level, due)


def cohort_of(population: Population, index: Int[Array, " slot"], weight: Float[Array, " slot"]) -> Population:
    """Return the agents in each slot, weighted by how many the slot represents."""
    cohort = population.take(index)
    return eqx.tree_at(lambda p: p.weight, cohort, cohort.weight * weight)


def map_inputs(
    population: Population,
    cohort_index: CohortIndex,
    history: AgentHistory,
    known: KnownFuture,
    units: Units,
    *,
    reads_agents: bool,
    probes: PreparedProbes | None = None,
) -> MapInputs:
    """Compute what a map reads, not yet scaled; `history` is of the whole population, up to the last origin."""
    cohort = cohort_of(population, cohort_index.index, cohort_index.weight)
    own = history.of_agents(cohort_index.index) if reads_agents else None
    return MapInputs(
        agents=None if own is None else agent_features(cohort, own, units),
        totals=total_features(population, history, units),
        future=future_features(known, units),
        baseline=baseline_of(population, known, units),
        pooled=pool_agents(cohort, cohort_index.bucket, cohort_index.n_buckets, units),
        valid=None if own is None else own.valid,
        probes=probes,
    )


def pool_agents(population: Population, bucket: Array, n_buckets: int, units: Units) -> PooledAgents:
    """Describe agents that were laid out in tiles of one bucket each (`agent_layout.pack_by_bucket`), slot by slot."""
    size = population.weight * _demand(population)
    return PooledAgents(population.weight, size, jnp.asarray(bucket), attributes(population, units), n_buckets)


def agent_state_of(history: AgentHistory, on_order: Float[Array, "lead agent"]) -> AgentState:
    """Return the state of agents in the history's last week, before its receipts."""
    now = jax.tree.map(lambda leaf: leaf[-1], history)
    known = {name: getattr(now, name) for name in PRICES_AND_FORECASTS}
    return AgentState(stock_end=now.stock_start - now.receipts, pipeline=on_order, **known)


def prepare_probes_now(
    population: Population,
    probes: ProbeAgents,
    history: AgentHistory,
    known: KnownFuture,
    on_order: Float[Array, "lead agent"],
    policy: Policy,
    units: Units,
) -> PreparedProbes:
    """Prepare probes at the last week of the history; `on_order` begins with the orders that arrive in it."""
    state = agent_state_of(history.of_agents(probes.index), on_order[:, probes.index])
    return prepare_probes(population, probes, state, known.expected, policy, units.price, units.use)


# What a map may be kept from seeing: columns of agents' features (margin, holding cost) and of attributes (both and the
# penalty). The unit of shadow prices stays. Prices are no feature: the network leaves them out (`sees_prices`).
MASKED_COLUMNS: dict[str, tuple[list[int], list[int]]] = {"economics": ([5, 9], [1, 2, 3]), "prices": ([], [])}

MASKED_SPREAD = 1e30  # spread of masked features: whatever their values are, they are scaled to 0
FAR = 6.0  # spreads from the mean at which scaled features are clipped


class FeatureScaling(eqx.Module):
    """Mean and standard deviation of each feature over training; frozen with the map."""

    agents: Float[Array, "moment trait"]
    attributes: Float[Array, "moment attribute"]
    totals: Float[Array, "moment total"]
    future: Float[Array, "moment outlook"]

    @staticmethod
    def fit(examples: list[MapInputs], masked: Sequence[str] = ()) -> "FeatureScaling":
        """Measure features over unscaled examples; those that do not vary are only centred.

        What is `masked` (keys of `MASKED_COLUMNS`) is hidden in every later use of the map too.
        """
        of_agents, of_attributes = (sum((MASKED_COLUMNS[name][side] for name in masked), []) for side in (0, 1))
        pairs = [(inputs, np.asarray(inputs.pooled.weight) > 0) for inputs in examples]
        agents = [np.asarray(inputs.agents)[:, there] for inputs, there in pairs if inputs.agents is not None]
        return FeatureScaling(
            _moments(agents, of_agents),
            _moments([np.asarray(inputs.pooled.attributes)[there] for inputs, there in pairs], of_attributes),
            _moments([np.asarray(inputs.totals) for inputs in examples]),
            _moments([np.asarray(inputs.future) for inputs in examples]),
        )

    def __call__(self, inputs: MapInputs) -> MapInputs:
        """Scale all features and clip them at `FAR`."""
        agents = None if inputs.agents is None else self.of_agents(inputs.agents)
        scaled = _scaled(inputs.pooled.attributes, self.attributes)
        pooled = eqx.tree_at(lambda p: p.attributes, inputs.pooled, scaled)
        rows = self.of_totals(inputs.totals), _scaled(inputs.future, self.future)
        return MapInputs(agents, *rows, inputs.baseline, pooled, inputs.valid, inputs.probes)

    def of_agents(self, features: Float[Array, "*axes feature"]) -> Float[Array, "*axes feature"]:
        """Scale features of agents."""
        return _scaled(features, self.agents)

    def of_totals(self, features: Float[Array, "*axes feature"]) -> Float[Array, "*axes feature"]:
        """Scale features of totals."""
        return _scaled(features, self.totals)


def _moments(rows: list[np.ndarray], masked: Sequence[int] = ()) -> Array:
    if not rows:  # a map that reads no agents
        return jnp.zeros((2, 0), jnp.float32)
    values = np.concatenate([np.asarray(row).reshape(-1, row.shape[-1]) for row in rows])
    spread = values.std(0)
    spread = np.where(spread > 1e-3, spread, 1.0)
    spread[list(masked)] = MASKED_SPREAD
    return jnp.asarray(np.stack([values.mean(0), spread]), jnp.float32)


def _scaled(values: Float[Array, "*axes feature"], moments: Float[Array, "moment feature"]) -> Array:
    mean, spread = (prepend_axes(row, values.ndim) for row in moments)
    return jnp.clip((values - mean) / spread, -FAR, FAR)
