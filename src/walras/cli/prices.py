"""Own how shadow prices come in from a file, such as the `plan.csv` of an earlier plan.

EDGE: people's files; every row must be a week of the horizon, a known resource and a price of at least 0.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from walras.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("week", "resource", "shadow_price")


def read_prices(path: Path, weeks: np.ndarray, resources: tuple[str, ...]) -> np.ndarray:
    """Read `week, resource, shadow_price` rows; weeks and resources without a row have price 0.

    Args:
        path: .csv or .parquet; other columns are ignored, and `resource` may be left out where there is only one.
        weeks: first days of the simulated weeks (`datetime64[D]`) [week].
        resources: names along the resource axis.

    Returns:
        Shadow prices [money per unit of resource; week, resource].

    Raises:
        InputError: one sentence naming the row and the column.
    """
    table = _table(path, resources)
    place = {str(week): index for index, week in enumerate(weeks.astype("datetime64[D]"))}
    prices = np.full((len(weeks), len(resources)), np.nan)
    for row, (week, name, price) in enumerate(zip(*table, strict=True), start=1):
        where = f"of {path.name} in data row {row}"
        if week not in place:
            raise InputError(f"`week` {where} is {week}, which is not simulated; give weeks from {_span(weeks)}")
        if name not in resources:
            raise InputError(f"`resource` {where} is {name}, which is not simulated; add it with --resources {name}")
        if not (price is not None and 0 <= price < np.inf):
            raise InputError(f"`shadow_price` {where} is {price}; it must be a number of at least 0")
        cell = place[week], resources.index(name)
        if np.isfinite(prices[cell]):
            raise InputError(
                f"{path.name} prices {name} in the week of {week} twice, again in data row {row}; keep one"
            )
        prices[cell] = price
    return np.nan_to_num(prices)


def zero_prices(weeks: np.ndarray, resources: tuple[str, ...]) -> np.ndarray:
    """Charge nothing [week, resource]."""
    return np.zeros((len(weeks), len(resources)))


def _span(weeks: np.ndarray) -> str:
    return f"{weeks[0]} to {weeks[-1]}, seven days apart"


def _table(path: Path, resources: tuple[str, ...]) -> tuple[list[str], list[str], list[float | None]]:
    """Read the three columns as lists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _arrow(path)
    missing = [
        name for name in COLUMNS if name not in table.column_names and not (name == "resource" and len(resources) == 1)
    ]
    if missing:
        raise InputError(
            f"{path.name} lacks the column `{missing[0]}`; it needs {', '.join(COLUMNS)}, as in the plan.csv of a plan"
        )
    try:
        price = pc.cast(table["shadow_price"], pa.float64()).to_pylist()
    except pa.ArrowInvalid as error:
        raise InputError(f"`shadow_price` of {path.name} has a value that is not a number ({error})") from None
    week = [str(value)[:10] for value in table["week"].to_pylist()]
    name = [str(value) for value in table["resource"].to_pylist()] if "resource" in table.column_names else None
    return week, name or [resources[0]] * len(week), price


def _arrow(path: Path) -> "pa.Table":
    from walras.data.sources import open_source

    source = open_source(path, path.name)
    return source.read([name for name in COLUMNS if name in source.names], text=("week", "resource"))
