"""Options that several commands share, and how they become settings and a panel."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from walras.config import PlanFields, PlanSettings, TableFormat, TableSettings, read_settings
from walras.errors import SettingsError

if TYPE_CHECKING:
    from walras.data.panel import Panel

TABLE_HELP = "table of products and weeks, Parquet or CSV (a folder for m5 and favorita)"
PlanFlags = Annotated[PlanFields | None, Parameter(name="*")]
SettingsFile = Annotated[Path | None, Parameter(name="--settings", help="TOML file with any of these settings")]
CostsFile = Annotated[Path | None, Parameter(name="--costs", help="TOML file with the costs of capacity")]
Static = Annotated[Path | None, Parameter(name="--static", help="second table, one row per product")]
Columns = Annotated[
    tuple[str, ...],
    Parameter(
        name="--column",
        negative="",
        show_default=False,
        help="OURS=THEIRS, where the table has another name for a column; repeatable",
    ),
]
Format = Annotated[TableFormat | None, Parameter(name="--format", help="layout of the files (default: table)")]
Out = Annotated[Path, Parameter(name="--out", help="folder for the report and its tables")]
Agents = Annotated[int, Parameter(help="products of the embedded population")]
History = Annotated[int, Parameter(help="its weeks of history")]
Json = Annotated[
    bool, Parameter(name="--json", negative="", show_default=False, help="print one JSON object instead of text")
]


def table_flags(static: Path | None, column: Sequence[str], layout: TableFormat | None) -> dict[str, Any]:
    """Return the given flags about the table as fields of `TableSettings`."""
    from walras.data.records import parse_options

    given = {"static": static, "format": layout, "columns": parse_options(column) if column else None}
    return {name: value for name, value in given.items() if value is not None}


def load_settings(
    file: Path | None,
    flags: PlanFields | None,
    static: Path | None = None,
    column: Sequence[str] = (),
    layout: TableFormat | None = None,
) -> tuple[PlanSettings, TableSettings]:
    """Join the settings file and the flags."""
    return read_settings(file, flags, table_flags(static, column, layout))


def load_panel(table: Path, layout: TableSettings) -> "Panel":
    """Read the user's table in the layout that the settings name."""
    if layout.format == "table":
        from walras.data.read import read_panel

        return read_panel(table, columns=layout.columns, static=layout.static)
    for name in ("columns", "static"):
        if getattr(layout, name):
            raise SettingsError(
                f"`{name}` is set, but files in the {layout.format} layout have their own; leave it out"
            )
    from walras.data.adapters import READERS

    return READERS[layout.format](table)


def require_writable(folder: Path) -> None:
    """Refuse an output folder before minutes of work instead of after them.

    Raises:
        SettingsError: no file can be made there.
    """
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
