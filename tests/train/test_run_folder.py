"""Records say what happened, no more and no less, however often a run was stopped.

Files are read as a notebook would.
"""

import json

import numpy as np
import pytest

from walras.errors import InputError
from walras.train.run_folder import Metrics, RunRecord, finite, machine, read_metrics


@pytest.fixture
def file(tmp_path):
    """Name the file of metrics."""
    return tmp_path / "metrics.jsonl"


def wrote(file, steps, after=-1) -> Metrics:
    """Write lines of some steps."""
    metrics = Metrics(file, after)
    for step in steps:
        metrics.add(step, {"loss": step / 4, **({"held_out_loss": 1.5} if step % 2 == 0 else {})}, 0.25)
    metrics.flush()
    return metrics


def test_metrics_come_back_as_columns(file):
    wrote(file, range(4)).sync()
    for place in (file, file.parent, str(file)):
        columns = read_metrics(place)
        assert columns["step"].tolist() == [0, 1, 2, 3] and columns["step"].dtype == int
        assert columns["loss"].tolist() == [0, 0.25, 0.5, 0.75] and columns["seconds"].tolist() == [0.25] * 4
        np.testing.assert_array_equal(columns["held_out_loss"], [1.5, np.nan, 1.5, np.nan])


def test_a_run_that_goes_on_writes_the_same_file(file):
    wrote(file, range(9))
    whole = file.read_bytes()
    for last, after in ((8, 3), (5, 5), (6, -1)):
        wrote(file, range(last + 1))
        with open(file, "ab") as end:
            end.write(b'{"step": 7, "lo')  # cut short by the end of the run
        wrote(file, range(after + 1, 9), after)
        assert file.read_bytes() == whole


def test_an_interrupted_flush_writes_nothing_twice(file, monkeypatch):
    wrote(file, range(6))
    whole = file.read_bytes()
    metrics = wrote(file, range(2))
    for step in (2, 3, 2, 4, 5, 5):
        metrics.add(step, {"loss": step / 4, **({"held_out_loss": 1.5} if step % 2 == 0 else {})}, 0.25)
    with open(file, "ab") as end:
        end.write(b'{"step": 2}\n{"st' + b"." * 999)  # as far as the first try came
    metrics.flush()
    metrics.flush()
    assert file.read_bytes() == whole


def test_what_is_no_number_is_null_with_a_reason(file):
    metrics = Metrics(file, -1)
    metrics.add(1, {"loss": float("nan"), "slope": -float("inf"), "size": float("inf"), "fine": 1}, 0.0)
    metrics.flush()
    line = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert line["loss"] is None and line["fine"] == 1
    assert line["reasons"] == {"loss": "not a number", "slope": "minus infinity", "size": "infinity"}
    assert np.isnan(read_metrics(file)["loss"]).all() and "reasons" not in read_metrics(file)
    assert finite({"a": 1.0}) == {"a": 1.0}


def test_missing_metrics_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"metrics.jsonl is missing; give the folder that a training wrote to"):
        read_metrics(tmp_path)


def test_the_record_says_what_was_run_and_how_it_ended(tmp_path):
    path = tmp_path / "run.json"
    command = ["/opt/tools/walras", "train", "buyer", "data/t.csv", "--out=/srv/me/out", "--rate", "C:\\me\\x"]
    record = RunRecord(path, {"rate": 0.1}, command)
    record.start(0)
    assert json.loads(path.read_text())["status"] == "running"
    record.end("interrupted", {"step": 4, "best_value": float("nan")})
    RunRecord(path, {"rate": 0.1}).start(4)
    found = json.loads(path.read_text())
    assert found["config"] == {"rate": 0.1} and found["status"] == "running" and "ended" not in found
    first, second = found["starts"]
    assert first["command"] == ["walras", "train", "buyer", "data/t.csv", "--out=out", "--rate", "x"]
    assert (first["step"], second["step"]) == (0, 4) and first["versions"]["jax"] == second["versions"]["jax"]


def test_an_ended_record_is_strict_json(tmp_path):
    RunRecord(tmp_path / "run.json", {}).end("finished", {"best_value": float("nan")})
    found = json.loads((tmp_path / "run.json").read_text(), parse_constant=pytest.fail)
    assert found["best_value"] is None and found["reasons"] == {"best_value": "not a number"}


@pytest.mark.parametrize("content", ["", "[1]", '{"starts": 3}', "{"])
def test_a_broken_record_is_begun_anew(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    RunRecord(tmp_path / "run.json", {}).start(0)
    assert len(json.loads((tmp_path / "run.json").read_text())["starts"]) == 1


def test_the_machine_is_described_and_not_named():
    import getpass
    import socket

    words = json.dumps(machine())
    assert socket.gethostname() not in words and machine()["cores"] >= 1
    assert f'"{getpass.getuser()}"' not in words and "/" not in words
