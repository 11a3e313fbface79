"""Forecasts of learned maps on shifted populations, beside those of probe agents, expected demand and simulation."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lab.encoding import index_sample
from lab.resampling import SPAN, ScenarioBootstrap
from lab.shift_cases import ShiftCase, ShiftSizes
from walras.exogenous.paths import ExogenousPaths
from walras.maps.agent_layout import CohortIndex
from walras.maps.features import FeatureScaling, units_of
from walras.maps.file import LearnedMap
from walras.maps.network import MapNetwork
from walras.maps.representations import MapShape
from walras.maps.rollout import MapRollout, PopulationWindow, horizon_slices
from walras.policies.base import Policy
from walras.population.population import Population
from walras.simulation.run import prepare, run_setup, window_length
from walras.simulation.week import State
from walras.train.agent_pool import AgentPool
from walras.train.primal_task import make_example

SIMULATION, EXPECTED, PROBES = "simulation", "expected demand", "delegates alone"
"""Names of the other forecasts in results: mean over scenarios, use if prices had no effect, probe agents alone."""

CASE_FIELDS = ("by", "alpha", "kind", "number", "demand_ratio", "near_limit")

Forecasts = Float[np.ndarray, "origin ahead resource"]


def map_forecast(
    learned: LearnedMap,
    rolled: MapRollout,
    pop_window: PopulationWindow,
    index: CohortIndex,
    prices: Float[Array, "week resource"],
    sizes: ShiftSizes,
    *,
    probes_alone: bool = False,
) -> Forecasts:
    """Forecast the weeks after every origin with a map [units of resource].

    Args:
        learned: a primal map.
        rolled: the simulation; only what is known at each origin is read.
        pop_window: the population.
        index: the cohort whose histories are read.
        prices: announced [money per unit of resource].
        sizes: with the origins.
        probes_alone: return the use of the map's probe agents, without anything learned.
    """
    network = None if probes_alone else learned.network
    parts = (network, learned.scaling, rolled, pop_window, index, jnp.asarray(prices), learned.shape)
    return np.asarray(_forecast(*parts, sizes.known, sizes.origins, sizes.spacing), float)


@eqx.filter_jit
def _forecast(
    network: MapNetwork | None,
    scaling: FeatureScaling,
    rolled: MapRollout,
    pop_window: PopulationWindow,
    index: CohortIndex,
    prices: Float[Array, "week resource"],
    shape: MapShape,
    weeks: int,
    origins: int,
    spacing: int,
) -> Float[Array, "origin ahead resource"]:
    example = make_example(rolled, pop_window, index, prices, shape, weeks, origins, spacing)
    if network is not None:
        relative = network.utilization(network.encode(scaling(example.inputs), spacing), example.prices)
    else:
        assert example.inputs.probes is not None  # only maps with probe agents get here
        relative = example.inputs.probes.use(example.prices)
    return relative * rolled.units.use[None, None, :]


def simulated_forecast(
    agent_pool: AgentPool, case: ShiftCase, policy: Policy, sizes: ShiftSizes, draws: int, random: np.random.Generator
) -> Float[np.ndarray, "draw origin ahead resource"]:
    """Simulate scenarios after each origin from the true state of all agents: nearly a bound on forecasts.

    Demand, forecasts and lead times of the coming weeks are bootstrapped; prices are known, as to a map.

    Returns:
        Utilization in each of `draws` scenarios [units of resource].
    """
    forecasts, prices, before = [], np.asarray(case.prices), 0
    issued = price_windows(prices)
    population, state = case.pop_window.population, case.pop_window.initial
    for week in sizes.origin_weeks:
        past = jax.tree.map(lambda leaf, rows=slice(before, week): leaf[rows], case.pop_window.exogenous)
        state = _simulate(population, past, policy, state, issued[before:week], prices[before])[1]
        plan = price_windows(prices[: week + SPAN])[week:]
        bootstrap = ScenarioBootstrap(agent_pool, case.agents, case.start + int(week))
        uses = [
            _simulate(population, bootstrap.sample(random), policy, state, plan, prices[week])[0] for _ in range(draws)
        ]
        forecasts.append(np.stack([np.asarray(use, float)[1:] for use in uses]))
        before = int(week)
    return np.stack(forecasts, axis=1)


def price_windows(prices: Float[np.ndarray, "week resource"]) -> Float[np.ndarray, "week ahead resource"]:
    """Return the prices of the weeks after each week; the last price holds."""
    weeks = len(prices)
    return prices[np.minimum(np.arange(weeks)[:, None] + np.arange(1, SPAN)[None, :], weeks - 1)]


@eqx.filter_jit
def _simulate(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    state: State,
    issued: Float[np.ndarray, "week ahead resource"] | Float[Array, "week ahead resource"],
    first: Float[np.ndarray, " resource"] | Float[Array, " resource"],
) -> tuple[Float[Array, "week resource"], State]:
    issued, setup = jnp.asarray(issued), prepare(population, exogenous, policy, state, values=False)
    charged = jnp.concatenate([jnp.asarray(first)[None], issued[:-1, 0]])
    ahead = np.minimum(np.arange(window_length(policy, state.max_lead) - 1), issued.shape[1] - 1)
    windows = jnp.concatenate([charged[:, None], issued[:, ahead]], axis=1)
    rollout = run_setup(replace(setup, windows=windows), charged)
    return rollout.totals.utilization, rollout.final


@dataclass(frozen=True, eq=False)
class MapEvaluation:
    """All forecasts of a case beside realised use.

    Attributes:
        case: by, alpha, kind, number, demand ratio, near-limit share.
        scale: S(P), by which populations of different size are compared [units of resource].
        realised: utilization of the weeks after each origin [units of resource].
        priced: whether a price was charged in these weeks.
        forecasts: of the same weeks, by name.
        futures: in each scenario; None where none was simulated.
    """

    case: Mapping[str, str | float | int | None]
    scale: Float[np.ndarray, " resource"]
    realised: Forecasts
    priced: Bool[np.ndarray, "origin ahead resource"]
    forecasts: Mapping[str, Forecasts]
    futures: Float[np.ndarray, "draw origin ahead resource"] | None


def evaluate_map(
    agent_pool: AgentPool,
    case: ShiftCase,
    policy: Policy,
    maps: Mapping[str, LearnedMap],
    sizes: ShiftSizes,
    *,
    cohort: int,
    draws: int,
    seed: int = 0,
) -> MapEvaluation:
    """Forecast a case with every map, by probe agents, by expected demand and, if `draws`, by simulation."""
    forecasts = {}
    population, pop_window = case.pop_window.population, case.pop_window
    slices = (sizes.known, sizes.origins, sizes.spacing)
    for name, learned in maps.items():
        index = index_sample(population, learned, cohort, np.random.default_rng([seed, case.number]))
        parts = (learned, case.rolled, pop_window, index, case.prices, sizes)
        forecasts[name] = map_forecast(*parts)
        if learned.shape.n_probes and PROBES not in forecasts:
            forecasts[PROBES] = map_forecast(*parts, probes_alone=True)
    forecasts[EXPECTED] = np.asarray(pop_window.expected_use[sizes.origin_weeks, 1:], float)
    futures = None
    if draws:
        random = np.random.default_rng([seed, case.number, 0xF07])
        futures = simulated_forecast(agent_pool, case, policy, sizes, draws, random)
        forecasts[SIMULATION] = futures.mean(0)
    scale = np.asarray(units_of(population).use, float)
    fields = {name: getattr(case, name) for name in CASE_FIELDS}
    priced = np.asarray(horizon_slices(case.prices, *slices)) > 0
    realised = np.asarray(horizon_slices(case.rolled.utilization, *slices), float)
    return MapEvaluation(fields, scale, realised, priced, forecasts, futures)
