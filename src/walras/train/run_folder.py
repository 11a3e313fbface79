"""Files of a training's folder: `run.json`, `metrics.jsonl` and checkpoints; none names a machine, person or folder."""

import json
import math
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from walras import __version__
from walras.data.array_file import DamagedFileError, Stored, read_arrays, write_arrays
from walras.data.write import write_atomic, write_text
from walras.errors import InputError, quote

try:
    import fcntl
except ImportError:  # Windows: nothing keeps a second run out
    fcntl = None  # type: ignore[assignment]

RUN, METRICS = "run.json", "metrics.jsonl"
STEP, SECONDS, REASONS = "step", "seconds", "reasons"
PACKAGES = ("jax", "numpy", "equinox", "optax")
ABSOLUTE = re.compile(r"^(--?[\w-]+=)?([A-Za-z]:)?[/\\].*[/\\]")  # folders of an absolute path, also behind a flag
NEWEST = 3  # checkpoints kept beside the best
NAME = re.compile(r"step-(\d{6,})\.walras")
LOCK = ".lock"


class RunRecord:
    """`run.json`: settings, versions, kind of machine, all starts of the run and how it ended."""

    def __init__(self, path: Path, config: Mapping[str, Any], command: Sequence[str] = ()) -> None:
        """Begin a record, or continue the one that exists."""
        self.path = path
        start = {"at": _now(), "command": [ABSOLUTE.sub(r"\1", word) for word in command], "versions": versions()}
        try:
            earlier = json.loads(path.read_bytes())["starts"]
        except (OSError, ValueError, KeyError, TypeError):
            earlier = []
        starts = [*(earlier if isinstance(earlier, list) else []), start]
        self._content: dict[str, Any] = {"config": dict(config), "machine": machine(), "starts": starts}

    def start(self, step: int) -> None:
        """Write that the run is under way from a step on."""
        self._content["starts"][-1][STEP] = step
        self._write({"status": "running"})

    def end(self, status: str, facts: Mapping[str, Any]) -> None:
        """Write how the run ended."""
        self._write({"status": status, "ended": _now(), **finite(facts)})

    def _write(self, more: Mapping[str, Any]) -> None:
        write_text(self.path, json.dumps({**self._content, **more}, indent=1, allow_nan=False) + "\n")


class Metrics:
    """`metrics.jsonl`: one JSON object per step, in the order of the steps.

    Fields: `step`, the metrics, `seconds` of the whole run so far, and `reasons` for metrics that are null.
    """

    def __init__(self, path: Path, after: int) -> None:
        """Open the file and drop the lines of later steps, which will be written again."""
        self.path = path
        earlier = b"".join(line for step, line in _lines(path) if step <= after)

        write_atomic(path, lambda aside: aside.write_bytes(earlier))
        self._pending: list[tuple[int, bytes]] = []
        # Size and last step are one value, so that an interrupt between two statements cannot separate them.
        self._tail = (len(earlier), after)

    def add(self, step: int, values: Mapping[str, int | float], seconds: float) -> None:
        """Queue the line of a step, with the time so far [seconds], for `flush`; a step that has one is ignored."""
        if step <= (self._pending[-1][0] if self._pending else self._tail[1]):
            return
        line = json.dumps({STEP: step, **finite(values), SECONDS: round(seconds, 3)}, allow_nan=False)
        self._pending.append((step, line.encode() + b"\n"))

    def flush(self) -> None:
        """Write queued lines; may be interrupted at any moment and called again."""
        size, last = self._tail
        new = [(step, line) for step, line in self._pending if step > last]
        if new:
            with open(self.path, "r+b") as file:
                file.truncate(size)
                file.seek(size)
                file.write(text := b"".join(line for _, line in new))
            self._tail = (size + len(text), new[-1][0])
        self._pending = []

    def sync(self) -> None:
        """Write queued lines and wait until they are on disk."""
        self.flush()
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())


def read_metrics(path: str | Path) -> dict[str, np.ndarray]:
    """Read `metrics.jsonl` of a run (or of its folder) as columns, for plots.

    Returns:
        Name -> value per line: `step` as integers, all others float64 with NaN where a line has no finite value.

    Raises:
        InputError: no such file.
    """
    path = Path(path)
    path = path / METRICS if path.is_dir() else path
    if not path.exists():
        raise InputError(f"{quote(path, 200)} is missing; give the folder that a training wrote to")
    rows = [json.loads(line) for _, line in _lines(path)]
    names = dict.fromkeys(name for row in rows for name in row if name not in (STEP, REASONS))
    column = {name: [row.get(name) for row in rows] for name in names}
    columns = {name: np.array([math.nan if x is None else x for x in values], float) for name, values in column.items()}
    return {STEP: np.array([row[STEP] for row in rows], int), **columns}


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace NaN and infinities by null, with an entry in `reasons` for each."""
    reasons = {
        name: "not a number" if math.isnan(value) else f"{'minus ' if value < 0 else ''}infinity"
        for name, value in values.items()
        if isinstance(value, float) and not math.isfinite(value)
    }
    plain = {name: None if name in reasons else value for name, value in values.items()}
    return {**plain, **({REASONS: reasons} if reasons else {})}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    by_name = {"walras": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            by_name[name] = version(name)
        except PackageNotFoundError:
            by_name[name] = "not installed"
    return by_name


def machine() -> dict[str, Any]:
    """Describe the kind of machine, on which speed and last bits depend, without its name."""
    kinds = [device.device_kind for device in jax.devices()]
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
        "devices": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "byte_order": sys.byteorder,
    }


def _lines(path: Path) -> list[tuple[int, bytes]]:
    """Read complete lines with their steps; a killed run may have cut the last one short."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            step = json.loads(line)[STEP]
        except (ValueError, KeyError, TypeError):
            continue
        if line.endswith(b"\n") and isinstance(step, int):
            lines.append((step, line))
    return lines


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """State of a training after a step."""

    step: int  # steps done
    stored: Stored  # arrays and header
    notes: tuple[str, ...]  # one sentence for each newer checkpoint that was damaged


class Checkpoints:
    """Folder of checkpoints, for one run at a time: use it in a `with` statement."""

    def __init__(self, folder: Path, kind: str, keep: int = NEWEST) -> None:
        """Choose the folder; `with` makes and locks it."""
        self.folder, self.kind, self.keep = folder, kind, keep
        self._lock: int | None = None

    def __enter__(self) -> "Checkpoints":
        """Make the folder and lock it, or raise an `InputError` where it is in use or cannot be a folder."""
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
