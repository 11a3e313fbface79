"""Own the sentences, tables and the page of `walras fulfil simulate`.

EDGE: people read it, programs read the column names; files appear all together or not at all.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from walras.domains.fulfilment.generate import DecisionSettings
from walras.domains.fulfilment.instance import NONE, UNIT
from walras.errors import plural
from walras.report import formatting
from walras.report.publish import json_writer, render_page, table_writers, text_writer, write_all_or_nothing
from walras.report.style import picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from walras.domains.fulfilment.audit import Audit
    from walras.domains.fulfilment.run import Fulfilled
    from walras.report.style import FigureSize

STEPS = 60
"""Pieces of the horizon in the picture."""

MOST_NAMED = 6
"""Centres that a sentence names."""


def sentences(found: "Fulfilled", books: "Audit", seconds: float) -> list[str]:
    """Say what was filled, what was not and why, who ran out, and how much work it was."""
    return [*outcome(found, books), *work(found, seconds)]


def outcome(found: "Fulfilled", books: "Audit") -> list[str]:
    """Say what was filled, what was not and why, and who ran out when."""
    world = found.world
    lines = [
        f"{books.filled:,} of {plural(world.n_orders, 'order')} filled "
        f"({formatting.percent(found.share)}), {books.filled_units:,} of {plural(books.asked_units, 'unit')}.",
        f"The reward is {formatting.number(found.reward)}; it would be {formatting.number(most(found))} if the nearest "
        "centre could send every order.",
    ]
    missed = [f"{count:,} {MISSED[reason]}" for reason, count in books.missed.items() if count]
    if missed:
        lines.append(f"Not filled: {formatting.listing(missed)}.")
    out = np.flatnonzero(books.out_after >= 0)
    out = out[np.argsort(books.out_after[out], kind="stable")]
    named = formatting.listing([f"{world.names[i]} ({when(found, int(books.out_after[i]))})" for i in out], MOST_NAMED)
    total = plural(world.n_centres, "centre")
    lines.append(
        f"{len(out)} of {total} ran out of capacity: {named}." if len(out) else f"None of {total} ran out of capacity."
    )
    return lines


MISSED = {
    "no stock": "where no centre had the units in stock",
    "no capacity": "where none of those in stock had capacity left",
    "turned away": "that the policy preferred to turn away",
}


def work(found: "Fulfilled", seconds: float) -> list[str]:
    """Say how much work it was, and what was compared."""
    info = found.info
    calls, rounds = int(info.policy_calls) / found.world.n_orders, plural(int(info.rounds), "round")
    verified = getattr(info, "verified", None)
    lines = [
        f"Decided in {rounds} with {calls:.2f} decisions per order in {seconds:.2f} s, "
        "compilation included; no stock and no capacity was ever below zero."
    ]
    if verified is not None:
        lines.append(f"Deciding one by one gives {'the same' if verified else 'SOMETHING ELSE'}.")
    return lines


def most(found: "Fulfilled") -> float:
    """Return the reward if every order went from the nearest centre [money]."""
    world = found.world
    best = np.maximum(world.reward.max(1), 0)[world.destination].astype(np.int64)
    return float((best * world.quantity).sum()) / UNIT


def when(found: "Fulfilled", order: int) -> str:
    """Say when an order came: its day where known, its number otherwise."""
    if found.world.times is None:
        return f"after order {int(order) + 1:,}"
    return f"on {formatting.day(found.world.times[order].astype('datetime64[D]'))}"


def write(found: "Fulfilled", books: "Audit", facts: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the page and its tables; an interrupted call leaves the earlier ones as they were."""
    import pyarrow

    centres = table_writers("centres", pyarrow.table(centre_columns(found, books)))
    writers = {
        "fulfilment.html": text_writer(page(found, books, facts)),
        **table_writers("actions", action_table(found)),
        "centres.csv": centres["centres.csv"],
        "fulfilment.json": json_writer(facts),
    }
    return write_all_or_nothing(folder, writers)


def action_table(found: "Fulfilled") -> Any:
    """List every order in time with the centre that sends it, empty where none does."""
    import pyarrow as pa

    world, actions = found.world, found.actions
    sent = actions != NONE
    place = np.where(sent, actions, 0)
    money = world.reward[world.destination, place].astype(np.int64) * world.quantity / UNIT
    columns: dict[str, Any] = {"order": np.arange(1, world.n_orders + 1)}
    if world.times is not None:
        columns["time"] = world.times
    columns |= {
        "product": world.product if world.products is None else _coded(world.products, world.product),
        "destination": world.destination
        if world.destinations is None
        else _coded(world.destinations, world.destination),
        "quantity": world.quantity,
        "centre": _coded(np.asarray(world.names), place, ~sent),
        "reward": np.where(sent, money, 0.0),
    }
    return pa.table(columns)


def _coded(names: np.ndarray, codes: np.ndarray, empty: np.ndarray | None = None) -> Any:
    """Return names by their codes, without a copy of every name."""
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(
        pa.array(np.asarray(codes, np.int32), mask=empty), pa.array([str(name) for name in names])
    ).cast(pa.string())


def centre_columns(found: "Fulfilled", books: "Audit") -> dict[str, Any]:
    """List the centres with what they sent and have left; `out_after_order` is empty where one never ran out."""
    import pyarrow as pa

    out = books.out_after
    return {
        "centre": [str(name) for name in found.world.names],
        "orders_sent": books.orders,
        "units_sent": books.units,
        "capacity": books.granted,
        "capacity_left": books.capacity_left,
        "stock_start": books.stock_start,
        "stock_left": books.stock_left,
        "out_after_order": pa.array(out + 1, mask=out < 0),
    }


def page(found: "Fulfilled", books: "Audit", facts: Mapping[str, Any]) -> str:
    """Return the self-contained HTML page of decided orders."""
    fields = DecisionSettings.model_fields
    settings = [
        (
            name.replace("_", " "),
            "chosen by itself" if value is None else str(value),
            (fields[name].description or "") if name in fields else "file that was read",
        )
        for name, value in facts["settings"].items()
    ]
    content = {
        "title": f"Order fulfilment: {plural(found.world.n_orders, 'order')}",
        "grade": "good" if found.share > 0.95 else "fair",
        "outcome": outcome(found, books),
        "course": picture("course", "Share of orders filled", course_picture, found),
        "centres": centre_rows(found, books),
        "exhausted": np.flatnonzero(books.out_after >= 0).tolist(),
        "work": work(found, float(facts["seconds"])),
        "settings": settings,
    }
    return render_page("fulfilment.html", content)


def centre_rows(found: "Fulfilled", books: "Audit") -> list[list[str]]:
    """Write one row per centre."""
    rows = []
    for i, name in enumerate(found.world.names):
        used = formatting.percent(books.units[i] / books.granted[i]) if books.granted[i] else "no capacity"
        numbers = (books.orders[i], books.units[i], books.granted[i])
        stock = (books.stock_start[i], books.stock_left[i])
        out = when(found, int(books.out_after[i])) if books.out_after[i] >= 0 else ""
        rows.append([str(name), *map(formatting.number, numbers), used, *map(formatting.number, stock), out])
    return rows


def course(found: "Fulfilled") -> tuple[np.ndarray, np.ndarray]:
    """Return edges of pieces of the horizon, and their shares of orders filled by the nearest, and at all."""
    world, actions = found.world, found.actions
    pieces = min(STEPS, world.n_orders)
    edges = np.arange(pieces + 1) * world.n_orders // pieces
    sent = actions != NONE
    got = world.reward[world.destination, np.where(sent, actions, 0)]
    nearest = sent & (got == world.reward.max(1)[world.destination])
    counts = np.stack([np.add.reduceat(part.astype(float), edges[:-1]) for part in (nearest, sent)])
    return edges, counts / np.diff(edges)


def course_picture(found: "Fulfilled", size: "FigureSize") -> "Figure":
    """Draw who sent orders as they came in."""
    from matplotlib.ticker import MaxNLocator

    from walras.report import style

    edges, (nearest, filled) = course(found)
    figure, axes = style.new_figure(size)
    layers = (
        (np.zeros_like(nearest), nearest, style.PLAN, "By the\nnearest centre"),
        (nearest, filled, style.BOUGHT, "By a centre\nfarther away"),
        (filled, np.ones_like(filled), style.COMMITTED, "Not filled"),
    )
    named = []
    for low, high, colour, text in layers:
        area = axes.stairs(100 * high, edges, baseline=100 * low, fill=True, color=colour, alpha=0.75)
        named.append(style.Label(area, text, float(50 * (low[-1] + high[-1])), colour))
    axes.set_xlim(0, found.world.n_orders)
    axes.set_ylim(0, 100)
    axes.set_xlabel("orders so far")
    axes.xaxis.set_major_locator(MaxNLocator(size.ticks, prune="upper"))
    axes.xaxis.set_major_formatter(lambda value, _: formatting.short_number(value))
    return style.finish_axes(figure, axes, size, named, "% of orders")
