"""Figures of forecasts: errors by shift, horizon and kind of prices; twins; cohorts."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import chdtri

from lab.eval_cohorts import CohortError, RepeatedPopulation, cohort_errors
from lab.eval_maps import SIMULATION, MapEvaluation, evaluate_map
from lab.metrics import ForecastErrors, TwinErrors, calibration_slope, forecast_errors, twin_errors
from lab.results import path_interval, round_digits
from lab.runner import Log, Part, parts_under
from lab.shift_cases import BY, ShiftCases, ShiftSizes
from lab.twins import KINDS, evaluate_twins
from walras.evaluation.inference import jackknife_interval, paired_interval
from walras.maps.file import LearnedMap
from walras.policies.base import Policy
from walras.train.agent_pool import AgentPool
from walras.train.map_task import DESIGNS

BASELINE = "global"
"""The map that others are compared with path by path."""

MODERATE = (0.5, 2.0)
"""Ratios of induced to baseline mean demand within which a shift counts as moderate."""

ALPHAS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)

Rows = Sequence[MapEvaluation]
Pairs = Sequence[tuple[MapEvaluation, MapEvaluation]]


@dataclass(frozen=True)
class ForecastBudget:
    """How much is measured.

    Attributes:
        sizes: of the populations.
        cohort: agents that maps read of each.
        alphas: by attribute.
        paths: cases of each attribute and alpha that training knows.
        few_paths: of the attributes that it does not shift.
        draws: simulated scenarios of each origin, for shifts by demand.
        twins, twin_agents: pairs of each kind, and agents of each twin.
        twin_kinds: kinds of twins.
        cohorts, repeats, draws_of_cohorts: cohort sizes, repetitions of the pool in the target, cohorts of each size.
        epoch_agents, epoch_rounds: agents of the timed training step, and how often it is timed.
        world_agents, world_weeks: of the generated pool.
        baseline: the map that others are compared with path by path.
    """

    sizes: ShiftSizes = field(default_factory=lambda: ShiftSizes(target=20_000, sample=2000))
    cohort: int = 2000
    alphas: Mapping[str, Sequence[float]] = field(
        default_factory=lambda: {**dict.fromkeys(BY[:2], ALPHAS), **dict.fromkeys(BY[2:], (-1.0, 0.0, 1.0))}
    )
    paths: int = 50
    few_paths: int = 20
    draws: int = 16
    twins: int = 20
    twin_agents: int = 4000
    twin_kinds: Sequence[str] = KINDS
    cohorts: Sequence[int] = (250, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
    repeats: Sequence[int] = (1, 25)
    draws_of_cohorts: int = 10
    epoch_agents: int = 512
    epoch_rounds: int = 5
    world_agents: int = 24_000
    world_weeks: int = 190
    baseline: str = BASELINE

    def paths_of(self, by: str) -> int:
        """Return the number of cases of each alpha."""
        return self.paths if by in BY[:2] else min(self.paths, self.few_paths)


QUICK = ForecastBudget(
    sizes=ShiftSizes(),
    cohort=2000,
    alphas={"demand": ALPHAS, **dict.fromkeys(BY[1:], (-1.0, 0.0, 1.0))},
    paths=8,
    draws=8,
    twins=4,
    twin_agents=2000,
    cohorts=(250, 1000, 2000, 5000),
    repeats=(1,),
    draws_of_cohorts=3,
    epoch_rounds=3,
    world_agents=20_000,
)
"""A few minutes on two cores."""


def forecast_parts(
    agent_pool: AgentPool,
    policy: Policy,
    maps: Mapping[str, LearnedMap],
    budget: ForecastBudget,
    *,
    seed: int = 0,
    tell: Log = lambda _: None,
) -> dict[str, Part]:
    """Return the parts of the forecast study."""
    cases = ShiftCases(agent_pool, policy, budget.sizes, seed)
    main = next((each for each in maps.values() if each.shape.n_probes), next(iter(maps.values())))
    shifts = {f"shift:{by}": partial(shift_figures, by, cases, maps, budget, tell) for by in budget.alphas}
    return {
        **shifts,
        "twins": lambda: round_digits(twin_figures(cases, maps, budget, tell)),
        "cohorts": lambda: round_digits(cohort_figures(cases, main, budget, tell)),
    }


def forecast_figures(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Combine measured parts."""
    shift = parts_under(parts, "shift")
    rest = {name: part for name, part in parts.items() if name in ("twins", "cohorts")}
    mape = {alpha: row["mape"] for alpha, row in shift.get(BY[0], {"by_alpha": {}})["by_alpha"].items()}
    return {"mape": mape, "shift": shift, **rest}


def shift_figures(
    by: str, cases: ShiftCases, maps: Mapping[str, LearnedMap], budget: ForecastBudget, tell: Log
) -> dict[str, Any]:
    """Forecast cases shifted along an attribute, and summarise by alpha, by horizon week and by kind of prices."""
    shifted: dict[float, list[MapEvaluation]] = {}
    extra = {"cohort": budget.cohort, "draws": budget.draws if by == BY[0] else 0, "seed": cases.seed}
    for alpha in budget.alphas[by]:
        tell(f"shift by {by}, alpha {alpha}")
        drawn = (cases.draw(by, alpha, number) for number in range(budget.paths_of(by)))
        shifted[alpha] = [
            evaluate_map(cases.agent_pool, case, cases.policy, maps, cases.sizes, **extra) for case in drawn
        ]
    everything = [row for rows in shifted.values() for row in rows]
    return round_digits(
        {
            "by_alpha": {str(alpha): alpha_figures(rows, budget.baseline) for alpha, rows in shifted.items()},
            "moderate": moderate_figures(shifted, budget.baseline),
            "by_horizon_week": horizon_figures(everything),
            "by_kind": kind_figures(everything),
        }
    )


def _realised(rows: Rows) -> np.ndarray:
    return np.stack([row.realised for row in rows])


def _forecasts(rows: Rows, name: str) -> np.ndarray:
    return np.stack([row.forecasts[name] for row in rows])


def errors_of(rows: Rows, name: str) -> ForecastErrors:
    """Measure one forecast's errors; a row's index is the path's number."""
    return forecast_errors(_forecasts(rows, name), _realised(rows))


def errors_of_priced(rows: Rows, name: str) -> ForecastErrors:
    """Measure one forecast's errors in the weeks in which a price was charged."""
    actual = _realised(rows)
    counted = np.where(np.stack([row.priced for row in rows]), actual, 0.0)  # weeks without use have no relative error
    return forecast_errors(_forecasts(rows, name), counted, actual.mean((1, 2)))


def alpha_figures(rows: Rows, baseline: str = BASELINE) -> dict[str, Any]:
    """Return error, bias and calibration of all forecasts, and paired intervals to the baseline."""
    names = rows[0].forecasts
    errors = {name: errors_of(rows, name) for name in names}
    actual = np.stack([row.realised / row.scale for row in rows])
    relative = {name: np.stack([row.forecasts[name] / row.scale for row in rows]) for name in names}
    near = [row.case["near_limit"] for row in rows if row.case["near_limit"] is not None]
    paths = {name: list(each.by_path.values()) for name, each in errors.items()}
    priced = {name: list(errors_of_priced(rows, name).by_path.values()) for name in names}
    slope = {name: partial(slope_of, each, actual) for name, each in relative.items()}
    return {
        "demand_ratio": float(np.mean([row.case["demand_ratio"] for row in rows])),
        "near_limit_share": float(np.mean(near)) if near else None,
        "paths": len(rows),
        "dropped_weeks": errors[next(iter(names))].dropped_weeks,
        "mape": {name: each.mape for name, each in errors.items()},
        "bias": {name: each.bias for name, each in errors.items()},
        "slope": {name: measure() for name, measure in slope.items()},
        "slope_interval": {name: leave_one_out(measure, len(rows)) for name, measure in slope.items()},
        "interval": intervals(paths),
        "over_baseline": against_baseline(paths, baseline),
        "priced_weeks": {"interval": intervals(priced), "over_baseline": against_baseline(priced, baseline)},
    }


def slope_of(
    forecast: Float[np.ndarray, "path origin ahead resource"],
    actual: Float[np.ndarray, "path origin ahead resource"],
    kept: Sequence[int] | slice = slice(None),
) -> float | None:
    """Return the slope of realised on forecast use, both relative to S(P), over the paths that are kept."""
    return calibration_slope(forecast[kept], actual[kept])


def leave_one_out(measure: Callable[[Sequence[int]], float | None], paths: int) -> dict[str, Any]:
    """Return a measure of all paths with its 95 % jackknife interval.

    Args:
        measure: of the paths with given indices; None where it is not defined.
        paths: number of paths.
    """
    every = list(range(paths))
    whole = measure(every)
    without = [measure(every[:path] + every[path + 1 :]) for path in every] if paths > 2 else []
    known = [float(value) for value in without if value is not None]
    if whole is None or not without or len(known) < paths:
        return {"estimate": whole, "low": None, "high": None}
    interval = jackknife_interval(whole, known)
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


def against_baseline(values: Mapping[str, Sequence[float]], baseline: str = BASELINE) -> dict[str, Any]:
    """Return each forecast's error over the baseline's, minus 1, with its paired 95 % interval."""
    if baseline not in values or len(values[baseline]) < 2:
        return {}
    base, differences = np.asarray(values[baseline]), {}
    for name, mine in values.items():
        if name != baseline:
            interval = paired_interval(np.asarray(mine), base)
            parts = (interval.estimate, interval.low, interval.high)
            differences[name] = [float(part / base.mean()) for part in parts]
    return differences


def intervals(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return each forecast's mean error over paths with its 95 % interval, cut at 0."""
    return {name: path_interval(mine, least=0.0) for name, mine in values.items()}


def moderate_figures(shifted: Mapping[float, Rows], baseline: str = BASELINE) -> dict[str, Any]:
    """Average over the moderate shifts by demand; paths of one number share weeks and count once."""
    low, high = MODERATE
    kept = [rows for rows in shifted.values() if low <= float(rows[0].case["demand_ratio"] or 1.0) <= high]
    if not kept:
        return {}
    values = {
        name: np.mean([list(errors_of(rows, name).by_path.values()) for rows in kept], axis=0).tolist()
        for name in kept[0][0].forecasts
    }
    mape = {name: float(np.mean(each)) for name, each in values.items()}
    return {"mape": mape, "interval": intervals(values), "over_baseline": against_baseline(values, baseline)}


def horizon_figures(rows: Rows) -> dict[str, Any]:
    """Return each forecast's error by week ahead."""
    if not rows:
        return {}
    actual, errors = _realised(rows), {}
    mean = actual.mean(axis=(1, 2))
    for name in rows[0].forecasts:
        forecast = _forecasts(rows, name)
        weeks = (slice(h, h + 1) for h in range(actual.shape[2]))
        errors[name] = [forecast_errors(forecast[:, :, h], actual[:, :, h], mean).mape for h in weeks]
    return errors


def kind_figures(rows: Rows) -> dict[str, Any]:
    """Return each forecast's error by source of prices."""
    groups = defaultdict(list)
    for row in rows:
        groups[str(row.case["kind"])].append(row)
    names = [name for name in rows[0].forecasts if name != SIMULATION] if rows else []
    return {kind: {name: errors_of(each, name).mape for name in names} for kind, each in groups.items()}


def twin_figures(
    cases: ShiftCases, maps: Mapping[str, LearnedMap], budget: ForecastBudget, tell: Log
) -> dict[str, Any]:
    """Return errors of forecasts on the difference between twins, and on each of them, by kind of twins."""
    figures = {}
    extra = {"count": budget.twin_agents, "cohort": budget.cohort, "draws": budget.draws}
    for kind in budget.twin_kinds:
        pairs = []
        for number in range(budget.twins):
            tell(f"twins that agree in {kind}, pair {number}")
            pairs.append(evaluate_twins(cases, maps, kind, number, **extra))
        figures[kind] = _pair_figures(pairs, budget.baseline)
    return figures


def _pair_figures(pairs: Pairs, baseline: str) -> dict[str, Any]:
    names = pairs[0][0].forecasts
    metrics = {name: errors_of_pairs(pairs, name) for name in names}
    expected = {name: errors_of_pairs(pairs, name, SIMULATION) for name in names}
    rows = [twin for pair in pairs for twin in pair]
    errors = {name: each.by_pair for name, each in metrics.items()}
    return {
        "pairs": len(pairs),
        "interval": intervals(errors),
        "over_baseline": against_baseline(errors, baseline),
        "explained_interval": {name: leave_one_out(partial(_explained, pairs, name), len(pairs)) for name in names},
        "blind_interval": intervals({"no difference": metrics[SIMULATION].difference_by_pair})["no difference"],
        "twin_error": {name: each.twin_error for name, each in metrics.items()},
        "twin_error_to_simulation": {name: each.twin_error for name, each in expected.items()},
        "captured": {name: each.captured for name, each in metrics.items()},
        "explained": {name: each.explained for name, each in metrics.items()},
        "difference": metrics[SIMULATION].difference,
        "simulated_difference": metrics[SIMULATION].predicted_difference,
        "mape_of_each": {name: errors_of(rows, name).mape for name in names},
    }


def _explained(pairs: Pairs, name: str, kept: Sequence[int]) -> float:
    """Return the share of the differences between twins that a forecast explains, over the pairs that are kept."""
    return errors_of_pairs([pairs[index] for index in kept], name).explained


def errors_of_pairs(pairs: Pairs, name: str, against: str | None = None) -> TwinErrors:
    """Measure one forecast's differences between twins, against realised use or against another forecast."""
    predicted = np.stack([_forecasts(pair, name) for pair in pairs])
    actual = [_realised(pair) if against is None else _forecasts(pair, against) for pair in pairs]
    return twin_errors(predicted, np.stack(actual))


def cohort_figures(cases: ShiftCases, learned: LearnedMap, budget: ForecastBudget, tell: Log) -> list[dict[str, Any]]:
    """Return predicted and measured errors of cohorts, by size of the target, design and size of the cohort."""
    rows = []
    case = cases.draw(BY[0], 0.0, 0)
    pool = np.flatnonzero(cases.agent_pool.active[case.start + int(cases.sizes.origin_weeks[0])])
    designs = dict(zip(("uniform", "stratified", "proportional"), DESIGNS, strict=True))
    for repeats in budget.repeats:
        tell(f"cohorts of {len(pool) * repeats} agents")
        parts = (pool, case.start, repeats, case.prices, cases.policy, cases.sizes, cases.seed)
        target = RepeatedPopulation(cases.agent_pool, *parts)
        errors = cohort_errors(target, learned, designs, budget.cohorts, budget.draws_of_cohorts)
        groups = defaultdict(list)
        for error in errors:
            groups[error.design, error.n].append(error)
        rows += [{"target": target.n_agents, **cohort_row(each)} for each in groups.values()]
    return rows


def cohort_row(errors: Sequence[CohortError]) -> dict[str, Any]:
    """Average over the cohorts of one design and size; measured errors of the scale as root mean square."""
    first, full = errors[0], [e.against_full for e in errors if e.against_full is not None]
    return {
        "design": first.design,
        "n": first.n,
        "predicted": first.predicted,
        "measured_scale": float(np.sqrt(np.mean([e.scale**2 for e in errors]))),
        "draws": len(errors),
        "scale_interval": root_interval([e.scale for e in errors]),
        "mape_interval": intervals({"map": [e.against_realised for e in errors]})["map"],
        "full_interval": intervals({"map": full})["map"] if full else None,
        "against_full": float(np.mean(full)) if full else None,
        "mape": float(np.mean([e.against_realised for e in errors])),
        "mape_of_everybody": first.full_against_realised,
    }


def root_interval(errors: Sequence[float]) -> dict[str, Any]:
    """Return the root mean square of errors over cohorts, with its 95 % interval for normal errors."""
    squares = float(np.sum(np.square(errors)))
    low, high = (float(np.sqrt(squares / chdtri(len(errors), share))) for share in (0.025, 0.975))
    return {"estimate": float(np.sqrt(squares / len(errors))), "low": low, "high": high}
