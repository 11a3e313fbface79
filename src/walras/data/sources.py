"""Open a file or a frame as Arrow columns: Parquet, CSV, workbooks, and anything with `__arrow_c_stream__`.

Cells of CSV files and workbooks stay text; what they mean is decided column by column, from all of their rows.
"""

import csv
import datetime
import gzip
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from walras.errors import InputError, join, one_line, plural, quote

SNIFFED_BYTES = 1 << 16
PARQUET_SUFFIXES = (".parquet", ".pq")
CSV_SUFFIXES = (".csv", ".tsv", ".txt", ".gz")
BOOK_SUFFIXES = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods")
KINDS = "a .parquet, .csv, .csv.gz, .xlsx, .xls or .ods file"
TITLE_LINES = 30
"""Lines above the header that are looked at."""
SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Source:
    """A table whose column names are known before any column is read.

    Attributes:
        name: of the table, for sentences.
        names: of its columns.
        read: returns the columns in its first argument; a CSV file keeps those in its second as text, by default all.
        read_as: how the file was understood (sheet, header row, encoding, delimiter).
        schema: of a file whose columns can be read one by one, which takes less memory.
    """

    name: str
    names: list[str]
    read: Callable[..., pa.Table]
    read_as: dict[str, str] = field(default_factory=dict)
    schema: pa.Schema | None = None


def normal(name: str) -> str:
    """Write a column name in lower case with underscores, as our fields are."""
    return re.sub(r"[\s\-.]+", "_", name.strip().casefold())


def open_source(source: Any, name: str = "the table", known: Iterable[str] = (), sheet: str | None = None) -> Source:
    """Open a path or a frame and read its column names.

    Args:
        source: path of a file, or an object with `__arrow_c_stream__`.
        name: of a frame, for sentences; files have their file name.
        known: names by which the header is recognised below title lines.
        sheet: of a workbook; by default the first one with a table.

    Raises:
        InputError: when there is nothing readable there.
    """
    if isinstance(source, (str, Path)):
        return _open_file(Path(source), frozenset(normal(column) for column in known), sheet)
    if hasattr(source, "__arrow_c_stream__"):
        table = _from_stream(source, name)
        _refuse_repeated(table.column_names, name)
        return Source(name, list(table.column_names), lambda wanted, text=None: table.select(list(wanted)))
    raise InputError(
        f"{name} is of type {type(source).__name__}; give the path of {KINDS}, or a pandas, polars or Arrow table"
    )


def existing_file(path: Path) -> Path:
    """Refuse a path that is no file with something in it."""
    try:
        if path.is_dir():
            raise InputError(f"{quote(path, 200)} is a folder; give the path of {KINDS} in it")
        if not path.exists():
            raise InputError(f"there is no file {quote(path, 200)}; give the path of {KINDS}")
        if path.stat().st_size == 0:
            raise InputError(f"{quote(path, 200)} is an empty file; give a table with a header and at least one row")
        with path.open("rb"):
            return path
    except (OSError, ValueError) as error:
        raise _unreadable(quote(path, 200), "a file", error) from error


def _open_file(path: Path, known: frozenset[str], sheet: str | None) -> Source:
    existing_file(path)
    suffix = path.suffix.lower()
    if suffix in PARQUET_SUFFIXES:
        return _open_parquet(path)
    if suffix in CSV_SUFFIXES:
        return _open_csv(path, known)
    if suffix in BOOK_SUFFIXES:
        return _open_book(path, known, sheet)
    raise InputError(f"{path.name} ends in {quote(suffix or 'no suffix')}; give {KINDS}")


def _open_parquet(path: Path) -> Source:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path.name, "a Parquet file", error) from error
    names = list(schema.names)
    _refuse_repeated(names, path.name)
    words = [name for name in names if pa.types.is_string(schema.field(name).type)]

    def read(wanted: Sequence[str], text: Iterable[str] | None = None) -> pa.Table:
        try:  # `read_table` would import pandas where it is installed
            with pq.ParquetFile(path, read_dictionary=words) as file:
                return file.read(columns=list(wanted))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _unreadable(path.name, "a Parquet file", error) from error

    return Source(path.name, names, read, schema=schema)


def _open_csv(path: Path, known: frozenset[str]) -> Source:
    head = _bytes_of(path, SNIFFED_BYTES)
    encoding = _encoding(path.name, head)
    text = head.decode(encoding, "replace" if encoding == "utf-8-sig" else "ignore").removeprefix("\ufeff")
    lines = text.splitlines()[:TITLE_LINES]
    mark = re.fullmatch(r"sep=(.)", lines[0].strip(), re.IGNORECASE) if lines else None
    separator = mark.group(1) if mark else None
    rows = [next(csv.reader([line], delimiter=separator or _separator(line)), []) for line in lines]
    first = 1 if mark else 0
    at = first + _header(path.name, rows[first:], known)
    separator = separator or _separator(lines[at])
    names = rows[at]
    _refuse_repeated(names, path.name)
    read_as = {"encoding": ENCODINGS.get(encoding, encoding), "delimiter": "tab" if separator == "\t" else separator}
    if at:
        read_as["header row"] = str(at + 1)
    return Source(path.name, names, partial(_read_csv, path, separator, encoding, names, at), read_as)


ENCODINGS = {"utf-8-sig": "UTF-8", "cp1252": "Latin-1 (Windows-1252)", "latin-1": "Latin-1", "utf-16": "UTF-16"}


def _bytes_of(path: Path, count: int = -1) -> bytes:
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            return file.read(count)
    except (OSError, EOFError, ValueError) as error:
        raise _unreadable(path.name, "a compressed CSV file", error) from error


def _encoding(name: str, content: bytes) -> str:
    """Recognise UTF-16 by its mark and Latin-1 where UTF-8 fails; a character cut at the end does not count."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            content[: len(content) // 2 * 2].decode("utf-16")
        except UnicodeDecodeError as error:
            raise _wrong_encoding(name, "at its start") from error
        return "utf-16"
    if b"\0" in content:
        raise _wrong_encoding(name, "at its start")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            content.decode(encoding)
            return encoding
        except UnicodeDecodeError as error:
            if encoding == "utf-8-sig" and error.start >= len(content) - 3 and len(content) >= SNIFFED_BYTES:
                return encoding
    return "latin-1"


def _separator(line: str) -> str:
    return max(SEPARATORS, key=line.count)


def _header(name: str, rows: Sequence[Sequence[str]], known: frozenset[str]) -> int:
    """Find the header: the first row with most of the known names, else the first that is filled like most."""
    if not any(cell.strip() for row in rows for cell in row):
        raise InputError(f"{name} holds only blank cells; give a table with a header and at least one row")
    scores = [len({normal(cell) for cell in row} & known) for row in rows]
    if max(scores) >= min(2, len(known)) > 0:
        return scores.index(max(scores))
    filled = [sum(bool(cell.strip()) for cell in row) for row in rows]
    return next(at for at, count in enumerate(filled) if count and 2 * count >= max(filled))


def _read_csv(
    path: Path,
    separator: str,
    encoding: str,
    names: Sequence[str],
    at: int,
    wanted: Sequence[str],
    text: Iterable[str] | None = None,
) -> pa.Table:
    types = {name: pa.dictionary(pa.int32(), pa.string()) for name in (wanted if text is None else text)}
    plain = encoding == "utf-8-sig" and path.suffix.lower() != ".gz"

    def read(threads: bool, encoding: str = encoding) -> pa.Table:
        content = None if plain and encoding == "utf-8-sig" else _bytes_of(path)
        if content is not None and encoding != "utf-8-sig":
            content = content.decode(encoding).encode("utf-8")
        return pacsv.read_csv(
            path if content is None else pa.BufferReader(content),
            read_options=pacsv.ReadOptions(
                use_threads=threads, block_size=1 << 24, column_names=list(names), skip_rows=at + 1
            ),
            parse_options=pacsv.ParseOptions(delimiter=separator, newlines_in_values=not threads),
            convert_options=pacsv.ConvertOptions(include_columns=list(wanted), column_types=types),
        )

    try:
        return read(threads=True)
    except pa.ArrowException:
        pass
    try:  # only a single-threaded pass knows the row it failed in
        return read(threads=False)
    except pa.ArrowException as error:
        if "UTF8" in str(error):
            return read(threads=True, encoding="latin-1")
        if "Empty CSV" in str(error):
            return pa.table({name: pa.array([], pa.string()) for name in wanted})
        raise _csv_error(path.name, str(error), at) from error
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path.name, "in some row") from error


def _open_book(path: Path, known: frozenset[str], sheet: str | None) -> Source:
    from python_calamine import CalamineWorkbook

    try:
        book = CalamineWorkbook.from_path(str(path))
        if sheet is not None and sheet not in book.sheet_names:
            raise InputError(f"{path.name} has no sheet {quote(sheet)}; name one of {join(book.sheet_names)}")
        sheets = {
            name: book.get_sheet_by_name(name).to_python(skip_empty_area=False)
            for name in ([sheet] if sheet is not None else book.sheet_names)
        }
    except InputError:
        raise
    except Exception as error:  # the library raises its own kinds, and panics on damaged files
        raise _unreadable(path.name, "a workbook", error) from error
    tables = {name: [[_cell_text(cell) for cell in row] for row in rows] for name, rows in sheets.items()}
    filled = {name: rows for name, rows in tables.items() if any(any(row) for row in rows[:TITLE_LINES])}
    if not filled:
        raise InputError(f"{path.name} has only empty sheets; give a table with a header and at least one row")
    most = {
        name: max(len({normal(c) for c in row} & known) for row in rows[:TITLE_LINES]) for name, rows in filled.items()
    }
    chosen = max(filled, key=lambda name: most[name])
    rows = filled[chosen]
    at = _header(path.name, rows[:TITLE_LINES], known)
    names, body = rows[at], [row for row in rows[at + 1 :] if any(row)]
    keep = [column for column, name in enumerate(names) if name or any(row[column] for row in body)]
    names = [names[column] for column in keep]
    _refuse_repeated(names, path.name)
    cells = pa.table(
        {name: pa.array([row[at] for row in body], pa.string()) for name, at in zip(names, keep, strict=True)}
    )
    others = [name for name in filled if name != chosen]
    read_as = {"sheet": chosen + (f" (not {join(others)})" if others else ""), "header row": str(at + 1)}
    return Source(path.name, names, lambda wanted, text=None: cells.select(list(wanted)), read_as)


def _cell_text(cell: Any) -> str:
    """Write a cell of a workbook as text: dates in ISO form, whole numbers without decimals."""
    if isinstance(cell, float):
        return repr(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    if isinstance(cell, datetime.datetime):
        return str(cell.date()) if cell.time() == datetime.time() else cell.isoformat()
    return str(cell).strip()


def _csv_error(name: str, message: str, header: int) -> InputError:
    row = re.search(r"Row #(\d+)", message)
    where = f"in data row {int(row.group(1)) - header - 1}" if row else "in some row"
    ragged = re.search(r"Expected (\d+) columns, got (\d+)", message)
    if ragged:
        needed, given = ragged.groups()
        return InputError(
            f"{name} has {plural(int(given), 'field')} {where} but its header names {needed}; correct that row"
        )
    if "UTF8" in message:
        return _wrong_encoding(name, where)
    return _unreadable(name, f"CSV ({where})", message)


def _from_stream(source: Any, name: str) -> pa.Table:
    try:
        return source if isinstance(source, pa.Table) else pa.table(source)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        column = re.search(r"column '?([^' ]+)'? with type", str(error))
        raise InputError(_mixed(source, name, column.group(1) if column else None, error)) from error


def _mixed(source: Any, name: str, column: str | None, error: Exception) -> str:
    if column is None:
        return one_line(f"{name} cannot be read as an Arrow table ({quote(error, 120)}); give each column one type")
    kinds = [type(value) for value in source[column]]
    odd = next((row for row, kind in enumerate(kinds) if kind is not kinds[0]), 0)
    return (
        f"`{column}` of {name} mixes {kinds[0].__name__} with {kinds[odd].__name__} (data row {odd + 1}); "
        "give the column one type"
    )


def _refuse_repeated(names: Sequence[str], name: str) -> None:
    repeated = sorted({column for column in names if names.count(column) > 1})
    if repeated:
        raise InputError(f"{name} has the column {join(repeated)} more than once; rename or drop one of them")


def _wrong_encoding(name: str, where: str) -> InputError:
    return InputError(f"{name} is not UTF-8 text ({where}); save it as CSV in UTF-8 or as Parquet")


def _unreadable(name: str, kind: str, error: object) -> InputError:
    reason = quote(error, 160)
    return InputError(f"{name} cannot be read as {kind} ({reason}); check that it is whole and of that kind")
