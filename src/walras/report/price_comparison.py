"""The report of `walras simulate`: sentences, page and tables of a simulation with and without shadow prices."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from walras.errors import plural
from walras.planning.compare_prices import PriceComparison, comparison_summary, comparison_table, reward_kept
from walras.report import style
from walras.report.charts import DOTTED, band, steps
from walras.report.formatting import day, listing, number, percent, title_of
from walras.report.publish import (
    arrow_table,
    json_writer,
    render_page,
    table_writers,
    text_writer,
    write_all_or_nothing,
)
from walras.report.style import FigureSize, Label, last_of, picture


def comparison_sentences(comparison: PriceComparison) -> list[str]:
    """Say what the prices did."""
    weeks = comparison.weeks
    products, span = plural(comparison.counts["active"], "product"), plural(len(weeks), "week")
    lines = [f"{products} over {span}, {day(weeks[0])} to {day(weeks[-1] + 6)}."]
    for index, name in enumerate(comparison.resources):
        use, free = (values[1, :, index] for values in (comparison.utilization, comparison.unconstrained))
        lines.append(
            f"{name}: {number(use.mean())} per week in the median future, {number(free.mean())} without prices; the "
            f"most is {number(use.max())} in the week of {day(weeks[int(use.argmax())])}."
        )
    kept = reward_kept(comparison)
    if comparison.shadow_prices.any() and kept is not None:
        lines.append(f"The prices keep {percent(kept)} of the reward that the products earn without prices.")
    return lines


def comparison_page(comparison: PriceComparison) -> str:
    """Return the self-contained HTML page of a simulation."""
    resources = [_resource(comparison, index, name) for index, name in enumerate(comparison.resources)]
    origins = [f"{name}: {origin}" for name, origin in comparison.provenance.items()]
    content = {
        "title": f"Simulation: {listing(comparison.resources)} from {day(comparison.weeks[0])}",
        "sentences": comparison_sentences(comparison),
        "resources": resources,
        "sources": [*origins, *comparison.notes],
    }
    return render_page("price_comparison.html", content)


def _resource(comparison: PriceComparison, index: int, name: str) -> dict[str, Any]:
    priced = comparison.shadow_prices[:, index].any()
    return {
        "title": title_of(name),
        "use": picture(f"use-{index}", f"Use of {name}", _use_chart, comparison, index),
        "prices": priced
        and picture(f"price-{index}", f"Shadow prices of {name}", _charged_price_chart, comparison, index),
    }


def write_comparison(comparison: PriceComparison, folder: Path, seconds: float) -> list[Path]:
    """Write `simulation.html`, `.parquet`, `.csv` and `.json`; an interrupted call leaves the earlier files."""
    writers = {
        "simulation.html": text_writer(comparison_page(comparison)),
        **table_writers("simulation", arrow_table(comparison_table(comparison))),
        "simulation.json": json_writer({**comparison_summary(comparison), "seconds": seconds}),
    }
    return write_all_or_nothing(folder, writers)


def _use_chart(comparison: PriceComparison, resource: int, size: FigureSize) -> Figure:
    """Draw the quantiles of use with prices, and the median without prices."""
    figure, axes = style.new_figure(size)
    edges = style.edges(comparison.weeks)
    low, middle, high = comparison.utilization[:, :, resource]
    free = comparison.unconstrained[1, :, resource]
    fan = band(axes, edges, low, high, color=style.PLAN, alpha=0.2)
    line = steps(axes, edges, middle, color=style.PLAN, linewidth=1.8)
    labels = [
        Label(line, "Use (median)", last_of(middle), style.PLAN),
        Label(fan, "9 of 10 futures", last_of(high), style.PLAN),
    ]
    if comparison.shadow_prices.any():
        dotted = steps(axes, edges, free, color=style.WITHOUT, linewidth=1.3, linestyle=DOTTED)
        labels.append(Label(dotted, "Without prices\n(median)", last_of(free), style.WITHOUT))
    axes.set_ylim(0, style.top_of(high, free))
    style.week_axis(axes, size, comparison.weeks)
    return style.finish_axes(figure, axes, size, labels, f"{comparison.resources[resource]} per week")


def _charged_price_chart(comparison: PriceComparison, resource: int, size: FigureSize) -> Figure:
    figure, axes = style.new_figure(size)
    prices = np.asarray(comparison.shadow_prices[:, resource])
    line = steps(axes, style.edges(comparison.weeks), prices, color=style.PLAN, linewidth=1.8)
    axes.set_ylim(0, style.top_of(prices))
    style.week_axis(axes, size, comparison.weeks)
    labels = [Label(line, "Shadow price", last_of(prices), style.PLAN)]
    return style.finish_axes(figure, axes, size, labels, f"money per unit of {comparison.resources[resource]}")
