"""Hold the reading of tables to its written rules."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from walras.data.read import read_panel
from walras.errors import InputError, SettingsError

MONDAY = datetime.date(2024, 1, 1)


def monday(week: int) -> datetime.date:
    return MONDAY + datetime.timedelta(days=7 * week)


def weekly_rows() -> dict[str, list]:
    """Two products over four weeks; b starts in the second week and misses the third."""
    return {
        "unique_id": ["b", "a", "a", "a", "a", "b"],
        "ds": [monday(1), monday(0), monday(2), monday(1), monday(3), monday(3)],
        "units": [5, 1, 3, 2, 4, 6],
        "price": [2.0, None, 1.5, 1.0, None, None],
    }


def test_a_weekly_table_becomes_time_major_arrays():
    panel = read_panel(pa.table(weekly_rows()))
    assert panel.agents.tolist() == ["a", "b"]
    assert panel.weeks.tolist() == [monday(week) for week in range(4)]
    np.testing.assert_array_equal(panel.units, [[1, 0], [2, 5], [3, 0], [4, 6]])
    np.testing.assert_array_equal(panel.on_sale, [[True, False], [True, True], [True, True], [True, True]])
    np.testing.assert_array_equal(panel.price, [[1.0, 2.0], [1.0, 2.0], [1.5, 2.0], [1.5, 2.0]])
    assert panel.provenance == {"units": "given", "price": "given, gaps filled"}
    assert any("1 product-week of 1 product without a record inside its series" in note for note in panel.notes)


@pytest.mark.parametrize("kind", ["arrow", "pandas", "polars", "polars categorical", "parquet", "csv", "semicolons"])
def test_every_kind_of_source_gives_the_same_panel(kind, tmp_path):
    table = pa.table(weekly_rows())
    frame = pl.DataFrame(weekly_rows())
    path = tmp_path / ("table.parquet" if kind == "parquet" else "table.csv")
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        frame.write_csv(path, separator=";" if kind == "semicolons" else ",")
    sources = {
        "arrow": table,
        "pandas": pd.DataFrame(weekly_rows()),
        "polars": frame,
        "polars categorical": frame.with_columns(pl.col("unique_id").cast(pl.Categorical)),
    }
    panel = read_panel(sources.get(kind, path))
    expected = read_panel(table)
    for name in ("agents", "weeks", "units", "on_sale", "price"):
        np.testing.assert_array_equal(getattr(panel, name), getattr(expected, name))


def test_identifiers_keep_their_leading_zeros_in_csv(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("unique_id,ds,units\n007,2024-01-01,1\n7,2024-01-01,2\nNA,2024-01-01,3\n")
    assert read_panel(path).agents.tolist() == ["007", "7", "NA"]


def test_columns_are_mapped_and_unknown_ones_are_noted():
    rows = weekly_rows()
    rows["qty"] = rows.pop("units")
    rows["colour"] = ["red"] * 6
    panel = read_panel(pa.table(rows), columns={"units": "qty"})
    assert panel.units.sum() == 21
    assert any("not used: colour" in note for note in panel.notes)


@pytest.mark.parametrize("columns", [{"unit": "qty"}, {"units": "nowhere"}, {"units": "price", "price": "price"}])
def test_a_wrong_mapping_is_refused(columns):
    with pytest.raises(SettingsError, match="column mapping"):
        read_panel(pa.table(weekly_rows()), columns=columns)


def daily_rows(days: int) -> dict[str, list]:
    return {
        "unique_id": ["a"] * days,
        "ds": [MONDAY + datetime.timedelta(days=day) for day in range(days)],
        "units": list(range(days)),
        "price": [1.0] * days,
        "on_hand": list(range(100, 100 + days)),
    }


def test_a_daily_table_is_summed_to_weeks_that_end_with_its_last_day():
    panel = read_panel(pa.table(daily_rows(17)))  # 3 days, then two whole weeks
    assert panel.weeks.tolist() == [datetime.date(2024, 1, 4), datetime.date(2024, 1, 11)]
    np.testing.assert_array_equal(panel.units[:, 0], [sum(range(3, 10)), sum(range(10, 17))])
    np.testing.assert_array_equal(panel.on_hand[:, 0], [109, 116])
    assert any("daily" in note and "Thursday" in note for note in panel.notes)
    assert any("the first 3 days (3 rows)" in note for note in panel.notes)


def test_daily_rows_of_one_product_and_day_add_up_and_prices_are_weighted_by_units():
    rows = {
        "unique_id": ["a"] * 3,
        "ds": [datetime.datetime(2024, 1, 1, 9), datetime.datetime(2024, 1, 1, 17), datetime.datetime(2024, 1, 7, 8)],
        "units": [1, 2, 1],
        "price": [1.0, 4.0, None],
    }
    panel = read_panel(pa.table(rows))
    assert panel.units.tolist() == [[4.0]]
    assert panel.price[0, 0] == pytest.approx(3.0)


def test_weekly_dates_on_several_weekdays_are_read_as_daily_and_said_so():
    rows = {"unique_id": ["a"] * 3, "ds": [monday(0), monday(1), datetime.date(2024, 1, 16)], "units": [1, 2, 3]}
    panel = read_panel(pa.table(rows))
    assert panel.units.tolist() == [[2.0], [3.0]]
    assert any("the first 2 days (1 row) do not fill a week and were dropped" in note for note in panel.notes)
    assert any("several weekdays (Monday 67%, Tuesday 33%)" in note for note in panel.notes)


def test_monthly_dates_are_refused():
    rows = {"unique_id": ["a"] * 4, "ds": [datetime.date(2024, month, 1) for month in range(1, 5)], "units": [1] * 4}
    with pytest.raises(InputError, match="one date per month"):
        read_panel(pa.table(rows))


def test_rows_before_the_first_price_and_sale_are_not_on_sale():
    rows = {
        "unique_id": ["a"] * 4,
        "ds": [monday(week) for week in range(4)],
        "units": [0, 0, 0, 2],
        "price": [None, None, 3.0, 3.0],
    }
    panel = read_panel(pa.table(rows))
    assert panel.on_sale[:, 0].tolist() == [False, False, True, True]
    assert any("2 rows of 1 product before the first price" in note for note in panel.notes)


def test_the_forecast_follows_the_last_week():
    rows = weekly_rows()
    ahead = {"unique_id": ["a", "a", "b", "new"], "ds": [monday(4), monday(5), monday(5), monday(4)]}
    table = pa.concat_tables(
        [pa.table(rows), pa.table({**ahead, "forecast": [7.0, 8.0, 9.0, 1.0]})], promote_options="default"
    )
    panel = read_panel(table)
    assert panel.agents.tolist() == ["a", "b", "new"]
    np.testing.assert_array_equal(panel.forecast, [[7, np.nan, 1], [8, 9, np.nan]])
    assert panel.n_weeks == 4
    assert any("1 product without history are planned by their forecast alone: new" in note for note in panel.notes)


def test_a_forecast_off_the_weekly_grid_is_refused():
    ahead = pa.table({"unique_id": ["a"], "ds": [datetime.date(2024, 1, 30)], "forecast": [1.0]})
    with pytest.raises(InputError, match="data row 7, a forecast for a Tuesday; its weeks start on Monday"):
        read_panel(pa.concat_tables([pa.table(weekly_rows()), ahead], promote_options="default"))


def test_the_static_table_is_joined_and_wins_over_the_long_table():
    rows = {**weekly_rows(), "lead_time": [9.0, None, 1.0, None, 3.0, 9.0], "vendor": ["x"] * 6}
    static = {"unique_id": ["b", "c"], "lead_time": [2, 5], "category": ["toys", "food"], "unit_cost": [0.5, 1.0]}
    panel = read_panel(pa.table(rows), static=pa.table(static))
    assert panel.lead_time.tolist() == [3.0, 2.0]
    assert panel.category.tolist() == ["not recorded", "toys"]
    assert panel.vendor.tolist() == ["x", "x"]
    assert panel.unit_cost[:, 1].tolist() == [0.5] * 4
    assert any("1 product not in the static table: a" in note for note in panel.notes)


def test_one_product_and_one_week_is_enough():
    panel = read_panel(pa.table({"unique_id": [1], "ds": ["2024-01-01"], "units": [3]}))
    assert panel.units.tolist() == [[3.0]]
    assert panel.agents.tolist() == ["1"]


@pytest.mark.parametrize(
    ("field", "row", "value", "words"),
    [
        ("units", 2, -3, "`units` of the table is -3.0 in data row 3; it must be 0 or more"),
        ("units", 4, None, "`units` of the table is empty or not a number in data row 5"),
        ("units", 1, float("inf"), "`units` of the table is inf in data row 2; it needs a finite number"),
        ("units", 3, float("nan"), "`units` of the table is empty or not a number in data row 4"),
        ("price", 0, -0.5, "`price` of the table is -0.5 in data row 1"),
        ("unique_id", 5, None, "`unique_id` of the table is empty in data row 6"),
        ("unique_id", 5, " ", "`unique_id` of the table is empty in data row 6"),
        ("ds", 2, None, "`ds` of the table is empty in data row 3"),
        ("ds", 3, monday(2), "repeat in data row 4: product a already has the week of 2024-01-15 in data row 3"),
        ("ds", 1, datetime.date(1024, 1, 1), "more than fifty years"),
    ],
)
def test_a_bad_cell_is_named_with_its_row_and_field(field, row, value, words):
    rows = weekly_rows()
    if field == "units":
        rows["units"] = [float(units) for units in rows["units"]]
    rows[field][row] = value
    with pytest.raises(InputError) as refusal:
        read_panel(pa.table(rows))
    assert words in str(refusal.value)


def test_mixed_types_of_a_pandas_column_name_the_row():
    frame = pd.DataFrame({**weekly_rows(), "units": [1, 2, "many", 4, 5, 6]})
    with pytest.raises(InputError, match=r"`units` of the table mixes int with str \(data row 3\)"):
        read_panel(frame)


def test_text_among_numbers_of_a_csv_names_the_row(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("unique_id,ds,units\na,2024-01-01,1\na,2024-01-08,two\n")
    with pytest.raises(InputError, match=r"`units` of table.csv is two in data row 2; it needs a number"):
        read_panel(path)


def test_a_ragged_row_of_a_csv_is_counted_without_the_header(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("unique_id,ds,units\na,2024-01-01,1\na,2024-01-08\n")
    with pytest.raises(InputError, match=r"table.csv has 2 fields in data row 2 but its header names 3"):
        read_panel(path)


def test_the_order_of_rows_does_not_matter():
    table = pa.table(weekly_rows())
    shuffled = table.take(pa.array([3, 0, 5, 1, 4, 2]))
    np.testing.assert_array_equal(read_panel(shuffled).units, read_panel(table).units)
    np.testing.assert_array_equal(read_panel(shuffled).price, read_panel(table).price)


def test_reading_the_summed_daily_table_gives_the_same_as_the_weekly_one():
    rng = np.random.default_rng(3)
    ids = [f"p{product}" for product in range(20) for _ in range(70)]
    dates = [MONDAY + datetime.timedelta(days=day) for _ in range(20) for day in range(70)]
    units = rng.poisson(2.0, size=1400)
    daily = pd.DataFrame({"unique_id": ids, "ds": pd.to_datetime(dates), "units": units})
    weekly = daily.groupby(["unique_id", pd.Grouper(key="ds", freq="W-MON", closed="left", label="left")]).sum()
    np.testing.assert_array_equal(read_panel(daily).units, read_panel(weekly.reset_index()).units)
    np.testing.assert_array_equal(read_panel(daily).weeks, read_panel(weekly.reset_index()).weeks)


def test_attributes_that_change_within_a_product_are_the_last_recorded(tmp_path):
    rows = ["unique_id,ds,units,lead_time,volume,vendor"]
    rows += [f"A,2024-01-{1 + 7 * week:02},5,2,1.5,x" for week in range(4)]
    rows += [f"B,2024-01-{1 + 7 * week:02},5,{1 + week},1.5,{'xy'[week // 2]}" for week in range(4)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(rows))
    panel = read_panel(path)
    np.testing.assert_array_equal(panel.lead_time, [2, 4])
    np.testing.assert_array_equal(panel.volume, [1.5, 1.5])
    assert panel.vendor.tolist() == ["x", "y"]
