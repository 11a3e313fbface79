"""Own the journal of long work: a folder of finished pieces, from which the same question goes on where it ended.

EDGE: disk. A piece is written aside and renamed; one that does not match its checksum counts as not written.
"""

import dataclasses
import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from walras.data.write import write_atomic, write_text
from walras.errors import InputError, join, quote

QUESTION = "question.json"
CHECKSUM, MAKER = "checksum", "maker"

Span = tuple[int, int]
"""First agent of a piece, and the agent after its last."""


class ResumeLog:
    """Note finished pieces of the work on one question, and find them again.

    Attributes:
        folder: where the notes are; made if it is missing.
    """

    def __init__(self, folder: Path, question: Mapping[str, object]) -> None:
        """Open a folder, or begin one.

        Args:
            folder: a folder of its own; the folder above it must exist.
            question: whatever the pieces follow from, by name; words and numbers.

        Raises:
            InputError: the journal of another question, or a folder that is none.
        """
        self.folder = folder
        words = json.dumps(dict(question), sort_keys=True)
        self._salt = hashlib.sha256(words.encode()).digest()
        place = folder / QUESTION
        try:
            folder.mkdir(exist_ok=True)
            if place.exists():
                self._compare(json.loads(words), json.loads(place.read_bytes()))
            elif any(not each.name.startswith(".") for each in folder.iterdir()):
                raise InputError(f"{_named(folder)} holds other files and no {QUESTION}; give a new folder")
            else:
                write_text(place, words)
        except OSError as error:
            reason = quote(error.strerror or error)
            raise InputError(f"{_named(folder)} cannot be a journal ({reason}); give a folder to write to") from error
        except ValueError as error:
            raise InputError(f"{_named(place)} is damaged; remove the folder to begin again") from error

    def _compare(self, question: Mapping[str, object], noted: Any) -> None:
        if noted == question:
            return
        if not isinstance(noted, dict):
            raise ValueError("no question")
        other = sorted(name for name in {*question, *noted} if question.get(name) != noted.get(name))
        raise InputError(
            f"{_named(self.folder)} is the journal of another question (its {join(other)} differ); "
            "give a new folder, or remove this one"
        )

    def note(self, span: Span, maker: str, piece: Mapping[str, np.ndarray]) -> None:
        """Write a finished piece.

        Args:
            span: of the piece.
            maker: digest of what made this piece alone.
            piece: its arrays by name.
        """
        named = {**piece, MAKER: np.frombuffer(bytes.fromhex(maker), np.uint8)}
        checked = {**named, CHECKSUM: np.frombuffer(self._checksum(span, named), np.uint8)}
        write_atomic(self._place(span), lambda aside: np.savez(aside, allow_pickle=False, **checked))

    def noted(self, span: Span, maker: str) -> dict[str, np.ndarray] | None:
        """Read a finished piece; None where there is none, or a damaged one.

        Raises:
            InputError: a piece that something else made.
        """
        try:
            # Opened here: of a damaged file numpy would leave the handle open.
            with open(self._place(span), "rb") as raw, np.load(raw, allow_pickle=False) as file:
                piece = {name: file[name] for name in file.files}
            whole = piece.pop(CHECKSUM).tobytes() == self._checksum(span, piece)
            made_by = piece.pop(MAKER).tobytes().hex()
        except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
            return None
        if whole and made_by != maker:
            raise InputError(
                f"{_named(self.folder)} is the journal of another question (the policy of agents {span[0]} to "
                f"{span[1] - 1} differs); give a new folder, or remove this one"
            )
        return piece if whole else None

    def has(self, span: Span) -> bool:
        """Tell whether there is a note of this piece, be it damaged."""
        return self._place(span).exists()

    def _place(self, span: Span) -> Path:
        return self.folder / f"agents-{span[0]:012d}-{span[1]:012d}.npz"

    def _checksum(self, span: Span, piece: Mapping[str, np.ndarray]) -> bytes:
        """Digest question, place and arrays, so that a piece of another journal or another place does not pass."""
        found = hashlib.sha256(self._salt)
        _feed(found, [*span, dict(sorted(piece.items()))])
        return found.digest()


def digest(value: Any) -> str:
    """Give a number for arrays, plain values and modules of them, the same in every process.

    Functions count by their name only, since what they do cannot be read.
    """
    found = hashlib.sha256()
    _feed(found, value)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    """Add a value to a digest; each kind begins with a word of its own, so that none can pass for another."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        array = np.asarray(value)
        found.update(f"array {array.dtype.str} {array.shape};".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        found.update(f"object {_full_name(type(value))};".encode())
        _feed(found, {each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)})
    elif isinstance(value, Mapping):
        found.update(f"mapping {len(value)};".encode())
        for name, each in value.items():
            found.update(f"{name!r}:".encode())
            _feed(found, each)
    elif isinstance(value, list | tuple):
        found.update(f"list {len(value)};".encode())
        for each in value:
            _feed(found, each)
    elif hasattr(value, "__qualname__"):
        found.update(f"named {_full_name(value)};".encode())
    else:
        # Without the place in memory, which every process has anew.
        found.update(f"value {type(value).__name__} {re.sub(r' at 0x[0-9a-f]+', '', repr(value))};".encode())


def _full_name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{thing.__qualname__}"


def _named(path: Path) -> str:
    return quote(path, 200)
