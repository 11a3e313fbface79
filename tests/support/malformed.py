"""Generated malformed inputs: a seeded list of ways to spoil a good table, with words the refusal must have.

Each function in `ALL_KINDS` yields cases.
"""

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PRODUCTS = ("A1", "B2", "C3")
WEEKS = 8
FIRST = datetime.date(2024, 1, 1)
HEADER = ("unique_id", "ds", "units", "price", "lead_time", "on_hand")
ROWS = len(PRODUCTS) * WEEKS


@dataclass(frozen=True)
class Case:
    """Describe one malformed input.

    Attributes:
        name: of the test.
        write: spoils a folder and returns the table's path.
        words: what the sentence must contain.
        columns: mapping of column names.
        static: name of the static table in the folder.
    """

    name: str
    write: Callable[[Path], Path]
    words: tuple[str, ...]
    columns: dict[str, str] = field(default_factory=dict)
    static: str | None = None


def good_rows() -> list[list[str]]:
    """Write three products over eight weeks."""
    return [
        [product, str(FIRST + datetime.timedelta(days=7 * week)), str(week + place), "2.50", "2", "10"]
        for place, product in enumerate(PRODUCTS)
        for week in range(WEEKS)
    ]


def comma_text(rows: list[list[str]], header: tuple[str, ...] = HEADER) -> str:
    """Join rows to a CSV."""
    return "\n".join(",".join(row) for row in [list(header), *rows]) + "\n"


def put(name: str, content: str | bytes) -> Callable[[Path], Path]:
    """Make a writer of one file."""

    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return path

    return write


def good_arrow() -> dict[str, pa.Array]:
    """Give the good table as typed columns."""
    rows = good_rows()
    return {
        "unique_id": pa.array([row[0] for row in rows]),
        "ds": pa.array([datetime.date.fromisoformat(row[1]) for row in rows]),
        "units": pa.array([float(row[2]) for row in rows]),
        "price": pa.array([2.5] * ROWS),
    }


def put_parquet(columns: dict[str, pa.Array]) -> Callable[[Path], Path]:
    """Make a writer of a Parquet file."""

    def write(folder: Path) -> Path:
        pq.write_table(pa.table(columns), folder / "table.parquet")
        return folder / "table.parquet"

    return write


BAD_NUMBERS = (
    "-1",
    "-0.5",
    "abc",
    "1e30",
    "1e999",
    "inf",
    "-inf",
    "1.5.2",
    "12 pcs",
    "12kg",
    "$5",
    "5%",
    "1_000",
    "yes",
    '"1,5"',
    "1 00",
    "2024-01-01",
    "#REF!",
)
BAD_UNITS = ("", "NaN", "null", "N/A")
BAD_DATES = (
    "2024-13-01",
    "2024-02-30",
    "2024-00-10",
    "01/02/2024",
    "31.12.2024",
    "soon",
    "",
    "20240101",
    "2024-W03",
    "24-01-01",
    "2024-01-01T25:00",
    "2024/01/01",
    "Jan 2024",
    "2024-01",
)
FAR_DATES = ("0000-01-01", "9999-12-31", "0001-01-01", "1890-01-01", "2204-01-05")
BAD_NAMES = ("", "  ", "x" * 5000)


def bad_cells(rng: np.random.Generator) -> Iterator[Case]:
    """Spoil one cell of a CSV."""
    plans = [("units", value) for value in (*BAD_NUMBERS, *BAD_UNITS) for _ in range(2)]
    plans += [(name, value) for name in ("price", "lead_time", "on_hand") for value in BAD_NUMBERS]
    plans += [("ds", value) for value in BAD_DATES for _ in range(2)]
    plans += [("ds", value) for value in FAR_DATES]
    plans += [("unique_id", value) for value in BAD_NAMES]
    for name, value in plans:
        rows, row = good_rows(), int(rng.integers(ROWS))
        rows[row][HEADER.index(name)] = value
        where = () if value == BAD_NAMES[-1] else (f"data row {row + 1}",)
        yield Case(f"cell-{name}-{value[:12]}-{row}", put("table.csv", comma_text(rows)), (f"`{name}`", *where))


def bad_rows(rng: np.random.Generator) -> Iterator[Case]:
    """Repeat rows, or give rows too few or too many fields."""
    for _ in range(8):
        rows, row = good_rows(), int(rng.integers(ROWS))
        at = int(rng.integers(row + 1, ROWS + 1))
        rows.insert(at, rows[row])
        yield Case(f"repeated-{row}-{at}", put("table.csv", comma_text(rows)), (f"row {at + 1}", f"row {row + 1}"))
    for change in ("short", "long"):
        for _ in range(6):
            rows, row = good_rows(), int(rng.integers(ROWS))
            rows[row] = rows[row][:-1] if change == "short" else [*rows[row], "7"]
            yield Case(f"{change}-{row}", put("table.csv", comma_text(rows)), ("table.csv", f"data row {row + 1}"))


def bad_headers(rng: np.random.Generator) -> Iterator[Case]:
    """Lose, rename or repeat a column."""
    for name in HEADER[:3]:
        for instead in ("x", ""):
            header = tuple(instead if column == name else column for column in HEADER)
            yield Case(f"header-{name}-{instead}", put("table.csv", comma_text(good_rows(), header)), (f"`{name}`",))
        place = HEADER.index(name)
        rows = [[*row[:place], *row[place + 1 :]] for row in good_rows()]
        header = tuple(column for column in HEADER if column != name)
        yield Case(f"without-{name}", put("table.csv", comma_text(rows, header)), (f"`{name}`", "table.csv"))
    for name in HEADER[:3]:
        header = tuple(name if column == "price" else column for column in HEADER)
        yield Case(f"twice-{name}", put("table.csv", comma_text(good_rows(), header)), (name, "more than once"))


def bad_files(rng: np.random.Generator) -> Iterator[Case]:
    """Give something that is no table at all."""
    text = comma_text(good_rows())
    whole = put_parquet(good_arrow())
    contents: list[tuple[str, str | bytes]] = [
        ("table.csv", ""),
        ("table.csv", "\n\n\n"),
        ("table.csv", ",".join(HEADER) + "\n"),
        ("table.csv", "no table here"),
        ("table.csv", b"\x00\x01\x02" * 100),
        ("table.csv", b"\xff\xfe\xff\xfe"),
        ("table.csv", '{"unique_id": ["A1"]}'),
        ("table.csv", "<html><body>Sign in</body></html>"),
        ("table.csv", "﻿"),
        ("table.parquet", ""),
        ("table.parquet", text),
        ("table.parquet", b"PAR1"),
        ("table.parquet", b"PAR1" + b"\0" * 64 + b"PAR1"),
        ("table.parquet", bytes(rng.integers(0, 256, 500, dtype=np.uint8))),
        ("table.xls", text),
        ("table", text),
        ("table.json", "{}"),
    ]
    for number, (name, content) in enumerate(contents):
        yield Case(f"file-{number}-{name}", put(name, content), (name,))
    for share in (0.1, 0.5, 0.9, 0.99):
        yield Case(f"cut-{share}", _cut(whole, share), ("table.parquet",))
    yield Case("missing", lambda folder: folder / "nowhere.csv", ("nowhere.csv",))
    yield Case("missing-folder", lambda folder: folder / "no" / "table.parquet", ("table.parquet",))
    yield Case("folder", lambda folder: folder, ("folder",))
    yield Case("renamed-parquet", _renamed(whole), ("table.csv",))


def _cut(write: Callable[[Path], Path], share: float) -> Callable[[Path], Path]:
    def writer(folder: Path) -> Path:
        path = write(folder)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        return path

    return writer


def _renamed(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
    return lambda folder: write(folder).rename(folder / "table.csv")


def bad_types(rng: np.random.Generator) -> Iterator[Case]:
    """Give a Parquet column a type that its field cannot have."""
    odd = {
        "truth": pa.array([True] * ROWS),
        "lists": pa.array([[1]] * ROWS),
        "records": pa.array([{"a": 1}] * ROWS),
        "bytes": pa.array([b"1"] * ROWS),
        "durations": pa.array([1] * ROWS, pa.duration("s")),
        "nothing": pa.nulls(ROWS),
    }
    for kind, values in odd.items():
        for name in ("unique_id", "ds", "units", "price"):
            if kind == "nothing" and name == "price":
                continue  # a table without prices is fine
            yield Case(f"type-{name}-{kind}", put_parquet(good_arrow() | {name: values}), (f"`{name}`",))
    for name, value in (("unique_id", 1.5), ("ds", 20240101), ("ds", 1.0), ("units", FIRST)):
        spoilt = good_arrow() | {name: pa.array([value] * ROWS)}
        yield Case(f"type-{name}-{value}", put_parquet(spoilt), (f"`{name}`",))
    for value in (np.nan, -np.inf, -1e-9, None):
        units = [1.0] * ROWS
        row = int(rng.integers(ROWS))
        units[row] = value
        yield Case(
            f"float-{value}", put_parquet(good_arrow() | {"units": pa.array(units)}), ("`units`", f"data row {row + 1}")
        )
    months = [datetime.date(2024, 1 + index % WEEKS, 1) for index in range(ROWS)]
    yield Case("monthly", put_parquet(good_arrow() | {"ds": pa.array(months)}), ("`ds`", "month"))
    yield Case("no-rows", put_parquet({name: column[:0] for name, column in good_arrow().items()}), ("no rows",))


def bad_mappings(rng: np.random.Generator) -> Iterator[Case]:
    """Map names that do not exist."""
    good = put("table.csv", comma_text(good_rows()))
    for columns, word in (
        ({"unit": "units"}, "unit"),
        ({"quantity": "units"}, "quantity"),
        ({"units": "qty"}, "qty"),
        ({"ds": "Date"}, "Date"),
        ({"unique_id": "sku"}, "sku"),
        ({"price": "units", "units": "units"}, "units"),
        ({"units": "unique_id"}, "units"),
        ({"price": "ds"}, "price"),
        ({"ds": "price"}, "ds"),
    ):
        yield Case(f"mapping-{'-'.join(columns)}-{word}", good, (word,), columns)


def bad_static(rng: np.random.Generator) -> Iterator[Case]:
    """Spoil the table of product attributes."""
    texts = {
        "no-identifier": ("sku,lead_time\nA1,2\n", "unique_id"),
        "repeated": ("unique_id,lead_time\nA1,2\nB2,1\nA1,3\n", "data row 3"),
        "negative": ("unique_id,lead_time\nA1,2\nB2,-1\n", "data row 2"),
        "text": ("unique_id,lead_time\nA1,two\n", "data row 1"),
        "percent": ("unique_id,fill_rate\nA1,0.9\nB2,95\n", "data row 2"),
        "negative-volume": ("unique_id,volume\nA1,-3\n", "data row 1"),
        "infinite": ("unique_id,volume\nA1,inf\n", "data row 1"),
        "others": ("unique_id,lead_time\nZ9,2\n", "unique_id"),
        "empty-identifier": ("unique_id,lead_time\n,2\n", "data row 1"),
        "empty": ("", "static.csv"),
        "header-only": ("unique_id,lead_time\n", "static.csv"),
        "ragged": ("unique_id,lead_time\nA1,2\nB2\n", "data row 2"),
        "twice": ("unique_id,volume,volume\nA1,2,3\n", "volume"),
    }
    for name, (text, word) in texts.items():
        yield Case(f"static-{name}", _with_static(text), (word,), static="static.csv")
    yield Case("static-missing", put("table.csv", comma_text(good_rows())), ("static.csv",), static="static.csv")


def _with_static(text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "static.csv").write_text(text)
        return put("table.csv", comma_text(good_rows()))(folder)

    return write


ALL_KINDS = (bad_cells, bad_rows, bad_headers, bad_files, bad_types, bad_mappings, bad_static)


def all_cases(seed: int = 20240101) -> list[Case]:
    """Generate every case."""
    rng = np.random.default_rng(seed)
    return [case for kind in ALL_KINDS for case in kind(rng)]
