"""From a user's table to a Panel.

Rules. A table is weekly when nearly all its dates fall on one weekday; a week is named by that date. Otherwise it is
read as daily records and summed to weeks that end with the last recorded day, or that start on Monday where nothing is
sold on Sundays, or on `week_start`; days outside of whole weeks are dropped, and so is an incomplete last week.
Flows (units, orders, receipts, forecast) add up; price and unit cost are averaged by units; stock is the last recorded.
A product is on sale from its first record on (with prices: its first record with a price or a sale); weeks without a
record after that count as 0 units. Gaps in price and unit cost are filled with the value before them, those at the
start with the first one after; a product that has none at all keeps NaN, which `complete_panel` replaces. Product
attributes are the last recorded, and the static table's where it has one.
A forecast is rows after the last week with `units` empty and `forecast` given; NaN where a product has none for a week.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from walras.config import Reading
from walras.data.column_checks import equal_or_empty, look_up, names_of, repeated_rows, row_blocks
from walras.data.notation import NO_DAY
from walras.data.panel import Panel
from walras.data.plausible import check_panel, check_records
from walras.data.records import (
    FLOWS,
    LABELS,
    MONEY,
    NUMBERS_PER_AGENT,
    Records,
    is_valid,
    names_of_source,
    read_records,
    read_static,
)
from walras.data.weekly import (
    OneRowPerCell,
    SummedRows,
    WeekGrid,
    drop_incomplete_end,
    fill_weeks,
    format_date,
    has_outliers,
    latest_per_agent,
    to_weekly,
    weekday,
)
from walras.errors import WEEKDAYS, FailFast, join, plural, quote

MOST_CELLS = 400_000_000
"""Weeks times products that still fit an ordinary memory (3 GB per field)."""
MOST_WEEKS_AHEAD = 520
NOT_RECORDED = "not recorded"
GIVEN = "given"


def read_panel(
    source: Any, *, columns: Mapping[str, str] | None = None, static: Any = None, reading: Reading | None = None
) -> Panel:
    """Read one long table, and a table of product attributes where there is one.

    Args:
        source: path of a Parquet file, CSV file or workbook, or any frame with `__arrow_c_stream__` (pandas, Arrow).
        columns: our field name -> the table's column name, for columns that are called otherwise.
        static: the same kind of source with one row per product.
        reading: what the table leaves open about its own notation.

    Raises:
        InputError: one sentence naming the row and the field.
        SettingsError: when `columns` names what does not exist.
    """
    # `FailFast` raises before anything is missing
    return cast(Panel, build_panel(source, columns, static, FailFast(), reading))


def build_panel(
    source: Any,
    columns: Mapping[str, str] | None,
    static: Any,
    findings: FailFast,
    reading: Reading | None = None,
) -> Panel | None:
    """Read a panel, reporting problems and notes to `findings`; None when there were problems."""
    reading = reading or Reading()
    records = read_records(source, columns, findings, also=names_of_source(static), reading=reading)
    attributes = None if static is None else _read_apart(static, columns, findings, reading)
    if records is None or "units" not in records.numbers:
        return None
    check_records(records, findings)
    records = _without_returns(records, reading, findings)
    placed = _place(records, findings, reading)
    if placed is None:
        return None
    if findings.problems:  # rows that repeat are named too, so that one look is enough
        placed.densify(placed.history, placed.grid.n_weeks, 0, findings)
        return None
    panel = _panel(placed, findings)
    if attributes is not None:
        panel = _with_static(panel, attributes, findings)
    return None if findings.problems else _finished(panel, findings)


def _read_apart(static: Any, columns: Mapping[str, str] | None, findings: FailFast, reading: Reading) -> Records | None:
    """Read the static table, whose rows and notation are its own."""
    rows, read_as = findings.row_numbers, findings.read_as
    findings.row_numbers, findings.read_as = None, {}
    records = read_static(static, columns, findings, reading)
    read_as.update({f"{name} of the static table": value for name, value in findings.read_as.items()})
    findings.row_numbers, findings.read_as = rows, read_as
    return records


@dataclass(frozen=True)
class Placed:
    """Records with the week and agent of each row.

    Attributes:
        records: the checked rows.
        grid: the weeks.
        agents: product of each agent.
        products: its place among the labels of the records.
        agent: agent of each row; -1 for products without history.
        history: rows of the history.
        ahead: rows of the forecast.
    """

    records: Records
    grid: WeekGrid
    agents: np.ndarray
    products: np.ndarray
    agent: np.ndarray
    history: np.ndarray
    ahead: np.ndarray
    repeats: str | None = None

    @cached_property
    def order(self) -> np.ndarray:
        """Return all rows by date."""
        return np.argsort(self.records.day, kind="stable")

    def densify(self, rows: np.ndarray, weeks: int, start: int, findings: FailFast) -> OneRowPerCell | SummedRows:
        """Return dense values of some rows in a block of weeks; repeated rows of a weekly table are a problem."""
        shape = weeks, self.agents.size
        key = np.multiply(self.grid.week[rows] - start, np.int64(shape[1]), dtype=np.int64)
        key += self.agent[rows]
        if self.grid.daily or self.repeats == "sum":
            return SummedRows(key, np.argsort(self.records.day[rows], kind="stable"), shape)
        row_of_cell, repeated = repeated_rows(key, weeks * self.agents.size)
        if repeated.any():
            first = row_of_cell[key]
            same = np.all([equal_or_empty(v[rows], v[rows][first]) for v in self.records.numbers.values()], axis=0)
            if self.repeats == "drop" and same[repeated].all():
                findings.note(f"{plural(int(repeated.sum()), 'identical row')} left out.", "repeated rows")
            else:
                findings.problem(**self._repeated(rows, same, first, np.flatnonzero(repeated)))
        return OneRowPerCell(row_of_cell.reshape(shape))

    def take(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return some rows of a column of numbers; the records do not keep it unless a forecast follows."""
        values = self.records.numbers[name] if self.ahead.size else self.records.numbers.pop(name)
        return values if rows.size == values.size else values[rows]

    def _repeated(self, rows: np.ndarray, same: np.ndarray, first: np.ndarray, again: np.ndarray) -> dict[str, Any]:
        second, before = rows[again[0]], rows[first[again[0]]]
        more = f" ({plural(again.size, 'such row')} in all)" if again.size > 1 else ""
        alike = "identical rows" if same[again].all() else "not identical rows"
        remedy = "write --repeats sum to add them up" + (
            ", or --repeats drop if the file holds the same sale twice"
            if same[again].all()
            else " (sales of several shops, say)"
        )
        product = self.records.products.labels[self.records.products.codes[second]]
        return {
            "sentence": f"`unique_id` and `ds` of {self.records.table} repeat in data row "
            f"{self.records.row(second)}{more}: product {quote(product)} already has the week of "
            f"{format_date(self.records.day[second])} in data row {self.records.row(before)} ({alike}); {remedy}",
            "kind": "repeated rows",
            "rows": [self.records.row(row) for row in rows[again[:3]]],
            "examples": self.records.products.labels[self.records.products.codes[rows[again[:3]]]].tolist(),
            "remedy": remedy,
        }


def _without_returns(records: Records, reading: Reading, findings: FailFast) -> Records:
    """Subtract or leave out negative units, as the user says."""
    units = records.numbers["units"]
    negative = units < 0
    if not negative.any():
        return records
    rows = [findings.row(row) for row in np.flatnonzero(negative)[:3]]
    words = "left out" if reading.returns == "drop" else "subtracted from the sales of their week"
    findings.note(f"{plural(int(negative.sum()), 'row')} with negative units were {words}.", "returns", rows)
    if reading.returns == "net":
        return records
    return replace(records, numbers={**records.numbers, "units": np.where(negative, 0.0, units)})


def _place(records: Records, findings: FailFast, reading: Reading) -> Placed | None:
    """Split history from forecast and give every row its week and agent."""
    units = records.numbers["units"]
    recorded = np.isfinite(units)
    if not recorded.any():
        findings.problem(f"`units` of {records.table} is empty in every row; give the units sold per week", "empty")
        return None
    last = records.day[recorded].max()
    given = np.isfinite(records.numbers["forecast"]) if "forecast" in records.numbers else np.zeros(units.size, bool)
    ahead = ~recorded & given & (records.day > last)
    undated = (records.day == NO_DAY) & given
    _has_values(records, recorded | ahead | undated, findings)
    if not is_valid(records):
        dated = recorded & (records.day != NO_DAY)
        if dated.any():
            known = np.unique(records.day[dated], return_counts=True)
            has_outliers(*known, records.day, dated, records.table, findings)
        return None
    grid = to_weekly(records.day, recorded, records.table, findings, reading.week_start)
    if grid is None:
        return None
    grid = drop_incomplete_end(grid, units, findings)
    history = np.flatnonzero(recorded & grid.used)
    with_history = np.zeros(records.products.labels.size, dtype=bool)
    for block in row_blocks(units.size):
        with_history[records.products.codes[block][(recorded & grid.used | ahead)[block]]] = True
    _note_new(records, history, ahead, findings)
    place = np.where(with_history, np.cumsum(with_history) - 1, -1).astype(np.int32)
    _note_left_out(records, with_history, findings)
    agent = look_up(place, records.products.codes)
    agents = records.products.labels[with_history]
    if agents.size * grid.n_weeks > MOST_CELLS:
        findings.problem(
            f"{records.table} has {agents.size:,} products over {grid.n_weeks:,} weeks, more than fit in memory; "
            "cut its history or plan groups of products"
        )
        return None
    ahead &= agent >= 0
    repeats = "sum" if reading.returns == "net" else reading.repeats
    products = np.flatnonzero(with_history)
    return Placed(records, grid, agents, products, agent, history, np.flatnonzero(ahead), repeats)


def _note_new(records: Records, history: np.ndarray, ahead: np.ndarray, findings: FailFast) -> None:
    """Say which products are planned by their forecast alone."""
    if not ahead.any():
        return
    new = np.setdiff1d(records.products.codes[ahead], records.products.codes[history])
    if new.size:
        findings.note(
            f"{plural(new.size, 'product')} without history are planned by their forecast alone: "
            f"{join(records.products.labels[new].tolist())}.",
            "new products",
        )


def _has_values(records: Records, known: np.ndarray, findings: FailFast) -> None:
    """Refuse rows that have neither units nor a forecast for the weeks after the last."""
    unknown = np.flatnonzero(~known & ~records.unreadable)
    if unknown.size == 0:
        return
    more = f" ({plural(unknown.size, 'such row')} in all)" if unknown.size > 1 else ""
    findings.problem(
        f"`units` of {records.table} is empty or not a number in data row {findings.row(unknown[0])}{more}; write 0 "
        "where nothing was sold (only rows after the last week that give a `forecast` may leave it empty)",
        "missing units",
        [findings.row(row) for row in unknown[:3]],
    )


def _note_left_out(records: Records, with_history: np.ndarray, findings: FailFast) -> None:
    without = ~with_history
    if without.any():
        findings.note(
            f"{plural(int(without.sum()), 'product')} without any recorded week left out: "
            f"{names_of(records.products.labels, without)}."
        )
    forecast = records.numbers.get("forecast")
    if forecast is not None and (np.isfinite(forecast) & np.isfinite(records.numbers["units"])).any():
        findings.note("`forecast` was ignored in weeks that have `units`; only weeks after the last one are used.")


def _panel(placed: Placed, findings: FailFast) -> Panel:
    """Build the dense arrays."""
    records, grid, rows = placed.records, placed.grid, placed.history
    cells = placed.densify(rows, grid.n_weeks, 0, findings)
    recorded = cells.recorded
    fields: dict[str, Any] = _attributes(placed)
    sold = placed.take("units", rows)
    flows = [name for name in FLOWS if name in records.numbers and name not in ("units", "forecast")]
    weekly = {name: cells.total(placed.take(name, rows)) for name in flows}
    if "on_hand" in records.numbers:
        weekly["on_hand"] = cells.latest(placed.take("on_hand", rows))
    for name in MONEY:
        if name in records.numbers:
            weekly[name] = cells.average(placed.take(name, rows), sold)
    units = np.nan_to_num(cells.total(sold), copy=False)
    if (units < 0).any():
        findings.note(
            f"{plural(int((units < 0).sum()), 'product-week')} with more returns than sales count as 0.", "returns"
        )
        units = np.maximum(units, 0.0)
    on_sale = _on_sale(recorded, units, weekly.get("price"), findings)
    _note_gaps(recorded, on_sale, findings)
    fields |= {**weekly, "forecast": _forecast(placed, findings)}
    return Panel(
        agents=placed.agents,
        weeks=grid.starts,
        units=units,
        on_sale=on_sale,
        **{name: value for name, value in fields.items() if value is not None},
    )


def _on_sale(
    recorded: Bool[np.ndarray, "week agent"],
    units: Float[np.ndarray, "week agent"],
    price: Float[np.ndarray, "week agent"] | None,
    findings: FailFast,
) -> Bool[np.ndarray, "week agent"]:
    """Mark the weeks from a product's first record on; records without price and sale at the start do not count."""
    begun = np.logical_or.accumulate(recorded, axis=0)
    if price is None:
        return begun
    real = np.logical_or.accumulate(recorded & (np.isfinite(price) | (units > 0)), axis=0)
    launched = np.where(real.any(axis=0), real, begun)
    early = recorded & ~launched
    if early.any():
        findings.note(f"{_extent(early, 'row')} before the first price and the first sale count as not yet on sale.")
    return launched


def _note_gaps(recorded: np.ndarray, on_sale: np.ndarray, findings: FailFast) -> None:
    """Note how many weeks without a record count as no demand."""
    later = np.logical_or.accumulate(recorded[::-1], axis=0)[::-1]
    gaps = on_sale & ~recorded
    for mask, where in ((gaps & later, "inside its series"), (gaps & ~later, "after its last record")):
        if mask.any():
            findings.note(f"{_extent(mask, 'product-week')} without a record {where} count as 0 units.")


def _extent(mask: np.ndarray, what: str) -> str:
    return f"{plural(int(mask.sum()), what)} of {plural(int(mask.any(axis=0).sum()), 'product')}"


def _attributes(placed: Placed) -> dict[str, np.ndarray]:
    """Take each product's last recorded attributes."""
    records, count = placed.records, placed.agents.size
    attributes = {}
    for name in (*NUMBERS_PER_AGENT, *records.labels):
        if name in records.constant:
            attributes[name] = records.constant[name][placed.products]
        elif name in records.numbers or name in records.labels:
            values = records.labels[name].codes if name in records.labels else records.numbers[name]
            order = placed.order[placed.agent[placed.order] >= 0]
            attributes[name] = latest_per_agent(_without_code(values), placed.agent, order, count)
        if name in records.labels:
            attributes[name] = _words(_without_code(attributes[name]), records.labels[name].labels)
    return attributes


def _without_code(values: np.ndarray) -> np.ndarray:
    """Replace -1, the code of an empty cell, by NaN; attributes that are numbers are never below 0."""
    return np.where(values < 0, np.nan, values)


def _words(codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Turn codes into labels; NaN becomes "not recorded"."""
    choices = np.append(labels.astype(object), NOT_RECORDED)
    return choices[np.nan_to_num(codes, nan=labels.size).astype(int)].astype(np.str_)


def _forecast(placed: Placed, findings: FailFast) -> Float[np.ndarray, "ahead agent"] | None:
    """Place the rows of the user's forecast."""
    rows, grid = placed.ahead, placed.grid
    if rows.size == 0:
        return None
    day = placed.records.day[rows]
    off = np.flatnonzero((day - grid.first_day) % 7 != 0)
    if not grid.daily and off.size:
        findings.problem(
            f"`ds` of {placed.records.table} is {format_date(day[off[0]])} in data row {findings.row(rows[off[0]])}, a "
            f"forecast for a {WEEKDAYS[weekday(int(day[off[0]]))]}; "
            f"its weeks start on {WEEKDAYS[weekday(grid.first_day)]}"
        )
        return None
    far = np.flatnonzero(grid.week[rows] >= grid.n_weeks + MOST_WEEKS_AHEAD)
    if far.size:
        findings.problem(
            f"`ds` of {placed.records.table} is {format_date(day[far[0]])} in data row {findings.row(rows[far[0]])}, "
            f"more than {MOST_WEEKS_AHEAD} weeks ahead; correct the date"
        )
        return None
    return _dense_forecast(placed, rows, findings)


def _dense_forecast(placed: Placed, rows: np.ndarray, findings: FailFast) -> Float[np.ndarray, "ahead agent"] | None:
    grid = placed.grid
    weeks = int(grid.week[rows].max()) + 1 - grid.n_weeks
    if grid.daily and (placed.records.day[rows].max() + 1 - grid.first_day) % 7:
        weeks -= 1
        rows = rows[grid.week[rows] < grid.n_weeks + weeks]
        findings.note("the last, incomplete week of the daily forecast was dropped.")
    if weeks == 0:
        return None
    dense = placed.densify(rows, weeks, grid.n_weeks, findings).total(placed.records.numbers["forecast"][rows])
    if np.isnan(dense).any():
        findings.note(f"{plural(int(np.isnan(dense).sum()), 'product-week')} of the forecast are not given.")
    return dense


def _with_static(panel: Panel, static: Records, findings: FailFast) -> Panel:
    """Join the table of product attributes."""
    row_of = np.full(static.products.labels.size, -1)
    row_of[static.products.codes] = np.arange(static.n_rows)
    at = np.searchsorted(static.products.labels, panel.agents).clip(max=static.products.labels.size - 1)
    known = static.products.labels[at] == panel.agents
    if not known.any():
        findings.problem(
            f"no `unique_id` of {static.table} occurs in the table, whose products are "
            f"{join(panel.agents.tolist(), 3)}; give the attributes of the same products"
        )
        return panel
    if not known.all():
        findings.note(
            f"{plural(int((~known).sum()), 'product')} not in {static.table}: {names_of(panel.agents, ~known)}."
        )
    return _joined(panel, static, np.where(known, row_of[at], -1), findings)


def _joined(panel: Panel, static: Records, row: np.ndarray, findings: FailFast) -> Panel:
    change: dict[str, Any] = {}
    for name, values in static.numbers.items():
        joined = np.where(row >= 0, values[row], np.nan)
        present = getattr(panel, name)
        if name in NUMBERS_PER_AGENT:
            change[name] = joined if present is None else np.where(np.isnan(joined), present, joined)
        elif present is None:
            change[name] = np.broadcast_to(joined, panel.units.shape).copy()
        else:
            findings.note(f"`{name}` of {static.table} was not used, since the table itself has it by week.")
    for name, coded in static.labels.items():
        codes = np.where((row >= 0) & (coded.codes[row] >= 0), coded.codes[row].astype(float), np.nan)
        words = _words(codes, coded.labels)
        present = getattr(panel, name)
        change[name] = words if present is None else np.where(np.isnan(codes), present, words)
    return replace(panel, **change)


def _finished(panel: Panel, findings: FailFast) -> Panel:
    """Fill the gaps of prices and costs and record where every field comes from."""
    pa.default_memory_pool().release_unused()  # columns of the file, which are dense by now
    change: dict[str, Any] = {}
    origin = {"units": GIVEN}
    for name in (*MONEY, *FLOWS[1:], "on_hand", *NUMBERS_PER_AGENT, *LABELS):
        value = getattr(panel, name)
        if value is None:
            continue
        origin[name] = GIVEN
        if name in MONEY:
            gaps = np.isnan(value) & panel.on_sale
            change[name] = fill_weeks(value)
            if gaps.any():
                origin[name] = "given, gaps filled"
    finished = replace(panel, provenance=origin, **change)
    check_panel(finished, findings)
    return replace(finished, notes=tuple(findings.notes), read_as=dict(findings.read_as))
