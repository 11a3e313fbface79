"""Train maps of several architectures with and without each part of the coverage, and judge all of them alike."""

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
    found = {
        f"{GENERATED}:{TRAINING}{own} with {coverage}": partial(_trained, context, own, coverage)
        for own, coverage in names
    }
    for data in available(settings["data"], context.data):
        for own in settings["maps"]:
            for by in settings["by"]:
                found[f"{data}:{by}:{own}"] = partial(_judged, context, data, by, own)
    return found


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
    """Judge one architecture's trainings on the same paths as all others', the shipped coverage being compared with."""
    settings = context.settings
    world = evaluation_pool(data, context.data, settings["judged_agents"])
    sizes = ShiftSizes(target=settings["judged_target"], origins=settings["origins"], steps=settings["steps_of_prices"])
    cases = ShiftCases(world, PricedNewsvendor(), sizes.fitted_to(world))
    maps = {coverage: _map(context, own, coverage) for coverage in settings["coverages"]}
    few = {"cohort": settings["cohort"], "paths": settings["paths"], "draws": 0, "baseline": WHOLE}
    return shift_figures(by, cases, maps, ForecastBudget(alphas={by: settings["alphas"]}, **few), context.tell)


def figures(found, context):
    """Return errors by architecture and coverage with intervals, and how much more is erred without each part."""
    tables = {"trainings": []}
    for name, each in found.items():
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


def answer(found):
    """Say first which removals do not hurt, then what each does on average over attributes and alphas."""
    rows = {}
    for data, by in found.items():
        for maps in by.values() if data != "trainings" else ():
            for own, alphas in maps.items():
                for row in alphas.values():
                    for coverage, more in row["more"].items():
                        rows.setdefault(coverage, {}).setdefault(own, []).append(more)
    told = [_line(coverage, maps) for coverage, maps in rows.items()]
    every = [more for maps in rows.values() for values in maps.values() for more in values]
    hurt, helped = sum(more[1] > 0 for more in every), sum(more[2] < 0 for more in every)
    verdict = f"Removing coverage hurts beyond doubt in {hurt} of {len(every)} cases and helps in {helped}"
    return f"{verdict}; {'; '.join(told)}{_architectures(found)}."


def _line(coverage, maps):
    said = [f"{own} {100 * sum(m[0] for m in values) / len(values):+.0f} %" for own, values in maps.items()]
    return f"with {coverage} the error changes by {', '.join(said)}"


def _architectures(found):
    """Return mean errors by architecture at the whole coverage."""
    sums = {}
    for data, by in found.items():
        for maps in by.values() if data != "trainings" else ():
            for own, alphas in maps.items():
                sums.setdefault(own, []).extend(row["error"][WHOLE]["estimate"] for row in alphas.values())
    said = [f"{own} {100 * sum(values) / len(values):.1f} %" for own, values in sums.items()]
    return f"; with all of it the mean error is {', '.join(said)}"


def key(found):
    """Show what leaving coverage out costs at the largest shifts, which has to be more than nothing."""
    return [
        target_row(
            f"error of {own} trained with {coverage} over that of all coverage less 1, {by} {alpha}",
            data,
            more,
            least=0.0,
        )
        for data, all_by in found.items()
        if data != "trainings"
        for by, maps in all_by.items()
        for own, alphas in maps.items()
        for alpha, row in alphas.items()
        if abs(float(alpha)) == max(abs(float(each)) for each in alphas)
        for coverage, more in row["more"].items()
    ]


def pictures(found):
    """Draw errors by architecture and coverage, for each table, attribute and alpha."""
    return {
        f"{data}-{by}-{alpha}.png": to_png(partial(_drawn, maps, by, alpha))
        for data, all_by in found.items()
        if data != "trainings"
        for by, maps in all_by.items()
        for alpha in next(iter(maps.values()))
    }


def _drawn(maps, by, alpha, axes):
    groups(axes, {own: alphas[alpha]["error"] for own, alphas in maps.items()})
    axes.set_ylim(bottom=0)
    axes.set_ylabel("forecast error (MAPE)")
    axes.set_xlabel(f"trained maps, judged at a shift along {by} of {float(alpha):g}")
