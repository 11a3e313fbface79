"""Open a file or a frame as Arrow columns: Parquet, CSV, and anything with `__arrow_c_stream__`."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from walras.errors import InputError, join, one_line, plural, quote

SNIFFED_BYTES = 1 << 16
PARQUET_SUFFIXES = (".parquet", ".pq")
CSV_SUFFIXES = (".csv", ".tsv", ".txt")
SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Source:
    """A table whose column names are known before any column is read.

    Attributes:
        name: of the table, for sentences.
        names: of its columns.
        read: returns the columns in its first argument; those in the second stay text (identifiers keep leading zeros).
    """

    name: str
    names: list[str]
    read: Callable[[Sequence[str], Iterable[str]], pa.Table]


def open_source(source: Any, name: str = "the table") -> Source:
    """Open a path or a frame and read its column names.

    Args:
        source: path of a .parquet or .csv file, or an object with `__arrow_c_stream__`.
        name: of a frame, for sentences; files have their file name.

    Raises:
        InputError: when there is nothing readable there.
    """
    if isinstance(source, (str, Path)):
        return _open_file(Path(source))
    if hasattr(source, "__arrow_c_stream__"):
        table = _from_stream(source, name)
        _refuse_repeated(table.column_names, name)
        return Source(name, list(table.column_names), lambda wanted, text: table.select(list(wanted)))
    raise InputError(
        f"{name} is of type {type(source).__name__}; give the path of a .parquet or .csv file, or a pandas, polars or "
        "Arrow table"
    )


def existing_file(path: Path) -> Path:
    """Refuse a path that is no file with something in it."""
    try:
        if path.is_dir():
            raise InputError(f"{quote(path, 200)} is a folder; give the path of a .parquet or .csv file in it")
        if not path.exists():
            raise InputError(f"there is no file {quote(path, 200)}; give the path of a .parquet or .csv file")
        if path.stat().st_size == 0:
            raise InputError(f"{quote(path, 200)} is an empty file; give a table with a header and at least one row")
        with path.open("rb"):
            return path
    except (OSError, ValueError) as error:
        raise _unreadable(quote(path, 200), "a file", error) from error


def _open_file(path: Path) -> Source:
    existing_file(path)
    suffix = path.suffix.lower()
    if suffix in PARQUET_SUFFIXES:
        return _open_parquet(path)
    if suffix in CSV_SUFFIXES:
        return _open_csv(path)
    raise InputError(f"{path.name} ends in {quote(suffix or 'no suffix')}; give a .parquet or .csv file")


def _open_parquet(path: Path) -> Source:
    try:
        names = list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path.name, "a Parquet file", error) from error
    _refuse_repeated(names, path.name)

    def read(wanted: Sequence[str], text: Iterable[str]) -> pa.Table:
        try:
            return pq.read_table(path, columns=list(wanted), partitioning=None)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _unreadable(path.name, "a Parquet file", error) from error

    return Source(path.name, names, read)


def _open_csv(path: Path) -> Source:
    with path.open("rb") as file:
        head = file.read(SNIFFED_BYTES)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise _wrong_encoding(path.name, "at its start")
    lines = [line for line in head.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path.name} holds only blank lines; give a table with a header and at least one row")
    try:
        header = lines[0].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path.name, "in its header") from error
    separator = max(SEPARATORS, key=header.count)
    names = next(csv.reader(io.StringIO(header), delimiter=separator))
    _refuse_repeated(names, path.name)
    return Source(path.name, names, partial(_read_csv, path, separator))


def _read_csv(path: Path, separator: str, wanted: Sequence[str], text: Iterable[str]) -> pa.Table:
    types = {name: pa.dictionary(pa.int32(), pa.string()) for name in text}

    def read(threads: bool) -> pa.Table:
        return pacsv.read_csv(
            path,
            read_options=pacsv.ReadOptions(use_threads=threads, block_size=1 << 24),
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
        raise _csv_error(path.name, str(error)) from error


def _csv_error(name: str, message: str) -> InputError:
    row = re.search(r"Row #(\d+)", message)
    where = f"in data row {int(row.group(1)) - 1}" if row else "in some row"
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
