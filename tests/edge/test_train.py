"""`walras train` reads its settings, trains, resumes, and ends in one line; a linear model stands in for the buyer."""

import json
import os
import signal
import subprocess
import sys
import time
import types

import pytest
from fit_run import LineTask

import walras
from walras.cli import app
from walras.train.loop import train
from walras.train.settings import BuyerTraining, read_training

SLOWLY = """
import sys, time, types
from fit_run import LineTask
from walras.train.loop import train
stand_in = types.ModuleType("walras.train.buyer_training")
def train_buyer(panel, settings, folder, **named):
    return train(LineTask(hook=lambda number: time.sleep(0.02)), settings, folder, **named)
stand_in.train_buyer = train_buyer
sys.modules[stand_in.__name__] = stand_in
from walras.cli import run_program
run_program()
"""


@pytest.fixture
def calls(monkeypatch):
    """Put a line in the place of the buyer; list what it was called with."""
    seen = []

    def train_buyer(panel, settings, folder, **named):
        seen.append((panel, settings, named["resume"]))
        return train(LineTask(), settings, folder, **named)

    stand_in = types.ModuleType("walras.train.buyer_training")
    stand_in.train_buyer = train_buyer
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    monkeypatch.setattr(walras.train, "buyer_training", stand_in, raising=False)
    return seen


def run(capsys, *words: str) -> tuple[int, str, str]:
    """Run a command and give its exit code, stdout and stderr."""
    code = app.main(["train", "buyer", *words])
    caught = capsys.readouterr()
    return code, caught.out, caught.err


def test_the_command_trains_and_says_so(calls, capsys, tmp_path):
    code, out, err = run(capsys, "--out", str(tmp_path / "a" / "b"), "--steps", "20", "--seed", "3")
    assert code == 0 and err == "" and calls[0][0] is None
    assert "20 steps in" in out and "all steps were done" in out and "Best after step 20, with" in out
    assert out.splitlines()[-1] == f"wrote {tmp_path / 'a' / 'b' / 'fitted.walras'}"


def test_the_last_line_is_one_object(calls, capsys, tmp_path):
    _, out, _ = run(capsys, "--out", str(tmp_path), "--steps", "20", "--json")
    answer = json.loads(out.splitlines()[-1])
    assert answer["step"] == 20 and answer["stopped"] == "steps" and answer["notes"] == []
    assert answer["files"] == [str(tmp_path / "fitted.walras")]


def test_a_table_is_read_and_handed_on(calls, capsys, tmp_path):
    rows = [f"{name},2024-01-{day:02d},{day}" for name in "ab" for day in (1, 8, 15, 22, 29)]
    (tmp_path / "t.csv").write_text("sku,ds,units\n" + "\n".join(rows) + "\n")
    (tmp_path / "t.toml").write_text('steps = 11\nlearning_rate = 0.5\n[columns]\nunique_id = "sku"\n')
    words = [str(tmp_path / "t.csv"), "--settings", str(tmp_path / "t.toml"), "--out", str(tmp_path), "--steps", "3"]
    code, _, err = run(capsys, *words)
    assert (code, err) == (0, "")
    (panel, settings, resume) = calls[0]
    assert panel.n_agents == 2 and (settings.steps, settings.learning_rate, resume) == (3, 0.5, True)


def test_a_training_goes_on_unless_it_shall_be_fresh(calls, capsys, tmp_path):
    where = ["--out", str(tmp_path), "--json", "--seed"]
    assert run(capsys, *where, "1", "--steps", "10")[0] == 0
    assert json.loads(run(capsys, *where, "1", "--steps", "20")[1].splitlines()[-1])["step"] == 20
    code, out, err = run(capsys, *where, "2", "--steps", "20")
    assert code == 2 and out == "" and len(err.splitlines()) == 1
    assert "`seed` is 2 but" in err and "holds a training with 1; set it back, begin again (--fresh" in err
    assert run(capsys, *where, "2", "--steps", "10", "--fresh")[0] == 0 and calls[-1][2] is False


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--steps", "0"], "`steps` is '0' in the flags; it must be greater than or equal to 1"),
        (["--static", "x.csv"], "`static` says how to read a table, but no table was named"),
        (["--stps", "3"], "did you mean --steps?"),
        (["nowhere.csv"], "nowhere.csv"),
    ],
)
def test_mistakes_are_one_sentence(calls, capsys, tmp_path, words, sentence):
    code, out, err = run(capsys, *words, "--out", str(tmp_path))
    assert code == 2 and out == "" and len(err.splitlines()) == 1 and sentence in err and calls == []


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("stepps = 3", "`stepps` in .* is not a setting; did you mean `steps`"),
        ("steps = true", "`steps` is true, which is no value"),
        ("patience = 0", "`patience` is 0 in .*t.toml; it must be greater"),
        ("static = 3", "`static` is 3 in"),
    ],
)
def test_mistakes_in_the_file_name_it(tmp_path, text, sentence):
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(walras.errors.SettingsError, match=sentence):
        read_training(tmp_path / "t.toml", None, BuyerTraining)


@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently there")
def test_ctrl_c_writes_a_checkpoint_and_ends_in_one_line(tmp_path):
    call = [sys.executable, "-c", SLOWLY, "train", "buyer", "--out", str(tmp_path), "--checkpoint-every", "1000"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    metrics, deadline = tmp_path / "metrics.jsonl", time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and len(metrics.read_bytes().splitlines()) > 20:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and out == ""
    assert len(err.splitlines()) == 1 and err.startswith("walras: stopped by Ctrl-C")
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == "interrupted" and record["step"] > 20
    assert (tmp_path / "checkpoints" / f"step-{record['step']:06d}.walras").exists()
    assert len(metrics.read_bytes().splitlines()) == record["step"] + 1
