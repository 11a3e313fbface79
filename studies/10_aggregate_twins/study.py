"""Forecast both of a pair of populations with the same totals, and look at the difference between the two."""

from functools import partial

from walras.maps.map_file import PRIMAL
from walras.policies.base_stock import PricedNewsvendor
from walras.report.study_pictures import bars, to_png
from walras.studies.compared import default_maps
from walras.studies.forecasts import BASELINE, Budget, fitting, rounded, twin_figures
from walras.studies.worlds import available, judged_world
from walras.train.judge_cases import Cases, Sizes

OURS, BLIND, EXPECTED = "bucketized+delegates", "no difference", "expected demand"
ALONE = "bucketized"


def parts(context):
    """Return one part for each table and for each total that twins agree in."""
    settings = context.settings
    names = [(data, kind) for data in available(settings["data"], context.data) for kind in settings["kinds"]]
    return {f"{data}:{kind}": partial(_measured, context, data, kind) for data, kind in names}


def _measured(context, data, kind):
    settings = context.settings
    world = judged_world(data, context.data, settings["world_agents"])
    few = {"cohort": settings["cohort"], "draws": settings["draws"], "twins": settings["pairs"]}
    budget = Budget(twin_agents=min(settings["agents"], world.n_agents // 5), twin_kinds=(kind,), **few)
    cases = Cases(world, PricedNewsvendor(), fitting(Sizes(origins=settings.get("origins", 4)), world))
    return rounded(twin_figures(cases, default_maps(PRIMAL, settings["maps"]), budget, context.tell))[kind]


def figures(found, context):
    """Return each forecast's error on the difference, with intervals over pairs, and how far below Global it is."""
    tables = {}
    for name, each in found.items():
        data, kind = name.split(":")
        keys = ("pairs", "interval", "over_baseline", "explained_interval", "difference", "mape_of_each")
        tables.setdefault(data, {})[kind] = {**{key: each[key] for key in keys}, BLIND: each["blind_interval"]}
    return tables


def answer(found):
    """Say first whether the aim is missed, then our error against Global's and what cannot be forecast better."""
    rows = [(f"{data} ({kind})", row) for data, kinds in found.items() for kind, row in kinds.items()]
    missed = [name for name, row in rows if row["over_baseline"].get(OURS, [0.0])[0] > -0.5]
    verdict = (
        "Half of Global's error is reached everywhere" if not missed else f"Missed in {len(missed)} of {len(rows)}"
    )
    return f"{verdict}: error on the difference, in % of use, {'; '.join(_line(name, row) for name, row in rows)}."


def _line(name, row):
    names = {OURS: "ours", "delegates alone": "delegates alone", ALONE: "without delegates", BASELINE: "Global"}
    names["simulation"] = "simulating everybody"
    error = row["interval"]
    said = [f"{word} {100 * error[key]['estimate']:.1f}" for key, word in names.items() if key in error]
    return f"{name} {', '.join(said)} and {100 * row[BLIND]['estimate']:.1f} for seeing no difference"


def pictures(found):
    """Draw the error on the difference by forecast, for each table and kind of twins."""
    return {
        f"{data}-{kind.replace(' ', '-')}.png": to_png(partial(_drawn, row))
        for data, kinds in found.items()
        for kind, row in kinds.items()
    }


def _drawn(row, axes):
    seen = {name: value for name, value in row["interval"].items() if name != EXPECTED}
    rows = dict(sorted(seen.items(), key=lambda item: item[1]["estimate"]))
    bars(axes, {**rows, "sees no difference": row[BLIND]})
    axes.set_xlabel("error on the difference between twins / their use")
    axes.set_xlim(left=0)
