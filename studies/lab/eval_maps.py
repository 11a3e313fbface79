"""Own forecasts of learned maps on judged cases, beside the forecast that simulates what could come.

FREE: what is measured of them is `walras.evaluation`; where cases come from is `train.judge_cases`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lab.resampling import SPAN, ScenarioBootstrap
from lab.shift_cases import ShiftCase, ShiftSizes
from walras.exogenous.paths import ExogenousPaths
from walras.maps.features import Scaling, units_of
from walras.maps.file import LearnedMap, probes_for
from walras.maps.network import MapNetwork, MapShape
from walras.maps.pooling import CohortIndex
from walras.maps.rollout import MapRollout, PopulationWindow, horizon_slices
from walras.policies.base import Policy
from walras.population.cohort import AbstractDesign, Cohort, StratifiedSample
from walras.population.population import Population
from walras.simulation.run import simulate_issued
from walras.simulation.state import State
from walras.train.agent_pool import AgentPool
from walras.train.primal_task import make_example

TILE = 16
"""Slots of a tile of readers."""

SIMULATION, EXPECTED, DELEGATES = "simulation", "expected demand", "delegates alone"
"""Forecasts beside those of maps: the mean over simulated futures, use if prices did nothing, delegates' own answer."""

Forecasts = Float[np.ndarray, "origin ahead resource"]


def cohort_readers(
    population: Population,
    learned: LearnedMap,
    count: int,
    random: np.random.Generator,
    design: AbstractDesign | None = None,
) -> CohortIndex:
    """Draw the cohort whose histories a map reads.

    Args:
        population: everybody.
        learned: its buckets are used.
        count: agents of the cohort.
        random: draws them.
        design: how; default stratified by demand.
    """
    size = np.asarray(population.demand_scale)
    cohort = (StratifiedSample() if design is None else design).draw(size, count, random)
    return CohortIndex.of(size, cohort, learned.edges, TILE, probes_for(learned, population, cohort))


def all_readers(population: Population, learned: LearnedMap) -> CohortIndex:
    """Read everybody; weights of a cohort stay those of the population."""
    size = np.asarray(population.demand_scale)
    everyone = np.arange(len(size))
    cohort = Cohort(everyone, np.ones(len(size)), 0 * everyone, len(size), "all")
    return CohortIndex.of(size, cohort, learned.edges, TILE, probes_for(learned, population, cohort))


def map_forecast(
    learned: LearnedMap,
    rolled: MapRollout,
    stretch: PopulationWindow,
    readers: CohortIndex,
    prices: Float[Array, "week resource"],
    sizes: ShiftSizes,
) -> Forecasts:
    """Return what a map says of the coming weeks of every origin [units of resource].

    Args:
        learned: a primal map.
        rolled: what happened; only what is known at each origin is read.
        stretch: the population.
        readers: whose histories are read.
        prices: announced [money per unit of resource].
        sizes: say which weeks are origins.
    """
    parts = (learned.network, learned.scaling, rolled, stretch, readers, jnp.asarray(prices), learned.shape)
    return np.asarray(_forecast(*parts, sizes.known, sizes.origins, sizes.spacing), float)


def delegates_forecast(
    learned: LearnedMap,
    rolled: MapRollout,
    stretch: PopulationWindow,
    readers: CohortIndex,
    prices: Float[Array, "week resource"],
    sizes: ShiftSizes,
) -> Forecasts:
    """Return what a map's delegates would use, nothing learned of them, as `map_forecast` does."""
    parts = (None, learned.scaling, rolled, stretch, readers, jnp.asarray(prices), learned.shape)
    return np.asarray(_forecast(*parts, sizes.known, sizes.origins, sizes.spacing), float)


@eqx.filter_jit
def _forecast(
    network: MapNetwork | None,
    scaling: Scaling,
    rolled: MapRollout,
    stretch: PopulationWindow,
    readers: CohortIndex,
    prices: Float[Array, "week resource"],
    shape: MapShape,
    weeks: int,
    origins: int,
    spacing: int,
) -> Float[Array, "origin ahead resource"]:
    """Return what a map says, or without one what the delegates say that are asked."""
    lesson = make_example(rolled, stretch, readers, prices, shape, weeks, origins, spacing)
    if network is not None:
        said = network.utilization(network.encode(scaling(lesson.inputs), spacing), lesson.prices)
    else:
        assert lesson.inputs.probes is not None  # only maps with delegates get here
        said = lesson.inputs.probes.use(lesson.prices)
    return said * rolled.units.use[None, None, :]


def realised(rolled: MapRollout, sizes: ShiftSizes) -> Forecasts:
    """Return utilization of the weeks after each origin [units of resource]."""
    return np.asarray(horizon_slices(rolled.utilization, sizes.known, sizes.origins, sizes.spacing), float)


def expected_use(stretch: PopulationWindow, sizes: ShiftSizes) -> Forecasts:
    """Return use in the weeks after each origin if everybody received what is asked for [units of resource]."""
    return np.asarray(stretch.expected_use[sizes.origin_weeks, 1:], float)


def simulated_forecast(
    world: AgentPool,
    case: ShiftCase,
    policy: Policy,
    sizes: ShiftSizes,
    draws: int,
    random: np.random.Generator,
) -> Float[np.ndarray, "draw origin ahead resource"]:
    """Simulate what could come after each origin, from everybody's true state; nobody could forecast much better.

    Demand, forecasts and lead times of the coming weeks are redrawn; prices are known for the horizon, as to a map.

    Args:
        world, case: who, and when.
        policy: what agents follow.
        sizes: say which weeks are origins.
        draws: futures of each origin.
        random: draws them.

    Returns:
        Utilization in each drawn future [units of resource].
    """
    found, prices, before = [], np.asarray(case.prices), 0
    issued = windows(prices)
    state = case.stretch.initial
    for week in sizes.origin_weeks:
        passed = jax.tree.map(lambda leaf, rows=slice(before, week): leaf[rows], case.stretch.exogenous)
        state = _lived(case.stretch.population, passed, policy, state, issued[before:week], prices[before])[1]
        plan = windows(prices[: week + SPAN])[week:]
        futures = ScenarioBootstrap(world, case.agents, case.start + int(week))
        uses = [
            _lived(case.stretch.population, futures.drawn(random), policy, state, plan, prices[week])[0]
            for _ in range(draws)
        ]
        found.append(np.stack([np.asarray(use, float)[1:] for use in uses]))
        before = int(week)
    return np.stack(found, axis=1)


def windows(prices: Float[np.ndarray, "week resource"]) -> Float[np.ndarray, "week ahead resource"]:
    """Return the prices of the weeks after each week; after the last week the last price holds."""
    weeks = len(prices)
    ahead = np.minimum(np.arange(weeks)[:, None] + np.arange(1, SPAN)[None, :], weeks - 1)
    return prices[ahead]


@eqx.filter_jit
def _lived(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    state: State,
    issued: Float[np.ndarray, "week ahead resource"] | Float[Array, "week ahead resource"],
    first: Float[np.ndarray, " resource"] | Float[Array, " resource"],
) -> tuple[Float[Array, "week resource"], State]:
    parts = (population, exogenous, policy)
    rollout = simulate_issued(*parts, initial=state, issued=jnp.asarray(issued), first=jnp.asarray(first))
    return rollout.totals.utilization, rollout.final


@dataclass(frozen=True, eq=False)
class MapEvaluation:
    """Hold all forecasts of a case beside what came.

    Attributes:
        case: by, alpha, kind, number, demand ratio, near-limit share.
        scale: S(P), in which paths of different size are compared [units of resource].
        realised: utilization of the weeks after each origin [units of resource].
        priced: whether a price was charged in these weeks.
        forecasts: of the same weeks, by name.
        futures: each simulated one; None where none was.
    """

    case: Mapping[str, str | float | int | None]
    scale: Float[np.ndarray, " resource"]
    realised: Forecasts
    priced: Bool[np.ndarray, "origin ahead resource"]
    forecasts: Mapping[str, Forecasts]
    futures: Float[np.ndarray, "draw origin ahead resource"] | None


LABELS = ("by", "alpha", "kind", "number", "demand_ratio", "near_limit")


def evaluate_map(
    world: AgentPool,
    case: ShiftCase,
    policy: Policy,
    maps: Mapping[str, LearnedMap],
    sizes: ShiftSizes,
    *,
    cohort: int,
    draws: int,
    seed: int = 0,
) -> MapEvaluation:
    """Forecast a case with every map, by what its delegates say, by expected demand and, if `draws`, by simulation.

    Args:
        world, case, policy: what is forecast.
        maps: primal maps by name.
        sizes: say which weeks are origins.
        cohort: agents that maps read of it.
        draws: simulated futures of each origin.
        seed: of cohort and futures; all maps read the same cohort.
    """
    forecasts = {}
    for name, learned in maps.items():
        readers = cohort_readers(case.stretch.population, learned, cohort, np.random.default_rng([seed, case.number]))
        forecasts[name] = map_forecast(learned, case.rolled, case.stretch, readers, case.prices, sizes)
        if learned.shape.n_probes and DELEGATES not in forecasts:
            parts = (learned, case.rolled, case.stretch, readers, case.prices, sizes)
            forecasts[DELEGATES] = delegates_forecast(*parts)
    forecasts[EXPECTED] = expected_use(case.stretch, sizes)
    futures = None
    if draws:
        random = np.random.default_rng([seed, case.number, 0xF07])
        futures = simulated_forecast(world, case, policy, sizes, draws, random)
        forecasts[SIMULATION] = futures.mean(0)
    scale = np.asarray(units_of(case.stretch.population).use, float)
    labels = {name: getattr(case, name) for name in LABELS}
    priced = np.asarray(horizon_slices(case.prices, sizes.known, sizes.origins, sizes.spacing)) > 0
    return MapEvaluation(labels, scale, realised(case.rolled, sizes), priced, forecasts, futures)
