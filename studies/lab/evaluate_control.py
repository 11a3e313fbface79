"""Own the judgement of methods on the cases of a fixed plan: violation, what it cost, and how good the prices were.

CONTRACT: studies and reports read the measures by name; every interval is over paths.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from lab.capacity_benchmark import BenchmarkCase, ControlOutcome
from lab.clairvoyant_bound import ClairvoyantBound
from lab.controllers import AbstractController
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

CLAIRVOYANT = "clairvoyant"
"""Name of the oracle's own row."""

KEPT_TO = 1e-2
"""Weeks in which the oracle's use exceeds capacity by more than this share have no price to compare with."""

WORK_MEASURES = ("simulations", "queries", "seconds")
"""What deciding took, each per coordinated week (`fixed_plan.Work`)."""

ALL_MEASURES = (*CONTROL_MEASURES, *REWARD_MEASURES, *PRICE_MEASURES, "oracle_beyond", *WORK_MEASURES)
"""Every measure of the table."""

NEVER_NEGATIVE = (
    *(measure for measure in CONTROL_MEASURES if measure != "avoidable_violation"),
    "mean_price",
    "oracle_beyond",
    *WORK_MEASURES,
)
"""Measures whose interval is cut at 0."""


@dataclass(frozen=True, eq=False)
class CaseResult:
    """Hold what came about in one case under every method, and what foresight would have done.

    Attributes:
        capacity, committed: of the case [units of resource].
        free: without prices.
        price_scale: median unit margin of its population [money per unit of resource].
        kept: under each method.
        best: under the oracle's prices at the case's capacity.
        at_equal: reward of the oracle at equal violation with each method [money].
        beyond: mean share by which that oracle's use exceeds max(K, U) after all: it could not find better prices.
    """

    capacity: Float[np.ndarray, "week resource"]
    committed: Float[np.ndarray, "week resource"]
    free: ControlOutcome
    price_scale: float
    kept: Mapping[str, ControlOutcome]
    best: ControlOutcome
    at_equal: Mapping[str, float]
    beyond: Mapping[str, float]


def evaluate(
    cases: Iterable[BenchmarkCase],
    keepers: Sequence[AbstractController],
    foresight: ClairvoyantBound | None = None,
    on_path: Callable[[BenchmarkCase], None] | None = None,
) -> list[CaseResult]:
    """Let every method go through every case, and look up what foresight would have done.

    Args:
        cases: drawn one after the other.
        keepers: the methods; their names must differ.
        foresight: how hard the oracle searches.
        on_path: told after every case.
    """
    names = [keeper.name for keeper in keepers]
    if len({*names, CLAIRVOYANT}) <= len(names):
        raise InputError(f"methods are called {', '.join(names)} but names must differ; `{CLAIRVOYANT}` is taken")
    found = []
    for case in cases:
        found.append(_judged(case, keepers, foresight or ClairvoyantBound()))
        if on_path is not None:
            on_path(case)
    return found


def _judged(case: BenchmarkCase, keepers: Sequence[AbstractController], foresight: ClairvoyantBound) -> CaseResult:
    kept = {keeper.name: keeper.keep(case) for keeper in keepers}
    free = case.scene.free
    # At the violation of no prices at all, no prices are the answer.
    asked = [name for name, outcome in kept.items() if outcome is not free]
    best, *others = foresight.of(case, [kept[name] for name in asked])
    at_equal, beyond = {name: free.reward for name in kept}, dict.fromkeys(kept, 0.0)
    for name, other in zip(asked, others, strict=True):
        limit = np.maximum(case.capacity, kept[name].utilization)
        at_equal[name] = other.reward
        beyond[name] = float((np.maximum(other.utilization - limit, 0.0) / limit).mean())
    kept[CLAIRVOYANT], at_equal[CLAIRVOYANT], beyond[CLAIRVOYANT] = best, best.reward, 0.0
    scene = case.scene
    return CaseResult(case.capacity, scene.committed, free, scene.price_scale, kept, best, at_equal, beyond)


@dataclass(frozen=True, eq=False)
class MethodMetrics:
    """Hold the measures of one method over cases.

    Attributes:
        control, reward: what adds up.
        prices: measure -> path -> value.
        beyond: path -> `oracle_beyond`, the violation that the oracle has over the method's: 0 where they are fairly
            compared.
        work: measure -> path -> value, per coordinated week.
    """

    control: ControlTally
    reward: RewardTally
    prices: Mapping[str, Mapping[int, float]]
    beyond: Mapping[int, float]
    work: Mapping[str, Mapping[int, float]]

    @staticmethod
    def of(judged: Sequence[CaseResult], method: str, burn_in: int) -> "MethodMetrics":
        """Measure a method.

        Args:
            judged: cases, one path each.
            method: name of the method, or `CLAIRVOYANT`.
            burn_in: first coordinated weeks that are not judged; rewards are of all weeks.
        """
        kept = [each.kept[method] for each in judged]
        use, prices = _stack(kept, "utilization"), _stack(kept, "shadow_prices")
        free, best = [each.free for each in judged], [each.best for each in judged]
        capacity = np.stack([each.capacity for each in judged])
        committed = np.stack([each.committed for each in judged])
        scale = np.array([each.price_scale for each in judged])
        # In price scales of each path's own population, so that paths add up.
        tally = control_tally(
            use,
            _stack(free, "utilization"),
            capacity,
            committed,
            prices / scale[:, None, None],
            burn_in,
            price_scale=1.0,
        )
        reward = reward_tally(
            [each.reward for each in kept],
            [each.at_equal[method] for each in judged],
            [each.reward for each in free],
        )
        counted = _stack(best, "utilization") <= (1.0 + KEPT_TO) * capacity
        accuracy = price_values(prices, _stack(best, "shadow_prices"), scale, burn_in, counted=counted)
        beyond = {path: each.beyond[method] for path, each in enumerate(judged)}
        return MethodMetrics(tally, reward, accuracy, beyond, _work(kept))

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
        """Return measure -> estimate, low, high (95 % over paths) and number of paths that say something about it."""
        found = {measure: _summary(list(self.path_values(measure).values())) for measure in ALL_MEASURES}
        for measure in NEVER_NEGATIVE:
            if found[measure]["low"] is not None:
                found[measure]["low"] = max(found[measure]["low"], 0.0)
        return found

    def less(self, other: "MethodMetrics") -> dict[str, dict[str, float | int | None]]:
        """Return the paired difference to another method on the same paths, measure by measure."""
        found = {}
        for measure in ALL_MEASURES:
            ours, theirs = self.path_values(measure), other.path_values(measure)
            found[measure] = _summary([ours[path] - theirs[path] for path in ours if path in theirs])
        return found


def _stack(kept: Sequence[ControlOutcome], name: str) -> Float[np.ndarray, "path week resource"]:
    return np.stack([getattr(each, name) for each in kept])


def _work(kept: Sequence[ControlOutcome]) -> dict[str, dict[int, float]]:
    def per_week(measure: str) -> dict[int, float]:
        return {path: getattr(each.work, measure) / len(each.utilization) for path, each in enumerate(kept)}

    return {measure: per_week(measure) for measure in WORK_MEASURES}


def _summary(values: Sequence[float]) -> dict[str, Any]:
    if len(values) < 2:
        return {"estimate": values[0] if values else None, "low": None, "high": None, "paths": len(values)}
    interval = mean_interval(values)
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high, "paths": len(values)}
