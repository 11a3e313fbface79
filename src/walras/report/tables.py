"""Own the tables of a finished plan: by week and resource, by group, and the small one for the terminal.

CONTRACT: column names are read by other programs; add columns at the end.
"""

import numpy as np
import pyarrow as pa
from rich.console import Group
from rich.table import Table
from rich.text import Text

from walras.planner.result import PlanResult
from walras.report import words
from walras.report.summary import quantile_names

MOST_CONSOLE_ROWS = 30
MOST_DATES = 4
"""Weeks that a headline names; more are listed below it."""


def verdicts(result: PlanResult) -> list[str]:
    """Give one verdict per week; weeks that nobody judged say so."""
    missing = len(result.weeks) - len(result.week_verdicts)
    return [*result.week_verdicts[: len(result.weeks)], *["not judged"] * missing]


def fails(verdict: str) -> bool:
    """Tell whether a week's verdict means that utilization can exceed capacity in it."""
    return not (verdict.startswith(words.FITS) or verdict == "not judged")


def week_table(result: PlanResult) -> dict[str, np.ndarray]:
    """List the plan as columns, one row per week and resource, weeks outermost.

    Args:
        result: a finished plan.

    Returns:
        Column name -> array [week x resource]; dates are `datetime64[D]`, texts are `str`, the rest are floats.
    """
    resources = len(result.resources)
    record = result.record
    columns = {
        "week": np.repeat(result.weeks.astype("datetime64[D]"), resources),
        "resource": np.tile(np.asarray(result.resources, dtype=str), len(result.weeks)),
    }
    for name, values in {
        "regular_capacity": result.regular_capacity,
        "capacity": record.capacity,
        "utilization": record.utilization,
        "unconstrained": result.unconstrained[1],
        "committed": result.committed,
        "shadow_price": record.shadow_prices,
        "reissued_price": result.reissued_prices,
        **_fan_columns("verified", result.verified_utilization),
        **_fan_columns("fixed", result.fixed_utilization),
    }.items():
        columns[name] = np.asarray(values, dtype=float).reshape(-1)
    columns["verdict"] = np.repeat(np.asarray(verdicts(result), dtype=str), resources)
    return columns


def _fan_columns(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{name}_{level}": part for level, part in zip(quantile_names(), values, strict=True)}


def group_table(result: PlanResult) -> dict[str, np.ndarray]:
    """List who gave way as columns, one row per group.

    Returns:
        `grouping`, `group`, mean use `unconstrained` and `planned` [use of the first resource over the horizon],
        their difference `change` and `change_share` (NaN where nothing was used).
    """
    without = np.concatenate([np.asarray(group.unconstrained, dtype=float) for group in result.groups] or [np.zeros(0)])
    planned = np.concatenate([np.asarray(group.planned, dtype=float) for group in result.groups] or [np.zeros(0)])
    share = np.divide(planned - without, without, out=np.full_like(without, np.nan), where=without > 0)
    return {
        "grouping": np.asarray([group.title for group in result.groups for _ in group.labels], dtype=str),
        "group": np.asarray([label for group in result.groups for label in group.labels], dtype=str),
        "unconstrained": without,
        "planned": planned,
        "change": planned - without,
        "change_share": share,
    }


def arrow(columns: dict[str, np.ndarray]) -> pa.Table:
    """Turn columns into an Arrow table; NaN becomes null."""
    arrays = {}
    for name, values in columns.items():
        if values.dtype.kind == "U":
            arrays[name] = pa.array(values.tolist(), pa.string())
        else:
            arrays[name] = pa.array(values, from_pandas=True)
    return pa.table(arrays)


def headline(result: PlanResult) -> str:
    """Answer in one line whether the plan fits."""
    judged = zip(result.weeks, verdicts(result), strict=True)
    bad = [words.day_month(week) for week, verdict in judged if fails(verdict)]
    span = words.plural(len(result.weeks), "week")
    when = f" ({words.listing(bad)})" if len(bad) <= MOST_DATES else ""
    if result.record.feasible and not bad:
        return f"Feasible: the plan fits capacity in all {span}."
    if result.record.feasible:
        return f"Feasible, but {len(bad)} of {span} can exceed capacity{when}."
    if not bad:
        return "Not feasible: utilization is above capacity although something could be done about it."
    return f"Not feasible: {len(bad)} of {span} can exceed capacity{when}."


def console_summary(result: PlanResult) -> Group:
    """Show a plan in the terminal: the answer, key figures and the weeks that matter."""
    style = "bold green" if result.record.feasible else "bold red"
    sentences = [Text(words.sentence(text)) for text in result.verdict]
    return Group(Text(headline(result), style=style), *sentences, _console_measures(result), _console_weeks(result))


def _console_measures(result: PlanResult) -> Table:
    table = Table(title="Verified on unseen paths", title_justify="left", box=None, pad_edge=False)
    table.add_column("measure")
    for heading in ("re-issued weekly", "95 % interval", "fixed prices"):
        table.add_column(heading, justify="right")
    for name in words.MEASURES:
        if name in result.verified:
            table.add_row(
                words.title_of(name),
                words.measure(name, result.verified[name]),
                words.interval(name, result.intervals.get(name)),
                words.measure(name, result.verified_fixed.get(name)),
            )
    return table


def _console_weeks(result: PlanResult) -> Group:
    columns = week_table(result)
    rows = range(len(columns["week"]))
    shown = list(rows)
    if len(shown) > MOST_CONSOLE_ROWS:
        shown = [row for row in rows if columns["shadow_price"][row] > 0 or fails(str(columns["verdict"][row]))]
        shown = shown[:MOST_CONSOLE_ROWS]
    table = Table(title="Weeks", title_justify="left", box=None, pad_edge=False)
    several = len(result.resources) > 1
    highest = np.nan_to_num(result.record.shadow_prices).max(axis=0, initial=0.0)
    for heading in ("week", *(["resource"] if several else [])):
        table.add_column(heading)
    for heading in ("capacity", "expected use", "shadow price"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for row in shown:
        verdict = str(columns["verdict"][row])
        table.add_row(
            str(columns["week"][row]),
            *([Text(str(columns["resource"][row]))] if several else []),
            *(words.number(columns[name][row]) for name in ("capacity", "utilization")),
            words.price(columns["shadow_price"][row], highest[row % len(highest)]),
            Text(verdict, style="red" if fails(verdict) else ""),
        )
    left_out = len(columns["week"]) - len(shown)
    return Group(table, *([Text(f"{left_out} more rows are in plan.csv", style="dim")] if left_out else []))
