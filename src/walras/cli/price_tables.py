"""Read prices and earlier plans from tables with one row per week and resource."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from walras.errors import InputError

if TYPE_CHECKING:
    from walras.planning.costs import PreviousPlan

PLANNED = {"capacity": "capacity", "regular_capacity": "regular_capacity", "shadow_price": "shadow_prices"}
"""Columns of an earlier plan that are read, and the fields of `PreviousPlan`."""

Rows = list[tuple[str, str, tuple[float | None, ...]]]
"""Week, resource and values of each row."""


def read_prices(path: Path | None, weeks: np.ndarray, resources: tuple[str, ...]) -> np.ndarray:
    """Read `week, resource, shadow_price` rows; weeks and resources without a row have price 0.

    Args:
        path: .csv or .parquet, None for no prices. Other columns are ignored; a single `resource` may be left out.
        weeks: first days of the simulated weeks (`datetime64[D]`) [week].
        resources: names along the resource axis.

    Returns:
        Shadow prices [money per unit of resource; week, resource].

    Raises:
        InputError: one sentence naming the row and the column.
    """
    if path is None:
        return np.zeros((len(weeks), len(resources)))
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
