"""Closed loop in one compiled scan: every week a map issues prices, agents order, and the map sees the result.

LAW: in week t receipts are in when prices for weeks t + 1 .. t + HORIZON are issued; the first of them is charged in
week t + 1 (docs/concepts/week.md).
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from walras.maps.agent_layout import CohortIndex
from walras.maps.features import (
    HORIZON,
    AgentHistory,
    FeatureScaling,
    KnownFuture,
    Units,
    agent_features,
    cohort_of,
    map_inputs,
    prepare_probes_now,
    total_features,
    units_of,
)
from walras.maps.network import MapNetwork
from walras.maps.rollout import PopulationWindow
from walras.parallel.process import Sequential
from walras.policies.base import Policy
from walras.simulation.controller import Controller, ControlObservation, Issued
from walras.simulation.record import Record
from walras.simulation.run import simulate, week_of, window_length
from walras.simulation.setup import Setup
from walras.simulation.week import State


def adam_on_softplus_prices(
    loss: Callable[[Array], tuple[Array, Array]],
    start: Float[Array, "*axes ahead resource"],
    *,
    learning_rate: Callable[[Array], Array | float],
    max_steps: Array | int,
    betas: tuple[float, float] = (0.9, 0.999),
    tolerance: float = -math.inf,
    ceiling: float = math.inf,
) -> tuple[Float[Array, "*axes ahead resource"], Int[Array, ""]]:
    """Minimise a loss of prices `min(softplus(nu), ceiling)` by Adam on nu; return the last nu and the evaluations.

    Args:
        loss: from prices to loss and residual.
        start: first nu.
        learning_rate: step size in nu, of the number of the step.
        max_steps: may be traced.
        betas: decay of Adam's first and second moment.
        tolerance: residual at which the search ends.
        ceiling: highest price; nu is kept below it, since beyond it the loss has no slope.
    """
    adam, highest = optax.scale_by_adam(*betas), math.log(math.expm1(ceiling)) if ceiling < math.inf else math.inf

    def update(state: tuple) -> tuple:
        nu, moments, count, _ = state
        (_, residual), slope = jax.value_and_grad(lambda nu: loss(softplus_prices(nu, ceiling)), has_aux=True)(nu)
        finished = (residual <= tolerance) | (count >= max_steps)
        move, moments = adam.update(slope, moments)
        moved = jnp.minimum(nu - learning_rate(count) * move, highest)
        return jnp.where(finished, nu, moved), moments, count + 1, finished

    nu = jnp.minimum(start, highest)
    state = (nu, adam.init(nu), jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    nu, _, evaluations, _ = jax.lax.while_loop(lambda state: ~state[3], update, state)
    return nu, evaluations


def softplus_prices(nu: Float[Array, "*axes"], ceiling: float = math.inf) -> Float[Array, "*axes"]:
    """Return softplus(nu), at most `ceiling`."""
    return jnp.minimum(jax.nn.softplus(nu), ceiling)


class AbstractPriceController(eqx.Module, Controller):
    """A controller on a map. In `ControlObservation` and `Issued`, prices and capacity are relative (`Units`)."""

    network: eqx.AbstractVar[MapNetwork]
    scaling: eqx.AbstractVar[FeatureScaling]


class DualMap(AbstractPriceController):
    """Issue what a dual map answers."""

    network: MapNetwork
    scaling: FeatureScaling

    def issue(self, observation: ControlObservation) -> Float[Array, "ahead resource"]:
        """Evaluate the map once."""
        return self.network.shadow_prices(observation.encoded, observation.capacity)  # type: ignore[arg-type]

    def step(self, observation: ControlObservation) -> Issued:
        """Return prices and one query."""
        return Issued(self.issue(observation), observation.memory, jnp.ones((), jnp.int32))


class CapacityTarget(eqx.Module):
    """Capacity that a closed loop is to keep to."""

    capacity: Float[Array, "week resource"]  # of the window [units of resource]; the last row holds for later weeks
    first: int = eqx.field(static=True)  # first week in which prices are issued

    def coming(self, week: Array) -> Float[Array, "ahead resource"]:
        """Return the capacity of the weeks after a week."""
        return self.capacity[jnp.minimum(week + 1 + jnp.arange(HORIZON), self.capacity.shape[0] - 1)]


class ClosedLoopResult(eqx.Module):
    """Outcome of the coordinated weeks, the first with prices and those after it."""

    issued: Float[Array, "week ahead resource"]  # in each week for those after it [money per unit of resource]
    charged: Float[Array, "week resource"]  # price of each week
    utilization: Float[Array, "week resource"]  # [units of resource]
    reward: Float[Array, " week"]  # money of each week, price payments not deducted
    end_value: Float[Array, ""]  # value of what is left at the end [money]
    states: State  # before each week and its receipts; leading week axis
    queries: Int[Array, " week"] | None = None  # evaluations of the map in each week; None where they are not counted


def run_closed_loop(
    window: PopulationWindow,
    cohort_index: CohortIndex,
    policy: Policy,
    target: CapacityTarget,
    controller: AbstractPriceController,
) -> ClosedLoopResult:
    """Issue prices, simulate a week, and go on, with the cohort's histories read one week at a time.

    Weeks before `target.first` have no prices.
    """
    loop = _Loop(window, cohort_index, policy, target, controller, units_of(window.population))
    weeks = jnp.arange(target.first, window.n_weeks)
    outputs = jax.lax.scan(lambda carry, week: loop.step(carry, week), loop.begin(), weeks)[1]  # loop is not hashable
    issued, charged, use, reward, ends, states, queries = outputs
    return ClosedLoopResult(issued, charged, use, reward, ends[-1], states, queries)


class _Carry(eqx.Module):
    """What goes from week to week; `agents` and `totals` are caches of the convolutions."""

    state: State
    demand_before: Float[Array, " agent"]
    orders_before: Float[Array, " agent"]
    agents: Any
    totals: Any
    charged: Float[Array, " resource"]
    memory: Any


class _Loop(eqx.Module):
    """What does not change from week to week."""

    window: PopulationWindow
    cohort_index: CohortIndex
    policy: Policy
    target: CapacityTarget
    controller: AbstractPriceController
    units: Units

    def begin(self) -> _Carry:
        """Simulate the weeks before the first without prices, and read them in one pass."""
        window, first, scaling = self.window, self.target.first, self.controller.scaling
        past = week_of(window.exogenous, jnp.asarray(0), first)
        record = Record(agents=True, flows=())
        rollout = simulate(window.population, past, self.policy, initial=window.initial, record=record, throw=False)
        traces = rollout.agents
        assert traces is not None  # they are in the record
        valid = window.valid[:first].astype(jnp.float32)
        history = AgentHistory.from_traces(past, traces, window.initial, valid)
        network, agents = self.controller.network, None
        if network.agents is not None:
            own, index = history.of_agents(self.cohort_index.index), self.cohort_index
            cohort = cohort_of(window.population, index.index, index.weight)
            agents = network.agents.cache(scaling.of_agents(agent_features(cohort, own, self.units)), own.valid)
        totals = scaling.of_totals(total_features(window.population, history, self.units))
        n_resources = len(window.population.resources)
        return _Carry(
            state=rollout.final,
            demand_before=traces.demand[-1],
            orders_before=traces.orders[-1],
            agents=agents,
            totals=network.totals.cache(totals),
            charged=jnp.zeros(n_resources),
            memory=self.controller.begin(n_resources),
        )

    def step(self, carry: _Carry, week: Array) -> tuple[_Carry, Any]:
        """Go through one week."""
        network, agents, embeddings = self.controller.network, carry.agents, None
        population, (history, known) = self.window.population, self._observe(carry, week)
        reads, probes = network.agents is not None, self.cohort_index.probes
        ready = None
        if probes is not None:
            on_order = carry.state.pipeline
            ready = prepare_probes_now(population, probes, history, known, on_order, self.policy, self.units)
        parts = (population, self.cohort_index, history, known, self.units)
        inputs = self.controller.scaling(map_inputs(*parts, reads_agents=reads, probes=ready))
        if network.agents is not None and inputs.agents is not None and inputs.valid is not None:
            agents, embeddings = network.agents.read(agents, inputs.agents[0], inputs.valid[0])
        totals, read_totals = network.totals.read(carry.totals, inputs.totals[0])
        encoded = network.assemble(embeddings, read_totals, inputs)
        capacity = self.target.coming(week) / self.units.use[None, :]
        observation = ControlObservation(week, carry.state, carry.charged, None, carry.memory, capacity, encoded)
        answer = self.controller.step(observation)
        issued = jnp.asarray(answer.prices) * self.units.price[None, :]
        announced = price_window(self.policy, carry.state, carry.charged, issued)
        total, traces, after, end = step_week(self.window, self.policy, carry.state, week, announced)
        out = (issued, carry.charged, total[:-1], total[-1], end, carry.state, answer.queries)
        return _Carry(after, traces.demand[0], traces.orders[0], agents, totals, issued[0], answer.memory), out

    def _observe(self, carry: _Carry, week: Array) -> tuple[AgentHistory, KnownFuture]:
        """Return this week's history, and what is known of the weeks after it."""
        state, window = carry.state, self.window
        valid = window.valid[week].astype(jnp.float32)
        before = (carry.demand_before, carry.orders_before)
        history = AgentHistory.of_week(window.exogenous, state, week, *before, valid)
        per_unit = window.population.weight[:, None] * window.population.use
        due = state.pipeline[: HORIZON + 1] @ per_unit
        known = KnownFuture(
            expected=window.expected_use[week],
            committed=jnp.pad(due, ((0, HORIZON + 1 - due.shape[0]), (0, 0))),
            stock=history.stock_start[0] @ per_unit,
            holidays=jax.lax.dynamic_slice_in_dim(window.holidays, week + 1, HORIZON),
        )
        return history, known


def price_window(
    policy: Policy, state: State, charged: Float[Array, " resource"], issued: Float[Array, "ahead resource"]
) -> Float[Array, "1 lead resource"]:
    """Return the prices that agents see in a week: that charged in it and, as far as they look ahead, those issued."""
    ahead = np.minimum(np.arange(window_length(policy, state.max_lead) - 1), issued.shape[0] - 1)
    return jnp.concatenate([charged[None], issued[ahead]])[None]


def step_week(
    window: PopulationWindow, policy: Policy, state: State, week: Array, announced: Float[Array, "1 lead resource"]
) -> tuple[Float[Array, " total"], Any, State, Float[Array, ""]]:
    """Simulate one week under announced prices (its own and later ones) [money per unit of resource].

    Return use of each resource and then reward, traces, the state after the week, and the value of what is left.
    """
    exogenous = window.exogenous
    setup = Setup(
        window.population,
        week_of(exogenous, week),
        policy,
        state,
        announced,
        Sequential(),
        Record(agents=True, flows=()),
        backlog=False,
        block=window.population.n_agents,
        following_cost=exogenous.unit_cost[jnp.minimum(week + 1, exogenous.n_weeks - 1)],
        first_week=week,
    )
    (rows, _, end), (after, traces), _ = setup.run()
    return rows.sum(-2)[0], traces, after, end.sum()
