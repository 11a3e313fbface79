"""Exceptions, price ranges and the workbook: the same facts everywhere, no text that becomes a formula."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import openpyxl
import pytest

from walras.planning.exceptions import MOST
from walras.report.summary import exception_rows, plan_summary, price_range_rows


def test_exceptions_are_few_with_the_most_money_first_and_an_action(result):
    found = result.exceptions
    assert 0 < len(found) <= MOST and all(exception.words and exception.action for exception in found)
    money = [exception.money for exception in found]
    assert money == sorted(money, reverse=True) and min(money) > 0
    assert {"committed", "gives way", "short"} <= {exception.kind for exception in found}
    committed = next(exception for exception in found if exception.kind == "committed")
    assert committed.week == "2011-07-18" and "no price helps" in committed.words


def test_more_capacity_is_advised_only_where_it_is_worth_more_than_it_costs(result):
    bare = replace(result, products={}, verified_utilization=0 * result.verified_utilization, settings={})
    (only,) = bare.exceptions
    assert (only.kind, only.week, only.money) == ("more capacity", "2011-10-03", 500.0)
    assert "+5 % inbound units costs 400 and is worth 900 by simulation" in only.words
    dear = replace(result.price_ranges[1], cost=dict.fromkeys(("+5 %", "+10 %", "+20 %"), 5000.0))
    assert replace(bare, price_ranges=(dear,)).exceptions == ()


def test_a_committed_week_has_no_price_and_no_worth(result):
    committed, binding = price_range_rows(result)
    assert committed[2:-1] == ("",) * 5 and committed[-1].startswith("no price helps")
    assert binding[3:6] == ("900", "1,500", "1,900") and "4,200 more; then 10 Oct" in binding[-1]


def test_json_has_the_facts_of_the_result(result):
    read = plan_summary(result)
    service = result.service
    assert read["service"]["fill_rate"] == {"without": service.fill_rate("without"), "planned": service.fill_rate()}
    assert read["lost_sales"]["units"]["planned"] == pytest.approx(service.lost_planned.sum())
    assert len(read["service"]["weeks"]["planned"]) == 26 and len(read["lost_sales"]["groups"]["group"]) == 34
    assert [row["week"] for row in read["price_ranges"]] == ["2011-07-18", "2011-10-03"]
    assert len(read["exceptions"]) == len(exception_rows(result)) == len(result.exceptions)


def test_workbook_has_dates_numbers_and_text_only(wide_result, written):
    book = openpyxl.load_workbook(written["plan.xlsx"])
    assert book.sheetnames == ["plan", "weeks", "products", "exceptions", "assumptions"]
    columns = wide_result.columns()
    plan, weeks = book["plan"], book["weeks"]
    assert plan.freeze_panes == weeks.freeze_panes == "B2" and plan.max_row == 26 * 3 + 1
    headings = [cell.value for cell in plan[1]]
    assert "shadow_price [money/unit]" in headings and plan["A2"].value == datetime(2011, 7, 4)
    place = headings.index("capacity [units]")
    assert [row[place].value for row in plan.iter_rows(min_row=2)] == pytest.approx(columns["capacity"].tolist())
    assert [cell.value for cell in weeks[1]][3:5] == [datetime(2011, 7, 4), datetime(2011, 7, 11)]
    names = [row[0].value for row in book["products"].iter_rows(min_row=2)]
    assert names[1] == "=SUM(A1:A9)" and names[0] == "P <1>"
    assert {cell.data_type for sheet in book for row in sheet.iter_rows() for cell in row} <= {"s", "n", "d"}


def test_the_same_plan_gives_the_same_workbook(result, tmp_path):
    from walras.report.workbook import workbook_writer

    for name in "ab":
        workbook_writer(result)(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert np.isfinite(result.record.capacity).all()
