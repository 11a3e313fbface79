"""Own the second half of the page: who gave way, money, and what stands behind the plan.

FREE: one function per section.
"""

from collections.abc import Mapping

import numpy as np

from walras.config import CostSettings
from walras.planning.result import GroupUse, PlanResult, Search
from walras.report import formatting, html
from walras.report.formatting import reward_given_up
from walras.report.html import Html
from walras.report.style import figure, render_both_themes
from walras.report.summary import assumed_columns, stages, total_seconds
from walras.report.tables import measures, oracle_basis, reissues


def reduction_by_group(result: PlanResult) -> Html:
    """Show which groups use less, and which more, than they would without prices."""
    from walras.report import charts

    if not result.groups:
        return html.section("Who gave way", [html.paragraph("No groups were compared.")])
    intro = (
        f"Use of {formatting.resource_name(result.resources[0])} over the planned weeks under the plan, compared with no "
        "prices. Shadow prices make products with little margin per unit of the resource give way first. Demand "
        "buckets are tenths of the products, from those that sell least to those that sell most."
    )
    parts = [html.paragraph(intro)]
    for index, group in enumerate(result.groups):
        draw = render_both_themes(charts.reduction_chart, group)
        parts.append(figure(f"groups-{index}", draw, f"Change in use by {group.title}", _group_caption(group)))
    return html.section("Who gave way", parts)


def _group_caption(group: GroupUse) -> str:
    change = float(np.sum(group.planned) - np.sum(group.unconstrained))
    base = float(np.sum(group.unconstrained))
    share = f" ({formatting.signed(formatting.percent(change / base))})" if base > 0 else ""
    more = " The largest changes are shown, the rest is summed; groups.csv has all." if len(group.labels) > 12 else ""
    return f"By {group.title}: {formatting.signed(formatting.number(change))} units in all{share}.{more}"


def money(result: PlanResult) -> Html:
    """Show what the plan earns and costs."""
    from walras.report import charts

    amounts = result.money
    draw = render_both_themes(charts.money, result)
    caption = "* Without coordination the products would use more than there is: that reward cannot be had."
    parts = [figure("money", draw, "Reward and cost over the planned weeks", caption)]
    given_up = reward_given_up(result.money)
    if given_up:
        parts.append(
            html.paragraph(
                f"Staying within capacity costs {formatting.number(given_up[0])} of reward ({given_up[1]}). Reward is sales "
                "less purchases, with the stock and open orders left at the end valued at cost."
            )
        )
    if not formatting.is_missing(amounts.get("price_payments")):
        parts.append(
            html.paragraph(
                f"Shadow prices times use add up to {formatting.number(amounts['price_payments'])}. That is a signal inside "
                "the plan, not a payment, and is not part of the amounts above.",
                "note",
            )
        )
    return html.section("Money", parts)


def verification(result: PlanResult) -> Html:
    """Say how the finished plan was tested and what came out."""
    both = reissues(result)
    rows = [_measure_row(result, name, both) for name in measures(result)]
    headings = (
        ("Measure", ""),
        ("Re-issued weekly" if both else "Planned prices", "n"),
        ("95 % interval", "n x"),
        *([("Fixed prices", "n")] if both else []),
        ("What it means", "x"),
    )
    note = (
        "Low overrun alone proves little, since a high enough price stops all orders: read it together with reward "
        "kept and idle capacity."
    )
    parts = [html.paragraph(_tested(result, both)), html.table(headings, rows), html.paragraph(note)]
    return html.section("How this was verified", parts)


def _tested(result: PlanResult, both: bool) -> str:
    scenarios, paths = result.counts.get("scenarios"), result.counts.get("paths")
    how = (
        ": once with the prices re-issued every week from what had happened so far, and once with the planned prices "
        "kept as they are. Real operation lies nearer to the first, if prices are computed again every week."
        if both
        else ", with the planned prices kept as they are."
    )
    return (
        f"The plan was made on {_count(scenarios, 'scenario')} of demand and then simulated for every product on "
        f"{_count(paths, 'other path')}, or futures, that the planner had not seen{how}"
    )


def _measure_row(result: PlanResult, name: str, both: bool) -> tuple[str, ...]:
    basis = oracle_basis(result) if name == "reward_kept" else ""
    return (
        formatting.title_of(name),
        formatting.measure(name, result.verified[name]),
        formatting.interval(name, result.intervals.get(name)),
        *([formatting.measure(name, result.verified_fixed.get(name))] if both else []),
        formatting.MEASURES[name][1] + (f"; computed {basis}" if basis else ""),
    )


def _count(count: int | None, noun: str) -> str:
    return f"several {noun}s" if count is None else formatting.plural(int(count), noun)


def data_sources(result: PlanResult) -> Html:
    """Say which numbers are real and which are assumed."""
    rows = [(name, _origin_tag(text), _origin_text(text)) for name, text in result.provenance.items()]
    rows.sort(key=lambda row: ("assumed" not in row[1], row[0]))
    if result.search.interface == "learned":
        rows.insert(0, ("use at given prices", *_asked(result.search)))
    listed = html.table((("Column", "d"), ("Origin", ""), ("Where its numbers come from", "")), rows, safe=(1,))
    leads = [html.paragraph(lead) for lead in _origin_leads(result)]
    return html.section("What is real and what is assumed", [*leads, *([listed] if rows else [])])


def _asked(search: Search) -> tuple[Html, str]:
    """Say which maps were asked what products use at given prices, and whether they had learned it."""
    found = "; ".join(search.outside_training)
    text = f"learned maps ({search.maps}), corrected and judged by simulating {_who(search)}"
    text += f"; outside of their training: {found}" if found else ""
    return html.tag("outside training" if found else "learned", "assumed" if found else "derived"), text


def _who(search: Search) -> str:
    """Say who was simulated while a plan was searched, and how often."""
    if not search.cohort:
        return f"every product {formatting.plural(search.simulations, 'time')}"
    others = search.simulations - search.everybody
    return (
        f"a cohort of {search.cohort} products {formatting.plural(others, 'time')} and every product "
        f"{formatting.plural(search.everybody, 'time')}"
    )


def _origin_leads(result: PlanResult) -> list[str]:
    """Say in words how much of the input is real; nothing is called real that is not stated to be."""
    kinds = {name: _origin_kind(text) for name, text in result.provenance.items()}
    leads = _assumed_costs(result)
    made_up = [name for name, kind in kinds.items() if kind == "made up"]
    if made_up:
        leads.append(
            f"This plan is about made-up products: {formatting.listing(made_up, 12)} were generated, not measured."
        )
    assumed = assumed_columns(result)
    if assumed:
        leads.append(
            f"{len(assumed)} of {formatting.plural(len(kinds), 'column')} {'is' if len(assumed) == 1 else 'are'} assumed, "
            f"not measured: {formatting.listing(assumed, 12)}. The amounts of money, the prices and who gives way depend on "
            "them; give the real columns to replace them."
        )
    partly = [name for name, kind in kinds.items() if kind == "partly assumed"]
    if partly:
        leads.append(f"Assumed for some of the products: {formatting.listing(partly, 12)}.")
    if not kinds:
        leads.append("The input did not say where its numbers come from.")
    return leads or ["Nothing was assumed: every column used was given or computed from given ones."]


def _assumed_costs(result: PlanResult) -> list[str]:
    """Say where regular capacity and the rates were not given, so that the plan stands on assumed ones."""
    costs, plan = result.settings.get("costs"), result.settings.get("plan")
    if not isinstance(costs, Mapping) or "regular_capacity" not in costs:
        return []
    own = costs.get("resource") or {}
    free = [name for name in result.resources if {**costs, **own.get(name, {})}["regular_capacity"] is None]
    leads = []
    if free:
        share = plan.get("regular_share") if isinstance(plan, Mapping) else None
        size = "a share of the" if share is None else f"{formatting.number(share)} ×"
        leads.append(
            f"Regular capacity ({formatting.listing(map(formatting.resource_name, free))}): assumed {size} mean expected use "
            "without prices. What is bought, when capacity is tight and every price depend on it; give the real one as "
            "regular_capacity."
        )
    usual = CostSettings().model_dump()
    rates = [name for name in usual if name.endswith("_rate") or name.startswith("ramp_")]
    if costs.get("rates") == "margin" and all(costs.get(name) == usual[name] for name in rates):
        listed = formatting.listing(
            (f"{name.removesuffix('_rate').replace('_', ' ')} {usual[name]:g}" for name in rates), len(rates)
        )
        leads.append(f"Rates of capacity: assumed, shares of the median unit margin ({listed}).")
    return leads


_ORIGIN_COLOURS = {"your data": "given", "computed": "derived"}


def _origin_kind(origin: str) -> str:
    if origin.startswith("generated"):
        return "made up"
    if origin.startswith("assumed"):
        return "assumed"
    if origin.startswith("given"):
        return "partly assumed" if "assumed" in origin else "your data"
    return "computed"


def _origin_tag(origin: str) -> Html:
    kind = _origin_kind(origin)
    return html.tag(kind, _ORIGIN_COLOURS.get(kind, "assumed"))


def _origin_text(origin: str) -> str:
    for word in ("assumed", "given"):
        if origin.startswith(word):
            rest = origin[len(word) :].lstrip(" :,;").strip()
            return rest or ("as in the table" if word == "given" else "no distribution stated")
    return origin


def limits(result: PlanResult) -> Html:
    """List what was dropped, filled or could not be estimated."""
    notes = [formatting.fix_plurals(note) for note in result.notes] or [
        "Nothing was dropped or filled while reading the data."
    ]
    return html.section("Notes and limits", [html.bullets(notes)])


def run_info(result: PlanResult) -> Html:
    """Say how the plan was found: loop, counts, settings, time."""
    from walras.report import charts

    record = result.record
    state = "settled" if record.converged else "did not settle"
    reason = record.stop_reason.strip().rstrip(".")
    intro = (
        f"The planning loop {state} after {formatting.plural(int(record.iterations), 'revision')} and "
        f"{_queries(result)}. It stopped because: {reason}. "
        f"All of it took {formatting.number(total_seconds(result))} seconds."
    )
    parts = [html.paragraph(intro)]
    if charts.residuals(record.trace):
        caption = "How far the loop was from done after each revision (powers of ten; falling is good)."
        draw = render_both_themes(charts.convergence, result)
        parts.append(figure("loop", draw, "Convergence of the planning loop", caption))
    stages_shown = [(name.replace("_", " "), formatting.number(value)) for name, value in stages(result).items()]
    stages_shown.append(("total", formatting.number(total_seconds(result))))
    rest = {name: value for name, value in result.verified.items() if name not in formatting.MEASURES}
    behind = [(formatting.title_of(name), formatting.number(value)) for name, value in rest.items()]
    counts = [(name.replace("_", " "), f"{int(value):,}") for name, value in result.counts.items()]
    settings = formatting.flat(result.settings, absent=formatting.NOT_GIVEN)
    parts += [
        html.folded("Settings", [html.table((("Setting", ""), ("Value", "")), settings)]),
        html.folded("Counts", [html.table((("What", ""), ("How many", "n")), counts)]),
        html.folded("Numbers behind the measures", [html.table((("What", ""), ("How many", "n")), behind)]),
        html.folded("Time by stage", [html.table((("Stage", ""), ("Seconds", "n")), stages_shown)]),
    ]
    return html.section("How the plan was made", parts)


def _queries(result: PlanResult) -> str:
    """Count what was asked."""
    search, queries = result.search, int(result.record.queries)
    on = f" of {_who(search)}" if search.cohort else ""
    if search.interface != "learned":
        return formatting.plural(queries, "simulated query", "simulated queries") + on
    asked = formatting.plural(queries, "query", "queries")
    return f"{asked} to learned maps, corrected by {formatting.plural(search.simulations, 'simulation')}{on}"


def glossary(result: PlanResult) -> Html:
    """Explain the words that this page uses."""
    entries = [entry for entry in formatting.GLOSSARY if entry != formatting.RE_ISSUED or reissues(result)]
    return html.section("Words", [html.terms(entries)])
