"""The simulator benchmark does the same work on both sides, and prints what it promises; speeds are not tested."""

import importlib.util
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "benchmarks"
HELPERS = ("bare_scan", "measure", "numpy_loop", "packages", "table", "workloads")
AGENTS = 60
RATIOS = {"bare_forward_ratio", "bare_gradient_ratio", "full_forward_ratio", "full_gradient_ratio"}
PROMISED = RATIOS | {"flatness", "gradient_over_forward", "peak_gb", "blocks", "load_average_at_start"}


@pytest.fixture(scope="module")
def benchmark():
    """Import the benchmark as its own command does: beside its helpers, which then are forgotten."""
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("simulator_benchmark", FOLDER / "simulator.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["simulator_benchmark"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("simulator_benchmark", *HELPERS):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def paths(benchmark):
    """Draw the demand and prices that all do."""
    return benchmark.poisson_demand(AGENTS), jnp.asarray(benchmark.price_path())


def test_ours_does_the_work_of_the_bare_scan(benchmark, paths):
    demand, prices = paths
    receipts, money, _ = benchmark.bare_forward(20)(demand, prices)
    for record in benchmark.RECORDS.values():
        totals = benchmark.bare_workload(demand).forward(record)
        np.testing.assert_allclose(totals.utilization[:, 0], receipts, rtol=1e-5, atol=1e-2)
        np.testing.assert_allclose(totals.reward, money, rtol=1e-5, atol=1e-1)
    assert np.ptp(receipts[10:]) > 0


@pytest.mark.parametrize("around", [lambda run: run, jax.checkpoint], ids=["plain", "checkpoint"])
def test_the_gradients_are_one(benchmark, paths, around):
    demand, prices = paths
    record = next(iter(benchmark.RECORDS.values()))
    ours = benchmark.bare_workload(demand).gradient(record)[:, 0]
    np.testing.assert_allclose(benchmark.bare_gradient(20, around)(prices, demand), ours, rtol=1e-4, atol=1e-2)
    assert np.abs(ours).max() > 1


def test_numpy_does_the_same_in_any_blocks(benchmark, paths):
    demand, prices = paths
    expected = benchmark.bare_forward(AGENTS)(demand, prices)[:2]
    for block in (AGENTS, 7):
        found = benchmark.numpy_loop(np.asarray(demand), np.asarray(prices), block)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=0.1)


def test_simpy_does_the_same(benchmark, paths):
    pytest.importorskip("simpy")
    demand, prices = (np.asarray(values) for values in paths)
    expected = benchmark.numpy_loop(demand[:, :5], prices, 5)
    np.testing.assert_allclose(benchmark.simpy_stores(demand[:, :5], prices), expected, rtol=1e-4, atol=0.1)


def test_the_full_workload_uses_everything(benchmark):
    load = benchmark.full_workload(AGENTS)
    record = next(iter(benchmark.RECORDS.values()))
    totals, slope = load.forward(record), load.gradient(record)
    assert 0 < float(totals.lost_sales.sum() / totals.demand.sum()) < 0.2
    assert slope.shape == (benchmark.WEEKS, 1) and np.isfinite(slope).all() and np.count_nonzero(slope) > 100
    assert len(np.unique(load.exogenous.arrivals.weeks)) > 4
    paths = load.exogenous
    by_week_and_agent = (paths.demand, paths.sale_price, paths.unit_cost, paths.lead_demand_mean, paths.lead_demand_sd)
    read = sum(array.dtype.itemsize for array in (*by_week_and_agent, paths.arrivals.weeks))
    assert read == load.bytes_each


def test_agents_drawn_are_repeated(benchmark):
    drawn = np.arange(6.0).reshape(2, 3)
    assert sys.modules["workloads"].repeat(drawn, 7).tolist() == [[0, 1, 2, 0, 1, 2, 0], [3, 4, 5, 3, 4, 5, 3]]


def test_the_command_prints_and_writes_what_it_promises(benchmark, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "version_of", lambda name: None)  # packages count as missing: their rows say so
    monkeypatch.setattr(benchmark, "peak_apart", lambda agents, gradient: benchmark.peak(agents, gradient))
    out = tmp_path / "results" / "simulator.json"
    benchmark.main(["--quick", "--agents", str(AGENTS), "--json", "--out", str(out)])
    (line,) = capsys.readouterr().out.splitlines()
    answer = json.loads(line)
    assert PROMISED <= set(answer) and answer["reference_agents"] == answer["peak_agents"] == AGENTS
    assert all(answer[name] > 0 for name in (*RATIOS, "gradient_over_forward"))
    assert 0.05 < answer["peak_gb"] < 8
    written = json.loads(out.read_text())
    assert [path.name for path in out.parent.iterdir()] == ["simulator.json"]
    assert written["figures"] == answer and written["machine"]["versions"]["jax"] == jax.__version__
    missing = [row for row in written["rows"] if row["seconds"] is None]
    assert {row["note"].split()[2] for row in missing} == {"simpy", "stockpyl"}
    for row in written["rows"]:
        assert row["command"] == written["command"] and row["weeks"] == 156
        assert row in missing or (row["ratio_to_bare"] > 0 and row["versions"])


def test_the_table_has_a_line_for_every_row(benchmark, capsys):
    row = benchmark.Row("bare scan", "forward", 1000, 156, "typed", seconds=0.5, ratio_to_bare=1.0, block="500")
    benchmark.show([row, benchmark.Row("SimPy", "forward", 10, 156, "typed", note="not measured")], "typed")
    lines = capsys.readouterr().out.splitlines()
    assert "0.312" in lines[2] and lines[2].endswith("500")
    assert " - " in lines[3] and lines[3].endswith("not measured")


def test_flatness_compares_times_at_large_sizes(benchmark):
    only = benchmark.Benchmark(benchmark.Effort(sizes=(1_000, 10_000)), "typed")
    found = benchmark.Benchmark(benchmark.Effort(sizes=(1_000, 10_000, 20_000)), "typed")
    for agents, seconds in ((1_000, 9.0), (10_000, 1.0), (20_000, 3.0)):
        found.rows.append(
            benchmark.Row(f"walras, full, {benchmark.LEANEST}", "forward", agents, 156, "typed", seconds=seconds)
        )
    assert found._flatness() == pytest.approx(1.5)
    only.rows.extend(found.rows)
    assert only._flatness() is None


def test_a_size_that_is_none_is_refused(benchmark, capsys):
    for wrong in ("0", "-5", "many"):
        with pytest.raises(SystemExit):
            benchmark.main(["--agents", wrong])
        assert capsys.readouterr().err


def test_the_share_of_the_bandwidth_is_told_where_it_is_known(benchmark, monkeypatch):
    assert benchmark._share(1_000, 4, 1.0) is None or jax.default_backend() != "cpu"
    device = type("Device", (), {"device_kind": "NVIDIA H200"})()
    monkeypatch.setattr(jax, "devices", lambda: [device])
    assert benchmark._share(1_000_000, 21, 0.001) == pytest.approx(1_000_000 * 156 * 21 / 0.001 / 4.8e12)


def test_slow_calls_are_repeated_less_often(benchmark):
    calls = []
    assert benchmark.medians({"one": lambda: calls.append(1)}, 9, patience=0.0, fewest=2)[1] == 2
    assert len(calls) == 3  # the first one compiles
