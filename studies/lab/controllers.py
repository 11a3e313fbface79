"""Own the methods that keep a population to a fixed plan: none, a pro-rata throttle, dual and primal maps.

OPEN: add a method as a class with `keep`; it may look at a case's coordinated weeks only as they go by.
"""

import abc
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lab.capacity_benchmark import BenchmarkCase, BenchmarkPopulation, ComputeCost, ControlOutcome
from lab.timing import TimedJit
from walras.maps.closed_loop import AbstractPriceController, DualMap, PrimalSearch, run_closed_loop, step_week
from walras.maps.features import units_of
from walras.maps.file import LearnedMap
from walras.maps.rollout import PopulationWindow
from walras.policies.base import AbstractWrapper, Observation, Policy
from walras.population.population import Population
from walras.simulation.record import Record
from walras.simulation.run import simulate, week_of, window_length
from walras.simulation.state import State


class AbstractController(abc.ABC):
    """Keep populations to a fixed plan.

    Attributes:
        name: in tables.
    """

    name: str

    @abc.abstractmethod
    def keep(self, case: BenchmarkCase) -> ControlOutcome:
        """Go through the coordinated weeks of a case and return what came about."""


@dataclass(frozen=True)
class NoControl(AbstractController):
    """Let everybody order without prices."""

    name: str = "none"

    def keep(self, case: BenchmarkCase) -> ControlOutcome:
        """Return what comes about without prices."""
        return case.scene.free


@dataclass(frozen=True, eq=False)
class DualMapController(AbstractController):
    """Re-issue a dual map's prices every week.

    Attributes:
        name: in tables.
        dual: the map; it sees receipts of the week, and issues prices for the weeks after it.
    """

    name: str
    dual: LearnedMap

    def keep(self, case: BenchmarkCase) -> ControlOutcome:
        """Run the closed loop."""
        return _in_closed_loop(case, self.dual, DualMap(self.dual.network, self.dual.scaling))


@dataclass(frozen=True)
class SearchSettings:
    """Say how a primal map is searched; see `walras.maps.closed_loop.PrimalSearch`.

    Attributes:
        rate: first step in nu.
        most: steps a week at most.
        tolerance: residual at which a week's search ends.
        price_weight: of the mean price beside violation.
        ceiling: highest price [median unit margins].
    """

    rate: float = PrimalSearch.rate
    most: int = PrimalSearch.most
    tolerance: float = PrimalSearch.tolerance
    price_weight: float = PrimalSearch.price_weight
    ceiling: float = PrimalSearch.ceiling


@dataclass(frozen=True, eq=False)
class PrimalMapController(AbstractController):
    """Search every week for the prices at which a frozen primal map says that use fits (spec section 8).

    Attributes:
        name: in tables.
        primal: the map, of any representation; it sees what a dual map sees.
        rules: of the search.
    """

    name: str
    primal: LearnedMap
    rules: SearchSettings = SearchSettings()

    def keep(self, case: BenchmarkCase) -> ControlOutcome:
        """Run the closed loop."""
        parts = (self.primal.network, self.primal.scaling)
        return _in_closed_loop(case, self.primal, PrimalSearch(*parts, **asdict(self.rules)))


def _in_closed_loop(case: BenchmarkCase, learned: LearnedMap, issuer: AbstractPriceController) -> ControlOutcome:
    scene = case.scene
    given = (scene.stretch, scene.readers(learned), scene.policy, case.plan)
    done, seconds = _closed_loop(*given, issuer)
    reward = np.asarray(done.reward, float).sum() + float(done.end_value)
    alone = _seconds_of_past(scene) + seconds_of_weeks(scene)
    work = ComputeCost(queries=int(done.queries.sum()), seconds=max(seconds - alone, 0.0))
    return ControlOutcome(np.asarray(done.utilization, float), float(reward), np.asarray(done.charged, float), work)


def _past(stretch: PopulationWindow, policy: Policy, first: int) -> State:
    """Live through the weeks before the first coordinated one, with traces as a map needs them."""
    record = Record(agents=True, flows=())
    exogenous = week_of(stretch.exogenous, jnp.asarray(0), first)
    return simulate(stretch.population, exogenous, policy, initial=stretch.initial, record=record, throw=False).final


def _weeks(stretch: PopulationWindow, policy: Policy, state: State, first: int) -> tuple[State, Any]:
    """Live through the coordinated weeks, with nobody deciding on anything."""

    def step(state: State, week: Array) -> tuple[State, Any]:
        rows, traces, after, _ = _lived(stretch, policy, state, week)
        return after, (rows, traces.demand.sum())

    return jax.lax.scan(step, state, jnp.arange(first, stretch.n_weeks))


_closed_loop, _past_alone, _weeks_alone = TimedJit(run_closed_loop), TimedJit(_past), TimedJit(_weeks)


def _seconds_of_past(scene: BenchmarkPopulation) -> float:
    return _past_alone(scene.stretch, scene.policy, scene.first)[1]


def seconds_of_weeks(scene: BenchmarkPopulation) -> float:
    """Return the seconds that living through the coordinated weeks takes, with nobody deciding on anything."""
    return _weeks_alone(scene.stretch, scene.policy, scene.state, scene.first)[1]


class Scaled(AbstractWrapper):
    """Order a share of what another policy orders.

    Attributes:
        policy: whose orders are cut.
        share: of each agent's order that is placed, 0..1.
    """

    policy: Policy
    share: Float[Array, " agent"]

    def decide(
        self, encoded: Any, observation: Observation, shadow_prices: Float[Array, "lead resource"]
    ) -> Float[Array, " agent"]:
        """Return the share of what the inner policy would order [units]."""
        return self.share * self.policy.decide(encoded, observation, shadow_prices)


@dataclass(frozen=True)
class ProportionalRationing(AbstractController):
    """Cut all orders that should arrive in the same week by the same share, so that expected arrivals fit.

    Every week it knows the orders that everybody wants to place (the policy's, without prices), their usual lead times,
    when each open order will really arrive, and the forecast of everybody's use. What is free in the week of arrival
    is shared between the orders at hand and those that agents of shorter lead times are expected to want for it: their
    part, by demand, of the forecast. It does not know how long an order will take, nor what demand will be; and agents
    that were cut ask again. There are no prices.
    """

    name: str = "throttle"

    def keep(self, case: BenchmarkCase) -> ControlOutcome:
        """Go week by week."""
        scene = case.scene
        given = (scene.stretch, scene.policy, scene.state, jnp.asarray(case.capacity, jnp.float32))
        (use, reward), seconds = _throttled(*given, scene.first)
        work = ComputeCost(seconds=max(seconds - seconds_of_weeks(scene), 0.0))
        return ControlOutcome(np.asarray(use, float), float(reward), np.zeros(case.capacity.shape), work)


def _throttle(
    stretch: PopulationWindow, policy: Policy, state: State, capacity: Float[Array, "week resource"], first: int
) -> tuple[Float[Array, "week resource"], Float[Array, ""]]:
    population, lead = stretch.population, state.max_lead
    held = jnp.concatenate([capacity, jnp.repeat(capacity[-1:], lead + 1, axis=0)])

    def step(state: State, week: Array) -> tuple[State, Any]:
        wanted = _one_week(stretch, policy, state, first + week)[1].orders[0]
        limit = jax.lax.dynamic_slice_in_dim(held, week, lead + 1)
        share = _share(population, state, wanted, stretch.expected_use[first + week], limit)
        rows, traces, after, end = _lived(stretch, Scaled(policy, share), state, first + week)
        return after, (rows[:-1], rows[-1], end)

    weeks = jnp.arange(capacity.shape[0])
    _, (use, reward, ends) = jax.lax.scan(step, state, weeks)
    return use, reward.sum() + ends[-1]


_throttled = TimedJit(_throttle)


def _share(
    population: Population,
    state: State,
    wanted: Float[Array, " agent"],
    expected: Float[Array, "ahead resource"],
    limit: Float[Array, "due resource"],
) -> Float[Array, " agent"]:
    """Return the share of each agent's order for which there is room in the week in which it should arrive."""
    lead, most = population.lead_time, state.max_lead
    per_unit = population.weight[:, None] * population.use
    due = jnp.pad(state.pipeline @ per_unit, ((0, 1), (0, 0)))
    arrives = (jnp.minimum(lead, most)[:, None] == jnp.arange(most + 1)[None, :]).astype(jnp.float32)
    now = arrives.T @ (wanted[:, None] * per_unit)
    part = arrives.T @ (population.demand_scale[:, None] * per_unit) / units_of(population).use[None, :]
    later = (jnp.cumsum(part, 0) - part) * expected[np.minimum(np.arange(most + 1), len(expected) - 1)]
    asked = now + later
    share = jnp.where(asked > 0, (limit - due) / jnp.where(asked > 0, asked, 1.0), 1.0)
    return arrives @ jnp.clip(share, 0.0, 1.0).min(1)


def _one_week(stretch: PopulationWindow, policy: Policy, state: State, week: Array) -> Any:
    rows, traces, after, end = _lived(stretch, policy, state, week)
    return rows, traces


def _lived(stretch: PopulationWindow, policy: Policy, state: State, week: Array) -> Any:
    """Go through one week without prices; return use and reward, traces, the state after it, and what is left."""
    window = jnp.zeros((1, window_length(policy, state.max_lead), len(stretch.population.resources)))
    return step_week(stretch, policy, state, week, window)
