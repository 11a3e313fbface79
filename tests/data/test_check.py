"""Hold the look at a table to finding every problem at once."""

import datetime

import pyarrow as pa

from walras.data.check import check_table

DAY = datetime.date(2024, 1, 1)


def test_a_good_table_is_described():
    days = [DAY + datetime.timedelta(days=7 * week) for week in range(4)]
    found = check_table(
        pa.table({"unique_id": ["a"] * 4 + ["b"] * 4, "ds": [*days, *days], "units": [1] * 8, "odd": [0] * 8})
    )
    assert (found.rows, found.agents, found.weeks, found.first_week) == (8, 2, 4, "2024-01-01")
    assert found.ok and any("odd" in note for note in found.notes)
    assert found.as_dict()["columns"] == {"unique_id": "unique_id", "ds": "ds", "units": "units"}


def test_every_problem_is_listed():
    rows = {
        "unique_id": ["a", None, "b"],
        "ds": ["2024-01-01", "soon", "2024-01-08"],
        "units": [1, 2, -3],
        "price": ["1.0", "x", "y"],
    }
    found = check_table(pa.table(rows))
    assert not found.ok and found.rows == 3
    for words in (
        "`unique_id` of the table is empty in data row 2",
        "`ds` of the table is soon in data row 2",
        "`units` of the table is -3 in data row 3",
        "`price` of the table is x in data row 2 (2 such rows in all)",
    ):
        assert any(words in problem for problem in found.problems), (words, found.problems)


def test_no_table_is_a_problem_too(tmp_path):
    found = check_table(tmp_path / "nowhere.csv")
    assert found.rows == 0 and len(found.problems) == 1 and "there is no file" in found.problems[0]
