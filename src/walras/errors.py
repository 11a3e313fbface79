"""Errors for users, in one sentence each: what was given, what is needed, what to do.

Readers of tables report problems to `FailFast` (raise the first) or `CollectAll` (collect all).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, SupportsInt


class WalrasError(Exception):
    """An error that the user can fix; the message is one sentence."""


class InputError(WalrasError):
    """A table, file or array that cannot be used; names the row, field or week and what is needed."""


class SettingsError(WalrasError):
    """A setting or option that cannot be used; names it, the value given and the values allowed."""


class ShapeError(InputError):
    """Arrays whose shapes do not fit; names both arrays and both shapes."""


class NoDerivativeError(InputError):
    """Something without a derivative was to be differentiated; names it and an alternative."""


class NotFiniteError(WalrasError):
    """The first NaN or infinity of a simulation; names the quantity, week and agent."""


class LostWorkerError(WalrasError):
    """A process of a run was lost; names it, how it ended, and how to resume."""


def one_line(text: str) -> str:
    """Join the lines of a message, so that a command prints exactly one."""
    return " ".join(text.split())


def shape_mismatch(name: str, given: object, needed: object, remedy: str) -> ShapeError:
    """Return the error for an array whose shape does not fit.

    Args:
        name: the argument as the user knows it.
        given, needed: its shape, and the needed one with axis names.
        remedy: what to do, an imperative phrase.
    """
    return ShapeError(f"`{name}` has shape {given} but needs {needed}; {remedy}")


WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Finding:
    """What was found in a table.

    Attributes:
        kind: in one or two words.
        sentence: the whole of it, with the row and the remedy.
        refuses: the table cannot be planned with; otherwise it is a remark.
        rows: first three data rows, counted from 1; empty where it concerns the whole table.
        examples: what stands there.
        remedy: what to do.
    """

    kind: str
    sentence: str
    refuses: bool
    rows: tuple[int, ...] = ()
    examples: tuple[str, ...] = ()
    remedy: str = ""


@dataclass
class FailFast:
    """Raise the first problem as an `InputError`; collect notes."""

    findings: list[Finding] = field(default_factory=list)
    rows: int = 0  # of the table, once known
    columns: dict[str, str] = field(default_factory=dict)  # our name -> the table's name, once known
    read_as: dict[str, str] = field(default_factory=dict)  # how the file was understood
    row_numbers: Any = None  # line of each row, where a wide table was turned into a long one

    @property
    def notes(self) -> list[str]:
        """List the sentences about what was handled."""
        return [finding.sentence for finding in self.findings if not finding.refuses]

    @property
    def problems(self) -> list[str]:
        """List the reasons to refuse the table."""
        return [finding.sentence for finding in self.findings if finding.refuses]

    def row(self, index: SupportsInt) -> int:
        """Return the data row of the file, from 1, that holds a row of the long table."""
        return int(index if self.row_numbers is None else self.row_numbers[int(index)]) + 1

    def problem(
        self,
        sentence: str,
        kind: str = "table",
        rows: Iterable[int] = (),
        examples: Iterable[object] = (),
        remedy: str = "",
    ) -> None:
        """Raise the sentence as an `InputError`."""
        raise InputError(one_line(sentence))

    def note(
        self, sentence: str, kind: str = "note", rows: Iterable[int] = (), examples: Iterable[object] = ()
    ) -> None:
        """Collect a sentence about something that was handled."""
        shown = tuple(quote(example) for example in examples)
        self.findings.append(Finding(kind, one_line(sentence), False, tuple(rows), shown))


class CollectAll(FailFast):
    """Collect every problem, so that a table can be fixed at once."""

    def problem(
        self,
        sentence: str,
        kind: str = "table",
        rows: Iterable[int] = (),
        examples: Iterable[object] = (),
        remedy: str = "",
    ) -> None:
        """Collect the sentence; what follows its last semicolon is the remedy where none is given."""
        text = one_line(sentence)
        remedy = remedy or text.rpartition("; ")[2]
        shown = tuple(quote(example) for example in examples)
        self.findings.append(Finding(kind, text, True, tuple(rows), shown, remedy))


def quote(value: object, limit: int = 40) -> str:
    """Quote a cell, escaped and shortened, for a sentence."""
    text = one_line(str(value)).encode("unicode_escape").decode("ascii") if value is not None else "empty"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def join(names: Iterable[object], limit: int = 8) -> str:
    """List the first few names and count the others."""
    quoted = [quote(name) for name in names]
    return ", ".join(quoted[:limit]) + (f" and {len(quoted) - limit} more" if len(quoted) > limit else "")


def plural(number: int, one: str, many: str | None = None) -> str:
    """Write a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
