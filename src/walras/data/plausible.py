"""Checks of what a table says: identifiers, sizes, prices and dates that are possible but seldom meant."""

import datetime
import re

import numpy as np

from walras.data.column_checks import row_blocks
from walras.data.panel import Panel, active_agents
from walras.data.records import Records
from walras.errors import FailFast, join, plural, quote

TOTAL = re.compile(
    r"(grand|sub)?[ _-]?totals?\b|sum\b|(zwischen|end|gesamt)?summe\b|gesamt\b|insgesamt\b", re.IGNORECASE
)
FEWEST_OF_TOTALS = 12
"""Weeks of history from which units that never fall are taken for running totals."""
FEWEST_WEEKS = 4
"""Weeks of history without which no demand can be estimated."""
OUTLIER = 500
FEWEST_OF_OUTLIER = 8
"""How many times the second-largest row of its product a row may sell, and the rows with sales that this needs."""


BEYOND_ALL = 10
"""An outlier is refused where it is this many times larger than every other row of the table."""


def check_records(records: Records, findings: FailFast) -> None:
    """Refuse totals and outliers, and name products that differ only by case or blanks."""
    labels, codes, units = records.products.labels, records.products.codes, records.numbers["units"]
    total = np.array([TOTAL.match(label.strip()) is not None for label in labels.tolist()], dtype=bool)
    rows = np.flatnonzero(total[codes] & (codes >= 0)) if total.any() else np.empty(0, int)
    # A product may be called so: a total is larger than nearly all that is sold.
    others = np.append(np.nan_to_num(np.delete(units, rows)), 0.0)
    if rows.size and np.nanmax(units[rows], initial=0) >= np.quantile(others, 0.95):
        words = labels[codes[rows[:3]]].tolist()
        findings.problem(
            f"`unique_id` of {records.table} is {quote(words[0])} in data row {findings.row(rows[0])} "
            f"({plural(rows.size, 'such row')} in all), a total and no product; remove these rows",
            "totals",
            [findings.row(row) for row in rows[:3]],
            words,
        )
    _check_outliers(records, findings)
    _, group, count = np.unique([_plain(label) for label in labels.tolist()], return_inverse=True, return_counts=True)
    alike = np.flatnonzero(count > 1)
    if alike.size:
        words = [repr(label) for label in labels[group == alike[0]].tolist()]
        findings.note(
            f"{plural(int(count[alike].sum()), 'product')} differ only by case, blanks or leading zeros, e.g. "
            f"{' and '.join(words[:3])} ({labels.size:,} products, probably {count.size:,}); "
            "write them alike if they are the same.",
            "identifiers",
            examples=words[:3],
        )

    _name_rewritten(records, findings)


def _plain(label: str) -> str:
    """Return an identifier without what spreadsheets and people change: case, blanks and leading zeros."""
    text = " ".join(label.split()).casefold()
    return text.lstrip("0") if text.isdigit() else text


def _name_rewritten(records: Records, findings: FailFast) -> None:
    """Name identifiers that a spreadsheet has rewritten as numbers."""
    words = [label for label in records.products.labels.tolist() if re.fullmatch(r"\d([.,]\d+)?E\+?\d+", label.strip())]
    if words:
        findings.note(
            f"`unique_id` of {records.table} is {quote(words[0])}, a number as spreadsheets write long ones "
            f"({plural(len(words), 'such product')}): it may stand for several products; export identifiers as text.",
            "identifiers",
            examples=words[:3],
        )


def check_panel(panel: Panel, findings: FailFast) -> None:
    """Name what is possible but seldom meant: prices, lead times, stock-outs, dates after today."""
    _check_money(panel, findings)
    _check_running_totals(panel, findings)
    today = np.datetime64(datetime.date.today(), "D")
    if panel.n_weeks and panel.weeks[-1] > today:
        first = panel.weeks[panel.weeks > today][0]
        findings.note(
            f"weeks from {first} on lie in the future (after today, {today}) though they give sales; correct the "
            "dates, or give a forecast in the column `forecast`.",
            "future dates",
            examples=[first],
        )
    lead = panel.lead_time
    if lead is not None and np.isfinite(lead).any() and (np.nan_to_num(lead) % 7 == 0).all() and np.nanmax(lead) >= 7:
        findings.note(
            f"every `lead_time` is a multiple of 7 ({join(np.unique(lead[np.isfinite(lead)]).astype(int), 3)}) and was "
            "read as weeks; divide by 7 if these are days.",
            "lead time",
        )
    elif lead is not None and (lead > 12).any():
        odd = np.flatnonzero(lead > 12)
        findings.note(
            f"`lead_time` is more than 12 weeks for {plural(odd.size, 'product')} (e.g. {quote(panel.agents[odd[0]])}: "
            f"{lead[odd[0]]:g}); it is read as weeks, so divide by 7 if these are days.",
            "lead time",
            examples=panel.agents[odd[:3]],
        )
    out = panel.out_of_stock
    if out.any():
        findings.note(
            f"{plural(int(out.sum()), 'product-week')} of {plural(int(out.any(0).sum()), 'product')} had no stock and "
            "no sales: demand there is unknown, and expected demand is estimated from the other weeks.",
            "stock-outs",
            examples=panel.agents[out.any(0)][:3],
        )


def _check_running_totals(panel: Panel, findings: FailFast) -> None:
    """Name units that never fall from week to week for nearly all products."""
    sold = panel.units.max(0, initial=0.0) > 0
    if panel.n_weeks < FEWEST_OF_TOTALS or not sold.any():
        return
    units = panel.units[:, sold]
    steps = np.diff(units, axis=0)
    running = (steps >= 0).all(0) & ((steps > 0).mean(0) > 0.5)
    if running.mean() > 0.8:
        product = panel.agents[sold][running][0]
        findings.note(
            f"`units` never fall from week to week for {plural(int(running.sum()), 'product')} of {int(sold.sum())} "
            f"(e.g. {quote(product)}), as running totals do; if they are, give the units of each week.",
            "running totals",
            examples=[product],
        )


def _check_outliers(records: Records, findings: FailFast) -> None:
    """Name rows that sell many times more than every other row of their product; refuse those beyond all products."""
    units, codes, size = records.numbers["units"], records.products.codes, records.products.labels.size
    largest, near, sold = np.zeros(size), np.zeros(size, np.int64), np.zeros(size, np.int64)
    sales = [block for block in row_blocks(units.size) if (units[block] > 0).any()]
    counts = [(codes[block] >= 0) & (units[block] > 0) & np.isfinite(units[block]) for block in sales]
    for block, some in zip(sales, counts, strict=True):
        np.maximum.at(largest, codes[block][some], units[block][some])
    for block, some in zip(sales, counts, strict=True):
        some_codes = codes[block][some]
        sold += np.bincount(some_codes, minlength=size)
        near += np.bincount(some_codes[units[block][some] > largest[some_codes] / OUTLIER], minlength=size)
    products = (near == 1) & (sold >= FEWEST_OF_OUTLIER)
    if not products.any():
        return
    units = np.nan_to_num(units)
    odd = np.flatnonzero(products[codes] & (codes >= 0) & (units > 0))
    odd = odd[units[odd] > largest[codes[odd]] / OUTLIER]
    more = f" ({plural(odd.size, 'such row')} in all)" if odd.size > 1 else ""
    sentence = (
        f"`units` of {records.table} is {units[odd[0]]:,.0f} in data row {findings.row(odd[0])}{more}, more than "
        f"{OUTLIER} times as much as any other row of its product; correct that outlier"
    )
    examples = [findings.row(row) for row in odd[:3]], [f"{units[row]:.0f}" for row in odd[:3]]
    others = np.delete(units, odd).max(initial=0.0)
    if (units[odd] > BEYOND_ALL * others).any():
        findings.problem(sentence, "units: outlier", *examples)
    else:  # an order of this size is possible where other products sell as much
        findings.note(f"{sentence} if it is one.", "units: outlier", *examples)


def _check_money(panel: Panel, findings: FailFast) -> None:
    price, cost = panel.price, panel.unit_cost
    if price is not None and (price == 0).any():
        free = (price == 0).any(axis=0)
        findings.note(
            f"`price` is 0 in some week of {plural(int(free.sum()), 'product')}: {join(panel.agents[free])}; "
            "leave the cell empty where it is not known.",
            "price 0",
            examples=panel.agents[free][:3],
        )
    if price is not None and cost is not None:
        above = np.nan_to_num(cost[-1]) > np.nan_to_num(price[-1], nan=np.inf)
        if above.any():
            worst = np.flatnonzero(above)[0]
            findings.note(
                f"{plural(int(above.sum()), 'product')} cost more than they sell for (e.g. "
                f"{quote(panel.agents[worst])}: unit_cost {cost[-1, worst]:g}, price {price[-1, worst]:g}): "
                f"{join(panel.agents[above])}.",
                "cost above price",
                examples=panel.agents[above][:3],
            )


def check_plannable(panel: Panel, findings: FailFast) -> None:
    """Refuse a table that can be read but not planned with."""
    if not active_agents(panel).any():
        findings.problem(
            "no product sold anything in the last 26 weeks, so none would be planned; give a later table", "no sales"
        )
    if panel.n_weeks < FEWEST_WEEKS:
        findings.problem(
            f"the table has {plural(panel.n_weeks, 'week')} of history but a plan needs at least {FEWEST_WEEKS} "
            "(52 or more to see a season); give a longer history",
            "short history",
        )
    if panel.price is not None and panel.unit_cost is not None and (wrong := lacks_margin(panel)):
        findings.note(f"{wrong}: without a margin `walras plan` refuses the table.", "no margin")
    if panel.n_agents == 1:
        findings.note("one product is no population: it is planned, but coordinates with nothing.", "one product")


def lacks_margin(panel: Panel) -> str:
    """Return the problem if the last week's median margin is not positive (no price would mean anything), else ""."""
    price, cost = np.asarray(panel.price)[-1], np.asarray(panel.unit_cost)[-1]
    known = np.flatnonzero(np.isfinite(price) & np.isfinite(cost))
    if not known.size or np.median((price - cost)[known]) > 0:
        return ""
    worst = known[np.argmin((price - cost)[known])]
    example = f"`{panel.agents[worst]}`: price {price[worst]:g}, unit_cost {cost[worst]:g}"
    return f"at least half of the products cost as much as they sell for ({example}); correct price and unit_cost"
