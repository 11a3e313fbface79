"""`walras plan`, `walras demo` and `walras simulate`: a table or the embedded population, planned or simulated."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from walras.cli import options
from walras.cli.options import NO_FLAGS
from walras.config import PlanSettings, read_costs
from walras.progress import on_terminal

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
    table_flags: options.TableFlags = NO_FLAGS,
    costs: options.CostsFile = None,
    last: Last = None,
    out: options.Out = PLAN_OUT,
    as_json: options.Json = False,
) -> None:
    """Plan capacity for the products of a table, verify the plan on unseen futures and write a report."""
    chosen, table_settings = table_flags.read(flags)

    def load() -> "tuple[Panel, PreviousPlan | None]":
        from walras.cli.price_tables import read_last_plan

        panel = options.load_panel(table, table_settings)
        weeks = panel.next_weeks(chosen.weeks)
        return panel, None if last is None else read_last_plan(last, weeks, chosen.resources)

    _plan(READING, load, chosen, costs, out, as_json)


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

    chosen, _ = options.TableFlags(settings).read(flags)
    stage = "Making up a population"  # a key of report.json
    _plan(stage, lambda: (generate_panel(agents, history, chosen.seed), None), chosen, costs, out, as_json)


def _plan(
    stage: str,
    load: "Callable[[], tuple[Panel, PreviousPlan | None]]",
    settings: PlanSettings,
    costs: Path | None,
    out: Path,
    as_json: bool,
) -> None:
    """Load a panel and the plan to revise in a named stage, plan, write the report and print it."""
    started, rates = time.perf_counter(), read_costs(costs)
    options.require_writable(out)
    with on_terminal() as progress:
        progress.stage(stage)
        panel, previous = load()
        from walras.planning.plan import plan
        from walras.report.page import write_report
        from walras.report.summary import console_summary, plan_summary

        reading = time.perf_counter() - started
        result = plan(panel, settings, rates, previous=previous, progress=progress)
        seconds = {"reading": reading, **result.seconds, "total": time.perf_counter() - started}
        result = replace(result, seconds=seconds)
        progress.stage("Writing the report")
        files = write_report(result, out)
    options.print_result(as_json, plan_summary(result), console_summary(result), files)


def simulate_command(
    table: Annotated[Path | None, Parameter(help=f"{options.TABLE_HELP}; default: the embedded population")] = None,
    /,
    *,
    prices: Prices = None,
    flags: options.PlanFlags = None,
    table_flags: options.TableFlags = NO_FLAGS,
    agents: options.Agents = 2000,
    history: options.History = 156,
    out: options.Out = SIMULATE_OUT,
    as_json: options.Json = False,
) -> None:
    """Simulate the coming weeks of a population under given shadow prices, and the same futures without prices."""
    started = time.perf_counter()
    chosen, table_settings = table_flags.read(flags)
    options.require_writable(out)
    with on_terminal() as progress:
        progress.stage(READING)
        from walras.cli.price_tables import read_prices
        from walras.planning.problem import build_simulation
        from walras.planning.verify import compare_prices
        from walras.population.generate import generate_panel
        from walras.report.page import comparison_sentences, write_comparison

        if table is None:
            panel = generate_panel(agents, history, chosen.seed)
        else:
            panel = options.load_panel(table, table_settings)
        weeks, resources = panel.next_weeks(chosen.weeks), chosen.resources
        charged = read_prices(prices, weeks, resources)
        problem = build_simulation(panel, chosen, progress=progress)
        progress.stage("Simulating")
        comparison = compare_prices(problem, charged)
        progress.stage("Writing the report")
        files = write_comparison(comparison, out, time.perf_counter() - started)
    facts = {**comparison.as_dict(), "seconds": time.perf_counter() - started}
    options.print_result(as_json, facts, comparison_sentences(comparison), files)
