"""Methods that keep a population to a fixed capacity: no control, rationing, dual and primal maps."""

import abc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lab.capacity_benchmark import BenchmarkCase, BenchmarkPopulation, ComputeCost, ControlOutcome
from walras.maps.closed_loop import (
    AbstractPriceController,
    DualMap,
    adam_on_softplus_prices,
    run_closed_loop,
    softplus_prices,
    step_week,
)
from walras.maps.features import HORIZON, FeatureScaling, units_of
from walras.maps.file import LearnedMap
from walras.maps.network import MapNetwork
from walras.maps.rollout import PopulationWindow
from walras.policies.base import AbstractWrapper, Observation, Policy
from walras.population.population import Population
from walras.simulation.controller import ControlObservation, Issued
from walras.simulation.record import Record
from walras.simulation.run import simulate, week_of, window_length
from walras.simulation.week import State

SMALLEST_CAPACITY = 1e-6
"""Capacities, relative to S(P), below this count as this when ratios are formed."""

BETAS = (0.5, 0.8)
"""Decay of Adam's moments in the search on a primal map, short: a week whose violation is gone gives up its price."""


class ControlMethod(abc.ABC):
    """A method of keeping populations to a fixed capacity; it may use a case's coordinated weeks only as they pass.

    Attributes:
        name: in tables.
    """

    name: str

    @abc.abstractmethod
    def run(self, case: BenchmarkCase) -> ControlOutcome:
        """Simulate the coordinated weeks of a case under this method."""


class TimedJit:
    """A compiled pure function that returns its result and its seconds; a call that had to compile is repeated."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Wrap the function."""
        self.traces = 0

        def counted(*arguments: Any) -> Any:
            self.traces += 1
            return function(*arguments)

        self._compiled = eqx.filter_jit(counted)

    def __call__(self, *arguments: Any) -> tuple[Any, float]:
        """Return the result and the seconds it took without compilation."""
        before = self.traces
        timed = self._timed(arguments)
        return self._timed(arguments) if self.traces > before else timed

    def _timed(self, arguments: tuple[Any, ...]) -> tuple[Any, float]:
        started = time.perf_counter()
        result = jax.block_until_ready(self._compiled(*arguments))
        return result, time.perf_counter() - started


@dataclass(frozen=True)
class NoControl(ControlMethod):
    """No prices."""

    name: str = "none"

    def run(self, case: BenchmarkCase) -> ControlOutcome:
        """Return the outcome without prices."""
        return case.episode.free


@dataclass(frozen=True, eq=False)
class DualMapController(ControlMethod):
    """A dual map that re-issues prices every week.

    Attributes:
        name: in tables.
        dual: the map; it knows receipts of the week, and issues prices for the weeks after it.
    """

    name: str
    dual: LearnedMap

    def run(self, case: BenchmarkCase) -> ControlOutcome:
        """Run the closed loop."""
        return _run_map(case, self.dual, DualMap(self.dual.network, self.dual.scaling))


class PrimalSearch(AbstractPriceController):
    """Search prices `softplus(nu)` at which a frozen primal map predicts use within capacity, by Adam.

    The loss is the mean squared relative violation plus a small price term, without which weeks with slack would keep a
    price. The first search starts from nu = 0, later ones from last week's result shifted by a week. A search ends when
    the mean of |min(lambda, (K - U) / K)| is below `tolerance`, or after `most` steps; weeks that exceed capacity at
    the highest price do not count, since open orders no longer respond to prices.

    Attributes:
        network, scaling: of the primal map.
        rate: step of Adam in nu; it falls as 1 / sqrt(1 + step / 10), or the last steps would oscillate.
        most: steps at most.
        tolerance: residual at which the search ends.
        price_weight: of the mean price beside violation.
        ceiling: highest price [median unit margins].
    """

    network: MapNetwork
    scaling: FeatureScaling
    rate: float = 0.4
    most: int = 60
    tolerance: float = 5e-3
    price_weight: float = 1e-2
    ceiling: float = 4.0

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


@dataclass(frozen=True, eq=False)
class PrimalMapController(ControlMethod):
    """A search every week for the prices at which use fits, as forecast by a frozen primal map.

    Attributes:
        name: in tables.
        primal: the map, of any representation; it knows what a dual map knows.
        settings: of the search that differ from the defaults of `PrimalSearch`.
    """

    name: str
    primal: LearnedMap
    settings: Mapping[str, float] = field(default_factory=dict)

    def run(self, case: BenchmarkCase) -> ControlOutcome:
        """Run the closed loop."""
        parts = (self.primal.network, self.primal.scaling)
        return _run_map(case, self.primal, PrimalSearch(*parts, **self.settings))


def _run_map(case: BenchmarkCase, learned: LearnedMap, controller: AbstractPriceController) -> ControlOutcome:
    episode = case.episode
    arguments = (episode.pop_window, episode.cohort_index(learned), episode.policy, case.target)
    loop, seconds = _closed_loop(*arguments, controller)
    reward = np.asarray(loop.reward, float).sum() + float(loop.end_value)
    simulating = _history(episode.pop_window, episode.policy, episode.first)[1] + seconds_of_weeks(episode)
    work = ComputeCost(queries=int(loop.queries.sum()), seconds=max(seconds - simulating, 0.0))
    return ControlOutcome(np.asarray(loop.utilization, float), float(reward), np.asarray(loop.charged, float), work)


def seconds_of_weeks(episode: BenchmarkPopulation) -> float:
    """Return the seconds of simulating the coordinated weeks without any control."""
    return _weeks(episode.pop_window, episode.policy, episode.state, episode.first)[1]


def _simulate_history(pop_window: PopulationWindow, policy: Policy, first: int) -> State:
    """Simulate the weeks before the first coordinated one, with the traces that a map needs."""
    record, exogenous = Record(agents=True, flows=()), week_of(pop_window.exogenous, jnp.asarray(0), first)
    return simulate(
        pop_window.population, exogenous, policy, initial=pop_window.initial, record=record, throw=False
    ).final


def _simulate_weeks(pop_window: PopulationWindow, policy: Policy, state: State, first: int) -> tuple[State, Any]:
    def step(state: State, week: Array) -> tuple[State, Any]:
        rows, traces, after, _ = step_without_prices(pop_window, policy, state, week)
        return after, (rows, traces.demand.sum())

    return jax.lax.scan(step, state, jnp.arange(first, pop_window.n_weeks))


def step_without_prices(pop_window: PopulationWindow, policy: Policy, state: State, week: Array) -> Any:
    """Simulate one week without prices; see `walras.maps.closed_loop.step_week` for what it returns."""
    no_prices = jnp.zeros((1, window_length(policy, state.max_lead), len(pop_window.population.resources)))
    return step_week(pop_window, policy, state, week, no_prices)


class ScaledOrders(AbstractWrapper):
    """A share of the orders of another policy.

    Attributes:
        policy: the inner policy.
        share: of each agent's order that is placed, 0..1.
    """

    policy: Policy
    share: Float[Array, " agent"]

    def decide(
        self, encoded: Any, observation: Observation, shadow_prices: Float[Array, "lead resource"]
    ) -> Float[Array, " agent"]:
        """Return the share of the inner policy's orders [units]."""
        return self.share * self.policy.decide(encoded, observation, shadow_prices)


@dataclass(frozen=True)
class ProportionalRationing(ControlMethod):
    """Cut all orders due in the same week by the same share, so that expected arrivals fit; there are no prices.

    Every week it knows the orders of the policy without prices, usual lead times, when each open order will really
    arrive, and the forecast of total use. The free capacity of the week of arrival is shared between present orders and
    those expected from agents with shorter lead times: their part, by demand, of the forecast. Lead times of orders and
    demand are not known, and agents that were cut order again.
    """

    name: str = "throttle"

    def run(self, case: BenchmarkCase) -> ControlOutcome:
        """Simulate week by week."""
        episode = case.episode
        arguments = (episode.pop_window, episode.policy, episode.state, jnp.asarray(case.capacity, jnp.float32))
        (use, reward), seconds = _rationed(*arguments, episode.first)
        work = ComputeCost(seconds=max(seconds - seconds_of_weeks(episode), 0.0))
        return ControlOutcome(np.asarray(use, float), float(reward), np.zeros(case.capacity.shape), work)


def _ration(
    pop_window: PopulationWindow, policy: Policy, state: State, capacity: Float[Array, "week resource"], first: int
) -> tuple[Float[Array, "week resource"], Float[Array, ""]]:
    population, lead = pop_window.population, state.max_lead
    extended = jnp.concatenate([capacity, jnp.repeat(capacity[-1:], lead + 1, axis=0)])

    def step(state: State, week: Array) -> tuple[State, Any]:
        wanted = step_without_prices(pop_window, policy, state, first + week)[1].orders[0]
        limit = jax.lax.dynamic_slice_in_dim(extended, week, lead + 1)
        share = _order_share(population, state, wanted, pop_window.expected_use[first + week], limit)
        rows, _, after, end = step_without_prices(pop_window, ScaledOrders(policy, share), state, first + week)
        return after, (rows[:-1], rows[-1], end)

    _, (use, reward, ends) = jax.lax.scan(step, state, jnp.arange(capacity.shape[0]))
    return use, reward.sum() + ends[-1]


def _order_share(
    population: Population,
    state: State,
    wanted: Float[Array, " agent"],
    expected: Float[Array, "ahead resource"],
    limit: Float[Array, "due resource"],
) -> Float[Array, " agent"]:
    """Return the share of each agent's order for which there is capacity in the week in which it is due."""
    lead, most = population.lead_time, state.max_lead
    per_unit = population.weight[:, None] * population.use
    due = jnp.pad(state.pipeline @ per_unit, ((0, 1), (0, 0)))
    arrives = (jnp.minimum(lead, most)[:, None] == jnp.arange(most + 1)[None, :]).astype(jnp.float32)
    now = arrives.T @ (wanted[:, None] * per_unit)
    part = arrives.T @ (population.demand_scale[:, None] * per_unit) / units_of(population).use[None, :]
    later = (jnp.cumsum(part, 0) - part) * expected[np.minimum(np.arange(most + 1), len(expected) - 1)]
    total = now + later
    share = jnp.where(total > 0, (limit - due) / jnp.where(total > 0, total, 1.0), 1.0)
    return arrives @ jnp.clip(share, 0.0, 1.0).min(1)


_closed_loop, _rationed = TimedJit(run_closed_loop), TimedJit(_ration)
_history, _weeks = TimedJit(_simulate_history), TimedJit(_simulate_weeks)
