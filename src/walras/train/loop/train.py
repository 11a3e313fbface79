"""Own the loop of every training: steps, looks at what was held out, early stopping, checkpoints, and going on.

CONTRACT: tasks are implemented by others. A run that was killed at any moment and started again ends with the same
bits as one that was not: all that a step depends on is in the carry, the number of the step, and the task's settings.
"""

import abc
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from walras.data.array_file import flatten, restore, write_arrays
from walras.errors import InputError, NotFiniteError, SettingsError, quote
from walras.progress import Progress
from walras.train.loop.checkpoint import Checkpoint, Checkpoints
from walras.train.loop.records import METRICS, RUN, Metrics, RunRecord, versions
from walras.train.settings import TrainSettings

CHECKPOINTS, FITTED = "checkpoints", "fitted.walras"
BATCH = 16
"""Most steps whose metrics are fetched from the device together: fetching one makes the next step wait."""

BATCH_SECONDS = 1.0
"""Longest time that metrics wait, so that whoever watches sees slow steps one by one [seconds]."""


class TrainingTask(abc.ABC):
    """Say what is trained: what a training starts from, what a step does, and how well it does on what was held out.

    Attributes:
        kind: a word for what comes out, such as "buyer"; checkpoints are of the kind "buyer training".
        loss: name of the metric of a step that has to stay finite.
        watched: name of the metric of a look that has to fall; the parameters with the lowest are kept.
    """

    kind: str
    loss: str = "loss"
    watched: str = "held_out_loss"

    @abc.abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Say what numbers follow from beside the settings, such as `walras.data.resume_log.digest` of the data.

        A training goes on only with the same words and numbers.
        """

    @abc.abstractmethod
    def begin(self, seed: int) -> Any:
        """Return what the first step starts from: a pytree with parameters, optimizer state and whatever else it needs.

        It is called again when a training goes on, for the structure that stored numbers are put into.
        """

    @abc.abstractmethod
    def step(self, carry: Any, number: int) -> tuple[Any, Mapping[str, Any]]:
        """Return the carry after one step, and scalar metrics of it.

        Shapes and types stay; the given carry is neither changed nor donated, since it is written where this is
        interrupted. What is drawn follows from a seed and `number` (1 for the first step), which goes into
        `eqx.filter_jit` as `np.int32(number)`: a plain number would be compiled in, every step anew.
        """

    @abc.abstractmethod
    def assess(self, carry: Any) -> Mapping[str, Any]:
        """Return scalar metrics on what was held out, `watched` among them; other names than those of a step."""

    def parameters(self, carry: Any) -> Any:
        """Return the part of the carry that is wanted in the end; by default all."""
        return carry


@dataclass(frozen=True, eq=False)
class TrainResult:
    """Hold what came of a training.

    Attributes:
        parameters: those with the lowest watched metric; also in the file `path`.
        carry: what the training carried after its last step.
        step: steps done.
        best_step: step after which the parameters were best.
        best_value: their watched metric.
        stopped: "steps" where all steps were done, "patience" where the watched metric no longer fell.
        notes: sentences about what was handled, such as a damaged checkpoint.
        path: file of kind `task.kind` that holds the parameters.
        seconds: time spent in all, over all starts [seconds].
    """

    parameters: Any
    carry: Any
    step: int
    best_step: int
    best_value: float
    stopped: str
    notes: tuple[str, ...]
    path: Path
    seconds: float


def train(
    task: TrainingTask,
    settings: TrainSettings,
    folder: str | Path,
    *,
    progress: Progress | None = None,
    resume: bool = True,
    command: Sequence[str] = (),
) -> TrainResult:
    """Train, or go on with a training where it ended.

    The folder gets `run.json`, `metrics.jsonl`, `checkpoints/` and at the end `fitted.walras`. On one machine and with
    the same versions, a run that goes on gives the same bits as one in a single piece; with more `steps` than before
    too, where the earlier number was a multiple of `assess_every`.

    Args:
        task: what is trained.
        settings: how long, how often to look, when to stop.
        folder: a folder of its own; made if it is missing.
        progress: hears of the steps.
        resume: go on from the newest checkpoint that is whole; False removes what is there and begins again.
        command: the words of the command that this is, for `run.json`.

    Raises:
        SettingsError: the folder holds a training with other settings.
        InputError: another run has the folder, every checkpoint is damaged, or the folder cannot be written to.
        NotFiniteError: a loss or parameter that is no number; the last good checkpoint stays.
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
        _tidy(folder)
        if not resume:
            checkpoints.forget()
            for name in (RUN, METRICS, FITTED):
                (folder / name).unlink(missing_ok=True)
        return _Training(task, settings, folder, checkpoints, progress or Progress(), command).run()


def refuse_other_settings(kind: str, settings: TrainSettings, folder: str | Path) -> None:
    """Refuse settings with which a folder's training cannot go on, before its task takes the time to be made.

    `train` asks again, and then also whether the task is the same.

    Args:
        kind: of the task.
        settings: with which it shall go on.
        folder: of the training; nothing is refused where it holds none.

    Raises:
        SettingsError: the folder holds a training with other settings, or of more steps.
        InputError: every checkpoint is damaged, or they are of another kind.
    """
    folder = Path(folder)
    if not (folder / CHECKPOINTS).is_dir():
        return
    found = Checkpoints(folder / CHECKPOINTS, f"{kind} training", settings.keep).latest()
    if found is not None:
        before = {name: value for name, value in found.stored.header["config"].items() if name != "task"}
        _check_config(_given(settings), before, settings, found.step, folder)


@dataclass(frozen=True)
class _EarlyStopping:
    """Hold the state of early stopping."""

    best_step: int = 0
    best_value: float | None = None
    looks_since: int = 0

    def after(self, step: int, value: float) -> "_EarlyStopping":
        """Add a look."""
        if self.best_value is None or value < self.best_value:
            return _EarlyStopping(step, value, 0)
        return _EarlyStopping(self.best_step, self.best_value, self.looks_since + 1)


@dataclass(frozen=True, eq=False)
class _Snapshot:
    """Hold all that a training goes on from; replaced as a whole, so that no interrupt ever sees half a step."""

    step: int
    carry: Any
    best: Any
    score: _EarlyStopping


class _Training:
    """Run one training in its folder."""

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
        self.config = _config(task, settings)
        found = checkpoints.latest()
        if found is not None:
            _check_config(self.config, found.stored.header["config"], settings, found.step, folder)
        begun = _strong(task.begin(settings.seed))
        self.now, spent = _Snapshot(0, begun, task.parameters(begun), _EarlyStopping()), 0.0
        if found is not None:
            self.now, spent = self._restored(found), found.stored.header["seconds"]
            checkpoints.forget(after=found.step)
        self.first = self.now.step
        self.notes = () if found is None else (*found.notes, *_version_notes(found))
        self.since = time.perf_counter() - spent
        self.saved: tuple[int | None, float] = (None if found is None else found.step, time.perf_counter())
        self.metrics = Metrics(folder / METRICS, -1 if found is None else found.step)
        self.record = RunRecord(folder / RUN, self.config, command)
        self.waiting: list[tuple[int, Mapping[str, Any], float]] = []
        self.told = time.perf_counter()

    def run(self) -> TrainResult:
        self.progress.stage("Training")
        self.record.began(self.now.step)
        try:
            self._go()
        except KeyboardInterrupt:
            if self.saved[0] is not None:  # or the first look would be missing when the run goes on
                with suppress(NotFiniteError):
                    self._save()
            self._ended("interrupted")
            raise
        except Exception as error:
            self.metrics.flush()
            self._ended("failed", str(error) if isinstance(error, NotFiniteError) else type(error).__name__)
            raise
        return self._finish()

    def _go(self) -> None:
        if self.saved[0] is None:  # nothing yet: where the run starts is worth a look and a checkpoint, too
            self._advance(self.now.carry, {}, 0)
        while self._stopped() is None:
            number = self.now.step + 1
            carry, metrics = self.task.step(self.now.carry, number)
            carry = _strong(carry)
            if number == self.first + 1:
                _check_shapes(_shapes(self.now.carry), _shapes(carry))
            self._advance(carry, metrics, number)

    def _advance(self, carry: Any, metrics: Mapping[str, Any], step: int) -> None:
        """Take the result of a step; look at it, tell of it and save it where that is due."""
        score, best, looked = self.now.score, self.now.best, self._look_is_due(step)
        if looked:
            seen = self._seen(carry, metrics)
            score = score.after(step, float(seen[self.task.watched]))
            best = self.task.parameters(carry) if score.best_step == step else best
            metrics = {**metrics, **seen}
        self.waiting.append((step, metrics, time.perf_counter() - self.since))
        self.now = _Snapshot(step, carry, best, score)
        if looked or len(self.waiting) >= BATCH or time.perf_counter() - self.told > BATCH_SECONDS:
            self._tell()
        if self._save_is_due(looked):
            self._save()

    def _seen(self, carry: Any, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
        seen = self.task.assess(carry)
        if self.task.watched not in seen:
            raise InputError(
                f"`assess` of the task gave no `{self.task.watched}`; let it, or set `watched` of the task"
            )
        twice = set(seen) & set(metrics)
        if twice:
            raise InputError(f"`assess` and `step` of the task both gave `{min(twice)}`; give it two names")
        return seen

    def _look_is_due(self, step: int) -> bool:
        return step % self.settings.assess_every == 0 or step == self.settings.steps

    def _save_is_due(self, looked: bool) -> bool:
        return (
            self.now.step % self.settings.checkpoint_every == 0
            or (looked and self.now.score.best_step == self.now.step)
            or time.perf_counter() - self.saved[1] > self.settings.checkpoint_seconds
            or self._stopped() is not None
        )

    def _stopped(self) -> str | None:
        if self.now.score.looks_since >= self.settings.patience:
            return "patience"
        return "steps" if self.now.step >= self.settings.steps else None

    def _tell(self) -> None:
        """Fetch and write the metrics of the last steps; may be interrupted and called again."""
        for step, metrics, seconds in self.waiting:
            values = _scalars(metrics)
            self.metrics.add(step, values, seconds)
            for name in (self.task.loss, self.task.watched):
                if not math.isfinite(values.get(name, 0.0)):
                    raise self._not_finite(f"`{name}` is {values[name]}", step)
        self.metrics.flush()
        self.waiting, self.told = [], time.perf_counter()
        self.progress.step(self.now.step, self.settings.steps)

    def _save(self) -> None:
        """Write a checkpoint of now, unless there is one."""
        now = self.now
        if self.saved[0] == now.step:
            return
        self._tell()
        for name, values in flatten(self.task.parameters(now.carry)).items():
            if not np.isfinite(values).all():
                raise self._not_finite(f"parameter {quote(name, 80)} is not finite", now.step)
        self.metrics.sync()
        header = {"config": self.config, "score": asdict(now.score), "seconds": time.perf_counter() - self.since}
        self.checkpoints.save(now.step, flatten(_both(now)), header, best=now.score.best_step)
        self.saved = (now.step, time.perf_counter())

    def _restored(self, found: Checkpoint) -> _Snapshot:
        """Put a checkpoint into the structure of a fresh start."""
        both = restore(_both(self.now), found.stored)
        return _Snapshot(found.step, both["carry"], both["best"], _EarlyStopping(**found.stored.header["score"]))

    def _not_finite(self, what: str, step: int) -> NotFiniteError:
        good = "there is no checkpoint" if self.saved[0] is None else f"the checkpoint of step {self.saved[0]} is good"
        return NotFiniteError(
            f"{what} at step {step} of the training in {quote(self.folder, 200)}, and {good}; begin again (--fresh, "
            "or resume=False) with a smaller learning rate or shorter gradients, or look for odd values in the data"
        )

    def _ended(self, status: str, reason: str | None = None) -> None:
        now, more = self.now, {} if reason is None else {"reason": reason}
        seconds = round(time.perf_counter() - self.since, 3)
        self.record.ended(status, {"step": now.step, **asdict(now.score), "seconds": seconds, **more})

    def _finish(self) -> TrainResult:
        now, path = self.now, self.folder / FITTED
        header = {"config": self.config, "step": now.score.best_step, self.task.watched: now.score.best_value}
        write_arrays(path, self.task.kind, flatten(now.best), header)
        stopped = self._stopped() or ""
        self._ended("finished", stopped)
        return TrainResult(
            parameters=now.best,
            carry=now.carry,
            step=now.step,
            best_step=now.score.best_step,
            best_value=math.nan if now.score.best_value is None else now.score.best_value,
            stopped=stopped,
            notes=self.notes,
            path=path,
            seconds=time.perf_counter() - self.since,
        )


def _tidy(folder: Path) -> None:
    """Remove what a run left that was killed while it wrote."""
    for name in (RUN, METRICS, FITTED):
        for left in folder.glob(f".{Path(name).stem}-*{Path(name).suffix}"):
            left.unlink(missing_ok=True)


def _both(now: _Snapshot) -> dict[str, Any]:
    """Give what a checkpoint holds; each has the best parameters too, so that none needs another."""
    return {"carry": now.carry, "best": now.best}


def _strong(tree: Any) -> Any:
    """Fix the types of numbers whose type is only a guess: that they are guesses is lost on the way through a file."""

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
                f"a step gave back {quote(name, 80)} as {after.get(name, 'nothing')} but got it as "
                f"{before.get(name, 'nothing')}; let `begin` and `step` of the task give the same shapes and types"
            )


def _scalars(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    values = jax.device_get(dict(metrics))
    fetched = {name: np.asarray(values[name]) for name in metrics}  # the order of names is the task's
    for name, value in fetched.items():
        if value.shape != () or value.dtype.kind not in "biufV":
            raise InputError(
                f"metric `{name}` is {value.dtype.name}{list(value.shape)} but a metric is one number; reduce it"
            )
    return {name: int(value) if value.dtype.kind in "biu" else float(value) for name, value in fetched.items()}


def _config(task: TrainingTask, settings: TrainSettings) -> dict[str, Any]:
    """Give what the numbers of a training follow from, as it looks after a way through JSON."""
    return {**json.loads(json.dumps({"task": dict(task.identity())})), **_given(settings)}


def _given(settings: TrainSettings) -> dict[str, Any]:
    return json.loads(json.dumps(settings.model_dump(mode="json", exclude=set(settings.BUDGET))))


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def _check_config(
    config: dict[str, Any], before: dict[str, Any], settings: TrainSettings, step: int, folder: Path
) -> None:
    """Refuse to go on with other settings than those that the training began with."""
    ours, theirs = _flat(config), _flat(before)
    # A setting says more than what follows from it, such as the digest of what was drawn.
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


def _version_notes(found: Checkpoint) -> tuple[str, ...]:
    """Tell where other versions go on, since their last bits may differ."""
    now = versions()
    other = [f"{name} {old}" for name, old in found.stored.versions.items() if now.get(name) != old]
    if not other:
        return ()
    return (f"the training was begun with {', '.join(other)}: it goes on, but last bits may differ",)
