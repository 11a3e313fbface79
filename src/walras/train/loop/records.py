"""Own what is written down of a training: `run.json` says what was run, `metrics.jsonl` how it went, step by step.

EDGE: notebooks read these files (`read_metrics`); neither names a machine, a person or a folder.
"""

import json
import math
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from walras import __version__
from walras.data.write import write_atomic, write_text
from walras.errors import InputError, quote

RUN, METRICS = "run.json", "metrics.jsonl"
STEP, SECONDS, REASONS = "step", "seconds", "reasons"
PACKAGES = ("jax", "numpy", "equinox", "optax")
ABSOLUTE = re.compile(r"^(--?[\w-]+=)?([A-Za-z]:)?[/\\].*[/\\]")
"""The folders of an absolute path, alone or behind a flag."""


class RunRecord:
    """Keep `run.json`: settings, versions, the machine in words, when it was started and continued, how it ended."""

    def __init__(self, path: Path, config: Mapping[str, Any], command: Sequence[str] = ()) -> None:
        """Begin a record, or continue the one that is there.

        Args:
            path: the file.
            config: whatever the numbers follow from; words and numbers.
            command: the words that started the run, if it was a command; folders of absolute paths are left out.
        """
        self.path = path
        now = {"at": _now(), "command": [ABSOLUTE.sub(r"\1", word) for word in command], "versions": versions()}
        before = _read_object(path).get("starts", [])
        starts = [*(before if isinstance(before, list) else []), now]
        self._words: dict[str, Any] = {"config": dict(config), "machine": machine(), "starts": starts}

    def began(self, step: int) -> None:
        """Write that the run is on, from a step on."""
        self._words["starts"][-1][STEP] = step
        self._write({"status": "running"})

    def ended(self, status: str, facts: Mapping[str, Any]) -> None:
        """Write how the run ended.

        Args:
            status: "finished", "interrupted" or "failed".
            facts: what there is to say of it, such as the best step and its loss.
        """
        self._write({"status": status, "ended": _now(), **finite(facts)})

    def _write(self, more: Mapping[str, Any]) -> None:
        text = json.dumps({**self._words, **more}, indent=1, allow_nan=False)
        write_text(self.path, text + "\n")


class Metrics:
    """Append lines to `metrics.jsonl`, one a step, in the order of the steps.

    A line is one JSON object: `step`, the metrics, `seconds` of the whole run so far, and `reasons` why a metric is
    null, where one is.
    """

    def __init__(self, path: Path, after: int) -> None:
        """Open the file, and cut what was written of later steps, so that these are written anew.

        Args:
            path: the file; made if it is missing.
            after: the step that the run goes on from; -1 where it begins.
        """
        self.path = path
        kept = b"".join(line for step, line in _lines(path) if step <= after)
        write_atomic(path, lambda aside: _fill(aside, kept))
        self._waiting: list[tuple[int, bytes]] = []
        # One value for both, so that an interrupt between two statements cannot part them.
        self._tail = (len(kept), after)

    def add(self, step: int, values: Mapping[str, int | float], seconds: float) -> None:
        """Note a step, to be written by the next `flush`; one that was noted already passes.

        Args:
            step: steps done.
            values: metrics by name.
            seconds: of the whole run so far [seconds].
        """
        if step <= (self._waiting[-1][0] if self._waiting else self._tail[1]):
            return
        line = json.dumps({STEP: step, **finite(values), SECONDS: round(seconds, 3)}, allow_nan=False)
        self._waiting.append((step, line.encode() + b"\n"))

    def flush(self) -> None:
        """Write what waits; may be interrupted at any moment and called again."""
        size, last = self._tail
        fresh = [(step, line) for step, line in self._waiting if step > last]
        if fresh:
            with open(self.path, "r+b") as file:
                file.truncate(size)
                file.seek(size)
                file.write(text := b"".join(line for _, line in fresh))
            self._tail = (size + len(text), fresh[-1][0])
        self._waiting = []

    def sync(self) -> None:
        """Write what waits, and see it safely on disk."""
        self.flush()
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())


def read_metrics(path: str | Path) -> dict[str, np.ndarray]:
    """Read the metrics of a run as columns.

    Args:
        path: `metrics.jsonl`, or the folder that it is in.

    Returns:
        Name -> values by line: `step` as whole numbers, all else as float64, NaN where a line has no (finite) value.

    Raises:
        InputError: no such file.
    """
    path = Path(path)
    path = path / METRICS if path.is_dir() else path
    if not path.exists():
        raise InputError(f"{quote(path, 200)} is missing; give the folder that a training wrote to")
    rows = [json.loads(line) for _, line in _lines(path)]
    names = dict.fromkeys(name for row in rows for name in row if name not in (STEP, REASONS))
    columns = {name: np.array([_number(row.get(name)) for row in rows], float) for name in names}
    return {STEP: np.array([row[STEP] for row in rows], int), **columns}


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace numbers that are none by null, and say under `reasons` what they were."""
    reasons = {name: _trouble(value) for name, value in values.items() if _trouble(value)}
    plain = {name: None if name in reasons else value for name, value in values.items()}
    return {**plain, **({REASONS: reasons} if reasons else {})}


def versions() -> dict[str, str]:
    """Say which versions run here, of Python and of the packages that numbers depend on."""
    found = {"walras": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """Describe the machine in words that speed and last bits depend on; not whose it is, nor what it is called."""
    kinds = [device.device_kind for device in jax.devices()]
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
        "devices": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "byte_order": sys.byteorder,
    }


def _trouble(value: Any) -> str:
    if not isinstance(value, float) or math.isfinite(value):
        return ""
    return "not a number" if math.isnan(value) else f"{'minus ' if value < 0 else ''}infinity"


def _lines(path: Path) -> list[tuple[int, bytes]]:
    """Read the lines that are whole, with their steps; the last one may have been cut short by the end of the run."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            step = json.loads(line)[STEP]
        except (ValueError, KeyError, TypeError):
            continue
        if line.endswith(b"\n") and isinstance(step, int):
            found.append((step, line))
    return found


def _fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
