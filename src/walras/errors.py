"""Errors for users, in one sentence each: what was given, what is needed, what to do.

Readers of tables report problems to `FailFast` (raise the first) or `CollectAll` (collect all).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


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


@dataclass
class FailFast:
    """Raise the first problem as an `InputError`; collect notes."""

    notes: list[str] = field(default_factory=list)  # sentences about what was repaired
    rows: int = 0  # of the table, once known
    columns: dict[str, str] = field(default_factory=dict)  # our name -> the table's name, once known
    problems: list[str] = field(default_factory=list)

    def problem(self, sentence: str) -> None:
        """Raise the sentence as an `InputError`."""
        raise InputError(one_line(sentence))

    def note(self, sentence: str) -> None:
        """Collect a sentence about something that was repaired."""
        self.notes.append(one_line(sentence))


class CollectAll(FailFast):
    """Collect every problem, so that a table can be fixed at once."""

    def problem(self, sentence: str) -> None:
        """Collect the sentence."""
        self.problems.append(one_line(sentence))


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
