"""Notations of practitioners' tables are read rightly, or refused with the flag that decides."""

import datetime
import gzip

import numpy as np
import pytest
import xlsxwriter
from hypothesis import given, settings
from hypothesis import strategies as st

from walras.config import Reading
from walras.data.check import check_table
from walras.data.read import read_panel

MONDAY = datetime.date(2023, 7, 10)
WEEKS = 12
PRODUCTS = ("A", "B", "C")


def rows(date=str, units=str) -> list[list[str]]:
    """Write three products over twelve weeks in some notation."""
    return [
        [product, date(MONDAY + datetime.timedelta(days=7 * week)), units(720 + 90 * week + place)]
        for place, product in enumerate(PRODUCTS)
        for week in range(WEEKS)
    ]


def text(cells: list[list[str]], sep: str = ",", header: tuple[str, ...] = ("unique_id", "ds", "units")) -> str:
    return "\n".join(sep.join(row) for row in [list(header), *cells]) + "\n"


def german(number: int) -> str:
    return f"{number:,}".replace(",", ".") + ",00"


NOTATIONS = {
    "byte-order mark": lambda: "\ufeff" + text(rows()),
    "sep line": lambda: "sep=;\n" + text(rows(), ";"),
    "title lines": lambda: "Sales report;;\nprinted today;;\n\n" + text(rows(), ";"),
    "names in capitals": lambda: text(rows(), header=("Unique ID", "DS", " Units ")),
    "compact dates": lambda: text(rows("{:%Y%m%d}".format)),
    "German dates": lambda: text(rows("{:%d.%m.%Y}".format), ";"),
    "American dates": lambda: text(rows("{:%m/%d/%Y}".format)),
    "month names": lambda: text(rows("{:%d-%b-%y}".format)),
    "ISO weeks": lambda: text(rows("{:%G-W%V}".format)),
    "serial numbers": lambda: text(rows(lambda day: str((day - datetime.date(1899, 12, 30)).days))),
    "local midnights": lambda: text(rows(lambda day: f"{day}T00:00:00+02:00")),
    "weeks before the year": lambda: text(rows("KW {:%V/%G}".format)),
    "apostrophes": lambda: text(rows(units=lambda number: f"{number:,}".replace(",", "'"))),
    "hard blanks": lambda: text(rows(units=lambda number: f"{number:,}".replace(",", "\u00a0"))),
    "wide digits": lambda: text(rows(units=lambda number: "".join(chr(0xFF10 + int(digit)) for digit in str(number)))),
    "German numbers": lambda: text(rows(units=german), ";"),
    "UTF-16": lambda: text(rows()).encode("utf-16"),
    "midnights in UTC": lambda: text(rows(lambda day: f"{day - datetime.timedelta(days=1)}T22:00:00Z")),
}


@pytest.mark.parametrize("name", NOTATIONS)
def test_each_notation_gives_the_same_panel(name, tmp_path):
    content = NOTATIONS[name]()
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    panel = read_panel(path)
    assert panel.weeks[0] == np.datetime64(MONDAY) and panel.units.shape == (WEEKS, len(PRODUCTS))
    assert panel.units[3].tolist() == [990.0, 991.0, 992.0]
    assert {"decimal mark", "dates", "week start"} <= set(panel.read_as)


def test_latin_1_compressed_files_and_workbooks_are_read(tmp_path):
    (tmp_path / "table.csv").write_bytes(text(rows()).replace("A,", "Käse,").encode("latin-1"))
    panel = read_panel(tmp_path / "table.csv")
    assert "Käse" in panel.agents and "Latin-1" in panel.read_as["encoding"]
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(text(rows()).encode()))
    assert read_panel(tmp_path / "table.csv.gz").n_agents == 3
    book = xlsxwriter.Workbook(tmp_path / "table.xlsx", {"default_date_format": "dd.mm.yyyy"})
    book.add_worksheet("notes").write(0, 0, "hello")
    sheet = book.add_worksheet("sales")
    sheet.write(0, 0, "Sales of all shops")
    for at, line in enumerate([["unique_id", "ds", "units"], *rows()], 2):
        day = line[1] if at == 2 else datetime.date.fromisoformat(line[1])
        sheet.write_row(at, 0, [line[0], day, line[2] if at == 2 else int(line[2])])
    book.close()
    panel = read_panel(tmp_path / "table.xlsx")
    assert panel.units[3].tolist() == [990.0, 991.0, 992.0]
    assert panel.read_as["sheet"].startswith("sales") and panel.read_as["header row"] == "3"


def test_wide_tables_are_turned(tmp_path):
    days = [MONDAY + datetime.timedelta(days=7 * week) for week in range(WEEKS)]
    by_week = "product," + ",".join(map(str, days)) + "\nA," + ",".join(["5"] * WEEKS) + "\n"
    by_product = "ds,A,B\n" + "".join(f"{day},5,6\n" for day in days)
    counted = "product," + ",".join(f"W{week}" for week in range(WEEKS)) + "\nA," + ",".join(["5"] * WEEKS) + "\n"
    for content, agents in ((by_week, 1), (by_product, 2)):
        (tmp_path / "wide.csv").write_text(content)
        panel = read_panel(tmp_path / "wide.csv")
        assert panel.units.shape == (WEEKS, agents) and panel.weeks[0] == np.datetime64(MONDAY)
    (tmp_path / "wide.csv").write_text(counted)
    assert "--first-week" in check_table(tmp_path / "wide.csv").problems[0]
    assert read_panel(tmp_path / "wide.csv", reading=Reading(first_week=str(MONDAY))).n_weeks == WEEKS


@pytest.mark.parametrize(
    ("content", "flag", "reading"),
    [
        (text(rows(units=lambda n: f"{n + 1000:,}".replace(",", ".")), ";"), "--decimal", Reading(decimal=",")),
        (text([["A", f"{d}/{d % 12 + 1}/2024", "5"] for d in range(1, 9)]), "--date-order", Reading(date_order="day")),
        (text([*rows(), *rows()[:2]]), "--repeats", Reading(repeats="drop")),
        (text([*rows()[1:], ["A", str(MONDAY), "-3"]]), "--returns", Reading(returns="net")),
        (text([*rows()[1:], ["A", str(MONDAY), "-"]]), "--dash-zero", Reading(dash_zero=True)),
    ],
)
def test_two_readings_are_refused_with_the_flag_that_decides(content, flag, reading, tmp_path):
    (tmp_path / "table.csv").write_text(content)
    found = check_table(tmp_path / "table.csv")
    assert any(flag in problem for problem in found.problems), found.problems
    assert not any(flag in problem for problem in check_table(tmp_path / "table.csv", reading=reading).problems)


FAULTS = {
    1: ("abc", "not a number"),
    2: ("-4", "negative units"),
    3: ("-", "dash"),
    4: ("", "missing units"),
    5: ("1e15", "units: outlier"),
}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(FAULTS)), st.integers(0, 2 * WEEKS - 1), min_size=2), st.integers(0, 9))
def test_several_faults_are_each_named_with_their_row_in_one_pass(tmp_path_factory, chosen, bad_date):
    cells = rows()
    placed = {row: FAULTS[fault] for fault, row in chosen.items()}
    for row, (value, _) in placed.items():
        cells[row][2] = value
    at = 2 * WEEKS + bad_date
    cells[at][1] = "soon"
    path = tmp_path_factory.mktemp("faults") / "table.csv"
    path.write_text(text(cells))
    findings = check_table(path).findings
    for row, (_, kind) in (placed | {at: ("soon", "date")}).items():
        assert any(f.kind == kind and row + 1 in f.rows and f.remedy for f in findings), (kind, row, findings)


def test_an_outlier_a_total_and_an_incomplete_week_are_named(tmp_path):
    path = tmp_path / "table.csv"
    spoilt = rows()
    spoilt[5][2] = "1170000"
    path.write_text(text([*spoilt, *[["Total", row[1], "9999999"] for row in rows()[:3]]]))
    found = check_table(path)
    assert {"totals", "units: outlier"} <= {finding.kind for finding in found.findings}
    cells = rows()
    for product in range(3):
        cells[(product + 1) * WEEKS - 1][2] = "20"
    path.write_text(text(cells))
    panel = read_panel(path)
    assert panel.n_weeks == WEEKS - 1 and any("incomplete" in note for note in panel.notes)


def test_lakhs_are_read(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(text([["A", "2023-07-10", '"1,00,720"'], ["A", "2023-07-17", '"12,34,567"']]))
    assert read_panel(path).units[:, 0].tolist() == [100720, 1234567]


def test_whole_numbers_beside_a_mark_before_three_digits_are_not_read_as_fractions(tmp_path):
    path = tmp_path / "table.csv"
    cells = [[*row, "9.50"] for row in rows(units=lambda number: f"{number:,}".replace(",", "."))]
    path.write_text(text(cells, header=("unique_id", "ds", "units", "price")))
    found = check_table(path)
    assert any("1.080" in problem and "--decimal" in problem for problem in found.problems)
    assert read_panel(path, reading=Reading(decimal=".")).units.max() < 1000


def test_what_is_possible_but_seldom_meant_is_named(tmp_path):
    path = tmp_path / "table.csv"

    def notes(cells) -> str:
        path.write_text(text(cells))
        return " ".join(str(finding) for finding in check_table(path).findings)

    assert "running totals" in notes(rows())
    assert "leading zeros" in notes([[("007" if i % 2 else "7"), *row[1:]] for i, row in enumerate(rows())])
    assert "1.2E+03" in notes([["1.2E+03" if row[0] == "A" else row[0], *row[1:]] for row in rows()])


def test_a_column_per_month_is_refused_and_one_per_week_of_a_year_is_read(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("SKU,Jan 2023,Feb 2023,Mar 2023\nA,1,2,3\n")
    assert any("months" in problem for problem in check_table(path).problems)
    path.write_text("SKU,KW01 2024,KW02 2024,KW03 2024,KW04 2024\nA,1,2,3,5\nB,2,2,3,1\n")
    assert read_panel(path).weeks[0] == np.datetime64("2024-01-01")
