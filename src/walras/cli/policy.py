"""`walras policy compare`: which policy earns most on the products of a table, in weeks that none was tuned on."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from walras.cli import options
from walras.cli.options import NO_FLAGS
from walras.config import CompareSettings, read_settings
from walras.errors import plural
from walras.progress import on_terminal

if TYPE_CHECKING:
    from rich.table import Table

    from walras.evaluation.ranking import Ranking
    from walras.train.history import HistorySplit
    from walras.train.policy_comparison import PolicyComparison

OUT = Path("walras-out/policies")
CompareFlags = Annotated[CompareSettings | None, Parameter(name="*")]


def compare_command(
    table: Annotated[Path, Parameter(help=options.TABLE_HELP)],
    /,
    *,
    flags: CompareFlags = None,
    table_flags: options.TableFlags = NO_FLAGS,
    out: options.Out = OUT,
    as_json: options.Json = False,
) -> None:
    """Tune policies on the earlier weeks of a table and rank them on its last weeks, replayed as they were."""
    started = time.perf_counter()
    chosen, table_settings = read_settings(CompareSettings, table_flags.settings, flags, table_flags.fields())
    options.require_writable(out)
    import pyarrow

    from walras.report.formatting import day
    from walras.report.publish import json_writer, table_writers, write_all_or_nothing
    from walras.train import policy_comparison
    from walras.train.history import train_test_split

    policy_comparison.select_names(chosen.policies)
    with on_terminal() as progress:
        progress.stage("Reading the table")
        panel = options.load_panel(table, table_settings)
        split = train_test_split(panel, chosen, progress=progress)
        result = policy_comparison.compare_on_split(
            split,
            chosen.policies,
            shadow_price=chosen.shadow_price,
            round_to=chosen.round_to,
            level=chosen.level,
            seed=chosen.seed,
            progress=progress,
        )
    facts = _facts(split, result, chosen)
    rows = pyarrow.Table.from_pylist([row.as_dict() for row in result.ranking.rows])
    writers = {"policies.csv": table_writers("policies", rows)["policies.csv"], "policies.json": json_writer(facts)}
    files = write_all_or_nothing(out, writers)
    parts = (
        f"{plural(split.n_agents, 'product')}: tuned on {plural(facts['training_weeks'], 'week')}, judged on the "
        f"{plural(facts['holdout_weeks'], 'week')} from {day(split.holdout.weeks[0])} on.",
        _console_table(result.ranking) if sys.stdout.isatty() else str(result),
        f"Intervals cover {100 * result.ranking.level:g} %: {result.ranking.method}.",
    )
    options.print_result(as_json, {**facts, "seconds": time.perf_counter() - started}, parts, files)


def _facts(split: "HistorySplit", result: "PolicyComparison", settings: CompareSettings) -> dict[str, Any]:
    """Collect what programs read."""
    import numpy as np

    medians = {
        name: {key: float(np.median(values)) for key, values in tuned.parameters.items()}
        for name, tuned in result.tuned.items()
    }
    return {
        **result.ranking.as_dict(),
        "tuned": {name: tuned.name for name, tuned in result.tuned.items()},
        "median_parameters": medians,
        "training_weeks": len(split.training.weeks),
        "holdout_weeks": len(split.holdout.weeks),
        "first_holdout_week": split.holdout.weeks[0],
        "settings": settings.model_dump(),
        "assumed_columns": list(split.panel.assumed_columns),
        "notes": list(split.notes),
    }


def _console_table(ranking: "Ranking") -> "Table":
    from rich.table import Table

    head, *rows = ranking.cells()
    table = Table(box=None, pad_edge=False)
    for index, title in enumerate(head):
        table.add_column(title, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    return table
