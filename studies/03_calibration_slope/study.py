"""Evaluate the parts of study 02 again: the slope of realised on forecast use, where the population shifts."""

from functools import partial
from statistics import median

from lab.figures import lines, to_png
from lab.forecast_study import BASELINE
from lab.results import target_row

OURS, SHOWN = "bucketized+delegates", ("bucketized+delegates", "delegates alone", "bucketized", "global", "simulation")
PUBLISHED = 0.9, 1.0


def parts(context):
    """Return nothing: all parts are measured by study 02."""
    return {}


def figures(measured, context):
    """Return the slope of every forecast by table, attribute and alpha, with intervals over paths."""
    tables = {}
    for name, each in measured.items():
        data, by = name.split(":")
        tables.setdefault(data, {})[by] = {alpha: row["slope_interval"] for alpha, row in each["by_alpha"].items()}
    return tables


def answer(measured):
    """State how often the published range is missed, then the slopes under shifts by demand, table by table."""
    rows = [row[OURS] for by in measured.values() for alphas in by.values() for row in alphas.values() if OURS in row]
    known = [row for row in rows if row["estimate"] is not None]
    apart = sum(_missed(row) for row in known)
    lines = [_line(data, by["demand"]) for data, by in measured.items() if "demand" in by]
    verdict = f"Outside 90-100 % with its whole interval in {apart} of {len(known)}" if apart else "Met"
    return f"{verdict}: under shifts by demand the slope is {'; '.join(lines)}."


def _missed(row):
    low, high = (row["estimate"] if row[end] is None else row[end] for end in ("low", "high"))
    return high < PUBLISHED[0] or low > PUBLISHED[1]


def _line(data, alphas):
    output = {"ours": OURS, "Global's": BASELINE, "simulation's": "simulation"}
    text = [
        f"{word} {_range(alphas, name)}" for word, name in output.items() if all(name in r for r in alphas.values())
    ]
    return f"{data} {', '.join(text)}"


def _range(alphas, name):
    values = [100 * row[name]["estimate"] for row in alphas.values() if row[name]["estimate"] is not None]
    return f"{min(values):.0f} to {max(values):.0f} % (median {median(values):.0f})" if values else "not defined"


def key(measured):
    """Show, table by table, the slope that is furthest from 1 under shifts by demand."""
    rows = []
    for data, by in measured.items():
        known = [
            row[OURS] for row in by.get("demand", {}).values() if OURS in row and row[OURS]["estimate"] is not None
        ]
        if known:
            worst = max(known, key=lambda row: abs(row["estimate"] - 1))
            least, most = PUBLISHED
            rows.append(
                target_row("slope of realised on forecast use, furthest from 1", data, worst, least=least, most=most)
            )
    return rows


def pictures(measured):
    """Draw slopes by alpha for each table and attribute, the published range behind them."""
    return {
        f"{data}-{by}.png": to_png(partial(_drawn, alphas, by))
        for data, all_by in measured.items()
        for by, alphas in all_by.items()
        if len(alphas) > 1
    }


def _drawn(alphas, by, axes):
    rows = [row for row in alphas.values()]
    there = [name for name in SHOWN if all(name in row and row[name]["estimate"] is not None for row in rows)]
    axes.axhspan(*PUBLISHED, color="#0072B2", alpha=0.12, linewidth=0)
    axes.axhline(1.0, color="#8C8C8C", linewidth=0.8)
    lines(axes, [float(alpha) for alpha in alphas], {name: [row[name] for row in rows] for name in there})
    axes.set_ylim(0.0, 1.6)
    axes.set_xlabel(f"shift along {by.replace('_', ' ')} (alpha); shaded: published")
    axes.set_ylabel("slope of realised on forecast")
