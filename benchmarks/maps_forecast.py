"""Measure how well maps forecast utilization on populations that training never saw; `benchmarks/maps.py` reports it.

    python benchmarks/maps_forecast.py [--map FILE ...] [--quick] [--pool FILE] [--json] [--out FILE]

Files are primal maps, called by their representations; without any, untrained maps show that all runs. Populations of
agents, weeks and surprises of another pool are shifted along demand, unit economics and two attributes that training
never shifts; prices are those that fit capacity paths of families that training never draws, with about 55 % near-limit
weeks, beside Haar prices and pulses. `simulation` is the mean over simulated futures that start in everybody's true
state: about the best that a forecast can do, and its error what cannot be helped. `expected demand` is use if prices
did nothing.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from measure import medians

from lab.encoding_cost import one_pass_step, windows_step
from lab.forecast_study import BASELINE, QUICK, ForecastBudget, forecast_figures, forecast_parts
from lab.results import round_digits
from lab.runner import run_parts
from walras.errors import WalrasError
from walras.maps.file import PRIMAL, LearnedMap, load_map
from walras.policies.base import Policy
from walras.policies.base_stock import PricedNewsvendor
from walras.train.agent_pool import AgentPool, pools_from_generator
from walras.train.history import FIRST_FORECAST
from walras.train.map_task import MapEpisodes, network_config
from walras.train.primal_task import PrimalTask
from walras.train.settings import MapTraining

EPOCH_REPRESENTATION = "bucketized"
"""Of the map whose training step is timed."""

TRAINED_WEEKS = 142
"""Weeks of a rollout of the timed step."""

HELD_OUT_SEED = 90_001
"""Of the made-up pool that judges; no training uses it."""


def epoch_figures(agent_pool: AgentPool, policy: Policy, budget: ForecastBudget) -> dict:
    """Time one training step both ways on the same rollout, every week an origin."""
    agents = budget.epoch_agents
    if agent_pool.n_weeks < TRAINED_WEEKS:  # nothing is trained on tables as short
        return {"epoch_ratio_windows": None}
    sizes = {"population_size": agents, "agents": agents, "weeks": TRAINED_WEEKS, "steps": 1, "delegates": 0}
    settings = MapTraining(representation=EPOCH_REPRESENTATION, spacing=1, **sizes)
    episodes = MapEpisodes([agent_pool], settings)
    task = PrimalTask(settings, episodes, policy)
    carry, lesson = task.begin(0), task.example(episodes.draw(0), None)
    lesson = replace(lesson, watched=None, agent_use=None)  # windows know no loss of single agents
    parts = (carry, task.scaling, lesson, task.optimizer)
    calls = {"one_pass": lambda: one_pass_step(*parts), "windows": lambda: windows_step(*parts)}
    seconds, rounds = medians(calls, budget.epoch_rounds)
    losses = {name: float(call()[1]) for name, call in calls.items()}
    ratio = seconds["windows"] / seconds["one_pass"]
    return {"epoch_ratio_windows": ratio, "seconds": seconds, "rounds": rounds, "loss": losses}


def loaded(files: Sequence[Path]) -> dict[str, LearnedMap]:
    """Read primal maps, by the names of their representations."""
    found = [load_map(file, PRIMAL) for file in files]
    return {learned.shape.name: learned for learned in found}


def untrained(
    names: Sequence[str], agent_pool: AgentPool, policy: Policy, budget: ForecastBudget
) -> dict[str, LearnedMap]:
    """Draw maps that know nothing, with features measured on the pool."""
    found = {}
    for name in names:
        agents = budget.epoch_agents
        sizes = {"population_size": agents, "agents": agents, "weeks": TRAINED_WEEKS, "delegates": 0}
        settings = MapTraining(representation=name, steps=1, **sizes)
        task = PrimalTask(settings, MapEpisodes([agent_pool], settings), policy)
        network, edges = task.begin(0).average, task.episodes.edges
        found[name] = LearnedMap(PRIMAL, network, task.scaling, network_config(settings), edges)
    return found


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
    parser.add_argument(
        "--agent-pool", type=Path, help="a stored pool that training never saw; default a generated one"
    )
    parser.add_argument("--map", action="append", type=Path, help="file of a primal map; give one or several")
    parser.add_argument("--only", nargs="+", default=(), help="parts to measure, e.g. shift:demand or twins")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--out", type=Path, help="file for the figures")
    given = parser.parse_args(argv)
    budget = QUICK if given.quick else ForecastBudget()
    policy = PricedNewsvendor()
    try:
        agent_pool = AgentPool.load(given.agent_pool) if given.agent_pool else held_out_world(budget)
        maps = loaded(given.map) if given.map else untrained(("bucketized", BASELINE), agent_pool, policy, budget)
        tell = lambda words: print(words, file=sys.stderr, flush=True)  # noqa: E731
        parts = forecast_parts(agent_pool, policy, maps, budget, seed=given.seed, tell=tell)
        parts["epoch"] = lambda: round_digits(epoch_figures(agent_pool, policy, budget))
        measured = run_parts(parts, None, given.only, tell)
        found = {**forecast_figures(measured), **{name: measured[name] for name in ("epoch",) if name in measured}}
    except WalrasError as error:
        parser.exit(2, f"{error}\n")
    if given.out:
        aside = given.out.with_name(given.out.name + ".part")
        aside.write_text(json.dumps(found, indent=1) + "\n")
        aside.replace(given.out)
    print(json.dumps(found) if given.json else table(found))


def held_out_world(budget: ForecastBudget) -> AgentPool:
    """Make up agents that no training saw."""
    known = {"known_weeks": FIRST_FORECAST + int(budget.sizes.origin_weeks[0])}
    return next(pools_from_generator(1, budget.world_agents, budget.world_weeks, HELD_OUT_SEED, **known))


if __name__ == "__main__":
    main()
