"""Pages, JSON and files of every report: templates are rendered, and files replaced all together or not at all."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import date
from functools import cache, partial
from pathlib import Path, PurePath
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa

from walras.errors import InputError

TEMPLATES = Path(__file__).parent / "templates"

Writer = Callable[[Path], Any]


@cache
def _environment(folder: Path) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_page(template: str, content: Mapping[str, Any], folder: Path = TEMPLATES) -> str:
    """Render a self-contained HTML page from a template in `folder`; text is escaped, `markupsafe.Markup` is not."""
    return _environment(folder).get_template(template).render(content)


def jsonable(value: Any) -> Any:
    """Turn numbers, arrays, dates and mappings into what strict JSON can hold; not finite becomes None."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, date | np.datetime64 | PurePath):
        return str(value)
    if isinstance(value, np.ndarray):
        return [jsonable(item) for item in (value.astype(str) if value.dtype.kind == "M" else value).tolist()]
    if isinstance(value, Mapping):
        return {str(name): jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    return str(value)


def text_writer(text: str) -> Writer:
    """Return a writer of a text file."""
    return lambda path: path.write_text(text, encoding="utf-8")


def json_writer(facts: Mapping[str, Any], indent: int | None = 1) -> Writer:
    """Return a writer of a strict JSON file."""
    return text_writer(json.dumps(jsonable(facts), allow_nan=False, ensure_ascii=False, indent=indent) + "\n")


def arrow_table(columns: Mapping[str, np.ndarray]) -> pa.Table:
    """Turn columns into an Arrow table; NaN becomes null."""
    return pa.table(
        {
            name: pa.array(values.tolist(), pa.string())
            if values.dtype.kind == "U"
            else pa.array(values, from_pandas=True)
            for name, values in columns.items()
        }
    )


def table_writers(name: str, table: pa.Table) -> dict[str, Writer]:
    """Return writers of a table as `name.parquet` and `name.csv`."""
    import pyarrow.csv
    import pyarrow.parquet

    return {
        f"{name}.parquet": partial(pyarrow.parquet.write_table, table),
        f"{name}.csv": partial(pyarrow.csv.write_csv, table),
    }


def write_all_or_nothing(folder: Path, writers: Mapping[str, Writer]) -> list[Path]:
    """Write files to a hidden folder, then rename them into place together; other files in the folder stay.

    Args:
        folder: made if it is not there.
        writers: file name -> what writes it to a path; called in this order.

    Raises:
        InputError: `folder` cannot be used as a folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The report folder `{folder}` cannot be made ({error.strerror}); "
            "a folder that can be written is needed, so name another one"
        ) from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"The report folder `{folder}` cannot be written; allow that or name another one")
    aside = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder))
    try:
        for name, write in writers.items():
            write(aside / name)
        _swap(folder, aside, list(writers))
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return [folder / name for name in writers]


def _swap(folder: Path, aside: Path, names: list[str]) -> None:
    """Rename every file into place; if that stops half way, restore the old ones."""
    old = aside / "old"
    old.mkdir()
    done: list[str] = []
    try:
        for name in names:
            # The old file stays reachable under a second name until every new one is in place.
            if (folder / name).exists():
                shutil.copy2(folder / name, old / name)
            done.append(name)
            os.replace(aside / name, folder / name)
    except BaseException:
        for name in done:
            if (old / name).exists():
                os.replace(old / name, folder / name)
            elif not (aside / name).exists():
                (folder / name).unlink(missing_ok=True)
        raise
