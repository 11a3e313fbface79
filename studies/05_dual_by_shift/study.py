"""Control populations of another mix with dual maps, and compare the maps path by path."""

from functools import partial

from lab.capacity_benchmark import BenchmarkSizes, CapacityBenchmark
from lab.control_study import cycle_figures, method_figures
from lab.controllers import DualMapController, NoControl, ProportionalRationing
from lab.datasets import available, evaluation_pool
from lab.evaluate_control import ClairvoyantBound
from lab.figures import lines, to_png
from lab.forecast_study import BASELINE
from lab.reference_maps import default_maps
from lab.results import relative, round_digits, target_row
from walras.maps.features import HORIZON
from walras.maps.file import DUAL, PRIMAL
from walras.planning.prices.dual_ascent import ProjectedDual
from walras.policies.base_stock import PricedNewsvendor

OURS, CYCLE = "bucketized+delegates", "cycle"
FOUR = {
    "mean_violation": "mean violation",
    "near_limit_mean_violation": "violation near the limit",
    "share_weeks_over_10_percent": "share of weeks over 10 %",
    "near_limit_share_over_10_percent": "of near-limit weeks over 10 %",
}
BESIDE = ("idle_capacity", "pooled_regret_ratio", "reward_kept", "near_limit_share", "avoidable_violation")


def parts(context):
    """Return one part for each table and composition, and one for the cycle of each table."""
    settings, measured = context.settings, {}
    for data in available(settings["data"], context.data):
        measured |= {f"{data}:{alpha}": partial(_measured, context, data, alpha) for alpha in settings["alphas"]}
        if settings["weeks"] > HORIZON:
            measured[f"{data}:{CYCLE}"] = partial(_cycled, context, data)
    return measured


def _plans(context, data, alpha):
    settings = context.settings
    agent_pool = evaluation_pool(data, context.data, settings["world_agents"])
    chosen = {name: settings[name] for name in ("agents", "cohort", "paths", "weeks")}
    sizes = BenchmarkSizes(**chosen, burn_in=min(6, settings["weeks"] // 3)).fitted_to(agent_pool)
    return CapacityBenchmark(agent_pool, PricedNewsvendor(), alpha, sizes)


def _cycled(context, data):
    """Forecast use at the prices that dual maps issue for a capacity, and simulate it."""
    duals = default_maps(DUAL, context.settings["maps"])
    primal = next(iter(default_maps(PRIMAL).values()))
    plans = _plans(context, data, 0.0)
    return round_digits({name: cycle_figures(plans, primal, dual) for name, dual in duals.items()})


def _measured(context, data, alpha):
    settings, plans = context.settings, _plans(context, data, alpha)
    foresight = ClairvoyantBound((2.0,), settings["ascent_steps"], ProjectedDual(max_queries=settings["queries"]))
    duals = default_maps(DUAL, settings["maps"])
    methods = [NoControl(), ProportionalRationing(), *(DualMapController(name, dual) for name, dual in duals.items())]
    return round_digits({"mean_demand_ratio": plans.demand_ratio, **method_figures(plans, methods, foresight)})


def figures(measured, context):
    """Return violations, their cost, and the differences to Global by table and alpha; and the cycle."""
    tables = {}
    for name, each in measured.items():
        data, alpha = name.split(":")
        wanted = (*FOUR, *BESIDE)
        place = tables.setdefault(data, {"by_alpha": {}, CYCLE: {}})
        if alpha == CYCLE:
            place[CYCLE] = each
            continue
        place["by_alpha"][alpha] = {
            "mean_demand_ratio": each["mean_demand_ratio"],
            "methods": {name: {key: row[key] for key in wanted} for name, row in each["methods"].items()},
            "less_global": {name: {key: row[key] for key in wanted} for name, row in each["less_global"].items()},
        }
    return tables


def answer(measured):
    """State where rationing or Global leave less violation, the difference to Global, and idle capacity."""
    output, cut, base = [], [], []
    for data, rows in measured.items():
        if not rows["by_alpha"]:
            continue
        share, idle = [], []
        for alpha, row in rows["by_alpha"].items():
            ours, other, throttle = (row["methods"][name] for name in (OURS, BASELINE, "throttle"))
            over = [each["mean_violation"]["estimate"] for each in (ours, other, throttle)]
            share.append(1 - over[0] / max(over[1], 1e-9))
            idle.append(ours["idle_capacity"]["estimate"])
            base += [f"{data} at alpha {alpha}"] if over[0] > over[1] else []
            cut += [data] if over[0] > over[2] and data not in cut else []
        output.append(
            f"{data} {100 * min(share):.0f} to {100 * max(share):.0f} % below Global's, with {100 * min(idle):.0f} to "
            f"{100 * max(idle):.0f} % of capacity idle in binding weeks (target 3 %)"
        )
    first = f"Proportional rationing leaves less violation on {', '.join(cut)}; " if cut else ""
    first += f"Global's is lower on {', '.join(base)}; " if base else ""
    return f"{first}violation of the dual map is on {'; on '.join(output)}."


def key(measured):
    """Compare avoidable violation relative to Global's with published figures, and the cycle with its target."""
    rows = []
    for data, tables in measured.items():
        for alpha, table in tables["by_alpha"].items():
            if OURS in table["less_global"]:
                name = "avoidable_violation"
                less = relative(table["less_global"][OURS][name], table["methods"][BASELINE][name])
                most = -0.5 if float(alpha) >= 1 else -0.2
                rows.append(
                    target_row(f"avoidable violation over Global's less 1, alpha {alpha}", data, less, most=most)
                )
        if OURS in tables[CYCLE]:
            rows.append(
                target_row("cycle F(G(K)) against U(G(K)) (MAPE)", data, tables[CYCLE][OURS]["cycle_mape"], most=0.03)
            )
    return rows


def pictures(measured):
    """Draw violation and idle capacity by alpha."""
    drawn = {**{key: words for key, words in FOUR.items() if key.startswith("mean")}, "idle_capacity": "idle capacity"}
    return {
        f"{data}-{key}.png": to_png(partial(_drawn, rows["by_alpha"], key, words))
        for data, rows in measured.items()
        if rows["by_alpha"]
        for key, words in drawn.items()
    }


def _drawn(rows, key, words, axes):
    names = [name for name in next(iter(rows.values()))["methods"] if name != "none"]
    lines(
        axes,
        [float(alpha) for alpha in rows],
        {name: [row["methods"][name][key] for row in rows.values()] for name in names},
    )
    axes.set_xlabel("shift along demand (alpha)")
    axes.set_ylabel(words)
    axes.set_ylim(bottom=0)
