"""Online Retail II as UCI publishes it: one xlsx with two sheets, or the same lines as CSV.

Invoice lines become weekly sales; cancellations, lines that are no products and returns are dropped and counted.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from walras.data.column_checks import NO_DAY, Column, days, numbers, one_array
from walras.data.panel import Panel
from walras.data.read import read_panel
from walras.data.sources import existing_file, open_source
from walras.errors import FailFast, InputError, join, plural, quote

FIELDS = {
    "invoice": ("Invoice", "InvoiceNo"),
    "product": ("StockCode",),
    "units": ("Quantity",),
    "ds": ("InvoiceDate",),
    "price": ("Price", "UnitPrice"),
}
"""Our name -> the names that the two editions of the set use."""
PRODUCT_CODE = r"^\d{5}[A-Za-z]{0,2}$"
"""Everything else is postage, fees, samples, vouchers and corrections."""
WORKBOOKS = (".xlsx", ".xlsm")
AMERICAN_DATE = r"^\d{1,2}/\d{1,2}/\d{4} "


def read(path: str | Path) -> Panel:
    """Read the workbook or the CSV.

    Args:
        path: `online_retail_II.xlsx`, or a CSV with the same columns.
    """
    path = existing_file(Path(path))
    findings = FailFast()
    lines = _workbook(path) if path.suffix.lower() in WORKBOOKS else _csv(path)
    keep = _products(lines, path.name, findings)
    panel = read_panel(keep)
    return replace(panel, notes=(*findings.notes, *panel.notes))


def _csv(path: Path) -> pa.Table:
    source = open_source(path)
    match = _match(source.names, path.name)
    table = source.read(list(match.values()), [match["invoice"], match["product"]])
    ours = {theirs: name for name, theirs in match.items()}
    return table.rename_columns([ours[name] for name in table.column_names])


def _workbook(path: Path) -> pa.Table:
    """Read every sheet that has the columns; a workbook of half a million lines takes about a minute."""
    import openpyxl  # slow to import and only needed here

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheets = [_sheet(sheet.iter_rows(values_only=True), f"{path.name}, sheet {sheet.title}") for sheet in book]
        book.close()
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, SyntaxError) as error:
        reason = quote(error, 100)
        raise InputError(f"{path.name} cannot be read as a workbook ({reason}); check that it is whole") from error
    return pa.concat_tables(sheets)


def _sheet(rows: Iterator[tuple[Any, ...]], name: str) -> pa.Table:
    header = [str(cell) for cell in next(rows, ())]
    match = _match(header, name)
    places = {ours: header.index(theirs) for ours, theirs in match.items()}
    columns: dict[str, list[str | None]] = {ours: [] for ours in places}
    for row in rows:
        for ours, place in places.items():
            columns[ours].append(_text(row[place] if place < len(row) else None))
    return pa.table({ours: pa.array(cells, pa.string()) for ours, cells in columns.items()})


def _text(cell: Any) -> str | None:
    """Convert cells to text, as in a CSV."""
    if isinstance(cell, datetime):
        return cell.isoformat(" ")
    return None if cell is None else str(cell)


def _match(names: Sequence[str], where: str) -> dict[str, str]:
    match = {ours: next((name for name in spellings if name in names), None) for ours, spellings in FIELDS.items()}
    missing = [FIELDS[ours][0] for ours, theirs in match.items() if theirs is None]
    if missing:
        raise InputError(
            f"{where} lacks {join(missing)}, so it is not Online Retail II; its columns are "
            f"{join(names) or 'none'}: give the file as UCI publishes it"
        )
    return {ours: theirs for ours, theirs in match.items() if theirs is not None}


def _products(lines: pa.Table, name: str, findings: FailFast) -> pa.Table:
    """Keep sales of products: our long table, one row per line."""
    if lines.num_rows == 0:
        raise InputError(f"{name} has a header but no lines; give the file as UCI publishes it")
    cells = {ours: one_array(lines[ours]) for ours in lines.column_names}
    invoice, product = (_strings(cells[ours]) for ours in ("invoice", "product"))
    units = numbers(Column(name, "Quantity", cells["units"], findings), low=-np.inf)
    price = numbers(Column(name, "Price", cells["price"], findings), low=-np.inf)
    day = days(Column(name, "InvoiceDate", _iso(cells["ds"]), findings))
    product = pc.utf8_upper(product)
    drops = (
        ("cancelled or adjusted invoices", ~_matches(invoice, r"^\d+$")),
        ("no products (postage, fees, samples, ...)", ~_matches(product, PRODUCT_CODE)),
        ("invoices that an earlier sheet has too", _listed_twice(invoice, day)),
        ("returns and corrections (quantity not above 0)", ~(units > 0)),
        ("given away (price not above 0)", ~(price > 0)),
    )
    keep = np.ones(lines.num_rows, dtype=bool)
    for what, bad in drops:
        dropped = int((keep & bad).sum())
        keep &= ~bad
        if dropped:
            findings.note(f"{plural(dropped, 'line')} dropped: {what}.")
    if not keep.any():
        raise InputError(f"{name} has no line that sells a product; give the file as UCI publishes it")
    rows = np.flatnonzero(keep)
    return pa.table(
        {
            "unique_id": product.take(pa.array(rows)),
            "ds": pa.array(day[rows].astype("datetime64[D]")),
            "units": pa.array(units[rows]),
            "price": pa.array(price[rows]),
        }
    )


def _strings(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return pc.utf8_trim_whitespace(pc.fill_null(values.cast(pa.string()), ""))


def _matches(values: pa.Array, pattern: str) -> np.ndarray:
    return np.asarray(pc.match_substring_regex(values, pattern).to_numpy(zero_copy_only=False))


def _iso(values: pa.Array) -> pa.Array:
    """Turn 12/31/2010 8:26 into 2010-12-31; other dates are left as they are."""
    if not pa.types.is_string(values.type):
        return values
    american = pc.fill_null(pc.match_substring_regex(values, AMERICAN_DATE), False)
    if not pc.any(american).as_py():
        return values
    coded = pc.fill_null(values, "").dictionary_encode()
    words = [re.sub(r"^(\d{1,2})/(\d{1,2})/(\d{4}) .*$", _iso_day, word) for word in coded.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(coded.indices, pa.array(words, pa.string())).dictionary_decode()


def _iso_day(match: re.Match[str]) -> str:
    month, day, year = (int(part) for part in match.groups())
    return f"{year:04d}-{month:02d}-{day:02d}"


def _listed_twice(invoice: pa.Array, day: np.ndarray) -> np.ndarray:
    """Mark invoices of a later sheet that an earlier one has too: the two sheets share nine days.

    A new sheet shows by its dates: they go back by more than a day.
    """
    known = np.where(day == NO_DAY, np.maximum.accumulate(day), day).astype(np.int64)
    part = np.concatenate([[0], np.cumsum(np.diff(known) < -1)])
    codes = invoice.dictionary_encode().indices.to_numpy()
    first_part = np.full(codes.max() + 1, part.max() + 1)
    np.minimum.at(first_part, codes, part)
    return np.asarray(part > first_part[codes])
