"""Own `walras plan` and `walras demo`: from a table, or the embedded population, to a verified plan and its report.

EDGE: everything heavy is imported inside the commands, so that help stays quick.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from walras.cli import options
from walras.cli.output import print_files, print_json, print_text
from walras.config import CostSettings, PlanSettings, read_costs
from walras.progress import Progress, on_terminal

if TYPE_CHECKING:
    from walras.data.panel import Panel
    from walras.planning.costs import PreviousPlan
    from walras.planning.result import PlanResult

OUT = Path("walras-out")
DEMO_OUT = Path("walras-out/demo")

Last = Annotated[
    Path | None,
    Parameter(help="plan that this one revises: its folder or plan.csv; changes cost `revision_rate` (--costs)"),
]


def plan(
    table: Annotated[
        Path, Parameter(help="table of products and weeks, Parquet or CSV (a folder for m5 and favorita)")
    ],
    /,
    *,
    flags: options.PlanFlags = None,
    settings: options.SettingsFile = None,
    costs: options.CostsFile = None,
    last: Last = None,
    static: options.Static = None,
    column: options.Columns = (),
    layout: options.Format = None,
    out: options.Out = OUT,
    as_json: options.Json = False,
) -> None:
    """Plan capacity for the products of a table, verify the plan on unseen futures and write a report."""
    started = time.perf_counter()
    chosen, table_settings = options.load_settings(settings, flags, static, column, layout)
    prices = read_costs(costs)
    options.require_writable(out)
    with on_terminal() as progress:
        progress.stage("Reading the table")
        panel = options.load_panel(table, table_settings)
        before = None if last is None else _last_plan(last, panel, chosen)
        result, files = run(panel, chosen, prices, out, progress, started, before)
    show(result, files, as_json)


def demo(
    *,
    flags: options.PlanFlags = None,
    settings: options.SettingsFile = None,
    costs: options.CostsFile = None,
    agents: Annotated[int, Parameter(help="products of the embedded population")] = 2000,
    history: Annotated[int, Parameter(help="weeks of history")] = 156,
    out: options.Out = DEMO_OUT,
    as_json: options.Json = False,
) -> None:
    """Plan the embedded population: made-up products with the published statistics of real stores."""
    from walras.population.generate import generate_panel

    started = time.perf_counter()
    chosen, _ = options.load_settings(settings, flags, None, (), None)
    prices = read_costs(costs)
    options.require_writable(out)
    with on_terminal() as progress:
        progress.stage("Making up a population")
        panel = generate_panel(agents, history, chosen.seed)
        result, files = run(panel, chosen, prices, out, progress, started)
    show(result, files, as_json)


def _last_plan(path: Path, panel: "Panel", settings: PlanSettings) -> "PreviousPlan":
    from walras.cli.price_tables import read_last_plan

    return read_last_plan(path, panel.next_weeks(settings.weeks), settings.resources)


def run(
    panel: "Panel",
    settings: PlanSettings,
    costs: CostSettings,
    out: Path,
    progress: Progress,
    started: float,
    last: "PreviousPlan | None" = None,
) -> "tuple[PlanResult, list[Path]]":
    """Plan a panel and write the report; `seconds` then counts from when the command was `started`."""
    from walras.planning.plan import plan_panel
    from walras.report.page import write_report

    reading = time.perf_counter() - started
    result = plan_panel(panel, settings, costs, last=last, progress=progress)
    seconds = {"reading": reading, **result.seconds, "total": time.perf_counter() - started}
    result = replace(result, seconds=seconds)
    progress.stage("Writing the report")
    return result, write_report(result, out)


def show(result: "PlanResult", files: list[Path], as_json: bool) -> None:
    """Print the plan for a program or for a person."""
    from walras.report.summary import console_summary, plan_summary

    if as_json:
        print_json({**plan_summary(result), "files": files})
        return
    print_text(console_summary(result))
    print_files(files)
