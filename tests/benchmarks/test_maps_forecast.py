"""The forecast benchmark measures what it prints, on untrained maps at tiny sizes."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lab.shift_cases import ShiftSizes
from walras.population.generate import generate_panel
from walras.train import primal_task as primal
from walras.train.agent_pool import AgentPool

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = ("maps_forecast", "measure")
SIZES = ShiftSizes(target=32, sample=24, weeks=98, origins=2, spacing=4, priced=10, steps=4)


@pytest.fixture(scope="module")
def benchmark():
    """Import the benchmark as its own command does: beside its helpers, which then are forgotten."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("maps_forecast")
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def told(benchmark, tmp_path_factory):
    """Run the command once on a tiny stored pool; return its answer."""
    folder = tmp_path_factory.mktemp("maps")
    AgentPool.from_panel(generate_panel(80, 150, 5), seed=5, refit_weeks=13).save(folder / "some.walras")
    small = {"cohort": 24, "alphas": {"demand": (0.0, 1.0)}, "paths": 2, "draws": 2, "twins": 1, "twin_agents": 32}
    few = {"cohorts": (24,), "draws_of_cohorts": 1, "epoch_agents": 32, "epoch_rounds": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "QUICK", replace(benchmark.QUICK, sizes=SIZES, **small, **few))
        patch.setattr(benchmark, "EPOCH_REPRESENTATION", "global")
        patch.setattr(benchmark, "TRAINED_WEEKS", 98)
        patch.setattr("lab.twins.TOLERANCE", 0.3)
        patch.setattr(primal, "EXAMPLES", 1)
        patch.setattr(primal, "VALIDATION", 1)
        lines = []
        patch.setattr(sys, "stdout", type("Out", (), {"write": lambda _, text: lines.append(text), "flush": id})())
        words = ["--quick", "--json", "--agent-pool", str(folder / "some.walras"), "--out", str(folder / "out.json")]
        benchmark.main(words)
    return json.loads("".join(lines).splitlines()[-1]), folder


def test_errors_are_told_by_alpha_and_representation(told):
    mape = told[0]["mape"]
    assert set(mape) == {"0.0", "1.0"}
    for row in mape.values():
        assert set(row) == {"bucketized", "global", "expected demand", "simulation"} and min(row.values()) > 0.0
    row = told[0]["shift"]["demand"]["by_alpha"]["1.0"]
    assert row["demand_ratio"] > 1.0 and row["paths"] == 2
    estimate, low, high = row["over_baseline"]["bucketized"]
    assert low <= estimate <= high
    assert estimate == pytest.approx(row["mape"]["bucketized"] / row["mape"]["global"] - 1, abs=1e-4)


def test_every_horizon_week_is_told(told):
    assert {len(weeks) for weeks in told[0]["shift"]["demand"]["by_horizon_week"].values()} == {26}


def test_who_sees_no_difference_between_twins_misses_all_of_it(told):
    for row in told[0]["twins"].values():
        assert row["twin_error_to_simulation"]["simulation"] == 0.0 and row["difference"] > 0.0


def test_both_ways_to_encode_have_one_loss(told):
    epoch = told[0]["epoch"]
    assert epoch["loss"]["windows"] == pytest.approx(epoch["loss"]["one_pass"], rel=1e-4)
    assert epoch["epoch_ratio_windows"] > 0.0


def test_cohorts_have_a_predicted_and_a_measured_error(told):
    rows = told[0]["cohorts"]
    assert {row["design"] for row in rows} == {"uniform", "stratified", "proportional"}
    assert all(row["predicted"] > 0.0 and row["mape"] > 0.0 for row in rows)


def test_figures_are_written_and_a_table_printed(told, benchmark):
    found, folder = told
    assert json.loads((folder / "out.json").read_text()) == found
    assert "alpha" in benchmark.table(found) and "twins that agree" in benchmark.table(found)


def test_a_world_that_is_not_there_is_told_in_one_sentence(benchmark, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(["--agent-pool", str(tmp_path / "none.walras")])
    assert stopped.value.code == 2 and capsys.readouterr().err.count("\n") == 1
