"""`walras plan`, `walras demo` and `walras simulate`: a table or the embedded population, planned or simulated."""

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

PLAN_OUT, DEMO_OUT, SIMULATE_OUT = (Path("walras-out", name) for name in ("", "demo", "simulation"))
READING = "Reading the table"

Last = Annotated[
    Path | None,
    Parameter(help="plan that this one revises: its folder or plan.csv; changes cost `revision_rate` (--costs)"),
]
Prices = Annotated[
    Path | None, Parameter(name="--prices", help="file with week, resource, shadow_price, e.g. a plan's plan.csv")
]


def plan_command(
    table: Annotated[Path, Parameter(help=options.TABLE_HELP)],
    /,
    *,
    flags: options.PlanFlags = None,
    settings: options.SettingsFile = None,
    costs: options.CostsFile = None,
    last: Last = None,
    static: options.Static = None,
    column: options.Columns = (),
    layout: options.Format = None,
    out: options.Out = PLAN_OUT,
    as_json: options.Json = False,
) -> None:
    """Plan capacity for the products of a table, verify the plan on unseen futures and write a report."""
    started = time.perf_counter()
    chosen, table_settings = options.load_settings(settings, flags, static, column, layout)
    rates = read_costs(costs)
    options.require_writable(out)
    with on_terminal() as progress:
        progress.stage(READING)
        panel = options.load_panel(table, table_settings)
        previous = None
        if last is not None:
            from walras.cli.price_tables import read_last_plan

            previous = read_last_plan(last, panel.next_weeks(chosen.weeks), chosen.resources)
        _plan(panel, chosen, rates, out, progress, started, as_json, previous)


def demo_command(
    *,
    flags: options.PlanFlags = None,
    settings: options.SettingsFile = None,
    costs: options.CostsFile = None,
    agents: options.Agents = 2000,
    history: options.History = 156,
    out: options.Out = DEMO_OUT,
    as_json: options.Json = False,
) -> None:
    """Plan the embedded population: generated products with the published statistics of real stores."""
    from walras.population.generate import generate_panel

    started = time.perf_counter()
    chosen, _ = options.load_settings(settings, flags)
    rates = read_costs(costs)
    options.require_writable(out)
    with on_terminal() as progress:
        progress.stage("Making up a population")
        panel = generate_panel(agents, history, chosen.seed)
        _plan(panel, chosen, rates, out, progress, started, as_json)


def _plan(
    panel: "Panel",
    settings: PlanSettings,
    costs: CostSettings,
    out: Path,
    progress: Progress,
    started: float,
    as_json: bool,
    last: "PreviousPlan | None" = None,
) -> None:
    """Plan a panel, write the report and print it; `seconds` counts from when the command was `started`."""
    from walras.planning.plan import plan
    from walras.report.page import write_report
    from walras.report.summary import console_summary, plan_summary

    reading = time.perf_counter() - started
    result = plan(panel, settings, costs, previous=last, progress=progress)
    seconds = {"reading": reading, **result.seconds, "total": time.perf_counter() - started}
    result = replace(result, seconds=seconds)
    progress.stage("Writing the report")
    files = write_report(result, out)
    progress.close()
    if as_json:
        print_json({**plan_summary(result), "files": files})
        return
    print_text(console_summary(result))
    print_files(files)


def simulate_command(
    table: Annotated[Path | None, Parameter(help=f"{options.TABLE_HELP}; default: the embedded population")] = None,
    /,
    *,
    prices: Prices = None,
    flags: options.PlanFlags = None,
    settings: options.SettingsFile = None,
    static: options.Static = None,
    column: options.Columns = (),
    layout: options.Format = None,
    agents: options.Agents = 2000,
    history: options.History = 156,
    out: options.Out = SIMULATE_OUT,
    as_json: options.Json = False,
) -> None:
    """Simulate the coming weeks of a population under given shadow prices, and the same futures without prices."""
    started = time.perf_counter()
    chosen, table_settings = options.load_settings(settings, flags, static, column, layout)
    options.require_writable(out)
    with on_terminal() as progress:
        progress.stage(READING)
        from walras.cli.price_tables import read_prices, zero_prices
        from walras.planning.compare_prices import compare_prices, comparison_summary
        from walras.planning.policy_selection import select_policy
        from walras.planning.problem import build_simulation
        from walras.population.generate import generate_panel
        from walras.report.price_comparison import comparison_sentences, write_comparison

        if table is None:
            panel = generate_panel(agents, history, chosen.seed)
        else:
            panel = options.load_panel(table, table_settings)
        weeks = panel.next_weeks(chosen.weeks)
        charged = (
            zero_prices(weeks, chosen.resources) if prices is None else read_prices(prices, weeks, chosen.resources)
        )
        choice = select_policy(panel, chosen, progress)
        problem = build_simulation(panel, chosen, choice, progress=progress)
        progress.stage("Simulating")
        comparison = compare_prices(problem, charged)
        progress.stage("Writing the report")
        files = write_comparison(comparison, out, time.perf_counter() - started)
    if as_json:
        facts = comparison_summary(comparison)
        print_json({**facts, "seconds": time.perf_counter() - started, "files": files})
        return
    print_text(*comparison_sentences(comparison))
    print_files(files)
