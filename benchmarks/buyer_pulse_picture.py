"""Draw what policies do with a price pulse: receipts around it by height, and elasticity by demand bucket."""

import math
import os
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from walras.report.style import FORECAST, PLAN, QUIET, RC, WITHOUT

SHADES = matplotlib.colormaps["viridis_r"]
LOOK = {"small": "-", "large": "--"}


def draw(answer: dict, folder: Path) -> Path:
    """Write `buyer_pulse.png` aside, rename it, and return where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path, aside = folder / "buyer_pulse.png", folder / "buyer_pulse.tmp.png"
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(11.0, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        around(left, answer["policies"]["buyer"])
        by_bucket(right, answer["policies"])
        figure.savefig(aside, dpi=150)
    os.replace(aside, path)
    return path


def around(axes: Axes, found: dict) -> None:
    """Draw the receipts of the weeks around the pulse, one line for each height."""
    rows = list(zip(found["heights"], found["receipts_percent"], strict=True))[1:]
    axes.axvspan(-0.5, 0.5, color="#EEEEEE", zorder=0)
    axes.axhline(100.0, color=QUIET, linewidth=1.0)
    for index, (height, row) in enumerate(rows):
        shade = SHADES(0.15 + 0.85 * index / (len(rows) - 1))
        axes.plot(found["weeks"], row, color=shade, marker="o", markersize=3, label=f"{height:g}")
    axes.set_ylim(bottom=0.0)
    axes.set_xticks(found["weeks"])
    axes.set_xlabel("weeks after the pulse")
    axes.set_ylabel("receipts [% of those without a pulse]")
    axes.set_title("The buyer's receipts around a price pulse", loc="left")
    axes.legend(title="height [median margins]", frameon=False, loc="upper right")


def by_bucket(axes: Axes, policies: dict) -> None:
    """Draw the elasticity of each demand bucket at a small and at a large price."""
    for (name, found), color in zip(policies.items(), (PLAN, WITHOUT, FORECAST), strict=False):
        for words, at in found["elasticity"].items():
            buckets = range(1, len(at["by_bucket"]) + 1)
            label = f"{name}, at {at['price']:g}"
            values = [math.nan if value is None else value for value in at["by_bucket"]]
            axes.plot(buckets, values, LOOK[words], color=color, marker="o", markersize=3, label=label)
    axes.axhline(0.0, color=QUIET, linewidth=1.0)
    axes.set_xticks(list(buckets))
    axes.set_xlabel("demand bucket, small to large demand")
    axes.set_ylabel("change of use in the pulse week per median margin\n[share of use without a pulse]")
    axes.set_title("How strongly use falls with the price", loc="left")
    axes.legend(frameon=False)
