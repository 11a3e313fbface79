"""Own `walras policy compare`: which policy earns most on the products of a table, in weeks that none was tuned on.

EDGE: everything heavy is imported inside the command, so that help stays quick.
"""

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from walras.cli import options
from walras.cli.output import print_files, print_json, print_text
from walras.config import CompareSettings, read_compare_settings
from walras.progress import on_terminal

if TYPE_CHECKING:
    from rich.table import Table

    from walras.train.history import HistorySplit
    from walras.train.tuning.policy_comparison import PolicyComparison

OUT = Path("walras-out/policies")
CompareFlags = Annotated[CompareSettings | None, Parameter(name="*")]


def compare(
    table: Annotated[
        Path, Parameter(help="table of products and weeks, Parquet or CSV (a folder for m5 and favorita)")
    ],
    /,
    *,
    flags: CompareFlags = None,
    settings: options.SettingsFile = None,
    static: options.Static = None,
    column: options.Columns = (),
    layout: options.Format = None,
    out: options.Out = OUT,
    as_json: options.Json = False,
) -> None:
    """Tune policies on the earlier weeks of a table and rank them on its last weeks, replayed as they were."""
    started = time.perf_counter()
    chosen, table_settings = read_compare_settings(settings, flags, options.table_flags(static, column, layout))
    options.require_writable(out)
    from walras.train.history import train_test_split
    from walras.train.tuning import policy_comparison as contests

    contests.select_names(chosen.policies)
    with on_terminal() as progress:
        progress.stage("Reading the table")
        panel = options.load_panel(table, table_settings)
        case = train_test_split(panel, chosen, progress=progress)
        result = contests.compare_on_split(
            case,
            chosen.policies,
            shadow_price=chosen.shadow_price,
            round_to=chosen.round_to,
            level=chosen.level,
            seed=chosen.seed,
            progress=progress,
        )
    facts = summary(case, result, chosen)
    files = write(facts, result, out)
    show(case, result, {**facts, "seconds": time.perf_counter() - started, "files": files}, as_json)


def summary(case: "HistorySplit", result: "PolicyComparison", settings: CompareSettings) -> dict[str, Any]:
    """Collect what a program may want to read."""
    import numpy as np

    middle = {
        name: {key: float(np.median(values)) for key, values in tuned.parameters.items()}
        for name, tuned in result.tuned.items()
    }
    return {
        **result.ranking.as_dict(),
        "tuned": {name: tuned.name for name, tuned in result.tuned.items()},
        "median_parameters": middle,
        "training_weeks": len(case.training.weeks),
        "holdout_weeks": len(case.holdout.weeks),
        "first_holdout_week": case.holdout.weeks[0],
        "settings": settings.model_dump(),
        "assumed_columns": list(case.panel.assumed_columns),
        "notes": list(case.notes),
    }


def write(facts: dict[str, Any], result: "PolicyComparison", folder: Path) -> list[Path]:
    """Write the ranking as JSON and as a table; an interrupted call leaves the earlier ones as they were."""
    import pyarrow
    import pyarrow.csv

    from walras.report.publish import Writer, json_writer, write_all_or_nothing

    rows = pyarrow.Table.from_pylist([row.as_dict() for row in result.ranking.rows])
    writers: dict[str, Writer] = {
        "policies.csv": partial(pyarrow.csv.write_csv, rows),
        "policies.json": json_writer(facts),
    }
    return write_all_or_nothing(folder, writers)


def show(case: "HistorySplit", result: "PolicyComparison", facts: dict[str, Any], as_json: bool) -> None:
    """Print the ranking for a program or for a person."""
    if as_json:
        print_json(facts)
        return
    from walras.errors import plural
    from walras.report import formatting

    first = formatting.day(case.holdout.weeks[0])
    print_text(
        f"{plural(case.n_agents, 'product')}: tuned on {plural(facts['training_weeks'], 'week')}, judged "
        f"on the {plural(facts['holdout_weeks'], 'week')} from {first} on.",
        console_table(result) if sys.stdout.isatty() else str(result),
        f"Intervals cover {100 * result.ranking.level:g} %: {result.ranking.method}.",
    )
    print_files(facts["files"])


def console_table(result: "PolicyComparison") -> "Table":
    """Lay the ranking out for a terminal."""
    from rich.table import Table

    head, *rows = result.ranking.cells()
    table = Table(box=None, pad_edge=False)
    for index, title in enumerate(head):
        table.add_column(title, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    return table
