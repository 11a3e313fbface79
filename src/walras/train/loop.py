"""Training loop: steps, validation, early stopping, checkpoints, resume.

A killed run that is started again ends with the same bits as an uninterrupted one: everything a step depends on is in
the state, the step's number and the settings.
"""

import abc
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import Array

from walras.data.array_file import flatten, restore, write_arrays
from walras.errors import InputError, NotFiniteError, SettingsError, quote
from walras.progress import Progress
from walras.train.run_folder import METRICS, RUN, Checkpoint, Checkpoints, Metrics, RunRecord, versions
from walras.train.settings import TrainSettings

CHECKPOINTS, FITTED = "checkpoints", "fitted.walras"
BATCH = 16  # most steps whose metrics are fetched from the device together: fetching makes the next step wait
BATCH_SECONDS = 1.0  # longest time until metrics are fetched and progress is shown [seconds]


class TrainingTask(abc.ABC):
    """What is trained: its initial state, a step, and its validation."""

    kind: str  # of the result, such as "buyer"; checkpoints are of the kind "buyer training"
    loss: str = "loss"  # metric of a step that has to stay finite
    monitor: str = "held_out_loss"  # validation metric that has to fall; the result is where it was lowest

    @abc.abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return what numbers depend on beside the settings; a training is resumed only with the same values."""

    @abc.abstractmethod
    def begin(self, seed: int) -> Any:
        """Return the initial state, a pytree; called again on resume, for the structure of stored numbers."""

    @abc.abstractmethod
    def step(self, state: Any, number: int) -> tuple[Any, Mapping[str, Any]]:
        """Return the state after one step, and its scalar metrics.

        Shapes and types stay; the given state is neither changed nor donated. Draws follow from a seed and `number` (1
        for the first step), which has to enter `eqx.filter_jit` as `np.int32(number)`, or every step is compiled.
        """

    @abc.abstractmethod
    def validate(self, state: Any) -> Mapping[str, Any]:
        """Return scalar metrics on held-out data, `monitor` among them; named differently from those of a step."""

    def parameters(self, state: Any) -> Any:
        """Return the part of the state that is the result; by default all."""
        return state


class TrainState(eqx.Module):
    """State from step to step: weights, their running average, and the optimizer's state."""

    network: Any
    average: Any
    optimizer: Any

    @staticmethod
    def of(network: Any, optimizer: optax.GradientTransformation) -> "TrainState":
        """Start from a network."""
        return TrainState(network, network, optimizer.init(eqx.filter(network, eqx.is_inexact_array)))


def clipped_adam(
    learning_rate: float, updates: int, last_rate: float, clip_norm: float
) -> optax.GradientTransformation:
    """Return Adam on clipped gradients, its step size falling along a half cosine to the share `last_rate`."""
    rate = optax.cosine_decay_schedule(learning_rate, updates, last_rate)
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(rate))


def apply_gradients(
    state: TrainState, gradient: Any, averaged: float | Array, optimizer: optax.GradientTransformation
) -> TrainState:
    """Make one update along a gradient; the running average keeps the share `averaged` of itself."""
    updates, optimizer_state = optimizer.update(gradient, state.optimizer)
    network = eqx.apply_updates(state.network, updates)
    average = jax.tree.map(lambda old, new: averaged * old + (1 - averaged) * new, state.average, network)
    return TrainState(network, average, optimizer_state)


@dataclass(frozen=True, eq=False)
class TrainResult:
    """Outcome of a training."""

    parameters: Any  # those with the lowest monitored metric; also in the file `path`
    state: Any  # after the last step
    step: int  # steps done
    best_step: int  # step after which the parameters were best
    best_value: float  # their monitored metric
    stopped: str  # "steps" where all steps were done, "patience" where the monitored metric no longer fell
    notes: tuple[str, ...]  # sentences on what was handled, such as a damaged checkpoint
    path: Path  # file of kind `task.kind` that holds the parameters
    seconds: float  # time spent over all starts [seconds]

    def __str__(self) -> str:
        """Show steps, time and the best validation as a small table."""
        end = "all done" if self.stopped == "steps" else "validation no longer improved"
        rows = {
            "steps": f"{self.step:,} in {self.seconds:,.0f} s ({end})",
            "best": f"{self.best_value:.6g} after step {self.best_step:,}",
            "file": str(self.path),
        }
        return "\n".join([*(f"{name:6}{value}" for name, value in rows.items()), *self.notes])


def train(
    task: TrainingTask,
    settings: TrainSettings,
    folder: str | Path,
    *,
    progress: Progress | None = None,
    resume: bool = True,
    command: Sequence[str] = (),
) -> TrainResult:
    """Train, or resume a training.

    The folder gets `run.json`, `metrics.jsonl`, `checkpoints/` and at the end `fitted.walras`. On one machine and with
    the same versions, a resumed run gives the same bits as an uninterrupted one; with more `steps` than before too,
    where the earlier number was a multiple of `assess_every`. With `resume=False`, what is there is removed.

    Raises:
        SettingsError: the folder holds a training with other settings.
        InputError: another run uses the folder, every checkpoint is damaged, or the folder cannot be written to.
        NotFiniteError: a loss or parameter is not finite; the last good checkpoint stays.
        KeyboardInterrupt: after a checkpoint was written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{quote(folder, 200)} cannot be a folder ({error.strerror}); name another for the training"
        ) from error
    with Checkpoints(folder / CHECKPOINTS, f"{task.kind} training", settings.keep) as checkpoints:
        _remove_leftovers(folder)
        if not resume:
            checkpoints.remove()
            for name in (RUN, METRICS, FITTED):
                (folder / name).unlink(missing_ok=True)
        return _Training(task, settings, folder, checkpoints, progress or Progress(), command).run()


def refuse_other_settings(kind: str, settings: TrainSettings, folder: str | Path) -> None:
    """Refuse settings with which a folder's training cannot be resumed, before its data are prepared.

    Raises:
        SettingsError: the folder holds a training with other settings, or of more steps.
        InputError: every checkpoint is damaged, or they are of another kind.
    """
    folder = Path(folder)
    if not (folder / CHECKPOINTS).is_dir():
        return
    checkpoint = Checkpoints(folder / CHECKPOINTS, f"{kind} training", settings.keep).latest()
    if checkpoint is not None:
        before = {name: value for name, value in checkpoint.stored.header["config"].items() if name != "task"}
        _check_config(_fixed_settings(settings), before, settings, checkpoint.step, folder)


@dataclass(frozen=True)
class _EarlyStopping:
    """Best validation so far, and the number of validations since."""

    best_step: int = 0
    best_value: float | None = None
    looks_since: int = 0

    def after(self, step: int, value: float) -> "_EarlyStopping":
        if self.best_value is None or value < self.best_value:
            return _EarlyStopping(step, value, 0)
        return _EarlyStopping(self.best_step, self.best_value, self.looks_since + 1)


@dataclass(frozen=True, eq=False)
class _Snapshot:
    """What a training is resumed from; replaced as a whole, so that no interrupt ever sees half a step."""

    step: int
    state: Any
    best: Any
    score: _EarlyStopping

    def tree(self) -> dict[str, Any]:
        """Return what a checkpoint holds; all hold the best parameters, so that none depends on another."""
        return {"carry": self.state, "best": self.best}


class _Log:
    """Metrics and run record of a training; metrics wait on the device and are fetched in batches."""

    def __init__(
        self, folder: Path, config: Mapping[str, Any], command: Sequence[str], checkpoint: Checkpoint | None
    ) -> None:
        spent = 0.0 if checkpoint is None else checkpoint.stored.header["seconds"]
        self.begun = time.perf_counter() - spent
        self.metrics = Metrics(folder / METRICS, -1 if checkpoint is None else checkpoint.step)
        self.record = RunRecord(folder / RUN, config, command)
        self.waiting: list[tuple[int, Mapping[str, Any], float]] = []
        self.flushed = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent over all starts [seconds]."""
        return time.perf_counter() - self.begun

    @property
    def is_due(self) -> bool:
        return len(self.waiting) >= BATCH or time.perf_counter() - self.flushed > BATCH_SECONDS

    def add(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.waiting.append((step, metrics, self.seconds))

    def fetch(self) -> Iterator[tuple[int, dict[str, int | float]]]:
        """Fetch waiting metrics step by step; `flush` writes them. May be interrupted and called again."""
        for step, metrics, seconds in self.waiting:
            values = _scalars(metrics)
            self.metrics.add(step, values, seconds)
            yield step, values

    def flush(self) -> None:
        self.metrics.flush()
        self.waiting, self.flushed = [], time.perf_counter()


class _Training:
    """One run of a training in its folder."""

    def __init__(
        self,
        task: TrainingTask,
        settings: TrainSettings,
        folder: Path,
        checkpoints: Checkpoints,
        progress: Progress,
        command: Sequence[str],
    ) -> None:
        self.task, self.settings, self.folder = task, settings, folder
        self.checkpoints, self.progress = checkpoints, progress
        self.config = {**json.loads(json.dumps({"task": dict(task.identity())})), **_fixed_settings(settings)}
        self.now, checkpoint = self._resume()
        self.first = self.now.step
        self.notes = () if checkpoint is None else checkpoint.notes
        now = versions()
        before = {} if checkpoint is None else checkpoint.stored.versions
        if other := [f"{name} {old}" for name, old in before.items() if now.get(name) != old]:
            self.notes += (f"the training was begun with {', '.join(other)}: it goes on, but last bits may differ",)
        self.saved_step, self.saved_at = None if checkpoint is None else checkpoint.step, time.perf_counter()
        self.log = _Log(folder, self.config, command, checkpoint)

    def _resume(self) -> tuple[_Snapshot, Checkpoint | None]:
        checkpoint = self.checkpoints.latest()
        if checkpoint is not None:
            before = checkpoint.stored.header["config"]
            _check_config(self.config, before, self.settings, checkpoint.step, self.folder)
        state = _strongly_typed(self.task.begin(self.settings.seed))
        snapshot = _Snapshot(0, state, self.task.parameters(state), _EarlyStopping())
        if checkpoint is not None:
            tree, score = restore(snapshot.tree(), checkpoint.stored), checkpoint.stored.header["score"]
            snapshot = _Snapshot(checkpoint.step, tree["carry"], tree["best"], _EarlyStopping(**score))
            self.checkpoints.remove(after=checkpoint.step)
        return snapshot, checkpoint

    def run(self) -> TrainResult:
        self.progress.stage("Training")
        self.log.record.start(self.now.step)
        try:
            self._loop()
        except KeyboardInterrupt:
            if self.saved_step is not None:  # or the first validation would be missing on resume
                with suppress(NotFiniteError):
                    self._save()
            self._record_end("interrupted")
            raise
        except Exception as error:
            self.log.metrics.flush()
            self._record_end("failed", str(error) if isinstance(error, NotFiniteError) else type(error).__name__)
            raise
        return self._finish()

    def _loop(self) -> None:
        if self.saved_step is None:  # the initial state is validated and saved, too
            self._advance(self.now.state, {}, 0)
        while self._stop_reason() is None:
            number = self.now.step + 1
            state, metrics = self.task.step(self.now.state, number)
            state = _strongly_typed(state)
            if number == self.first + 1:
                _check_shapes(_shapes(self.now.state), _shapes(state))
            self._advance(state, metrics, number)

    def _advance(self, state: Any, metrics: Mapping[str, Any], step: int) -> None:
        """Take the result of a step; validate, report and save where due."""
        score, best = self.now.score, self.now.best
        validated = step % self.settings.assess_every == 0 or step == self.settings.steps
        if validated:
            validation = self._validate(state, metrics)
            score = score.after(step, float(validation[self.task.monitor]))
            best = self.task.parameters(state) if score.best_step == step else best
            metrics = {**metrics, **validation}
        self.log.add(step, metrics)
        self.now = _Snapshot(step, state, best, score)
        if validated or self.log.is_due:
            self._report()
        if self._save_is_due(validated):
            self._save()

    def _validate(self, state: Any, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
        validation = self.task.validate(state)
        if self.task.monitor not in validation:
            raise InputError(
                f"`validate` of the task gave no `{self.task.monitor}`; return it, or set `monitor` of the task"
            )
        twice = set(validation) & set(metrics)
        if twice:
            raise InputError(f"`validate` and `step` of the task both gave `{min(twice)}`; give it two names")
        return validation

    def _save_is_due(self, validated: bool) -> bool:
        return (
            self.now.step % self.settings.checkpoint_every == 0
            or (validated and self.now.score.best_step == self.now.step)
            or time.perf_counter() - self.saved_at > self.settings.checkpoint_seconds
            or self._stop_reason() is not None
        )

    def _stop_reason(self) -> str | None:
        if self.now.score.looks_since >= self.settings.patience:
            return "patience"
        return "steps" if self.now.step >= self.settings.steps else None

    def _report(self) -> None:
        """Fetch, check and write the metrics of the last steps; may be interrupted and called again."""
        for step, values in self.log.fetch():
            for name in (self.task.loss, self.task.monitor):
                if not math.isfinite(values.get(name, 0.0)):
                    raise self._not_finite(f"`{name}` is {values[name]}", step)
        self.log.flush()
        self.progress.step(self.now.step, self.settings.steps)

    def _save(self) -> None:
        """Write a checkpoint of now, unless there is one."""
        now = self.now
        if self.saved_step == now.step:
            return
        self._report()
        for name, values in flatten(self.task.parameters(now.state)).items():
            if not np.isfinite(values).all():
                raise self._not_finite(f"parameter {quote(name, 80)} is not finite", now.step)
        self.log.metrics.sync()
        header = {"config": self.config, "score": asdict(now.score), "seconds": self.log.seconds}
        self.checkpoints.save(now.step, flatten(now.tree()), header, best=now.score.best_step)
        self.saved_step, self.saved_at = now.step, time.perf_counter()

    def _not_finite(self, what: str, step: int) -> NotFiniteError:
        good = f"the checkpoint of step {self.saved_step} is good"
        good = "there is no checkpoint" if self.saved_step is None else good
        return NotFiniteError(
            f"{what} at step {step} of the training in {quote(self.folder, 200)}, and {good}; begin again (--fresh, "
            "or resume=False) with a smaller learning rate or shorter gradients, or look for odd values in the data"
        )

    def _record_end(self, status: str, reason: str | None = None) -> None:
        facts = {"step": self.now.step, **asdict(self.now.score), "seconds": round(self.log.seconds, 3)}
        self.log.record.end(status, facts if reason is None else {**facts, "reason": reason})

    def _finish(self) -> TrainResult:
        now, path, stopped = self.now, self.folder / FITTED, self._stop_reason() or ""
        best_value = math.nan if now.score.best_value is None else now.score.best_value
        header = {"config": self.config, "step": now.score.best_step, self.task.monitor: now.score.best_value}
        write_arrays(path, self.task.kind, flatten(now.best), header)
        self._record_end("finished", stopped)
        counts = (now.step, now.score.best_step, best_value, stopped)
        return TrainResult(now.best, now.state, *counts, self.notes, path, self.log.seconds)


def _remove_leftovers(folder: Path) -> None:
    """Remove partial files of a run that was killed while it wrote."""
    for name in (RUN, METRICS, FITTED):
        for left in folder.glob(f".{Path(name).stem}-*{Path(name).suffix}"):
            left.unlink(missing_ok=True)


def _strongly_typed(tree: Any) -> Any:
    """Make weak types strong: that they are weak is lost in a file."""

    def fix(leaf: Any) -> Any:
        return jax.lax.convert_element_type(leaf, leaf.dtype) if getattr(leaf, "weak_type", False) else leaf

    return jax.tree.map(fix, tree)


def _shapes(tree: Any) -> dict[str, str]:
    return {name: f"{values.dtype.name}{list(values.shape)}" for name, values in flatten(tree).items()}


def _check_shapes(before: dict[str, str], after: dict[str, str]) -> None:
    """Refuse a task whose checkpoints could not be read back."""
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            raise InputError(
                f"a step returned {quote(name, 80)} as {after.get(name, 'nothing')} but got it as "
                f"{before.get(name, 'nothing')}; let `begin` and `step` of the task give the same shapes and types"
            )


def _scalars(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    values = jax.device_get(dict(metrics))
    fetched = {name: np.asarray(values[name]) for name in metrics}  # in the task's order
    for name, value in fetched.items():
        if value.shape != () or value.dtype.kind not in "biufV":
            raise InputError(
                f"metric `{name}` is {value.dtype.name}{list(value.shape)} but a metric is one number; reduce it"
            )
    return {name: int(value) if value.dtype.kind in "biu" else float(value) for name, value in fetched.items()}


def _fixed_settings(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings that numbers depend on, as they look after a way through JSON."""
    return json.loads(json.dumps(settings.model_dump(mode="json", exclude=set(settings.BUDGET))))


def _dotted(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    nested = {k: _dotted(v, f"{prefix}{k}.") if isinstance(v, Mapping) else {prefix + k: v} for k, v in config.items()}
    return {name: value for part in nested.values() for name, value in part.items()}


def _check_config(
    config: dict[str, Any], before: dict[str, Any], settings: TrainSettings, step: int, folder: Path
) -> None:
    """Refuse to resume with other settings than those of the training's start."""
    ours, theirs = _dotted(config), _dotted(before)
    # Settings first: they say more than what follows from them, such as digests of data.
    for name in sorted({**ours, **theirs}, key=lambda name: name.startswith("task.")):
        if ours.get(name) != theirs.get(name) or (name in ours) != (name in theirs):
            raise SettingsError(
                f"`{name.removeprefix('task.')}` is {quote(ours.get(name, 'not set'))} but "
                f"{quote(folder, 200)} holds a training with {quote(theirs.get(name, 'none'))}; set it back, begin "
                "again (--fresh, or resume=False), or name another folder"
            )
    if step > settings.steps:
        raise SettingsError(
            f"`steps` is {settings.steps} but {quote(folder, 200)} holds a training of {step} steps; give at least "
            f"{step}, begin again (--fresh, or resume=False), or name another folder"
        )
