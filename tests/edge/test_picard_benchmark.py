"""Ask whether the benchmark of the parallel engine prints what it promises and refuses nonsense; no speeds."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "benchmarks"
HELPERS = ("compiled_fulfilment", "picard_table", "table")
TINY = "--orders 40 --products 7 --centres 3 --beta -0.8 --capacity 0.5 --repeats 1 --tile 16 --json"
PROMISED = {"exact", "centres_exhausted", "rounds", "calls_per_order", "encode_calls_per_order", "serial_steps"}
PROMISED |= {"seconds", "sequential_device_s", "sequential_cpu_s", "time_warp_s", "floor_s"}


@pytest.fixture(scope="module")
def benchmark():
    """Import the benchmark as its own command does: beside its helpers, which then are forgotten."""
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("picard_benchmark", FOLDER / "picard_fulfilment.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))
        for name in HELPERS:
            sys.modules.pop(name, None)


def called(benchmark, monkeypatch, words: str) -> None:
    """Call the benchmark as its command does."""
    monkeypatch.setattr(sys, "argv", ["picard_fulfilment.py", *words.split()])
    benchmark.main()


def test_the_command_prints_what_it_promises(benchmark, monkeypatch, capsys):
    called(benchmark, monkeypatch, TINY)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert PROMISED <= set(found)
    assert found["exact"] is True and found["converged"] is True and found["compared_orders"] == 40
    assert set(found["exact_by"]) >= {"sequential_device", "time_warp"}
    assert found["rounds"] >= 1 and found["seconds"] > 0 and found["sequential_device_s"] > 0


@pytest.mark.parametrize(
    "words, said",
    [
        ("--window abc", "argument --window: 'abc' is no whole number of at least 1"),
        ("--window 0", "argument --window: '0'"),
        ("--window 500 --orders 100", "--window is 500 but there are only 100 orders"),
        ("--repeats 0", "argument --repeats: '0'"),
        ("--sequential-orders 0", "argument --sequential-orders: '0'"),
        ("--orders -5", "argument --orders: '-5'"),
    ],
)
def test_nonsense_is_one_sentence(benchmark, monkeypatch, capsys, words, said):
    with pytest.raises(SystemExit) as stop:
        called(benchmark, monkeypatch, words)
    told = capsys.readouterr()
    assert stop.value.code == 2 and told.out == "" and said in told.err.splitlines()[-1]
