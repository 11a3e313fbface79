"""Measure how well maps forecast utilization on populations that training never saw; `benchmarks/maps.py` reports it.

    python benchmarks/maps_forecast.py [--map FILE ...] [--quick] [--world FILE] [--json] [--out FILE]

Files are primal maps, called by their representations; without any, untrained maps show that all runs. Populations of
agents, weeks and surprises of another world are shifted along demand, unit economics and two attributes that training
never shifts; prices are those that fit capacity paths of families that training never draws, with about 55 % near-limit
weeks, beside Haar prices and pulses. `simulation` is the mean over simulated futures that start in everybody's true
state: about the best that a forecast can do, and its error what cannot be helped. `expected demand` is use if prices
did nothing.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from measure import medians
from parts import run_parts, under

from walras.errors import WalrasError
from walras.evaluation.calibration import calibration_tally
from walras.evaluation.forecast import ForecastTally, forecast_tally
from walras.evaluation.inference import paired_interval
from walras.evaluation.twins import TwinTally, twin_tally
from walras.maps.learned_map import LearnedMap
from walras.maps.map_file import PRIMAL, load_map
from walras.policies.base import AbstractPolicy
from walras.policies.base_stock import PricedNewsvendor
from walras.population.shift import MODERATE
from walras.train.epoch_ratio import one_pass_step, windows_step
from walras.train.history import FIRST_FORECAST
from walras.train.judge_cases import BY, Cases, Sizes
from walras.train.judge_cohorts import CohortError, Target, cohort_errors
from walras.train.judge_maps import SIMULATION, Judged, judged
from walras.train.judge_twins import KINDS, judged_twins
from walras.train.map_episodes import DESIGNS, MapEpisodes
from walras.train.map_settings import MapTraining
from walras.train.primal import PrimalTask, shape_of
from walras.train.world import World, worlds_from_generator

BASELINE = "global"
"""What other maps are compared with, path by path."""

ALPHAS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)

EPOCH_REPRESENTATION = "bucketized"
"""Of the map whose training step is timed."""

TRAINED_WEEKS = 142
"""Weeks of a rollout of the timed step."""

HELD_OUT_SEED = 90_001
"""Of the made-up world that judges; no training uses it."""


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
        cohorts, repeats, draws_of_cohorts: cohort sizes, how often the world's agents are in the target, cohorts drawn.
        epoch_agents, epoch_rounds: agents of the timed training step, and how often it is timed.
        world_agents, world_weeks: of the made-up world.
    """

    sizes: Sizes = field(default_factory=lambda: Sizes(target=20_000, sample=2000))
    cohort: int = 2000
    alphas: Mapping[str, Sequence[float]] = field(
        default_factory=lambda: {**dict.fromkeys(BY[:2], ALPHAS), **dict.fromkeys(BY[2:], (-1.0, 0.0, 1.0))}
    )
    paths: int = 50
    few_paths: int = 20
    draws: int = 16
    twins: int = 20
    twin_agents: int = 4000
    cohorts: Sequence[int] = (250, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
    repeats: Sequence[int] = (1, 25)
    draws_of_cohorts: int = 10
    epoch_agents: int = 512
    epoch_rounds: int = 5
    world_agents: int = 24_000
    world_weeks: int = 190

    def paths_of(self, by: str) -> int:
        """Count the cases of each alpha."""
        return self.paths if by in BY[:2] else min(self.paths, self.few_paths)


QUICK = Budget(
    sizes=Sizes(),
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


def shift_figures(
    by: str, cases: Cases, maps: Mapping[str, LearnedMap], budget: Budget, tell: Callable[[str], None]
) -> dict:
    """Forecast cases shifted along an attribute, and sum up by alpha, by horizon week and by kind of prices."""
    found: dict[float, list[Judged]] = {}
    extra = {"cohort": budget.cohort, "draws": budget.draws if by == BY[0] else 0, "seed": cases.seed}
    for alpha in budget.alphas[by]:
        tell(f"shift by {by}, alpha {alpha}")
        drawn = (cases.draw(by, alpha, number) for number in range(budget.paths_of(by)))
        found[alpha] = [judged(cases.world, case, cases.policy, maps, cases.sizes, **extra) for case in drawn]
    everything = [each for rows in found.values() for each in rows]
    return rounded(
        {
            "by_alpha": {str(alpha): alpha_figures(rows) for alpha, rows in found.items()},
            "moderate": moderate_figures(found),
            "by_horizon_week": horizon_figures(everything),
            "by_kind": kind_figures(everything),
        }
    )


def tally_of(rows: Sequence[Judged], name: str) -> ForecastTally:
    """Sum up one forecast's errors, the row's place being the path's number."""
    return forecast_tally(np.stack([r.forecasts[name] for r in rows]), np.stack([r.realised for r in rows]))


def alpha_figures(rows: Sequence[Judged]) -> dict:
    """Return error, bias and calibration of all forecasts, and paired intervals to the baseline."""
    names = rows[0].forecasts
    tallies = {name: tally_of(rows, name) for name in names}
    actual = np.stack([r.realised / r.scale for r in rows])
    lines = {
        name: calibration_tally(np.stack([r.forecasts[name] / r.scale for r in rows]), actual).metrics()
        for name in names
    }
    near = [r.case["near_limit"] for r in rows if r.case["near_limit"] is not None]
    figures = {name: tally.metrics() for name, tally in tallies.items()}
    return {
        "demand_ratio": float(np.mean([r.case["demand_ratio"] for r in rows])),
        "near_limit_share": float(np.mean(near)) if near else None,
        "paths": len(rows),
        "dropped_weeks": figures[next(iter(names))].dropped_weeks,
        "mape": {name: each.mape for name, each in figures.items()},
        "bias": {name: each.bias for name, each in figures.items()},
        "slope": {name: line.slope for name, line in lines.items()},
        "over_baseline": against_baseline({name: list(t.path_values().values()) for name, t in tallies.items()}),
    }


def against_baseline(values: Mapping[str, Sequence[float]]) -> dict:
    """Return each forecast's error over the baseline's, minus 1, with its paired 95 % interval."""
    if BASELINE not in values or len(values[BASELINE]) < 2:
        return {}
    base = np.asarray(values[BASELINE])
    found = {}
    for name, mine in values.items():
        if name != BASELINE:
            interval = paired_interval(np.asarray(mine), base)
            found[name] = [float(part / base.mean()) for part in (interval.estimate, interval.low, interval.high)]
    return found


def moderate_figures(shifted: Mapping[float, Sequence[Judged]]) -> dict:
    """Average over the moderate shifts by demand; paths of one number share weeks and count once."""
    low, high = MODERATE
    kept = [rows for rows in shifted.values() if low <= float(rows[0].case["demand_ratio"]) <= high]
    if not kept:
        return {}
    values = {
        name: np.mean([list(tally_of(rows, name).path_values().values()) for rows in kept], axis=0)
        for name in kept[0][0].forecasts
    }
    over = against_baseline(values)
    return {"mape": {name: float(each.mean()) for name, each in values.items()}, "over_baseline": over}


def horizon_figures(rows: Sequence[Judged]) -> dict:
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


def kind_figures(rows: Sequence[Judged]) -> dict:
    """Return each forecast's error by where prices come from."""
    groups = defaultdict(list)
    for row in rows:
        groups[row.case["kind"]].append(row)
    names = [name for name in rows[0].forecasts if name != SIMULATION] if rows else []
    return {kind: {name: tally_of(each, name).metrics().mape for name in names} for kind, each in groups.items()}


def twin_figures(cases: Cases, maps: Mapping[str, LearnedMap], budget: Budget, tell: Callable[[str], None]) -> dict:
    """Return how well forecasts see the difference between twins, and how well they forecast each of them."""
    found = {}
    extra = {"count": budget.twin_agents, "cohort": budget.cohort, "draws": budget.draws}
    for kind in KINDS:
        pairs = []
        for number in range(budget.twins):
            tell(f"twins that agree in {kind}, pair {number}")
            pairs.append(judged_twins(cases, maps, kind, number, **extra))
        names = pairs[0][0].forecasts
        figures = {name: twin_sums(pairs, name, None).metrics() for name in names}
        expected = {name: twin_sums(pairs, name, SIMULATION).metrics() for name in names}
        rows = [each for pair in pairs for each in pair]
        found[kind] = {
            "twin_error": {name: each.twin_error for name, each in figures.items()},
            "twin_error_to_simulation": {name: each.twin_error for name, each in expected.items()},
            "captured": {name: each.captured for name, each in figures.items()},
            "explained": {name: each.explained for name, each in figures.items()},
            "difference": figures[SIMULATION].difference,
            "simulated_difference": figures[SIMULATION].predicted_difference,
            "mape_of_each": {name: tally_of(rows, name).metrics().mape for name in names},
        }
    return found


def twin_sums(pairs: Sequence[tuple[Judged, Judged]], name: str, against: str | None) -> TwinTally:
    """Sum up differences between twins as forecast, against what came or against another forecast."""
    said = np.stack([np.stack([twin.forecasts[name] for twin in pair]) for pair in pairs])
    true = [np.stack([t.realised if against is None else t.forecasts[against] for t in pair]) for pair in pairs]
    return twin_tally(said, np.stack(true))


def cohort_figures(cases: Cases, learned: LearnedMap, budget: Budget, tell: Callable[[str], None]) -> list[dict]:
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


def cohort_row(errors: Sequence[CohortError]) -> dict:
    """Average over the cohorts of one design and size; measured errors of the scale as root of the mean square."""
    first = errors[0]
    full = [e.against_full for e in errors if e.against_full is not None]
    return {
        "design": first.design,
        "n": first.n,
        "predicted": first.predicted,
        "measured_scale": float(np.sqrt(np.mean([e.scale**2 for e in errors]))),
        "against_full": float(np.mean(full)) if full else None,
        "mape": float(np.mean([e.against_realised for e in errors])),
        "mape_of_everybody": first.full_against_realised,
    }


def epoch_figures(world: World, policy: AbstractPolicy, budget: Budget) -> dict:
    """Time one training step both ways on the same rollout, every week an origin."""
    agents = budget.epoch_agents
    if world.n_weeks < TRAINED_WEEKS:  # nothing is trained on tables as short
        return {"epoch_ratio_windows": None}
    sizes = {"target": agents, "agents": agents, "weeks": TRAINED_WEEKS, "steps": 1, "delegates": 0}
    settings = MapTraining(representation=EPOCH_REPRESENTATION, spacing=1, **sizes)
    episodes = MapEpisodes([world], settings)
    task = PrimalTask(settings, episodes, policy)
    carry, lesson = task.begin(0), task.lesson(episodes.draw(0), None)
    lesson = replace(lesson, watched=None, each=None)  # windows know no loss of agents one by one
    parts = (carry, task.scaling, lesson, task.optimizer)
    calls = {"one_pass": lambda: one_pass_step(*parts), "windows": lambda: windows_step(*parts)}
    seconds, rounds = medians(calls, budget.epoch_rounds)
    losses = {name: float(call()[1]) for name, call in calls.items()}
    ratio = seconds["windows"] / seconds["one_pass"]
    return {"epoch_ratio_windows": ratio, "seconds": seconds, "rounds": rounds, "loss": losses}


def forecast_parts(
    world: World,
    policy: AbstractPolicy,
    maps: Mapping[str, LearnedMap],
    budget: Budget,
    *,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Callable[[], object]]:
    """Return what is to be measured, part by part; `maps` by their names.

    Args:
        world: agents, weeks and surprises that training never saw.
        policy: what agents follow, the one that the maps were trained with.
        maps: primal maps.
        budget: how much is measured.
        seed: of all that is drawn.
        tell: told what is measured now.
    """
    cases = Cases(world, policy, budget.sizes, seed)
    main = next((each for each in maps.values() if each.shape.delegates), next(iter(maps.values())))
    shifts = {f"shift:{by}": partial(shift_figures, by, cases, maps, budget, tell) for by in budget.alphas}
    return {
        **shifts,
        "twins": lambda: rounded(twin_figures(cases, maps, budget, tell)),
        "cohorts": lambda: rounded(cohort_figures(cases, main, budget, tell)),
        "epoch": lambda: rounded(epoch_figures(world, policy, budget)),
    }


def forecast_figures(found: Mapping[str, object]) -> dict:
    """Put measured parts together."""
    shift = under(found, "shift")
    rest = {name: each for name, each in found.items() if name in ("twins", "cohorts", "epoch")}
    mape = {alpha: row["mape"] for alpha, row in shift.get(BY[0], {"by_alpha": {}})["by_alpha"].items()}
    return {"mape": mape, "shift": shift, **rest}


def loaded(files: Sequence[Path]) -> dict[str, LearnedMap]:
    """Read primal maps, by the names of their representations."""
    found = [load_map(file, PRIMAL) for file in files]
    return {learned.shape.name: learned for learned in found}


def untrained(names: Sequence[str], world: World, policy: AbstractPolicy, budget: Budget) -> dict[str, LearnedMap]:
    """Draw maps that know nothing, with features measured on the world."""
    found = {}
    for name in names:
        agents = budget.epoch_agents
        sizes = {"target": agents, "agents": agents, "weeks": TRAINED_WEEKS, "delegates": 0}
        settings = MapTraining(representation=name, steps=1, **sizes)
        task = PrimalTask(settings, MapEpisodes([world], settings), policy)
        network, edges = task.begin(0).average, task.episodes.edges
        found[name] = LearnedMap(PRIMAL, network, task.scaling, shape_of(settings), edges)
    return found


def rounded(value):
    """Round all numbers to six digits that matter."""
    if isinstance(value, Mapping):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def table(found: dict) -> str:
    """Print errors by alpha, and by kind of twins."""
    lines = []
    for by, figures in found["shift"].items():
        rows = figures["by_alpha"]
        names = list(next(iter(rows.values()))["mape"])
        lines.append(
            f"\nforecast error by shift along {by}\n{'alpha':>6} {'demand':>7}" + "".join(f"{n:>17}" for n in names)
        )
        for alpha, row in rows.items():
            cells = "".join(f"{row['mape'][name]:17.3f}" for name in names)
            lines.append(f"{alpha:>6} {row['demand_ratio']:7.2f}{cells}")
    for kind, row in found.get("twins", {}).items():
        errors = ", ".join(f"{name} {value:.3f}" for name, value in row["twin_error"].items())
        lines.append(f"\ntwins that agree in {kind}: difference {row['difference']:.3f}; error {errors}")
    if found.get("epoch", {}).get("epoch_ratio_windows"):
        lines.append(f"\nwindow-by-window encoding takes {found['epoch']['epoch_ratio_windows']:.1f} times as long")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and smaller populations")
    parser.add_argument("--world", type=Path, help="a stored world that training never saw; default a made-up one")
    parser.add_argument("--map", action="append", type=Path, help="file of a primal map; give one or several")
    parser.add_argument("--only", nargs="+", default=(), help="parts to measure, e.g. shift:demand or twins")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--out", type=Path, help="file for the figures")
    given = parser.parse_args(argv)
    budget = QUICK if given.quick else Budget()
    policy = PricedNewsvendor()
    try:
        world = World.load(given.world) if given.world else held_out_world(budget)
        maps = loaded(given.map) if given.map else untrained(("bucketized", BASELINE), world, policy, budget)
        tell = lambda words: print(words, file=sys.stderr, flush=True)  # noqa: E731
        parts = forecast_parts(world, policy, maps, budget, seed=given.seed, tell=tell)
        found = forecast_figures(run_parts(parts, None, given.only, tell))
    except WalrasError as error:
        parser.exit(2, f"{error}\n")
    if given.out:
        aside = given.out.with_name(given.out.name + ".part")
        aside.write_text(json.dumps(found, indent=1) + "\n")
        aside.replace(given.out)
    print(json.dumps(found) if given.json else table(found))


def held_out_world(budget: Budget) -> World:
    """Make up agents that no training saw."""
    known = {"known_weeks": FIRST_FORECAST + int(budget.sizes.origin_weeks[0])}
    return next(worlds_from_generator(1, budget.world_agents, budget.world_weeks, HELD_OUT_SEED, **known))


if __name__ == "__main__":
    main()
