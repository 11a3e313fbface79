"""Train maps that see what agents earn and maps that do not on the same worlds, and judge both under shifts."""

from functools import partial

from walras.policies.base_stock import PricedNewsvendor
from walras.report.study_pictures import bars, lines, to_png
from walras.studies.forecasts import Budget, fitting, rounded, shift_figures, twin_figures
from walras.studies.trained import held_out_curve, trained_map
from walras.studies.worlds import MADE_UP, available, judged_world
from walras.train.judge_cases import Cases, Sizes

BLIND, SEED, TRAINING = ", blind", ", seed ", "train "


def parts(context):
    """Return one part for each training, then one for each table, map, and attribute or kind of twins."""
    settings = context.settings
    found = {f"{MADE_UP}:{TRAINING}{name}": partial(_trained, context, name) for name in _names(settings["maps"])}
    for data in available(settings["data"], context.data):
        for own in settings["maps"]:
            for by in settings["by"]:
                found[f"{data}:{by}:{own}"] = partial(_shifted, context, data, by, own)
            for kind in settings["kinds"]:
                found[f"{data}:twins of the same {kind}:{own}"] = partial(_twins, context, data, kind, own)
    return found


def _names(maps):
    return [name for own in maps for name in (own, own + BLIND)]


def _map(context, name):
    settings = context.settings
    own, _, seed = name.removesuffix(BLIND).partition(SEED)
    representation, _, rest = own.partition("+")
    given = {
        **settings["training"],
        "seed": int(seed or 0),
        "representation": representation,
        "delegates": settings["delegates"] if rest else 0,
    }
    return trained_map({**given, "blind": settings["blind"] if name.endswith(BLIND) else ()}, context.folder)


def _trained(context, name):
    return held_out_curve(_map(context, name))


def _judging(context, data, own):
    settings = context.settings
    world = judged_world(data, context.data, settings["judged_agents"])
    sizes = Sizes(target=settings["judged_target"], origins=settings["origins"], steps=settings["steps_of_prices"])
    maps = {name: _map(context, name) for name in _names([own])}
    return Cases(world, PricedNewsvendor(), fitting(sizes, world)), maps


def _shifted(context, data, by, own):
    settings = context.settings
    cases, maps = _judging(context, data, own)
    few = {"cohort": settings["cohort"], "paths": settings["paths"], "draws": 0, "baseline": own}
    return shift_figures(by, cases, maps, Budget(alphas={by: settings["alphas"]}, **few), context.tell)


def _twins(context, data, kind, own):
    settings = context.settings
    cases, maps = _judging(context, data, own)
    few = {"cohort": settings["cohort"], "draws": 2, "twins": settings["pairs"], "baseline": own}
    budget = Budget(twin_kinds=(kind,), twin_agents=min(2000, cases.world.n_agents // 5), **few)
    return rounded(twin_figures(cases, maps, budget, context.tell))[kind]


def figures(found, context):
    """Return errors of both maps with intervals, and how much more the blind one errs, path by path."""
    tables = {"trainings": {}}
    for name, each in found.items():
        data, what, *own = name.split(":")
        if not own:
            tables["trainings"][what.removeprefix(TRAINING)] = each
            continue
        place = tables.setdefault(data, {}).setdefault(own[0], {})
        blind = own[0] + BLIND
        if "by_alpha" not in each:
            kept = {name: value for name, value in each["interval"].items() if name in (own[0], blind)}
            place[what] = {"error": kept, "more": each["over_baseline"].get(blind)}
            continue
        rows = each["by_alpha"]
        place[what] = {
            "error": {alpha: _both(row["interval"], own[0]) for alpha, row in rows.items()},
            "more": {alpha: row["over_baseline"].get(blind) for alpha, row in rows.items()},
        }
    return tables


def _both(intervals, own):
    return {name: value for name, value in intervals.items() if name in (own, own + BLIND)}


def answer(found):
    """Say first where seeing what agents earn does not help, then by how much it does."""
    rows = list(_compared(found))
    helps = [more[1] > 0 for _, more in rows]
    hurts = [more[2] < 0 for _, more in rows]
    told = "; ".join(
        f"{name} {100 * more[0]:+.0f} % [{100 * more[1]:+.0f}, {100 * more[2]:+.0f}]" for name, more in rows
    )
    verdict = f"Removal hurts beyond doubt in {sum(helps)} of {len(rows)} cases and helps in {sum(hurts)}"
    return f"{verdict}; the blind map's error, relative to that of the map that sees margins and costs: {told}."


def _compared(found):
    for data, maps in found.items():
        for own, whats in maps.items() if data != "trainings" else ():
            for what, row in whats.items():
                more = row["more"]
                many = more if isinstance(more, dict) else {"": more}
                for alpha, value in many.items():
                    at = f" alpha {alpha}" if alpha else ""
                    if value is not None:
                        yield f"{data} {own}, {what}{at}", value


def pictures(found):
    """Draw the errors of both maps by alpha, and on the difference between twins."""
    drawn = {}
    for data, maps in found.items():
        for own, whats in maps.items() if data != "trainings" else ():
            for what, row in whats.items():
                shifted = isinstance(row["more"], dict)
                draw = partial(_by_alpha, row["error"], what) if shifted else partial(_bars, row["error"])
                height = 3.0 if shifted else 1.6
                drawn[f"{data}-{own}-{what.replace(' ', '-')}.png"] = to_png(draw, height=height)
    return drawn


def _by_alpha(rows, by, axes):
    names = list(next(iter(rows.values())))
    lines(axes, [float(alpha) for alpha in rows], {name: [row[name] for row in rows.values()] for name in names})
    axes.set_xlabel(f"shift along {by} (alpha)")
    axes.set_ylabel("forecast error (MAPE)")
    axes.set_ylim(bottom=0)


def _bars(rows, axes):
    bars(axes, rows)
    axes.set_xlabel("error on the difference between twins / their use")
    axes.set_xlim(left=0)
