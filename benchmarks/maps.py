"""Measure the coordination interface: forecasts, control, queries and the cost of training, with the shipped maps.

    python benchmarks/maps.py --quick --json
    python benchmarks/maps.py [--table TABLE] [--maps default|retail|FOLDER] [--parts FOLDER] [--json] [--out FILE]

Without a table agents are made up from a seed that no training used. A table is one that training never saw: maps of
the interface are asked about it. The competitors (`benchmarks/maps/`) were trained on the made-up pools of
`default`, and are compared with that alone. `benchmarks/maps_forecast.py` and
`benchmarks/maps_control.py` print more of each part.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from maps_control import HELD_OUT_SEED, KNOWN_WEEKS, held_out_world
from maps_forecast import epoch_figures

from lab import capacity_benchmark as control_sizes
from lab.control_study import control_figures, control_parts
from lab.forecast_study import QUICK, ForecastBudget, forecast_figures, forecast_parts
from lab.reference_maps import reference_maps
from lab.results import round_digits
from lab.runner import machine, run_parts
from walras.config import TableSettings
from walras.data.panel import Panel
from walras.errors import WalrasError
from walras.maps.file import DUAL, PRIMAL
from walras.maps.history import History
from walras.maps.interface import Interface
from walras.planning.prices.dual_ascent import GaussNewton, NewtonThenProjected, ProjectedDual, solve_prices
from walras.planning.prices.simulated_view import SimulatedView, broadcast_scenarios
from walras.policies.base_stock import PricedNewsvendor
from walras.simulation.record import Record
from walras.simulation.run import simulate, week_of
from walras.train.agent_pool import AgentPool
from walras.train.history import FIRST_FORECAST

ORIGIN, HORIZON_WEEKS = 70, 26
WORLD_AGENTS, QUICK_AGENTS = 24_000, 20_000
QUERIES = 30
ASKED_FOR = ("quick", "agents", "paths", "one_start", "seed", "world_seed")
"""Options that change what is measured."""

TOLERANCES = (0.1, 0.05, 0.02, 0.01, 0.005)
"""Residuals at which searches by simulation stop, tried in turn."""

SEARCHES = {
    "Newton": lambda tolerance: NewtonThenProjected(GaussNewton(tolerance, 8), ProjectedDual(0.3, tolerance)),
    "projected": lambda tolerance: ProjectedDual(0.5, tolerance),
}


def agent_pools(table: Path | None, agents: int, seed: int) -> AgentPool:
    """Return the held-out pool: made up, or a table's."""
    if table is None:
        return held_out_world(agents, seed)
    from walras.cli.options import load_panel

    panel: Panel = load_panel(table, TableSettings())
    known = FIRST_FORECAST + (panel.n_weeks - FIRST_FORECAST) // 2
    return AgentPool.from_panel(panel, seed=seed, known_weeks=min(known, KNOWN_WEEKS))


def encoded(interface: Interface, agent_pool: AgentPool) -> tuple:
    """Encode all agents of a pool in the middle of its weeks; return the view, seconds, and what comes after."""
    weeks, policy = min(ORIGIN, agent_pool.n_weeks // 2), PricedNewsvendor()
    pop_window = agent_pool.window(np.flatnonzero(agent_pool.active[weeks]), 0, weeks + HORIZON_WEEKS)
    people, start = pop_window.population, jnp.asarray(0)
    known = week_of(pop_window.exogenous, start, weeks + 1)
    record = Record(agents=True, flows=())
    rollout = simulate(people, known, policy, initial=pop_window.initial, record=record, throw=False)
    history = History.from_simulation(
        people,
        known,
        pop_window.initial,
        rollout.agents,
        pop_window.expected_use[weeks],
        pop_window.holidays[weeks + 1 : weeks + 1 + HORIZON_WEEKS],
        valid=np.asarray(pop_window.valid, np.float32)[: weeks + 1],
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        view = interface.encode(people, history, policy, weeks=HORIZON_WEEKS)
        view.shadow_prices(np.ones((HORIZON_WEEKS, 1)) * view.scale)
        seconds.append(time.perf_counter() - started)
    state = simulate(people, week_of(known, start, weeks), policy, initial=pop_window.initial, throw=False).final
    future = week_of(pop_window.exogenous, jnp.asarray(weeks), HORIZON_WEEKS)
    return view, min(seconds), (people, future, state)


def query_figures(interface: Interface, agent_pool: AgentPool, repeat: int) -> dict:
    """Time queries on an encoded population, and simulating so many times as many agents."""
    view, encode_seconds, coming = encoded(interface, agent_pool)
    random = np.random.default_rng(0)
    prices = view.price_scale * random.uniform(0, 0.5, (64, HORIZON_WEEKS, 1))
    capacity = view.scale * random.uniform(0.8, 1.2, (64, HORIZON_WEEKS, 1))
    calls = {
        "utilization": lambda: view.utilization(prices[0]),
        "shadow_prices": lambda: view.shadow_prices(capacity[0]),
        "batch_64": lambda: view.utilization(prices),
        "batch_64_dual": lambda: view.shadow_prices(capacity),
    }
    found = {name: 1e3 * _median(call) for name, call in calls.items()}
    simulated = _simulating(coming, repeat)
    searched = iterating(view, coming)
    each = 5e5 / searched["agents"] / (1e-3 * found["shadow_prices"])
    faster = {name: row and row["seconds"] * each for name, row in searched.items() if name.startswith("to_")}
    return {
        "iterating": searched,
        "times_faster_than_iterating_500k": faster,
        "query_ms": found,
        "jacobian": slope_figures(view, coming),
        "encode_s_20k": encode_seconds * 20_000 / view.population.n_agents,
        "encoded_agents": view.population.n_agents,
        "simulate_ms": 1e3 * simulated,
        "simulated_agents": repeat * coming[0].n_agents,
        "times_faster_than_one_simulation": 1e3 * simulated / found["utilization"],
    }


def slope_figures(view, coming: tuple) -> dict:
    """Compare the primal map's slope with that of a simulation of everybody, at the dual map's prices.

    Entries matter whose true value is at least a twentieth of the largest.
    """
    people, future, state = coming
    prices = view.shadow_prices(capacity_of(view, coming))

    def use(plan):
        done = simulate(people, future, PricedNewsvendor(), initial=state, shadow_prices=plan[:, None], throw=False)
        return done.totals.utilization[:, 0]

    true = np.asarray(jax.jit(jax.jacfwd(use))(jnp.asarray(prices[:, 0], jnp.float32)), float)[1:, 1:]
    ours = view.jacobian(prices)[1:, 1:]
    matters = np.abs(true) >= 0.05 * np.abs(true).max()
    return {
        "relative_error": float(np.linalg.norm(ours - true) / np.linalg.norm(true)),
        "right_signs": float((np.sign(ours) == np.sign(true))[matters].mean()),
        "entries": int(matters.sum()),
    }


def capacity_of(view, coming: tuple) -> np.ndarray:
    """Return nine tenths of mean use without prices, the same in every week."""
    people, future, state = coming
    done = simulate(people, future, PricedNewsvendor(), initial=state, throw=False)
    return np.full((HORIZON_WEEKS, 1), 0.9 * float(np.asarray(done.totals.utilization[8:]).mean()))


def iterating(view, coming) -> dict:
    """Time searches by simulation until they are as good as the dual map's prices, or give up.

    As good is said twice: violation as low, which high prices reach soon, and a residual (of violation, and of prices
    where there is room) as low. The searches are those that plans without maps are made by, the faster one counts; they
    know what will happen, the map does not. Weeks that no price can change do not count.
    """
    people, future, state = coming
    simulated = SimulatedView(people, broadcast_scenarios(future, 1), PricedNewsvendor(), state)
    counts, capacity = np.asarray(view.controllable), capacity_of(view, coming)

    def measured_at(prices) -> dict:
        room = ((capacity - simulated.utilization(prices)) / capacity)[counts]
        short = np.minimum(prices[counts] / view.price_scale, room)
        return {"violation": float(np.maximum(-room, 0.0).mean()), "residual": float(np.abs(short).mean())}

    ours, found = measured_at(view.shadow_prices(capacity)), []
    for name, solver in SEARCHES.items():
        for tolerance in TOLERANCES:
            chosen = solver(tolerance)
            solve_prices(simulated, capacity, None, chosen)  # compiled
            started = time.perf_counter()
            done = solve_prices(simulated, capacity, None, chosen)
            seconds = time.perf_counter() - started
            reached = measured_at(done.prices.reshape(capacity.shape))
            found.append({"search": name, "seconds": seconds, "simulations": done.queries, **reached})
    best = {}
    for each in ours:
        there = [row for row in found if row[each] <= ours[each]]
        best[each] = min(there, key=lambda row: row["seconds"]) if there else None
    return {"dual_map": ours, "agents": people.n_agents, **{f"to_{name}": row for name, row in best.items()}}


def _median(call) -> float:
    call()
    seconds = []
    for _ in range(QUERIES):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _simulating(coming: tuple, repeat: int) -> float:
    """Return seconds of simulating the coming weeks `repeat` times, that is of so many times the agents."""
    people, future, state = coming
    record = Record.use_and_reward()

    def once() -> None:
        done = simulate(people, future, PricedNewsvendor(), initial=state, record=record, throw=False)
        np.asarray(done.totals.utilization)

    once()
    started = time.perf_counter()
    for _ in range(repeat):
        once()
    return time.perf_counter() - started


def quick_budget() -> ForecastBudget:
    """Return what takes a few minutes on two quiet cores."""
    alphas = {"demand": (-1.0, -0.5, 0.0, 0.5, 1.0)}
    few = {"twins": 3, "cohorts": (250, 2000), "draws_of_cohorts": 2, "epoch_agents": 256}
    return replace(QUICK, alphas=alphas, paths=6, **few)


def measured(given: argparse.Namespace) -> dict:
    """Measure all parts, or those asked for."""
    started = time.perf_counter()
    interface = Interface.load(given.maps)
    if interface.primal is None or interface.dual is None:
        raise WalrasError(f"{given.maps} lacks a map but both are measured; train the other one too")

    def tell(words: str) -> None:
        print(f"{time.perf_counter() - started:6.0f} s: {words}", file=sys.stderr, flush=True)

    tell("preparing a pool that training never saw")
    agent_pool = agent_pools(given.table, QUICK_AGENTS if given.quick else WORLD_AGENTS, given.world_seed)
    found = run_parts(all_parts(interface, agent_pool, given, tell), given.parts, given.only, tell)
    forecasts, control = forecast_figures(found), control_figures(found)
    return round_digits(
        {
            "mape": forecasts["mape"],
            "control": by_method(control),
            **found.get("query", {}),
            "epoch_ratio_windows": found.get("epoch", {}).get("epoch_ratio_windows"),
            "forecast": forecasts,
            "epoch": found.get("epoch"),
            "control_in_full": control,
            "maps": given.maps,
            "table": None if given.table is None else given.table.name,
            "machine": machine(),
            "asked_for": {name: getattr(given, name) for name in ASKED_FOR},
            "seconds": time.perf_counter() - started,
        }
    )


def all_parts(
    interface: Interface, agent_pool: AgentPool, given: argparse.Namespace, tell: Callable[[str], None]
) -> dict:
    """Return what is to be measured, part by part."""
    policy = PricedNewsvendor()
    primals, duals = {interface.primal.shape.name: interface.primal}, {interface.dual.shape.name: interface.dual}
    if given.maps == "default":  # the others were trained on what these were trained on
        primals, duals = reference_maps(PRIMAL, interface.primal), reference_maps(DUAL, interface.dual)
    budget = quick_budget() if given.quick else ForecastBudget()
    sizes = control_sizes.QUICK if given.quick else control_sizes.BenchmarkSizes()
    if given.agents:
        budget = replace(budget, sizes=replace(budget.sizes, target=given.agents))
        sizes = replace(sizes, agents=given.agents)
    if given.paths:
        few = {name: min(getattr(budget, name), given.paths) for name in ("twins", "draws_of_cohorts")}
        budget = replace(budget, paths=given.paths, **few)
        sizes = replace(sizes, paths=given.paths)
    budget = replace(budget, sizes=budget.sizes.fitted_to(agent_pool))
    kept = {"quick": given.quick or given.one_start, "policy": policy, "unseen": not given.quick}
    kept["sizes"] = sizes.fitted_to(agent_pool)
    return {
        "query": lambda: round_digits(query_figures(interface, agent_pool, 5 if given.quick else 25)),
        **forecast_parts(agent_pool, policy, primals, budget, seed=given.seed, tell=tell),
        "epoch": lambda: round_digits(epoch_figures(agent_pool, policy, budget)),
        **control_parts(agent_pool, duals, interface.primal, **kept),
    }


CONTROL = (
    "mean_violation",
    "near_limit_mean_violation",
    "share_weeks_over_10_percent",
    "near_limit_share_over_10_percent",
    "avoidable_violation",
    "reward_kept",
    "pooled_regret_ratio",
    "idle_capacity",
    "near_limit_share",
)


def by_method(control: dict) -> dict:
    """Return the figures that are looked at first, by population and method."""
    return {
        population: {
            method: {name: summary[name]["estimate"] for name in CONTROL} for method, summary in each["methods"].items()
        }
        for population, each in control["populations"].items()
    }


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few minutes: fewer and smaller populations")
    parser.add_argument("--table", type=Path, help="a table that training never saw; default made-up agents")
    parser.add_argument("--maps", default="default", help="a shipped interface, or a folder")
    parser.add_argument("--parts", type=Path, help="folder that keeps each part, so that a stopped run goes on")
    parser.add_argument("--only", nargs="+", default=(), help="parts to measure now, e.g. query shift:demand control")
    parser.add_argument("--agents", type=int, help="agents of each judged population; default 20,000")
    parser.add_argument("--paths", type=int, help="paths of each population and shift; default 50")
    parser.add_argument("--one-start", action="store_true", help="search the oracle's prices from one start alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world-seed", type=int, default=HELD_OUT_SEED, help="of the agents and weeks that judge")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--out", type=Path, help="file for the figures")
    given = parser.parse_args(argv)
    try:
        found = measured(given)
    except WalrasError as error:
        parser.exit(2, f"{error}\n")
    if given.out:
        aside = given.out.with_name(given.out.name + ".part")
        aside.write_text(json.dumps(found, indent=1) + "\n")
        aside.replace(given.out)
    print(json.dumps(found) if given.json else json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
