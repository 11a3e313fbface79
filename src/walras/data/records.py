"""The checked rows of a long table: its columns matched to our fields, every cell typed, not yet placed in weeks.

CONTRACT: `read_records` is the only reader of long tables; `--column ours=theirs` and adapters end here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsInt

import numpy as np
import pyarrow as pa

from walras.config import Reading
from walras.data.column_checks import (
    LARGEST,
    Codes,
    Column,
    constant_per_code,
    days,
    decimal_of,
    is_filled,
    is_text,
    numbers,
    one_array,
    texts,
)
from walras.data.layout import long_form
from walras.data.notation import NO_DAY
from walras.data.sources import Source, normal, open_source
from walras.errors import FailFast, SettingsError, join, quote

REQUIRED = ("unique_id", "ds", "units")
FLOWS = ("units", "orders", "receipts", "forecast")
"""Quantities that add up over the days of a week."""
MONEY = ("price", "unit_cost")
"""Money per unit: averaged over the days of a week, weighted by units."""
NUMBERS_PER_AGENT = ("lead_time", "volume", "fill_rate")
LABELS = ("vendor", "category")
NUMBERS = (*FLOWS, *MONEY, "on_hand", *NUMBERS_PER_AGENT)
TABLE_COLUMNS = ("unique_id", "ds", *NUMBERS, *LABELS)
STATIC_COLUMNS = ("unique_id", *LABELS, *NUMBERS_PER_AGENT, *MONEY)


def checked_mapping(columns: Mapping[str, Any] | None) -> dict[str, str]:
    """Refuse a mapping that names an unknown field or uses one column twice.

    Args:
        columns: our name -> the table's name.

    Raises:
        SettingsError: with the names that are allowed.
    """
    given = dict(columns or {})
    for ours, theirs in given.items():
        if ours not in TABLE_COLUMNS:
            raise SettingsError(
                f"column mapping names `{quote(ours)}`, which is none of our fields; write ours=theirs with one of "
                f"{', '.join(TABLE_COLUMNS)}"
            )
        if not isinstance(theirs, str) or not theirs:
            raise SettingsError(
                f"column mapping gives `{ours}` the name {quote(theirs)!r}; give the table's column name"
            )
    theirs_all = list(given.values())
    twice = sorted({theirs for theirs in theirs_all if theirs_all.count(theirs) > 1})
    if twice:
        raise SettingsError(f"column mapping uses the table's column {join(twice)} for two fields; map it once")
    return given


def parse_options(options: Iterable[str]) -> dict[str, str]:
    """Read `ours=theirs` options of a command line."""
    mapping: dict[str, str] = {}
    for option in options:
        ours, sign, theirs = option.partition("=")
        if not sign or not ours.strip() or not theirs.strip():
            raise SettingsError(f"column option {quote(option)!r} is not of the form ours=theirs; write e.g. units=qty")
        mapping[ours.strip()] = theirs.strip()
    return checked_mapping(mapping)


def match_columns(
    names: Sequence[str],
    mapping: Mapping[str, str],
    fields: Sequence[str],
    required: Sequence[str],
    name: str,
    findings: FailFast,
) -> dict[str, str]:
    """Match the table's columns to our fields: our name -> the table's name.

    Args:
        names: columns the table has.
        mapping: the user's mapping, already checked.
        fields: fields this kind of table may have.
        required: fields it must have.
        name: of the table, for sentences.
        findings: gets missing and unused columns.
    """
    taken = set(mapping.values())
    match = {}
    alike: dict[str, list[str]] = {}
    for column in names:
        alike.setdefault(normal(column), []).append(column)
    for ours in fields:
        theirs = mapping.get(ours, ours)
        if theirs not in names and len(alike.get(normal(theirs), ())) == 1:
            theirs = alike[normal(theirs)][0]  # the same name in another case or with blanks
        if theirs in names and (ours in mapping or theirs not in taken):
            match[ours] = theirs
    missing = [ours for ours in required if ours not in match]
    if missing:
        findings.problem(_missing_sentence(missing, names, mapping, name))
    unused = [column for column in names if column not in match.values()]
    if unused:
        findings.note(f"columns of {name} that were not used: {join(unused)}.")
    return match


def _missing_sentence(missing: Sequence[str], names: Sequence[str], mapping: Mapping[str, str], name: str) -> str:
    wanted = ", ".join(
        f"`{ours}`" + (f" (mapped to {quote(mapping[ours])})" if ours in mapping else "") for ours in missing
    )
    return (
        f"{name} lacks the required {'column' if len(missing) == 1 else 'columns'} {wanted}; its columns are "
        f"{join(names, 12) or 'none'}: "
        f"map yours with --column {missing[0]}=NAME"
    )


HIGHEST = {"fill_rate": 1.0, "lead_time": 52.0}
"""Shares, and weeks of lead time; all others only need to be 0 or more and not absurd."""


@dataclass(frozen=True)
class Records:
    """Rows of a table, checked cell by cell.

    Attributes:
        table: name of the table, for sentences.
        columns: our name -> the table's name, for the fields it has.
        products: product of each row.
        day: days since 1970 of each row; empty for a static table.
        numbers: our name -> values, NaN where empty.
        labels: our name -> coded texts.
        unreadable: the units of the row were refused already [row].
        row: data row of the file of each row.
        constant: our name -> the only value, or code, of each product; `numbers` and `labels` have no rows of these.
    """

    table: str
    columns: Mapping[str, str]
    products: Codes
    day: np.ndarray
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    labels: Mapping[str, Codes] = field(default_factory=dict)
    unreadable: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=bool))
    row: Callable[[SupportsInt], int] = field(default=lambda index: int(index) + 1)
    constant: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Count the rows."""
        return int(self.products.codes.size)


@dataclass(frozen=True)
class OpenTable:
    """Raw columns that were matched to our fields, read when they are needed."""

    table: str
    columns: Mapping[str, str]
    schema: pa.Schema
    read: Callable[[list[str]], pa.Table]
    reading: Reading

    def column(self, ours: str, findings: FailFast, decimal: str = ".") -> Column:
        """Pick the column of one of our fields."""
        values = one_array(self.read([self.columns[ours]])[0])
        return Column(self.table, ours, values, findings, self.reading, decimal)


def read_records(
    source: Any,
    columns: Mapping[str, str] | None,
    findings: FailFast,
    *,
    also: tuple[str, ...] = (),
    reading: Reading | None = None,
) -> Records | None:
    """Read and check a long table.

    Args:
        source: path or frame.
        columns: our name -> the table's name.
        findings: gets problems and notes.
        also: names of the static table, where mapped columns may be found too.
        reading: what the user says about the notation.

    Returns:
        The records; None when problems are collected and nothing usable is left.
    """
    mapping, reading = checked_mapping(columns), reading or Reading()
    opened = open_source(source, known=(*TABLE_COLUMNS, *mapping.values()), sheet=reading.sheet)
    findings.read_as.update(opened.read_as)
    _refuse_unknown(mapping, (*opened.names, *also), opened.name)
    turned = long_form(opened, mapping, reading, findings)
    if turned is None:
        return None
    opened, mapping = turned
    match = match_columns(opened.names, mapping, TABLE_COLUMNS, REQUIRED, opened.name, findings)
    findings.columns = dict(match)
    raw = _read(opened, match, REQUIRED, findings, reading)
    if raw is None:
        return None
    products, day = texts(raw.column("unique_id", findings), needed=True), days(raw.column("ds", findings))
    findings.rows = day.size
    values, constant = _numbers(raw, findings, products)
    unreadable = np.isnan(values["units"]) if "units" in values else np.ones(day.size, dtype=bool)
    if unreadable.any():
        unreadable &= is_filled(raw.column("units", findings))
    labels = {}
    for name, coded in _labels(raw, findings).items():
        each = constant_per_code(coded.codes, products.codes, products.labels.size)
        labels[name] = coded if each is None else Codes(np.empty(0, np.int32), coded.labels)
        constant |= {} if each is None else {name: each}
    return Records(raw.table, match, products, day, values, labels, unreadable, findings.row, constant)


def read_static(
    source: Any, columns: Mapping[str, str] | None, findings: FailFast, reading: Reading | None = None
) -> Records | None:
    """Read and check a table with one row per product."""
    opened = open_source(source, "the static table", known=STATIC_COLUMNS)
    match = match_columns(opened.names, checked_mapping(columns), STATIC_COLUMNS, ("unique_id",), opened.name, findings)
    raw = _read(opened, match, ("unique_id",), findings, reading or Reading())
    if raw is None:
        return None
    column = raw.column("unique_id", findings)
    products = texts(column, needed=True)
    _, first = np.unique(products.codes, return_index=True)
    again = np.ones(products.codes.size, dtype=bool)
    again[first] = False
    column.problem(again & (products.codes >= 0), "the static table needs one row per product; drop the repeated one")
    values = _numbers(raw, findings)[0]
    return Records(raw.table, match, products, np.empty(0, np.int32), values, _labels(raw, findings))


def names_of_source(source: Any) -> tuple[str, ...]:
    """Read the column names of a static table, or none where there is no such table."""
    return () if source is None else tuple(open_source(source, "the static table").names)


def is_valid(records: Records) -> bool:
    """Tell whether every row has a product and a date."""
    return bool((records.products.codes >= 0).all() and (records.day != NO_DAY).all())


def _read(
    opened: Source, match: Mapping[str, str], required: tuple[str, ...], findings: FailFast, reading: Reading
) -> OpenTable | None:
    if not all(ours in match for ours in required):
        return None
    cells = opened.read([match[required[0]]] if opened.schema else list(match.values()))
    if cells.num_rows == 0:
        findings.problem(f"{opened.name} has a header but no rows; give at least one row")
        return None
    if opened.schema is not None:
        return OpenTable(opened.name, match, opened.schema, opened.read, reading)
    return OpenTable(opened.name, match, cells.schema, cells.select, reading)


def _numbers(
    raw: OpenTable, findings: FailFast, products: Codes | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the values of each row, and apart the attributes that never change within a product, one for each."""
    present = [ours for ours in NUMBERS if ours in raw.columns]
    words = (ours for ours in present if is_text(raw.schema.field(raw.columns[ours]).type))
    mark, doubtful = decimal_of([raw.column(ours, findings) for ours in words], raw.reading, findings)
    lowest = {"units": -LARGEST} if raw.reading.returns else {}
    rows, constant = {}, {}
    for ours in present:
        values = numbers(raw.column(ours, findings, mark), lowest.get(ours, 0.0), HIGHEST.get(ours, LARGEST))
        each = None
        if products is not None and ours in NUMBERS_PER_AGENT:
            each = constant_per_code(values, products.codes, products.labels.size)
        if each is None:
            rows[ours] = values
        else:
            constant[ours] = each
    return ({}, {}) if doubtful else (rows, constant)  # what else is wrong was found all the same


def _labels(raw: OpenTable, findings: FailFast) -> dict[str, Codes]:
    return {ours: texts(raw.column(ours, findings), needed=False) for ours in LABELS if ours in raw.columns}


def _refuse_unknown(mapping: Mapping[str, str], names: tuple[str, ...], table: str) -> None:
    """Refuse a mapping to a column that no table has."""
    for ours, theirs in mapping.items():
        if theirs not in names:
            raise SettingsError(
                f"column mapping sends `{ours}` to {theirs!r}, which {table} does not have; its columns are "
                f"{join(names, 12)}"
            )
