"""Own every sentence that tells a user what was wrong with the input.

CONTRACT: callers catch these classes; one sentence each: what was given, what is needed, what to do.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


class WalrasError(Exception):
    """Report a mistake the user can mend; the message is one sentence for people."""


class InputError(WalrasError):
    """Refuse a table, file or array: name the row, field or week and what is needed."""


class SettingsError(WalrasError):
    """Refuse a setting or option: name it, the value given and the values allowed."""


class ShapeError(InputError):
    """Refuse arrays whose axes do not meet: name both arrays and both lengths."""


class NoDerivativeError(InputError):
    """Refuse to differentiate what has no derivative: name it, say what works without, and what could stand in."""


class NotFiniteError(WalrasError):
    """Report the first NaN or infinity of a simulation: name the quantity, week and agent."""


class LostWorkerError(WalrasError):
    """Report that a process of a run was lost: name it, how it ended, and how to go on."""


def one_line(text: str) -> str:
    """Fold a message to one line, so that a command prints exactly one sentence."""
    return " ".join(text.split())


def shape_mismatch(name: str, given: object, needed: object, remedy: str) -> ShapeError:
    """Build the sentence for an array whose shape does not fit.

    Args:
        name: the argument as the user knows it.
        given: the shape that came.
        needed: the shape that is needed, with axis names.
        remedy: what to do, an imperative phrase.
    """
    return ShapeError(f"`{name}` has shape {given} but needs {needed}; {remedy}")


WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass
class FailFast:
    """Stop at the first problem with an `InputError`; keep the notes.

    Attributes:
        notes: sentences about what was handled.
        rows: rows of the table, once known.
        columns: our name -> the table's name, once known.
    """

    notes: list[str] = field(default_factory=list)
    rows: int = 0
    columns: dict[str, str] = field(default_factory=dict)

    def problem(self, sentence: str) -> None:
        """Raise the sentence.

        Raises:
            InputError: always.
        """
        raise InputError(one_line(sentence))

    @property
    def has_problems(self) -> bool:
        """Tell whether reading cannot go on."""
        return False

    def note(self, sentence: str) -> None:
        """Keep a sentence about something that was handled."""
        self.notes.append(one_line(sentence))


@dataclass
class CollectAll(FailFast):
    """Collect every problem, so that a person can mend a table in one go."""

    problems: list[str] = field(default_factory=list)

    def problem(self, sentence: str) -> None:
        """Keep the sentence."""
        self.problems.append(one_line(sentence))

    @property
    def has_problems(self) -> bool:
        """Tell whether there is any problem so far."""
        return bool(self.problems)


def quote(value: object, limit: int = 40) -> str:
    """Quote a cell so that it stays readable in a sentence."""
    text = one_line(str(value)).encode("unicode_escape").decode("ascii") if value is not None else "empty"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def join(names: Iterable[object], limit: int = 8) -> str:
    """Name the first few of many."""
    every = [quote(name) for name in names]
    return ", ".join(every[:limit]) + (f" and {len(every) - limit} more" if len(every) > limit else "")


def plural(number: int, one: str, many: str | None = None) -> str:
    """Write a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
