"""Judge dual maps on plans that are fixed beforehand: violation, and what it cost.

    python benchmarks/maps_control.py --dual bucketized=b.walras --dual global=g.walras [--primal p.walras]
        [--pool pool.walras] [--quick] [--json]

Agents and weeks are held out: a pool made up from another seed, or one that is given. Populations of low, baseline and
high demand keep to Haar capacity paths tuned so that about 55 % of the weeks are near their limit, and the baseline
also to families that training never sees. Every path has its own agents, weeks and capacity, the same for all methods.
"""

import argparse
import json
import sys
import time

from lab.control_study import control_figures, control_parts
from lab.runner import run_parts
from walras.maps.file import DUAL, PRIMAL, load_map
from walras.population.generate import generate_panel
from walras.train.agent_pool import AgentPool
from walras.train.history import FIRST_FORECAST

HELD_OUT_SEED, WORLD_AGENTS, WORLD_WEEKS = 901, 20_000, 190
KNOWN_WEEKS = FIRST_FORECAST + 64
"""First weeks of a table that agents and their attributes are read off; all that is judged comes later."""

SHOWN = {
    "mean_violation": "violation",
    "near_limit_mean_violation": "near limit",
    "share_weeks_over_10_percent": ">10%",
    "near_limit_share_over_10_percent": "near >10%",
    "near_limit_share": "near share",
    "avoidable_violation": "avoidable",
    "idle_capacity": "idle",
    "reward_kept": "reward kept",
    "regret_ratio": "regret",
    "pooled_regret_ratio": "pooled",
    "mean_price": "price",
    "price_correlation": "price corr",
    "price_slope": "slope",
    "complementarity_residual": "complem.",
    "oracle_beyond": "o.beyond",
}


def show(answer):
    """Print tables: one row per method, estimates with their 95 % intervals below."""
    for name, each in answer["populations"].items():
        _table(f"{name} demand (mean demand x {each['mean_demand_ratio']:.2f})", each)
    for name, each in answer["unseen_families"].items():
        _table(f"unseen family: {name}", each)
    for name, row in answer.get("loss_terms", {}).items():
        print(f"loss terms of {name}: " + ", ".join(f"{term} {value['estimate']:.4f}" for term, value in row.items()))
    for name, row in answer.get("cycle", {}).items():
        print(f"cycle of {name}: " + ", ".join(f"{term} {value['estimate']:.3f}" for term, value in row.items()))


def _table(title, figures):
    differences = {f"{name} - global"[-12:]: each for name, each in figures.get("less_global", {}).items()}
    rows = {**figures["methods"], **differences}
    print(f"\n{title}\n{'':<12}" + "".join(f"{label:>12}" for label in SHOWN.values()))
    for method, summary in rows.items():
        print(f"{method:<12}" + "".join(f"{_number(summary[key]['estimate']):>12}" for key in SHOWN))
        print(f"{'':<12}" + "".join(f"{_range(summary[key]):>12}" for key in SHOWN))


def _number(value):
    return "-" if value is None else f"{value:.3f}"


def _range(summary):
    return "" if summary["low"] is None else f"{summary['low']:.2f}..{summary['high']:.2f}"


def held_out_world(agents=WORLD_AGENTS, seed=HELD_OUT_SEED):
    """Make up a pool that judges, from a seed that training never uses; its first weeks tell who agents are."""
    panel = generate_panel(agents, WORLD_WEEKS, seed)
    return AgentPool.from_panel(panel, seed=seed, known_weeks=KNOWN_WEEKS)


def main():
    """Judge the maps named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dual", action="append", default=[], metavar="NAME=FILE", help="a dual map; may be repeated")
    parser.add_argument("--primal", help="a primal map, for the cycle check")
    parser.add_argument("--agent-pool", help="a stored pool; without it one is generated")
    parser.add_argument("--quick", action="store_true", help="a few paths of small populations")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    given = parser.parse_args()
    duals = dict(each.partition("=")[::2] for each in given.dual)
    duals = {name: load_map(path, DUAL) for name, path in duals.items()}
    primal = None if given.primal is None else load_map(given.primal, PRIMAL)
    started = time.perf_counter()

    def told(sentence):
        print(f"{time.perf_counter() - started:6.0f} s: {sentence}", file=sys.stderr)

    agent_pool = AgentPool.load(given.agent_pool) if given.agent_pool else held_out_world()
    answer = control_figures(run_parts(control_parts(agent_pool, duals, primal, quick=given.quick), None, tell=told))
    answer["seconds"] = time.perf_counter() - started
    print(json.dumps(answer)) if given.json else show(answer)


if __name__ == "__main__":
    main()
