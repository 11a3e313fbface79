"""Own `walras data check` and `walras data generate`: tables before any planning.

EDGE: everything heavy is imported inside the commands, so that help stays quick.
"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from walras.cli import options
from walras.cli.answer import print_files, print_json, print_words


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
        print_words(f"{panel.n_agents:,} products over {panel.n_weeks:,} weeks, {table.num_rows:,} rows.")
        print_files([out])
