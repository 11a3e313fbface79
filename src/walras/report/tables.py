"""Own the tables of a finished plan: by week and resource, by group, and the small one for the terminal.

CONTRACT: column names are read by other programs; add columns at the end.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from rich.console import Group
from rich.table import Table
from rich.text import Text

from walras.planning.result import PlanResult, quantile_names
from walras.report import formatting

MOST_CONSOLE_ROWS = 30
MOST_DATES = 4
"""Weeks that a headline names; more are listed below it."""


def verdicts(result: PlanResult) -> list[str]:
    """Give one verdict per week; weeks that nobody judged say so."""
    missing = len(result.weeks) - len(result.week_verdicts)
    return [*result.week_verdicts[: len(result.weeks)], *["not judged"] * missing]


def fails(verdict: str) -> bool:
    """Tell whether a week's verdict means that utilization exceeds capacity noticeably in it."""
    return not (verdict.startswith(formatting.FITS) or verdict == "not judged")


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


def reissues(result: PlanResult) -> bool:
    """Tell whether the plan was verified with prices re-issued weekly, besides the planned ones fixed."""
    plan = result.settings.get("plan")
    return not isinstance(plan, Mapping) or plan.get("reissue", True) is not False


def price_basis(result: PlanResult) -> str:
    """Say which prices the verification charged first of all."""
    return "prices re-issued" if reissues(result) else "planned prices"


def level(result: PlanResult) -> str:
    """Grade the plan: `good`, `fair` where it fits on average but overruns are above the target, or `bad`."""
    if not result.record.feasible:
        return "bad"
    near = result.verified.get("near_limit_mean_violation")
    return "good" if near is None or formatting.is_missing(near) or near <= formatting.VIOLATION_TARGET else "fair"


def measures(result: PlanResult) -> list[str]:
    """Name the measures that people are shown, in order."""
    # Paths that are hardly constrained blow the mean of ratios up; only beside the pooled ratio can it be judged.
    hidden = {"regret_ratio", "pooled_regret_ratio"}
    if not formatting.is_missing(result.verified.get("pooled_regret_ratio")):
        hidden = set()
    return [name for name in formatting.MEASURES if name in result.verified and name not in hidden]


def oracle_basis(result: PlanResult) -> str:
    """Say on how many futures hindsight was computed, or nothing where that is unknown."""
    count = result.verified.get("oracle_paths")
    if count is None or formatting.is_missing(count) or "reward_kept" not in result.verified:
        return ""
    of = f" of {int(result.counts['paths']):,}" if "paths" in result.counts else ""
    return f"on {int(count):,}{of} futures"


def headline(result: PlanResult) -> str:
    """Answer in one line whether the plan fits."""
    judged = zip(result.weeks, verdicts(result), strict=True)
    bad = [formatting.day_month(week) for week, verdict in judged if fails(verdict)]
    span = formatting.plural(len(result.weeks), "week")
    when = f": {formatting.listing(bad)}" if len(bad) <= MOST_DATES else ""
    verb = "exceeds" if len(bad) == 1 else "exceed"
    exceed = f"{len(bad)} of {span} {verb} capacity noticeably ({formatting.NOTICEABLE}){when}."
    target = formatting.percent(formatting.VIOLATION_TARGET, 0)
    grade = level(result)
    if grade == "bad":
        start, rest = "Not feasible: ", "expected use is above capacity in some week."
    elif grade == "fair":
        start, rest = f"Fits on average, but overruns are larger than {target}: ", "no single week stands out."
    else:
        start = f"Feasible: overruns stay within {target} on average; " if bad else "Feasible: "
        rest = f"the plan fits capacity in all {span}."
    return start + (exceed if bad else rest)


def warnings(result: PlanResult) -> list[str]:
    """Say what a reader has to know before trusting the plan, beyond its verdict."""
    text = formatting.outside_training(result.search.outside_training)
    return [text] if text else []


def console_summary(result: PlanResult) -> Group:
    """Show a plan in the terminal: the answer, key figures and the weeks that matter."""
    style = {"good": "bold green", "fair": "bold yellow", "bad": "bold red"}[level(result)]
    sentences = [Text(formatting.sentence(formatting.fix_plurals(text))) for text in result.verdict]
    sentences += [Text(text, style="yellow") for text in warnings(result)]
    return Group(Text(headline(result), style=style), *sentences, _console_measures(result), _console_weeks(result))


def _console_measures(result: PlanResult) -> Table:
    table = Table(title="Verified on unseen paths", title_justify="left", box=None, pad_edge=False)
    table.add_column("measure")
    both = reissues(result)
    for heading in (
        ("re-issued weekly", "95 % interval", "fixed prices") if both else ("planned prices", "95 % interval")
    ):
        table.add_column(heading, justify="right")
    for name in measures(result):
        basis = oracle_basis(result) if name == "reward_kept" else ""
        table.add_row(
            formatting.title_of(name) + (f", {basis}" if basis else ""),
            formatting.measure(name, result.verified[name]),
            formatting.interval(name, result.intervals.get(name)),
            *([formatting.measure(name, result.verified_fixed.get(name))] if both else []),
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
            *(formatting.number(columns[name][row]) for name in ("capacity", "utilization")),
            formatting.price(columns["shadow_price"][row], highest[row % len(highest)]),
            Text(verdict, style="red" if fails(verdict) else ""),
        )
    left_out = len(columns["week"]) - len(shown)
    return Group(table, *([Text(_more_rows(left_out), style="dim")] if left_out else []))


def _more_rows(count: int) -> str:
    return f"{formatting.plural(count, 'more row')} {'is' if count == 1 else 'are'} in plan.csv"
