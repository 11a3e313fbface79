"""A training goes on with the same bits wherever it was stopped, and stops with one sentence.

Kills are real (SIGKILL to a process of its own); `WALRAS_KILLS` sets how many, 2 by default.
"""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import fit_run
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_run import SETTINGS, LineTask, leaves

from walras.data.array_file import read_arrays, restore
from walras.errors import InputError, NotFiniteError, SettingsError
from walras.progress import Progress
from walras.train.loop import refuse_other_settings, train
from walras.train.run_folder import read_metrics

KILLS = int(os.environ.get("WALRAS_KILLS", "2"))
PROGRAM = [sys.executable, fit_run.__file__]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def lines(folder: Path) -> list[dict]:
    """Read the metrics without their times."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def names(folder: Path) -> list[str]:
    """List the checkpoints."""
    return sorted(path.name for path in (folder / "checkpoints").glob("step-*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Train in one piece."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(LineTask(), SETTINGS, folder)


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_a_training_learns_and_stops_early_with_the_best(whole):
    folder, fitted = whole
    columns = read_metrics(folder)
    looks = columns["held_out_loss"][np.isfinite(columns["held_out_loss"])]
    assert fitted.stopped == "patience" and fitted.step == fitted.best_step + 10 * SETTINGS.patience < SETTINGS.steps
    assert fitted.best_value == looks.min() < 0.5 * looks[0]
    assert looks.tolist().index(looks.min()) * 10 == fitted.best_step
    assert float(LineTask().validate(fitted.state)["held_out_loss"]) > fitted.best_value
    assert float(fit_run.loss_of(fitted.parameters, *LineTask().held_out)) == fitted.best_value


def test_every_step_has_a_line_and_every_look_is_in_it(whole):
    found = lines(whole[0])
    assert [line["step"] for line in found] == list(range(whole[1].step + 1))
    assert [line["step"] for line in found if "held_out_loss" in line] == list(range(0, whole[1].step + 1, 10))
    assert all("loss" in line and line["number"] == line["step"] for line in found[1:])


def test_the_folder_holds_the_newest_and_the_best_and_what_was_fitted(whole):
    folder, fitted = whole
    assert f"step-{fitted.best_step:06d}.walras" in names(folder) and len(names(folder)) == SETTINGS.keep + 1
    stored = read_arrays(folder / "fitted.walras", "line")
    again = restore(LineTask().begin(0).line, stored)
    assert [x.tobytes() for x in map(np.asarray, jax.tree.leaves(again))] == leaves(fitted)[:2]
    assert stored.header["config"]["seed"] == 3 and stored.header["step"] == fitted.best_step
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished" and record["best_step"] == fitted.best_step


def test_a_finished_training_is_not_trained_again(whole):
    folder, fitted = whole

    class Lazy(LineTask):
        def step(self, carry, number):
            raise AssertionError("no step is left")

    before = (folder / "metrics.jsonl").read_bytes()
    again = train(Lazy(), SETTINGS, folder)
    assert leaves(again) == leaves(fitted) and (again.step, again.stopped) == (fitted.step, "patience")
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_checkpoints_and_the_clock_change_no_number(whole, tmp_path):
    often = SETTINGS.model_copy(update={"checkpoint_every": 1, "checkpoint_seconds": 1e-9, "keep": 1})
    fitted = train(LineTask(), often, tmp_path)
    assert leaves(fitted) == leaves(whole[1]) and lines(tmp_path) == lines(whole[0])


def test_another_seed_is_another_training(whole, tmp_path):
    assert leaves(train(LineTask(), SETTINGS.model_copy(update={"seed": 4}), tmp_path)) != leaves(whole[1])


def test_progress_hears_of_the_steps(tmp_path):
    heard = []

    class Listening(Progress):
        def step(self, done, total):
            heard.append((done, total))

    train(LineTask(), SETTINGS.model_copy(update={"steps": 12}), tmp_path, progress=Listening())
    assert heard == sorted(heard) and heard[-1] == (12, 12)


# --- going on ---------------------------------------------------------------------------------------------------------


class Stop(Exception):
    """End a run as a defect would."""


def stopping(error: BaseException, at: int):
    """Raise at a step."""

    def hook(number: int) -> None:
        if number == at:
            raise error

    return hook


@pytest.mark.parametrize("at", [1, 8, 31, 80])
def test_a_run_that_broke_goes_on_with_the_same_bits(whole, tmp_path, at):
    with pytest.raises(Stop):
        train(LineTask(hook=stopping(Stop(), at)), SETTINGS, tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "failed"
    fitted = train(LineTask(), SETTINGS, tmp_path)
    assert leaves(fitted) == leaves(whole[1]) and lines(tmp_path) == lines(whole[0])
    assert all(
        getattr(fitted, name) == getattr(whole[1], name) for name in ("step", "best_step", "best_value", "stopped")
    )


@pytest.mark.parametrize("at", [1, 26])
def test_ctrl_c_writes_a_checkpoint_first(whole, tmp_path, at):
    with pytest.raises(KeyboardInterrupt):
        train(LineTask(hook=stopping(KeyboardInterrupt(), at)), SETTINGS, tmp_path)
    assert names(tmp_path)[-1] == f"step-{at - 1:06d}.walras"
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == "interrupted" and record["step"] == at - 1
    done = []
    fitted = train(LineTask(hook=done.append), SETTINGS, tmp_path)
    assert done[0] == at and leaves(fitted) == leaves(whole[1]) and lines(tmp_path) == lines(whole[0])


def test_a_damaged_newest_checkpoint_costs_steps_only(whole, tmp_path):
    with pytest.raises(Stop):
        train(LineTask(hook=stopping(Stop(), 60)), SETTINGS, tmp_path)
    newest = tmp_path / "checkpoints" / names(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:-3] + b"abc")
    with pytest.raises(Stop):
        train(LineTask(hook=stopping(Stop(), 51)), SETTINGS, tmp_path)
    assert not newest.exists()
    newest.write_bytes(b"half")
    done = []
    fitted = train(LineTask(hook=done.append), SETTINGS, tmp_path)
    assert done[0] == 50 and "step 56 is damaged" in fitted.notes[0]
    assert leaves(fitted) == leaves(whole[1]) and lines(tmp_path) == lines(whole[0])


def test_more_steps_continue_the_same_training(whole, tmp_path):
    train(LineTask(), SETTINGS.model_copy(update={"steps": 40}), tmp_path)
    fitted = train(LineTask(), SETTINGS, tmp_path)
    assert leaves(fitted) == leaves(whole[1]) and lines(tmp_path) == lines(whole[0])


def test_a_fresh_start_forgets_the_old_one(whole, tmp_path):
    train(LineTask(), SETTINGS.model_copy(update={"seed": 8}), tmp_path)
    fitted = train(LineTask(), SETTINGS, tmp_path, resume=False)
    assert leaves(fitted) == leaves(whole[1]) and lines(tmp_path) == lines(whole[0])
    assert len(json.loads((tmp_path / "run.json").read_text())["starts"]) == 1


@pytest.mark.skipif(os.name == "nt", reason="processes are killed differently there")
def test_killed_runs_go_on_with_the_same_bits(whole, tmp_path):
    """Kill at random moments: in a step, just before or after a file reaches the disk or its place, and anywhere."""
    drawn = random.Random(KILLS)
    folder, killed, tried = tmp_path / "0", 0, 0
    while killed < KILLS:
        tried += 1
        # Every second one by the clock, wherever that is; a start takes about two seconds.
        moment, seconds = (drawn.randint(1, 100), 120.0) if tried % 2 else (0, drawn.uniform(1, 3))
        if killed_run(folder, moment, seconds):
            killed += 1
        else:  # it was at its end before
            compare(whole, folder)
            folder = tmp_path / str(tried)
    assert not killed_run(folder, 0, 120)
    compare(whole, folder)


def killed_run(folder: Path, moment: int, seconds: float) -> bool:
    """Start a run, kill it at a moment of its own or after some seconds, and tell whether that was before its end."""
    call = [*PROGRAM, str(folder), "--kill-at", str(moment)]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as run:
        try:
            _, errors = run.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            run.kill()
            return True
    assert run.returncode in (0, -signal.SIGKILL), errors
    return run.returncode != 0


def compare(whole, folder: Path) -> None:
    """Insist on the bits, the metrics and the checkpoints of the run in one piece."""
    assert (folder / "bits").read_bytes() == b"".join(leaves(whole[1]))
    assert lines(folder) == lines(whole[0])
    assert (folder / "fitted.walras").read_bytes() == (whole[0] / "fitted.walras").read_bytes()
    assert [path.name for path in folder.rglob(".*")] == [".lock"]


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task, change, words",
    [
        (LineTask(), {"seed": 5}, r"`seed` is 5 but .* holds a training with 3; set it back, begin again \(--fresh"),
        (LineTask(), {"patience": 6}, "`patience` is 6 but"),
        (LineTask(rate=0.2), {"seed": 5}, "`seed` is 5 but"),
        (LineTask(rate=0.2), {}, r"`data.rate` is 0.2 but .* holds a training with 0.1; set it back"),
        (LineTask(), {"steps": 50}, r"`steps` is 50 but .* holds a training of 80 steps; give at least 80"),
    ],
)
def test_other_settings_are_refused(whole, task, change, words):
    with pytest.raises(SettingsError, match=words):
        train(task, SETTINGS.model_copy(update=change), whole[0])
    assert json.loads((whole[0] / "run.json").read_text())["status"] == "finished"


@pytest.mark.parametrize(("change", "refused"), [({"seed": 5}, "seed"), ({"steps": 50}, "steps"), ({}, None)])
def test_other_settings_are_refused_before_there_is_a_task(whole, tmp_path, change, refused):
    settings = SETTINGS.model_copy(update=change)
    refuse_other_settings(LineTask.kind, settings, tmp_path)  # holds no training
    if refused is None:
        refuse_other_settings(LineTask.kind, settings, whole[0])
        return
    with pytest.raises(SettingsError, match=f"`{refused}` is {change[refused]} but .* holds a training"):
        refuse_other_settings(LineTask.kind, settings, whole[0])


class Breaking(LineTask):
    """Spoil the loss, the parameters or what is looked at after some steps."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__()
        self.what, self.at = what, at

    def step(self, carry, number):
        carry, metrics = super().step(carry, number)
        if self.what == "parameters" and number == self.at:
            carry = jax.tree.map(lambda x: x * jnp.nan if x.dtype == jnp.float32 else x, carry)
        if self.what == "loss" and number >= self.at:
            metrics["loss"] = jnp.inf
        return carry, metrics

    def validate(self, carry):
        seen = super().validate(carry)
        return {"held_out_loss": jnp.nan} if self.what == "look" and int(carry.optimizer[1][0].count) else seen


@pytest.mark.parametrize(
    "what, at, words, good",
    [
        (
            "loss",
            17,
            "`loss` is inf at step 17 of the training in .*, and the checkpoint of step 14 is good; begin",
            14,
        ),
        ("parameters", 17, "`loss` is nan at step 18 of", 14),
        ("parameters", 14, r"parameter \.weight is not finite at step 14 of .* step 10 is good", 10),
        ("look", 0, "`held_out_loss` is nan at step 10 of", 7),
    ],
)
def test_numbers_that_are_none_end_the_training_and_leave_a_good_checkpoint(tmp_path, what, at, words, good):
    with pytest.raises(NotFiniteError, match=words):
        train(Breaking(what, at), SETTINGS, tmp_path)
    assert names(tmp_path)[-1] == f"step-{good:06d}.walras"
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == "failed" and "good" in record["reason"]
    with pytest.raises(NotFiniteError, match=words):  # it is no accident, and is told again
        train(Breaking(what, at), SETTINGS, tmp_path)
    if what == "loss":
        assert lines(tmp_path)[-1]["loss"] is None and lines(tmp_path)[-1]["reasons"] == {"loss": "infinity"}


class Growing(LineTask):
    def step(self, carry, number):
        carry, metrics = super().step(carry, number)
        return fit_run.Carry(carry.line, carry.optimizer, jnp.zeros(number)), metrics


class Broad(LineTask):
    def step(self, carry, number):
        return carry, {"loss": jnp.zeros(3)}


class Blind(LineTask):
    def validate(self, carry):
        return {"other": 1.0}


class Twice(LineTask):
    def validate(self, carry):
        return {"held_out_loss": 1.0, "loss": 1.0}


@pytest.mark.parametrize(
    "task, words",
    [
        (Growing(), r"\.key as float32\[1\] but got it as uint32\[2\]"),
        (Broad(), r"metric `loss` is float32\[3\] but a metric is one number; reduce it"),
        (Blind(), "`validate` of the task gave no `held_out_loss`"),
        (Twice(), "`validate` and `step` of the task both gave `loss`"),
    ],
)
def test_a_task_that_breaks_its_promise_is_told(tmp_path, task, words):
    with pytest.raises(InputError, match=words):
        train(task, SETTINGS, tmp_path)


def test_a_second_run_is_refused_and_disturbs_nothing(whole, tmp_path):
    refused = []

    def second(number: int) -> None:
        if number == 20:
            with pytest.raises(InputError, match="is in use by another run") as caught:
                train(LineTask(), SETTINGS, tmp_path, resume=False)
            refused.append(caught.value)

    fitted = train(LineTask(hook=second), SETTINGS, tmp_path)
    assert refused and leaves(fitted) == leaves(whole[1]) and lines(tmp_path) == lines(whole[0])


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(InputError, match="cannot be a folder"):
        train(LineTask(), SETTINGS, tmp_path / "x")


def test_other_versions_are_noted(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "__version__", "0.0.1")
    train(LineTask(), SETTINGS.model_copy(update={"steps": 10}), tmp_path)
    monkeypatch.undo()
    (note,) = train(LineTask(), SETTINGS.model_copy(update={"steps": 20}), tmp_path).notes
    assert note == "the training was begun with jax 0.0.1: it goes on, but last bits may differ"


class Guessing(LineTask):
    """Carry a number whose type is a guess, which a file cannot say."""

    def begin(self, seed):
        return {"weak": jnp.asarray(1.0)}

    def step(self, carry, number):
        weak = carry["weak"]
        assert not weak.weak_type
        return {"weak": jnp.where(number > 3, weak * 0.5, 1.0)}, {"loss": weak}

    def validate(self, carry):
        return {"held_out_loss": carry["weak"]}

    def parameters(self, carry):
        return carry


def test_types_that_are_guesses_are_fixed(tmp_path):
    train(Guessing(), SETTINGS.model_copy(update={"steps": 5}), tmp_path)
