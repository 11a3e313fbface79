"""Own two checks of trained maps on the cases of a fixed plan: the terms of the dual loss, and the cycle F(G(K)).

FREE: the loss itself is `train.dual`, the cases are `control.fixed_plan`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lab.capacity_benchmark import BenchmarkCase, BenchmarkPopulation
from walras.errors import SettingsError
from walras.maps.closed_loop import DualMap
from walras.maps.features import HORIZON, MapInputs
from walras.maps.file import LearnedMap
from walras.maps.network import MapNetwork
from walras.maps.rollout import inputs_of, roll_out
from walras.policies.base import Policy
from walras.train.dual_task import DualExample, episode_terms

TERMS = ("violation", "price", "consistency")
"""The terms of the dual loss (spec eq. 10)."""

ORIGINS_OF_TERMS = 3
"""Weeks of a case from which it is looked how well plans were kept, as evenly spread as fits."""


def loss_terms(
    cases: Iterable[BenchmarkCase], maps: Mapping[str, LearnedMap], burn_in: int
) -> dict[str, dict[str, Float[np.ndarray, " path"]]]:
    """Measure the three terms of the dual loss, unweighted, for several maps on the same cases.

    Args:
        cases: at least `HORIZON` + 2 coordinated weeks each.
        maps: dual maps by name, e.g. by the term that was left out when each was trained.
        burn_in: first coordinated weeks that do not count.

    Returns:
        Name -> term -> its value on every path.
    """
    found: dict[str, dict[str, list[float]]] = {name: {term: [] for term in TERMS} for name in maps}
    for case in cases:
        for name, dual in maps.items():
            values = _terms(_lesson(case, dual), case.scene.policy, DualMap(dual.network, dual.scaling), burn_in)
            for term in TERMS:
                found[name][term].append(float(values[term]))
    return {name: {term: np.array(values) for term, values in terms.items()} for name, terms in found.items()}


@eqx.filter_jit
def _terms(lesson: DualExample, policy: Policy, dual: DualMap, burn_in: int) -> dict[str, Float[Array, ""]]:
    return episode_terms(lesson, policy, dual, burn_in)[0]


def _lesson(case: BenchmarkCase, dual: LearnedMap) -> DualExample:
    last = len(case.capacity) - HORIZON - 1
    if last < 0:
        raise SettingsError(
            f"the cases have {len(case.capacity)} coordinated weeks but {HORIZON + 1} are needed to see whether plans "
            "are kept; draw longer ones"
        )
    origins = np.linspace(0, last, ORIGINS_OF_TERMS).astype(np.int32)
    return DualExample(case.scene.stretch, case.scene.readers(dual), case.plan, jnp.asarray(origins))


@dataclass(frozen=True, eq=False)
class CycleError:
    """Hold the plan that maps make for the weeks after the first coordinated one, and what becomes of it.

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
    """Ask the dual map for prices once, and the primal map for the use under them."""
    scene = case.scene
    weeks = len(case.capacity)
    if weeks < HORIZON + 1:
        raise SettingsError(
            f"the case has {weeks} coordinated weeks but maps answer for {HORIZON} after the first; draw longer ones"
        )
    coming = case.capacity[1 : HORIZON + 1]
    inputs, use, price = _seen(scene, dual)
    given = jnp.asarray(coming, jnp.float32)[None] / use[None, None, :]
    prices = _asked(dual.network, dual.scaling(inputs), given, MapNetwork.shadow_prices)
    inputs, _, _ = _seen(scene, primal)
    forecast = _asked(primal.network, primal.scaling(inputs), prices, MapNetwork.utilization)
    issued = np.asarray(prices[0] * price[None, :], float)
    announced = np.concatenate([np.zeros((1, issued.shape[1])), issued, np.repeat(issued[-1:], weeks - HORIZON - 1, 0)])
    happened = scene.respond(announced).utilization[1 : HORIZON + 1]
    return CycleError(coming, issued, np.asarray(forecast[0] * use[None, :], float), happened)


def _seen(scene: BenchmarkPopulation, learned: LearnedMap) -> tuple[MapInputs, Array, Array]:
    """Return what a map reads in the first coordinated week, and the population's units."""
    quiet = jnp.zeros((scene.stretch.n_weeks, len(scene.stretch.population.resources)))
    rolled = roll_out(scene.stretch, scene.policy, quiet)
    readers, reads = scene.readers(learned), learned.network.agents is not None
    inputs = inputs_of(rolled, scene.stretch, readers, scene.first + 1, 1, reads_agents=reads)
    return inputs, rolled.units.use, rolled.units.price


@eqx.filter_jit
def _asked(network: MapNetwork, inputs: MapInputs, signal: Array, head: object) -> Array:
    return head(network, network.encode(inputs), signal)  # type: ignore[operator]


def cycle_values(cycles: Sequence[CycleError]) -> dict[str, Float[np.ndarray, " path"]]:
    """Return what is shown of the cycles, path by path.

    `cycle_mape` is mean `|F(G(K)) - U| / U`; `planned_excess` mean `max(F - K, 0) / K`; `simulated_excess` the same
    of U; `priced_gap` mean `|F - K| / K` over weeks whose price is above `PRICED` of the mean price.
    """
    return {name: np.array([measure(each) for each in cycles]) for name, measure in CYCLE_MEASURES.items()}


PRICED = 0.1
"""A softplus is never zero: a week counts as priced from this share of the mean price on."""


def _mape(each: CycleError) -> float:
    return float((np.abs(each.forecast - each.utilization) / np.maximum(each.utilization, 1e-9)).mean())


def _priced_gap(each: CycleError) -> float:
    priced = each.shadow_prices > PRICED * each.shadow_prices.mean()
    gap = np.abs(each.forecast - each.capacity) / each.capacity
    return float(gap[priced].mean()) if priced.any() else 0.0


CYCLE_MEASURES = {
    "cycle_mape": _mape,
    "planned_excess": lambda each: float((np.maximum(each.forecast - each.capacity, 0.0) / each.capacity).mean()),
    "simulated_excess": lambda each: float((np.maximum(each.utilization - each.capacity, 0.0) / each.capacity).mean()),
    "priced_gap": _priced_gap,
}
