"""Ask learned maps what a shop would use at given prices, let them price a tight plan, and check both by simulation.

    python examples/learned_maps.py [TABLE] [--maps NAME_OR_FOLDER] [--out FOLDER]

Without a table it is the embedded population. Writes `sweep.png` and `inverted.png`.
"""

import argparse
import time
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from walras.config import PlanSettings
from walras.data.read import read_panel
from walras.planning.problem import build_problem
from walras.planning.search import CalibratedView, encode_population, load_maps
from walras.population.generate import generate_panel

BLUE, BLACK, GREY = "#2a6fb0", "#222222", "#9a9a9a"
PRICES, CHECKED = 33, 5

options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("table", nargs="?", help="long table of products and weeks")
options.add_argument("--maps", default="default", help="learned maps: a name or a folder")
options.add_argument("--out", default=".", type=Path, help="folder of the pictures")
options.add_argument("--agents", default=500, type=int, help="products of the embedded population")
given = options.parse_args()

# A population, where it stands, and its history. The case also simulates, which is what maps are checked against.
settings = PlanSettings(interface="learned", maps=given.maps, scenarios=4, paths=1)
maps = load_maps(settings)
panel = read_panel(given.table) if given.table else generate_panel(agents=given.agents, weeks=156, seed=0)
case = build_problem(panel, settings)
view = encode_population(case, maps, settings)  # maps read everything once
weeks, scale = case.panel.next_weeks(view.n_weeks), view.price_scale

# Sweep: one price for all weeks, from nothing to one median margin; all plans in one question.
levels = np.linspace(0, 1, PRICES) * scale
plans = np.broadcast_to(levels[:, None, None], (PRICES, view.n_weeks, 1))
view.expected(plans)  # compiled
started = time.perf_counter()
use = view.expected(plans)
took = 1e3 * (time.perf_counter() - started)
few = np.linspace(0, PRICES - 1, CHECKED).astype(int)
simulated = case.view.expected(plans[few])
off = np.abs(use[few] - simulated).sum() / simulated.sum()
print(f"{PRICES} plans answered in {took:.1f} ms; {off:.1%} from simulation where checked")

# Invert: at which prices does the population fit 80 % of what it would use in its busiest week?
free = view.expected(np.zeros((view.n_weeks, 1)))
capacity = np.full_like(free, 0.8 * free.max())
prices = CalibratedView.of(view).shadow_prices(capacity)  # the dual map; without one the primal map is searched
foreseen, happened = view.expected(prices), case.view.expected(prices)
counts = view.controllable
needed = np.minimum(capacity, case.view.expected(np.zeros_like(prices)))  # wanted without prices
over, idle = (np.maximum(part, 0)[counts].sum() for part in (happened - capacity, needed - happened))
room = capacity[counts].sum()
print(f"at the prices for {capacity[0, 0]:,.0f} a week simulated use is {over / room:.1%} above capacity;")
print(f"prices that are too high leave {idle / room:.1%} of it unused that would be wanted")
for reason in view.out_of_distribution:
    print("outside of training:", reason)


def finish(figure: plt.Figure, name: str) -> None:
    """Take away what is not needed, and write the picture."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(given.out / name, dpi=130)
    plt.close(figure)
    print(given.out / name)


given.out.mkdir(parents=True, exist_ok=True)
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.plot(levels / scale, use.sum((1, 2)), color=BLUE, label="learned maps")
axes.plot(levels[few] / scale, simulated.sum((1, 2)), "o", color=BLACK, label="simulated")
axes.set(
    xlabel="shadow price in every week [median margins]",
    ylabel=f"use over {view.n_weeks} weeks [units]",
    ylim=(0, None),
    title="What prices do to use",
)
axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
axes.legend(frameon=False)
finish(figure, "sweep.png")

figure, (upper, lower) = plt.subplots(2, 1, figsize=(7, 5.5), sharex=True, height_ratios=(2, 1), layout="constrained")
upper.step(weeks, capacity[:, 0], where="mid", color=BLACK, lw=2, label="capacity")
upper.plot(weeks, case.view.expected(np.zeros_like(prices))[:, 0], color=GREY, label="simulated without prices")
upper.plot(weeks, foreseen[:, 0], color=BLUE, label="foreseen by maps")
upper.plot(weeks, happened[:, 0], "o", color=BLUE, ms=4, label="simulated at these prices")
upper.set(ylabel="use [units/week]", ylim=(0, None))
upper.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
upper.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), title="Prices for a tight plan")
lower.step(weeks, prices[:, 0] / scale, where="mid", color=BLUE)
lower.set(ylabel="shadow price\n[median margins]", ylim=(0, None))
figure.autofmt_xdate()
finish(figure, "inverted.png")
