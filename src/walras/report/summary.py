"""Summaries of a plan: verdicts, tables by week and group, origins, `report.json`, and the terminal's summary.

CONTRACT: other programs read the keys of `plan_summary` and the columns of the tables; new ones are added at the end.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from walras.config import CostSettings
from walras.errors import plural
from walras.planning.exceptions import PlanException
from walras.planning.result import PlanResult, Search, quantile_names
from walras.report import formatting
from walras.report.formatting import listing, number, percent, resource_name, sentence
from walras.report.publish import jsonable

MOST_CONSOLE_ROWS, MOST_CONSOLE_EXCEPTIONS = 30, 5
MOST_DATES = 4
"""Weeks that a headline names; more are listed below it."""

FITS, NOT_JUDGED, CLOSED = "fits", "not judged", "closed"
VIOLATION_TARGET = 0.03
"""Near-limit mean violation that a finished plan should not exceed (3 %)."""


def verdicts(result: PlanResult) -> list[str]:
    """Return one verdict per week, "not judged" where there is none."""
    missing = len(result.weeks) - len(result.week_verdicts)
    return [*result.week_verdicts[: len(result.weeks)], *[NOT_JUDGED] * missing]


def exceeds(verdict: str) -> bool:
    """Return whether a week's verdict means that utilization exceeds capacity in it."""
    return not (verdict.startswith(FITS) or verdict in (NOT_JUDGED, CLOSED))


def reissues(result: PlanResult) -> bool:
    """Return whether the plan was verified with prices re-issued weekly, besides the planned ones fixed."""
    plan = result.settings.get("plan")
    return not isinstance(plan, Mapping) or plan.get("reissue", True) is not False


def price_basis(result: PlanResult) -> str:
    """Name the prices that the main verification charged."""
    return "prices re-issued" if reissues(result) else "planned prices"


def level(result: PlanResult) -> str:
    """Grade the plan: "good", "fair" if it fits on average but overruns are above the target, or "bad"."""
    if not result.record.feasible:
        return "bad"
    near = result.verified.get("near_limit_mean_violation")
    return "good" if near is None or formatting.is_missing(near) or near <= VIOLATION_TARGET else "fair"


def measure_rows(result: PlanResult) -> list[tuple[str, str, list[str]]]:
    """List the shown measures: name, basis, and cells with title, value, interval and value at fixed prices."""
    # Hardly constrained paths inflate the mean of ratios, so the ratio is shown only beside the pooled one.
    pooled = not formatting.is_missing(result.verified.get("pooled_regret_ratio"))
    hidden = [] if pooled else ["regret_ratio", "pooled_regret_ratio"]
    hidden += ["reward_kept"] if formatting.is_missing(result.verified.get("reward_kept")) else []
    rows = []
    for name in (name for name in formatting.MEASURES if name in result.verified and name not in hidden):
        fixed = [formatting.measure(name, result.verified_fixed.get(name))] if reissues(result) else []
        span = formatting.interval(name, result.intervals.get(name))
        cells = [formatting.title_of(name), formatting.measure(name, result.verified[name]), span, *fixed]
        rows.append((name, oracle_basis(result) if name == "reward_kept" else "", cells))
    return rows


def oracle_basis(result: PlanResult) -> str:
    """Say on how many futures the oracle with hindsight was computed; empty where that is unknown."""
    count = result.verified.get("oracle_paths")
    if count is None or formatting.is_missing(count) or "reward_kept" not in result.verified:
        return ""
    of = f" of {int(result.counts['paths']):,}" if "paths" in result.counts else ""
    return f"on {int(count):,}{of} futures"


def cost_sentences(result: PlanResult) -> list[str]:
    """Say first what the plan costs, and what is lost with and without it."""
    service, money, sentences = result.service, result.money, []
    if not formatting.is_missing(money.get("plan_cost")):
        paid, lost = money["acquisition_cost"], money["margin_lost"]
        how = f"{number(lost)} of margin on sales that it loses" if lost > 0 else "no margin on lost sales"
        sentences.append(f"The plan costs {number(money['plan_cost'])}: {number(paid)} for capacity and {how}.")
    served, free = service.fill_rate(), service.fill_rate("without")
    worst = int(np.argmin(service.fill_rates()))
    sentences.append(
        f"It serves {percent(served)} of demand ({percent(free)} without prices, which takes more capacity where it "
        f"binds): {number(service.total('lost_planned'))} units are lost instead of "
        f"{number(service.total('lost_without'))}, most in the week of {formatting.day_month(result.weeks[worst])} "
        f"({percent(1 - service.fill_rates()[worst], 0)})."
    )
    return sentences


def exception_rows(result: PlanResult) -> list[tuple[str, str, str, str]]:
    """Return where each exception is, what is the matter, what to do, and the money at stake."""

    def place(exception: PlanException) -> str:
        where = [formatting.day_month(np.datetime64(exception.week))] if exception.week else []
        several = exception.resource and len(result.resources) > 1
        parts = [*where, resource_name(exception.resource) if several else "", exception.product]
        return ", ".join(part for part in parts if part) or "All weeks"

    return [(place(e), sentence(e.words), sentence(e.action), number(e.money)) for e in result.exceptions]


def written_price(result: PlanResult, week: int, resource: int) -> str:
    """Write the price of a week; a dash where earlier orders fill it, so that no price helps."""
    prices = result.record.shadow_prices[:, resource]
    place = str(result.weeks[week]), result.resources[resource]
    if any(known.price is None and (known.week, known.resource) == place for known in result.price_ranges):
        return "–"
    return formatting.price(prices[week], float(np.nanmax(prices, initial=0.0)))


def price_range_rows(result: PlanResult) -> list[tuple[str, ...]]:
    """Return for every week that binds its price, the simulated worth of more capacity, and what binds next."""
    highest = max((known.price or 0.0 for known in result.price_ranges), default=0.0)
    rows = []
    for known in result.price_ranges:
        where = formatting.day_month(np.datetime64(known.week))
        where += f", {resource_name(known.resource)}" if len(result.resources) > 1 else ""
        if known.price is None or known.worth is None:
            text = f"no price helps: {number(known.committed)} already committed"
            rows.append((where, number(known.capacity), "", *[""] * 4, text))
            continue
        shown = formatting.price(known.price, highest) + (" (ceiling)" if known.kind == "ceiling" else "")
        gains = [known.worth.get(size, np.nan) for size in ("+5 %", "+10 %", "+20 %")]
        worth = ["" if np.isnan(gain) else number(gain) if gain > 0 else "none" for gain in gains]
        holds = "over 20 % more" if known.holds_up_to is None else f"{number(known.holds_up_to)} more"
        day, rest = known.binds_next[:10], known.binds_next[10:]
        following = formatting.day_month(np.datetime64(day)) + rest if day else "none"
        per_unit = formatting.price(known.per_unit, highest) if (known.per_unit or 0.0) > 0 else "none"
        rows.append((where, number(known.capacity), shown, *worth, per_unit, f"{holds}; then {following}"))
    return rows


def headline(result: PlanResult) -> str:
    """Say in one line whether the plan fits."""
    bad = [
        formatting.day_month(week)
        for week, verdict in zip(result.weeks, verdicts(result), strict=True)
        if exceeds(verdict)
    ]
    span = plural(len(result.weeks), "week")
    when = f": {listing(bad)}" if len(bad) <= MOST_DATES else ""
    verb = "exceeds" if len(bad) == 1 else "exceed"
    over = f"{len(bad)} of {span} {verb} capacity noticeably (by more than 1\u00a0% on average){when}."
    target = formatting.percent(VIOLATION_TARGET, 0)
    grade = level(result)
    if grade == "bad":
        start, rest = "Not feasible: ", "expected use is above capacity in some week."
    elif grade == "fair":
        start, rest = f"Fits on average, but overruns are larger than {target}: ", "no single week stands out."
    else:
        start = f"Feasible: overruns stay within {target} on average; " if bad else "Feasible: "
        rest = f"the plan fits capacity in all {span}."
    return start + (over if bad else rest)


def shown_verdict(result: PlanResult) -> list[str]:
    """Return the verdict in sentences, and a warning if learned maps were used outside their training."""
    sentences = [formatting.sentence(text) for text in result.verdict]
    reasons = "; ".join(result.search.outside_training)
    return sentences + ([f"The learned maps were used outside of their training: {reasons}."] if reasons else [])


def group_table(result: PlanResult) -> dict[str, np.ndarray]:
    """Return mean use and its change by group as columns [first resource, whole horizon]; no use has no share."""
    groups = result.groups
    without, planned = _of_groups(result, "unconstrained"), _of_groups(result, "planned")
    return {
        "grouping": np.asarray([group.title for group in groups for _ in group.labels], dtype=str),
        "group": np.asarray([label for group in groups for label in group.labels], dtype=str),
        "unconstrained": without,
        "planned": planned,
        "change": planned - without,
        "change_share": np.divide(planned - without, without, out=np.full_like(without, np.nan), where=without > 0),
        **{name: _of_groups(result, name) for name in ("demand", "lost_without", "lost_planned")},
        **{f"margin_lost_{which}": _of_groups(result, f"margin_{which}") for which in ("without", "planned")},
    }


def _of_groups(result: PlanResult, name: str) -> np.ndarray:
    return np.concatenate([np.asarray(getattr(group, name), float) for group in result.groups] or [np.zeros(0)])


def service_facts(result: PlanResult) -> dict[str, Any]:
    """Return `service` (fill rates) and `lost_sales` [units, and money of margin] in all, by week and by group."""
    service, table = result.service, group_table(result)
    kinds = ("without", "planned")
    groups = {name: table[name] for name in ("grouping", "group")}
    lost, demand = {which: table[f"lost_{which}"] for which in kinds}, np.maximum(table["demand"], 1e-9)
    return {
        "service": {
            "fill_rate": {which: service.fill_rate(which) for which in kinds},
            "weeks": {which: service.fill_rates(which) for which in kinds},
            "groups": groups | {which: 1 - lost[which] / demand for which in kinds},
            "demand": service.demand,
        },
        "lost_sales": {
            "units": {which: service.total(f"lost_{which}") for which in kinds},
            "margin": {which: service.total(f"margin_{which}") for which in kinds},
            "weeks": {
                "units": {which: getattr(service, f"lost_{which}") for which in kinds},
                "margin": {which: getattr(service, f"margin_{which}") for which in kinds},
            },
            "groups": groups | {"units": lost, "margin": {which: table[f"margin_lost_{which}"] for which in kinds}},
        },
    }


def assumed_columns(result: PlanResult) -> list[str]:
    """List the fields whose numbers were assumed, not given."""
    return sorted(name for name, origin in result.provenance.items() if origin.startswith("assumed"))


def stages(result: PlanResult) -> dict[str, float]:
    """Return the wall time by stage, each stage once [seconds]."""
    # Commands add `reading`, which contains the stage of that name.
    twice = {"reading"} if {"Reading the table", "Making up a population"} & set(result.seconds) else set()
    return {name: value for name, value in result.seconds.items() if name != "total" and name not in twice}


def total_seconds(result: PlanResult) -> float:
    """Return the total wall time [seconds]; without a `total` the stages are added."""
    return float(result.seconds.get("total", sum(stages(result).values())))


def plan_summary(result: PlanResult) -> dict[str, Any]:
    """Collect what programs read of a plan, ready for strict JSON; values by week are lists in the order of `weeks`."""
    record, search = result.record, result.search

    def by_resource(values: np.ndarray) -> dict[str, Any]:
        return {name: np.asarray(values)[:, index] for index, name in enumerate(result.resources)}

    def by_quantile(values: np.ndarray) -> dict[str, Any]:
        return {name: by_resource(values[index]) for index, name in enumerate(quantile_names())}

    summary = {
        "feasible": bool(record.feasible),
        "converged": bool(record.converged),
        "stop_reason": record.stop_reason,
        "verdict": result.verdict,
        "weeks": result.weeks,
        "resources": result.resources,
        "capacity": by_resource(record.capacity),
        "regular_capacity": by_resource(result.regular_capacity),
        "utilization": by_resource(record.utilization),
        "shadow_prices": by_resource(record.shadow_prices),
        "reissued_prices": by_resource(result.reissued_prices),
        "committed": by_resource(result.committed),
        "week_verdicts": result.week_verdicts,
        "iterations": int(record.iterations),
        "queries": int(record.queries),
        "simulations": int(search.simulations),
        "simulations_of_everybody": int(search.full_simulations),
        "cohort": int(search.cohort) or None,
        "interface": search.interface,
        "maps": search.maps or None,
        "map_errors": search.errors,
        "moved": result.moved,
        "outside_training": bool(search.outside_training),
        "outside_training_reasons": search.outside_training,
        "trace": record.trace,
        "unconstrained": by_quantile(result.unconstrained),
        "verified_utilization": by_quantile(result.verified_utilization),
        "fixed_utilization": by_quantile(result.fixed_utilization),
        "verified": result.verified,
        "verified_fixed": result.verified_fixed,
        "intervals": result.intervals,
        "forecast_score": result.forecast_score,
        "assumed_columns": assumed_columns(result),
        "provenance": result.provenance,
        "money": result.money,
        "counts": result.counts,
        "notes": result.notes,
        "policy": result.policy,
        "settings": result.settings,
        "seconds": total_seconds(result),
        "stages": stages(result),
        **service_facts(result),
        "price_ranges": [{**vars(known), "per_unit": known.per_unit} for known in result.price_ranges],
        "price_range_error": None if result.response is None else result.response.error,
        "exceptions": [vars(exception) for exception in result.exceptions],
        "gave_way": [vars(way) for way in result.gave_way],
    }
    return jsonable(summary)


TAG_COLOURS = {"your data": "given", "computed": "derived"}
"""CSS class of the tag of an origin; the others look like "assumed"."""


def data_sources(result: PlanResult) -> dict[str, Any]:
    """Say which numbers are real and which are assumed, in sentences and by column."""
    kinds = {name: _origin_kind(origin) for name, origin in result.provenance.items()}
    rows = [
        (name, kinds[name], TAG_COLOURS.get(kinds[name], "assumed"), _origin_text(origin))
        for name, origin in result.provenance.items()
    ]
    rows.sort(key=lambda row: (row[2] != "assumed", row[0]))
    search = result.search
    if search.interface == "learned":
        reasons = "; ".join(search.outside_training)
        text = f"learned maps ({search.maps}), corrected and checked by simulating {simulated_products(search)}"
        text += f"; outside of their training: {reasons}" if reasons else ""
        kind, colour = ("outside training", "assumed") if reasons else ("learned", "derived")
        rows.insert(0, ("use at given prices", kind, colour, text))
    return {"sentences": [*_assumed_costs(result), *_origin_sentences(result, kinds)], "rows": rows}


def _origin_sentences(result: PlanResult, kinds: Mapping[str, str]) -> list[str]:
    """Say how much of the input is real; only what is stated to be given is called real."""
    if not kinds:
        return ["The input did not say where its numbers come from."]
    sentences = []
    if generated := [name for name, kind in kinds.items() if kind == "generated"]:
        sentences.append(f"This plan is about generated products: {listing(generated, 12)} were not measured.")
    if assumed := assumed_columns(result):
        sentences.append(
            f"{len(assumed)} of {plural(len(kinds), 'column')} {'is' if len(assumed) == 1 else 'are'} assumed, not "
            f"measured: {listing(assumed, 12)}. The amounts of money, the prices and which products use less depend on "
            "them; give the real columns to replace them."
        )
    if partly := [name for name, kind in kinds.items() if kind == "partly assumed"]:
        sentences.append(f"Assumed for some of the products: {listing(partly, 12)}.")
    if not sentences and not _assumed_costs(result):
        sentences.append("Nothing was assumed: every column used was given or computed from given ones.")
    return sentences


def _assumed_costs(result: PlanResult) -> list[str]:
    """Name regular capacity and rates that the plan assumes because they were not given."""
    costs, plan = result.settings.get("costs"), result.settings.get("plan")
    if not isinstance(costs, Mapping) or "regular_capacity" not in costs:
        return []
    by_resource = costs.get("resource") or {}
    free = [name for name in result.resources if {**costs, **by_resource.get(name, {})}["regular_capacity"] is None]
    sentences = []
    if free:
        share = plan.get("regular_share") if isinstance(plan, Mapping) else None
        size = "a share of the" if share is None else f"{number(share)} ×"
        sentences.append(
            f"Regular capacity ({listing(map(resource_name, free))}): assumed {size} mean expected use without prices. "
            "Purchases, tight weeks and every price depend on it; give the real one as regular_capacity."
        )
    defaults = CostSettings().model_dump()
    rates = [name for name in defaults if name.endswith("_rate") or name.startswith("ramp_")]
    if costs.get("rates") == "margin" and all(costs.get(name) == defaults[name] for name in rates):
        texts = [f"{name.removesuffix('_rate').replace('_', ' ')} {defaults[name]:g}" for name in rates]
        sentences.append(
            f"Rates of capacity: assumed, shares of the median unit margin ({listing(texts, len(texts))})."
        )
    return sentences


def _origin_kind(origin: str) -> str:
    for kind in ("generated", "assumed"):
        if origin.startswith(kind):
            return kind
    if origin.startswith("given"):
        return "partly assumed" if "assumed" in origin else "your data"
    return "computed"


def _origin_text(origin: str) -> str:
    for word, alone in (("assumed", "no distribution stated"), ("given", "as in the table")):
        if origin.startswith(word):
            return origin[len(word) :].lstrip(" :,;").strip() or alone
    return origin


def simulated_products(search: Search) -> str:
    """Say how often every product, or a cohort, was simulated during the search."""
    if not search.cohort:
        return f"every product {plural(search.simulations, 'time')}"
    others = plural(search.simulations - search.full_simulations, "time")
    return f"a cohort of {search.cohort} products {others} and every product {plural(search.full_simulations, 'time')}"


def console_summary(result: PlanResult) -> list[Text | Table]:
    """Show a plan in the terminal: what it costs, whether it fits, exceptions, and the weeks that need a look."""
    style = {"good": "bold green", "fair": "bold yellow", "bad": "bold red"}[level(result)]
    sentences = [Text(text) for text in shown_verdict(result)]
    if result.search.outside_training:
        sentences[-1].stylize("yellow")
    first = [Text(text, style="bold") for text in cost_sentences(result)]
    fits = Text(headline(result), style=style)
    return [*first, fits, *sentences, *_console_exceptions(result), *_console_weeks(result)]


def _console_exceptions(result: PlanResult) -> list[Text]:
    rows = exception_rows(result)[:MOST_CONSOLE_EXCEPTIONS]
    texts = [Text(f"  {money:>8}  {where}: {words} {action}") for where, words, action, money in rows]
    return [Text("Decide (money at stake first; report.html has more)", style="italic"), *texts] if texts else []


def _console_weeks(result: PlanResult) -> list[Text | Table]:
    columns, several = result.columns(), len(result.resources) > 1
    rows = list(range(len(columns["week"])))
    if len(rows) > MOST_CONSOLE_ROWS:
        rows = [row for row in rows if columns["shadow_price"][row] > 0 or exceeds(str(columns["verdict"][row]))]
    table = Table(title="Weeks", title_justify="left", box=None, pad_edge=False)
    for heading in ("week", *["resource"] * several):
        table.add_column(heading)
    for heading in ("capacity", "expected use", "price", "served"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for row in rows[:MOST_CONSOLE_ROWS]:
        verdict = str(columns["verdict"][row])
        table.add_row(
            str(columns["week"][row]),
            *([Text(str(columns["resource"][row]))] if several else []),
            *(number(columns[name][row]) for name in ("capacity", "utilization")),
            written_price(result, *divmod(row, len(result.resources))),
            percent(1 - columns["lost_planned"][row] / max(columns["demand"][row], 1e-9), 0),
            Text(verdict, style="red" if exceeds(verdict) else ""),
        )
    left_out = len(columns["week"]) - len(rows[:MOST_CONSOLE_ROWS])
    more = f"{plural(left_out, 'more row')} {'is' if left_out == 1 else 'are'} in plan.csv"
    return [table, *([Text(more, style="dim")] if left_out else [])]
