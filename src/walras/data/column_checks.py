"""Parsing of single columns (identifiers, dates, numbers, labels); each reports the first bad row.

Every function returns one value per row and reports problems to `findings`; rows are counted from 1, without the
header.
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from walras.errors import FailFast, join, plural, quote

NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
DAYS_IN_ISO_TEXT = 10
LONGEST_LABEL = 200
LARGEST = 1e12
"""More than any product sells or costs, and far within single precision."""
NO_DAY = np.iinfo(np.int32).min


@dataclass
class Column:
    """One column with the names that sentences need.

    Attributes:
        table: name of the table, for sentences.
        name: our name of the field.
        values: the cells.
        findings: gets the problems.
    """

    table: str
    name: str
    values: pa.Array
    findings: FailFast = field(repr=False)

    @property
    def title(self) -> str:
        """Return the field and its table, for sentences."""
        return f"`{self.name}` of {self.table}"

    def problem(self, bad: np.ndarray, needed: str, value: Callable[[int], object] | None = None) -> None:
        """Report the rows that `bad` marks, naming the first, its value and what is needed."""
        rows = np.flatnonzero(bad)
        if rows.size == 0:
            return
        first = int(rows[0])
        given = quote(value(first) if value else self.values[first].as_py())
        more = f" ({plural(rows.size, 'such row')} in all)" if rows.size > 1 else ""
        self.findings.problem(f"{self.title} is {given} in data row {first + 1}{more}; {needed}")


@dataclass(frozen=True)
class Codes:
    """Texts as codes into sorted labels; -1 where the cell is empty."""

    codes: np.ndarray
    labels: np.ndarray


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Join the chunks of a column, with one dictionary where it has dictionaries."""
    if isinstance(column, pa.Array):
        return column
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    joined = column.combine_chunks()
    return joined if isinstance(joined, pa.Array) else pa.concat_arrays(joined.chunks)


def texts(column: Column, needed: bool) -> Codes:
    """Read identifiers or labels as codes.

    Args:
        column: text, whole numbers, or a dictionary of them.
        needed: report empty cells; otherwise they get the code -1.
    """
    values = column.values
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if pa.types.is_null(kind):
        coded = pa.array([None] * len(values), pa.string()).dictionary_encode()
    elif not (_is_text(kind) or pa.types.is_integer(kind)):
        column.findings.problem(f"{column.title} holds {kind} values; it needs text or whole numbers")
        return Codes(np.full(len(values), -1), np.empty(0, dtype=np.str_))
    else:
        coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    long = next((word for word in coded.dictionary.to_pylist() if len(str(word)) > LONGEST_LABEL), None)
    if long is not None:
        column.findings.problem(
            f"{column.title} holds {quote(long)}, longer than {LONGEST_LABEL} characters; shorten it"
        )
        return Codes(np.full(len(values), -1), np.empty(0, dtype=np.str_))
    words = np.array(["" if word is None else str(word) for word in coded.dictionary.to_pylist()], dtype=np.str_)
    codes = _numpy(pc.fill_null(coded.indices.cast(pa.int64()), -1))
    labels, position = np.unique(words, return_inverse=True)
    if labels.size:
        codes = np.where(codes < 0, -1, position[codes])
        codes = np.where((codes >= 0) & (np.char.strip(labels) == "")[codes], -1, codes)
    if needed:
        column.problem(codes < 0, "every row needs one", lambda row: None)
    return _only_used(codes, labels)


def days(column: Column) -> np.ndarray:
    """Read dates as days since 1970 (`int32`) [row]; `NO_DAY` where there is no date."""
    values = column.values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_date(values.type) or pa.types.is_timestamp(values.type):
        parsed = _days_of_times(values)
    elif _is_text(values.type):
        parsed = _days_of_text(values)
    elif pa.types.is_null(values.type):
        parsed = np.full(len(values), NO_DAY, dtype=np.int32)
    else:
        column.findings.problem(f"{column.title} holds {values.type} values; it needs dates such as 2024-01-31")
        return np.full(len(values), NO_DAY, dtype=np.int32)
    column.problem(parsed == NO_DAY, "dates are written like 2024-01-31")
    return parsed


def numbers(column: Column, low: float = 0.0, high: float = LARGEST) -> np.ndarray:
    """Read numbers (`float64`) [row]; NaN where the cell is empty.

    Args:
        column: numbers, or texts that are numbers.
        low: smallest value allowed.
        high: largest value allowed.
    """
    values = column.values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if _is_text(values.type):
        values = _numbers_of_text(column, values)
    elif pa.types.is_null(values.type):
        return np.full(len(values), np.nan)
    elif not _is_number(values.type):
        column.findings.problem(f"{column.title} holds {values.type} values; it needs numbers")
        return np.full(len(values), np.nan)
    parsed = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    column.problem(np.isinf(parsed), "it needs a finite number")
    below, above = parsed < low, np.isfinite(parsed) & (parsed > high)
    column.problem(below & np.isfinite(parsed), f"it must be {low:g} or more")
    column.problem(above, f"it must be at most {high:g}")
    outside = below | above
    return parsed if not outside.any() else np.where(outside, np.nan, parsed)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _numpy(array: pa.Array) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False)


def _only_used(codes: np.ndarray, labels: np.ndarray) -> Codes:
    """Drop the labels that no row uses (dictionaries survive filters)."""
    used = np.zeros(labels.size, dtype=bool)
    used[codes[codes >= 0]] = True
    if used.all():
        return Codes(codes, labels)
    place = np.cumsum(used) - 1
    return Codes(np.where(codes < 0, -1, place[codes]), labels[used])


def _days_of_times(values: pa.Array) -> np.ndarray:
    """Take the calendar day of each time; a time zone's local day where there is one."""
    if pa.types.is_timestamp(values.type) and values.type.tz is not None:
        values = pc.local_timestamp(values)
    times = _numpy(values).astype("datetime64[D]")
    since = times.astype(np.int64)
    limit = np.iinfo(np.int32).max
    fits = ~np.isnat(times) & (since < limit) & (since > -limit)
    return np.where(fits, since, NO_DAY).astype(np.int32)


def _days_of_text(values: pa.Array) -> np.ndarray:
    coded = values.dictionary_encode()
    parsed = np.array([_day_of_word(word) for word in coded.dictionary.to_pylist()] + [NO_DAY], dtype=np.int32)
    return parsed[_numpy(pc.fill_null(coded.indices, len(coded.dictionary)))]


def _day_of_word(word: str | None) -> int:
    """Parse an ISO date, or the date part of an ISO time."""
    text = (word or "").strip()
    try:
        day = datetime.date.fromisoformat(text[:DAYS_IN_ISO_TEXT])
        if len(text) > DAYS_IN_ISO_TEXT:
            datetime.datetime.fromisoformat(text)
    except ValueError:
        return int(NO_DAY)
    return (day - datetime.date(1970, 1, 1)).days if text[4:5] == "-" and text[7:8] == "-" else int(NO_DAY)


def _numbers_of_text(column: Column, values: pa.Array) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(values)
    empty = _numpy(pc.fill_null(pc.equal(trimmed, ""), True))
    number = _numpy(pc.fill_null(pc.match_substring_regex(trimmed, NUMBER), False))
    column.problem(~empty & ~number, "it needs a number")
    return pc.if_else(pa.array(number), trimmed, pa.scalar(None, trimmed.type)).cast(pa.float64())


def repeated_rows(key: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Place each row in its cell and mark the rows whose cell another row holds too.

    Args:
        key: cell of each row.
        cells: how many cells there are.

    Returns:
        The row of each cell (-1 where none) and the mask of repeated rows.
    """
    row_of_cell = np.full(cells, -1, dtype=np.int32)
    rows = np.arange(key.size, dtype=np.int32)
    row_of_cell[key[::-1]] = rows[::-1]  # the first row of a cell wins
    return row_of_cell, row_of_cell[key] != rows


def names_of(labels: np.ndarray, mask: np.ndarray) -> str:
    """List the labels that a mask selects."""
    return join(labels[mask].tolist())
