"""Own the page and the sentences of `walras simulate`.

EDGE: people read it.
"""

from typing import TYPE_CHECKING

import numpy as np

from walras.planning.compare_prices import PriceComparison, reward_kept
from walras.report import formatting, html
from walras.report.html import Html
from walras.report.style import figure, render_both_themes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from walras.report.style import FigureSize


def sentences(trial: PriceComparison) -> list[str]:
    """Say what the prices did."""
    span = f"{formatting.day(trial.weeks[0])} to {formatting.day(trial.weeks[-1] + 6)}"
    lines = [
        f"{formatting.plural(trial.counts['active'], 'product')} over {formatting.plural(len(trial.weeks), 'week')}, {span}."
    ]
    for index, name in enumerate(trial.resources):
        use, free = (values[1, :, index] for values in (trial.utilization, trial.unconstrained))
        peak = formatting.day(trial.weeks[int(use.argmax())])
        lines.append(
            f"{name}: {formatting.number(use.mean())} per week in the median future, {formatting.number(free.mean())} without "
            f"prices; the most is {formatting.number(use.max())} in the week of {peak}."
        )
    kept = reward_kept(trial)
    if trial.shadow_prices.any() and kept is not None:
        lines.append(f"The prices keep {formatting.percent(kept)} of the reward that the products earn without prices.")
    return lines


def page(trial: PriceComparison) -> str:
    """Write the whole page as one text that needs nothing from outside."""
    title = f"Simulation: {formatting.listing(trial.resources)} from {formatting.day(trial.weeks[0])}"
    parts = [Html(f"<h1>{formatting.escaped(title)}</h1>"), html.answer(sentences(trial), [], "good")]
    for index, name in enumerate(trial.resources):
        pictures = [
            figure(f"use-{index}", render_both_themes(use_picture, trial, index), f"Use of {name}", USE_CAPTION)
        ]
        if trial.shadow_prices[:, index].any():
            look = render_both_themes(price_picture, trial, index)
            pictures.append(figure(f"price-{index}", look, f"Shadow prices of {name}", PRICE_CAPTION))
        parts.append(html.section(formatting.title_of(name), pictures))
    origins = [f"{name}: {origin}" for name, origin in trial.provenance.items()]
    parts.append(html.section("Where the numbers come from", [html.bullets([*origins, *trial.notes])]))
    return html.document(title, parts)


USE_CAPTION = "Use per week: the band holds 9 of 10 possible futures, the line is their median."
PRICE_CAPTION = "Shadow price charged for one unit of the resource in each week."


def use_picture(trial: PriceComparison, resource: int, paper: "FigureSize") -> "Figure":
    """Draw use with prices as a fan, and without prices as a dotted line."""
    from walras.report import charts, style

    figure, axes = style.new_figure(paper)
    edges = style.edges(trial.weeks)
    low, middle, high = trial.utilization[:, :, resource]
    free = trial.unconstrained[1, :, resource]
    band = charts.band(axes, edges, low, high, color=style.PLAN, alpha=0.2)
    line = charts.steps(axes, edges, middle, color=style.PLAN, linewidth=1.8)
    named = [
        style.Named(line, "Use (median)", style.last_of(middle), style.PLAN),
        style.Named(band, "9 of 10 futures", style.last_of(high), style.PLAN),
    ]
    if trial.shadow_prices.any():
        dotted = charts.steps(axes, edges, free, color=style.WITHOUT, linewidth=1.3, linestyle=(0, (1, 1)))
        named.append(style.Named(dotted, "Without prices\n(median)", style.last_of(free), style.WITHOUT))
    axes.set_ylim(0, style.top_of(high, free))
    style.week_axis(axes, paper, trial.weeks)
    return style.finish_axes(figure, axes, paper, named, f"{trial.resources[resource]} per week")


def price_picture(trial: PriceComparison, resource: int, paper: "FigureSize") -> "Figure":
    """Draw the shadow prices charged."""
    from walras.report import charts, style

    figure, axes = style.new_figure(paper)
    prices = np.asarray(trial.shadow_prices[:, resource])
    line = charts.steps(axes, style.edges(trial.weeks), prices, color=style.PLAN, linewidth=1.8)
    axes.set_ylim(0, style.top_of(prices))
    style.week_axis(axes, paper, trial.weeks)
    named = [style.Named(line, "Shadow price", style.last_of(prices), style.PLAN)]
    return style.finish_axes(figure, axes, paper, named, f"money per unit of {trial.resources[resource]}")
