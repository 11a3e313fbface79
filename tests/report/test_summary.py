"""Own the promise of `report.json`: strict JSON, stable keys, None for what is missing."""

import json

import numpy as np
import report_example

from walras.planning.result import Search
from walras.report.summary import plain, summary, summary_line

NEEDED = {
    "feasible", "capacity", "utilization", "shadow_prices", "weeks", "verified", "verified_fixed", "intervals",
    "assumed_columns", "money", "counts", "seconds", "stages",
}  # fmt: skip


def strict(text: str) -> dict:
    """Read JSON and refuse NaN and Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_keys_and_values_of_each_week(wide_result):
    read = strict(summary_line(wide_result))
    assert set(read) >= NEEDED
    assert read["weeks"][:2] == ["2011-07-04", "2011-07-11"] and len(read["weeks"]) == 26
    for name in ("capacity", "utilization", "shadow_prices"):
        assert list(read[name]) == list(wide_result.resources)
    np.testing.assert_array_equal(read["capacity"]["storage units"], wide_result.record.capacity[:, 2])
    np.testing.assert_array_equal(read["shadow_prices"]["inbound units"], wide_result.record.shadow_prices[:, 0])
    np.testing.assert_array_equal(
        read["verified_utilization"]["p95"]["inbound units"], wide_result.verified_utilization[2, :, 0]
    )
    assert read["feasible"] is False


def test_assumed_columns_and_seconds(result):
    read = summary(result)
    assert read["assumed_columns"] == ["lead_time", "unit_cost"]
    assert read["seconds"] == 93.4
    assert "total" not in read["stages"] and read["stages"]["planning"] == 51.0


def test_stages_add_up_without_a_total(result):
    from dataclasses import replace

    assert summary(replace(result, seconds={"reading": 1.5, "planning": 2.0}))["seconds"] == 3.5


def test_missing_numbers_are_null():
    prices = report_example.plan().reissued_prices.copy()
    prices[3, 0] = np.nan
    verified = {"mean_violation": float("nan"), "near_limit_mean_violation": None, "reward_kept": 0.5}
    read = strict(summary_line(report_example.plan(reissued_prices=prices, verified=verified)))
    assert read["reissued_prices"]["inbound units"][3] is None
    assert read["verified"] == {"mean_violation": None, "near_limit_mean_violation": None, "reward_kept": 0.5}


def test_plain_handles_what_settings_may_hold(tmp_path):
    given = {"path": tmp_path, 3: np.int64(4), "flag": np.bool_(True), "when": np.datetime64("2011-07-04"), "s": {1}}
    assert plain(given) == {"path": str(tmp_path), "3": 4, "flag": True, "when": "2011-07-04", "s": [1]}
    assert plain(np.asarray([1.0, np.inf])) == [1.0, None]


def test_reading_is_timed_once(result):
    from dataclasses import replace

    read = summary(replace(result, seconds={"reading": 2.1, "Reading the table": 2.0, "planning": 1.0}))
    assert read["stages"] == {"Reading the table": 2.0, "planning": 1.0} and read["seconds"] == 3.0


def test_what_was_asked_is_told(result):
    from dataclasses import replace

    read = strict(summary_line(result))
    assert (read["interface"], read["maps"], read["outside_training"]) == ("simulated", None, False)
    assert read["outside_training_reasons"] == read["map_errors"] == []
    asked = Search("learned", "retail", 120, 4, 2, 50, (0.2, 0.1), ("the history has 3 weeks",))
    read = strict(summary_line(replace(result, search=asked)))
    assert (read["interface"], read["maps"], read["outside_training"]) == ("learned", "retail", True)
    assert read["outside_training_reasons"] == ["the history has 3 weeks"] and read["map_errors"] == [0.2, 0.1]
    assert (read["simulations"], read["simulations_of_everybody"], read["cohort"]) == (4, 2, 50) and read[
        "moved"
    ] is None
