"""Own the pictures along the weeks: demand, capacity against use, shadow prices.

FREE: each takes a plan and a paper and returns a figure.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from walras.planning.result import GroupUse, PlanResult
from walras.report import formatting, style
from walras.report.style import FigureSize, Named
from walras.report.tables import fails, price_basis, reissues, verdicts

BOUGHT_FROM = 1e-6
"""Share of regular capacity above which capacity counts as bought."""


def steps(axes: Axes, edges: np.ndarray, values: np.ndarray, **look: object) -> object:
    """Draw one level per week."""
    return axes.stairs(np.asarray(values, dtype=float), edges, baseline=None, **look)  # type: ignore[arg-type]


def band(axes: Axes, edges: np.ndarray, low: np.ndarray, high: np.ndarray, **look: object) -> object:
    """Fill between two levels per week."""
    low, high = (np.append(part, part[-1:]).astype(float) for part in (low, high))
    return axes.fill_between(edges, low, high, step="post", linewidth=0, **look)  # type: ignore[arg-type]


def demand(result: PlanResult, paper: FigureSize) -> Figure:
    """Draw past demand, the fan of the coming weeks and what is expected to arrive under the plan."""
    figure, axes = style.new_figure(paper)
    past, coming = style.edges(result.history_weeks), style.edges(result.weeks)
    low, middle, high = result.demand
    named = []
    if len(past):
        drawn = steps(axes, past, result.history_demand, color=style.CAPACITY, linewidth=1.3)
        named.append(Named(drawn, "Demand so far", style.last_of(result.history_demand), style.CAPACITY))
    fan = band(axes, coming, low, high, color=style.FORECAST, alpha=0.22)
    line = steps(axes, coming, middle, color=style.FORECAST, linewidth=1.8)
    arrives = steps(axes, coming, result.receipts[1], color=style.PLAN, linewidth=1.3, linestyle=(0, (4, 1.5)))
    named += [
        Named(line, "Demand expected\n(median)", style.last_of(middle), style.FORECAST),
        Named(fan, "9 of 10 futures", style.last_of(high), style.FORECAST),
        Named(arrives, "Arrivals under\nthe plan (median)", style.last_of(result.receipts[1]), style.PLAN),
    ]
    axes.set_ylim(0, style.top_of(result.history_demand, high, result.receipts[1]))
    axes.axvline(coming[0], color=style.QUIET, linewidth=0.8)
    axes.annotate(
        "plan starts ",
        (coming[0], 1),
        xycoords=("data", "axes fraction"),
        ha="right",
        va="top",
        fontsize=8,
        color=style.QUIET,
    )
    style.week_axis(axes, paper, np.concatenate([result.history_weeks, result.weeks]))
    # History ends where the plan starts, so its name stands in the picture's key rather than at the right edge.
    if paper.ends and len(past):
        axes.annotate(
            "demand so far",
            (past[0], 1),
            xycoords=("data", "axes fraction"),
            ha="left",
            va="top",
            fontsize=8.5,
            color=style.CAPACITY,
        )
        named = named[1:]
    return style.finish_axes(figure, axes, paper, named, "units per week")


def capacity(result: PlanResult, resource: int, paper: FigureSize) -> Figure:
    """Draw one resource: capacity steps, what is bought, use expected and verified, and the committed part."""
    figure, axes = style.new_figure(paper, paper.height + 0.3)
    edges = style.edges(result.weeks)
    planned, regular = result.record.capacity[:, resource], result.regular_capacity[:, resource]
    low, middle, high = result.verified_utilization[:, :, resource]
    without, committed = result.unconstrained[1, :, resource], result.committed[:, resource]
    grey = band(axes, edges, np.zeros_like(committed), committed, color=style.COMMITTED, alpha=0.45)
    dotted = steps(axes, edges, without, color=style.WITHOUT, linewidth=1.3, linestyle=(0, (1, 1)))
    fan = band(axes, edges, low, high, color=style.PLAN, alpha=0.25)
    extra = _bought(axes, edges, regular, planned)
    line = steps(axes, edges, middle, color=style.PLAN, linewidth=1.8)
    dots = _expected(axes, edges, result.record.utilization[:, resource])
    black = steps(axes, edges, planned, color=style.CAPACITY, linewidth=2.0)
    axes.set_ylim(0, style.top_of(planned, regular, high, without, committed))
    end = style.last_of(planned)
    named = [
        *_failing(axes, result, resource),
        Named(dotted, "Use without prices\n(median)", end, style.WITHOUT),
        Named(black, "Capacity planned", end, style.CAPACITY),
        *extra,
        Named(line, f"Median of futures,\n{price_basis(result)}", end, style.PLAN),
        Named(fan, f"9 of 10 futures,\n{price_basis(result)}", end, style.PLAN),
        Named(dots, "Expected at\nplanned prices", end, style.PLAN),
        Named(grey, "Already committed", end, style.QUIET),
    ]
    style.week_axis(axes, paper, result.weeks)
    return style.finish_axes_with_legend(
        figure, axes, paper, named, f"{formatting.resource_name(result.resources[resource])} per week"
    )


def _bought(axes: Axes, edges: np.ndarray, regular: np.ndarray, planned: np.ndarray) -> list[Named]:
    line = steps(axes, edges, regular, color=style.CAPACITY, linewidth=1.0, linestyle=(0, (5, 2)))
    named = [Named(line, "Regular capacity", style.last_of(regular), style.CAPACITY)]
    above = np.where(planned > regular * (1 + BOUGHT_FROM), planned, regular)
    if (above > regular).any():
        fill = band(axes, edges, regular, above, facecolor=style.BOUGHT, alpha=0.55, hatch="////", edgecolor="white")
        share = (above - regular).sum() / max(float(regular.sum()), 1e-9)
        text = f"Bought above it\n({formatting.percent(share)} of regular)"
        named.append(Named(fill, text, float((above[-1] + regular[-1]) / 2), "#8A5A00"))
    return named


def _expected(axes: Axes, edges: np.ndarray, utilization: np.ndarray) -> object:
    middles = (edges[:-1] + edges[1:]) / 2
    (dots,) = axes.plot(
        middles,
        utilization,
        linestyle="none",
        marker="o",
        markersize=2.6,
        color=style.PLAN,
        markerfacecolor="white",
        markeredgewidth=0.9,
        zorder=4,
    )
    return dots


def _failing(axes: Axes, result: PlanResult, resource: int) -> list[Named]:
    """Mark the weeks that do not fit, in a row above everything else."""
    bad = np.asarray([fails(verdict) for verdict in verdicts(result)])
    if not bad.any():
        return []
    days = style.edges(result.weeks)
    middles = ((days[:-1] + days[1:]) / 2)[bad]
    top = axes.get_ylim()[1]
    axes.set_ylim(0, 1.08 * top)
    height = np.full(len(middles), 1.04 * top)
    (marks,) = axes.plot(middles, height, linestyle="none", marker="v", markersize=6, color=style.FAILS, zorder=5)
    return [Named(marks, "Exceeds capacity\nby more than 1 %\non average", 1.06 * top, style.FAILS)]


def shadow_prices(result: PlanResult, resource: int, paper: FigureSize) -> Figure:
    """Draw the price of a resource by week, as planned and as re-issued (if it was), beside the usual margin."""
    figure, axes = style.new_figure(paper, paper.height - 0.5)
    edges = style.edges(result.weeks)
    planned, reissued = result.record.shadow_prices[:, resource], result.reissued_prices[:, resource]
    axes.stairs(planned, edges, fill=True, color=style.PLAN, alpha=0.18, linewidth=0)
    named = [
        Named(
            steps(axes, edges, planned, color=style.PLAN, linewidth=1.8),
            "Price planned",
            style.last_of(planned),
            style.PLAN,
        ),
    ]
    if reissues(result):
        line = steps(axes, edges, reissued, color=style.FAILS, linewidth=1.3, linestyle=(0, (4, 1.5)))
        named.append(Named(line, "Price re-issued weekly\n(mean over futures)", style.last_of(reissued), style.FAILS))
    axes.set_ylim(0, style.top_of(planned, reissued))
    margin = result.money.get("price_scale")
    if resource == 0 and margin is not None and 0 < margin < 1.6 * axes.get_ylim()[1]:
        axes.set_ylim(0, max(axes.get_ylim()[1], 1.15 * margin))
        line = axes.axhline(margin, color=style.QUIET, linewidth=1.0, linestyle=(0, (1, 1.5)))
        named.append(Named(line, "Median margin\nof one unit sold", float(margin), style.QUIET))
    style.week_axis(axes, paper, result.weeks)
    return style.finish_axes(
        figure, axes, paper, named, f"money per unit ({formatting.resource_name(result.resources[resource])})"
    )


MOST_GROUPS = 12
"""Groups that keep a bar of their own; the rest are summed into one."""

BAR = 0.25
"""Height that one bar needs [inch]."""

RESIDUAL_WORDS = ("feasibility", "complementarity", "gap", "residual", "violation")
"""A column of the loop's trace with one of these in its name falls while the loop settles."""


def folded(group: GroupUse) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Keep the groups with the largest change, in their order, and sum the others.

    Returns:
        Labels, use without prices and use under the plan.
    """
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


def reduction_chart(group: GroupUse, paper: FigureSize) -> Figure:
    """Draw each group's change in use, in percent; a wide paper has room for the units beside it."""
    labels, without, planned = folded(group)
    change = planned - without
    share = np.divide(100 * change, without, out=np.zeros_like(without), where=without > 0)
    shares = zip(share, without, strict=True)
    texts = [formatting.signed(formatting.percent(part / 100)) if base > 0 else "no use" for part, base in shares]
    unit = "change in use, percent"
    if paper.ends:
        amounts = [formatting.signed(formatting.short_number(amount)) for amount in change]
        texts = [f"{text}  ({amount})" for text, amount in zip(texts, amounts, strict=True)]
        unit += " (units over the planned weeks)"
    colours = [style.PLAN if amount <= 0 else style.BOUGHT for amount in change]
    return _bars(labels, share, texts, colours, paper, unit)


def money(result: PlanResult, paper: FigureSize) -> Figure:
    """Draw reward with and without coordination, what capacity costs, and what remains."""
    entries = (
        ("reward_unconstrained", "Reward, no coordination*", style.COMMITTED),
        ("reward_plan", "Reward under the plan", style.PLAN),
        ("acquisition_cost", "Cost of capacity", style.BOUGHT),
        ("net", "Reward less capacity", style.CAPACITY),
    )
    amounts = {**result.money}
    if "total_cost" in amounts:
        amounts["net"] = -amounts["total_cost"]
    shown = [entry for entry in entries if not formatting.is_missing(amounts.get(entry[0]))]
    values = np.asarray([amounts[name] for name, _, _ in shown], dtype=float)
    return _bars(
        [label for _, label, _ in shown],
        values,
        [formatting.short_number(value) for value in values],
        [colour for _, _, colour in shown],
        paper,
        "money over the planned weeks",
    )


def _bars(
    labels: Sequence[str],
    values: np.ndarray,
    texts: Sequence[str],
    colours: Sequence[str],
    paper: FigureSize,
    unit: str,
) -> Figure:
    """Draw lying bars, their names at the left and their values at their ends."""
    height = style.TOP + 0.12 + BAR * max(len(labels), 1)
    figure, axes = style.new_figure(paper, height)
    places = np.arange(len(labels))[::-1]
    axes.barh(places, values, height=0.66, color=list(colours))
    axes.axvline(0, color=style.QUIET, linewidth=0.8)
    names = [_cut(label, paper.letters) for label in labels]
    axes.set_yticks(places, names, fontsize=8.5)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.grid(False)
    axes.set_ylim(-0.6, max(len(labels), 1) - 0.4)
    left = 0.15 + max((style.width_of(name, 8.5) for name in names), default=0.0)
    figure.subplots_adjust(
        left=left / paper.width, right=1 - style.RIGHT / paper.width, top=1 - style.TOP / height, bottom=0.06 / height
    )
    figure.text(0.01, 1 - 0.06 / height, unit, ha="left", va="top", color=style.QUIET)
    _room_for_texts(axes, values, texts, paper.width - left - style.RIGHT)
    for place, value, text in zip(places, values, texts, strict=True):
        axes.annotate(
            text,
            (value, place),
            xytext=(4 if value >= 0 else -4, 0),
            textcoords="offset points",
            va="center",
            ha="left" if value >= 0 else "right",
            fontsize=8.5,
        )
    return figure


def _room_for_texts(axes: Axes, values: np.ndarray, texts: Sequence[str], inches: float) -> None:
    """Widen the axis so that the texts at the bars' ends stay inside."""
    room = min(max((style.width_of(text, 8.5) for text in texts), default=0.0) + 0.12, 0.7 * inches)
    low, high = min(float(values.min(initial=0)), 0.0), max(float(values.max(initial=0)), 0.0)
    sides = (room if low < 0 else 0.02) + (room if high > 0 or low == 0 else 0.02)
    scale = ((high - low) or 1.0) / max(inches - sides, 0.2 * inches)
    axes.set_xlim(low - scale * (room if low < 0 else 0.02), high + scale * (room if high > 0 or low == 0 else 0.02))


def _cut(label: str, letters: int) -> str:
    """Shorten a name; a dollar sign would start a formula."""
    short = label if len(label) <= letters else label[: letters - 1].rstrip() + "…"
    return short.replace("$", r"\$")


def residuals(trace: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Find the columns of the loop's trace that say how far it is from done.

    Returns:
        Name -> one value per iteration (NaN where absent); empty where there is nothing to draw.
    """
    if len(trace) < 2:
        return {}
    names = [name for name in trace[0] if any(word in name for word in RESIDUAL_WORDS)]
    table = {name: np.asarray([float(row.get(name, np.nan)) for row in trace]) for name in names}
    return {name: values for name, values in table.items() if (np.nan_to_num(values, nan=0.0) > 0).sum() >= 2}


def convergence(result: PlanResult, paper: FigureSize) -> Figure:
    """Draw how far from done the planning loop was after each revision, on a scale of powers of ten."""
    figure, axes = style.new_figure(paper, 2.2)
    named = []
    colours = (style.PLAN, style.FAILS, style.FORECAST, style.WITHOUT)
    for (name, values), colour in zip(residuals(result.record.trace).items(), colours, strict=False):
        shown = np.where(values > 0, values, np.nan)
        (line,) = axes.plot(np.arange(1, len(values) + 1), shown, color=colour, linewidth=1.5)
        finite = np.log10(shown[np.isfinite(shown)])
        named.append(Named(line, name.replace("_", " "), float(10 ** finite[-1]), colour))
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.set_xlim(1, len(result.record.trace))
    return style.finish_axes(
        figure, axes, paper, _on_log_axis(axes, named), "distance from done, by revision of the plan"
    )


def _on_log_axis(axes: Axes, named: Sequence[Named]) -> list[Named]:
    """Move the ends of lines to where a straight axis would have them."""
    low, high = axes.get_ylim()
    span = np.log10(high / low)
    return [
        Named(item.artist, item.text, low + (high - low) * float(np.log10(item.end / low) / span), item.colour)
        for item in named
    ]
