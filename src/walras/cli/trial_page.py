"""Own the page and the sentences of `walras simulate`.

EDGE: people read it.
"""

from typing import TYPE_CHECKING

import numpy as np

from walras.cli.trial import Trial, reward_kept
from walras.report import html, words
from walras.report.drawn import drawn, on_any_paper
from walras.report.html import Html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from walras.report.style import Paper


def sentences(trial: Trial) -> list[str]:
    """Say what the prices did."""
    span = f"{words.day(trial.weeks[0])} to {words.day(trial.weeks[-1] + 6)}"
    lines = [
        f"{words.plural(trial.counts['active'], 'product')} over {words.plural(len(trial.weeks), 'week')}, {span}."
    ]
    for index, name in enumerate(trial.resources):
        use, free = (values[1, :, index] for values in (trial.utilization, trial.unconstrained))
        peak = words.day(trial.weeks[int(use.argmax())])
        lines.append(
            f"{name}: {words.number(use.mean())} per week in the median future, {words.number(free.mean())} without "
            f"prices; the most is {words.number(use.max())} in the week of {peak}."
        )
    kept = reward_kept(trial)
    if trial.shadow_prices.any() and kept is not None:
        lines.append(f"The prices keep {words.percent(kept)} of the reward that the products earn without prices.")
    return lines


def page(trial: Trial) -> str:
    """Write the whole page as one text that needs nothing from outside."""
    title = f"Simulation: {words.listing(trial.resources)} from {words.day(trial.weeks[0])}"
    parts = [Html(f"<h1>{words.escaped(title)}</h1>"), html.answer(sentences(trial), [], "good")]
    for index, name in enumerate(trial.resources):
        pictures = [drawn(f"use-{index}", on_any_paper(use_picture, trial, index), f"Use of {name}", USE_CAPTION)]
        if trial.shadow_prices[:, index].any():
            look = on_any_paper(price_picture, trial, index)
            pictures.append(drawn(f"price-{index}", look, f"Shadow prices of {name}", PRICE_CAPTION))
        parts.append(html.section(words.title_of(name), pictures))
    origins = [f"{name}: {origin}" for name, origin in trial.provenance.items()]
    parts.append(html.section("Where the numbers come from", [html.bullets([*origins, *trial.notes])]))
    return html.document(title, parts)


USE_CAPTION = "Use per week: the band holds 9 of 10 possible futures, the line is their median."
PRICE_CAPTION = "Shadow price charged for one unit of the resource in each week."


def use_picture(trial: Trial, resource: int, paper: "Paper") -> "Figure":
    """Draw use with prices as a fan, and without prices as a dotted line."""
    from walras.report import pictures, style

    figure, axes = style.blank(paper)
    edges = style.edges(trial.weeks)
    low, middle, high = trial.utilization[:, :, resource]
    free = trial.unconstrained[1, :, resource]
    band = pictures.band(axes, edges, low, high, color=style.PLAN, alpha=0.2)
    line = pictures.steps(axes, edges, middle, color=style.PLAN, linewidth=1.8)
    named = [
        style.Named(line, "Use (median)", style.last_of(middle), style.PLAN),
        style.Named(band, "9 of 10 futures", style.last_of(high), style.PLAN),
    ]
    if trial.shadow_prices.any():
        dotted = pictures.steps(axes, edges, free, color=style.WITHOUT, linewidth=1.3, linestyle=(0, (1, 1)))
        named.append(style.Named(dotted, "Without prices\n(median)", style.last_of(free), style.WITHOUT))
    axes.set_ylim(0, style.top_of(high, free))
    style.week_axis(axes, paper, trial.weeks)
    return style.settle(figure, axes, paper, named, f"{trial.resources[resource]} per week")


def price_picture(trial: Trial, resource: int, paper: "Paper") -> "Figure":
    """Draw the shadow prices charged."""
    from walras.report import pictures, style

    figure, axes = style.blank(paper)
    prices = np.asarray(trial.shadow_prices[:, resource])
    line = pictures.steps(axes, style.edges(trial.weeks), prices, color=style.PLAN, linewidth=1.8)
    axes.set_ylim(0, style.top_of(prices))
    style.week_axis(axes, paper, trial.weeks)
    named = [style.Named(line, "Shadow price", style.last_of(prices), style.PLAN)]
    return style.settle(figure, axes, paper, named, f"money per unit of {trial.resources[resource]}")
