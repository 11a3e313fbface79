"""Tables, JSON and the summary of the terminal: all weeks and resources, the plan's numbers, missing ones empty."""

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import report_example
from rich.console import Console, Group

from walras.planning.result import Search
from walras.report.publish import arrow_table, jsonable
from walras.report.summary import (
    console_summary,
    group_table,
    headline,
    level,
    measure_rows,
    plan_summary,
)


def strict(text: str) -> dict:
    """Read JSON and refuse NaN and Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def printed(renderable, width: int = 100) -> str:
    """Print to a terminal of this width and return the text."""
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(Group(*renderable))
    return console.export_text()


# --- JSON ---


def test_keys_and_values_of_each_week(wide_result, written):
    read = strict(written["report.json"].read_text())
    assert set(read) >= {
        "feasible", "capacity", "utilization", "shadow_prices", "weeks", "verified", "verified_fixed", "intervals",
        "assumed_columns", "money", "counts", "seconds", "stages",
    }  # fmt: skip
    assert read["weeks"][:2] == ["2011-07-04", "2011-07-11"] and len(read["weeks"]) == 26
    for name in ("capacity", "utilization", "shadow_prices"):
        assert list(read[name]) == list(wide_result.resources)
    np.testing.assert_array_equal(read["capacity"]["storage units"], wide_result.record.capacity[:, 2])
    np.testing.assert_array_equal(read["shadow_prices"]["inbound units"], wide_result.record.shadow_prices[:, 0])
    np.testing.assert_array_equal(
        read["verified_utilization"]["p95"]["inbound units"], wide_result.verified_utilization[2, :, 0]
    )
    assert read["feasible"] is False


@pytest.mark.parametrize(
    ("seconds", "total", "stages"),
    [
        ({"total": 93.4, "planning": 51.0}, 93.4, {"planning": 51.0}),
        ({"reading": 1.5, "planning": 2.0}, 3.5, {"reading": 1.5, "planning": 2.0}),
        (
            {"reading": 2.1, "Reading the table": 2.0, "planning": 1.0},
            3.0,
            {"Reading the table": 2.0, "planning": 1.0},
        ),
    ],
)
def test_every_stage_is_timed_once(result, seconds, total, stages):
    read = plan_summary(replace(result, seconds=seconds))
    assert (read["seconds"], read["stages"]) == (total, stages)
    assert read["assumed_columns"] == ["lead_time", "unit_cost"]


def test_missing_numbers_are_null():
    prices = report_example.plan().reissued_prices.copy()
    prices[3, 0] = np.nan
    verified = {"mean_violation": float("nan"), "near_limit_mean_violation": None, "reward_kept": 0.5}
    read = plan_summary(report_example.plan(reissued_prices=prices, verified=verified))
    json.dumps(read, allow_nan=False)
    assert read["reissued_prices"]["inbound units"][3] is None
    assert read["verified"] == {"mean_violation": None, "near_limit_mean_violation": None, "reward_kept": 0.5}


def test_json_of_what_settings_may_hold(tmp_path):
    given = {"path": tmp_path, 3: np.int64(4), "flag": np.bool_(True), "when": np.datetime64("2011-07-04"), "s": {1}}
    assert jsonable(given) == {"path": str(tmp_path), "3": 4, "flag": True, "when": "2011-07-04", "s": [1]}
    assert jsonable(np.asarray([1.0, np.inf])) == [1.0, None]


def test_the_search_is_recorded(result):
    read = plan_summary(result)
    assert (read["interface"], read["maps"], read["outside_training"]) == ("simulated", None, False)
    assert read["outside_training_reasons"] == read["map_errors"] == []
    search = Search("learned", "retail", 120, 4, 2, 50, (0.2, 0.1), ("the history has 3 weeks",))
    read = plan_summary(replace(result, search=search))
    assert (read["interface"], read["maps"], read["outside_training"]) == ("learned", "retail", True)
    assert read["outside_training_reasons"] == ["the history has 3 weeks"] and read["map_errors"] == [0.2, 0.1]
    assert (read["simulations"], read["simulations_of_everybody"], read["cohort"]) == (4, 2, 50)
    assert read["moved"] is None


# --- tables ---


def test_one_row_per_week_and_resource(wide_result):
    columns = wide_result.columns()
    assert {len(values) for values in columns.values()} == {26 * 3}
    third = columns["resource"] == "storage units"
    np.testing.assert_array_equal(columns["capacity"][third], wide_result.record.capacity[:, 2])
    np.testing.assert_array_equal(columns["verified_p5"][third], wide_result.verified_utilization[0, :, 2])
    np.testing.assert_array_equal(columns["week"][third], wide_result.weeks)
    assert list(columns["verdict"][third][:3]) == ["fits", "fits", "already committed"]
    assert set(replace(wide_result, week_verdicts=()).columns()["verdict"]) == {"not judged"}


def test_files_hold_the_same_numbers(wide_result, written):
    columns = wide_result.columns()
    for table in (pyarrow.parquet.read_table(written["plan.parquet"]), pyarrow.csv.read_csv(written["plan.csv"])):
        assert table.column_names == list(columns)
        for name, values in columns.items():
            assert table[name].to_pylist() == values.tolist()
    assert pyarrow.csv.read_csv(written["groups.csv"])["group"].to_pylist() == (
        group_table(wide_result)["group"].tolist()
    )


def test_nan_becomes_an_empty_cell(result):
    prices = result.reissued_prices.copy()
    prices[0, 0] = np.nan
    assert arrow_table(replace(result, reissued_prices=prices).columns())["reissued_price"].null_count == 1


def test_change_by_group(result, easy_result):
    columns = group_table(result)
    row = list(columns["group"]).index("Home & <b>Garden</b>")
    assert columns["change"][row] == pytest.approx(-9e4) and columns["change_share"][row] == pytest.approx(-0.225)
    assert np.isnan(columns["change_share"][list(columns["group"]).index("$ Deals $")])
    assert arrow_table(group_table(easy_result)).num_rows == 0


# --- sentences and the terminal ---


def test_headline_tells_feasible_from_not(result):
    two = "2 of 26 weeks exceed capacity noticeably (by more than 1\u00a0% on average): 18 Jul and 7 Nov."
    assert headline(result) == f"Not feasible: {two}" and level(result) == "bad"
    yes = replace(result, record=replace(result.record, feasible=True))
    assert headline(yes) == f"Feasible: overruns stay within 3\u00a0% on average; {two}" and level(yes) == "good"
    large = replace(yes, verified={"near_limit_mean_violation": 0.07})
    assert headline(large).startswith("Fits on average, but overruns are larger than 3") and level(large) == "fair"
    assert level(replace(yes, verified={"near_limit_mean_violation": None})) == "good"
    assert headline(replace(yes, week_verdicts=("fits",) * 26)) == "Feasible: the plan fits capacity in all 26 weeks."


def test_regret_is_shown_only_beside_the_pooled_one(result):
    assert "regret_ratio" not in [name for name, *_ in measure_rows(result)]
    pooled = replace(result, verified={**result.verified, "pooled_regret_ratio": 1.1})
    assert {"regret_ratio", "pooled_regret_ratio"} <= {name for name, *_ in measure_rows(pooled)}


def test_terminal_shows_verdict_and_weeks(result, easy_result):
    text = printed(console_summary(result))
    assert "Not feasible" in text and "already committed" in text and "2011-07-18" in text
    assert text.startswith("The plan costs 427,000: 412,000 for capacity and 15,000 of margin")
    assert "units are lost" in " ".join(text.split())
    assert "nan" not in printed(console_summary(easy_result))


def test_terminal_leaves_easy_weeks_to_the_file_and_reads_odd_names_literally(wide_result):
    text = printed(console_summary(wide_result))
    assert "more rows are in plan.csv" in text and text.count("2011-07-18") == 3
    odd = replace(wide_result, resources=("[red]", "[/]", "x"), verdict=("[bold]not markup[/bold]",))
    text = printed(console_summary(odd))
    assert "[red]" in text and "[bold]not markup[/bold]" in text
