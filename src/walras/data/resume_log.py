"""Log of finished pieces of long work: a folder from which the same job resumes.

A piece is written atomically; one that is damaged counts as not written and is computed again.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from walras.data.array_file import DamagedFileError, pack, read_arrays
from walras.data.write import write_atomic, write_text
from walras.errors import InputError, join, quote

JOB_FILE = "question.json"
KIND = "finished piece"

Span = tuple[int, int]
"""First agent of a piece, and the agent after its last."""


class ResumeLog:
    """Record finished pieces of one job, and return them when the job runs again.

    Attributes:
        folder: where the pieces are.
    """

    def __init__(self, folder: Path, job: Mapping[str, object]) -> None:
        """Open a folder, or begin one.

        Args:
            folder: a folder of its own, made if missing; the folder above it must exist.
            job: everything that the pieces follow from, by name; words and numbers.

        Raises:
            InputError: the log of another job, or a folder that is no log.
        """
        self.folder = folder
        text = json.dumps(dict(job), sort_keys=True)
        self._job_digest = hashlib.sha256(text.encode()).hexdigest()
        path = folder / JOB_FILE
        try:
            folder.mkdir(exist_ok=True)
            if path.exists():
                self._compare(json.loads(text), json.loads(path.read_bytes()))
            elif any(not entry.name.startswith(".") for entry in folder.iterdir()):
                raise InputError(f"{quote(folder, 200)} holds other files and no {JOB_FILE}; give a new folder")
            else:
                write_text(path, text)
        except OSError as error:
            reason = quote(error.strerror or error)
            raise InputError(
                f"{quote(folder, 200)} cannot be a journal ({reason}); give a folder to write to"
            ) from error
        except ValueError as error:
            raise InputError(f"{quote(path, 200)} is damaged; remove the folder to begin again") from error

    def _compare(self, job: Mapping[str, object], recorded: Any) -> None:
        if recorded == job:
            return
        if not isinstance(recorded, dict):
            raise ValueError("not a job")
        differing = sorted(name for name in {*job, *recorded} if job.get(name) != recorded.get(name))
        raise self._other_job(f"its {join(differing)} differ")

    def _other_job(self, reason: str) -> InputError:
        return InputError(
            f"{quote(self.folder, 200)} is the journal of another question ({reason}); give a new folder, or remove "
            "this one"
        )

    def record(self, span: Span, maker: str, piece: Mapping[str, np.ndarray]) -> None:
        """Write a finished piece.

        Args:
            span: agents of the piece.
            maker: digest of what made this piece alone, such as the policy of its agents.
            piece: its arrays by name.
        """
        content = pack(KIND, piece, {"job": self._job_digest, "span": list(span), "maker": maker})
        write_atomic(self._path(span), lambda temporary: temporary.write_bytes(content))

    def completed(self, span: Span, maker: str) -> dict[str, np.ndarray] | None:
        """Read a finished piece; None where there is none, or a damaged or misplaced one.

        Raises:
            InputError: the piece was made by something else.
        """
        try:
            stored = read_arrays(self._path(span), KIND)
        except DamagedFileError:
            return None
        except InputError:
            if not self.has(span):
                return None
            raise
        if (stored.header.get("job"), stored.header.get("span")) != (self._job_digest, list(span)):
            return None
        if stored.header.get("maker") != maker:
            raise self._other_job(f"the policy of agents {span[0]} to {span[1] - 1} differs")
        return stored.arrays

    def has(self, span: Span) -> bool:
        """Tell whether a file of this piece exists, which may be damaged."""
        return self._path(span).exists()

    def _path(self, span: Span) -> Path:
        return self.folder / f"agents-{span[0]:012d}-{span[1]:012d}.safetensors"


def digest(value: Any) -> str:
    """Return a SHA-256 of arrays, plain values and modules of them, the same in every process.

    Functions count by their name only.
    """
    hasher = hashlib.sha256()
    _feed(hasher, value)
    return hasher.hexdigest()


def _feed(hasher: Any, value: Any) -> None:
    """Add a value to a digest; each kind begins with a word of its own, so that none can pass for another."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        array = np.asarray(value)
        hasher.update(f"array {array.dtype.str} {array.shape};".encode())
        hasher.update(np.ascontiguousarray(array).tobytes())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        hasher.update(f"object {_full_name(type(value))};".encode())
        _feed(hasher, {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)})
    elif isinstance(value, Mapping):
        hasher.update(f"mapping {len(value)};".encode())
        for name, item in value.items():
            hasher.update(f"{name!r}:".encode())
            _feed(hasher, item)
    elif isinstance(value, list | tuple):
        hasher.update(f"list {len(value)};".encode())
        for item in value:
            _feed(hasher, item)
    elif hasattr(value, "__qualname__"):
        hasher.update(f"named {_full_name(value)};".encode())
    else:
        # Without the address in memory, which differs between processes.
        hasher.update(f"value {type(value).__name__} {re.sub(r' at 0x[0-9a-f]+', '', repr(value))};".encode())


def _full_name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{thing.__qualname__}"
