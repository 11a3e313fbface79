"""`walras data check` and `walras data generate`: tables before any planning."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from walras.cli import options
from walras.cli.options import NO_FLAGS
from walras.errors import InputError

if TYPE_CHECKING:
    from walras.data.check import TableCheck


def check_command(
    table: Annotated[Path, Parameter(help="table of products and weeks, Parquet, CSV or workbook")],
    /,
    *,
    table_flags: options.ColumnFlags = NO_FLAGS,
    as_json: options.Json = False,
) -> None:
    """Describe a table: what is in it, every problem, and what is repaired while reading it.

    The exit code is 2 if the table cannot be planned with.
    """
    from walras.data.check import check_table
    from walras.data.sources import existing_file

    _, layout = table_flags.read()
    check = check_table(existing_file(table), columns=layout.columns, static=layout.static, reading=layout)
    if as_json:
        options.print_json(check.as_dict())
    else:
        options.print_text(*_sentences(check))
    if not check.ok:
        more = len(check.problems) - 1
        raise InputError(check.problems[0].rstrip(".") + (f" (and {more} more)" if more else ""))


def _sentences(check: "TableCheck") -> list[str]:
    read_as = [f"Read as: {'; '.join(f'{name} {value}' for name, value in check.read_as.items())}."] * bool(
        check.read_as
    )
    if not check.ok:
        problems = (f"- {text}" for text in check.problems)
        return [f"{check.rows:,} rows; this table cannot be planned with:", *problems, *read_as]
    fields = ", ".join(ours if ours == theirs else f"{ours} (from {theirs})" for ours, theirs in check.columns.items())
    return [
        f"{check.rows:,} rows: {check.agents:,} products over {check.weeks:,} weeks from {check.first_week} to "
        f"{check.last_week}.",
        f"Columns: {fields}.",
        *read_as,
        *(f"- {text}" for text in check.notes),
        "This table can be planned with.",
    ]


def generate_command(
    out: Annotated[Path, Parameter(help="file to write, .parquet or .csv")],
    /,
    *,
    agents: Annotated[int, Parameter(help="number of products")] = 2000,
    weeks: Annotated[int, Parameter(help="weeks of history")] = 156,
    seed: Annotated[int, Parameter(help="same seed, same table")] = 0,
    as_json: options.Json = False,
) -> None:
    """Write a table of generated products, with the published statistics of real stores, for `walras plan`."""
    from walras.data.write import panel_to_table, write_table
    from walras.population.generate import generate_panel

    panel = generate_panel(agents, weeks, seed)
    table = panel_to_table(panel)
    write_table(out, table)
    facts = {"rows": table.num_rows, "agents": panel.n_agents, "weeks": panel.n_weeks}
    sentence = f"{panel.n_agents:,} products over {panel.n_weeks:,} weeks, {table.num_rows:,} rows."
    options.print_result(as_json, facts, [sentence], [out])
