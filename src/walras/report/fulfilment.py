"""The sentences, tables and page of `walras fulfil simulate`; programs read the column names."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from walras.domains.fulfilment.instance import NONE, UNIT, DecisionSettings
from walras.errors import plural
from walras.report.formatting import day, listing, number, percent, short_number
from walras.report.publish import json_writer, render_page, table_writers, text_writer, write_all_or_nothing
from walras.report.style import picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from walras.domains.fulfilment.process import Audit, FulfilmentResult
    from walras.report.style import FigureSize

STEPS = 60
"""Intervals of the horizon in the picture."""

REASON_TEXTS = {
    "no stock": "where no centre had the units in stock",
    "no capacity": "where none of those in stock had capacity left",
    "turned away": "that the policy rejected",
}


def outcome_sentences(result: "FulfilmentResult", audit: "Audit") -> list[str]:
    """Say what was filled, what was not and why, and which centres ran out when."""
    instance = result.instance
    best = np.maximum(instance.reward.max(1), 0)[instance.destination].astype(np.int64)
    most = float((best * instance.quantity).sum()) / UNIT
    lines = [
        f"{audit.filled:,} of {plural(instance.n_orders, 'order')} filled ({percent(result.fill_rate)}), "
        f"{audit.filled_units:,} of {plural(audit.ordered_units, 'unit')}.",
        f"The reward is {number(result.reward)}; it would be {number(most)} if the nearest centre "
        "could send every order.",
    ]
    unfilled = [f"{count:,} {REASON_TEXTS[reason]}" for reason, count in audit.unfilled.items() if count]
    if unfilled:
        lines.append(f"Not filled: {listing(unfilled)}.")
    out = np.flatnonzero(audit.out_after >= 0)
    out = out[np.argsort(audit.out_after[out], kind="stable")]
    total = plural(instance.n_centres, "centre")
    if not len(out):
        return [*lines, f"None of {total} ran out of capacity."]
    names = listing([f"{instance.names[i]} ({_when(result, int(audit.out_after[i]))})" for i in out])
    return [*lines, f"{len(out)} of {total} ran out of capacity: {names}."]


def work_sentences(result: "FulfilmentResult", seconds: float) -> list[str]:
    """Say how much work it was, and how it compares with deciding one by one."""
    calls = int(result.info.policy_calls) / result.instance.n_orders
    verified = getattr(result.info, "verified", None)
    lines = [
        f"Decided in {plural(int(result.info.rounds), 'round')} with {calls:.2f} decisions per order "
        f"in {seconds:.2f} s, compilation included; no stock and no capacity was ever below zero."
    ]
    if verified is not None:
        lines.append(f"Deciding one by one gives {'the same' if verified else 'other actions'}.")
    return lines


def _when(result: "FulfilmentResult", order: int) -> str:
    """Write the day of an order where it is known, its number otherwise."""
    if result.instance.times is None:
        return f"after order {order + 1:,}"
    return f"on {day(result.instance.times[order].astype('datetime64[D]'))}"


def write_fulfilment(result: "FulfilmentResult", audit: "Audit", facts: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the page and its tables; an interrupted call leaves earlier files as they were."""
    import pyarrow as pa

    centres = {
        "centre": [str(name) for name in result.instance.names],
        "orders_sent": audit.orders,
        "units_sent": audit.units,
        "capacity": audit.granted,
        "capacity_left": audit.capacity_left,
        "stock_start": audit.stock_start,
        "stock_left": audit.stock_left,
        "out_after_order": pa.array(audit.out_after + 1, mask=audit.out_after < 0),
    }
    writers = {
        "fulfilment.html": text_writer(_page(result, audit, facts)),
        **table_writers("actions", _action_table(result)),
        "centres.csv": table_writers("centres", pa.table(centres))["centres.csv"],
        "fulfilment.json": json_writer(facts),
    }
    return write_all_or_nothing(folder, writers)


def _action_table(result: "FulfilmentResult") -> Any:
    """List every order in time with the centre that sends it, empty where none does."""
    import pyarrow as pa

    instance, sent = result.instance, result.actions != NONE

    def named(names: np.ndarray | tuple[str, ...] | None, codes: np.ndarray, empty: np.ndarray | None = None) -> Any:
        """Return names by code, without a copy of every name; the codes where there are no names."""
        if names is None:
            return codes
        indices = pa.array(np.asarray(codes, np.int32), mask=empty)
        dictionary = pa.array([str(name) for name in names])
        return pa.DictionaryArray.from_arrays(indices, dictionary).cast(pa.string())

    centre = np.where(sent, result.actions, 0)
    reward = instance.reward[instance.destination, centre].astype(np.int64) * instance.quantity / UNIT
    return pa.table(
        {
            "order": np.arange(1, instance.n_orders + 1),
            **({} if instance.times is None else {"time": instance.times}),
            "product": named(instance.products, instance.product),
            "destination": named(instance.destinations, instance.destination),
            "quantity": instance.quantity,
            "centre": named(instance.names, centre, ~sent),
            "reward": np.where(sent, reward, 0.0),
        }
    )


def _page(result: "FulfilmentResult", audit: "Audit", facts: Mapping[str, Any]) -> str:
    """Return the self-contained HTML page."""
    fields, settings, centres = DecisionSettings.model_fields, [], []
    for name, value in facts["settings"].items():
        meaning = fields[name].description if name in fields else "input file"
        settings.append((name.replace("_", " "), "automatic" if value is None else str(value), meaning))
    for i, name in enumerate(result.instance.names):
        used = percent(audit.units[i] / audit.granted[i]) if audit.granted[i] else "no capacity"
        sent = map(number, (audit.orders[i], audit.units[i], audit.granted[i]))
        stock = map(number, (audit.stock_start[i], audit.stock_left[i]))
        out = _when(result, int(audit.out_after[i])) if audit.out_after[i] >= 0 else ""
        centres.append([str(name), *sent, used, *stock, out])
    content = {
        "title": f"Order fulfilment: {plural(result.instance.n_orders, 'order')}",
        "grade": "good" if result.fill_rate > 0.95 else "fair",
        "outcome": outcome_sentences(result, audit),
        "course": picture("course", "Share of orders filled", _draw_course, result),
        "centres": centres,
        "exhausted": result.exhausted.tolist(),
        "work": work_sentences(result, float(facts["seconds"])),
        "settings": settings,
    }
    return render_page("fulfilment.html", content)


def _draw_course(result: "FulfilmentResult", size: "FigureSize") -> "Figure":
    """Draw the shares of orders filled by the nearest centre and by any over the horizon."""
    from matplotlib.ticker import MaxNLocator

    from walras.report import style

    instance, actions = result.instance, result.actions
    steps = min(STEPS, instance.n_orders)
    edges = np.arange(steps + 1) * instance.n_orders // steps
    sent = actions != NONE
    reward = instance.reward[instance.destination, np.where(sent, actions, 0)]
    by_nearest = sent & (reward == instance.reward.max(1)[instance.destination])
    nearest, filled = (
        np.add.reduceat(orders.astype(float), edges[:-1]) / np.diff(edges) for orders in (by_nearest, sent)
    )
    figure, axes = style.new_figure(size)
    layers = (
        (np.zeros_like(nearest), nearest, style.PLAN, "By the\nnearest centre"),
        (nearest, filled, style.BOUGHT, "By a centre\nfarther away"),
        (filled, np.ones_like(filled), style.COMMITTED, "Not filled"),
    )
    labels = []
    for low, high, colour, text in layers:
        area = axes.stairs(100 * high, edges, baseline=100 * low, fill=True, color=colour, alpha=0.75)
        labels.append(style.Label(area, text, float(50 * (low[-1] + high[-1])), colour))
    axes.set_xlim(0, result.instance.n_orders)
    axes.set_ylim(0, 100)
    axes.set_xlabel("orders so far")
    axes.xaxis.set_major_locator(MaxNLocator(size.ticks, prune="upper"))
    axes.xaxis.set_major_formatter(lambda value, _: short_number(value))
    return style.finish_axes(figure, axes, size, labels, "% of orders")
