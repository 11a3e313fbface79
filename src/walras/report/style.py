"""The look of every figure: colours by meaning, sizes, the axis of weeks, labels at line ends, SVG for pages."""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib import dates as mdates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, MaxNLocator

from walras.report import formatting

# Okabe and Ito's palette, distinguishable with common colour blindness; dark tones carry text.
PLAN = "#0072B2"
WITHOUT = "#9B4F96"
CAPACITY = "#1A1A1A"
BOUGHT = "#E69F00"
COMMITTED = "#8C8C8C"
FAILS = "#C44500"
FORECAST = "#00795A"
QUIET = "#6B6B6B"
GRID = "#E4E4E4"

FONT = "DejaVu Sans"
POINTS = 72.0
"""Points in an inch."""

RC: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "ytick.major.size": 0,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "walras",
}


Corner = Literal["lower left", "upper left"]


@dataclass(frozen=True)
class FigureSize:
    """Size and margins of a figure [inch], its CSS class, and the most dates on its axis and letters of a group's name.

    `ends` is the margin for labels at the ends of lines; 0 puts them in a legend below.
    """

    name: str
    width: float
    height: float
    left: float
    ends: float
    ticks: int
    letters: int


WIDE = FigureSize("wide", width=7.6, height=3.3, left=0.62, ends=1.75, ticks=9, letters=30)
PHONE = FigureSize("phone", width=3.8, height=3.3, left=0.55, ends=0.0, ticks=4, letters=20)
FIGURE_SIZES = (WIDE, PHONE)

TICK_GAPS = (1, 2, 3, 4, 6, 8, 13, 26, 52, 104)
"""Weeks between two dates on an axis."""

TOP, RIGHT, BOTTOM, LEGEND_ROW = 0.34, 0.12, 0.46, 0.175


@dataclass(frozen=True)
class Label:
    """Text of something drawn, and the height at which it ends."""

    artist: Any
    text: str
    end: float
    colour: str


def new_figure(size: FigureSize, height: float | None = None) -> tuple[Figure, Axes]:
    """Open a figure with one pair of axes."""
    figure = Figure(figsize=(size.width, height or size.height))
    return figure, figure.subplots()


def finish_axes(
    figure: Figure, axes: Axes, size: FigureSize, labels: Sequence[Label], unit: str, legend: bool = False
) -> Figure:
    """Write the unit of the vertical axis, and labels at the lines' ends; a narrow figure has a legend below.

    `legend` puts one beside wide figures too, for lines that run together and whose ends say nothing.
    """
    rows = 0 if size.ends else len(labels)
    height = figure.get_figheight() + rows * LEGEND_ROW
    figure.set_figheight(height)
    figure.subplots_adjust(
        left=size.left / size.width,
        right=1 - (size.ends or RIGHT) / size.width,
        top=1 - TOP / height,
        bottom=(BOTTOM + rows * LEGEND_ROW) / height,
    )
    figure.text(0.01, 1 - 0.06 / height, unit, ha="left", va="top", color=QUIET)
    if not size.ends:
        _legend(figure, labels, "lower left", (0.0, 0.0))
    elif legend:
        _legend(figure, labels, "upper left", (axes.get_position().x1 + 0.012, axes.get_position().y1))
    else:
        _label_ends(axes, labels)
    return figure


def _legend(figure: Figure, labels: Sequence[Label], corner: Corner, place: tuple[float, float]) -> None:
    below = corner == "lower left"
    if labels:
        figure.legend(
            [label.artist for label in labels],
            [label.text.replace("\n", " ") if below else label.text for label in labels],
            loc=corner,
            bbox_to_anchor=place,
            frameon=False,
            borderaxespad=0.1,
            labelspacing=0.35,
            handlelength=1.6,
            handletextpad=0.5,
            fontsize=8.5,
            labelcolor=[label.colour for label in labels],
        )


def _label_ends(axes: Axes, labels: Sequence[Label]) -> None:
    """Write labels at the heights at which their lines end, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    inches = axes.get_position().height * axes.figure.get_figheight()  # type: ignore[union-attr]
    lines = [label.text.count("\n") + 1 for label in labels]
    wanted = [(float(label.end) - low) / (high - low) if np.isfinite(label.end) else 0.5 for label in labels]
    places = spread(wanted, [0.155 * count / inches for count in lines])
    for label, place, height in zip(labels, places, wanted, strict=True):
        line = {"arrowstyle": "-", "color": label.colour, "lw": 0.6, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}
        axes.annotate(
            label.text,
            xy=(1.0, min(max(height, 0.0), 1.0)),
            xytext=(1.045, place),
            xycoords="axes fraction",
            va="center",
            ha="left",
            color=label.colour,
            fontsize=8.5,
            linespacing=1.1,
            annotation_clip=False,
            arrowprops=line,
        )


def spread(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Move labels of some heights apart around the wanted centres, keeping their order [shares of the axis]."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    places = [0.0] * len(wanted)
    floor = 0.0
    for index in order:
        places[index] = max(wanted[index], floor + heights[index] / 2)
        floor = places[index] + heights[index] / 2
    ceiling = 1.0
    for index in reversed(order):
        places[index] = min(places[index], ceiling - heights[index] / 2)
        ceiling = places[index] - heights[index] / 2
    return places


def edges(weeks: np.ndarray) -> np.ndarray:
    """Return the days at which weeks begin and end, one more than weeks."""
    days = mdates.date2num(weeks.astype("datetime64[D]"))
    return np.append(days, days[-1] + 7.0) if len(days) else days


def week_axis(axes: Axes, size: FigureSize, weeks: np.ndarray) -> None:
    """Put readable first days of weeks on the horizontal axis, and short numbers on the vertical one."""
    days = edges(weeks)
    axes.set_xlim(days[0], days[-1])
    apart = next((gap for gap in TICK_GAPS if len(weeks) <= gap * size.ticks), len(weeks))
    chosen = np.arange(0, len(weeks), apart)
    dates = weeks[chosen].astype("datetime64[D]").astype(object)
    texts = []
    for index, date in enumerate(dates):
        year = f"\n{date.year}" if index == 0 or dates[index - 1].year != date.year else ""
        texts.append(f"{date.day} {date:%b}{year}")
    axes.set_xticks(days[chosen], texts)
    number_axis(axes)


def number_axis(axes: Axes) -> None:
    """Write few, short numbers on the vertical axis, all with the same decimals."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))

    def write_tick(value: float, _: int | None = None) -> str:
        places = axes.yaxis.get_majorticklocs()
        step = float(places[1] - places[0]) if len(places) > 1 else 1.0
        decimals = next((count for count in range(9) if abs(round(step, count) - step) < 1e-3 * step), 9)
        return formatting.short_number(value) if abs(value) >= 1e4 else f"{value:,.{decimals}f}".replace("-", "−")

    axes.yaxis.set_major_formatter(FuncFormatter(write_tick))


def width_of(text: str, size: float) -> float:
    """Return the drawn width of one line of text [inch]."""
    font = FontProperties(family=FONT, size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]) / POINTS


def top_of(*values: np.ndarray) -> float:
    """Return the upper limit of an axis: the largest finite value with room above it, 1 if there is none."""
    finite = [float(np.max(part[np.isfinite(part)])) for part in map(np.asarray, values) if np.isfinite(part).any()]
    highest = max(finite, default=0.0)
    return 1.08 * highest if highest > 0 else 1.0


def last_of(values: np.ndarray) -> float:
    """Return the last value of a line, where its label goes."""
    return float(values[-1]) if len(values) else float("nan")


def to_svg(figure: Figure, title: str, prefix: str) -> Markup:
    """Write a figure as SVG inside a page: without headers, labelled for screen readers, with a prefix to all ids."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    for side in ("width", "height"):
        text = re.sub(rf'(<svg[^>]*?)\s{side}="[^"]*"', r"\1", text, count=1)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1))


def drawing() -> AbstractContextManager[None]:
    """Apply the style while a figure is drawn and written, then restore matplotlib's settings."""
    return matplotlib.rc_context(RC)


Picture = tuple[tuple[str, Markup], ...]
"""SVG of a figure by CSS class, one for each size."""


def picture(name: str, title: str, draw: Callable[..., Figure], *shown: Any) -> Picture:
    """Draw what is `shown` in every size.

    Args:
        name: prefix of its ids, unique in the page.
        title: label for screen readers.
        draw: takes `shown` and a `FigureSize`.
    """
    with drawing(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a name may have letters that the font lacks
        return tuple((size.name, to_svg(draw(*shown, size), title, f"{name}-{size.name}")) for size in FIGURE_SIZES)
