"""Ask of the times of whole commands that a missing table is said, and that a failed command is not a time."""

import importlib.util
from pathlib import Path

SPEC = importlib.util.spec_from_file_location("plan_times", Path(__file__).parents[2] / "benchmarks" / "plan.py")
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)


def test_a_row_without_its_table_says_what_to_give(tmp_path):
    [row] = [row for row in benchmark.ROWS if row.what == "M5"]
    line = benchmark.measured(row, {"retail": None, "m5": None}, tmp_path)
    assert line["seconds"] is None and "--m5" in benchmark.written(line)


def test_a_command_that_fails_is_noted(tmp_path):
    row = benchmark.Row("none", "plan {table}", 1, "m5", cold=True)
    line = benchmark.measured(row, {"m5": tmp_path / "missing.csv"}, tmp_path)
    assert line["exit_code"] == 2 and "missing.csv" in line["note"]
    assert line["seconds"] > 0 and line["gb"] > 0
