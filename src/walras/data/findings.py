"""Own what happens when a table breaks a rule: stop at the first problem, or gather them all.

CONTRACT: readers report through `problem` and `note`; `Refuse` is for reading, `Gather` for `walras data check`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from walras.errors import InputError, one_line

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass
class Refuse:
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
    def found_problems(self) -> bool:
        """Tell whether reading cannot go on."""
        return False

    def note(self, sentence: str) -> None:
        """Keep a sentence about something that was handled."""
        self.notes.append(one_line(sentence))


@dataclass
class Gather(Refuse):
    """Collect every problem, so that a person can mend a table in one go."""

    problems: list[str] = field(default_factory=list)

    def problem(self, sentence: str) -> None:
        """Keep the sentence."""
        self.problems.append(one_line(sentence))

    @property
    def found_problems(self) -> bool:
        """Tell whether there is any problem so far."""
        return bool(self.problems)


def shown(value: object, limit: int = 40) -> str:
    """Quote a cell so that it stays readable in a sentence."""
    text = one_line(str(value)).encode("unicode_escape").decode("ascii") if value is not None else "empty"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def listed(names: Iterable[object], limit: int = 8) -> str:
    """Name the first few of many."""
    every = [shown(name) for name in names]
    return ", ".join(every[:limit]) + (f" and {len(every) - limit} more" if len(every) > limit else "")


def counted(number: int, one: str, many: str | None = None) -> str:
    """Write a number with its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
