"""Train maps of several architectures with and without parts of the training coverage, and evaluate them alike."""

from functools import partial

from lab.datasets import GENERATED, available, evaluation_pool
from lab.figures import groups, to_png
from lab.forecast_study import ForecastBudget, shift_figures
from lab.reference_maps import train_or_load, training_facts
from lab.results import target_row
from lab.shift_cases import ShiftCases, ShiftSizes
from walras.policies.base_stock import PricedNewsvendor

TRAINING = "train "
COVERAGES = {
    "shifts and mixed prices": {},
    "no shifts": {"composition_shift": 0.0, "margin_tilt": 0.0},
    "Haar prices only": {"prices": "haar"},
}
WHOLE = "shifts and mixed prices"


def parts(context):
    """Return one part for each training, then one for each table, coverage and attribute."""
    settings = context.settings
    names = [(own, coverage) for own in settings["maps"] for coverage in settings["coverages"]]
    measured = {
        f"{GENERATED}:{TRAINING}{own} with {coverage}": partial(_trained, context, own, coverage)
        for own, coverage in names
    }
    for data in available(settings["data"], context.data):
        for own in settings["maps"]:
            for by in settings["by"]:
                measured[f"{data}:{by}:{own}"] = partial(_judged, context, data, by, own)
    return measured


def _map(context, own, coverage):
    settings = context.settings
    representation, _, rest = own.partition("+")
    given = {
        **settings["training"],
        "representation": representation,
        "delegates": settings["delegates"] if rest else 0,
    }
    return train_or_load({**given, **COVERAGES[coverage]}, context.folder)


def _trained(context, own, coverage):
    return {"map": own, "coverage": coverage, **training_facts(_map(context, own, coverage))}


def _judged(context, data, by, own):
    """Evaluate one architecture's trainings on the same paths as all others', against the full coverage."""
    settings = context.settings
    agent_pool = evaluation_pool(data, context.data, settings["judged_agents"])
    sizes = ShiftSizes(target=settings["judged_target"], origins=settings["origins"], steps=settings["steps_of_prices"])
    cases = ShiftCases(agent_pool, PricedNewsvendor(), sizes.fitted_to(agent_pool))
    maps = {coverage: _map(context, own, coverage) for coverage in settings["coverages"]}
    few = {"cohort": settings["cohort"], "paths": settings["paths"], "draws": 0, "baseline": WHOLE}
    return shift_figures(by, cases, maps, ForecastBudget(alphas={by: settings["alphas"]}, **few), context.tell)


def figures(measured, context):
    """Return errors by architecture and coverage with intervals, and their increase without each part."""
    tables = {"trainings": []}
    for name, each in measured.items():
        data, what, *own = name.split(":")
        if not own:
            tables["trainings"].append(each)
            continue
        place = tables.setdefault(data, {}).setdefault(what, {})
        place[own[0]] = {
            alpha: {
                "error": {name: value for name, value in row["interval"].items() if name in COVERAGES},
                "more": {name: value for name, value in row["over_baseline"].items() if name in COVERAGES},
            }
            for alpha, row in each["by_alpha"].items()
        }
    return tables


def answer(measured):
    """State in how many cases removal hurts, then the average effect over attributes and alphas."""
    rows = {}
    for data, by in measured.items():
        for maps in by.values() if data != "trainings" else ():
            for own, alphas in maps.items():
                for row in alphas.values():
                    for coverage, more in row["more"].items():
                        rows.setdefault(coverage, {}).setdefault(own, []).append(more)
    output = [_line(coverage, maps) for coverage, maps in rows.items()]
    every = [more for maps in rows.values() for values in maps.values() for more in values]
    hurt, helped = sum(more[1] > 0 for more in every), sum(more[2] < 0 for more in every)
    effect = f"increases the error significantly in {hurt} of {len(every)} cases and decreases it in {helped}"
    verdict = f"Removing coverage {effect}"
    return f"{verdict}; {'; '.join(output)}{_architectures(measured)}."


def _line(coverage, maps):
    text = [f"{own} {100 * sum(m[0] for m in values) / len(values):+.0f} %" for own, values in maps.items()]
    return f"with {coverage} the error changes by {', '.join(text)}"


def _architectures(measured):
    """Return mean errors by architecture at full coverage."""
    sums = {}
    for data, by in measured.items():
        for maps in by.values() if data != "trainings" else ():
            for own, alphas in maps.items():
                sums.setdefault(own, []).extend(row["error"][WHOLE]["estimate"] for row in alphas.values())
    text = [f"{own} {100 * sum(values) / len(values):.1f} %" for own, values in sums.items()]
    return f"; with full coverage the mean error is {', '.join(text)}"


def key(measured):
    """Compare the increase of the error without coverage at the largest shifts with 0."""
    return [
        target_row(
            f"error of {own} trained with {coverage} over that of all coverage less 1, {by} {alpha}",
            data,
            more,
            least=0.0,
        )
        for data, all_by in measured.items()
        if data != "trainings"
        for by, maps in all_by.items()
        for own, alphas in maps.items()
        for alpha, row in alphas.items()
        if abs(float(alpha)) == max(abs(float(each)) for each in alphas)
        for coverage, more in row["more"].items()
    ]


def pictures(measured):
    """Draw errors by architecture and coverage, for each table, attribute and alpha."""
    return {
        f"{data}-{by}-{alpha}.png": to_png(partial(_drawn, maps, by, alpha))
        for data, all_by in measured.items()
        if data != "trainings"
        for by, maps in all_by.items()
        for alpha in next(iter(maps.values()))
    }


def _drawn(maps, by, alpha, axes):
    groups(axes, {own: alphas[alpha]["error"] for own, alphas in maps.items()})
    axes.set_ylim(bottom=0)
    axes.set_ylabel("forecast error (MAPE)")
    axes.set_xlabel(f"trained maps, evaluated at a shift along {by} of {float(alpha):g}")
