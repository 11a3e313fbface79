"""`plan.xlsx`: the plan as a list and with weeks as columns, products, exceptions and assumptions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from walras.planning.result import PlanResult
from walras.report import summary
from walras.report.publish import Writer

MOST_PRODUCTS = 10_000
"""Products in the workbook, those that lose most margin by the plan; products.csv has all."""

UNITS = {
    "week": "first day", "shadow_price": "money/unit", "reissued_price": "money/unit", "price_met": "money/unit",
    "margin_per_unit": "money/unit", "margin_lost_without": "money", "margin_lost_planned": "money",
    "product": "", "category": "", "resource": "", "verdict": "", "why": "",
}  # fmt: skip
"""Units of columns; all others are units of the resource or of the products."""

BY_WEEK = ("regular_capacity", "capacity", "utilization", "committed", "shadow_price", "verified_p50", "verified_p95")
BY_WEEK_ONCE = ("demand", "lost_without", "lost_planned", "margin_lost_without", "margin_lost_planned")


def workbook_writer(result: PlanResult) -> Writer:
    """Return a writer of the workbook; text is never read as a formula or a link."""

    def write(path: Path) -> None:
        import xlsxwriter

        options = {"strings_to_formulas": False, "strings_to_urls": False, "nan_inf_to_errors": False}
        with xlsxwriter.Workbook(str(path), options) as book:
            # Creation time is left out of the file, so that the same plan gives the same bytes.
            book.set_properties({"created": _date(result.weeks[0])})
            sheets = _Sheets(book)
            sheets.columns("plan", result.columns())
            sheets.rows("weeks", *_weeks_across(result))
            products = {name: values[:MOST_PRODUCTS] for name, values in result.products.items()}
            sheets.columns("products", products)
            found = [vars(exception) for exception in result.exceptions]
            names = list(found[0]) if found else ["kind"]
            sheets.rows("exceptions", names, [list(exception.values()) for exception in found])
            sheets.rows("assumptions", ["about", "what is assumed or noted"], _assumptions(result))

    return write


def _weeks_across(result: PlanResult) -> tuple[list[Any], list[list[Any]]]:
    """Return a heading with the weeks as dates, and one row per quantity and resource."""
    columns, count = result.columns(), len(result.resources)
    rows = []
    for index, resource in enumerate(result.resources):
        rows += [[name, resource, _unit(name), *columns[name][index::count]] for name in BY_WEEK]
    rows += [[name, "", _unit(name), *columns[name][::count]] for name in BY_WEEK_ONCE]
    return ["quantity", "resource", "unit", *result.weeks], rows


def _assumptions(result: PlanResult) -> list[list[Any]]:
    sources = summary.data_sources(result)
    rows: list[list[Any]] = [["in short", sentence] for sentence in sources["sentences"]]
    rows += [[name, f"{kind}: {origin}"] for name, kind, _, origin in sources["rows"]]
    count = len(next(iter(result.products.values()), ()))
    if count > MOST_PRODUCTS:
        text = f"the sheet lists the {MOST_PRODUCTS:,} of {count:,} that lose most margin; products.csv has all"
        rows.append(["products", text])
    return rows + [["note", note] for note in result.notes]


def _unit(name: str) -> str:
    return UNITS.get(name, "units")


def _date(week: np.datetime64) -> Any:
    from datetime import datetime, time

    return datetime.combine(week.astype("datetime64[D]").item(), time())


class _Sheets:
    """Sheets with a frozen, bold heading, real dates, and numbers with thousands separated."""

    def __init__(self, book: Any) -> None:
        self.book = book
        self.heading = book.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"})
        self.day = book.add_format({"num_format": "yyyy-mm-dd"})
        self.day_heading = book.add_format({"num_format": "yyyy-mm-dd", "bold": True, "bottom": 1})
        self.large = book.add_format({"num_format": "#,##0"})
        self.small = book.add_format({"num_format": "#,##0.000"})

    def columns(self, name: str, columns: Mapping[str, np.ndarray]) -> None:
        """Write columns of equal length, with their units in the heading."""
        units = {column: _unit(column) for column in columns}
        headings = [f"{column} [{units[column]}]" if units[column] else column for column in columns]
        self.rows(name, headings, zip(*columns.values(), strict=True))

    def rows(self, name: str, headings: Sequence[Any], rows: Any) -> None:
        """Write a heading and rows of any values."""
        sheet = self.book.add_worksheet(name)
        sheet.freeze_panes(1, 1)
        for column, heading in enumerate(headings):
            self._cell(sheet, 0, column, heading, heading=True)
        for row, values in enumerate(rows, start=1):
            for column, value in enumerate(values):
                self._cell(sheet, row, column, value)
        sheet.set_column(0, max(len(headings) - 1, 0), 14)

    def _cell(self, sheet: Any, row: int, column: int, value: Any, heading: bool = False) -> None:
        if isinstance(value, np.datetime64):
            sheet.write_datetime(row, column, _date(value), self.day_heading if heading else self.day)
        elif isinstance(value, int | float | np.integer | np.floating):
            size = abs(float(value))
            if np.isfinite(size):
                sheet.write_number(row, column, float(value), self.large if size >= 100 else self.small)
        else:
            sheet.write_string(row, column, str(value), self.heading if heading else None)
