"""Forecast populations that training never saw with every map, beside simulation from the true state of all agents."""

from functools import partial

from lab.datasets import SEED, available, evaluation_pool, has_next_year, next_year
from lab.figures import bars, lines, to_png
from lab.forecast_study import BASELINE, ForecastBudget, forecast_parts
from lab.reference_maps import default_maps
from lab.results import target_row
from lab.shift_cases import BY, ShiftSizes
from walras.maps.file import PRIMAL
from walras.policies.base_stock import PricedNewsvendor

NEXT_YEAR, BESIDE = "next year", "global+delegates"
OURS, SHOWN = "bucketized+delegates", ("bucketized+delegates", "delegates alone", "bucketized", "global", "simulation")


def parts(context):
    """Return one part for each table and attribute, and one for next year's population of each long table."""
    settings = context.settings
    few = settings["few_alphas"]
    alphas = {**dict.fromkeys(BY[:2], settings["alphas"]), **(dict.fromkeys(BY[2:], few) if few else {})}
    names = [(data, by) for data in available(settings["data"], context.data) for by in alphas]
    shifts = {f"{data}:{by}": partial(_measured, context, data, by, alphas[by]) for data, by in names}
    later = [data for data in settings["data"] if has_next_year(data, context.data)]
    return shifts | {f"{data}:{NEXT_YEAR}": partial(_next_year, context, data) for data in later}


def _measured(context, data, by, alphas):
    settings = context.settings
    agent_pool = evaluation_pool(data, context.data, settings["world_agents"])
    return _forecast(context, agent_pool, _sizes(settings).fitted_to(agent_pool), by, alphas)


def _next_year(context, data):
    """Forecast the population of the last weeks, without any shift."""
    settings = context.settings
    later = next_year(data, context.data, _sizes(settings), settings["world_agents"], SEED)
    output = {"new": later.new, "gone": later.gone, "demand_ratio": later.demand_ratio}
    return _forecast(context, later.agent_pool, later.sizes, BY[0], [0.0]) | {"mix": output}


def _sizes(settings):
    return ShiftSizes(target=settings["agents"], sample=settings["sample"], steps=settings["steps"])


def _forecast(context, agent_pool, sizes, by, alphas):
    settings = context.settings
    few = {name: settings[name] for name in ("cohort", "paths", "few_paths", "draws")}
    budget = ForecastBudget(sizes=sizes, alphas={by: alphas}, **few)
    maps = default_maps(PRIMAL, settings["maps"])
    return forecast_parts(agent_pool, PricedNewsvendor(), maps, budget, tell=context.tell)[f"shift:{by}"]()


def figures(measured, context):
    """Return the error at moderate shifts and by alpha, with intervals, and how far below Global it is."""
    tables = {}
    for name, each in measured.items():
        data, by = name.split(":")
        rows = each["by_alpha"]
        tables.setdefault(data, {})[by] = {
            "moderate": each["moderate"].get("interval", {}),
            "over_global": each["moderate"].get("over_baseline", {}),
            "by_alpha": {alpha: row["interval"] for alpha, row in rows.items()},
            "slope": {alpha: row["slope"] for alpha, row in rows.items()},
            "demand_ratio": {alpha: row["demand_ratio"] for alpha, row in rows.items()},
            "by_kind_of_prices": each["by_kind"],
            **({"mix": each["mix"]} if "mix" in each else {}),
        }
    return tables


def answer(measured):
    """State the distance from the target, then how far the error is below Global's, table by table."""
    output = []
    for data, by in measured.items():
        row = by.get("demand", {}).get("moderate", {})
        if OURS in row and BASELINE in row:
            text = f"{100 * row[OURS]['estimate']:.1f} % against {100 * row[BASELINE]['estimate']:.1f} % of Global"
            if BESIDE in row:
                text += f", {100 * row[BESIDE]['estimate']:.1f} % of Global with probe agents"
            limit = f" and {100 * row['simulation']['estimate']:.1f} % of simulating all agents" * ("simulation" in row)
            output.append(f"{data} {text}{limit}")
    over = [data for data, by in measured.items() if by["demand"]["moderate"].get(OURS, {}).get("estimate", 0) > 0.08]
    beaten = [data for data, by in measured.items() if _better(by["demand"]["moderate"])]
    first = f"Probe agents alone, without learning, do better on {', '.join(beaten)}; " if beaten else ""
    verdict = f"above the target of 8 % on {', '.join(over)}" if over else "8 % is met"
    later = [_later(data, by[NEXT_YEAR]) for data, by in measured.items() if NEXT_YEAR in by]
    last = f"; next year's population is forecast with {'; '.join(later)}" if later else ""
    text = f"{first}{verdict}: at moderate demand shifts the error is {'; '.join(output)}{last}."
    return text[:1].upper() + text[1:]


def _later(data, table):
    """State how well next year's population is forecast, and how much of it is new."""
    rows = table["moderate"]
    errors = {name: f"{100 * rows[name]['estimate']:.1f} %" for name in SHOWN if name in rows}
    text = f"{errors.pop(OURS, 'no map')} ({', '.join(f'{name} {error}' for name, error in errors.items())})"
    return f"{text} on {data}, where {100 * table['mix']['new']:.0f} % of the demand is new within a year"


def _better(row):
    """Tell whether probe agents alone have a smaller error than the map that queries them."""
    return "delegates alone" in row and OURS in row and row["delegates alone"]["estimate"] < row[OURS]["estimate"]


def key(measured):
    """Compare errors, and errors relative to Global's, with their targets."""
    rows = []
    for data, by in measured.items():
        for what, table in by.items():
            if OURS not in table["moderate"]:
                continue
            words = "next year's population" if what == NEXT_YEAR else f"moderate shift by {what.replace('_', ' ')}"
            rows.append(target_row(f"forecast error (MAPE), {words}", data, table["moderate"][OURS], most=0.08))
            if OURS in table["over_global"]:
                rows.append(
                    target_row(f"error over Global's less 1, {words}", data, table["over_global"][OURS], most=-0.2)
                )
    return rows


def pictures(measured):
    """Draw error by alpha for each table and attribute, and of next year's population."""
    return {
        f"{data}-{by.replace(' ', '-')}.png": to_png(
            partial(_bars, rows["moderate"]) if by == NEXT_YEAR else partial(_drawn, rows["by_alpha"], by),
            height=2.0 if by == NEXT_YEAR else 3.0,
        )
        for data, all_by in measured.items()
        for by, rows in all_by.items()
    }


def _drawn(by_alpha, by, axes):
    names = [name for name in SHOWN if all(name in row for row in by_alpha.values())]
    lines(
        axes, [float(alpha) for alpha in by_alpha], {name: [row[name] for row in by_alpha.values()] for name in names}
    )
    axes.set_xlabel(f"shift along {by.replace('_', ' ')} (alpha)")
    axes.set_ylabel("forecast error (MAPE)")
    axes.set_ylim(bottom=0)


def _bars(rows, axes):
    bars(axes, {name: rows[name] for name in SHOWN if name in rows})
    axes.set_xlabel("forecast error of next year's population (MAPE)")
    axes.set_xlim(left=0)
