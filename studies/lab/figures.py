"""Pictures of studies: one colour and mark for each method in all of them, intervals, half a page wide."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from walras.report import style

WIDTH, HEIGHT, DPI = 4.6, 3.0, 220
"""Size of a picture [inch], and its dots per inch."""

STYLES: Mapping[str, tuple[str, str]] = {
    "bucketized+delegates": ("#0072B2", "o"),
    "global+delegates": ("#56B4E9", "o"),
    "delegates alone": ("#56B4E9", "v"),
    "bucketized": ("#00795A", "s"),
    "per-agent": ("#4DAF8C", "s"),
    "deep-sets": ("#9B4F96", "D"),
    "moments": ("#C78BC3", "D"),
    "bottom-up": ("#E69F00", "^"),
    "global": ("#C44500", "X"),
    "simulation": ("#1A1A1A", "*"),
    "expected demand": ("#8C8C8C", "_"),
    "sees no difference": ("#8C8C8C", "_"),
    "without prices": ("#C44500", "X"),
    "without economics": ("#E69F00", "^"),
    "shifts and mixed prices": ("#0072B2", "o"),
    "no shifts": ("#C44500", "X"),
    "Haar prices only": ("#E69F00", "^"),
    "uniform": ("#C44500", "X"),
    "stratified": ("#0072B2", "o"),
    "proportional": ("#00795A", "s"),
    "none": ("#8C8C8C", "_"),
    "throttle": ("#8A5A00", "|"),
    "clairvoyant": ("#1A1A1A", "*"),
    "dual bucketized+delegates": ("#0072B2", "o"),
    "dual bucketized": ("#00795A", "s"),
    "dual global": ("#C44500", "X"),
    "primal bucketized+delegates": ("#56B4E9", "^"),
    "primal bottom-up": ("#E69F00", "^"),
    "primal global": ("#E08A5C", "^"),
    "elasticity": ("#8A5A00", "d"),
    "Uzawa": ("#9B4F96", "v"),
    "Gauss-Newton": ("#9B4F96", "<"),
    "MPC perfect forecast": ("#6B6B6B", "P"),
    "MPC one scenario": ("#C78BC3", ">"),
    "MPC sixteen scenarios": ("#7A2E75", "P"),
}
"""Colour and mark of each method or forecast; related ones share a tone."""

OTHER = ("#6B6B6B", "P")
"""Colour and mark of all other names."""

Interval = Mapping[str, float | None]
"""`estimate`, `low` and `high`; the last two are None for a single path."""


def method_style(name: str) -> tuple[str, str]:
    """Return a method's colour and mark; of `kind: map` those of the map, of `map, removed` those of the removed."""
    parts = (name, name.partition(", ")[2], name.partition(": ")[2])
    return next((STYLES[part] for part in parts if part in STYLES), OTHER)


def to_png(draw: Callable[[Axes], None], *, width: float = WIDTH, height: float = HEIGHT) -> Callable[[Path], None]:
    """Return a function that draws a picture with one pair of axes to a path."""

    def write(path: Path) -> None:
        with style.drawing():
            figure = Figure(figsize=(width, height), layout="constrained")
            draw(figure.subplots())
            figure.savefig(path, dpi=DPI, format="png", metadata={"Software": None})

    return write


def reach(interval: Interval) -> tuple[float, float]:
    """Return how far an interval extends below and above its estimate; 0 where it is unknown."""
    middle = float(interval["estimate"] or 0.0)
    low, high = (middle if interval[end] is None else float(interval[end] or 0.0) for end in ("low", "high"))
    return max(middle - low, 0.0), max(high - middle, 0.0)


def _middle(values: Iterable[Interval]) -> Float[np.ndarray, " value"]:
    """Return the estimates; unknown ones leave a gap."""
    return np.asarray([each["estimate"] for each in values], float)


def lines(axes: Axes, x: Sequence[float], rows: Mapping[str, Sequence[Interval]]) -> None:
    """Draw one line with intervals for each method, slightly shifted, so that intervals do not overlap."""
    step = 0.012 * (max(x) - min(x) or 1.0)
    for place, (name, values) in enumerate(rows.items()):
        colour, mark = method_style(name)
        there = np.asarray(x, float) + step * (place - (len(rows) - 1) / 2)
        middle = _middle(values)
        ends = np.asarray([reach(each) for each in values]).T
        options: dict[str, Any] = {"color": colour, "marker": mark, "markersize": 4, "linewidth": 1.3, "capsize": 2}
        axes.errorbar(there, middle, yerr=ends, elinewidth=0.8, label=name, **options)
    axes.legend(fontsize=6.5, frameon=False)


def points(axes: Axes, rows: Mapping[str, tuple[Interval, Interval]]) -> None:
    """Draw one point with both intervals for each method; the legend stands beside the picture."""
    for name, (across, up) in rows.items():
        colour, mark = method_style(name)
        x, y = across["estimate"], up["estimate"]
        if x is None or y is None:
            continue
        options: dict[str, Any] = {"color": colour, "marker": mark, "markersize": 5.5, "linestyle": "none"}
        sides = (np.asarray([reach(each)]).T for each in (up, across))
        axes.errorbar(x, y, next(sides), next(sides), elinewidth=0.5, alpha=0.9, capsize=1.5, label=name, **options)
    axes.legend(fontsize=6.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def bars(axes: Axes, rows: Mapping[str, Interval]) -> None:
    """Draw one horizontal bar with its interval for each method, the first on top."""
    for place, (name, value) in enumerate(rows.items()):
        colour, _ = method_style(name)
        ends = np.asarray([reach(value)]).T
        axes.barh(-place, float(value["estimate"] or 0.0), xerr=ends, color=colour, alpha=0.85, error_kw={"capsize": 2})
    axes.set_yticks([-place for place in range(len(rows))], list(rows), fontsize=7)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)


def frontier(axes: Axes, found: Sequence[tuple[Interval, Interval]]) -> None:
    """Draw a line through the outcomes of the oracle; the legend of `points` names it."""
    x, y = (np.asarray([each[side]["estimate"] for each in found], float) for side in (0, 1))
    order = np.argsort(x)
    axes.plot(x[order], y[order], color=style.CAPACITY, linewidth=1.1, label="oracle's frontier", zorder=1)


def groups(axes: Axes, rows: Mapping[str, Mapping[str, Interval]]) -> None:
    """Draw the methods of each group beside each other with their intervals, in the same order and colours."""
    names = list(dict.fromkeys(name for values in rows.values() for name in values))
    for place, name in enumerate(names):
        colour, mark = method_style(name)
        there = {at: values[name] for at, values in enumerate(rows.values()) if name in values}
        ends = np.asarray([reach(each) for each in there.values()]).T
        x = np.asarray(list(there), float) + 0.16 * (place - (len(names) - 1) / 2)
        options: dict[str, Any] = {"color": colour, "marker": mark, "markersize": 5, "capsize": 2, "elinewidth": 0.9}
        axes.errorbar(x, _middle(there.values()), yerr=ends, linestyle="none", label=name, **options)
    axes.set_xticks(range(len(rows)), list(rows), fontsize=7)
    axes.legend(fontsize=6.5, frameon=False)


def against_size(
    axes: Axes, rows: Mapping[str, Mapping[int, Interval]], predicted: Mapping[str, Mapping[int, float]] | None = None
) -> None:
    """Draw errors against sizes, with intervals; predicted ones are lines, without them points are joined."""
    for place, (name, values) in enumerate(rows.items()):
        colour, mark = method_style(name)
        beside = 1.0 + 0.05 * (place - (len(rows) - 1) / 2)
        ends = np.asarray([reach(each) for each in values.values()]).T
        options: dict[str, Any] = {"color": colour, "marker": mark, "markersize": 4, "capsize": 2, "elinewidth": 0.8}
        options["linestyle"] = "none" if predicted else "-"
        middle = _middle(values.values())
        axes.errorbar([size * beside for size in values], middle, yerr=ends, label=name, linewidth=1.1, **options)
        if predicted:
            axes.plot(list(predicted[name]), list(predicted[name].values()), color=colour, linewidth=1.1)
    axes.set_xscale("log")
    sizes = sorted({size for values in rows.values() for size in values})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    axes.legend(fontsize=6.5, frameon=False)
