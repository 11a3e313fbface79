"""The Favorita set as Kaggle publishes it: a folder with `train.csv` and `items.csv`.

Its 125 million rows are read in chunks and summed to weeks, so that they are never in memory together.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from walras.data.column_checks import Column, one_array, texts
from walras.data.panel import DAYS_PER_WEEK, Panel
from walras.data.read import MOST_CELLS, NOT_RECORDED
from walras.data.sources import existing_file, open_source
from walras.data.weekly import MOST_WEEKS, format_date
from walras.errors import FailFast, InputError, join, plural, quote

SALES = "train.csv"
ITEMS = "items.csv"
TYPES = {"date": pa.date32(), "store_nbr": pa.int32(), "item_nbr": pa.int32(), "unit_sales": pa.float64()}
CHUNK_BYTES = 1 << 25
TAIL_BYTES = 1 << 12
ITEM_NUMBERS = 1 << 32


def read(path: str | Path) -> Panel:
    """Read the folder.

    Args:
        path: folder with `train.csv` (unpacked) and, where there is one, `items.csv`.
    """
    folder = Path(path)
    findings = FailFast()
    sales = existing_file(folder / SALES)
    _refuse_other_columns(sales)
    last = _last_day(sales)
    weekly = _weekly_sums(sales, last)
    weeks_back, pair, units = _complete_weeks(weekly, sales, last, findings)
    pairs, agent = np.unique(pair, return_inverse=True)
    count = int(weeks_back.max()) + 1
    if count * pairs.size > MOST_CELLS:
        raise InputError(f"{SALES} has {pairs.size:,} products over {count:,} weeks, more than fit in memory; cut it")
    dense, recorded = np.zeros((count, pairs.size)), np.zeros((count, pairs.size), dtype=bool)
    week = count - 1 - weeks_back
    dense[week, agent], recorded[week, agent] = units, True
    negative = dense < 0
    if negative.any():
        findings.note(f"{plural(int(negative.sum()), 'product-week')} with more returns than sales count as 0 units.")
    return _panel(folder, pairs, np.maximum(dense, 0.0), recorded, last, findings)


def _panel(
    folder: Path, pairs: np.ndarray, units: np.ndarray, recorded: np.ndarray, last: int, findings: FailFast
) -> Panel:
    store, item = pairs // ITEM_NUMBERS, pairs % ITEM_NUMBERS
    names = np.char.add(np.char.add(store.astype(np.str_), "_"), item.astype(np.str_))
    order = np.argsort(names)
    starts = last + 1 - DAYS_PER_WEEK * np.arange(len(units), 0, -1)
    on_sale = np.logical_or.accumulate(recorded, axis=0)
    gaps = int((on_sale & ~recorded).sum())
    findings.note(f"{plural(gaps, 'product-week')} without a record after the first count as 0 units.")
    category = _families(folder / ITEMS, item, findings)
    origin = {"units": "given"} | ({"category": "given"} if category is not None else {})
    return Panel(
        agents=names[order],
        weeks=starts.astype("datetime64[D]"),
        units=units[:, order],
        on_sale=on_sale[:, order],
        category=None if category is None else category[order],
        provenance=origin,
        notes=tuple(findings.notes),
    )


def _refuse_other_columns(path: Path) -> None:
    names = open_source(path).names
    missing = [name for name in TYPES if name not in names]
    if missing:
        raise InputError(
            f"{path.name} lacks {join(missing)}, so it is not Favorita's; its columns are {join(names)}: give the "
            "folder as Kaggle publishes it"
        )


def _last_day(path: Path) -> int:
    """Read the date of the last row: weeks are counted back from it, and the file is in the order of dates."""
    with path.open("rb") as file:
        file.seek(max(-TAIL_BYTES, -path.stat().st_size), os.SEEK_END)
        tail = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    date = tail[-1].split(",")[open_source(path).names.index("date")].strip('"') if tail else ""
    try:
        return int(np.datetime64(date, "D").astype(int))
    except ValueError as error:
        raise InputError(f"{path.name} ends in {quote(tail[-1])}, without a date; check that it is whole") from error


def _chunks(path: Path) -> Iterator[pa.RecordBatch]:
    convert = pacsv.ConvertOptions(include_columns=list(TYPES), column_types=TYPES)
    try:
        yield from pacsv.open_csv(path, pacsv.ReadOptions(block_size=CHUNK_BYTES), convert_options=convert)
    except pa.ArrowException as error:
        reason = quote(error, 160)
        raise InputError(f"{path.name} has a row that is not Favorita's ({reason}); correct that row") from error


def _weekly_sums(path: Path, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum each chunk by week and product, then the chunks: keys and units."""
    keys, sums, row = [], [], 0
    for chunk in _chunks(path):
        if chunk.num_rows == 0:
            continue
        columns = [chunk.column(name) for name in TYPES]
        _refuse_gaps(columns, path.name, row)
        day, store, item, units = (column.to_numpy(zero_copy_only=False) for column in columns)
        back = (last - day.astype("datetime64[D]").astype(np.int64)) // DAYS_PER_WEEK
        _refuse_odd(back, units, path.name, row)
        pair = store.astype(np.int64) * ITEM_NUMBERS + item
        pairs, code = np.unique(pair, return_inverse=True)
        cells, place = np.unique(back * pairs.size + code, return_inverse=True)
        keys.append(np.stack([cells // pairs.size, pairs[cells % pairs.size]]))
        sums.append(np.bincount(place, units))
        row += chunk.num_rows
    if not keys:
        raise InputError(f"{path.name} has a header but no rows; check that it is whole")
    return _merged(np.concatenate(keys, axis=1), np.concatenate(sums))


def _merged(keys: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add up the cells that several chunks share."""
    order = np.lexsort(keys)
    keys, sums = keys[:, order], sums[order]
    first = np.concatenate([[True], (np.diff(keys, axis=1) != 0).any(axis=0)])
    return keys[:, first], np.add.reduceat(sums, np.flatnonzero(first))


def _refuse_gaps(columns: list[pa.Array], name: str, before: int) -> None:
    for field, column in zip(TYPES, columns, strict=True):
        if column.null_count:
            row = before + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0]) + 1
            raise InputError(f"`{field}` of {name} is empty in data row {row}; every row needs one")


def _refuse_odd(back: np.ndarray, units: np.ndarray, name: str, before: int) -> None:
    for bad, why in (
        (back < 0, "`date` of {} is later than the last row's in data row {}; sort the file by date"),
        (back > MOST_WEEKS, "`date` of {} is more than fifty years before the last row's in data row {}; correct it"),
        (~np.isfinite(units), "`unit_sales` of {} is not a finite number in data row {}; correct it"),
    ):
        if bad.any():
            raise InputError(why.format(name, before + int(np.flatnonzero(bad)[0]) + 1))


def _complete_weeks(
    weekly: tuple[np.ndarray, np.ndarray], path: Path, last: int, findings: FailFast
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drop the first week where the first day of the file is not its first day."""
    (weeks_back, pair), units = weekly
    first = _first_day(path)
    oldest = int(weeks_back.max())
    if oldest > 0 and first > last + 1 - DAYS_PER_WEEK * (oldest + 1):
        keep = weeks_back < oldest
        findings.note(f"the days from {format_date(first)} do not fill a week and were dropped.")
        return weeks_back[keep], pair[keep], units[keep]
    return weeks_back, pair, units


def _first_day(path: Path) -> int:
    """Read the date of the first row."""
    first = next(chunk for chunk in _chunks(path) if chunk.num_rows)
    return int(first.column("date").to_numpy(zero_copy_only=False).astype("datetime64[D]").min().astype(int))


def _families(path: Path, item: np.ndarray, findings: FailFast) -> np.ndarray | None:
    """Read each item's family; None where the folder has no `items.csv`."""
    if not path.exists():
        findings.note(f"the folder has no {ITEMS}, so there are no categories.")
        return None
    source = open_source(path)
    if not {"item_nbr", "family"} <= set(source.names):
        raise InputError(f"{path.name} lacks item_nbr or family; its columns are {join(source.names)}: correct it")
    table = source.read(["item_nbr", "family"], ["item_nbr", "family"])
    numbers = texts(Column(path.name, "item_nbr", one_array(table["item_nbr"]), findings), needed=True)
    family = texts(Column(path.name, "family", one_array(table["family"]), findings), needed=True)
    known = dict(zip(numbers.labels[numbers.codes].tolist(), family.labels[family.codes].tolist(), strict=True))
    return np.array([known.get(str(number), NOT_RECORDED) for number in item.tolist()], dtype=np.str_)
