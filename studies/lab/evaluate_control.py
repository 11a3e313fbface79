"""Evaluation of control methods on a benchmark: violation, its cost, price accuracy, work, and a clairvoyant bound.

Studies and reports read the measures by name; every interval is over paths.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from lab.capacity_benchmark import BenchmarkCase, ComputeCost, ControlOutcome
from lab.controllers import ControlMethod
from lab.metrics import PRICE_MEASURES, price_values
from walras.errors import InputError
from walras.evaluation.inference import mean_interval
from walras.evaluation.metrics import (
    CONTROL_MEASURES,
    REWARD_MEASURES,
    ControlTally,
    RewardTally,
    control_tally,
    reward_tally,
)
from walras.planning.prices.dual_ascent import AbstractDualSolver, ProjectedDual
from walras.planning.prices.oracle import PathOutcome, oracle
from walras.planning.prices.simulated_view import SimulatedView

OVERFLOW_PRICE = 2.0
"""Cost of a unit beyond the limit where searches of the bound are compared [price scales]."""

CLAIRVOYANT = "clairvoyant"
"""Name of the bound's own row."""

KEPT_TO = 1e-2
"""Weeks in which the bound's use exceeds capacity by more than this share have no price to compare with."""

WORK_MEASURES = ("simulations", "queries", "seconds")
"""Work per coordinated week (`ComputeCost`)."""

ALL_MEASURES = (*CONTROL_MEASURES, *REWARD_MEASURES, *PRICE_MEASURES, "oracle_beyond", *WORK_MEASURES)
"""Every measure of the table."""

NEVER_NEGATIVE = (
    *(measure for measure in CONTROL_MEASURES if measure != "avoidable_violation"),
    "mean_price",
    "oracle_beyond",
    *WORK_MEASURES,
)
"""Measures whose interval is cut at 0."""


@dataclass(frozen=True)
class ClairvoyantBound:
    """Prices with the most reward within a limit, with the future known: several searches, the best one per path.

    Isolated price spikes shift orders into the preceding week, and late arrivals then refill the spiked week. This is a
    local optimum that a search cannot leave, hence several price caps, and a start at the prices that a method charged.

    Attributes:
        ceilings: highest price of each search from 0, in price scales.
        ascent_steps: of each search, see `walras.planning.prices.oracle.oracle`.
        solver: of each search; on these cases Newton steps hardly ever converge, and projected steps alone find the
            same prices in a third of the time.
    """

    ceilings: tuple[float, ...] = (4.0, 1.5)
    ascent_steps: int = 60
    solver: AbstractDualSolver = field(default_factory=ProjectedDual)

    def outcomes(self, case: BenchmarkCase, others: Sequence[ControlOutcome]) -> list[ControlOutcome]:
        """Coordinate at the case's capacity, and at equal violation with each other method: at max(K, U).

        Returns:
            One outcome for the capacity and one for each of the others; all searches share their seconds.
        """
        limit = np.stack([case.capacity, *(np.maximum(case.capacity, other.utilization) for other in others)])
        charged = np.stack([np.zeros_like(case.capacity), *(other.shadow_prices for other in others)])
        started = time.perf_counter()
        view = case.episode.view(len(limit))
        searches = [oracle(view, limit, charged, solver=self.solver, ascent_steps=self.ascent_steps)]
        for ceiling in self.ceilings:
            view.max_price = ceiling * view.price_scale
            searches.append(oracle(view, limit, solver=self.solver, ascent_steps=self.ascent_steps))
        best = np.argmax([_merit(view, limit, search) for search in searches], axis=0)
        seconds = (time.perf_counter() - started) / len(limit)
        work = ComputeCost(simulations=sum(search.simulations for search in searches), seconds=seconds)
        return [
            ControlOutcome(found.utilization[path], float(found.reward[path]), found.shadow_prices[path], work)
            for path, found in enumerate(searches[number] for number in best)
        ]


def _merit(
    view: SimulatedView, limit: Float[np.ndarray, "path week resource"], found: PathOutcome
) -> Float[np.ndarray, " path"]:
    excess = np.maximum(found.utilization - limit, 0.0).sum((1, 2))
    return found.reward - OVERFLOW_PRICE * view.price_scale * excess


@dataclass(frozen=True, eq=False)
class CaseResult:
    """One case under every method, and the clairvoyant bound.

    Attributes:
        capacity, committed: of the case [units of resource].
        free: outcome without prices.
        price_scale: median unit margin of its population [money per unit of resource].
        outcomes: by method.
        best: under the bound's prices at the case's capacity.
        at_equal: reward of the bound at equal violation with each method [money].
        beyond: mean share by which that bound's use still exceeds max(K, U), because no better prices were found.
    """

    capacity: Float[np.ndarray, "week resource"]
    committed: Float[np.ndarray, "week resource"]
    free: ControlOutcome
    price_scale: float
    outcomes: Mapping[str, ControlOutcome]
    best: ControlOutcome
    at_equal: Mapping[str, float]
    beyond: Mapping[str, float]


def evaluate(
    cases: Iterable[BenchmarkCase],
    methods: Sequence[ControlMethod],
    bound: ClairvoyantBound | None = None,
    on_path: Callable[[BenchmarkCase], None] | None = None,
) -> list[CaseResult]:
    """Run every method on every case, and compute the bound.

    Args:
        cases: drawn one by one.
        methods: their names must differ.
        bound: settings of its search.
        on_path: called after every case.
    """
    names = [method.name for method in methods]
    if len({*names, CLAIRVOYANT}) <= len(names):
        raise InputError(f"methods are called {', '.join(names)}, but names must differ; `{CLAIRVOYANT}` is reserved")
    results = []
    for case in cases:
        results.append(_evaluate_case(case, methods, bound or ClairvoyantBound()))
        if on_path is not None:
            on_path(case)
    return results


def _evaluate_case(case: BenchmarkCase, methods: Sequence[ControlMethod], bound: ClairvoyantBound) -> CaseResult:
    outcomes = {method.name: method.run(case) for method in methods}
    free = case.episode.free
    # At the violation without prices, no prices are optimal.
    priced = [name for name, outcome in outcomes.items() if outcome is not free]
    best, *others = bound.outcomes(case, [outcomes[name] for name in priced])
    at_equal, beyond = {name: free.reward for name in outcomes}, dict.fromkeys(outcomes, 0.0)
    for name, other in zip(priced, others, strict=True):
        limit = np.maximum(case.capacity, outcomes[name].utilization)
        at_equal[name] = other.reward
        beyond[name] = float((np.maximum(other.utilization - limit, 0.0) / limit).mean())
    outcomes[CLAIRVOYANT], at_equal[CLAIRVOYANT], beyond[CLAIRVOYANT] = best, best.reward, 0.0
    episode = case.episode
    return CaseResult(case.capacity, episode.committed, free, episode.price_scale, outcomes, best, at_equal, beyond)


@dataclass(frozen=True, eq=False)
class MethodMetrics:
    """The measures of one method over cases.

    Attributes:
        control, reward: tallies.
        prices: measure -> path -> value.
        beyond: path -> `oracle_beyond`, violation of the bound beyond the method's; 0 where they compare fairly.
        work: measure -> path -> value, per coordinated week.
    """

    control: ControlTally
    reward: RewardTally
    prices: Mapping[str, Mapping[int, float]]
    beyond: Mapping[int, float]
    work: Mapping[str, Mapping[int, float]]

    @staticmethod
    def of(results: Sequence[CaseResult], method: str, burn_in: int) -> "MethodMetrics":
        """Measure a method."""
        outcomes = [result.outcomes[method] for result in results]
        free, best = [result.free for result in results], [result.best for result in results]
        prices, best_use = _stack(outcomes, "shadow_prices"), _stack(best, "utilization")
        capacity = np.stack([result.capacity for result in results])
        committed = np.stack([result.committed for result in results])
        scale = np.array([result.price_scale for result in results])
        use = (_stack(outcomes, "utilization"), _stack(free, "utilization"), capacity, committed)
        # In price scales of each path's own population, so that paths add up.
        tally = control_tally(*use, prices / scale[:, None, None], burn_in, price_scale=1.0)
        reward = reward_tally(
            [outcome.reward for outcome in outcomes],
            [result.at_equal[method] for result in results],
            [outcome.reward for outcome in free],
        )
        counted = best_use <= (1.0 + KEPT_TO) * capacity
        accuracy = price_values(prices, _stack(best, "shadow_prices"), scale, burn_in, counted=counted)
        beyond = {path: result.beyond[method] for path, result in enumerate(results)}
        return MethodMetrics(tally, reward, accuracy, beyond, _work_per_week(outcomes))

    def path_values(self, measure: str) -> Mapping[int, float]:
        """Return path -> value, whose mean is the measure."""
        if measure in CONTROL_MEASURES:
            return self.control.path_values(measure)
        if measure == "oracle_beyond":
            return self.beyond
        if measure in WORK_MEASURES:
            return self.work[measure]
        return self.reward.path_values(measure) if measure in REWARD_MEASURES else self.prices[measure]

    @cached_property
    def summary(self) -> dict[str, dict[str, float | int | None]]:
        """Measure -> estimate, low, high (95 % over paths) and number of paths on which it is defined."""
        table = {measure: _summarise(list(self.path_values(measure).values())) for measure in ALL_MEASURES}
        for measure in NEVER_NEGATIVE:
            if table[measure]["low"] is not None:
                table[measure]["low"] = max(table[measure]["low"], 0.0)
        return table

    def less(self, other: "MethodMetrics") -> dict[str, dict[str, float | int | None]]:
        """Return the paired difference to another method on the same paths by measure."""
        table = {}
        for measure in ALL_MEASURES:
            ours, theirs = self.path_values(measure), other.path_values(measure)
            table[measure] = _summarise([ours[path] - theirs[path] for path in ours if path in theirs])
        return table


def _stack(outcomes: Sequence[ControlOutcome], name: str) -> Float[np.ndarray, "path week resource"]:
    return np.stack([getattr(outcome, name) for outcome in outcomes])


def _work_per_week(outcomes: Sequence[ControlOutcome]) -> dict[str, dict[int, float]]:
    return {
        measure: {path: getattr(each.work, measure) / len(each.utilization) for path, each in enumerate(outcomes)}
        for measure in WORK_MEASURES
    }


def _summarise(values: Sequence[float]) -> dict[str, Any]:
    if len(values) < 2:
        return {"estimate": values[0] if values else None, "low": None, "high": None, "paths": len(values)}
    interval = mean_interval(values)
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high, "paths": len(values)}
