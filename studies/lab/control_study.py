"""Figures of control: capacities kept by populations of low, baseline and high demand; diagnostics of trained maps.

Diagnostics are the terms of the dual loss (of `walras.train.dual_task`), and the cycle F(G(K)): prices of a dual map
for a capacity, the use that a primal map forecasts under them, and the use that is simulated.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lab.capacity_benchmark import (
    COMPOSITIONS,
    QUICK,
    BenchmarkCase,
    BenchmarkPopulation,
    BenchmarkSizes,
    CapacityBenchmark,
)
from lab.capacity_families import unseen_families
from lab.controllers import ControlMethod, DualMapController, NoControl, ProportionalRationing
from lab.evaluate_control import CLAIRVOYANT, ClairvoyantBound, MethodMetrics, evaluate
from lab.forecast_study import BASELINE
from lab.results import path_interval
from lab.runner import Part, parts_under
from walras.errors import SettingsError
from walras.maps.closed_loop import DualMap
from walras.maps.features import HORIZON, MapInputs
from walras.maps.file import LearnedMap
from walras.maps.network import MapNetwork
from walras.maps.representations import REPRESENTATIONS
from walras.maps.rollout import inputs_of, roll_out
from walras.planning.prices.dual_ascent import ProjectedDual
from walras.policies.base import Policy
from walras.policies.base_stock import PricedNewsvendor
from walras.train.agent_pool import AgentPool
from walras.train.dual_task import DualExample, episode_terms

QUICK_BOUND = ClairvoyantBound(ceilings=(2.0,), ascent_steps=15, solver=ProjectedDual(max_queries=150))
"""One start, fewer steps: a tenth of the time."""

UNSEEN_PATHS, UNSEEN_PATHS_QUICK = 20, 2
"""Paths of each capacity family that training never sees."""

TERM_PATHS, TERM_ORIGINS = 6, 3
"""Paths on which the terms of the dual loss are measured, and weeks of each from which plans are followed."""

TERMS = ("violation", "price", "consistency")
"""The terms of the dual loss."""

PRICED = 0.1
"""A softplus is never zero: a week counts as priced from this share of the mean price on."""


def control_parts(
    agent_pool: AgentPool,
    duals: Mapping[str, LearnedMap],
    primal: LearnedMap | None = None,
    *,
    quick: bool = False,
    policy: Policy | None = None,
    sizes: BenchmarkSizes | None = None,
    unseen: bool = True,
) -> dict[str, Part]:
    """Return the parts of the control study.

    Args:
        agent_pool: held out.
        duals: dual maps by name.
        primal: for the cycle; None leaves it out.
        quick: few paths of small populations, one start of the bound.
        policy: of the agents; default the priced newsvendor.
        sizes: of the cases, default those of `quick`.
        unseen: also use families of capacity paths that training never sees.
    """
    policy = policy or PricedNewsvendor()
    sizes = sizes or (QUICK if quick else BenchmarkSizes())
    methods: list[ControlMethod] = [NoControl(), ProportionalRationing()]
    methods += [DualMapController(name, dual) for name, dual in duals.items()]
    bound = QUICK_BOUND if quick else ClairvoyantBound()
    benchmarks = {name: CapacityBenchmark(agent_pool, policy, alpha, sizes) for name, alpha in COMPOSITIONS.items()}
    few = min(sizes.paths, UNSEEN_PATHS_QUICK if quick else UNSEEN_PATHS)
    base = benchmarks["baseline"]

    def composition(benchmark: CapacityBenchmark) -> dict[str, Any]:
        return {"mean_demand_ratio": benchmark.demand_ratio, **method_figures(benchmark, methods, bound)}

    parts: dict[str, Part] = {f"control:{name}": partial(composition, each) for name, each in benchmarks.items()}
    for name, family in unseen_families().items() if unseen else ():
        parts[f"unseen:{name}"] = partial(method_figures, base.with_family(family, few), methods, bound)
    if duals:
        parts["terms"] = lambda: term_figures(base, duals)
    if primal is not None:
        short = base.with_family(base.family, min(sizes.paths, UNSEEN_PATHS))
        parts["cycle"] = lambda: {name: cycle_figures(short, primal, dual) for name, dual in duals.items()}
    return parts


def control_figures(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Combine measured parts."""
    return {
        "populations": parts_under(parts, "control"),
        "unseen_families": parts_under(parts, "unseen"),
        "loss_terms": parts.get("terms", {}),
        "cycle": parts.get("cycle", {}),
    }


def method_figures(
    benchmark: CapacityBenchmark, methods: Sequence[ControlMethod], bound: ClairvoyantBound
) -> dict[str, Any]:
    """Run methods on a benchmark; return all measures by method, and differences of maps to `BASELINE` by path."""
    results = evaluate(benchmark.cases(), methods, bound)
    names = [*(method.name for method in methods), CLAIRVOYANT]
    metrics = {name: MethodMetrics.of(results, name, benchmark.sizes.burn_in) for name in names}
    figures: dict[str, Any] = {"methods": {name: each.summary for name, each in metrics.items()}}
    if BASELINE in metrics:
        maps = [name for name in metrics if name.partition("+")[0] in REPRESENTATIONS and name != BASELINE]
        figures["less_global"] = {name: metrics[name].less(metrics[BASELINE]) for name in maps}
    return figures


def term_figures(benchmark: CapacityBenchmark, duals: Mapping[str, LearnedMap]) -> dict[str, Any]:
    """Return the terms of the dual loss by map with intervals, on the first few cases."""
    few = benchmark.with_family(benchmark.family, min(benchmark.sizes.paths, TERM_PATHS))
    terms = loss_terms(few.cases(), duals, benchmark.sizes.burn_in)
    return {name: {term: path_interval(values) for term, values in row.items()} for name, row in terms.items()}


def cycle_figures(benchmark: CapacityBenchmark, primal: LearnedMap, dual: LearnedMap) -> dict[str, Any]:
    """Return how far the use forecast at the prices of a capacity is from the simulated one, over paths."""
    values = cycle_values([cycle_error(case, primal, dual) for case in benchmark.cases()])
    return {name: path_interval(each) for name, each in values.items()}


def loss_terms(
    cases: Iterable[BenchmarkCase], maps: Mapping[str, LearnedMap], burn_in: int
) -> dict[str, dict[str, Float[np.ndarray, " path"]]]:
    """Measure the unweighted terms of the dual loss of several maps on the same cases.

    Returns:
        Name -> term -> value by path.
    """
    values: dict[str, dict[str, list[float]]] = {name: {term: [] for term in TERMS} for name in maps}
    for case in cases:
        for name, dual in maps.items():
            network = DualMap(dual.network, dual.scaling)
            terms = _episode_terms(_dual_example(case, dual), case.episode.policy, network, burn_in)
            for term in TERMS:
                values[name][term].append(float(terms[term]))
    return {name: {term: np.array(each) for term, each in terms.items()} for name, terms in values.items()}


@eqx.filter_jit
def _episode_terms(example: DualExample, policy: Policy, dual: DualMap, burn_in: int) -> dict[str, Float[Array, ""]]:
    return episode_terms(example, policy, dual, burn_in)[0]


def _require_horizon(weeks: int, needed: int) -> None:
    if weeks < needed:
        raise SettingsError(f"the case has {weeks} coordinated weeks but {needed} are needed; use longer cases")


def _dual_example(case: BenchmarkCase, dual: LearnedMap) -> DualExample:
    last = len(case.capacity) - HORIZON - 1
    _require_horizon(len(case.capacity), HORIZON + 1)
    origins = np.linspace(0, last, TERM_ORIGINS).astype(np.int32)
    return DualExample(case.episode.pop_window, case.episode.cohort_index(dual), case.target, jnp.asarray(origins))


@dataclass(frozen=True, eq=False)
class CycleError:
    """Capacity, prices, forecast and simulated use of the weeks after the first coordinated one.

    Attributes:
        capacity: K [units of resource].
        shadow_prices: G(K) [money per unit of resource].
        forecast: F(G(K)) [units of resource].
        utilization: simulated under G(K), announced in full [units of resource].
    """

    capacity: Float[np.ndarray, "ahead resource"]
    shadow_prices: Float[np.ndarray, "ahead resource"]
    forecast: Float[np.ndarray, "ahead resource"]
    utilization: Float[np.ndarray, "ahead resource"]


def cycle_error(case: BenchmarkCase, primal: LearnedMap, dual: LearnedMap) -> CycleError:
    """Query the dual map for prices once, and the primal map for the use under them."""
    episode, weeks = case.episode, len(case.capacity)
    _require_horizon(weeks, HORIZON + 1)
    coming = case.capacity[1 : HORIZON + 1]
    inputs, use, price = _inputs(episode, dual)
    capacity = jnp.asarray(coming, jnp.float32)[None] / use[None, None, :]
    prices = _query(dual.network, dual.scaling(inputs), capacity, MapNetwork.shadow_prices)
    inputs, _, _ = _inputs(episode, primal)
    forecast = _query(primal.network, primal.scaling(inputs), prices, MapNetwork.utilization)
    issued = np.asarray(prices[0] * price[None, :], float)
    announced = np.concatenate([np.zeros((1, issued.shape[1])), issued, np.repeat(issued[-1:], weeks - HORIZON - 1, 0)])
    simulated = episode.respond(announced).utilization[1 : HORIZON + 1]
    return CycleError(coming, issued, np.asarray(forecast[0] * use[None, :], float), simulated)


def _inputs(episode: BenchmarkPopulation, learned: LearnedMap) -> tuple[MapInputs, Array, Array]:
    """Return the inputs of a map in the first coordinated week, and the population's units of use and price."""
    no_prices = jnp.zeros((episode.pop_window.n_weeks, len(episode.pop_window.population.resources)))
    rolled = roll_out(episode.pop_window, episode.policy, no_prices)
    index, reads_agents = episode.cohort_index(learned), learned.network.agents is not None
    inputs = inputs_of(rolled, episode.pop_window, index, episode.first + 1, 1, reads_agents=reads_agents)
    return inputs, rolled.units.use, rolled.units.price


@eqx.filter_jit
def _query(network: MapNetwork, inputs: MapInputs, signal: Array, head: Any) -> Array:
    return head(network, network.encode(inputs), signal)


def cycle_values(cycles: Sequence[CycleError]) -> dict[str, Float[np.ndarray, " path"]]:
    """Return measures of cycles by path.

    `cycle_mape` is mean `|F(G(K)) - U| / U`; `planned_excess` mean `max(F - K, 0) / K`; `simulated_excess` the same
    of U; `priced_gap` mean `|F - K| / K` over weeks whose price is above `PRICED` of the mean price.
    """
    rows = [_cycle_measures(cycle.capacity, cycle.shadow_prices, cycle.forecast, cycle.utilization) for cycle in cycles]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _cycle_measures(
    capacity: np.ndarray, prices: np.ndarray, forecast: np.ndarray, use: np.ndarray
) -> dict[str, float]:
    gap, priced = np.abs(forecast - capacity) / capacity, prices > PRICED * prices.mean()
    return {
        "cycle_mape": float((np.abs(forecast - use) / np.maximum(use, 1e-9)).mean()),
        "planned_excess": float((np.maximum(forecast - capacity, 0.0) / capacity).mean()),
        "simulated_excess": float((np.maximum(use - capacity, 0.0) / capacity).mean()),
        "priced_gap": float(gap[priced].mean()) if priced.any() else 0.0,
    }
