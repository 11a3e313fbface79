"""Several faults in one table: a single pass names every one of them with its row."""

import datetime

import numpy as np
import pytest

from walras.data.check import check_table

HEADER = ("unique_id", "ds", "units", "price", "unit_cost", "lead_time")
WEEKS, PRODUCTS = 30, 6
MONDAY = datetime.date(2024, 1, 1)
TABLES = 60  # 1,500 were tried

FAULTS = {
    "text in units": (2, "about 20"),
    "units cut off": (2, "#REF!"),
    "negative units": (2, "-7"),
    "empty units": (2, ""),
    "dash in units": (2, "-"),
    "units beyond every other": (2, "900000"),
    "date that does not exist": (1, "2024-02-31"),
    "another notation of dates": (1, "3 Feb"),
    "year mistyped": (1, "2042-02-05"),
    "no product": (0, ""),
    "a total as a product": (0, "Total"),
    "text in price": (3, "ask"),
    "another currency": (3, "€9.50"),
    "another decimal mark": (3, '"9,50"'),
    "negative price": (3, "-9.5"),
    "text in cost": (4, "n.n."),
    "lead time as text": (5, "soon"),
}


def planted(seed: int) -> tuple[str, dict[str, int]]:
    """Write a sound table with two to four faults, each in a row of its own; return it and the row of each fault."""
    random = np.random.default_rng(seed)
    cells = [
        [f"P{product}", str(MONDAY + datetime.timedelta(7 * week)), str(random.integers(5, 60)), "$9.50", "$5.25", "2"]
        for product in range(PRODUCTS)
        for week in range(WEEKS)
    ]
    kinds = random.choice(sorted(FAULTS), int(random.integers(2, 5)), replace=False)
    rows = random.choice(len(cells), len(kinds), replace=False)
    for kind, row in zip(kinds, rows, strict=True):
        column, text = FAULTS[kind]
        cells[row][column] = text
        if kind == "a total as a product":
            cells[row][2] = "90"
    text = "\n".join(",".join(row) for row in [HEADER, *cells]) + "\n"
    return text, {str(kind): int(row) + 1 for kind, row in zip(kinds, rows, strict=True)}


@pytest.mark.parametrize("seed", range(TABLES))
def test_every_fault_is_named_with_its_row_in_one_pass(seed, tmp_path):
    text, faults = planted(seed)
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    found = check_table(path)
    rows = {row for finding in found.findings if finding.refuses for row in finding.rows}
    missing = {kind: row for kind, row in faults.items() if row not in rows}
    assert not missing, found.problems
