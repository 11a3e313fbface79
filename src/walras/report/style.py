"""Own how every picture looks: colours, paper sizes, the axis of weeks, names beside lines, SVG without ids that clash.

FREE: the one place to change a colour or a size; pictures name their meaning, never a colour of their own.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib import dates as mdates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, MaxNLocator

from walras.report import formatting, html
from walras.report.html import Html

# Okabe and Ito's palette: told apart with any common colour blindness; dark tones carry text.
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
    """Give a picture its size and room [inch]; lines are named at their ends if there is room, else in a key below.

    Attributes:
        name: used as the picture's class in the page.
        width, height: size of a picture of weeks.
        left: room for the numbers of the upright axis.
        ends: room for names at the right; 0 puts them in a key below.
        ticks: most dates on the axis.
        letters: most letters of a group's name.
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
"""Weeks that may lie between two dates on an axis."""

TOP, RIGHT, BOTTOM, KEY_ROW = 0.34, 0.12, 0.46, 0.175


@dataclass(frozen=True)
class Named:
    """Tie something drawn to its words and to the height at which it ends."""

    artist: Any
    text: str
    end: float
    colour: str


def new_figure(paper: FigureSize, height: float | None = None) -> tuple[Figure, Axes]:
    """Open a figure with one pair of axes."""
    figure = Figure(figsize=(paper.width, height or paper.height))
    return figure, figure.subplots()


def finish_axes(figure: Figure, axes: Axes, paper: FigureSize, named: Sequence[Named], unit: str) -> Figure:
    """Name the unit, and everything drawn at the height at which it ends; a narrow paper has a key below instead."""
    _place(figure, paper, 0 if paper.ends else len(named), unit)
    if paper.ends:
        _name_ends(axes, named)
    else:
        _key(figure, named, "lower left", (0.0, 0.0))
    return figure


def finish_axes_with_legend(figure: Figure, axes: Axes, paper: FigureSize, named: Sequence[Named], unit: str) -> Figure:
    """Name the unit, and everything drawn in a key: for lines that run together, whose ends say nothing."""
    _place(figure, paper, 0 if paper.ends else len(named), unit)
    if paper.ends:
        _key(figure, named, "upper left", (axes.get_position().x1 + 0.012, axes.get_position().y1))
    else:
        _key(figure, named, "lower left", (0.0, 0.0))
    return figure


def _place(figure: Figure, paper: FigureSize, rows: int, unit: str) -> None:
    height = figure.get_figheight() + rows * KEY_ROW
    figure.set_figheight(height)
    figure.subplots_adjust(
        left=paper.left / paper.width,
        right=1 - (paper.ends or RIGHT) / paper.width,
        top=1 - TOP / height,
        bottom=(BOTTOM + rows * KEY_ROW) / height,
    )
    figure.text(0.01, 1 - 0.06 / height, unit, ha="left", va="top", color=QUIET)


def _key(figure: Figure, named: Sequence[Named], corner: Corner, place: tuple[float, float]) -> None:
    below = corner.startswith("lower")
    if named:
        figure.legend(
            [item.artist for item in named],
            [item.text.replace("\n", " ") if below else item.text for item in named],
            loc=corner,
            bbox_to_anchor=place,
            frameon=False,
            borderaxespad=0.1,
            labelspacing=0.35,
            handlelength=1.6,
            handletextpad=0.5,
            fontsize=8.5,
            labelcolor=[item.colour for item in named],
        )


def _name_ends(axes: Axes, named: Sequence[Named]) -> None:
    """Write each name at the height at which its line ends, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    inches = axes.get_position().height * axes.figure.get_figheight()  # type: ignore[union-attr]
    lines = [item.text.count("\n") + 1 for item in named]
    wanted = [(float(item.end) - low) / (high - low) if np.isfinite(item.end) else 0.5 for item in named]
    places = spread(wanted, [0.155 * count / inches for count in lines])
    for item, place, height in zip(named, places, wanted, strict=True):
        axes.annotate(
            item.text,
            xy=(1.0, min(max(height, 0.0), 1.0)),
            xytext=(1.045, place),
            xycoords="axes fraction",
            va="center",
            ha="left",
            color=item.colour,
            fontsize=8.5,
            linespacing=1.1,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": item.colour,
                "lw": 0.6,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def spread(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Move labels apart, in their order, within 0..1.

    Args:
        wanted: centre that each label would like [share of the axis].
        heights: room that each needs [share of the axis].
    """
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
    """Give the days between which each week lies, for steps: one more than weeks."""
    days = mdates.date2num(weeks.astype("datetime64[D]"))
    return np.append(days, days[-1] + 7.0) if len(days) else days


def week_axis(axes: Axes, paper: FigureSize, weeks: np.ndarray) -> None:
    """Put first days of weeks on the lower axis, as many as are readable, and thousands on the upright one."""
    days = edges(weeks)
    axes.set_xlim(days[0], days[-1])
    apart = next((gap for gap in TICK_GAPS if len(weeks) <= gap * paper.ticks), len(weeks))
    chosen = np.arange(0, len(weeks), apart)
    dates = weeks[chosen].astype("datetime64[D]").astype(object)
    texts = []
    for index, date in enumerate(dates):
        year = f"\n{date.year}" if index == 0 or dates[index - 1].year != date.year else ""
        texts.append(f"{date.day} {date:%b}{year}")
    axes.set_xticks(days[chosen], texts)
    number_axis(axes)


def number_axis(axes: Axes) -> None:
    """Write the numbers of the upright axis short and few, all with the same decimals."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))

    def written(value: float, _: int | None = None) -> str:
        places = axes.yaxis.get_majorticklocs()
        step = float(places[1] - places[0]) if len(places) > 1 else 1.0
        decimals = next((count for count in range(9) if abs(round(step, count) - step) < 1e-3 * step), 9)
        return formatting.short_number(value) if abs(value) >= 1e4 else f"{value:,.{decimals}f}".replace("-", "−")

    axes.yaxis.set_major_formatter(FuncFormatter(written))


def width_of(text: str, size: float) -> float:
    """Measure one line of text as it will be drawn [inch]."""
    if not text.strip():
        return 0.0
    return float(TextPath((0, 0), text, size=size, prop=FontProperties(family=FONT)).get_extents().width) / POINTS


def top_of(*values: np.ndarray) -> float:
    """Find the largest finite value, with room above it; 1 if there is none."""
    finite = [float(np.max(part[np.isfinite(part)])) for part in map(np.asarray, values) if np.isfinite(part).any()]
    highest = max(finite, default=0.0)
    return 1.08 * highest if highest > 0 else 1.0


def last_of(values: np.ndarray) -> float:
    """Give the last value of a line, for its name."""
    return float(values[-1]) if len(values) else float("nan")


def to_svg(figure: Figure, title: str, prefix: str) -> str:
    """Write a figure as SVG that can stand inside a page: no headers, no ids shared with other pictures.

    Args:
        figure: what was drawn.
        title: what a reader who cannot see it should hear.
        prefix: makes ids unique in the page; letters, digits and dashes.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    text = re.sub(r'(<svg[^>]*?)\swidth="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?)\sheight="[^"]*"', r"\1", text, count=1)
    return re.sub(r"<svg", f'<svg role="img" aria-label="{formatting.escaped(title)}"', text, count=1)


def drawing() -> Any:
    """Apply the style while a picture is drawn and written, and leave matplotlib as it was."""
    return matplotlib.rc_context(RC)


def figure(name: str, draw: Callable[[Any], Any], title: str, caption: str) -> Html:
    """Draw a picture on every paper and place it above its caption."""
    # matplotlib takes half a second to load, so only writing a page does.

    versions = []
    with drawing():
        for paper in FIGURE_SIZES:
            versions.append((paper.name, to_svg(draw(paper), title, f"{name}-{paper.name}")))
    return html.picture(versions, caption)


def render_both_themes(picture: Callable[..., Any], *arguments: Any) -> Callable[[Any], Any]:
    """Fix what a picture shows and leave the paper open."""
    return lambda paper: picture(*arguments, paper)
