"""Own the report of a finished plan: which sections the page has, and the files that go with it.

EDGE: people read it; files appear all together or not at all.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet

from walras.planning.result import PlanResult
from walras.report import details, sections
from walras.report.html import document
from walras.report.publish import write_all_or_nothing
from walras.report.summary import summary
from walras.report.tables import arrow, group_table, week_table


def write_report(result: PlanResult, folder: Path) -> list[Path]:
    """Write the page and its tables; an interrupted call leaves the earlier report as it was.

    Args:
        result: a finished plan.
        folder: where the files go; made if it is not there, other files in it are left alone.

    Returns:
        Paths of `report.html`, `plan.parquet`, `plan.csv`, `groups.csv` and `report.json`.

    Raises:
        InputError: `folder` cannot be written.
    """
    weeks, groups = arrow(week_table(result)), arrow(group_table(result))
    writers: dict[str, Callable[[Path], None]] = {
        "report.html": lambda path: _text(page(result), path),
        "plan.parquet": partial(pyarrow.parquet.write_table, weeks),
        "plan.csv": partial(pyarrow.csv.write_csv, weeks),
        "groups.csv": partial(pyarrow.csv.write_csv, groups),
        "report.json": lambda path: _text(_json(result), path),
    }
    return write_all_or_nothing(Path(folder), writers)


def page(result: PlanResult) -> str:
    """Write the whole page as one text that needs nothing from outside."""
    parts = [
        sections.top(result),
        sections.key_figures(result),
        sections.capacity(result),
        sections.prices(result),
        sections.week_list(result),
        sections.demand(result),
        details.reduction_by_group(result),
        details.money(result),
        details.verification(result),
        details.data_sources(result),
        details.limits(result),
        details.run_info(result),
        details.glossary(result),
    ]
    return document(sections.title(result), parts)


def _json(result: PlanResult) -> str:
    return json.dumps(summary(result), allow_nan=False, ensure_ascii=False, indent=1) + "\n"


def _text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")
