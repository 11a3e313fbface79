"""Folder of checkpoints of one training: the newest few and the best one; damaged files are passed over.

`step-000123.walras` holds the training state after 123 steps; a lock keeps a second run out of the folder.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from walras.data.array_file import DamagedFileError, Stored, read_arrays, write_arrays
from walras.errors import InputError, quote

try:
    import fcntl
except ImportError:  # Windows: nothing keeps a second run out
    fcntl = None  # type: ignore[assignment]

NEWEST = 3
"""Checkpoints kept beside the best."""

NAME = re.compile(r"step-(\d{6,})\.walras")
LOCK = ".lock"
STEP = "step"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """State of a training after a step.

    Attributes:
        step: steps done.
        stored: arrays and header.
        notes: one sentence for each newer checkpoint that was damaged.
    """

    step: int
    stored: Stored
    notes: tuple[str, ...]


class Checkpoints:
    """Folder of checkpoints, for one run at a time: use it in a `with` statement."""

    def __init__(self, folder: Path, kind: str, keep: int = NEWEST) -> None:
        """Choose the folder; `with` makes and locks it."""
        self.folder, self.kind, self.keep = folder, kind, keep
        self._lock: int | None = None

    def __enter__(self) -> "Checkpoints":
        """Make the folder and lock it.

        Raises:
            InputError: another run uses it, or it cannot be a folder.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise InputError(
                f"{_quoted(self.folder)} cannot hold checkpoints ({error.strerror}); name a folder to write to"
            ) from error
        try:
            self._take_lock(self._lock)
        except BaseException:
            self.__exit__()
            raise
        for left in self.folder.glob(".step-*.walras"):  # by a run that was killed while it wrote
            left.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock; the system does so too when a run is killed."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self, handle: int) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            process = os.pread(handle, 20, 0).decode(errors="replace").strip()
            raise InputError(
                f"{_quoted(self.folder)} is in use by another run (process {quote(process or 'unknown')}); wait until "
                "it ends, stop it, or name another folder"
            ) from None
        except OSError:
            return  # a file system without locks
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)

    def steps(self) -> list[int]:
        """List the steps of all checkpoints in order, damaged ones included."""
        names = [NAME.fullmatch(path.name) for path in self.folder.iterdir()]
        return sorted(int(name[1]) for name in names if name)

    def path(self, step: int) -> Path:
        """Return the path of a step's checkpoint."""
        return self.folder / f"step-{step:06d}.walras"

    def save(self, step: int, arrays: Mapping[str, Any], header: Mapping[str, Any], best: int | None = None) -> None:
        """Write a checkpoint, then remove all but the newest and the one of step `best`."""
        write_arrays(self.path(step), self.kind, arrays, {**header, STEP: step})
        for other in self.steps()[: -self.keep]:
            if other not in (best, step):
                self.path(other).unlink(missing_ok=True)

    def latest(self) -> Checkpoint | None:
        """Read the newest undamaged checkpoint; None where there is none.

        Raises:
            InputError: all are damaged, or the newest is of another kind or layout version.
        """
        notes: list[str] = []
        for step in reversed(self.steps()):
            try:
                return Checkpoint(step, self._read(step), tuple(notes))
            except DamagedFileError:
                notes.append(f"the checkpoint of step {step} is damaged, so an earlier one was taken")
        if notes:
            raise InputError(f"every checkpoint in {_quoted(self.folder)} is damaged; begin again in a fresh folder")
        return None

    def remove(self, after: int = -1) -> None:
        """Remove the checkpoints of all later steps; by default all."""
        for step in self.steps():
            if step > after:
                self.path(step).unlink(missing_ok=True)

    def _read(self, step: int) -> Stored:
        stored = read_arrays(self.path(step), self.kind)
        if stored.header.get(STEP) != step:
            raise DamagedFileError(f"{stored.source} is the checkpoint of another step; restore its own name")
        return stored


def _quoted(path: Path) -> str:
    return quote(path, 200)
