"""Simulate stores with known cost, and query populations whose use, prices and plan have closed forms."""

from functools import partial

from lab.figures import to_png
from lab.formulas import FORMULAS
from lab.results import target_row
from lab.textbook import GROUPS, pool_seeds, simulate_store, summarise_errors

COLOURS = {"lost sales": "#0072B2", "newsvendor": "#E69F00", "backlogged": "#00795A", "reorder point": "#9B4F96"}
ALLOWED = 3.5


def parts(context):
    """Return one part for each group of stores, and one for the formulas."""
    stores = {f"textbook:{group}": partial(_stores, context, group) for group in GROUPS}
    return {**stores, "formulas": lambda: {name: measure() for name, measure in FORMULAS.items()}}


def _stores(context, group):
    settings = context.settings
    measured = []
    for place, instance in enumerate(GROUPS[group]()[:: settings["every"]]):
        context.tell(f"{group}: {instance.name}")
        for seed in range(settings["seeds"]):
            own = 1000 * seed + place + 100_000 * list(GROUPS).index(group)
            measured.append(simulate_store(instance, settings["agents"], own, settings["weeks"]))
    return measured


def figures(measured, context):
    """Return errors of every store, the largest by group and overall, and the differences to closed forms."""
    rows = pool_seeds([row for name, part in measured.items() if name.startswith("textbook:") for row in part])
    by_group = {
        group: summarise_errors(mine) for group in GROUPS if (mine := [row for row in rows if row["group"] == group])
    }
    output = {"stores": rows, "by_group": by_group, "formulas": measured.get("formulas", {})}
    return {**output, "all": summarise_errors(rows)} if rows else output


def answer(measured):
    """State what exceeds the allowed error first, then the largest error, then the closed forms."""
    if "all" not in measured:
        return "Stores are still to be simulated."
    everything, formulas = measured["all"], measured["formulas"]
    beyond = everything["beyond_3.5"]
    chance = everything["expected_mean_square_z"]
    verdict = f"No: {beyond} costs are off by more than 3.5 standard errors" if beyond else "Yes"
    worst = max(formulas, key=formulas.get, default=None)
    rest = f"; closed forms are met to {formulas[worst]:.0e} ({worst})" if worst else ""
    return (
        f"{verdict}: of {everything['instances']} stores the worst cost is {everything['worst_z']:.1f} standard errors "
        f"and {100 * everything['worst_relative']:.2f} % off, the mean square of all errors is "
        f"{everything['mean_square_z']:.2f} (chance makes it {chance['low']:.2f} to {chance['high']:.2f}){rest}."
    )


def key(measured):
    """Compare the largest errors with what is allowed."""
    rows = []
    if "all" in measured:
        rows.append(
            target_row(
                "largest error of a known cost [standard errors]", "textbook", measured["all"]["worst_z"], most=3.5
            )
        )
    if measured["formulas"]:
        worst = max(measured["formulas"].values())
        rows.append(target_row("largest relative error of a formula", "formulas", worst, most=1e-4))
    return rows


def pictures(measured):
    """Draw every store's error, and the differences to closed forms."""
    drawn = {"stores.png": to_png(partial(_stores_drawn, measured["stores"]))} if measured["stores"] else {}
    if measured["formulas"]:
        drawn["formulas.png"] = to_png(partial(_formulas_drawn, measured["formulas"]), height=2.4)
    return drawn


def _stores_drawn(rows, axes):
    axes.axhspan(-ALLOWED, ALLOWED, color="#E8E8E8", zorder=0, label="allowed: 3.5 standard errors")
    axes.axhline(0, color="#6B6B6B", linewidth=0.8)
    for group, colour in COLOURS.items():
        mine = [(place, row["z"]) for place, row in enumerate(rows) if row["group"] == group]
        if mine:
            places, z = zip(*mine, strict=True)
            axes.errorbar(places, z, yerr=1.96, fmt="o", color=colour, markersize=3, elinewidth=0.6, label=group)
    axes.set_xticks([])
    axes.set_yticks([-4, -2, 0, 2, 4])
    axes.set_xlabel("store")
    axes.set_ylabel("simulated less exact cost\n[standard errors]")
    top = max(5.0, *(abs(row["z"]) + 2.2 for row in rows))
    axes.set_ylim(-top, 1.75 * top)
    axes.legend(fontsize=6.5, frameon=False, ncols=2, loc="upper center")


def _formulas_drawn(differences, axes):
    names = list(differences)
    values = [max(differences[name], 1e-9) for name in names]
    axes.plot(values, range(len(names)), "o", color="#0072B2", markersize=5)
    axes.set_xscale("log")
    axes.set_xlim(3e-10, 1e-2)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("largest relative difference (below 1e-9: drawn there)")
    axes.xaxis.label.set_size(8)
