"""Own `walras data check` and `walras data generate`: tables before any planning.

EDGE: everything heavy is imported inside the commands, so that help stays quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from walras.cli import options
from walras.cli.output import print_files, print_json, print_text
from walras.errors import InputError

if TYPE_CHECKING:
    from walras.data.read import TableCheck


def check(
    table: Annotated[Path, Parameter(help="table of products and weeks, Parquet or CSV")],
    /,
    *,
    settings: options.SettingsFile = None,
    static: options.Static = None,
    column: options.Columns = (),
    as_json: options.Json = False,
) -> None:
    """Say what is in a table, everything that would be refused, and what would be handled while reading it.

    The exit code is 2 where the table cannot be planned with.
    """
    from walras.data.read import check_table
    from walras.data.sources import existing_file

    _, layout = options.load_settings(settings, None, static, column, None)
    found = check_table(existing_file(table), columns=layout.columns, static=layout.static)
    if as_json:
        print_json(found.as_dict())
    else:
        print_text(*check_words(found))
    if not found.ok:
        more = len(found.problems) - 1
        raise InputError(found.problems[0].rstrip(".") + (f" (and {more} more)" if more else ""))


def check_words(found: "TableCheck") -> list[str]:
    """Put what was found into sentences."""
    if not found.ok:
        return [f"{found.rows:,} rows; this table cannot be planned with:", *(f"- {text}" for text in found.problems)]
    span = f"{found.weeks:,} weeks from {found.first_week} to {found.last_week}"
    fields = ", ".join(ours if ours == theirs else f"{ours} (from {theirs})" for ours, theirs in found.columns.items())
    return [
        f"{found.rows:,} rows: {found.agents:,} products over {span}.",
        f"Columns: {fields}.",
        *(f"- {text}" for text in found.notes),
        "This table can be planned with.",
    ]


def generate(
    out: Annotated[Path, Parameter(help="file to write, .parquet or .csv")],
    /,
    *,
    agents: Annotated[int, Parameter(help="number of products")] = 2000,
    weeks: Annotated[int, Parameter(help="weeks of history")] = 156,
    seed: Annotated[int, Parameter(help="same seed, same table")] = 0,
    as_json: options.Json = False,
) -> None:
    """Write a table of made-up products, with the published statistics of real stores, that `walras plan` reads."""
    from walras.data.write import panel_to_table, write_table
    from walras.population.generate import generate_panel

    panel = generate_panel(agents, weeks, seed)
    table = panel_to_table(panel)
    write_table(out, table)
    if as_json:
        print_json({"rows": table.num_rows, "agents": panel.n_agents, "weeks": panel.n_weeks, "files": [out]})
    else:
        print_text(f"{panel.n_agents:,} products over {panel.n_weeks:,} weeks, {table.num_rows:,} rows.")
        print_files([out])
