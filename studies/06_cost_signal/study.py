"""Train maps with and without prices, or economic attributes, on the same rollouts, and evaluate them alike."""

from functools import partial

from lab.datasets import GENERATED, available, evaluation_pool
from lab.figures import bars, lines, to_png
from lab.forecast_study import ForecastBudget, shift_figures, twin_figures
from lab.reference_maps import train_or_load, training_facts
from lab.results import round_digits, target_row
from lab.shift_cases import ShiftCases, ShiftSizes
from walras.policies.base_stock import PricedNewsvendor

WITHOUT, SEED, TRAINING = ", without ", ", seed ", "train "
PRICES, ECONOMICS = "prices", "economics"


def parts(context):
    """Return one part for each training, then one for each table, map, and attribute or kind of twins."""
    settings = context.settings
    names = [name for own in _owns(settings) for name in _names(settings, own)]
    measured = {f"{GENERATED}:{TRAINING}{name}": partial(_trained, context, name) for name in names}
    for data in available(settings["data"], context.data):
        for own in _owns(settings):
            for by in settings["by"]:
                measured[f"{data}:{by}:{own}"] = partial(_shifted, context, data, by, own)
            for kind in settings["kinds"] if own in settings["hidden"][ECONOMICS] else ():
                measured[f"{data}:twins of the same {kind}:{own}"] = partial(_twins, context, data, kind, own)
    return measured


def _owns(settings):
    """Return the maps with all inputs, each once."""
    return list(dict.fromkeys(own for owns in settings["hidden"].values() for own in owns))


def _names(settings, own):
    """Return a map and its variants with masked inputs."""
    return [own, *(own + WITHOUT + what for what, owns in settings["hidden"].items() if own in owns)]


def _map(context, name):
    settings = context.settings
    own, _, hidden = name.partition(WITHOUT)
    representation, _, seed = own.partition(SEED)
    changed = {"representation": representation, "seed": int(seed or 0), "masked_features": [hidden] if hidden else []}
    return train_or_load({**settings["training"], **changed}, context.folder)


def _trained(context, name):
    return training_facts(_map(context, name))


def _judging(context, data, own):
    settings = context.settings
    agent_pool = evaluation_pool(data, context.data, settings["judged_agents"])
    sizes = ShiftSizes(target=settings["judged_target"], origins=settings["origins"], steps=settings["steps_of_prices"])
    maps = {name: _map(context, name) for name in _names(settings, own)}
    return ShiftCases(agent_pool, PricedNewsvendor(), sizes.fitted_to(agent_pool)), maps


def _shifted(context, data, by, own):
    settings = context.settings
    cases, maps = _judging(context, data, own)
    few = {"cohort": settings["cohort"], "paths": settings["paths"], "draws": 0, "baseline": own}
    return shift_figures(by, cases, maps, ForecastBudget(alphas={by: settings["alphas"]}, **few), context.tell)


def _twins(context, data, kind, own):
    settings = context.settings
    cases, maps = _judging(context, data, own)
    few = {"cohort": settings["cohort"], "draws": 2, "twins": settings["pairs"], "baseline": own}
    budget = ForecastBudget(twin_kinds=(kind,), twin_agents=min(2000, cases.agent_pool.n_agents // 5), **few)
    return round_digits(twin_figures(cases, maps, budget, context.tell))[kind]


def figures(measured, context):
    """Return errors of all maps with intervals, and the increase with masked inputs path by path."""
    tables = {"trainings": {}}
    for name, each in measured.items():
        data, what, *own = name.split(":")
        if not own:
            tables["trainings"][what.removeprefix(TRAINING)] = each
            continue
        names = _names(context.settings, own[0])
        place = tables.setdefault(data, {}).setdefault(own[0], {})
        if "by_alpha" in each:
            place[what] = {alpha: _row(row, names) for alpha, row in each["by_alpha"].items()}
        else:
            place[what] = _row(each, names)
    return tables


def _row(each, names):
    """Return the errors of some maps, and their relative increase with masked inputs."""
    row = {"error": _of(each["interval"], names), "more": _of(each["over_baseline"], names)}
    if "priced_weeks" in each:
        priced = each["priced_weeks"]
        row |= {
            "error_in_priced_weeks": _of(priced["interval"], names),
            "more_in_priced_weeks": _of(priced["over_baseline"], names),
        }
    return row


def _of(values, names):
    return {name: value for name, value in values.items() if name in names}


def answer(measured):
    """State the value of prices as inputs, over all weeks and where they are charged, then that of economics."""
    return f"{_verdict(measured, PRICES, 'prices')}. {_verdict(measured, ECONOMICS, 'economic attributes')}."


def _verdict(measured, what, words):
    """State in how many cases removal hurts, then the range of the increase, table by table."""
    rows = list(_compared(measured, what))
    if not rows:
        return f"Maps without {words} were not evaluated"
    significant = [sum(more[1] > 0 for _, _, more, _ in rows), sum(more[2] < 0 for _, _, more, _ in rows)]
    output = []
    for data in dict.fromkeys(row[0] for row in rows):
        here = [row for row in rows if row[0] == data]
        text = f"{data} {_range([more[0] for _, _, more, _ in here])}"
        priced = [more[0] for _, _, _, more in here if more is not None]
        output.append(text + (f" ({_range(priced)} in weeks with a price)" if priced and what == PRICES else ""))
    up, down = significant
    hurts = f"increases the error significantly in {up} of {len(rows)} cases and decreases it in {down}"
    return f"Removing {words} {hurts}; the error changes by {', '.join(output)}"


def _range(values):
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2]
    return f"{100 * ordered[0]:+.0f} to {100 * ordered[-1]:+.0f} %, median {100 * middle:+.0f} %"


def _compared(measured, what):
    """Yield table, map, and the increase of the error without an input: in all weeks, and in those with a price."""
    for data, maps in measured.items():
        for own, tables in maps.items() if data != "trainings" else ():
            for table in tables.values():
                for row in [table] if "error" in table else table.values():
                    name = own + WITHOUT + what
                    if name in row["more"]:
                        yield data, own, row["more"][name], row.get("more_in_priced_weeks", {}).get(name)


def key(measured):
    """Compare the increase of the error with masked inputs with 0."""
    rows = []
    for data, own, more, priced in _named_compared(measured):
        rows.append(target_row(f"error{own} over the whole map's less 1", data, more, least=0.0))
        if priced is not None:
            rows.append(target_row(f"the same in weeks with a price{own}", data, priced, least=0.0))
    return rows


def _named_compared(measured):
    """Yield the increases under shifts by demand at the baseline and at a higher demand."""
    for data, maps in measured.items():
        for own, tables in maps.items() if data != "trainings" else ():
            for alpha, row in tables.get("demand", {}).items():
                for name, more in row["more"].items() if float(alpha) >= 0 else ():
                    if name.startswith(own + WITHOUT):
                        yield data, f", {name}, alpha {alpha}", more, row["more_in_priced_weeks"].get(name)


def pictures(measured):
    """Draw the errors of all maps by alpha, and on the difference between twins."""
    drawn = {}
    for data, maps in measured.items():
        for own, tables in maps.items() if data != "trainings" else ():
            for what, table in tables.items():
                shifted = "error" not in table
                draw = partial(_by_alpha, table, what) if shifted else partial(_bars, table["error"])
                name = f"{data}-{own}-{what}.png".replace(",", "").replace(" ", "-")
                drawn[name] = to_png(draw, height=3.0 if shifted else 1.6)
    return drawn


def _by_alpha(rows, by, axes):
    names = list(next(iter(rows.values()))["error"])
    errors = {_named(name): [row["error"][name] for row in rows.values()] for name in names}
    lines(axes, [float(alpha) for alpha in rows], errors)
    axes.set_xlabel(f"shift along {by} (alpha)")
    axes.set_ylabel("forecast error (MAPE)")
    axes.set_ylim(bottom=0)


def _named(name):
    """Leave the seed out, so that a map has the same colour for all seeds."""
    own, _, hidden = name.partition(WITHOUT)
    return own.partition(SEED)[0] + (WITHOUT + hidden if hidden else "")


def _bars(rows, axes):
    bars(axes, {_named(name): row for name, row in rows.items()})
    axes.set_xlabel("error on the difference between twins / their use")
    axes.set_xlim(left=0)
