"""`walras plan`, `walras demo` and `walras simulate`: a table or the embedded population, planned or simulated."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from cyclopts import Parameter

from walras.cli import options
from walras.cli.options import NO_FLAGS
from walras.config import PlanSettings, read_costs
from walras.errors import InputError
from walras.progress import on_terminal

if TYPE_CHECKING:
    from walras.data.panel import Panel
    from walras.planning.costs import PreviousPlan

PLAN_OUT, DEMO_OUT, SIMULATE_OUT = (Path("walras-out", name) for name in ("", "demo", "simulation"))
READING = "Reading the table"

Last = Annotated[
    Path | None,
    Parameter(help="plan that this one revises: its folder or plan.csv; changes cost `revision_rate` (--costs)"),
]
Prices = Annotated[
    Path | None, Parameter(name="--prices", help="file with week, resource, shadow_price, e.g. a plan's plan.csv")
]

PLANNED = {"capacity": "capacity", "regular_capacity": "regular_capacity", "shadow_price": "shadow_prices"}
"""Columns of an earlier plan that are read, and the fields of `PreviousPlan`."""

Rows = list[tuple[str, str, tuple[float | None, ...]]]
"""Week, resource and values of each row."""


def plan_command(
    table: Annotated[Path, Parameter(help=options.TABLE_HELP)],
    /,
    *,
    flags: options.PlanFlags = None,
    table_flags: options.TableFlags = NO_FLAGS,
    costs: options.CostsFile = None,
    last: Last = None,
    out: options.Out = PLAN_OUT,
    as_json: options.Json = False,
) -> None:
    """Plan capacity for the products of a table, verify the plan on unseen futures and write a report."""
    chosen, table_settings = table_flags.read(flags)

    def load() -> "tuple[Panel, PreviousPlan | None]":
        panel = options.load_panel(table, table_settings)
        weeks = panel.next_weeks(chosen.weeks)
        return panel, None if last is None else read_last_plan(last, weeks, chosen.resources)

    _plan(READING, load, chosen, costs, out, as_json)


def demo_command(
    *,
    flags: options.PlanFlags = None,
    settings: options.SettingsFile = None,
    costs: options.CostsFile = None,
    agents: options.Agents = 2000,
    history: options.History = 156,
    out: options.Out = DEMO_OUT,
    as_json: options.Json = False,
) -> None:
    """Plan the embedded population: generated products with the published statistics of real stores."""
    from walras.population.generate import generate_panel

    chosen, _ = options.TableFlags(settings).read(flags)
    stage = "Making up a population"  # a key of report.json
    _plan(stage, lambda: (generate_panel(agents, history, chosen.seed), None), chosen, costs, out, as_json)


def _plan(
    stage: str,
    load: "Callable[[], tuple[Panel, PreviousPlan | None]]",
    settings: PlanSettings,
    costs: Path | None,
    out: Path,
    as_json: bool,
) -> None:
    """Load a panel and the plan to revise in a named stage, plan, write the report and print it."""
    started, rates = time.perf_counter(), read_costs(costs)
    options.require_writable(out)
    with on_terminal() as progress:
        progress.stage(stage)
        panel, previous = load()
        from walras.planning.plan import plan
        from walras.report.page import write_report
        from walras.report.summary import console_summary, plan_summary

        reading = time.perf_counter() - started
        result = plan(panel, settings, rates, previous=previous, progress=progress)
        seconds = {"reading": reading, **result.seconds, "total": time.perf_counter() - started}
        result = replace(result, seconds=seconds)
        progress.stage("Writing the report")
        files = write_report(result, out)
    options.print_result(as_json, plan_summary(result), [console_summary(result)], files)


def simulate_command(
    table: Annotated[Path | None, Parameter(help=f"{options.TABLE_HELP}; default: the embedded population")] = None,
    /,
    *,
    prices: Prices = None,
    flags: options.PlanFlags = None,
    table_flags: options.TableFlags = NO_FLAGS,
    agents: options.Agents = 2000,
    history: options.History = 156,
    out: options.Out = SIMULATE_OUT,
    as_json: options.Json = False,
) -> None:
    """Simulate the coming weeks of a population under given shadow prices, and the same futures without prices."""
    started = time.perf_counter()
    chosen, table_settings = table_flags.read(flags)
    options.require_writable(out)
    with on_terminal() as progress:
        progress.stage(READING)
        from walras.planning.plan import select_policy
        from walras.planning.problem import build_simulation
        from walras.planning.verify import compare_prices
        from walras.population.generate import generate_panel
        from walras.report.page import comparison_sentences, write_comparison

        if table is None:
            panel = generate_panel(agents, history, chosen.seed)
        else:
            panel = options.load_panel(table, table_settings)
        weeks, resources = panel.next_weeks(chosen.weeks), chosen.resources
        no_prices = np.zeros((len(weeks), len(resources)))
        charged = no_prices if prices is None else read_prices(prices, weeks, resources)
        choice = select_policy(panel, chosen, progress)
        problem = build_simulation(panel, chosen, choice, progress=progress)
        progress.stage("Simulating")
        comparison = compare_prices(problem, charged)
        progress.stage("Writing the report")
        files = write_comparison(comparison, out, time.perf_counter() - started)
    facts = {**comparison.as_dict(), "seconds": time.perf_counter() - started}
    options.print_result(as_json, facts, comparison_sentences(comparison), files)


def read_prices(path: Path, weeks: np.ndarray, resources: tuple[str, ...]) -> np.ndarray:
    """Read `week, resource, shadow_price` rows; weeks and resources without a row have price 0.

    Args:
        path: .csv or .parquet; other columns are ignored, and `resource` may be left out if there is only one.
        weeks: first days of the simulated weeks (`datetime64[D]`) [week].
        resources: names along the resource axis.

    Returns:
        Shadow prices [money per unit of resource; week, resource].

    Raises:
        InputError: one sentence naming the row and the column.
    """
    rows = _rows(path, resources, ("shadow_price",))
    known = set(_days(weeks))
    for number, (week, name, _) in enumerate(rows, start=1):
        where = f"of {path.name} in data row {number}"
        if week not in known:
            raise InputError(f"`week` {where} is {week}, which is not simulated; give weeks from {_span(weeks)}")
        if name not in resources:
            raise InputError(f"`resource` {where} is {name}, which is not simulated; add it with --resources {name}")
    return np.nan_to_num(_grids(path, rows, weeks, resources, ("shadow_price",))[0])


def read_last_plan(path: Path, weeks: np.ndarray, resources: tuple[str, ...]) -> "PreviousPlan":
    """Read an earlier plan, a file or the folder of its plan.csv, for the weeks and resources that are planned now.

    Raises:
        InputError: one sentence naming the row and the column, or saying that the plans share no week.
    """
    from walras.planning.costs import PreviousPlan

    path = path / "plan.csv" if path.is_dir() else path
    grids = _grids(path, _rows(path, resources, tuple(PLANNED)), weeks, resources, tuple(PLANNED))
    if not np.isfinite(grids[0]).any():
        raise InputError(
            f"{path.name} plans no week of {_span(weeks)} for {', '.join(resources)}; name the plan that this one "
            "revises, or leave --last out"
        )
    return PreviousPlan(**dict(zip(PLANNED.values(), grids, strict=True)))


def _days(weeks: np.ndarray) -> list[str]:
    return [str(week) for week in weeks.astype("datetime64[D]")]


def _span(weeks: np.ndarray) -> str:
    return f"{weeks[0]} to {weeks[-1]}, seven days apart"


def _grids(
    path: Path, rows: Rows, weeks: np.ndarray, resources: tuple[str, ...], columns: tuple[str, ...]
) -> list[np.ndarray]:
    """Put the rows of known weeks and resources in their places, NaN elsewhere; refuse bad numbers in every row."""
    place = {week: index for index, week in enumerate(_days(weeks))}
    grids = [np.full((len(weeks), len(resources)), np.nan) for _ in columns]
    for number, (week, name, values) in enumerate(rows, start=1):
        for column, value in zip(columns, values, strict=True):
            if not (value is not None and 0 <= value < np.inf):
                where = f"of {path.name} in data row {number}"
                raise InputError(f"`{column}` {where} is {value}; it must be a number of at least 0")
        if week not in place or name not in resources:
            continue
        cell = place[week], resources.index(name)
        if np.isfinite(grids[0][cell]):
            raise InputError(
                f"{path.name} has {name} in the week of {week} twice, again in data row {number}; keep one"
            )
        for grid, value in zip(grids, values, strict=True):
            grid[cell] = value
    return grids


def _rows(path: Path, resources: tuple[str, ...], columns: tuple[str, ...]) -> Rows:
    """Read weeks, resources and some columns of numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from walras.data.sources import open_source

    source = open_source(path, path.name)
    keys = ("week", "resource")
    table = source.read([name for name in (*keys, *columns) if name in source.names], keys)
    present = {*table.column_names, *(["resource"] if len(resources) == 1 else [])}
    missing = [name for name in (*keys, *columns) if name not in present]
    if missing:
        needed = ", ".join((*keys, *columns))
        raise InputError(
            f"{path.name} lacks the column `{missing[0]}`; it needs {needed}, as in the plan.csv of a plan"
        )
    values = []
    for column in columns:
        try:
            values.append(pc.cast(table[column], pa.float64()).to_pylist())
        except pa.ArrowInvalid as error:
            raise InputError(f"`{column}` of {path.name} has a value that is not a number ({error})") from None
    week = [str(value)[:10] for value in table["week"].to_pylist()]
    named = "resource" in table.column_names
    name = [str(value) for value in table["resource"].to_pylist()] if named else [resources[0]] * len(week)
    return list(zip(week, name, zip(*values, strict=True), strict=True))
