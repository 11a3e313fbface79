"""Charge pulses and lasting prices, measure each agent's response, and regress it on known attributes."""

from functools import partial

import numpy as np

from lab.capacity_benchmark import BenchmarkSizes, CapacityBenchmark
from lab.datasets import available, evaluation_pool
from lab.figures import lines, reach, to_png
from lab.price_response import RespondingPopulation, agent_attributes, compare_slopes, explain_variance, pulse_responses
from lab.reference_maps import default_maps
from lab.results import format_interval, path_interval, target_row
from walras.maps.file import PRIMAL
from walras.policies.base_stock import PricedNewsvendor
from walras.train.buyer_training import load_buyer

OURS, LASTING = "bucketized+delegates", "0"
ALLOWED = 0.3
EXPLAINED_AT = (1, 0.5)
"""Length and height of the explained pulses; lasting prices are explained at the same height."""
TONES = {"1": "#0072B2", "2": "#E69F00", "4": "#00795A", LASTING: "#9B4F96"}
WORDS = {"1": "1 week", "2": "2 weeks", "4": "4 weeks", LASTING: "lasting"}
TABLES = {"made-up": "#0072B2", "online_retail_ii": "#E69F00", "m5": "#00795A"}


def parts(context):
    """Return one part for each table and policy, and one for each table's maps."""
    settings = context.settings
    tables = available(settings["data"], context.data)
    output = {
        f"{data}:{name}": partial(_answers, context, data, name) for data in tables for name in settings["policies"]
    }
    return output | {f"{data}:maps": partial(_maps, context, data) for data in tables}


def _scenes(context, data):
    settings = context.settings
    agent_pool = evaluation_pool(data, context.data, settings["world_agents"])
    given = {name: settings[name] for name in ("agents", "paths", "history", "weeks")}
    plans = CapacityBenchmark(
        agent_pool, PricedNewsvendor(), 0.0, BenchmarkSizes(cohort=50, **given).fitted_to(agent_pool)
    )
    for path in range(settings["paths"]):
        context.tell(f"{data}, path {path}")
        yield plans.episode(path)


def _followed(episode, name):
    if name == "newsvendor":
        return episode.policy
    history = np.asarray(episode.pop_window.exogenous.demand[: episode.first])
    return load_buyer().buyer.with_history(history, np.asarray(episode.pop_window.population.lead_time))


def _answers(context, data, name):
    settings, measured = context.settings, []
    length, height = EXPLAINED_AT
    for episode in _scenes(context, data):
        who = RespondingPopulation.of(episode, _followed(episode, name))
        moved, own = pulse_responses(who, settings["lengths"], settings["heights"], settings["begins"])
        known = agent_attributes(who)
        row = {"reactions": moved, "pulse": explain_variance(own[length, height], known)}
        measured.append({**row, "lasting": explain_variance(own[int(LASTING), height], known)})
    return measured


def _maps(context, data):
    settings = context.settings
    maps = default_maps(PRIMAL, settings["maps"])
    rest = (settings["heights"], settings["begins"], settings["base"])
    return [
        compare_slopes(episode, RespondingPopulation.of(episode), maps, *rest) for episode in _scenes(context, data)
    ]


def figures(measured, context):
    """Return responses by length, height and bucket, explained variance, and responses as forecast by maps."""
    tables = {}
    for name, rows in measured.items():
        data, what = name.split(":")
        output = _map_figures(rows) if what == "maps" else _response_figures(rows)
        tables.setdefault(data, {})[what] = output
    return tables


def _response_figures(rows):
    keys = rows[0]["reactions"]
    curve, bucket, moved = {}, {}, {}
    for key in keys:
        length, height = key.split(":")
        each = [row["reactions"][key] for row in rows]
        curve.setdefault(length, {})[height] = path_interval([x["total"] for x in each], least=-1.0)
        if float(height) == EXPLAINED_AT[1]:
            places = range(len(each[0]["bucket"]))
            bucket[key] = [path_interval([x["bucket"][place] for x in each], least=-1.0) for place in places]
        moved[key] = {side: path_interval([x[side] for x in each]) for side in ("before", "after")}
    lowest = {length: min(curve[length], key=float) for length in curve}
    slope = {
        length: path_interval([row["reactions"][f"{length}:{least}"]["total"] / float(least) for row in rows])
        for length, least in lowest.items()
    }
    reasons = {kind: _reasons([row[kind] for row in rows]) for kind in ("pulse", "lasting")}
    return {"curve": curve, "by_bucket": bucket, "moved": moved, "elasticity": slope, "explained": reasons}


def _reasons(rows):
    output = {name: path_interval([row[name] for row in rows]) for name in ("linear", "tenths", "reliability")}
    for name in ("alone", "only", "coefficient"):
        output[name] = {each: path_interval([row[name][each] for row in rows]) for each in rows[0][name]}
    return output


def _map_figures(rows):
    measured = {}
    for name in rows[0]:
        each = [row[name] for row in rows]
        measured[name] = {part: path_interval([x[part] for x in each]) for part in each[0] if part != "reaction"}
        measured[name]["reaction"] = {
            height: {
                who: path_interval([x["reaction"][height][place] for x in each])
                for place, who in enumerate(("map", "true"))
            }
            for height in each[0]["reaction"]
        }
    return measured


def answer(measured):
    """State the error of the maps' slope, then the strength of the response, then what explains it."""
    rows = {data: row for data, row in measured.items() if "newsvendor" in row}
    if not rows:
        return "Responses to prices are still to be simulated."
    height = f"{EXPLAINED_AT[1]:g}"

    def each(tell):
        return ", ".join(f"{tell(row)} ({data})" for data, row in rows.items())

    def cut(length, who="newsvendor"):
        return each(
            lambda row: format_interval(row[who]["curve"][length][height], 0, 100) if who in row else "not measured"
        )

    return (
        f"{_slope_text(measured)}A price of half a median margin changes the use of newsvendors by {cut('1')} % in a "
        f"pulse of one week and by {cut(LASTING)} % where it lasts; that of the buyer by {cut('1', 'buyer')} % in the "
        f"pulse. Of the variance between agents, attributes explain in a "
        f"pulse {each(partial(_best, 'pulse'))}, and where it lasts "
        f"{each(partial(_best, 'lasting'))}."
    )


def _best(kind, row):
    why = row["newsvendor"]["explained"][kind]
    name = max(why["alone"], key=lambda each: why["alone"][each]["estimate"] or 0)
    most = "" if why["reliability"]["estimate"] is None else f" (upper bound {format_interval(why['reliability'])})"
    return f"{format_interval(why['tenths'])}{most}, {name} alone {format_interval(why['alone'][name])}"


def _slope_text(measured):
    errors = {
        data: row["maps"][OURS]["relative_error"] for data, row in measured.items() if OURS in row.get("maps", {})
    }
    if not errors:
        return ""
    bad = [data for data, error in errors.items() if error["estimate"] > ALLOWED]
    output = ", ".join(f"{format_interval(error)} ({data})" for data, error in errors.items())
    verdict = "Maps miss the slope" if bad else "Maps see the slope"
    return f"{verdict}: relative error {output}, target {ALLOWED}. "


def key(measured):
    """Compare the maps' slope with its targets."""
    rows = []
    for data, row in measured.items():
        seen = row.get("maps", {}).get(OURS)
        if seen is not None:
            rows.append(target_row("relative error of the slope", data, seen["relative_error"], most=ALLOWED))
            rows.append(
                target_row("share of entries of the slope with the right sign", data, seen["sign_right"], least=0.95)
            )
    return rows


def pictures(measured):
    """Draw responses by height and by demand bucket, explained variance, and responses as forecast by maps."""
    drawn = {}
    for data, parts_of in measured.items():
        if "newsvendor" in parts_of:
            drawn[f"{data}-reaction.png"] = to_png(partial(_curve, parts_of["newsvendor"]["curve"]))
        if "maps" in parts_of:
            drawn[f"{data}-maps.png"] = to_png(partial(_seen, parts_of["maps"]))
    answering = {data: row["newsvendor"] for data, row in measured.items() if "newsvendor" in row}
    if answering:
        drawn["buckets.png"] = to_png(partial(_buckets, answering))
        drawn["explained.png"] = to_png(partial(_explained, answering))
    return drawn


def _percent(value):
    return {end: None if value[end] is None else 100 * value[end] for end in ("estimate", "low", "high")}


def _curve(curve, axes):
    for length, by_height in curve.items():
        x = [0.0, *(float(height) for height in by_height)]
        values = [_percent(value) for value in by_height.values()]
        middle = [0.0, *(value["estimate"] for value in values)]
        ends = np.asarray([(0.0, 0.0), *(reach(value) for value in values)]).T
        style = {"color": TONES[length], "marker": "o", "markersize": 3.5, "linewidth": 1.3, "capsize": 2}
        axes.errorbar(x, middle, yerr=ends, elinewidth=0.8, label=WORDS[length], **style)
    axes.set_xlabel("price [median unit margins]")
    axes.set_ylabel("change of use in\nthe charged weeks [%]")
    axes.legend(fontsize=6.5, frameon=False, title="price charged for", title_fontsize=6.5)


def _buckets(answering, axes):
    key = "1:0.5" if all("1:0.5" in each["by_bucket"] for each in answering.values()) else None
    for place, (data, each) in enumerate(answering.items()):
        values = [_percent(value) for value in each["by_bucket"][key or next(iter(each["by_bucket"]))]]
        there = [bucket + 0.15 * (place - 1) for bucket, value in enumerate(values, 1) if value["estimate"] is not None]
        kept = [value for value in values if value["estimate"] is not None]
        ends = np.asarray([reach(value) for value in kept]).T
        style = {"color": TABLES[data], "marker": "o", "markersize": 3.5, "linestyle": "none", "capsize": 2}
        axes.errorbar(there, [value["estimate"] for value in kept], yerr=ends, label=data, elinewidth=0.8, **style)
    axes.set_xticks(range(1, 11))
    axes.set_ylim(-65, 45)
    axes.set_xlabel("demand bucket (1: the smallest tenth)")
    axes.set_ylabel("change of use in a one-week\npulse of half a margin [%]")
    axes.legend(fontsize=6.5, frameon=False)


def _explained(answering, axes):
    names = list(next(iter(answering.values()))["explained"]["pulse"]["alone"])
    rows = ["all of them", *names]
    for place, (data, each) in enumerate(answering.items()):
        why = each["explained"]["pulse"]
        values = [why["tenths"], *(why["alone"][name] for name in names)]
        ends = np.asarray([reach(value) for value in values]).T
        there = [-row + 0.2 * (1 - place) for row in range(len(rows))]
        style = {"color": TABLES[data], "marker": "o", "markersize": 3.5, "linestyle": "none", "capsize": 2}
        axes.errorbar([v["estimate"] for v in values], there, xerr=ends, label=data, elinewidth=0.8, **style)
        most = why["reliability"]["estimate"]
        if most is not None:
            axes.plot([most], [0.2 * (1 - place)], "|", color=TABLES[data], markersize=9, markeredgewidth=1.5)
    axes.set_yticks([-row for row in range(len(rows))], rows, fontsize=7)
    axes.set_xlabel("explained share of the variance between agents\n(bar: upper bound)")
    axes.xaxis.label.set_size(8)
    axes.set_xlim(-0.02, 1.0)
    axes.grid(axis="x", visible=True)
    axes.legend(fontsize=6.5, frameon=False, loc="lower right")


def _seen(maps, axes):
    first = next(iter(maps.values()))["reaction"]
    heights = [float(height) for height in first]
    rows = {"simulation": [_percent(first[height]["true"]) for height in first]}
    rows |= {name: [_percent(each["reaction"][height]["map"]) for height in first] for name, each in maps.items()}
    lines(axes, heights, rows)
    axes.set_xlabel("price of one week [median unit margins]")
    axes.set_ylabel("change of use in that week [%]")
