"""Own the closed coordination loop: each week a map issues prices, agents order, and next week it sees the result.

LAW: in week t receipts are in when prices for weeks t + 1 .. t + HORIZON are issued; the first of them is charged in
week t + 1 (spec section 2). Week by week, or as a fixed point over the whole episode: both give the same numbers.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.maps.features import (
    HORIZON,
    AgentHistory,
    KnownFuture,
    Scaling,
    Units,
    agent_features,
    agent_history,
    cohort_of,
    map_inputs,
    prepare_probes_now,
    total_features,
    units_of,
)
from walras.maps.network import Encoded, MapNetwork
from walras.maps.pooling import CohortIndex
from walras.maps.price_controller import AbstractPriceController
from walras.maps.probes import PreparedProbes
from walras.maps.rollout import MapRollout, PopulationWindow, inputs_of, roll_out_issued
from walras.parallel.process import Sequential
from walras.policies.base import Policy
from walras.population.population import Population
from walras.simulation.record import Record
from walras.simulation.run import simulate, week_of, window_length
from walras.simulation.setup import Setup
from walras.simulation.state import State


class ClosedLoopResult(eqx.Module):
    """Hold what came of the coordinated weeks, `first` and those after it.

    Attributes:
        issued: prices for the weeks after each week, as issued in it [money per unit of resource].
        charged: price of each week.
        utilization: use of each resource.
        reward: money of each week, price payments not deducted.
        end_value: value of what is left at the end [money].
        states: before each week, its receipts not yet in; leading week axis.
        asked: how often the map was asked in each week; None where nobody counted.
    """

    issued: Float[Array, "week ahead resource"]
    charged: Float[Array, "week resource"]
    utilization: Float[Array, "week resource"]
    reward: Float[Array, " week"]
    end_value: Float[Array, ""]
    states: State
    asked: Int[Array, " week"] | None = None


class CapacityTarget(eqx.Module):
    """Hold what is to be kept to.

    Attributes:
        capacity: K of every week of the stretch [units of resource]; after the last week that holds.
        first: first week in which prices are issued.
    """

    capacity: Float[Array, "week resource"]
    first: int = eqx.field(static=True)

    def coming(self, week: Array) -> Float[Array, "ahead resource"]:
        """Return the capacity of the weeks after a week."""
        last = self.capacity.shape[0] - 1
        return self.capacity[jnp.minimum(week + 1 + jnp.arange(HORIZON), last)]


class DualMap(AbstractPriceController):
    """Issue what a dual map answers; hold its weights and the scaling of its features."""

    network: MapNetwork
    scaling: Scaling

    def issue(
        self, encoded: Encoded, capacity: Float[Array, "ahead resource"], before: Any
    ) -> tuple[Float[Array, "ahead resource"], Any, Int[Array, ""]]:
        """Ask the map once."""
        return self.network.shadow_prices(encoded, capacity), before, jnp.ones((), jnp.int32)


class _Running(eqx.Module):
    state: State
    demand_before: Float[Array, " agent"]
    orders_before: Float[Array, " agent"]
    agents: Any
    totals: Any
    charged: Float[Array, " resource"]
    searched: Any


def run_closed_loop(
    stretch: PopulationWindow,
    readers: CohortIndex,
    policy: Policy,
    plan: CapacityTarget,
    issuer: AbstractPriceController,
) -> ClosedLoopResult:
    """Issue prices, order, and go on to the next week, with the histories read one column a week.

    Args:
        stretch, readers: who is coordinated, and whose histories are read.
        policy: what agents follow.
        plan: what is to be kept to.
        issuer: issues the prices, e.g. a dual map; the weeks before `plan.first` go by without prices.
    """
    loop = _Loop(stretch, readers, policy, plan, issuer, units_of(stretch.population))
    weeks = jnp.arange(plan.first, stretch.n_weeks)
    _, (issued, charged, use, reward, ends, states, asked) = jax.lax.scan(
        lambda running, week: loop.step(running, week), loop.begin(), weeks
    )
    return ClosedLoopResult(issued, charged, use, reward, ends[-1], states, asked)


class _Loop(eqx.Module):
    """Hold what does not change from week to week."""

    stretch: PopulationWindow
    readers: CohortIndex
    policy: Policy
    plan: CapacityTarget
    issuer: AbstractPriceController
    units: Units

    def begin(self) -> _Running:
        """Live through the weeks before the first without prices, and read them in one pass."""
        stretch, first, scaling = self.stretch, self.plan.first, self.issuer.scaling
        past = week_of(stretch.exogenous, jnp.asarray(0), first)
        record = Record(agents=True, flows=())
        lived = simulate(stretch.population, past, self.policy, initial=stretch.initial, record=record, throw=False)
        happened = lived.agents
        assert happened is not None  # traces were asked for
        ledger = agent_history(past, happened, stretch.initial, stretch.valid[:first].astype(jnp.float32))
        network, agents = self.issuer.network, None
        if network.agents is not None:
            read = self._read(ledger)
            features = scaling.of_agents(agent_features(self._cohort(), read, self.units))
            agents = network.agents.kept(features, read.valid)
        totals = scaling.of_totals(total_features(stretch.population, ledger, self.units))
        return _Running(
            state=lived.final,
            demand_before=happened.demand[-1],
            orders_before=happened.orders[-1],
            agents=agents,
            totals=network.totals.kept(totals),
            charged=jnp.zeros(len(stretch.population.resources)),
            searched=self.issuer.begin(len(stretch.population.resources)),
        )

    def step(self, running: _Running, week: Array) -> tuple[_Running, Any]:
        """Go through one week."""
        network, agents, read = self.issuer.network, running.agents, None
        people, (ledger, known) = self.stretch.population, self._seen(running, week)
        reads = network.agents is not None
        ask = self._asked(running, ledger, known)
        inputs = map_inputs(people, self.readers, ledger, known, self.units, reads_agents=reads, asked=ask)
        inputs = self.issuer.scaling(inputs)
        if network.agents is not None and inputs.agents is not None and inputs.valid is not None:
            agents, read = network.agents.read(agents, inputs.agents[0], inputs.valid[0])
        totals, read_totals = network.totals.read(running.totals, inputs.totals[0])
        encoded = network.encoded(read, read_totals, inputs)
        target = self.plan.coming(week) / self.units.use[None, :]
        scaled, searched, asked = self.issuer.issue(encoded, target, running.searched)
        issued = scaled * self.units.price[None, :]
        happened, after, end = self._live(running, week, issued)
        out = (issued, running.charged, happened.utilization, happened.reward, end, running.state, asked)
        traces = happened.traces
        return _Running(after, traces.demand[0], traces.orders[0], agents, totals, issued[0], searched), out

    def _cohort(self) -> Population:
        return cohort_of(self.stretch.population, self.readers.index, self.readers.weight)

    def _read(self, ledger: AgentHistory) -> AgentHistory:
        return jax.tree.map(lambda leaf: leaf[:, self.readers.index], ledger)

    def _seen(self, running: _Running, week: Array) -> tuple[AgentHistory, KnownFuture]:
        """Read this week's column of the ledger, and what is known of the weeks after it, off the state."""
        state, stretch = running.state, self.stretch
        exogenous, receipts = stretch.exogenous, state.pipeline[0]
        stock = state.stock_end + receipts
        column = AgentHistory(
            receipts=receipts[None],
            stock_start=stock[None],
            position=(state.stock_end + state.pipeline.sum(0))[None],
            demand_before=running.demand_before[None],
            orders_before=running.orders_before[None],
            sale_price=exogenous.sale_price[week][None],
            unit_cost=exogenous.unit_cost[week][None],
            lead_demand_mean=exogenous.lead_demand_mean[week][None],
            lead_demand_sd=exogenous.lead_demand_sd[week][None],
            valid=stretch.valid[week].astype(jnp.float32)[None],
        )
        weight = stretch.population.weight[:, None] * stretch.population.use
        due = state.pipeline[: HORIZON + 1] @ weight
        known = KnownFuture(
            expected=stretch.expected_use[week],
            committed=jnp.pad(due, ((0, HORIZON + 1 - due.shape[0]), (0, 0))),
            stock=stock @ weight,
            holidays=jax.lax.dynamic_slice_in_dim(stretch.holidays, week + 1, HORIZON),
        )
        return column, known

    def _asked(self, running: _Running, ledger: AgentHistory, known: KnownFuture) -> PreparedProbes | None:
        """Make delegates ready to answer, where the map asks any."""
        delegates, on_order = self.readers.delegates, running.state.pipeline
        if delegates is None:
            return None
        return prepare_probes_now(self.stretch.population, delegates, ledger, known, on_order, self.policy, self.units)

    def _live(self, running: _Running, week: Array, issued: Array) -> tuple["_Week", State, Array]:
        window = price_window(self.policy, running.state, running.charged, issued)
        total, traces, after, end = step_week(self.stretch, self.policy, running.state, week, window)
        return _Week(total[:-1], total[-1], traces), after, end


def price_window(
    policy: Policy, state: State, charged: Float[Array, " resource"], issued: Float[Array, "ahead resource"]
) -> Float[Array, "1 lead resource"]:
    """Return the window of prices that agents see in a week.

    Args:
        policy, state: say how far agents look ahead.
        charged: in the week itself, as issued before it [money per unit of resource].
        issued: for the weeks after it; the last price holds.
    """
    ahead = np.minimum(np.arange(window_length(policy, state.max_lead) - 1), issued.shape[0] - 1)
    return jnp.concatenate([charged[None], issued[ahead]])[None]


def step_week(
    stretch: PopulationWindow,
    policy: Policy,
    state: State,
    week: Array,
    window: Float[Array, "1 lead resource"],
) -> tuple[Float[Array, " total"], Any, State, Float[Array, ""]]:
    """Go through one week of a stretch.

    Args:
        stretch, policy, state: who orders how, from where.
        week: of the stretch.
        window: prices announced for it and the weeks after it [money per unit of resource].

    Returns:
        Use of each resource and then reward, traces, the state after it, and the value of what is left.
    """
    exogenous = stretch.exogenous
    following = exogenous.unit_cost[jnp.minimum(week + 1, exogenous.n_weeks - 1)]
    setup = Setup(
        stretch.population,
        week_of(exogenous, week),
        policy,
        state,
        window,
        Sequential(),
        Record(agents=True, flows=()),
        backlog=False,
        block=stretch.population.n_agents,
        following_cost=following,
        first_week=week,
    )
    (rows, _, end), (after, traces), _ = setup.run()
    return rows.sum(-2)[0], traces, after, end.sum()


class _Week(eqx.Module):
    utilization: Float[Array, " resource"]
    reward: Float[Array, ""]
    traces: Any


def reissue(
    stretch: PopulationWindow,
    readers: CohortIndex,
    policy: Policy,
    plan: CapacityTarget,
    dual: DualMap,
    issued: Float[Array, "week ahead resource"],
) -> tuple[Float[Array, "week ahead resource"], MapRollout]:
    """Simulate the whole episode under issued prices, read it in one pass, and issue anew: one sweep.

    Args:
        stretch, readers, policy, plan, dual: as in `run_closed_loop`.
        issued: prices of the coordinated weeks, as issued in each.
    """
    quiet = jnp.zeros((plan.first, *issued.shape[1:]))
    rolled = roll_out_issued(stretch, policy, jnp.concatenate([quiet, issued]))
    network, units = dual.network, rolled.units
    weeks = stretch.n_weeks
    inputs = inputs_of(rolled, stretch, readers, weeks, weeks - plan.first, reads_agents=network.agents is not None)
    encoded = network.encode(dual.scaling(inputs))
    target = jax.vmap(plan.coming)(jnp.arange(plan.first, weeks)) / units.use[None, None, :]
    return network.shadow_prices(encoded, target) * units.price[None, None, :], rolled


SWEEPS = 40
"""Most sweeps: an episode is right week by week from its start, so that one of T weeks needs T at worst."""

SETTLED = 1e-5
"""Largest change of a price, relative to the price scale, at which sweeps have settled."""


class FixedPoint(eqx.Module):
    """Hold the prices that an episode settled on.

    Attributes:
        issued: as in `ClosedLoopResult`.
        sweeps: simulations of the whole episode that were needed.
        change: largest change of a price in the last of them, relative to the price scale.
    """

    issued: Float[Array, "week ahead resource"]
    sweeps: Array
    change: Array


def fixed_point(
    stretch: PopulationWindow,
    readers: CohortIndex,
    policy: Policy,
    plan: CapacityTarget,
    dual: DualMap,
    start: Float[Array, "week ahead resource"] | None = None,
    *,
    most: int = SWEEPS,
) -> FixedPoint:
    """Find the closed loop's prices as a fixed point over the whole episode, differentiable in the map's weights.

    The loop is causal, so that sweeps end exactly at what week by week gives; in practice a few are enough. The
    derivative solves the transposed problem in the same way, each sweep one pass back.

    Args:
        stretch, readers, policy, plan, dual: as in `run_closed_loop`.
        start: prices to start from; default 0.
        most: most sweeps.
    """
    weeks, m = stretch.n_weeks - plan.first, len(stretch.population.resources)
    first = jnp.zeros((weeks, HORIZON, m)) if start is None else start
    fixed = (stretch, readers, policy, plan, dual.scaling)
    issued, sweeps, change = _fixed_point(dual.network, fixed, first, most)
    return FixedPoint(issued, sweeps, change)


def _sweep(network: MapNetwork, fixed: Any, issued: Array) -> Array:
    stretch, readers, policy, plan, scaling = fixed
    return reissue(stretch, readers, policy, plan, DualMap(network, scaling), issued)[0]


@eqx.filter_custom_vjp
def _fixed_point(network: MapNetwork, fixed: Any, first: Array, most: int) -> tuple[Array, Array, Array]:
    scale = units_of(fixed[0].population).price[None, None, :]
    return _iterate(lambda issued: _sweep(network, fixed, issued), first, scale, most)


def _iterate(function: Any, first: Array, scale: Array, most: int) -> tuple[Array, Array, Array]:
    def unsettled(now: tuple) -> Array:
        return (now[1] < most) & (now[2] > SETTLED)

    def go(now: tuple) -> tuple:
        after = function(now[0])
        return after, now[1] + 1, jnp.max(jnp.abs(after - now[0]) / scale)

    return jax.lax.while_loop(unsettled, go, (first, jnp.zeros((), jnp.int32), jnp.full((), jnp.inf)))


@_fixed_point.def_fwd
def _fixed_point_forward(perturbed: Any, network: MapNetwork, fixed: Any, first: Array, most: int) -> tuple:
    found = _fixed_point(network, fixed, first, most)
    return found, found[0]


@_fixed_point.def_bwd
def _fixed_point_back(
    issued: Array, slope: Any, perturbed: Any, network: MapNetwork, fixed: Any, first: Array, most: int
) -> MapNetwork:
    """Solve a = g + (d sweep / d issued)^T a by sweeps, then return (d sweep / d weights)^T a."""
    given = slope[0]
    weights, rest = eqx.partition(network, eqx.is_inexact_array)
    _, back = jax.vjp(lambda w, prices: _sweep(eqx.combine(w, rest), fixed, prices), weights, issued)
    scale = jnp.maximum(jnp.max(jnp.abs(given)), jnp.finfo(jnp.float32).tiny)
    found, _, _ = _iterate(lambda a: given + back(a)[1], given, scale, most)
    return back(found)[0]
