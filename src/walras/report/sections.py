"""Own the first half of the page: the answer, key figures, capacity, prices, weeks and demand.

FREE: one function per section.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from walras.planning.result import PlanResult
from walras.report import formatting, html
from walras.report.html import Html
from walras.report.style import figure, render_both_themes
from walras.report.tables import fails, headline, level, oracle_basis, price_basis, reissues, verdicts, warnings

MOST_LINES = 3
"""Weeks with the same reason that get a line each."""

NEGLIGIBLE_PRICE = 1e-3
"""Share of the largest price below which a price counts as zero in words."""

NEGLIGIBLE_PURCHASE = 1e-6
"""Share of regular capacity below which nothing counts as bought."""


def title(result: PlanResult) -> str:
    """Head the page with what is planned and when."""
    what = formatting.listing(map(formatting.resource_name, result.resources))
    return f"Capacity plan: {what}, {formatting.day(result.weeks[0])} to {formatting.day(result.weeks[-1] + 6)}"


def top(result: PlanResult) -> Html:
    """Answer first: does it fit, and if not, in which weeks and why."""
    counts = result.counts
    basis = [formatting.plural(len(result.weeks), "week") + " planned"]
    if "active" in counts or "agents" in counts:
        basis.append(_products(counts))
    if "history_weeks" in counts:
        basis.append(formatting.plural(int(counts["history_weeks"]), "week") + " of history")
    return html.joined(
        [
            Html(f"<h1>{formatting.escaped(title(result))}</h1>"),
            html.paragraph(" · ".join(basis), "quiet"),
            html.answer(
                [
                    headline(result),
                    *(
                        formatting.sentence(formatting.fix_plurals(text))
                        for text in (*result.verdict, *warnings(result))
                    ),
                ],
                failing_weeks(result),
                level(result),
            ),
        ]
    )


def _products(counts: Mapping[str, int]) -> str:
    """Say how many products are planned, of how many, and why the others are not."""
    planned, given = int(counts.get("active", counts.get("agents", 0))), int(counts.get("agents", 0))
    text = f"{formatting.plural(planned, 'product')} planned"
    if not counts.get("inactive"):
        return text
    idle = f"{int(counts['inactive']):,} sold nothing lately"
    return f"{text} (of {given:,}; {idle})" if given > planned else f"{text} ({idle})"


def failing_weeks(result: PlanResult) -> list[str]:
    """Name the weeks that exceed capacity noticeably, by reason; a reason with many weeks is told in one line."""
    reasons: dict[str, list[int]] = {}
    for week, verdict in enumerate(verdicts(result)):
        if fails(verdict):
            reasons.setdefault(re.sub(r"\d+", "…", verdict), []).append(week)
    lines: list[str] = []
    for weeks in reasons.values():
        each = [_failing_week(result, week) for week in weeks]
        lines.extend(each if len(each) <= MOST_LINES else [_failing_together(result, weeks)])
    return lines


def _failing_week(result: PlanResult, week: int) -> str:
    over = [text for index in range(len(result.resources)) if (text := _overrun(result, week, index))]
    return f"{formatting.day(result.weeks[week])}: {'; '.join([verdicts(result)[week], *over])}"


def _failing_together(result: PlanResult, weeks: Sequence[int]) -> str:
    """Tell in one line about weeks with the same reason: which, and the worst of them in the median."""
    judged = verdicts(result)
    used, granted = result.verified_utilization[1][list(weeks)], result.record.capacity[list(weeks)]
    worst = weeks[int(np.argmax((used / np.maximum(granted, 1e-12)).max(axis=1)))]
    figures = [int(found) for week in weeks for found in re.findall(r"\d+", judged[week])[:1]]
    reason = judged[weeks[0]]
    if figures:
        reason = re.sub(r"\d+", f"{min(figures)} to {max(figures)}", reason, count=1)
    days = formatting.listing((formatting.day_month(result.weeks[week]) for week in weeks), most=len(weeks))
    return f"{reason}, {len(weeks)} weeks: {days}. The most crowded in the median: {_failing_week(result, worst)}"


def _overrun(result: PlanResult, week: int, resource: int) -> str:
    granted = float(result.record.capacity[week, resource])
    used = float(result.verified_utilization[1, week, resource])
    if not (np.isfinite(used) and granted > 0 and used > granted):
        return ""
    committed = float(result.committed[week, resource])
    already = f", {formatting.number(committed)} already committed" if committed > granted else ""
    share = formatting.signed(formatting.percent(used / granted - 1))
    name = formatting.resource_name(result.resources[resource])
    return f"{formatting.number(used)} for {formatting.number(granted)} {name} ({share}{already})"


def key_figures(result: PlanResult) -> Html:
    """Show the figures that a planner asks for first, then what to buy and when prices bite."""
    entries = [_fits_tile(result), *(_measure_tile(result, name) for name in _TILES if name in result.verified)]
    if not formatting.is_missing(result.money.get("acquisition_cost")):
        small = "money, for capacity over the planned weeks"
        entries.append(("Cost of capacity", formatting.short_number(result.money["acquisition_cost"]), small, ""))
    given_up = formatting.reward_given_up(result.money)
    if given_up:
        small = "of reward: sales less purchases, against no coordination, which does not fit"
        entries.append(("Cost of staying within capacity", given_up[1], small, ""))
    entries += [_price_tile(result, index) for index in range(len(result.resources))]
    return html.joined([html.tiles(entries), html.bullets(recommendations(result))])


_TILES = ("near_limit_mean_violation", "near_limit_share", "reward_kept", "idle_capacity")
_TILE_WORDS = {
    "near_limit_mean_violation": "above capacity on average, weeks in which it is tight",
    "near_limit_share": "of weeks would use over 90 % of capacity without prices",
    "reward_kept": "of what the best prices with hindsight reach",
    "idle_capacity": "of capacity unused in short weeks: those whose use without prices exceeds capacity",
}


def _fits_tile(result: PlanResult) -> tuple[str, str, str, str]:
    judged = verdicts(result)
    good = sum(not fails(verdict) for verdict in judged)
    small = "the others are named above with the reason" if good < len(judged) else "of the planned weeks"
    return (
        "Weeks that fit",
        f"{good} of {len(judged)}",
        small,
        "good" if good == len(judged) else {"good": ""}.get(level(result), level(result)),
    )


def _measure_tile(result: PlanResult, name: str) -> tuple[str, str, str, str]:
    value = result.verified[name]
    span = formatting.interval(name, result.intervals.get(name))
    small = _TILE_WORDS[name] + (f"; 95 % interval {span}" if span else "")
    if name == "reward_kept" and (basis := oracle_basis(result)):
        small += f"; computed {basis}"
    kind = ""
    if name == "near_limit_mean_violation":
        if formatting.is_missing(value):
            small = "no week is near its limit"
        else:
            kind = "good" if float(value or 0) <= formatting.VIOLATION_TARGET else "fair"
            small += f"; {price_basis(result)}"
            small += f"; aim {formatting.percent(formatting.VIOLATION_TARGET, 0)} or less"
    return (formatting.title_of(name), formatting.measure(name, value), small, kind)


def _price_tile(result: PlanResult, resource: int) -> tuple[str, str, str, str]:
    prices = result.record.shadow_prices[:, resource]
    name = formatting.resource_name(result.resources[resource])
    if not np.nanmax(prices, initial=0.0) > 0:
        return (f"Highest shadow price, {name}", "0", "there is room in every week", "")
    week = int(np.nanargmax(prices))
    return (
        f"Highest shadow price, {name}",
        formatting.number(prices[week]),
        f"money per unit, week of {formatting.day_month(result.weeks[week])}",
        "",
    )


def recommendations(result: PlanResult) -> list[str]:
    """Say per resource what to buy above regular capacity and when the shadow price is not zero."""
    lines = []
    for index, name in enumerate(map(formatting.resource_name, result.resources)):
        prices = result.record.shadow_prices[:, index]
        priced = int((prices > NEGLIGIBLE_PRICE * max(float(np.nanmax(prices, initial=0.0)), 1e-300)).sum())
        tight = f"the shadow price is above zero in {priced} of {formatting.plural(len(prices), 'week')}"
        lines.append(f"For {name}, {_to_buy(result, index)}; {tight}.")
    return lines


def _to_buy(result: PlanResult, resource: int) -> str:
    planned, regular = result.record.capacity[:, resource], result.regular_capacity[:, resource]
    above = np.maximum(planned - regular, 0.0)
    weeks = int((above > NEGLIGIBLE_PURCHASE * regular).sum())
    if not weeks:
        return "regular capacity is enough and nothing is bought above it"
    most = int(np.argmax(above))
    share = f" (+{formatting.percent(above[most] / regular[most], 0)})" if regular[most] > 0 else ""
    return (
        f"the plan buys {formatting.number(above.sum())} above regular capacity in {formatting.plural(weeks, 'week')}, "
        f"most in the week of {formatting.day(result.weeks[most])}: {formatting.number(above[most])}{share}"
    )


def capacity(result: PlanResult) -> Html:
    """Show each resource's capacity against what is used."""
    from walras.report import charts

    caption = (
        "Each step is one week. Black: capacity planned, dashed: the regular one; the hatched part is bought above it. "
        f"Blue: use on futures that the planner did not see, {price_basis(result)}; circles: expected on the planning "
        "scenarios at planned prices, so they can lie outside the band. Purple: the median use if no prices were "
        "announced. Grey: use from orders that are already placed; prices cannot change it."
    )
    parts = [
        figure(
            f"capacity-{index}",
            render_both_themes(charts.capacity, result, index),
            f"Capacity and use of {name} by week",
            f"{name}. {caption}" if index == 0 else f"{name}.",
        )
        for index, name in enumerate(map(formatting.resource_name, result.resources))
    ]
    return html.section("Capacity and use", parts)


def prices(result: PlanResult) -> Html:
    """Show the shadow prices and say what they mean."""
    from walras.report import charts

    meaning = (
        "The shadow price of a week is what the products' ordering rules are told that one unit of the resource costs "
        "when it is used in that week. It is zero where there is room. It is also what one more unit of capacity in "
        "that week would be worth: buy more where that is cheaper than the price. No money changes hands."
    )
    parts = [html.paragraph(meaning)]
    for index, name in enumerate(map(formatting.resource_name, result.resources)):
        caption = f"{name}: shadow price by week [money per unit]."
        if index == 0 and reissues(result):
            caption += (
                " Solid: announced in full before the first week. Dashed: what was needed week by week from the real "
                "state, on average over the futures. The two differ because re-issued prices react to each future's "
                "shocks, which can take higher prices than a plan announced in full."
            )
        draw = render_both_themes(charts.shadow_prices, result, index)
        parts.append(figure(f"price-{index}", draw, f"Shadow price of {name} by week", caption))
    return html.section("Shadow prices", parts)


def week_list(result: PlanResult) -> Html:
    """List the weeks: capacity, use, price and verdict, one table per resource."""
    judged = verdicts(result)
    bad = [index for index, verdict in enumerate(judged) if fails(verdict)]
    parts = []
    for index, name in enumerate(map(formatting.resource_name, result.resources)):
        rows = [_week_row(result, week, index) for week in range(len(judged))]
        listed = html.table(_week_headings(result), rows, bad, safe=(0,))
        if len(result.resources) == 1:
            parts.append(listed)
        elif index == 0:
            parts += [html.heading(name), listed]
        else:
            parts.append(html.folded(f"{name}: list of weeks", [listed]))
    note = html.paragraph("Amounts in units of the resource.", "note")
    below = [html.paragraph(text, "note") for text in _week_notes(result)]
    return html.section("Week by week", [note, *parts, *below])


def _week_headings(result: PlanResult) -> tuple[tuple[str, str], ...]:
    return (
        ("Week of", "d"),
        ("Regular", "n x"),
        ("Capacity", "n"),
        ("Expected at planned prices", "n"),
        ("Expected / capacity", "n x"),
        (f"9 of 10 futures, {price_basis(result)}", "n x"),
        ("Shadow price", "n"),
        ("Verdict", ""),
    )


def _week_notes(result: PlanResult) -> list[str]:
    """Say what the columns and verdicts of the list of weeks stand on."""
    return [
        "Expected use is the mean over the scenarios that the plan was made on, with the planned prices kept; the "
        f"range holds 9 of 10 futures that the planner had not seen, with {price_basis(result)}. So the first can lie "
        "outside the second.",
        "A week “fits” if use is above capacity by at most 1\u00a0% of it, in the mean over these futures (a "
        "future within capacity counts as 0). “Over on 30\u00a0% of paths” counts the futures above by more.",
    ]


def _week_row(result: PlanResult, week: int, resource: int) -> list[str | Html]:
    granted, used = result.record.capacity[week, resource], result.record.utilization[week, resource]
    low, _, high = result.verified_utilization[:, week, resource]
    highest = float(np.nanmax(result.record.shadow_prices[:, resource], initial=0.0))
    return [
        Html(
            f'{formatting.day_month(result.weeks[week])}<span class="x"> {result.weeks[week].astype(object).year}</span>'
        ),
        formatting.number(result.regular_capacity[week, resource]),
        formatting.number(granted),
        formatting.number(used),
        formatting.percent(used / granted, 0) if granted > 0 else formatting.NOT_DEFINED,
        f"{formatting.number(low)} – {formatting.number(high)}",
        formatting.price(result.record.shadow_prices[week, resource], highest),
        verdicts(result)[week],
    ]


def demand(result: PlanResult) -> Html:
    """Show demand so far and to come, and how such forecasts did on weeks that were held out."""
    from walras.report import charts

    caption = (
        "Total demand of all products. The band holds 9 of 10 of the possible futures on which the plan was verified. "
        "Arrivals are what the products receive from their orders; they differ from demand where stock fills the gap, "
        "where prices hold orders back and where sales are lost."
    )
    draw = render_both_themes(charts.demand, result)
    parts = [figure("demand", draw, "Demand so far and expected", caption)]
    return html.section("Demand and arrivals", [*parts, html.heading("How such forecasts did before"), *_score(result)])


def _score(result: PlanResult) -> list[Html]:
    score = result.forecast_score
    if score.get("reason"):
        return [html.paragraph(f"How far to trust this forecast is unknown. {score['reason']}")]
    if not score:
        return [html.paragraph("The forecast was not scored on held-out weeks, so how far to trust it is unknown.")]
    known = {name for pair in _SCORES for name in pair[1:]} | set(_SCORE_WORDS)
    rows = [
        (
            label,
            formatting.signed(formatting.percent(score[ours])) if ours == "bias" else formatting.percent(score[ours]),
            formatting.percent(score.get(naive)) if naive in score else "",
        )
        for label, ours, naive in _SCORES
        if ours in score
    ]
    rest = [
        (name.replace("_", " "), value, "") for name, value in formatting.flat(score) if name.split(".")[0] not in known
    ]
    headings = (("On weeks that were held out", ""), ("This forecast", "n"), ("Naive forecast", "n"))
    return [html.paragraph(_score_sentence(score)), html.table(headings, [*rows, *rest])]


_SCORES = (
    ("Error of the weekly total, of mean demand", "aggregate_error", "naive_error"),
    ("The same, mean over several starting weeks", "rolling_error", "rolling_naive_error"),
    ("Too much (+) or too little (−) expected in all", "bias", ""),
    ("Weeks whose total fell inside the 90 % band (aim 90 %)", "coverage_90", ""),
    ("Weeks whose total fell inside the 80 % band (aim 80 %)", "coverage_80", ""),
    ("Error by product and week, of demand", "product_error", "naive_product_error"),
    ("Error by product over all these weeks, of demand", "product_total_error", "naive_product_total_error"),
    ("Error of the whole fan (CRPS), of mean demand", "crps", ""),
)
_SCORE_WORDS = ("reason", "holdout", "agents", "naive", "ratio_to_naive", "origins", "scored_weeks")


def _score_sentence(score: Mapping[str, Any]) -> str:
    weeks = (
        f"the last {formatting.plural(int(score['holdout']), 'week')}" if "holdout" in score else "the last known weeks"
    )
    naive = f" ({score['naive']})" if score.get("naive") else ""
    text = f"The same method was fitted without {weeks} and compared with what came, beside a naive forecast{naive}."
    ratio = score.get("ratio_to_naive")
    if formatting.is_missing(ratio):
        return text
    gain = 1 - float(ratio)  # type: ignore[arg-type]
    how = f"{formatting.percent(abs(gain), 0)} {'smaller' if gain >= 0 else 'larger'} than the naive one's"
    return f"{text} Its error of the weekly total was {how}."
