"""Open a file or a frame as Arrow columns: Parquet, CSV, and anything with `__arrow_c_stream__`."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from walras.errors import InputError, join, one_line, plural, quote

SNIFFED_BYTES = 1 << 16
PARQUET_SUFFIXES = (".parquet", ".pq")
CSV_SUFFIXES = (".csv", ".tsv", ".txt")
SEPARATORS = (",", ";", "\t", "|")


@runtime_checkable
class Source(Protocol):
    """A table whose column names are known before the requested columns are read."""

    name: str
    names: list[str]

    def read(self, wanted: Sequence[str], text: Iterable[str]) -> pa.Table:
        """Read the `wanted` columns; those in `text` stay text (identifiers keep their leading zeros)."""
        ...


@dataclass
class ParquetSource:
    """Read a Parquet file."""

    name: str
    names: list[str]
    path: Path

    def read(self, wanted: Sequence[str], text: Iterable[str]) -> pa.Table:
        """Read the `wanted` columns with the types the file states."""
        try:
            return pq.read_table(self.path, columns=list(wanted), partitioning=None)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _unreadable(self.name, "a Parquet file", error) from error


@dataclass
class CsvSource:
    """Read a CSV file in UTF-8."""

    name: str
    names: list[str]
    path: Path
    separator: str

    def read(self, wanted: Sequence[str], text: Iterable[str]) -> pa.Table:
        """Read the `wanted` columns, inferring the types of those that are not text."""
        types = {name: pa.dictionary(pa.int32(), pa.string()) for name in text}
        try:
            return self._arrow(wanted, types, threads=True)
        except pa.ArrowException:
            pass
        try:  # only a single-threaded pass knows the row it failed in
            return self._arrow(wanted, types, threads=False)
        except pa.ArrowException as error:
            raise self._explain(str(error)) from error

    def _arrow(self, wanted: Sequence[str], types: dict[str, pa.DataType], threads: bool) -> pa.Table:
        return pacsv.read_csv(
            self.path,
            read_options=pacsv.ReadOptions(use_threads=threads, block_size=1 << 24),
            parse_options=pacsv.ParseOptions(delimiter=self.separator, newlines_in_values=not threads),
            convert_options=pacsv.ConvertOptions(include_columns=list(wanted), column_types=types),
        )

    def _explain(self, message: str) -> InputError:
        row = re.search(r"Row #(\d+)", message)
        where = f"in data row {int(row.group(1)) - 1}" if row else "in some row"
        ragged = re.search(r"Expected (\d+) columns, got (\d+)", message)
        if ragged:
            needed, given = ragged.groups()
            return InputError(
                f"{self.name} has {plural(int(given), 'field')} {where} but its header names {needed}; correct that row"
            )
        if "UTF8" in message:
            return _wrong_encoding(self.name, where)
        return _unreadable(self.name, f"CSV ({where})", message)


@dataclass
class FrameSource:
    """Read a pandas, polars or Arrow table through the Arrow PyCapsule interface."""

    name: str
    names: list[str]
    table: pa.Table

    def read(self, wanted: Sequence[str], text: Iterable[str]) -> pa.Table:
        """Select the `wanted` columns."""
        return self.table.select(list(wanted))


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
        return FrameSource(name, list(table.column_names), table)
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


def _open_parquet(path: Path) -> ParquetSource:
    try:
        names = list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path.name, "a Parquet file", error) from error
    _refuse_repeated(names, path.name)
    return ParquetSource(path.name, names, path)


def _open_csv(path: Path) -> CsvSource:
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
    return CsvSource(path.name, names, path, separator)


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
