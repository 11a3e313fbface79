"""Closed loop: every week a map issues prices, agents order, and the map sees the result in the next week.

LAW: in week t receipts are in when prices for weeks t + 1 .. t + HORIZON are issued; the first of them is charged in
week t + 1 (spec section 2). This is the loop of `simulation.controller` as one compiled scan, for controllers on maps.
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
from walras.maps.pooling import CohortIndex
from walras.maps.probes import PreparedProbes
from walras.maps.rollout import PopulationWindow
from walras.parallel.process import Sequential
from walras.policies.base import Policy
from walras.simulation.controller import Controller, ControlObservation, Issued
from walras.simulation.record import Record
from walras.simulation.run import simulate, week_of, window_length
from walras.simulation.setup import Setup
from walras.simulation.state import State

SMALLEST_CAPACITY = 1e-6
"""Capacities, relative to S(P), below this count as this when ratios are formed."""

BETAS = (0.5, 0.8)
"""Decay of Adam's moments in the search on a primal map, short: a week whose violation is gone gives up its price."""


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
    """Minimise a loss of prices `min(softplus(nu), ceiling)` by Adam on nu.

    Args:
        loss: from prices to loss and residual.
        start: first nu.
        learning_rate: step size in nu, of the number of the step.
        max_steps: most steps; may be traced.
        betas: decay of Adam's first and second moment.
        tolerance: residual at which the search ends.
        ceiling: highest price; nu is kept below it, since beyond it the loss has no slope.

    Returns:
        The last nu, and the number of evaluations of the loss.
    """
    adam, highest = optax.scale_by_adam(*betas), math.log(math.expm1(ceiling)) if ceiling < math.inf else math.inf

    def evaluate(nu: Array) -> tuple[Array, Array]:
        def of_nu(nu: Array) -> tuple[Array, Array]:
            return loss(softplus_prices(nu, ceiling))

        (_, residual), slope = jax.value_and_grad(of_nu, has_aux=True)(nu)
        return slope, residual

    def unfinished(state: tuple) -> Array:
        return ~state[3]

    def update(state: tuple) -> tuple:
        nu, moments, count, _ = state
        slope, residual = evaluate(nu)
        finished = (residual <= tolerance) | (count >= max_steps)
        move, moments = adam.update(slope, moments)
        moved = jnp.minimum(nu - learning_rate(count) * move, highest)
        return jnp.where(finished, nu, moved), moments, count + 1, finished

    nu = jnp.minimum(start, highest)
    state = (nu, adam.init(nu), jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    nu, _, evaluations, _ = jax.lax.while_loop(unfinished, update, state)
    return nu, evaluations


def softplus_prices(nu: Float[Array, "*axes"], ceiling: float = math.inf) -> Float[Array, "*axes"]:
    """Return softplus(nu), at most `ceiling`."""
    return jnp.minimum(jax.nn.softplus(nu), ceiling)


class AbstractPriceController(eqx.Module, Controller):
    """A controller on a map. In `ControlObservation` and `Issued`, prices and capacity are relative (`Units`)."""

    network: eqx.AbstractVar[MapNetwork]  # reads histories and coming weeks
    scaling: eqx.AbstractVar[FeatureScaling]  # of its features


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


class PrimalSearch(AbstractPriceController):
    """Search prices `softplus(nu)` at which a frozen primal map predicts use within capacity (spec section 8), by Adam.

    The loss is the mean squared relative violation plus a small price term, without which weeks with slack would keep a
    price. The first search starts from nu = 0, later ones from last week's result shifted by a week. A search ends when
    the mean of |min(lambda, (K - U) / K)| is below `tolerance`, or after `most` steps; weeks that exceed capacity at
    the highest price do not count, since open orders no longer respond to prices.
    """

    network: MapNetwork  # of the primal map
    scaling: FeatureScaling
    rate: float = 0.4  # step of Adam in nu; it falls as 1 / sqrt(1 + step / 10), or the last steps would oscillate
    most: int = 60  # steps at most
    tolerance: float = 5e-3  # residual at which the search ends
    price_weight: float = 1e-2  # of the mean price beside violation
    ceiling: float = 4.0  # highest price [median unit margins]

    def begin(self, n_resources: int) -> Float[Array, "ahead resource"]:
        """Return nu = 0."""
        return jnp.zeros((HORIZON, n_resources))

    def issue(self, observation: ControlObservation) -> Float[Array, "ahead resource"]:
        """Return the prices of `step`."""
        return jnp.asarray(self.step(observation).prices)

    def step(self, observation: ControlObservation) -> Issued:
        """Search on from last week's nu; a query is one evaluation of the map with its slope in the prices."""

        def utilization(prices: Array) -> Array:
            return self.network.utilization(observation.encoded, prices)

        assert observation.capacity is not None  # the loop over a map always has a target
        nu, queries = self.search(utilization, observation.capacity, observation.memory)
        return Issued(softplus_prices(nu, self.ceiling), jnp.concatenate([nu[1:], nu[-1:]]), queries)

    def search(
        self,
        utilization: Callable[[Array], Array],
        capacity: Float[Array, "ahead resource"],
        start: Float[Array, "ahead resource"],
    ) -> tuple[Float[Array, "ahead resource"], Int[Array, ""]]:
        """Return the last nu, and how often `utilization` (from prices to use, both relative) was evaluated."""
        limit = jnp.maximum(capacity, SMALLEST_CAPACITY)

        def loss(prices: Array) -> tuple[Array, Array]:
            over = (utilization(prices) - limit) / limit
            return (jnp.maximum(over, 0.0) ** 2).mean() + self.price_weight * prices.mean(), self.residual(prices, over)

        return adam_on_softplus_prices(
            loss,
            start,
            learning_rate=lambda step: self.rate / jnp.sqrt(1 + step / 10),
            max_steps=self.most,
            betas=BETAS,
            tolerance=self.tolerance,
            ceiling=self.ceiling,
        )

    def residual(
        self, prices: Float[Array, "ahead resource"], over: Float[Array, "ahead resource"]
    ) -> Float[Array, ""]:
        """Return the mean of |min(lambda, (K - U) / K)|, 0 in weeks over capacity at the highest price.

        Prices are lambda [median unit margins], `over` is (U - K) / K.
        """
        saturated = (prices >= 0.999 * self.ceiling) & (over > 0)
        return jnp.where(saturated, 0.0, jnp.abs(jnp.minimum(prices, -over))).mean()


class CapacityTarget(eqx.Module):
    """Capacity that a closed loop is to keep to.

    Attributes:
        capacity: K of every week of the window [units of resource]; the last one holds for later weeks.
        first: first week in which prices are issued.
    """

    capacity: Float[Array, "week resource"]
    first: int = eqx.field(static=True)

    def coming(self, week: Array) -> Float[Array, "ahead resource"]:
        """Return the capacity of the weeks after a week."""
        last = self.capacity.shape[0] - 1
        return self.capacity[jnp.minimum(week + 1 + jnp.arange(HORIZON), last)]


class ClosedLoopResult(eqx.Module):
    """Outcome of the coordinated weeks, `first` and those after it.

    Attributes:
        issued: prices for the weeks after each week, as issued in it [money per unit of resource].
        charged: price of each week.
        utilization: use of each resource.
        reward: money of each week, price payments not deducted.
        end_value: value of what is left at the end [money].
        states: before each week and its receipts; leading week axis.
        queries: evaluations of the map in each week; None where they are not counted.
    """

    issued: Float[Array, "week ahead resource"]
    charged: Float[Array, "week resource"]
    utilization: Float[Array, "week resource"]
    reward: Float[Array, " week"]
    end_value: Float[Array, ""]
    states: State
    queries: Int[Array, " week"] | None = None


def run_closed_loop(
    window: PopulationWindow,
    cohort_index: CohortIndex,
    policy: Policy,
    target: CapacityTarget,
    controller: AbstractPriceController,
) -> ClosedLoopResult:
    """Issue prices, simulate a week, and go on, with histories read one week at a time.

    Args:
        window, cohort_index: agents and weeks, and whose histories are read.
        policy: of the agents.
        target: capacity to keep to; weeks before `target.first` have no prices.
        controller: issues the prices, e.g. a dual map.
    """
    loop = _Loop(window, cohort_index, policy, target, controller, units_of(window.population))
    weeks = jnp.arange(target.first, window.n_weeks)
    _, (issued, charged, use, reward, ends, states, queries) = jax.lax.scan(
        lambda carry, week: loop.step(carry, week), loop.begin(), weeks
    )
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
        reads, probes = network.agents is not None, self._probes(carry, history, known)
        parts = (population, self.cohort_index, history, known, self.units)
        inputs = self.controller.scaling(map_inputs(*parts, reads_agents=reads, probes=probes))
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
        history = AgentHistory.of_week(state, window.exogenous, week, *before, valid)
        per_unit = window.population.weight[:, None] * window.population.use
        due = state.pipeline[: HORIZON + 1] @ per_unit
        known = KnownFuture(
            expected=window.expected_use[week],
            committed=jnp.pad(due, ((0, HORIZON + 1 - due.shape[0]), (0, 0))),
            stock=history.stock_start[0] @ per_unit,
            holidays=jax.lax.dynamic_slice_in_dim(window.holidays, week + 1, HORIZON),
        )
        return history, known

    def _probes(self, carry: _Carry, history: AgentHistory, known: KnownFuture) -> PreparedProbes | None:
        probes, population = self.cohort_index.probes, self.window.population
        if probes is None:
            return None
        return prepare_probes_now(population, probes, history, known, carry.state.pipeline, self.policy, self.units)


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

    Returns:
        Use of each resource and then reward, traces, the state after the week, and the value of what is left.
    """
    exogenous = window.exogenous
    following = exogenous.unit_cost[jnp.minimum(week + 1, exogenous.n_weeks - 1)]
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
        following_cost=following,
        first_week=week,
    )
    (rows, _, end), (after, traces), _ = setup.run()
    return rows.sum(-2)[0], traces, after, end.sum()
