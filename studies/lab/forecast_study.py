"""Own what is measured of forecasts: errors by shift, horizon and kind of prices, twins, cohorts.

FREE: cases are `train.judge_cases`, forecasts `train.judge_maps`; studies and benchmarks put the figures together.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import chdtri

from lab.eval_cohorts import CohortError, Target, cohort_errors
from lab.eval_maps import SIMULATION, MapEvaluation, evaluate_map
from lab.eval_twins import KINDS, evaluate_twins
from lab.metrics import ForecastTally, TwinTally, calibration_tally, forecast_tally, twin_tally
from lab.results import path_interval, round_digits
from lab.runner import Part, parts_under
from lab.shift_cases import BY, ShiftCases, ShiftSizes
from walras.evaluation.inference import jackknife_interval, paired_interval
from walras.maps.features import HORIZON
from walras.maps.file import LearnedMap
from walras.policies.base import Policy
from walras.population.shift import MODERATE
from walras.train.agent_pool import AgentPool
from walras.train.map_task import DESIGNS

BASELINE = "global"
"""What other maps are compared with, path by path."""

ALPHAS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Budget:
    """Say how much is measured.

    Attributes:
        sizes: of the judged populations.
        cohort: agents that maps read of each.
        alphas: by attribute.
        paths: cases of each attribute and alpha that training knows.
        few_paths: of the attributes that it does not shift.
        draws: simulated futures of each origin, for shifts by demand.
        twins, twin_agents: pairs of each kind, and agents of each twin.
        twin_kinds: which kinds.
        cohorts, repeats, draws_of_cohorts: cohort sizes, how often the world's agents are in the target, cohorts drawn.
        epoch_agents, epoch_rounds: agents of the timed training step, and how often it is timed.
        world_agents, world_weeks: of the made-up world.
        baseline: what other maps are compared with, path by path.
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
        """Count the cases of each alpha."""
        return self.paths if by in BY[:2] else min(self.paths, self.few_paths)


QUICK = Budget(
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


def fitting(sizes: ShiftSizes, world: AgentPool) -> ShiftSizes:
    """Shorten cases to the weeks and agents of a short table; all origins are in its second half."""
    weeks = min(sizes.weeks, world.n_weeks)
    origins = min(sizes.origins, max((weeks - weeks // 2 - HORIZON - 1) // sizes.spacing + 1, 1))
    target = min(sizes.target, world.n_agents)
    return replace(sizes, weeks=weeks, origins=origins, target=target, priced=min(sizes.priced, weeks // 4))


def shift_figures(
    by: str, cases: ShiftCases, maps: Mapping[str, LearnedMap], budget: Budget, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Forecast cases shifted along an attribute, and sum up by alpha, by horizon week and by kind of prices."""
    found: dict[float, list[MapEvaluation]] = {}
    extra = {"cohort": budget.cohort, "draws": budget.draws if by == BY[0] else 0, "seed": cases.seed}
    for alpha in budget.alphas[by]:
        tell(f"shift by {by}, alpha {alpha}")
        drawn = (cases.draw(by, alpha, number) for number in range(budget.paths_of(by)))
        found[alpha] = [evaluate_map(cases.world, case, cases.policy, maps, cases.sizes, **extra) for case in drawn]
    everything = [each for rows in found.values() for each in rows]
    return round_digits(
        {
            "by_alpha": {str(alpha): alpha_figures(rows, budget.baseline) for alpha, rows in found.items()},
            "moderate": moderate_figures(found, budget.baseline),
            "by_horizon_week": horizon_figures(everything),
            "by_kind": kind_figures(everything),
        }
    )


def tally_of(rows: Sequence[MapEvaluation], name: str) -> ForecastTally:
    """Sum up one forecast's errors, the row's place being the path's number."""
    return forecast_tally(np.stack([r.forecasts[name] for r in rows]), np.stack([r.realised for r in rows]))


def tally_of_priced(rows: Sequence[MapEvaluation], name: str) -> ForecastTally:
    """Sum up one forecast's errors in the weeks in which a price was charged."""
    actual = np.stack([r.realised for r in rows])
    counted = np.where(np.stack([r.priced for r in rows]), actual, 0.0)  # weeks without use have no relative error
    return forecast_tally(np.stack([r.forecasts[name] for r in rows]), counted, mean_utilization=actual.mean((1, 2)))


def alpha_figures(rows: Sequence[MapEvaluation], baseline: str = BASELINE) -> dict[str, Any]:
    """Return error, bias and calibration of all forecasts, and paired intervals to the baseline."""
    names = rows[0].forecasts
    tallies = {name: tally_of(rows, name) for name in names}
    actual = np.stack([r.realised / r.scale for r in rows])
    said = {name: np.stack([r.forecasts[name] / r.scale for r in rows]) for name in names}
    told: list[Mapping[str, Any]] = [r.case for r in rows]
    near = [case["near_limit"] for case in told if case["near_limit"] is not None]
    figures = {name: tally.metrics() for name, tally in tallies.items()}
    paths = {name: list(tally.path_values().values()) for name, tally in tallies.items()}
    priced = {name: list(tally_of_priced(rows, name).path_values().values()) for name in names}
    return {
        "demand_ratio": float(np.mean([r.case["demand_ratio"] for r in rows])),
        "near_limit_share": float(np.mean(near)) if near else None,
        "paths": len(rows),
        "dropped_weeks": figures[next(iter(names))].dropped_weeks,
        "mape": {name: each.mape for name, each in figures.items()},
        "bias": {name: each.bias for name, each in figures.items()},
        "slope": {name: slope_of(each, actual) for name, each in said.items()},
        "slope_interval": {name: left_out(partial(slope_of, each, actual), len(rows)) for name, each in said.items()},
        "interval": intervals(paths),
        "over_baseline": against_baseline(paths, baseline),
        "priced_weeks": {"interval": intervals(priced), "over_baseline": against_baseline(priced, baseline)},
    }


def slope_of(
    forecast: Float[np.ndarray, "path origin ahead resource"],
    actual: Float[np.ndarray, "path origin ahead resource"],
    kept: Sequence[int] | slice = slice(None),
) -> float | None:
    """Return the slope of the line of realised on forecast use, both relative to S(P), over the paths that are kept."""
    return calibration_tally(forecast[kept], actual[kept]).metrics().slope


def left_out(measure: Callable[[Sequence[int]], float | None], paths: int) -> dict[str, Any]:
    """Return a measure of all paths with its 95 % interval, by leaving out one path at a time.

    Args:
        measure: of the paths whose places it is given; None where it is not defined.
        paths: how many there are.
    """
    every = list(range(paths))
    whole = measure(every)
    without = [measure(every[:path] + every[path + 1 :]) for path in every] if paths > 2 else []
    known = [float(each) for each in without if each is not None]
    if whole is None or not without or len(known) < paths:
        return {"estimate": whole, "low": None, "high": None}
    found = jackknife_interval(whole, known)
    return {"estimate": found.estimate, "low": found.low, "high": found.high}


def against_baseline(values: Mapping[str, Sequence[float]], baseline: str = BASELINE) -> dict[str, Any]:
    """Return each forecast's error over the baseline's, minus 1, with its paired 95 % interval."""
    if baseline not in values or len(values[baseline]) < 2:
        return {}
    base = np.asarray(values[baseline])
    found = {}
    for name, mine in values.items():
        if name != baseline:
            interval = paired_interval(np.asarray(mine), base)
            found[name] = [float(part / base.mean()) for part in (interval.estimate, interval.low, interval.high)]
    return found


def intervals(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return each forecast's mean error over paths with its 95 % interval, cut at 0."""
    return {name: path_interval(mine, least=0.0) for name, mine in values.items()}


def moderate_figures(shifted: Mapping[float, Sequence[MapEvaluation]], baseline: str = BASELINE) -> dict[str, Any]:
    """Average over the moderate shifts by demand; paths of one number share weeks and count once."""
    low, high = MODERATE
    kept = [rows for rows in shifted.values() if low <= float(rows[0].case["demand_ratio"] or 1.0) <= high]
    if not kept:
        return {}
    values = {
        name: np.mean([list(tally_of(rows, name).path_values().values()) for rows in kept], axis=0).tolist()
        for name in kept[0][0].forecasts
    }
    mape = {name: float(np.mean(each)) for name, each in values.items()}
    return {"mape": mape, "interval": intervals(values), "over_baseline": against_baseline(values, baseline)}


def horizon_figures(rows: Sequence[MapEvaluation]) -> dict[str, Any]:
    """Return each forecast's error by week ahead."""
    if not rows:
        return {}
    actual = np.stack([r.realised for r in rows])
    mean = actual.mean(axis=(1, 2))
    found = {}
    for name in rows[0].forecasts:
        said = np.stack([r.forecasts[name] for r in rows])
        each = (slice(h, h + 1) for h in range(actual.shape[2]))
        tallies = (forecast_tally(said[:, :, h], actual[:, :, h], mean_utilization=mean) for h in each)
        found[name] = [tally.metrics().mape for tally in tallies]
    return found


def kind_figures(rows: Sequence[MapEvaluation]) -> dict[str, Any]:
    """Return each forecast's error by where prices come from."""
    groups = defaultdict(list)
    for row in rows:
        groups[str(row.case["kind"])].append(row)
    names = [name for name in rows[0].forecasts if name != SIMULATION] if rows else []
    return {kind: {name: tally_of(each, name).metrics().mape for name in names} for kind, each in groups.items()}


def twin_figures(
    cases: ShiftCases, maps: Mapping[str, LearnedMap], budget: Budget, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Return how well forecasts see the difference between twins, and how well they forecast each of them."""
    found = {}
    extra = {"count": budget.twin_agents, "cohort": budget.cohort, "draws": budget.draws}
    for kind in budget.twin_kinds:
        pairs = []
        for number in range(budget.twins):
            tell(f"twins that agree in {kind}, pair {number}")
            pairs.append(evaluate_twins(cases, maps, kind, number, **extra))
        names = pairs[0][0].forecasts
        figures = {name: twin_sums(pairs, name, None).metrics() for name in names}
        expected = {name: twin_sums(pairs, name, SIMULATION).metrics() for name in names}
        rows = [each for pair in pairs for each in pair]
        errors = {name: list(twin_sums(pairs, name, None).pair_values().values()) for name in names}
        found[kind] = {
            "pairs": len(pairs),
            "interval": intervals(errors),
            "over_baseline": against_baseline(errors, budget.baseline),
            "explained_interval": {name: left_out(partial(_explained, pairs, name), len(pairs)) for name in names},
            "blind_interval": intervals({"no difference": _differences(pairs)})["no difference"],
            "twin_error": {name: each.twin_error for name, each in figures.items()},
            "twin_error_to_simulation": {name: each.twin_error for name, each in expected.items()},
            "captured": {name: each.captured for name, each in figures.items()},
            "explained": {name: each.explained for name, each in figures.items()},
            "difference": figures[SIMULATION].difference,
            "simulated_difference": figures[SIMULATION].predicted_difference,
            "mape_of_each": {name: tally_of(rows, name).metrics().mape for name in names},
        }
    return found


def _explained(pairs: Sequence[tuple[MapEvaluation, MapEvaluation]], name: str, kept: Sequence[int]) -> float:
    """Return which share of the differences between twins a forecast explains, over the pairs that are kept."""
    return twin_sums([pairs[place] for place in kept], name, None).metrics().explained


def _differences(pairs: Sequence[tuple[MapEvaluation, MapEvaluation]]) -> list[float]:
    """Return the error of a forecast that sees no difference between twins, pair by pair."""
    tally = twin_sums(pairs, SIMULATION, None)
    return (tally.difference.sum(1) / tally.use.sum(1)).tolist()


def twin_sums(pairs: Sequence[tuple[MapEvaluation, MapEvaluation]], name: str, against: str | None) -> TwinTally:
    """Sum up differences between twins as forecast, against what came or against another forecast."""
    said = np.stack([np.stack([twin.forecasts[name] for twin in pair]) for pair in pairs])
    true = [np.stack([t.realised if against is None else t.forecasts[against] for t in pair]) for pair in pairs]
    return twin_tally(said, np.stack(true))


def cohort_figures(
    cases: ShiftCases, learned: LearnedMap, budget: Budget, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Return predicted and measured errors of cohorts, by size of the target, design and size of the cohort."""
    rows = []
    case = cases.draw(BY[0], 0.0, 0)
    pool = np.flatnonzero(cases.world.active[case.start + int(cases.sizes.origin_weeks[0])])
    designs = dict(zip(("uniform", "stratified", "proportional"), DESIGNS, strict=True))
    for repeats in budget.repeats:
        tell(f"cohorts of {len(pool) * repeats} agents")
        target = Target(cases.world, pool, case.start, repeats, case.prices, cases.policy, cases.sizes, cases.seed)
        errors = cohort_errors(target, learned, designs, budget.cohorts, budget.draws_of_cohorts)
        groups = defaultdict(list)
        for each in errors:
            groups[each.design, each.n].append(each)
        rows += [{"target": target.n_agents, **cohort_row(each)} for each in groups.values()]
    return rows


def cohort_row(errors: Sequence[CohortError]) -> dict[str, Any]:
    """Average over the cohorts of one design and size; measured errors of the scale as root of the mean square."""
    first = errors[0]
    full = [e.against_full for e in errors if e.against_full is not None]
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
    """Return the root of the mean square of errors over cohorts, with its 95 % interval (they are about normal)."""
    squares = float(np.sum(np.square(errors)))
    low, high = (float(np.sqrt(squares / chdtri(len(errors), share))) for share in (0.025, 0.975))
    return {"estimate": float(np.sqrt(squares / len(errors))), "low": low, "high": high}


def forecast_parts(
    world: AgentPool,
    policy: Policy,
    maps: Mapping[str, LearnedMap],
    budget: Budget,
    *,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Part]:
    """Return what is to be measured, part by part; `maps` by their names.

    Args:
        world: agents, weeks and surprises that training never saw.
        policy: what agents follow, the one that the maps were trained with.
        maps: primal maps.
        budget: how much is measured.
        seed: of all that is drawn.
        tell: told what is measured now.
    """
    cases = ShiftCases(world, policy, budget.sizes, seed)
    main = next((each for each in maps.values() if each.shape.n_probes), next(iter(maps.values())))
    shifts = {f"shift:{by}": partial(shift_figures, by, cases, maps, budget, tell) for by in budget.alphas}
    return {
        **shifts,
        "twins": lambda: round_digits(twin_figures(cases, maps, budget, tell)),
        "cohorts": lambda: round_digits(cohort_figures(cases, main, budget, tell)),
    }


def forecast_figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """Put measured parts together."""
    shift = parts_under(found, "shift")
    rest = {name: each for name, each in found.items() if name in ("twins", "cohorts")}
    mape = {alpha: row["mape"] for alpha, row in shift.get(BY[0], {"by_alpha": {}})["by_alpha"].items()}
    return {"mape": mape, "shift": shift, **rest}
