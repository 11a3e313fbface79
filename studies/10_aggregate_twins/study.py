"""Forecast pairs of populations with the same totals, and measure the error on their difference."""

from functools import partial

from lab.datasets import by_table, evaluation_pool
from lab.figures import bars, to_png
from lab.forecast_study import BASELINE, ForecastBudget, twin_figures
from lab.reference_maps import default_maps
from lab.results import round_digits, target_row
from lab.shift_cases import ShiftCases, ShiftSizes
from walras.maps.file import PRIMAL
from walras.policies.base_stock import PricedNewsvendor

OURS, BLIND, EXPECTED = "bucketized+delegates", "no difference", "expected demand"
ALONE = "delegates alone"


def parts(context):
    """Return one part for each table and for each total that twins agree in."""
    return by_table(context, "kinds", _measured)


def _measured(context, data, kind):
    settings = context.settings
    agent_pool = evaluation_pool(data, context.data, settings["world_agents"])
    few = {"cohort": settings["cohort"], "draws": settings["draws"], "twins": settings["pairs"]}
    budget = ForecastBudget(twin_agents=min(settings["agents"], agent_pool.n_agents // 5), twin_kinds=(kind,), **few)
    cases = ShiftCases(
        agent_pool, PricedNewsvendor(), ShiftSizes(origins=settings.get("origins", 4)).fitted_to(agent_pool)
    )
    return round_digits(twin_figures(cases, default_maps(PRIMAL, settings["maps"]), budget, context.tell))[kind]


def figures(measured, context):
    """Return each forecast's error on the difference, with intervals over pairs, and how far below Global it is."""
    tables = {}
    for name, each in measured.items():
        data, kind = name.split(":")
        keys = ("pairs", "interval", "over_baseline", "explained_interval", "difference", "mape_of_each")
        tables.setdefault(data, {})[kind] = {**{key: each[key] for key in keys}, BLIND: each["blind_interval"]}
    return tables


def answer(measured):
    """State where the target is missed and where probe agents alone are better, then all errors."""
    rows = [(data, row) for data, kinds in measured.items() for row in kinds.values()]
    missed = {data for data, row in rows if row["over_baseline"].get(OURS, [0.0])[0] > -0.5}
    beaten = {data for data, row in rows if _estimate(row, ALONE) < _estimate(row, OURS)}
    verdict = (
        f"The target, half of Global's error, is missed on {', '.join(sorted(missed))}"
        if missed
        else "Half of Global's error is met"
    )
    worse = f", and probe agents alone, without learning, are better on {', '.join(sorted(beaten))}" if beaten else ""
    output = "; ".join(_line(data, list(kinds.values())) for data, kinds in measured.items())
    return f"{verdict}{worse}: error on the difference by kind of twins, in % of their use, {output}."


def _estimate(row, name):
    return row["interval"].get(name, {"estimate": float("inf")})["estimate"]


def _line(data, rows):
    output = {"ours": OURS, "probe agents alone": ALONE, "without probe agents": "bucketized", "Global": BASELINE}
    output["simulating everybody"] = "simulation"
    text = [f"{word} {_listed(rows, name)}" for word, name in output.items() if name in rows[0]["interval"]]
    none = " and ".join(f"{100 * row[BLIND]['estimate']:.0f}" for row in rows)
    return f"{data} {', '.join(text)} (seeing no difference: {none})"


def _listed(rows, name):
    return " and ".join(f"{100 * _estimate(row, name):.0f}" for row in rows)


def key(measured):
    """Compare errors on the difference between twins with half of Global's."""
    return [
        target_row(
            f"error on the difference over Global's less 1, same {kind}", data, row["over_baseline"][OURS], most=-0.5
        )
        for data, kinds in measured.items()
        for kind, row in kinds.items()
        if OURS in row["over_baseline"]
    ]


def pictures(measured):
    """Draw the error on the difference by forecast, for each table and kind of twins."""
    return {
        f"{data}-{kind.replace(' ', '-')}.png": to_png(partial(_drawn, row))
        for data, kinds in measured.items()
        for kind, row in kinds.items()
    }


def _drawn(row, axes):
    seen = {name: value for name, value in row["interval"].items() if name != EXPECTED}
    rows = dict(sorted(seen.items(), key=lambda item: item[1]["estimate"]))
    bars(axes, {**rows, "sees no difference": row[BLIND]})
    axes.set_xlabel("error on the difference between twins / their use")
    axes.set_xlim(left=0)
