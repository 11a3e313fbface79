"""Control three populations with every method: violation against reward, beside the oracle's frontier."""

from dataclasses import replace
from functools import partial

import numpy as np

from lab.capacity_benchmark import COMPOSITIONS, BenchmarkSizes, CapacityBenchmark
from lab.datasets import by_table, evaluation_pool
from lab.evaluate_control import CLAIRVOYANT, ClairvoyantBound, MethodMetrics, evaluate
from lab.figures import bars, frontier, points, to_png
from lab.reference_maps import default_maps
from lab.results import path_interval, relative, round_digits, target_row
from lab.simulation_mpc import simulating_methods, standard_methods
from walras.maps.file import DUAL, PRIMAL
from walras.planning.prices.dual_ascent import ProjectedDual
from walras.policies.base_stock import PricedNewsvendor

OURS, WEAK = "dual bucketized+delegates", "dual global"
TABLE = (
    "mean_violation",
    "near_limit_mean_violation",
    "share_weeks_over_10_percent",
    "near_limit_share_over_10_percent",
    "avoidable_violation",
    "near_limit_share",
    "idle_capacity",
    "reward_kept",
    "pooled_regret_ratio",
    "complementarity_residual",
    "slackness",
    "price_correlation",
    "price_slope",
    "simulations",
    "seconds",
    "oracle_beyond",
)


def parts(context):
    """Return one part for each table and population."""
    return by_table(context, "populations", _measured)


def _measured(context, data, population):
    settings = context.settings
    agent_pool = evaluation_pool(data, context.data, settings["world_agents"])
    chosen = {name: settings[name] for name in ("agents", "cohort", "paths", "weeks")}
    sizes = BenchmarkSizes(**chosen, burn_in=min(6, settings["weeks"] // 3)).fitted_to(agent_pool)
    plans = CapacityBenchmark(agent_pool, PricedNewsvendor(), COMPOSITIONS[population], sizes)
    bound = ClairvoyantBound(
        tuple(settings["ceilings"]), settings["ascent_steps"], ProjectedDual(max_queries=settings["queries"])
    )
    methods, frontiers = list(_methods(settings).values()), []

    def after(case):
        context.tell(f"{data}, {population} demand, path {case.episode.path}")
        frontiers.append([_best(case, bound, slack, sizes.burn_in) for slack in settings["slack"]])

    judged = evaluate(plans.cases(), methods, bound, after)
    names = [*(method.name for method in methods), CLAIRVOYANT]
    measured = {name: MethodMetrics.of(judged, name, sizes.burn_in) for name in names}
    best = np.asarray(frontiers)
    return round_digits(
        {
            "mean_demand_ratio": plans.demand_ratio,
            "methods": {
                name: {
                    **{key: each.summary[key] for key in TABLE},
                    "reward_share": path_interval([one.outcomes[name].reward / one.free.reward for one in judged]),
                }
                for name, each in measured.items()
            },
            "less": {
                other: {name: _less(each, measured[other]) for name, each in measured.items() if name != other}
                for other in (OURS, WEAK)
                if other in measured
            },
            "frontier": [
                {"violation": path_interval(best[:, place, 0]), "reward_share": path_interval(best[:, place, 1])}
                for place in range(best.shape[1])
            ],
        }
    )


def _methods(settings):
    """Return the methods of a size; of the simulating ones only those that the settings name."""
    duals, primals = (default_maps(kind, settings[name]) for kind, name in ((DUAL, "duals"), (PRIMAL, "primals")))
    measured = standard_methods(duals if settings["duals"] else {}, primals if settings["primals"] else {})
    left_out = {method.name for method in simulating_methods()} - set(settings["simulating"])
    return {name: method for name, method in measured.items() if name not in left_out}


def _best(case, bound, slack, burn_in):
    """Return violation and share of reward of the oracle that may exceed capacity by a share."""
    roomy = replace(case, capacity=slack * case.capacity)
    kept = bound.outcomes(roomy, [])[0]
    over = np.maximum(kept.utilization - case.capacity, 0.0) / case.capacity
    return float(over[burn_in:].mean()), kept.reward / case.episode.free.reward


def _less(ours, other):
    difference = ours.less(other)
    return {key: difference[key] for key in ("mean_violation", "idle_capacity", "pooled_regret_ratio")}


def figures(measured, context):
    """Return all tables by data and population."""
    tables = {}
    for name, each in measured.items():
        data, population = name.split(":")
        tables.setdefault(data, {})[population] = each
    return tables


def answer(measured):
    """State where a method without a map is better, then what the dual map reaches on the first table."""
    data = next(iter(measured))
    rows = measured[data].get("baseline", next(iter(measured[data].values())))["methods"]
    if OURS not in rows:
        return f"Dual maps are not measured at this size; without prices violation is {_percent(rows['none'])}."
    better = [
        f"on {each} at {population} demand by {', '.join(names)}"
        for each, tables in measured.items()
        for population, table in tables.items()
        if (names := _better(table["methods"]))
    ]
    first = f"The dual map is beaten in violation and idle capacity both {'; '.join(better)}. " if better else ""
    worse = [
        f"{name} demand ({_percent(table['methods'][OURS])}, published {100 * PUBLISHED[name][0]:.1f} %)"
        for name, table in measured[data].items()
        if table["methods"][OURS]["mean_violation"]["estimate"] > PUBLISHED[name][0]
    ]
    first = (f"Violation is above the published one at {', '.join(worse)}. " if worse else "") + first
    ours = rows[OURS]
    four, base = ("/".join(f"{100 * rows[name][key]['estimate']:.1f}" for key in TABLE[:4]) for name in (OURS, WEAK))
    regret, seconds = (ours[key]["estimate"] for key in ("pooled_regret_ratio", "seconds"))
    return (
        f"{first}On {data} at baseline the dual map reaches {four} % (Global {base} %, published 1.6/3.1/5.5/10.4) "
        f"with {_percent(ours, 'idle_capacity')} idle (target 3 %), regret {regret:.2f} and {seconds:.3f} s per week."
    )


def _better(rows):
    """Return the methods without maps or known futures that leave less violation and less idle capacity."""
    mine = [rows[OURS][key]["estimate"] for key in ("mean_violation", "idle_capacity")]
    rest = {name: row for name, row in rows.items() if name.partition(" ")[0] not in ("dual", "primal")}
    values = {name: [row[key]["estimate"] for key in ("mean_violation", "idle_capacity")] for name, row in rest.items()}
    knows = (CLAIRVOYANT, "MPC perfect forecast")
    return [name for name, (over, idle) in values.items() if name not in knows and over < mine[0] and idle < mine[1]]


def _percent(row, key="mean_violation"):
    return f"{100 * row[key]['estimate']:.1f} %"


FOUR = (
    ("mean_violation", "mean violation"),
    ("near_limit_mean_violation", "violation near the limit"),
    ("share_weeks_over_10_percent", "share of weeks over 10 %"),
    ("near_limit_share_over_10_percent", "share of near-limit weeks over 10 %"),
)
PUBLISHED = {
    "low": (0.002, 0.005, 0.006, 0.015),
    "baseline": (0.016, 0.031, 0.055, 0.104),
    "high": (0.04, 0.06, 0.17, 0.255),
}
BESIDE = (("pooled_regret_ratio", "regret ratio", 1.25), ("idle_capacity", "idle capacity", 0.03))


def key(measured):
    """Compare the dual map with published figures and with Global."""
    rows = []
    for data, tables in measured.items():
        for population, table in tables.items():
            mine = table["methods"].get(OURS)
            if mine is None:
                continue
            wanted = [*((*pair, most) for pair, most in zip(FOUR, PUBLISHED[population], strict=True)), *BESIDE]
            for name, words, most in wanted:
                rows.append(target_row(f"{words}, dual map, {population} demand", data, mine[name], most=most))
            if population == "baseline":
                rows.append(
                    target_row(
                        "correlation of its prices with the oracle's", data, mine["price_correlation"], least=0.9
                    )
                )
                rows.append(
                    target_row("slope of its prices on the oracle's", data, mine["price_slope"], least=0.8, most=1.2)
                )
            if OURS in table["less"].get(WEAK, {}):
                less = relative(table["less"][WEAK][OURS]["mean_violation"], table["methods"][WEAK]["mean_violation"])
                most = -0.5 if population == "high" else -0.2
                rows.append(target_row(f"violation over Global's less 1, {population} demand", data, less, most=most))
    return rows


def pictures(measured):
    """Draw violation against reward with the oracle's frontier, and the seconds of each method."""
    drawn = {}
    for data, rows in measured.items():
        for population, each in rows.items():
            drawn[f"{data}-{population}-reward.png"] = to_png(partial(_against_reward, each), width=5.6)
        drawn[f"{data}-seconds.png"] = to_png(partial(_seconds, next(iter(rows.values()))["methods"]))
    return drawn


def _against_reward(each, axes):
    shown = {name: row for name, row in each["methods"].items() if name != "none"}
    line = [(row["violation"], row["reward_share"]) for row in each["frontier"]]
    frontier(axes, line)
    points(axes, {name: (row["mean_violation"], row["reward_share"]) for name, row in shown.items()})
    axes.set_xlabel("mean violation")
    axes.set_ylabel("reward over that without prices")


def _seconds(methods, axes):
    bars(axes, {name: row["seconds"] for name, row in methods.items() if row["seconds"]["estimate"]})
    axes.set_xscale("log")
    axes.set_xlabel("seconds of deciding per week")
