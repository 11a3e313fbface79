"""Own the pictures along the weeks: demand, capacity against use, shadow prices.

FREE: each takes a plan and a paper and returns a figure.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from walras.planner.result import PlanResult
from walras.report import style, words
from walras.report.style import Named, Paper
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


def demand(result: PlanResult, paper: Paper) -> Figure:
    """Draw past demand, the fan of the coming weeks and what is expected to arrive under the plan."""
    figure, axes = style.blank(paper)
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
    return style.settle(figure, axes, paper, named, "units per week")


def capacity(result: PlanResult, resource: int, paper: Paper) -> Figure:
    """Draw one resource: capacity steps, what is bought, use expected and verified, and the committed part."""
    figure, axes = style.blank(paper, paper.height + 0.3)
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
    return style.settle_with_key(
        figure, axes, paper, named, f"{words.resource_name(result.resources[resource])} per week"
    )


def _bought(axes: Axes, edges: np.ndarray, regular: np.ndarray, planned: np.ndarray) -> list[Named]:
    line = steps(axes, edges, regular, color=style.CAPACITY, linewidth=1.0, linestyle=(0, (5, 2)))
    named = [Named(line, "Regular capacity", style.last_of(regular), style.CAPACITY)]
    above = np.where(planned > regular * (1 + BOUGHT_FROM), planned, regular)
    if (above > regular).any():
        fill = band(axes, edges, regular, above, facecolor=style.BOUGHT, alpha=0.55, hatch="////", edgecolor="white")
        share = (above - regular).sum() / max(float(regular.sum()), 1e-9)
        text = f"Bought above it\n({words.percent(share)} of regular)"
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


def shadow_prices(result: PlanResult, resource: int, paper: Paper) -> Figure:
    """Draw the price of a resource by week, as planned and as re-issued (if it was), beside the usual margin."""
    figure, axes = style.blank(paper, paper.height - 0.5)
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
    return style.settle(
        figure, axes, paper, named, f"money per unit ({words.resource_name(result.resources[resource])})"
    )
