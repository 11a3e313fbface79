"""The checked rows of a long table: its columns matched to our fields, every cell typed, not yet placed in weeks.

CONTRACT: `read_records` is the only reader of long tables; `--column ours=theirs` and adapters end here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from walras.data.column_checks import LARGEST, NO_DAY, Codes, Column, days, numbers, one_array, texts
from walras.data.sources import Source, open_source
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
TEXT = ("unique_id", *LABELS)


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
    for ours in fields:
        theirs = mapping.get(ours, ours)
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


HIGHEST = {"fill_rate": 1.0}
"""Fields that are shares; all others only need to be 0 or more and not absurd."""


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
    """

    table: str
    columns: Mapping[str, str]
    products: Codes
    day: np.ndarray
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    labels: Mapping[str, Codes] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Count the rows."""
        return int(self.products.codes.size)


@dataclass(frozen=True)
class OpenTable:
    """Raw columns that were matched to our fields."""

    table: str
    columns: Mapping[str, str]
    cells: pa.Table

    def column(self, ours: str, findings: FailFast) -> Column:
        """Pick the column of one of our fields."""
        return Column(self.table, ours, one_array(self.cells[self.columns[ours]]), findings)


def read_records(
    source: Any, columns: Mapping[str, str] | None, findings: FailFast, *, also: tuple[str, ...] = ()
) -> Records | None:
    """Read and check a long table.

    Args:
        source: path or frame.
        columns: our name -> the table's name.
        findings: gets problems and notes.
        also: names of the static table, where mapped columns may be found too.

    Returns:
        The records; None when problems are collected and nothing usable is left.
    """
    mapping = checked_mapping(columns)
    opened = open_source(source)
    _refuse_unknown(mapping, (*opened.names, *also), opened.name)
    match = match_columns(opened.names, mapping, TABLE_COLUMNS, REQUIRED, opened.name, findings)
    findings.columns = dict(match)
    raw = _read(opened, match, REQUIRED, findings)
    if raw is None:
        return None
    findings.rows = raw.cells.num_rows
    return Records(
        raw.table,
        match,
        texts(raw.column("unique_id", findings), needed=True),
        days(raw.column("ds", findings)),
        _numbers(raw, findings),
        _labels(raw, findings),
    )


def read_static(source: Any, columns: Mapping[str, str] | None, findings: FailFast) -> Records | None:
    """Read and check a table with one row per product."""
    opened = open_source(source, "the static table")
    match = match_columns(opened.names, checked_mapping(columns), STATIC_COLUMNS, ("unique_id",), opened.name, findings)
    raw = _read(opened, match, ("unique_id",), findings)
    if raw is None:
        return None
    column = raw.column("unique_id", findings)
    products = texts(column, needed=True)
    _, first = np.unique(products.codes, return_index=True)
    again = np.ones(products.codes.size, dtype=bool)
    again[first] = False
    column.problem(again & (products.codes >= 0), "the static table needs one row per product; drop the repeated one")
    return Records(raw.table, match, products, np.empty(0, np.int32), _numbers(raw, findings), _labels(raw, findings))


def names_of_source(source: Any) -> tuple[str, ...]:
    """Read the column names of a static table, or none where there is no such table."""
    return () if source is None else tuple(open_source(source, "the static table").names)


def is_valid(records: Records) -> bool:
    """Tell whether every row has a product and a date."""
    return bool((records.products.codes >= 0).all() and (records.day != NO_DAY).all())


def _read(opened: Source, match: Mapping[str, str], required: tuple[str, ...], findings: FailFast) -> OpenTable | None:
    if not all(ours in match for ours in required):
        return None
    cells = opened.read(list(match.values()), [match[ours] for ours in TEXT if ours in match])
    if cells.num_rows == 0:
        findings.problem(f"{opened.name} has a header but no rows; give at least one row")
        return None
    return OpenTable(opened.name, match, cells)


def _numbers(raw: OpenTable, findings: FailFast) -> dict[str, np.ndarray]:
    return {
        ours: numbers(raw.column(ours, findings), high=HIGHEST.get(ours, LARGEST))
        for ours in NUMBERS
        if ours in raw.columns
    }


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
