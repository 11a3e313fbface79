"""Parsing of single columns (identifiers, dates, numbers, labels); each reports the first bad row.

Every function returns one value per row and reports problems to `findings`; rows are counted from 1, without the
header.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from walras.config import Reading
from walras.data.notation import (
    DASHES,
    NO_DAY,
    clean,
    day_of,
    day_orders,
    decimal_marks,
    is_utc_midnight,
    number_of,
    shape_of,
    split_currency,
)
from walras.errors import FailFast, SettingsError, join, plural, quote

LONGEST_LABEL = 200
ROWS_AT_ONCE = 1 << 22
"""Rows handled together, so that what is made of a long table on the way stays small."""
LARGEST = 1e12
"""More than any product sells or costs, and far within single precision."""


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
    reading: Reading = field(default_factory=Reading, repr=False)
    decimal: str = "."

    @property
    def title(self) -> str:
        """Return the field and its table, for sentences."""
        return f"`{self.name}` of {self.table}"

    def problem(
        self, bad: np.ndarray, needed: str, value: Callable[[int], object] | None = None, kind: str = ""
    ) -> None:
        """Report the rows that `bad` marks, naming the first, its value and what is needed."""
        rows = np.flatnonzero(bad)
        if rows.size == 0:
            return
        examples = [value(int(row)) if value else self.values[int(row)].as_py() for row in rows[:3]]
        more = f" ({plural(rows.size, 'such row')} in all)" if rows.size > 1 else ""
        self.findings.problem(
            f"{self.title} is {quote(examples[0])} in data row {self.findings.row(rows[0])}{more}; {needed}",
            kind or f"{self.name}: bad cell",
            [self.findings.row(row) for row in rows[:3]],
            examples,
            needed,
        )

    @cached_property
    def words(self) -> tuple[list[str], np.ndarray]:
        """Return the distinct cleaned texts, the empty text last, and which of them each row holds."""
        values = self.values if pa.types.is_dictionary(self.values.type) else self.values.dictionary_encode()
        texts = [clean(word) for word in values.dictionary.to_pylist()]
        return [*texts, ""], _numpy(pc.fill_null(values.indices.cast(pa.int64()), len(texts)))


@dataclass(frozen=True)
class Codes:
    """Texts as codes (`int32`) into sorted labels; -1 where the cell is empty."""

    codes: np.ndarray
    labels: np.ndarray


def row_blocks(rows: int) -> Iterator[slice]:
    """Cut rows into blocks of `ROWS_AT_ONCE`."""
    return (slice(first, min(first + ROWS_AT_ONCE, rows)) for first in range(0, rows, ROWS_AT_ONCE))


def look_up(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return `values[index]`; numpy would first turn a whole index into 8 bytes per row."""
    found = np.empty(index.shape, values.dtype)
    for block in row_blocks(len(index)):
        found[block] = values[index[block]]
    return found


def constant_per_code(values: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray | None:
    """Return the value of each of `count` codes [code], NaN where empty; None where rows of a code differ."""
    each = np.full(count + 1, np.nan)  # the last place is that of rows without a code, which are refused elsewhere
    for block in row_blocks(codes.size):
        each[codes[block]] = values[block]
    same = all(equal_or_empty(values[block], each[codes[block]]).all() for block in row_blocks(codes.size))
    return each[:-1] if same else None


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
    if pa.types.is_floating(kind) and pc.all(pc.equal(values, pc.floor(values))).as_py():
        values = values.cast(pa.int64(), safe=False)
        kind = values.type
    if pa.types.is_null(kind):
        coded = pa.array([None] * len(values), pa.string()).dictionary_encode()
    elif not (_is_text(kind) or pa.types.is_integer(kind)):
        column.findings.problem(f"{column.title} holds {plain_type(kind)}; it needs text or whole numbers")
        return Codes(np.full(len(values), -1, np.int32), np.empty(0, dtype=np.str_))
    else:
        coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    long = next((word for word in coded.dictionary.to_pylist() if len(str(word)) > LONGEST_LABEL), None)
    if long is not None:
        column.findings.problem(
            f"{column.title} holds {quote(long)}, longer than {LONGEST_LABEL} characters; shorten it"
        )
        return Codes(np.full(len(values), -1, np.int32), np.empty(0, dtype=np.str_))
    words = np.array(["" if word is None else str(word) for word in coded.dictionary.to_pylist()], dtype=np.str_)
    labels, position = np.unique(words, return_inverse=True)
    blank = np.char.strip(labels) == ""
    place = np.append(np.where(blank[position], -1, position), -1).astype(np.int32)
    codes = look_up(place, _numpy(pc.fill_null(coded.indices.cast(pa.int32()), -1)))
    if needed:
        column.problem(codes < 0, "every row needs one", lambda row: None)
    return _only_used(codes, labels)


def days(column: Column) -> np.ndarray:
    """Read dates as days since 1970 (`int32`) [row]; `NO_DAY` where there is no date."""
    values = column.values
    if pa.types.is_dictionary(values.type) and not _is_text(values.type.value_type):
        values = values.dictionary_decode()
    if pa.types.is_date(values.type) or pa.types.is_timestamp(values.type):
        parsed = _days_of_times(values)
        column.findings.read_as["dates"] = "dates as stored"
    elif pa.types.is_null(values.type):
        parsed = np.full(len(values), NO_DAY, dtype=np.int32)
    elif pa.types.is_integer(values.type) or pa.types.is_dictionary(values.type) or _is_text(values.type):
        column = column if not pa.types.is_integer(values.type) else replace(column, values=values.cast(pa.string()))
        parsed = _days_of_words(column)
    else:
        column.findings.problem(f"{column.title} holds {plain_type(values.type)}; it needs dates such as 2024-01-31")
        return np.full(len(values), NO_DAY, dtype=np.int32)
    column.problem(parsed == NO_DAY, "dates are written like 2024-01-31, all in one way", kind="date")
    return parsed


def _days_of_words(column: Column) -> np.ndarray:
    """Choose the notation that most rows use, and the order of day and month, then read every distinct text."""
    words, codes = column.words
    shapes = [shape_of(word) for word in words]
    rows = np.bincount(codes, minlength=len(words))
    counts = {name: sum(int(n) for n, shape in zip(rows, shapes, strict=True) if shape == name) for name in shapes}
    counts.pop(None, None)
    if not counts:
        return np.full(codes.size, NO_DAY, dtype=np.int32)
    usual = max(counts, key=lambda name: counts[name])
    texts = [word for word, shape in zip(words, shapes, strict=True) if shape == usual]
    both = ("ISO dates", "ISO times")
    day_first, order = True, ""
    if usual == "numeric dates":
        chosen = _day_first(column, texts)
        if chosen is None:
            return np.zeros(codes.size, dtype=np.int32)
        day_first, order = chosen, ", day first" if chosen else ", month first"
    zone = _zone(column.reading.timezone)
    allowed = both if usual in both else (usual,)
    at = [
        day_of(word, shape, day_first, zone) if shape is not None and shape in allowed else int(NO_DAY)
        for word, shape in zip(words, shapes, strict=True)
    ]
    column.findings.read_as["dates"] = f"{usual}{order}"
    if zone is None and is_utc_midnight(texts):
        at = [day + 1 if shape == usual else day for day, shape in zip(at, shapes, strict=True)]
        column.findings.read_as["time zone"] = "midnight of a zone one or two hours ahead of UTC"
        column.findings.note(
            f"every time of {column.title} is 22:00 or 23:00 UTC, midnight of the next day in a time zone one or two "
            "hours ahead, so it was read as the day after; name the zone with --timezone, or --timezone UTC to keep "
            "the day.",
            "time zone",
            [1],
            texts[:1],
        )
    elif usual == "ISO times":
        column.findings.read_as["time zone"] = column.reading.timezone or "the local day that each time is written in"
    return np.array(at, dtype=np.int32)[codes]


def _day_first(column: Column, texts: list[str]) -> bool | None:
    """Decide the order of day and month; None where the table does not."""
    if column.reading.date_order is not None:
        return column.reading.date_order == "day"
    day, month = day_orders(texts)
    if (day is None) != (month is None):
        return day is not None
    both = f"both {day} and {month}" if day else f"only dates such as {texts[0]}, whose day and month can be exchanged"
    column.findings.problem(
        f"{column.title} has {both}; write --date-order day or --date-order month", "date order", [1], texts[:3]
    )
    return None


def _zone(name: str | None) -> ZoneInfo | None:
    try:
        return None if name is None else ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise SettingsError(f"`timezone` is {quote(name)}, which is none; give e.g. Europe/Berlin") from None


def numbers(column: Column, low: float = 0.0, high: float = LARGEST) -> np.ndarray:
    """Read numbers (`float64`) [row]; NaN where the cell is empty.

    Args:
        column: numbers, or texts that are numbers.
        low: smallest value allowed.
        high: largest value allowed.
    """
    values = column.values
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if _is_text(kind):
        parsed = _numbers_of_words(column)
    elif pa.types.is_null(kind):
        return np.full(len(values), np.nan)
    elif not _is_number(kind):
        column.findings.problem(f"{column.title} holds {plain_type(kind)}; it needs numbers")
        return np.full(len(values), np.nan)
    else:
        plain = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
        parsed = plain.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if column.name == "fill_rate":
        parsed = _percent(column, parsed)
    column.problem(np.isinf(parsed), "it needs a finite number")
    below, above = parsed < low, np.isfinite(parsed) & (parsed > high)
    column.problem(below & np.isfinite(parsed), _negative(column.name, low), kind=f"negative {column.name}")
    column.problem(above, f"it must be at most {high:g}; correct it", kind=f"{column.name}: outlier")
    outside = below | above
    return parsed if not outside.any() else np.where(outside, np.nan, parsed)


def _negative(name: str, low: float) -> str:
    needed = f"it must be {low:g} or more"
    if name == "units":
        return f"{needed}: negative sales are returns; write --returns net to subtract or --returns drop to skip them"
    if name == "on_hand":
        return f"{needed}: negative stock is a backlog; write 0, and open customer orders as units of their week"
    return needed


def _percent(column: Column, shares: np.ndarray) -> np.ndarray:
    """Read a column of percent as shares; a mix of both is a problem."""
    percent = np.isfinite(shares) & (shares > 1) & (shares <= 100)
    if not percent.any():
        return shares
    if (shares > 0).sum() > percent.sum() and ((shares > 0) & (shares < 1)).any():
        column.problem(percent, "other rows give shares of at most 1; write all as shares or all as percent")
        return shares
    column.findings.note(f"{column.title} is given in percent, so 95 was read as 0.95.", "percent")
    column.findings.read_as["fill_rate"] = "percent"
    return np.where(np.isfinite(shares), shares / 100.0, shares)


def _numbers_of_words(column: Column) -> np.ndarray:
    """Read every distinct text with the decimal mark of the file; signs of currency only where money is meant."""
    words, codes = column.words
    money = column.name in ("price", "unit_cost")
    signs: dict[int, str] = {}  # of every distinct amount
    parsed = np.full(len(words), np.nan)
    bad, dash = np.zeros(len(words), bool), np.zeros(len(words), bool)
    for index, word in enumerate(words):
        if not word:
            continue
        sign, text = split_currency(word) if money else ("", word)
        scale = 0.01 if column.name == "fill_rate" and text.endswith("%") else 1.0
        text = text.rstrip("% ") if scale < 1 else text
        if text in DASHES:
            dash[index] = True
            continue
        parsed[index] = number_of(text, column.decimal) * scale
        bad[index] = np.isnan(parsed[index])
        if money and not bad[index]:
            signs[index] = sign
    if column.reading.dash_zero:
        parsed[dash] = 0.0
    else:
        column.problem(dash[codes], "write 0 or leave the cell empty, or --dash-zero if - is 0", kind="dash")
    column.problem(bad[codes], f"it needs a number with the decimal mark {column.decimal!r}", kind="not a number")
    _check_currency(column, codes, signs)
    return parsed[codes]


def _check_currency(column: Column, codes: np.ndarray, signs: dict[int, str]) -> None:
    """Refuse amounts in another currency than most, and say which sign was taken off."""
    kinds = sorted(set(signs.values()))
    if len(kinds) > 1:
        rows = {kind: np.isin(codes, [index for index, sign in signs.items() if sign == kind]) for kind in kinds}
        usual = max(kinds, key=lambda kind: int(rows[kind].sum()))
        mixed = ", ".join(kind or "no sign" for kind in kinds)
        odd = np.any([rows[kind] for kind in kinds if kind != usual], axis=0)
        column.problem(odd, f"the column mixes currencies ({mixed}); give one", kind="currency")
    elif kinds and kinds[0]:
        column.findings.read_as[f"currency of {column.name}"] = kinds[0]
        column.findings.note(f"the currency sign {kinds[0]} of {column.title} was taken off.", "currency")


def decimal_of(columns: list[Column], reading: Reading, findings: FailFast) -> tuple[str, bool]:
    """Choose the decimal mark of a file from all its columns of numbers that are texts; tell whether it is doubtful."""
    if reading.decimal is not None:
        findings.read_as["decimal mark"] = reading.decimal
        return reading.decimal, False
    found: dict[str, tuple[Column, str]] = {}
    for column in columns:
        for mark, word in decimal_marks(column.words[0]).items():
            found.setdefault(mark, (column, word))
    ask = "write --decimal . or --decimal , for what separates the decimals"
    doubtful = False
    if "." in found and "," in found:
        rows = {mark: _first_row(*found[mark]) for mark in ".,"}
        late = max(rows, key=lambda mark: rows[mark])
        column, word = found[late]
        other, example = found["," if late == "." else "."]
        findings.problem(
            f"{column.title} is {word} in data row {findings.row(rows[late])}, but `{other.name}` is {example} in data "
            f"row {findings.row(min(rows.values()))}, with another decimal mark; correct it, or {ask}",
            "decimal mark",
            [findings.row(row) for row in rows.values()],
            [word, example],
        )
    elif "?" in found and (not ("." in found or "," in found) or _is_doubtful(*found["?"], found)):
        column, word = found["?"]
        doubtful, row = True, _first_row(column, word)
        findings.problem(
            f"{column.title} is {word} in data row {findings.row(row)}: its mark may separate thousands or decimals; "
            f"{ask}",
            "decimal mark",
            [findings.row(row)],
            [word],
        )
    mark = "," if "," in found and ("." not in found or _usual_mark(columns) == ",") else "."
    findings.read_as["decimal mark"] = mark
    return mark, doubtful


def _usual_mark(columns: list[Column]) -> str:
    """Return the decimal mark of more rows, where a file has both."""
    rows = dict.fromkeys(".,?", 0)
    for column in columns:
        words, codes = column.words
        for word, count in zip(words, np.bincount(codes, minlength=len(words)), strict=True):
            for mark in decimal_marks([word]):
                rows[mark] += int(count)
    return max(".,", key=lambda mark: rows[mark])


PIECES = ("units", "orders", "receipts", "forecast", "on_hand")
"""Columns that usually hold whole numbers."""


def _is_doubtful(column: Column, word: str, found: dict[str, tuple[Column, str]]) -> bool:
    """Tell whether a column of pieces has whole numbers and ones like 1.440, which another column makes fractions."""
    mark = next(mark for mark in ".," if mark in found)
    needed = decimal_marks(column.words[0])
    whole = any(text.isdigit() for text in column.words[0])
    return column.name in PIECES and mark in word and mark not in needed and whole


def _first_row(column: Column, word: str) -> int:
    words, codes = column.words
    return int(np.argmax(codes == words.index(word)))


def is_filled(column: Column) -> np.ndarray:
    """Mark the rows whose cell holds something, readable or not [row]."""
    kind = column.values.type
    if is_text(kind):
        words, codes = column.words
        return np.array([word != "" for word in words])[codes]
    values = column.values
    if pa.types.is_floating(kind):
        return _numpy(pc.fill_null(pc.invert(pc.is_nan(values)), False))
    return _numpy(pc.is_valid(values))


def plain_type(kind: pa.DataType) -> str:
    """Name a type of column in plain words."""
    names = ((pa.types.is_boolean, "yes and no"), (pa.types.is_integer, "whole numbers"), (_is_number, "numbers"))
    dates = (pa.types.is_date, "dates"), (pa.types.is_timestamp, "times"), (_is_text, "text")
    return next((name for test, name in (*names, *dates) if test(kind)), f"{kind} values")


def is_text(kind: pa.DataType) -> bool:
    """Tell whether cells are texts, or a dictionary of them."""
    return _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _numpy(array: pa.Array) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False)


def _only_used(codes: np.ndarray, labels: np.ndarray) -> Codes:
    """Drop the labels that no row uses (dictionaries survive filters)."""
    used = np.zeros(labels.size + 1, dtype=bool)
    for block in row_blocks(codes.size):
        used[codes[block]] = True
    used = used[:-1]  # the last place is that of empty cells
    if used.all():
        return Codes(codes, labels)
    place = np.append(np.cumsum(used) - 1, -1).astype(np.int32)
    return Codes(look_up(place, codes), labels[used])


def _days_of_times(values: pa.Array) -> np.ndarray:
    """Take the calendar day of each time; a time zone's local day where there is one."""
    if pa.types.is_timestamp(values.type) and values.type.tz is not None:
        values = pc.local_timestamp(values)
    parsed = np.empty(len(values), np.int32)
    limit = np.iinfo(np.int32).max
    for block in row_blocks(len(values)):
        times = _numpy(values[block]).astype("datetime64[D]")
        since = times.astype(np.int64)
        fits = ~np.isnat(times) & (since < limit) & (since > -limit)
        parsed[block] = np.where(fits, since, NO_DAY)
    return parsed


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


def equal_or_empty(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Compare numbers; two empty ones (NaN) are equal."""
    return (left == right) | (np.isnan(left) & np.isnan(right))
