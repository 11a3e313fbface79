"""Own the pictures of totals: who gave way, money, and how the planning loop settled.

FREE: each takes a plan and a paper and returns a figure.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from walras.planner.result import GroupUse, PlanResult
from walras.report import style, words
from walras.report.style import Named, Paper

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


def gave_way(group: GroupUse, paper: Paper) -> Figure:
    """Draw each group's change in use, in percent; a wide paper has room for the units beside it."""
    labels, without, planned = folded(group)
    change = planned - without
    share = np.divide(100 * change, without, out=np.zeros_like(without), where=without > 0)
    shares = zip(share, without, strict=True)
    texts = [words.signed(words.percent(part / 100)) if base > 0 else "no use" for part, base in shares]
    unit = "change in use, percent"
    if paper.ends:
        amounts = [words.signed(words.short_number(amount)) for amount in change]
        texts = [f"{text}  ({amount})" for text, amount in zip(texts, amounts, strict=True)]
        unit += " (units over the planned weeks)"
    colours = [style.PLAN if amount <= 0 else style.BOUGHT for amount in change]
    return _bars(labels, share, texts, colours, paper, unit)


def money(result: PlanResult, paper: Paper) -> Figure:
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
    shown = [entry for entry in entries if not words.is_missing(amounts.get(entry[0]))]
    values = np.asarray([amounts[name] for name, _, _ in shown], dtype=float)
    return _bars(
        [label for _, label, _ in shown],
        values,
        [words.short_number(value) for value in values],
        [colour for _, _, colour in shown],
        paper,
        "money over the planned weeks",
    )


def _bars(
    labels: Sequence[str], values: np.ndarray, texts: Sequence[str], colours: Sequence[str], paper: Paper, unit: str
) -> Figure:
    """Draw lying bars, their names at the left and their values at their ends."""
    height = style.TOP + 0.12 + BAR * max(len(labels), 1)
    figure, axes = style.blank(paper, height)
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


def convergence(result: PlanResult, paper: Paper) -> Figure:
    """Draw how far from done the planning loop was after each revision, on a scale of powers of ten."""
    figure, axes = style.blank(paper, 2.2)
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
    return style.settle(figure, axes, paper, _on_log_axis(axes, named), "distance from done, by revision of the plan")


def _on_log_axis(axes: Axes, named: Sequence[Named]) -> list[Named]:
    """Move the ends of lines to where a straight axis would have them."""
    low, high = axes.get_ylim()
    span = np.log10(high / low)
    return [
        Named(item.artist, item.text, low + (high - low) * float(np.log10(item.end / low) / span), item.colour)
        for item in named
    ]
