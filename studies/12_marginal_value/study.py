"""Change the capacity of single weeks, coordinate again with the future known, and compare rewards with prices."""

from functools import partial

from lab.capacity_benchmark import BenchmarkSizes, CapacityBenchmark
from lab.datasets import available, evaluation_pool
from lab.figures import bars, to_png
from lab.marginal_values import SearchBudget, evaluate_case
from lab.reference_maps import default_maps
from lab.results import format_interval, path_interval, target_row
from walras.maps.file import DUAL, PRIMAL
from walras.policies.base_stock import PricedNewsvendor

MEASURES = ("rank", "slope", "ratio", "gap", "scarce")
LEAST = {"rank": {"least": -1.0, "most": 1.0}, "gap": {"least": 0.0}, "scarce": {"least": 0.0, "most": 1.0}}
OURS = "bucketized+delegates"
TONES = {"made-up": "#0072B2", "online_retail_ii": "#E69F00", "m5": "#00795A"}


def parts(context):
    """Return one part for each table and path."""
    settings = context.settings
    tables = available(settings["data"], context.data)
    return {
        f"{data}:{path}": partial(_measured, context, data, path)
        for data in tables
        for path in range(settings["paths"])
    }


def _measured(context, data, path):
    settings = context.settings
    agent_pool = evaluation_pool(data, context.data, settings["world_agents"])
    given = {name: settings[name] for name in ("agents", "cohort", "paths", "history", "weeks")}
    plans = CapacityBenchmark(
        agent_pool, PricedNewsvendor(), 0.0, BenchmarkSizes(burn_in=2, **given).fitted_to(agent_pool)
    )
    case = next(each for each in plans.cases() if each.episode.path == path)
    maps = {}
    for kind, word in ((DUAL, "dual"), (PRIMAL, "primal")):
        maps |= {f"{word} {name}": each for name, each in default_maps(kind, settings["maps"]).items()}
    budget = SearchBudget(**{name: settings[name] for name in ("step", "queries", "climb", "at_once")})
    return evaluate_case(case, maps, settings["asked"], budget)


def figures(measured, context):
    """Return, by table and method, how prices compare with the marginal value, over paths; and all weeks."""
    tables = {}
    for name, each in measured.items():
        tables.setdefault(name.partition(":")[0], []).append(each)
    return {data: _table(rows) for data, rows in tables.items()}


def _table(rows):
    methods = {
        name: {
            part: path_interval([row["methods"][name][part] for row in rows], **LEAST.get(part, {}))
            for part in MEASURES
        }
        for name in rows[0]["methods"]
    }
    weekly = {name: [x for row in rows for x in row["prices"][name]] for name in rows[0]["prices"]}
    values = [x for row in rows for x in row["values"]]
    return {
        "methods": methods,
        "beyond": path_interval([row["beyond"] for row in rows]),
        "values": values,
        "prices": weekly,
    }


def answer(measured):
    """State which prices miss the targets, then how precise the marginal value itself is."""
    output, missed = [], []
    for data, table in measured.items():
        methods = table["methods"]
        asked = {
            "the oracle's": "oracle",
            "the dual map's": f"dual {OURS}",
            "the primal map's": f"primal {OURS}, searched",
        }
        rows = {words: methods[name] for words, name in asked.items() if name in methods}
        missed += [f"{words} on {data}" for words, row in rows.items() if not _meets(row)]
        rank_text = ", ".join(
            f"{words} {format_interval(row['rank'])} and slope {format_interval(row['slope'])}"
            for words, row in rows.items()
        )
        floor = methods["value, other start"]
        output.append(
            f"{data}: rank correlation of {rank_text}; the value itself and that from another start "
            f"have a rank correlation of "
            f"{format_interval(floor['rank'])}"
        )
    verdict = f"Not for {', '.join(missed)}" if missed else "Yes"
    return f"{verdict} (targets: rank 0.9, slope 0.8 to 1.2); {'; '.join(output)}."


def _meets(row):
    rank, slope = row["rank"]["estimate"], row["slope"]["estimate"]
    return rank is not None and rank >= 0.9 and 0.8 <= slope <= 1.2


def key(measured):
    """Compare rank correlation and slope of prices on marginal values with their targets."""
    rows = []
    for data, table in measured.items():
        for name in ("oracle", f"dual {OURS}", "value, other start"):
            if name in table["methods"]:
                row = table["methods"][name]
                rows.append(
                    target_row(f"rank correlation with the marginal value: {name}", data, row["rank"], least=0.9)
                )
                rows.append(
                    target_row(f"slope of the marginal value on it: {name}", data, row["slope"], least=0.8, most=1.2)
                )
    return rows


def pictures(measured):
    """Draw rank correlations of all methods, and prices against values week by week."""
    drawn = {f"{data}-rank.png": to_png(partial(_ranks, table)) for data, table in measured.items()}
    return drawn | {f"{data}-weeks.png": to_png(partial(_weeks, table)) for data, table in measured.items()}


def _ranks(table, axes):
    there = {name: row["rank"] for name, row in table["methods"].items() if name != "oracle, other start"}
    rows = {_named(name): rank for name, rank in there.items() if rank["estimate"] is not None}
    bars(axes, rows)
    axes.axvline(0.9, color="#1A1A1A", linewidth=0.8, linestyle="--")
    axes.set_xlabel("rank correlation with the marginal value\n(dashed: target)")
    axes.xaxis.label.set_size(8)
    axes.set_xlim(-0.4, 1.02)


def _named(name):
    """Name the map last, so that it has the same colour in all pictures."""
    if name == "oracle":
        return "oracle: clairvoyant"
    kind, _, rest = name.partition(" ")
    learned, _, how = rest.partition(", ")
    return f"{kind}{' ' * bool(how)}{how}: {learned}" if kind in ("dual", "primal") else name


def _weeks(table, axes):
    shown = {"oracle": ("#1A1A1A", "*"), f"dual {OURS}": ("#0072B2", "o"), f"primal {OURS}, searched": ("#E69F00", "^")}
    top = max(1e-3, *table["values"])
    for name, (colour, mark) in shown.items():
        if name in table["prices"]:
            top = max(top, *table["prices"][name])
            axes.plot(table["values"], table["prices"][name], mark, color=colour, markersize=3.5, label=name, alpha=0.8)
    axes.plot([0, top], [0, top], color="#6B6B6B", linewidth=0.8)
    axes.set_xlabel("marginal value [median unit margins]")
    axes.set_ylabel("price [median unit margins]")
    axes.legend(fontsize=6.5, frameon=False)
