"""The price-pulse benchmark measures what it prints, on an untrained buyer at tiny sizes."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from buyers import untrained

from walras.policies.buyer import BuyerShape
from walras.train.buyer_training import save_buyer

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = ("buyer_pulse", "buyer_pulse_picture", "measure")
WORDS = ("--agents", "60", "--holdout", "14", "--draws", "2", "--rounds", "1", "--episode-agents", "16", "--json")


@pytest.fixture(scope="module")
def benchmark():
    """Import the benchmark as its own command does: beside its helpers, which then are forgotten."""
    sys.path.insert(0, str(FOLDER))
    try:
        module = importlib.import_module("buyer_pulse")
        module.MADE_UP_WEEKS = 44
        yield module
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def told(benchmark, tmp_path_factory):
    """Run the command once with an untrained buyer; return its answer and its folder."""
    folder = tmp_path_factory.mktemp("pulse")
    save_buyer(folder / "some.walras", untrained(BuyerShape(history=0, hidden=(4,), open_orders=1)), {"steps": 0})
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr(sys, "stdout", type("Out", (), {"write": lambda _, text: lines.append(text), "flush": id})())
        benchmark.main(["--buyer", str(folder / "some.walras"), "--out", str(folder / "out"), *WORDS])
    return json.loads("".join(lines).splitlines()[-1]), folder / "out"


@pytest.mark.parametrize("name", ["buyer", "newsvendor"])
def test_without_a_pulse_all_is_as_it_was(told, name):
    found = told[0]["policies"][name]
    weeks = len(found["weeks"])
    assert found["weeks"][0] == -10 and found["weeks"][-1] == 6
    assert found["receipts_percent"][0] == found["orders_percent"][0] == pytest.approx([100.0] * weeks)
    assert {share for share in found["use_by_bucket_percent"][0] if share is not None} == {100.0}


def test_a_pulse_changes_what_comes_in_its_week(told):
    found = told[0]["policies"]["buyer"]
    at, received = found["weeks"].index(0), found["receipts_in_pulse_week"]
    assert received[-1] < 0.99 * received[0]
    percent = [row[at] for row in found["receipts_percent"]]
    np.testing.assert_allclose(np.array(received) / received[0], np.array(percent) / 100, atol=1e-3)
    assert found["monotone"] == all(np.diff(received) <= 1e-5 * received[0] + 0.011)


def test_elasticities_agree_with_the_derivative(told):
    at = told[0]["policies"]["buyer"]["elasticity"]
    assert {name: found["price"] for name, found in at.items()} == {"small": 0.1, "large": 1.0}
    assert at["small"]["total"] < -0.05 and len(at["small"]["by_bucket"]) == 10
    assert at["large"]["total"] == pytest.approx(at["large"]["total_by_derivative"], abs=0.1)


def test_times_add_up(told):
    simulated, training = told[0]["simulate"], told[0]["training"]
    assert sum(simulated[f"{name}_share"] for name in ("policy", "simulator", "rest")) == pytest.approx(1.0)
    assert sum(training[f"{name}_share"] for name in ("draw", "update")) == pytest.approx(1.0)
    assert training["agents"] == 16 and min(training["seconds"].values()) > 0
    assert simulated["agent_weeks"] % (2 * 36 * simulated["agents"]) == 0


def test_the_picture_is_written_whole(told):
    (path,) = told[1].iterdir()
    assert path.name == "buyer_pulse.png" and path.read_bytes()[:4] == b"\x89PNG"


def test_numbers_that_rise_are_not_monotone(benchmark):
    assert benchmark.falls(np.array([5.0, 4.0, 4.0, 1.0])) and not benchmark.falls(np.array([5.0, 4.0, 4.1]))


def test_a_bucket_without_use_has_no_share(benchmark):
    assert benchmark.in_shares(np.array([1.0, 3.0]), np.array([0.0, 6.0])) == [None, 0.5]


@pytest.mark.parametrize(
    "words, sentence",
    [(["--holdout", "5"], "--holdout needs at least 13"), (["--buyer", "nowhere.walras"], "nowhere.walras")],
)
def test_mistakes_end_in_a_sentence(benchmark, capsys, words, sentence):
    with pytest.raises(SystemExit):
        benchmark.main(words)
    assert sentence in capsys.readouterr().err
