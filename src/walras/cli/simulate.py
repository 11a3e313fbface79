"""Own `walras simulate`: what the products of a table do under given shadow prices.

EDGE: everything heavy is imported inside the command, so that help stays quick.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from walras.cli import options
from walras.cli.output import print_files, print_json, print_text
from walras.progress import on_terminal

if TYPE_CHECKING:
    from walras.planning.compare_prices import PriceComparison

OUT = Path("walras-out/simulation")
Prices = Annotated[
    Path | None, Parameter(name="--prices", help="file with week, resource, shadow_price, e.g. a plan's plan.csv")
]


def simulate(
    table: Annotated[
        Path | None, Parameter(help="table of products and weeks; the embedded population without")
    ] = None,
    /,
    *,
    prices: Prices = None,
    flags: options.PlanFlags = None,
    settings: options.SettingsFile = None,
    static: options.Static = None,
    column: options.Columns = (),
    layout: options.Format = None,
    agents: Annotated[int, Parameter(help="products of the embedded population")] = 2000,
    history: Annotated[int, Parameter(help="its weeks of history")] = 156,
    out: options.Out = OUT,
    as_json: options.Json = False,
) -> None:
    """Simulate the coming weeks of a population under given shadow prices, beside the same futures without prices."""
    started = time.perf_counter()
    chosen, table_settings = options.load_settings(settings, flags, static, column, layout)
    options.require_writable(out)
    with on_terminal() as progress:
        progress.stage("Reading the table")
        panel = options.load_or_generate_panel(table, table_settings, agents, history, chosen.seed)
        weeks = panel.next_weeks(chosen.weeks)
        from walras.cli.price_tables import read_prices, zero_prices
        from walras.planning.compare_prices import compare_prices
        from walras.planning.policy_selection import select_policy
        from walras.planning.problem import build_simulation
        from walras.report.price_comparison import write_comparison

        charged = (
            zero_prices(weeks, chosen.resources) if prices is None else read_prices(prices, weeks, chosen.resources)
        )
        choice = select_policy(panel, chosen, progress)
        problem = build_simulation(panel, chosen, choice, progress=progress)
        progress.stage("Simulating")
        trial = compare_prices(problem, charged)
        progress.stage("Writing the report")
        files = write_comparison(trial, out, time.perf_counter() - started)
    show(trial, files, time.perf_counter() - started, as_json)


def show(trial: "PriceComparison", files: list[Path], seconds: float, as_json: bool) -> None:
    """Print the simulation for a program or for a person."""
    from walras.planning.compare_prices import comparison_summary
    from walras.report.price_comparison import comparison_sentences

    if as_json:
        print_json({**comparison_summary(trial), "seconds": seconds, "files": files})
        return
    print_text(*comparison_sentences(trial))
    print_files(files)
