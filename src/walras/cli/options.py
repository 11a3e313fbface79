"""What commands share: flags, reading the table, and output as text for people or JSON for programs."""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from walras.config import PlanFields, PlanSettings, Reading, TableFormat, TableSettings, read_settings
from walras.errors import SettingsError

if TYPE_CHECKING:
    from walras.data.panel import Panel

TABLE_HELP = "table of products and weeks, Parquet, CSV or workbook (a folder for m5 and favorita)"
PlanFlags = Annotated[PlanFields | None, Parameter(name="*")]
SettingsFile = Annotated[Path | None, Parameter(name="--settings", help="TOML file with any of these settings")]
CostsFile = Annotated[Path | None, Parameter(name="--costs", help="TOML file with the costs of capacity")]
Out = Annotated[Path, Parameter(name="--out", help="folder for the report and its tables")]
Agents = Annotated[int, Parameter(help="products of the embedded population")]
History = Annotated[int, Parameter(help="its weeks of history")]
Json = Annotated[
    bool, Parameter(name="--json", negative="", show_default=False, help="print one JSON object instead of text")
]
Column = Parameter(
    name="--column",
    negative="",
    show_default=False,
    help="OURS=THEIRS, where the table has another name for a column; repeatable",
)


@Parameter(name="*")
@dataclass(frozen=True)
class ColumnFlags:
    """The settings file, and flags that say how to read the columns of a table."""

    settings: SettingsFile = None
    static: Annotated[Path | None, Parameter(name="--static", help="second table, one row per product")] = None
    column: Annotated[tuple[str, ...], Column] = ()
    reading: Annotated[Reading | None, Parameter(name="*")] = None

    def fields(self) -> dict[str, Any]:
        """Return the given flags as fields of `TableSettings`."""
        from walras.data.records import parse_options

        columns = parse_options(self.column) if self.column else None
        given = {"static": self.static, "format": getattr(self, "layout", None), "columns": columns}
        notation = {} if self.reading is None else self.reading.model_dump(exclude_unset=True)
        return {**notation, **{name: value for name, value in given.items() if value is not None}}

    def read(self, flags: PlanFields | None = None) -> tuple[PlanSettings, TableSettings]:
        """Join the settings file and the flags."""
        return read_settings(PlanSettings, self.settings, flags, self.fields())


@Parameter(name="*")
@dataclass(frozen=True)
class TableFlags(ColumnFlags):
    """Flags that say how to read a table, and its format."""

    layout: Annotated[TableFormat | None, Parameter(name="--format", help="layout of the files (default: table)")] = (
        None
    )


NO_FLAGS = TableFlags()


def load_panel(table: Path, layout: TableSettings) -> "Panel":
    """Read the user's table in the layout that the settings name."""
    if layout.format == "table":
        from walras.data.check import check_table
        from walras.data.plausible import check_plannable
        from walras.data.read import read_panel
        from walras.errors import FailFast, InputError

        try:
            panel = read_panel(table, columns=layout.columns, static=layout.static, reading=layout)
            check_plannable(panel, FailFast())
        except InputError as error:  # one sentence, and how many more there are
            found = check_table(table, columns=layout.columns, static=layout.static, reading=layout)
            more = len(found.problems) - 1
            raise InputError(
                f"{error}{f' (and {more} more: `walras data check` lists all)' if more > 0 else ''}"
            ) from None
        return panel
    for name in ("columns", "static"):
        if getattr(layout, name):
            raise SettingsError(
                f"`{name}` is set, but files in the {layout.format} layout have their own; leave it out"
            )
    from walras.data.adapters import READERS

    return READERS[layout.format](table)


def require_writable(folder: Path) -> None:
    """Refuse an output folder in which no file can be made before minutes of work instead of after them."""
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise SettingsError(f"`--out` is {folder}, but {nearest} is a file; name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise SettingsError(f"`--out` is {folder}, but {nearest} cannot be written to; name another folder")
    try:  # permissions are not enough: a file system may be read-only or hold no files at all
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError:
        raise SettingsError(f"`--out` is {folder}, but no file can be made in {nearest}; name another folder") from None


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one strict JSON object on one line; values that are missing or not finite are null."""
    from walras.report.publish import jsonable

    print(json.dumps(jsonable(answer), allow_nan=False, ensure_ascii=True), flush=True)


def print_text(*parts: Any) -> None:
    """Print sentences and tables, folded to the width of the terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for part in parts:
        # Sentences in a pipe are not folded, so that programs can read them line by line.
        console.print(part, markup=False, soft_wrap=isinstance(part, str | Text) and not console.is_terminal)


def print_files(files: Iterable[Path]) -> None:
    """Print the files that were written, one per line, so that a terminal does not fold a path."""
    for file in files:
        print(f"wrote {file}", flush=True)


def print_result(as_json: bool, facts: Mapping[str, Any], parts: Iterable[Any], files: Iterable[Path]) -> None:
    """Print a command's result as one JSON object, or as text and the list of files."""
    if as_json:
        print_json({**facts, "files": files})
    else:
        print_text(*parts)
        print_files(files)
