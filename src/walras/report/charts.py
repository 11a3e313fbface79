"""Charts of plans and simulations: demand, lost sales, capacity and use, shadow prices, change by group."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from walras.planning.result import PlanResult, PriceComparison
from walras.planning.service import GroupUse
from walras.report import formatting, style
from walras.report.style import FigureSize, Label, last_of
from walras.report.summary import exceeds, price_basis, reissues, verdicts

BOUGHT_FROM = 1e-6
"""Share of regular capacity above which capacity counts as bought."""

MOST_GROUPS = 12
"""Groups with a bar of their own; the rest are summed into one."""

BAR = 0.25
"""Height of one bar [inch]."""

DASHED, DOTTED = (0, (4, 1.5)), (0, (1, 1))


def steps(axes: Axes, edges: np.ndarray, values: np.ndarray, **look: Any) -> Any:
    """Draw one level per week."""
    return axes.stairs(np.asarray(values, dtype=float), edges, baseline=None, **look)


def line(axes: Axes, edges: np.ndarray, values: np.ndarray, text: str, color: str, **look: Any) -> Label:
    """Draw one level per week, labelled at its end."""
    return Label(steps(axes, edges, values, color=color, **look), text, last_of(values), color)


def band(axes: Axes, edges: np.ndarray, low: np.ndarray, high: np.ndarray, **look: Any) -> Any:
    """Fill between two levels per week."""
    low, high = (np.append(part, part[-1:]).astype(float) for part in (low, high))
    return axes.fill_between(edges, low, high, step="post", linewidth=0, **look)


def demand_chart(result: PlanResult, size: FigureSize) -> Figure:
    """Draw past demand, the quantiles of future demand, and arrivals under the plan."""
    figure, axes = style.new_figure(size)
    past, coming = style.edges(result.history_weeks), style.edges(result.weeks)
    low, middle, high = result.demand
    arrivals = result.receipts[1]
    labels = []
    if len(past):
        labels.append(line(axes, past, result.history_demand, "Demand so far", style.CAPACITY, linewidth=1.3))
    fan = band(axes, coming, low, high, color=style.FORECAST, alpha=0.22)
    labels += [
        line(axes, coming, middle, "Demand expected\n(median)", style.FORECAST, linewidth=1.8),
        Label(fan, "9 of 10 futures", last_of(high), style.FORECAST),
        line(axes, coming, arrivals, "Arrivals under\nthe plan (median)", style.PLAN, linewidth=1.3, linestyle=DASHED),
    ]
    axes.set_ylim(0, style.top_of(result.history_demand, high, arrivals))
    axes.axvline(coming[0], color=style.QUIET, linewidth=0.8)
    _top_note(axes, coming[0], "plan starts ", "right", 8.0, style.QUIET)
    style.week_axis(axes, size, np.concatenate([result.history_weeks, result.weeks]))
    # History ends where the plan starts, so its label stands inside the figure, not at the right edge.
    if size.ends and len(past):
        _top_note(axes, past[0], "demand so far", "left", 8.5, style.CAPACITY)
        labels = labels[1:]
    return style.finish_axes(figure, axes, size, labels, "units per week")


def _top_note(axes: Axes, day: float, text: str, side: str, fontsize: float, colour: str) -> None:
    place = {"xy": (day, 1), "xycoords": ("data", "axes fraction")}
    axes.annotate(text, **place, ha=side, va="top", fontsize=fontsize, color=colour)  # type: ignore[arg-type]


def lost_sales_chart(result: PlanResult, size: FigureSize) -> Figure:
    """Draw demand that is lost by week, as a share of it, under the plan and without prices."""
    figure, axes = style.new_figure(size, size.height - 0.7)
    edges, service = style.edges(result.weeks), result.service
    planned, without = (100 * (1 - service.fill_rates(which)) for which in ("planned", "without"))
    axes.stairs(planned, edges, fill=True, color=style.FAILS, alpha=0.18, linewidth=0)
    labels = [
        line(axes, edges, planned, "Lost under\nthe plan", style.FAILS, linewidth=1.8),
        line(axes, edges, without, "Lost without\nprices", style.WITHOUT, linewidth=1.3, linestyle=DOTTED),
    ]
    axes.set_ylim(0, style.top_of(planned, without))
    style.week_axis(axes, size, result.weeks)
    return style.finish_axes(figure, axes, size, labels, "% of demand")


def capacity_chart(result: PlanResult, resource: int, size: FigureSize) -> Figure:
    """Draw one resource: planned and regular capacity, purchases, expected and verified use, committed use."""
    figure, axes = style.new_figure(size, size.height + 0.3)
    edges = style.edges(result.weeks)
    planned, regular = result.record.capacity[:, resource], result.regular_capacity[:, resource]
    low, middle, high = result.verified_utilization[:, :, resource]
    without, committed = result.unconstrained[1, :, resource], result.committed[:, resource]
    grey = band(axes, edges, np.zeros_like(committed), committed, color=style.COMMITTED, alpha=0.45)
    end, basis = last_of(planned), price_basis(result)
    dotted = line(axes, edges, without, "Use without prices\n(median)", style.WITHOUT, linewidth=1.3, linestyle=DOTTED)
    fan = band(axes, edges, low, high, color=style.PLAN, alpha=0.25)
    purchases = _purchases(axes, edges, regular, planned)
    median = line(axes, edges, middle, f"Median of futures,\n{basis}", style.PLAN, linewidth=1.8)
    look: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 2.6, "markeredgewidth": 0.9, "zorder": 4}
    middles, expected = (edges[:-1] + edges[1:]) / 2, result.record.utilization[:, resource]
    (dots,) = axes.plot(middles, expected, color=style.PLAN, markerfacecolor="white", **look)
    black = line(axes, edges, planned, "Capacity planned", style.CAPACITY, linewidth=2.0)
    axes.set_ylim(0, style.top_of(planned, regular, high, without, committed))
    labels = [
        *_failing_weeks(axes, result),
        dotted,
        black,
        *purchases,
        median,
        Label(fan, f"9 of 10 futures,\n{basis}", end, style.PLAN),
        Label(dots, "Expected at\nplanned prices", end, style.PLAN),
        Label(grey, "Already committed", end, style.QUIET),
    ]
    style.week_axis(axes, size, result.weeks)
    unit = f"{formatting.resource_name(result.resources[resource])} per week"
    return style.finish_axes(figure, axes, size, labels, unit, legend=True)


def _purchases(axes: Axes, edges: np.ndarray, regular: np.ndarray, planned: np.ndarray) -> list[Label]:
    labels = [line(axes, edges, regular, "Regular capacity", style.CAPACITY, linewidth=1.0, linestyle=(0, (5, 2)))]
    above = np.where(planned > regular * (1 + BOUGHT_FROM), planned, regular)
    if (above > regular).any():
        fill = band(axes, edges, regular, above, facecolor=style.BOUGHT, alpha=0.55, hatch="////", edgecolor="white")
        share = (above - regular).sum() / max(float(regular.sum()), 1e-9)
        text = f"Bought above it\n({formatting.percent(share)} of regular)"
        labels.append(Label(fill, text, float((above[-1] + regular[-1]) / 2), "#8A5A00"))
    return labels


def _failing_weeks(axes: Axes, result: PlanResult) -> list[Label]:
    """Mark the weeks that exceed capacity in a row above everything else."""
    bad = np.asarray([exceeds(verdict) for verdict in verdicts(result)])
    if not bad.any():
        return []
    days = style.edges(result.weeks)
    middles = ((days[:-1] + days[1:]) / 2)[bad]
    top = axes.get_ylim()[1]
    axes.set_ylim(0, 1.08 * top)
    height = np.full(len(middles), 1.04 * top)
    (marks,) = axes.plot(middles, height, linestyle="none", marker="v", markersize=6, color=style.FAILS, zorder=5)
    return [Label(marks, "Exceeds capacity\nby more than 1 %\non average", 1.06 * top, style.FAILS)]


def price_chart(result: PlanResult, resource: int, size: FigureSize) -> Figure:
    """Draw the price of a resource by week, planned and (if verified so) re-issued, beside the median margin."""
    figure, axes = style.new_figure(size, size.height - 0.5)
    edges = style.edges(result.weeks)
    planned, reissued = result.record.shadow_prices[:, resource], result.reissued_prices[:, resource]
    axes.stairs(planned, edges, fill=True, color=style.PLAN, alpha=0.18, linewidth=0)
    labels = [line(axes, edges, planned, "Price planned", style.PLAN, linewidth=1.8)]
    if reissues(result):
        text = "Price re-issued weekly\n(mean over futures)"
        labels.append(line(axes, edges, reissued, text, style.FAILS, linewidth=1.3, linestyle=DASHED))
    axes.set_ylim(0, style.top_of(planned, reissued))
    margin = result.money.get("price_scale")
    if resource == 0 and margin is not None and 0 < margin < 1.6 * axes.get_ylim()[1]:
        axes.set_ylim(0, max(axes.get_ylim()[1], 1.15 * margin))
        level = axes.axhline(margin, color=style.QUIET, linewidth=1.0, linestyle=(0, (1, 1.5)))
        labels.append(Label(level, "Median margin\nof one unit sold", float(margin), style.QUIET))
    style.week_axis(axes, size, result.weeks)
    unit = f"money per unit ({formatting.resource_name(result.resources[resource])})"
    return style.finish_axes(figure, axes, size, labels, unit)


def largest_groups(group: GroupUse) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return labels, use without prices and planned use of the groups that change most; the others are summed."""
    without, planned = (np.asarray(part, dtype=float) for part in (group.unconstrained, group.planned))
    labels = list(group.labels)
    if len(labels) <= MOST_GROUPS:
        return labels, without, planned
    largest = np.argsort(-np.abs(planned - without), kind="stable")
    keep, rest = largest[: MOST_GROUPS - 1], largest[MOST_GROUPS - 1 :]
    return (
        [*(labels[index] for index in keep), f"{len(rest)} others"],
        np.append(without[keep], without[rest].sum()),
        np.append(planned[keep], planned[rest].sum()),
    )


def reduction_chart(group: GroupUse, size: FigureSize) -> Figure:
    """Draw each group's change in use [percent]; a wide figure also writes the units."""
    labels, without, planned = largest_groups(group)
    change = planned - without
    share = np.divide(100 * change, without, out=np.zeros_like(without), where=without > 0)
    shares = zip(share, without, strict=True)
    texts = [formatting.signed(formatting.percent(part / 100)) if base > 0 else "no use" for part, base in shares]
    unit = "change in use, percent"
    if size.ends:
        amounts = [formatting.signed(formatting.short_number(amount)) for amount in change]
        texts = [f"{text}  ({amount})" for text, amount in zip(texts, amounts, strict=True)]
        unit += " (units over the planned weeks)"
    colours = [style.PLAN if amount <= 0 else style.BOUGHT for amount in change]
    return _bars(labels, share, texts, colours, size, unit)


def _bars(
    labels: Sequence[str], values: np.ndarray, texts: Sequence[str], colours: list[str], size: FigureSize, unit: str
) -> Figure:
    """Draw horizontal bars, with names at the left and values at their ends."""
    height = style.TOP + 0.12 + BAR * max(len(labels), 1)
    figure, axes = style.new_figure(size, height)
    places = np.arange(len(labels))[::-1]
    axes.barh(places, values, height=0.66, color=colours)
    axes.axvline(0, color=style.QUIET, linewidth=0.8)
    names = [_cut(label, size.letters) for label in labels]
    axes.set_yticks(places, names, fontsize=8.5)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.grid(False)
    axes.set_ylim(-0.6, max(len(labels), 1) - 0.4)
    left = 0.15 + max((style.width_of(name, 8.5) for name in names), default=0.0)
    figure.subplots_adjust(
        left=left / size.width, right=1 - style.RIGHT / size.width, top=1 - style.TOP / height, bottom=0.06 / height
    )
    figure.text(0.01, 1 - 0.06 / height, unit, ha="left", va="top", color=style.QUIET)
    _widen_for(axes, values, texts, size.width - left - style.RIGHT)
    for place, value, text in zip(places, values, texts, strict=True):
        offset, side = (4, "left") if value >= 0 else (-4, "right")
        end = {"xy": (value, place), "xytext": (offset, 0), "textcoords": "offset points"}
        axes.annotate(text, **end, va="center", ha=side, fontsize=8.5)  # type: ignore[arg-type]
    return figure


def _widen_for(axes: Axes, values: np.ndarray, texts: Sequence[str], inches: float) -> None:
    """Widen the axis so that the texts at the bars' ends stay inside."""
    room = min(max((style.width_of(text, 8.5) for text in texts), default=0.0) + 0.12, 0.7 * inches)
    low, high = min(float(values.min(initial=0)), 0.0), max(float(values.max(initial=0)), 0.0)
    before, after = (room if low < 0 else 0.02), (room if high > 0 or low == 0 else 0.02)
    scale = ((high - low) or 1.0) / max(inches - before - after, 0.2 * inches)
    axes.set_xlim(low - scale * before, high + scale * after)


def _cut(label: str, letters: int) -> str:
    """Shorten a name, and escape dollar signs, which would start a formula."""
    short = label if len(label) <= letters else label[: letters - 1].rstrip() + "…"
    return short.replace("$", r"\$")


def use_chart(comparison: PriceComparison, resource: int, size: FigureSize) -> Figure:
    """Draw the quantiles of a resource's simulated use with prices, and the median without prices."""
    figure, axes = style.new_figure(size)
    edges = style.edges(comparison.weeks)
    low, middle, high = comparison.utilization[:, :, resource]
    free = comparison.unconstrained[1, :, resource]
    fan = band(axes, edges, low, high, color=style.PLAN, alpha=0.2)
    labels = [
        line(axes, edges, middle, "Use (median)", style.PLAN, linewidth=1.8),
        Label(fan, "9 of 10 futures", last_of(high), style.PLAN),
    ]
    if comparison.shadow_prices.any():
        text = "Without prices\n(median)"
        labels.append(line(axes, edges, free, text, style.WITHOUT, linewidth=1.3, linestyle=DOTTED))
    axes.set_ylim(0, style.top_of(high, free))
    style.week_axis(axes, size, comparison.weeks)
    return style.finish_axes(figure, axes, size, labels, f"{comparison.resources[resource]} per week")


def charged_price_chart(comparison: PriceComparison, resource: int, size: FigureSize) -> Figure:
    """Draw the prices that a simulation charged for a resource."""
    figure, axes = style.new_figure(size)
    prices = np.asarray(comparison.shadow_prices[:, resource])
    labels = [line(axes, style.edges(comparison.weeks), prices, "Shadow price", style.PLAN, linewidth=1.8)]
    axes.set_ylim(0, style.top_of(prices))
    style.week_axis(axes, size, comparison.weeks)
    return style.finish_axes(figure, axes, size, labels, f"money per unit of {comparison.resources[resource]}")
