"""The reports of plans and simulations: HTML pages, and the tables and JSON beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from walras.errors import plural
from walras.planning.result import PlanResult, PriceComparison
from walras.planning.service import GroupUse
from walras.report import charts, publish, summary
from walras.report import formatting as fmt
from walras.report.style import picture
from walras.report.summary import VIOLATION_TARGET, exceeds, level, price_basis, verdicts
from walras.report.workbook import workbook_writer

MOST_PRODUCTS = 20
"""Products in the page; products.csv has all."""

Tile = tuple[str, str, str, str]
"""Name, value, small print, and "good", "fair", "bad" or ""."""


def write_report(result: PlanResult, folder: Path) -> list[Path]:
    """Write the report, `report.json`, `plan.xlsx` and the tables of weeks, groups and products, all or none.

    Raises:
        InputError: `folder` cannot be written.
    """

    def csv(name: str, columns: Mapping[str, np.ndarray]) -> dict[str, publish.Writer]:
        return {f"{name}.csv": publish.table_writers(name, publish.arrow_table(columns))[f"{name}.csv"]}

    writers: dict[str, publish.Writer] = {
        "report.html": publish.text_writer(plan_page(result)),
        **publish.table_writers("plan", publish.arrow_table(result.columns())),
        **csv("groups", summary.group_table(result)),
        **csv("products", result.products),
        "plan.xlsx": workbook_writer(result),
        "report.json": publish.json_writer(summary.plan_summary(result)),
    }
    if result.response is not None:
        writers["capacity_response.npz"] = result.response.save  # for `walras whatif`
    return publish.write_all_or_nothing(Path(folder), writers)


def plan_page(result: PlanResult) -> str:
    """Return the self-contained HTML page of a plan."""
    names = [fmt.resource_name(name) for name in result.resources]
    content = {
        "title": f"Capacity plan: {fmt.listing(names)}, {fmt.day(result.weeks[0])} to {fmt.day(result.weeks[-1] + 6)}",
        "basis": basis(result),
        "grade": level(result),
        "verdict": [*summary.cost_sentences(result), summary.headline(result), *summary.shown_verdict(result)],
        "tiles": tiles(result),
        "exceptions": summary.exception_rows(result),
        "price_basis": price_basis(result),
        "reissued": summary.reissues(result),
        "service": picture("service", "Lost sales by week", charts.lost_sales_chart, result),
        "money": money_rows(result),
        "resources": [_resource(result, index, name) for index, name in enumerate(names)],
        "ranges": summary.price_range_rows(result),
        "range_error": None if result.response is None or result.response.error is None else result.response.error,
        "demand": picture("demand", "Demand so far and expected", charts.demand_chart, result),
        "forecast": forecast_accuracy(result),
        "groups": [_group(group, index) for index, group in enumerate(result.groups)],
        "gave_way": [_gave_way(result, index) for index in range(len(result.gave_way))],
        "products": product_rows(result),
        "verification": _verification(result),
        "sources": summary.data_sources(result),
        "notes": [fmt.fix_plurals(note) for note in result.notes],
        "run": run_info(result),
    }
    return publish.render_page("plan.html", content)


def money_rows(result: PlanResult) -> list[tuple[str, ...]]:
    """List demand, lost sales and money without prices and under the plan, and the difference."""
    service, money = result.service, result.money
    rows = [("Demand [units]", service.total("demand"), service.total("demand"))]
    rows += [("Lost sales [units]", service.total("lost_without"), service.total("lost_planned"))]
    rows += [("Margin of lost sales", service.total("margin_without"), service.total("margin_planned"))]
    if not fmt.is_missing(money.get("reward_unconstrained")):
        rows += [("Reward: sales less purchases and holding", money["reward_unconstrained"], money["reward_plan"])]
    written: list[tuple[str, ...]] = [
        (name, fmt.number(free), fmt.number(plan), fmt.signed(fmt.number(plan - free))) for name, free, plan in rows
    ]
    served = [service.fill_rate("without"), service.fill_rate()]
    written.insert(1, ("Served", *map(fmt.percent, served), fmt.signed(fmt.percent(served[1] - served[0]))))
    if not fmt.is_missing(money.get("acquisition_cost")):
        cost = fmt.number(money["acquisition_cost"])
        written.append(("Cost of capacity", "", cost, fmt.signed(cost)))
    return written


def _gave_way(result: PlanResult, index: int) -> tuple[str, ...]:
    """Say for a week with a price what binds, what is committed, and who uses less."""
    way = result.gave_way[index]
    week = result.weeks.astype(str).tolist().index(way.week) if way.week in result.weeks.astype(str) else 0
    resource = result.resources.index(way.resource) if way.resource in result.resources else 0
    names = [fmt.listing(f"{name} ({fmt.signed(fmt.number(change))})" for name, change in part)
             for part in (way.groups, way.products)]  # fmt: skip
    return (
        fmt.day_month(np.datetime64(way.week)),
        *([fmt.resource_name(way.resource)] if len(result.resources) > 1 else []),
        fmt.number(result.record.capacity[week, resource]),
        fmt.number(result.committed[week, resource]),
        fmt.signed(fmt.number(way.change)),
        *names,
    )


def product_rows(result: PlanResult) -> list[tuple[str, ...]]:
    """Return the products that lose most margin by the plan."""
    table = result.products
    if not table:
        return []
    columns = ("demand", "use_without", "use_planned", "moved", "lost_without", "lost_planned", "margin_lost_planned")
    return [
        (str(table["product"][row]), *(fmt.number(table[name][row]) for name in columns), str(table["why"][row]))
        for row in range(min(MOST_PRODUCTS, len(table["product"])))
    ]


def basis(result: PlanResult) -> list[str]:
    """Say how many weeks and products are planned, from how much history."""
    counts = result.counts
    parts = [plural(len(result.weeks), "week") + " planned"]
    if "active" in counts or "agents" in counts:
        planned, given = int(counts.get("active", counts.get("agents", 0))), int(counts.get("agents", 0))
        text = f"{plural(planned, 'product')} planned"
        if counts.get("inactive"):
            idle = f"{int(counts['inactive']):,} sold nothing lately"
            text += f" (of {given:,}; {idle})" if given > planned else f" ({idle})"
        parts.append(text)
    if "history_weeks" in counts:
        parts.append(plural(int(counts["history_weeks"]), "week") + " of history")
    return parts


TILES = {
    "near_limit_mean_violation": "above capacity on average, weeks in which it is tight",
    "reward_kept": "of what the best prices with hindsight reach",
    "idle_capacity": "of capacity unused in short weeks: those whose use without prices exceeds capacity",
}
"""Measures with a tile, and its small print."""


def tiles(result: PlanResult) -> list[Tile]:
    """Return the key figures."""
    judged, service, money = verdicts(result), result.service, result.money
    fitting = sum(not exceeds(verdict) for verdict in judged)
    all_fit, grade = fitting == len(judged), level(result)
    small = "of the planned weeks" if all_fit else "the others are marked in the list of weeks"
    kind = "good" if all_fit else "" if grade == "good" else grade
    entries = [("Weeks that fit", f"{fitting} of {len(judged)}", small, kind)]
    small = f"of demand, against {fmt.percent(service.fill_rate('without'))} without prices"
    entries += [("Served from stock", fmt.percent(service.fill_rate()), small, "")]
    small = f"units, {fmt.short_number(service.total('margin_planned'))} of margin; without prices "
    small += f"{fmt.short_number(service.total('lost_without'))} units, "
    small += fmt.short_number(service.total("margin_without"))
    entries += [("Lost sales", fmt.short_number(service.total("lost_planned")), small, "")]
    if not fmt.is_missing(money.get("plan_cost")):
        paid, lost = fmt.short_number(money["acquisition_cost"]), fmt.short_number(money["margin_lost"])
        small = f"{paid} for capacity and {lost} of margin on sales lost by the plan"
        entries.append(("What the plan costs", fmt.short_number(money["plan_cost"]), small, ""))
    absent = {"reward_kept"} if fmt.is_missing(result.verified.get("reward_kept")) else set()
    entries += [_measure_tile(result, name) for name in TILES if name in result.verified and name not in absent]
    return entries + [_price_tile(result, index) for index in range(len(result.resources))]


def _measure_tile(result: PlanResult, name: str) -> Tile:
    value = result.verified[name]
    span = fmt.interval(name, result.intervals.get(name))
    small, kind = TILES[name] + (f"; 95 % interval {span}" if span else ""), ""
    if name == "reward_kept" and (paths := summary.oracle_basis(result)):
        small += f"; computed {paths}"
    if name == "near_limit_mean_violation":
        if fmt.is_missing(value):
            small = "no week is near its limit"
        else:
            kind = "good" if float(value or 0) <= VIOLATION_TARGET else "fair"
            small += f"; {price_basis(result)}; target {fmt.percent(VIOLATION_TARGET, 0)} or less"
    return fmt.title_of(name), fmt.measure(name, value), small, kind


def _price_tile(result: PlanResult, resource: int) -> Tile:
    prices = result.record.shadow_prices[:, resource]
    name = f"Highest shadow price, {fmt.resource_name(result.resources[resource])}"
    if not np.nanmax(prices, initial=0.0) > 0:
        return name, "0", "every week has unused capacity", ""
    week = int(np.nanargmax(prices))
    return name, fmt.number(prices[week]), f"money per unit, week of {fmt.day_month(result.weeks[week])}", ""


def _resource(result: PlanResult, index: int, name: str) -> dict[str, Any]:
    capacity = picture(f"capacity-{index}", f"Capacity and use of {name} by week", charts.capacity_chart, result, index)
    prices = picture(f"price-{index}", f"Shadow price of {name} by week", charts.price_chart, result, index)
    weeks = [_week_row(result, week, index) for week in range(len(result.weeks))]
    failing = [week for week, verdict in enumerate(result.verdict_grid[:, index]) if exceeds(str(verdict))]
    return {"name": name, "capacity": capacity, "prices": prices, "weeks": weeks, "failing": failing}


def _week_row(result: PlanResult, week: int, resource: int) -> tuple[str, ...]:
    date = result.weeks[week]
    granted, used = result.record.capacity[week, resource], result.record.utilization[week, resource]
    low, _, high = result.verified_utilization[:, week, resource]
    return (
        Markup(f'{fmt.day_month(date)}<span class="x"> {date.astype(object).year}</span>'),
        fmt.number(result.regular_capacity[week, resource]),
        fmt.number(granted),
        fmt.number(used),
        fmt.percent(used / granted, 0) if granted > 0 else fmt.NOT_DEFINED,
        f"{fmt.number(low)} – {fmt.number(high)}",
        summary.written_price(result, week, resource),
        fmt.percent(result.service.fill_rates()[week], 0),
        str(result.verdict_grid[week, resource]),
    )


SCORES = (
    ("Error of the weekly total, of mean demand", "aggregate_error", "naive_error"),
    ("The same, mean over several starting weeks", "rolling_error", "rolling_naive_error"),
    ("Too much (+) or too little (−) expected in all", "bias", ""),
    ("Weeks whose total fell inside the 90 % band (target 90 %)", "coverage_90", ""),
    ("Weeks whose total fell inside the 80 % band (target 80 %)", "coverage_80", ""),
    ("Error by product and week, of demand", "product_error", "naive_product_error"),
    ("Error by product over all these weeks, of demand", "product_total_error", "naive_product_total_error"),
    ("Error of the predictive distribution (CRPS), of mean demand", "crps", ""),
)
"""Label, score of this forecast and score of the naive one."""

OTHER_SCORES = ("reason", "holdout", "agents", "naive", "ratio_to_naive", "origins", "scored_weeks")
"""Scores that the sentence uses or that say nothing to a planner."""


def forecast_accuracy(result: PlanResult) -> dict[str, Any]:
    """Say how the forecast did on held-out weeks: a sentence, and a table where there are scores."""
    score = result.forecast_score
    if not score or score.get("reason"):
        reason = score.get("reason") or "It was not scored on held-out weeks."
        return {"sentence": f"The accuracy of this forecast is unknown. {reason}", "rows": []}
    weeks = f"the last {plural(int(score['holdout']), 'week')}" if "holdout" in score else "the last known weeks"
    naive = f" ({score['naive']})" if score.get("naive") else ""
    sentence = f"The method was fitted without {weeks} and compared with actual demand and a naive forecast{naive}."
    if not fmt.is_missing(ratio := score.get("ratio_to_naive")):
        gain = 1 - float(ratio)  # type: ignore[arg-type]
        how = "smaller" if gain >= 0 else "larger"
        sentence += f" Its error of the weekly total was {fmt.percent(abs(gain), 0)} {how} than the naive one's."
    rows = [
        (
            label,
            fmt.signed(fmt.percent(score[name])) if name == "bias" else fmt.percent(score[name]),
            fmt.percent(score.get(naive_name)) if naive_name in score else "",
        )
        for label, name, naive_name in SCORES
        if name in score
    ]
    known = {name for names in SCORES for name in names[1:]} | set(OTHER_SCORES)
    rest = [(name.replace("_", " "), value, "") for name, value in fmt.flat(score) if name.split(".")[0] not in known]
    return {"sentence": sentence, "rows": [*rows, *rest]}


def _group(group: GroupUse, index: int) -> dict[str, Any]:
    change, base = float(np.sum(group.planned) - np.sum(group.unconstrained)), float(np.sum(group.unconstrained))
    share = f" ({fmt.signed(fmt.percent(change / base))})" if base > 0 else ""
    return {
        "title": group.title,
        "picture": picture(f"groups-{index}", f"Change in use by {group.title}", charts.reduction_chart, group),
        "change": f"{fmt.signed(fmt.number(change))} units in all{share}",
        "many": len(group.labels) > charts.MOST_GROUPS,
    }


def _verification(result: PlanResult) -> dict[str, Any]:
    def count(name: str, noun: str) -> str:
        return plural(int(result.counts[name]), noun) if name in result.counts else f"several {noun}s"

    rows = [
        (*cells, fmt.MEASURES[name][1] + (f"; computed {basis}" if basis else ""))
        for name, basis, cells in summary.measure_rows(result)
    ]
    return {"scenarios": count("scenarios", "scenario"), "paths": count("paths", "other path"), "rows": rows}


def run_info(result: PlanResult) -> dict[str, Any]:
    """Say how the plan was made: convergence, queries, settings, counts, time."""
    record, search = result.record, result.search
    queries, of = int(record.queries), f" of {summary.simulated_products(search)}" if search.cohort else ""
    if search.interface == "learned":
        simulations = plural(search.simulations, "simulation")
        queried = f"{plural(queries, 'query', 'queries')} to learned maps, corrected by {simulations}{of}"
    else:
        queried = plural(queries, "simulated query", "simulated queries") + of
    behind = [
        (fmt.title_of(name), fmt.number(value)) for name, value in result.verified.items() if name not in fmt.MEASURES
    ]
    counts = [(name.replace("_", " "), f"{int(value):,}") for name, value in result.counts.items()]
    seconds = fmt.number(summary.total_seconds(result))
    times = [(name.replace("_", " "), fmt.number(value)) for name, value in summary.stages(result).items()]
    numbers = (("Name", ""), ("Number", "n"))
    return {
        "converged": record.converged,
        "revisions": plural(int(record.iterations), "revision"),
        "queries": queried,
        "reason": record.stop_reason.strip().rstrip("."),
        "seconds": seconds,
        "tables": (
            ("Settings", (("Setting", ""), ("Value", "")), fmt.flat(result.settings, absent=fmt.NOT_GIVEN)),
            ("Counts", numbers, counts),
            ("Numbers behind the measures", numbers, behind),
            ("Time by stage", (("Stage", ""), ("Seconds", "n")), [*times, ("total", seconds)]),
        ),
    }


def comparison_sentences(comparison: PriceComparison) -> list[str]:
    """Say what the prices did."""
    weeks = comparison.weeks
    products, span = plural(comparison.counts["active"], "product"), plural(len(weeks), "week")
    lines = [f"{products} over {span}, {fmt.day(weeks[0])} to {fmt.day(weeks[-1] + 6)}."]
    for index, name in enumerate(comparison.resources):
        use, free = (values[1, :, index] for values in (comparison.utilization, comparison.unconstrained))
        most = f"{fmt.number(use.max())} in the week of {fmt.day(weeks[int(use.argmax())])}"
        mean, without = fmt.number(use.mean()), fmt.number(free.mean())
        lines.append(f"{name}: {mean} per week in the median future, {without} without prices; the most is {most}.")
    kept = comparison.reward_kept
    if comparison.shadow_prices.any() and kept is not None:
        lines.append(f"The prices keep {fmt.percent(kept)} of the reward that the products earn without prices.")
    return lines


def comparison_page(comparison: PriceComparison) -> str:
    """Return the self-contained HTML page of a simulation."""
    resources = [_simulated_resource(comparison, index, name) for index, name in enumerate(comparison.resources)]
    origins = [f"{name}: {origin}" for name, origin in comparison.provenance.items()]
    content = {
        "title": f"Simulation: {fmt.listing(comparison.resources)} from {fmt.day(comparison.weeks[0])}",
        "sentences": comparison_sentences(comparison),
        "resources": resources,
        "sources": [*origins, *comparison.notes],
    }
    return publish.render_page("price_comparison.html", content)


def _simulated_resource(comparison: PriceComparison, index: int, name: str) -> dict[str, Any]:
    priced = comparison.shadow_prices[:, index].any()
    return {
        "title": fmt.title_of(name),
        "use": picture(f"use-{index}", f"Use of {name}", charts.use_chart, comparison, index),
        "prices": priced
        and picture(f"price-{index}", f"Shadow prices of {name}", charts.charged_price_chart, comparison, index),
    }


def write_comparison(comparison: PriceComparison, folder: Path, seconds: float) -> list[Path]:
    """Write `simulation.html`, `.parquet`, `.csv` and `.json`; an interrupted call leaves the earlier files."""
    writers = {
        "simulation.html": publish.text_writer(comparison_page(comparison)),
        **publish.table_writers("simulation", publish.arrow_table(comparison.columns())),
        "simulation.json": publish.json_writer({**comparison.as_dict(), "seconds": seconds}),
    }
    return publish.write_all_or_nothing(folder, writers)
