"""Plan by maps and by simulation, verify both alike, and compare with a linear program and a known future."""

from functools import partial

import numpy as np

from lab.datasets import GENERATED, SEED, TABLES, available
from lab.figures import reach, to_png
from lab.linear_program import compare_with_program
from lab.planning_study import (
    EVERYBODY,
    WAYS,
    compare_dagger,
    compare_large_plans,
    compare_planners,
    join_seeds,
    revise_weekly,
)
from lab.reference_maps import train_or_load
from lab.results import format_interval as show
from lab.results import path_interval, target_row
from walras.config import PlanSettings
from walras.data.read import read_panel
from walras.population.generate import generate_panel

PROGRAM, LARGE, FED = "linear program", "large", "on-policy"
TRAININGS = {"drawn prices": "drawn", "the planner's own queries": "mixed"}
"""Trainings that differ only in the setting `prices`."""
PLANNERS = {"maps": "#0072B2", "simulation": "#1A1A1A"}


def parts(context):
    """Return one part for each table and seed, for weekly revision, each linear program, large and on-policy plans."""
    settings, output = context.settings, {}
    for products in settings["products"]:
        output[f"{PROGRAM}:{products}"] = partial(_program, settings, products)
    for data in available(settings["data"], context.data):
        for seed in range(settings["seeds"]):
            output[f"{data}:plan {seed}"] = partial(_planned, context, data, seed)
        if settings["revisions"]:
            output[f"{data}:weekly"] = partial(_weekly, context, data)
    for seed in range(settings["large_seeds"]):
        output[f"{GENERATED}:{LARGE} {seed}"] = partial(_large, context, seed)
    for agents, seed in settings["fed"]:
        output[f"{GENERATED}:{FED} {agents} {seed}"] = partial(_fed, context, agents, seed)
    return output


def _program(settings, products):
    return [compare_with_program(products, seed) for seed in range(settings["program_seeds"])]


def _panel(context, data, seed):
    settings = context.settings
    if data == GENERATED:
        return generate_panel(settings["agents"], settings["history"], SEED + seed)
    panel = read_panel(context.data / TABLES[data])
    count = min(settings["most_agents"] * settings["agents"], panel.n_agents)
    return panel.take(np.sort(np.random.default_rng([seed, 0xA6]).permutation(panel.n_agents)[:count]))


def _settings(context, seed):
    given = {name: context.settings[name] for name in ("weeks", "scenarios", "max_iterations", "maps")}
    return PlanSettings(interface="learned", paths=context.settings["futures"], seed=seed, **given)


def _planned(context, data, seed):
    return compare_planners(_panel(context, data, seed), _settings(context, seed), context.settings["foreseen"])


def _large(context, seed):
    settings = context.settings
    panel = generate_panel(settings["large_agents"], settings["history"], SEED + seed)
    return compare_large_plans(panel, _settings(context, seed), settings["cohorts"], settings["large_interfaces"])


def _fed(context, agents, seed):
    given = context.settings["training"]
    maps = {name: train_or_load({**given, "prices": prices}, context.folder) for name, prices in TRAININGS.items()}
    panel = generate_panel(agents, context.settings["history"], SEED + seed)
    return compare_dagger(panel, _settings(context, seed), maps)


def _weekly(context, data):
    return revise_weekly(_panel(context, data, 0), _settings(context, 0), context.settings["revisions"])


def figures(measured, context):
    """Return excess cost, time ratio, regret and stability by table, the linear program, large and on-policy plans."""
    tables, large, fed = {}, [], []
    for name, each in measured.items():
        data, what = name.split(":")
        if what.startswith(LARGE):
            large.append(each)
        elif what.startswith(FED):
            fed.append(each)
        elif data == PROGRAM:
            tables.setdefault(PROGRAM, {})[what] = _programs(each)
        elif what == "weekly":
            tables.setdefault(data, {})["weekly"] = {way: _stability(rows) for way, rows in each.items()}
        else:
            tables.setdefault(data, {}).setdefault("plans", []).append(each)
    output = {data: _summed(row) if "plans" in row else row for data, row in tables.items()}
    return {**output, **({LARGE: _large_figures(large)} if large else {}), **({FED: _fed_figures(fed)} if fed else {})}


def _large_figures(parts):
    output = join_seeds(parts)
    usual = output["planners"][EVERYBODY]
    for name, row in list(output["planners"].items()):
        paths = {key: path_interval([x for each in row[key] for x in each]) for key in ("excess", "violation")}
        ratios = {
            f"{key}_ratio": path_interval(
                [a / max(b, 1e-9) for a, b in zip(usual[key], row[key], strict=True)], least=0.0
            )
            for key in ("find", "seconds", "processor")
        }
        counted = {key: path_interval(row[key]) for key in row if key not in ("excess", "violation")}
        output["planners"][name] = {**counted, **paths, **ratios}
    return output


def _fed_figures(parts):
    """Return each map's figures over populations, and the paired effect of the planner's own queries."""
    drawn, fed = TRAININGS
    own = {name: [part["maps"][name] for part in parts] for name in TRAININGS}
    output = {"agents": [part["agents"] for part in parts]}
    for name, rows in own.items():
        output[name] = {key: path_interval([row[key] for row in rows]) for key in rows[0] if key != "excess"}
        output[name]["excess"] = path_interval([x for row in rows for x in row["excess"]])
        output[name]["unsettled"] = sum(not row["settled"] for row in rows)
    keys = [key for key in own[fed][0] if key not in ("excess", "settled")]
    pairs = list(zip(own[fed], own[drawn], strict=True))
    output["change"] = {key: path_interval([a[key] - b[key] for a, b in pairs]) for key in keys}
    output["change"]["excess"] = path_interval(
        np.concatenate([np.subtract(a["excess"], b["excess"]) for a, b in pairs])
    )
    return output


def _programs(rows):
    output = {
        key: path_interval([row[key] for row in rows]) for key in ("dual", "primal", "prices", "largest_price_gap")
    }
    worst = {f"worst_{key}": max(abs(row[key]) for row in rows) for key in ("dual", "primal", "prices")}
    seconds = {key: path_interval([row[key] for row in rows]) for key in ("queries", "program_seconds", "seconds")}
    return {**output, **worst, **seconds}


def _stability(rows):
    return {"moved": path_interval(rows["moved"], least=0.0), "cost": path_interval(rows["cost"])}


def _summed(row):
    plans = row["plans"]
    output = {"agents": plans[0]["agents"], "plans": len(plans), "weekly": row.get("weekly", {})}
    for key in ("excess_total", "excess_with_overflow"):
        output[key] = path_interval([value for plan in plans for value in plan[key]])
    output["plan_difference"] = path_interval([plan["plan_difference"] for plan in plans], least=0.0)
    output["planners"] = {name: _planner([plan["planners"][name] for plan in plans]) for name in PLANNERS}
    output["regret"] = {name: path_interval([x for plan in plans for x in plan["regret"][name]]) for name in PLANNERS}
    ratio = [plan["planners"]["simulation"]["seconds"] / plan["planners"]["maps"]["seconds"] for plan in plans]
    output["seconds_ratio"] = path_interval(ratio, least=0.0)
    return output


def _planner(rows):
    keys = ("seconds", "queries", "simulations", "acquisition")
    output = {key: path_interval([row[key] for row in rows]) for key in keys}
    output["violation"] = path_interval([value for row in rows for value in row["violation"]], least=0.0)
    return {**output, "feasible": float(np.mean([row["feasible"] for row in rows]))}


def answer(measured):
    """State where maps miss the targets of cost and time, then the linear program, then stability."""
    plans = {data: row for data, row in measured.items() if "excess_total" in row}
    output = [_of_plans(data, row) for data, row in plans.items()]
    output += [_of_large(measured[LARGE])] if LARGE in measured else []
    output += [_of_fed(measured[FED])] if FED in measured else []
    if measured.get(PROGRAM):
        worst = {
            key: max(row[f"worst_{key}"] for row in measured[PROGRAM].values()) for key in ("dual", "primal", "prices")
        }
        met = worst["dual"] <= 0.01 and worst["primal"] <= 0.01 and worst["prices"] <= 0.02
        output.append(
            f"the linear program is {'met' if met else 'missed'}: dual value {100 * worst['dual']:.2f} %, primal "
            f"objective {100 * worst['primal']:.2f} %, sum of prices {100 * worst['prices']:.2f} % off at worst"
        )
    if not plans:
        return "; ".join(output) + "."
    dear = [data for data, row in plans.items() if row["excess_with_overflow"]["estimate"] > 0.01]
    slow = [data for data, row in plans.items() if row["seconds_ratio"]["estimate"] < 100]
    first = f"miss the target of 100 times less time on {', '.join(slow)}" if slow else "meet the target of time"
    second = f"miss the target of 1 % excess cost on {', '.join(dear)}" if dear else "meet the target of cost"
    return f"Plans by maps {first}, and {second}: {'; '.join(output)}."


def _of_large(row):
    """State time and cost of each planner of the large population."""
    usual = row["planners"][EVERYBODY]
    words = (
        f"for {row['agents']} generated products all agents are simulated {show(usual['everybody'], 0)} times in "
        f"{show(usual['processor'], 1)} processor seconds"
    )
    for name, each in row["planners"].items():
        if name != EVERYBODY:
            words += (
                f"; {name}: {show(each['everybody'], 0)} times in {show(each['processor'], 1)} s, finding "
                f"{show(each['find_ratio'], 1)} and finding and checking {show(each['seconds_ratio'], 1)} times "
                f"faster, at {show(each['excess'], 2, 100)} % of acquisition more"
            )
    return words


def _of_fed(row):
    drawn, fed = (row[name] for name in TRAININGS)
    before, after, change = (show(each["error_plan"], 1, 100) for each in (drawn, fed, row["change"]))
    return (
        f"trained on the planner's own queries too, a map errs by {after} % at planned prices instead of {before} % "
        f"(change {change}), and of {len(row['agents'])} plans {fed['unsettled']} instead of {drawn['unsettled']} do "
        f"not converge"
    )


def _of_plans(data, row):
    words = (
        f"{data} costs {show(row['excess_with_overflow'], 1, 100)} % of acquisition more than simulating all agents, "
        f"in {show(row['planners']['maps']['seconds'], 1)} s against "
        f"{show(row['planners']['simulation']['seconds'], 1)} s"
    )
    weekly = row["weekly"]
    if weekly:
        words += (
            f", and moves {show(weekly['afresh']['moved'], 1, 100)} % a week when revised "
            f"({show(weekly['damped']['moved'], 1, 100)} % damped)"
        )
    return words


def key(measured):
    """Compare cost, time and violation of plans by maps, and the linear program, with their targets."""
    rows = []
    for data, row in measured.items():
        if "excess_total" in row:
            rows.append(
                target_row("excess cost of plans by maps / acquisition", data, row["excess_with_overflow"], most=0.01)
            )
            rows.append(target_row("seconds of simulating / seconds of maps", data, row["seconds_ratio"], least=100))
            violation = row["planners"]["maps"]["violation"]
            rows.append(target_row("mean violation of plans by maps, simulated", data, violation, most=0.03))
    for name, row in measured.get(LARGE, {}).get("planners", {}).items():
        if name != EVERYBODY:
            data = f"made-up, {measured[LARGE]['agents']} agents"
            rows.append(target_row(f"excess cost of the plan by {name} / acquisition", data, row["excess"], most=0.01))
            rows.append(
                target_row(
                    f"seconds of simulating all agents / seconds by {name}", data, row["processor_ratio"], least=100
                )
            )
    for size, row in measured.get(PROGRAM, {}).items():
        for name, words, most in (
            ("dual", "dual value", 0.01),
            ("primal", "primal objective", 0.01),
            ("prices", "sum of prices", 0.02),
        ):
            rows.append(
                target_row(
                    f"{words} against the linear program, worst", f"{size} products", row[f"worst_{name}"], most=most
                )
            )
    return rows


def pictures(measured):
    """Draw excess cost, time, and how far plans move."""
    plans = {data: row for data, row in measured.items() if "excess_total" in row}
    drawn = {}
    if plans:
        drawn["cost.png"] = to_png(partial(_cost, plans), height=2.6)
        drawn["time.png"] = to_png(partial(_time, plans), height=2.6)
    if LARGE in measured:
        drawn["large.png"] = to_png(partial(_times, measured[LARGE]["planners"]), height=2.6)
    if FED in measured:
        drawn["on-policy.png"] = to_png(partial(_fed_errors, measured[FED]), height=2.2)
    if any(row["weekly"] for row in plans.values()):
        drawn["weekly.png"] = to_png(partial(_moved, plans))
    return drawn


def _points(axes, names, series, scale=1.0):
    for place, (label, colour, values) in enumerate(series):
        there = [-row + 0.18 * ((len(series) - 1) / 2 - place) for row in range(len(names))]
        kept = [(y, value) for y, value in zip(there, values, strict=True) if value["estimate"] is not None]
        if kept:
            ends = scale * np.asarray([reach(value) for _, value in kept]).T
            style = {"color": colour, "marker": "o", "markersize": 4, "linestyle": "none", "capsize": 2}
            x = [scale * value["estimate"] for _, value in kept]
            axes.errorbar(x, [y for y, _ in kept], xerr=ends, elinewidth=0.8, label=label, **style)
    axes.set_yticks([-row for row in range(len(names))], names, fontsize=7)
    axes.set_ylim(0.6 - len(names), 0.6)
    axes.grid(axis="x", visible=True)
    axes.xaxis.label.set_size(8)
    axes.legend(fontsize=6.5, frameon=False)


def _cost(plans, axes):
    series = [
        ("maps less simulation", "#0072B2", [row["excess_total"] for row in plans.values()]),
        ("the same, overflow bought", "#E69F00", [row["excess_with_overflow"] for row in plans.values()]),
    ]
    axes.axvline(1.0, color="#1A1A1A", linewidth=0.8, linestyle="--")
    axes.axvline(0.0, color="#6B6B6B", linewidth=0.8)
    axes.set_xlabel("total cost, % of the acquisition cost (dashed: target)")
    _points(axes, list(plans), series, 100.0)


def _time(plans, axes):
    series = [
        (name, tone, [row["planners"][name]["seconds"] for row in plans.values()]) for name, tone in PLANNERS.items()
    ]
    axes.set_xscale("log")
    axes.set_xlabel("seconds to a plan, compiled")
    _points(axes, list(plans), series)


def _times(planners, axes):
    series = [
        (label, tone, [row[key] for row in planners.values()])
        for label, tone, key in (
            ("finding", "#0072B2", "find"),
            ("finding and checking", "#E69F00", "seconds"),
            ("the same, processor", "#1A1A1A", "processor"),
        )
    ]
    axes.set_xlabel("seconds to a plan of the large population, compiled")
    _points(axes, list(planners), series)
    axes.set_xlim(left=0)
    axes.set_ylim(top=1.8)  # room for the legend


def _fed_errors(row, axes):
    kinds = {"error_free": "without prices", "error_found": "at its own plan", "error_plan": "at the simulated plan"}
    series = [
        (f"trained on {name}", tone, [row[name][key] for key in kinds])
        for name, tone in zip(TRAININGS, ("#8C8C8C", "#0072B2"), strict=True)
    ]
    axes.set_xlabel("error of the map, % of use")
    _points(axes, list(kinds.values()), series, 100.0)
    axes.set_xlim(left=0)
    axes.set_ylim(top=1.2)


def _moved(plans, axes):
    tones = dict(zip(WAYS, ("#0072B2", "#56B4E9", "#00795A", "#E69F00", "#8C8C8C"), strict=True))
    weekly = {data: row["weekly"] for data, row in plans.items() if row["weekly"]}
    series = [(way, tone, [row[way]["moved"] for row in weekly.values()]) for way, tone in tones.items()]
    axes.set_xlabel("mean change of the plan at a weekly revision, % of capacity")
    _points(axes, list(weekly), series, 100.0)
    axes.set_xlim(left=0)
