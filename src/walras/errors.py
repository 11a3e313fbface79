"""Own every sentence that tells a user what was wrong with the input.

CONTRACT: callers catch these classes; one sentence each: what was given, what is needed, what to do.
"""


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
