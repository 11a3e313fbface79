"""The M5 set as Kaggle publishes it: a folder with sales, calendar and prices as CSV.

Walmart weeks (Saturday to Friday) that are complete in the sales file; a product is on sale once it has a price.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from walras.data.column_checks import Column, days, numbers, one_array, texts
from walras.data.panel import DAYS_PER_WEEK, Panel
from walras.data.sources import open_source
from walras.data.weekly import fill_weeks
from walras.errors import FailFast, InputError, join, plural

SALES = ("sales_train_evaluation.csv", "sales_train_validation.csv")
CALENDAR = "calendar.csv"
PRICES = "sell_prices.csv"
KEYS = ("item_id", "store_id", "cat_id")


def read(path: str | Path) -> Panel:
    """Read the folder.

    Args:
        path: folder with `sales_train_evaluation.csv` (or `_validation`), `calendar.csv` and `sell_prices.csv`.
    """
    folder = Path(path)
    findings = FailFast()
    sales_file = folder / next((name for name in SALES if (folder / name).exists()), SALES[0])
    week_of, starts = _calendar(folder / CALENDAR, findings)
    names, category, units, codes = _sales(sales_file, week_of, findings)
    price = _prices(folder / PRICES, names, codes, findings)
    launched = np.logical_or.accumulate(np.isfinite(price) | (units > 0), axis=0)
    order = np.argsort(names)
    gaps = bool((np.isnan(price) & launched).any())
    return Panel(
        agents=names[order],
        weeks=np.array([starts[code] for code in codes], dtype="datetime64[D]"),
        units=units[:, order],
        on_sale=launched[:, order],
        price=fill_weeks(price)[:, order],
        category=category[order],
        provenance={"units": "given", "price": "given, gaps filled" if gaps else "given", "category": "given"},
        notes=tuple(findings.notes),
    )


def _columns(path: Path, wanted: Sequence[str], text: Sequence[str] = ()) -> pa.Table:
    """Read named columns of a CSV, or say that the file is another one."""
    source = open_source(path)
    missing = [name for name in wanted if name not in source.names]
    if missing:
        raise InputError(
            f"{path.name} lacks {join(missing)}, so it is not the M5 file; give the folder as Kaggle publishes it"
        )
    return source.read(wanted, text)


def _whole(column: Column) -> np.ndarray:
    """Read whole numbers that every row must have."""
    values = numbers(column)
    column.problem(np.isnan(values), "every row needs one")
    return values.astype(np.int64)


def _calendar(path: Path, findings: FailFast) -> tuple[dict[str, int], dict[int, np.datetime64]]:
    """Map day names (d_1, ...) to Walmart weeks, and complete weeks to their first day."""
    table = _columns(path, ("date", "wm_yr_wk", "d"), ("d",))
    day = days(Column(path.name, "date", one_array(table["date"]), findings))
    week = _whole(Column(path.name, "wm_yr_wk", one_array(table["wm_yr_wk"]), findings))
    codes, first, count = np.unique(week, return_index=True, return_counts=True)
    starts: dict[int, np.datetime64] = {
        int(code): np.datetime64(int(day[week == code].min()), "D")
        for code, days_known in zip(codes, count, strict=True)
        if days_known == DAYS_PER_WEEK
    }
    return dict(zip(table["d"].cast(pa.string()).to_pylist(), week.tolist(), strict=True)), starts


def _sales(
    path: Path, week_of: dict[str, int], findings: FailFast
) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, "week agent"], list[int]]:
    """Sum the days of every complete week: names, categories, units, week codes."""
    header = open_source(path).names
    day_names = [name for name in header if name in week_of]
    by_week: dict[int, list[str]] = {}
    for name in day_names:
        by_week.setdefault(week_of[name], []).append(name)
    complete = sorted(code for code, members in by_week.items() if len(members) == DAYS_PER_WEEK)
    if not complete:
        raise InputError(f"{path.name} has no complete week of days d_1, d_2, ...; give Kaggle's file")
    wanted = [name for code in complete for name in by_week[code]]
    table = _columns(path, [*KEYS, *wanted], KEYS)
    dropped = len(day_names) - len(wanted)
    if dropped:
        findings.note(f"{plural(dropped, 'day')} outside complete weeks dropped.")
    units = np.stack([_week(table, by_week[code], path.name, findings) for code in complete])
    item, store, category = (np.array(table[key].cast(pa.string()).to_pylist(), dtype=np.str_) for key in KEYS)
    return join_names(item, store), category, units, complete


def join_names(item: np.ndarray, store: np.ndarray) -> np.ndarray:
    """Name an item in a store."""
    return np.char.add(np.char.add(item, "_"), store)


def _week(table: pa.Table, members: list[str], name: str, findings: FailFast) -> Float[np.ndarray, " agent"]:
    total = np.zeros(table.num_rows)
    for member in members:
        column = Column(name, member, one_array(table[member]), findings)
        sold = numbers(column)
        column.problem(np.isnan(sold), "it needs a number of units")
        total += sold
    return total


def _prices(path: Path, names: np.ndarray, codes: list[int], findings: FailFast) -> Float[np.ndarray, "week agent"]:
    """Place prices by week and product; NaN where a product has none."""
    table = _columns(path, ("store_id", "item_id", "wm_yr_wk", "sell_price"), ("store_id", "item_id"))
    item = texts(Column(path.name, "item_id", one_array(table["item_id"]), findings), needed=True)
    store = texts(Column(path.name, "store_id", one_array(table["store_id"]), findings), needed=True)
    week = _whole(Column(path.name, "wm_yr_wk", one_array(table["wm_yr_wk"]), findings))
    value = numbers(Column(path.name, "sell_price", one_array(table["sell_price"]), findings))
    agent = _agent_of_pair(names, item.labels, store.labels)[item.codes, store.codes]
    place = np.searchsorted(codes, week).clip(max=len(codes) - 1)
    keep = (agent >= 0) & (np.array(codes)[place] == week)
    price = np.full((len(codes), names.size), np.nan)
    price[place[keep], agent[keep]] = value[keep]
    return price


def _agent_of_pair(names: np.ndarray, items: np.ndarray, stores: np.ndarray) -> np.ndarray:
    """Find the agent of each item and store; -1 where the sales file has no such pair."""
    place = {name: agent for agent, name in enumerate(names.tolist())}
    pairs = [[place.get(f"{item}_{store}", -1) for store in stores.tolist()] for item in items.tolist()]
    return np.array(pairs, dtype=np.int64).reshape(items.size, stores.size)
