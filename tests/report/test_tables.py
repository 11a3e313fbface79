"""Own the promise of the tables: every week and resource once, the numbers of the plan, missing ones empty."""

import io
from dataclasses import replace

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from rich.console import Console

from walras.report.page import write_report
from walras.report.tables import console_summary, group_table, headline, level, measures, week_table


def shown(renderable, width: int = 100) -> str:
    """Print to a terminal of this width and return the text."""
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_one_row_per_week_and_resource(wide_result):
    columns = week_table(wide_result)
    assert {len(values) for values in columns.values()} == {26 * 3}
    third = columns["resource"] == "storage units"
    np.testing.assert_array_equal(columns["capacity"][third], wide_result.record.capacity[:, 2])
    np.testing.assert_array_equal(columns["verified_p5"][third], wide_result.verified_utilization[0, :, 2])
    np.testing.assert_array_equal(columns["week"][third], wide_result.weeks)
    assert list(columns["verdict"][third][:3]) == ["fits", "fits", "already committed"]


def test_weeks_without_a_verdict_say_so(result):
    assert set(week_table(replace(result, week_verdicts=()))["verdict"]) == {"not judged"}


def test_files_hold_the_same_numbers(wide_result, tmp_path):
    write_report(wide_result, tmp_path)
    columns = week_table(wide_result)
    for table in (pyarrow.parquet.read_table(tmp_path / "plan.parquet"), pyarrow.csv.read_csv(tmp_path / "plan.csv")):
        assert table.column_names == list(columns)
        for name, values in columns.items():
            assert table[name].to_pylist() == values.tolist()


def test_nan_becomes_an_empty_cell(result, tmp_path):
    prices = result.reissued_prices.copy()
    prices[0, 0] = np.nan
    write_report(replace(result, reissued_prices=prices), tmp_path)
    assert pyarrow.parquet.read_table(tmp_path / "plan.parquet")["reissued_price"].null_count == 1
    assert "nan" not in (tmp_path / "plan.csv").read_text().lower()


def test_groups_say_how_much_each_gave_way(result, tmp_path):
    columns = group_table(result)
    row = list(columns["group"]).index("Home & <b>Garden</b>")
    assert columns["change"][row] == pytest.approx(-9e4) and columns["change_share"][row] == pytest.approx(-0.225)
    unused = list(columns["group"]).index("$ Deals $")
    assert np.isnan(columns["change_share"][unused])
    write_report(result, tmp_path)
    assert pyarrow.csv.read_csv(tmp_path / "groups.csv")["group"].to_pylist() == columns["group"].tolist()


def test_no_groups_give_an_empty_table(easy_result, tmp_path):
    write_report(easy_result, tmp_path)
    assert (tmp_path / "groups.csv").read_text().count("\n") == 1


def test_headline_tells_feasible_from_not(result):
    two = "2 of 26 weeks exceed capacity noticeably (by more than 1\u00a0% on average): 18 Jul and 7 Nov."
    assert headline(result) == f"Not feasible: {two}" and level(result) == "bad"
    yes = replace(result, record=replace(result.record, feasible=True))
    assert headline(yes) == f"Feasible: overruns stay within 3\u00a0% on average; {two}" and level(yes) == "good"
    large = replace(yes, verified={"near_limit_mean_violation": 0.07})
    assert (
        headline(large) == f"Fits on average, but overruns are larger than 3\u00a0%: {two}" and level(large) == "fair"
    )
    assert level(replace(yes, verified={"near_limit_mean_violation": None})) == "good"
    assert headline(replace(yes, week_verdicts=("fits",) * 26)) == "Feasible: the plan fits capacity in all 26 weeks."


def test_terminal_shows_verdict_and_weeks(result):
    text = shown(console_summary(result))
    assert "Not feasible" in text and "already committed" in text and "2011-07-18" in text


def test_terminal_leaves_easy_weeks_to_the_file(wide_result):
    text = shown(console_summary(wide_result))
    assert "more rows are in plan.csv" in text and text.count("2011-07-18") == 3


def test_terminal_reads_odd_names_literally(wide_result):
    odd = replace(wide_result, resources=("[red]", "[/]", "x"), verdict=("[bold]not markup[/bold]",))
    text = shown(console_summary(odd))
    assert "[red]" in text and "[bold]not markup[/bold]" in text


def test_terminal_names_what_is_not_defined(easy_result):
    text = shown(console_summary(easy_result))
    assert "not defined" in text and "nan" not in text


def test_terminal_shows_one_column_where_prices_were_not_reissued(result):
    assert "fixed prices" in shown(console_summary(result))
    text = shown(console_summary(replace(result, settings={"plan": {"reissue": False}})))
    assert "planned prices" in text and "fixed prices" not in text and "re-issued" not in text


def test_regret_is_shown_only_beside_the_pooled_one(result):
    assert "regret_ratio" not in measures(result)
    pooled = replace(result, verified={**result.verified, "pooled_regret_ratio": 1.1})
    assert {"regret_ratio", "pooled_regret_ratio"} <= set(measures(pooled))
