"""Own who evaluates what: assignments of events to processes, as objects.

OPEN: an assignment changes how much work it is, never the result; add one beside the others.
"""

import abc
from collections.abc import Callable

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from walras.errors import InputError, SettingsError


class AbstractAssignment(abc.ABC):
    """Give every event of a window to a process; a process takes its events in order and knows its own decisions."""

    @abc.abstractmethod
    def processes(self, keys: Int[ndarray, " event"], first: int) -> Int[ndarray, " event"]:
        """Name the process of every event, by any integers.

        Args:
            keys: the key of every event of the window (the product, say).
            first: number of the window's first event in the whole trajectory.
        """


class ByKey(AbstractAssignment):
    """Give all events of one key to one process: every decision of a chain is based on those before it."""

    def processes(self, keys: Int[ndarray, " event"], first: int) -> Int[ndarray, " event"]:
        """Name processes by the key."""
        return keys


class OneEach(AbstractAssignment):
    """Give every event a process of its own: fewest serial steps, most guesses."""

    def processes(self, keys: Int[ndarray, " event"], first: int) -> Int[ndarray, " event"]:
        """Name processes by the event."""
        return np.arange(len(keys), dtype=np.int32)


class Segments(AbstractAssignment):
    """Cut the chain of every key into segments of `length` events, so that no process has more.

    Raises:
        SettingsError: the length is no positive whole number.
    """

    def __init__(self, length: int):
        self.length = positive("length", length)

    def processes(self, keys: Int[ndarray, " event"], first: int) -> Int[ndarray, " event"]:
        """Name processes by the key and the number of the segment."""
        place = places_in_chain(keys)
        return (keys.astype(np.int64) * (len(keys) // self.length + 1)) + place // self.length


class Scattered(AbstractAssignment):
    """Give every event to one of `number` processes at random.

    Raises:
        SettingsError: the number is no positive whole number.
    """

    def __init__(self, number: int, seed: int = 0):
        self.number, self.seed = positive("number", number), seed

    def processes(self, keys: Int[ndarray, " event"], first: int) -> Int[ndarray, " event"]:
        """Draw a process for every event; the same event always gets the same one in a window that starts there."""
        return np.random.default_rng((self.seed, first)).integers(self.number, size=len(keys))


class OwnAssignment(AbstractAssignment):
    """Let a function say the process of every event: `function(keys, first) -> integers`."""

    def __init__(self, function: Callable[[ndarray, int], ndarray]):
        self.function = function

    def processes(self, keys: Int[ndarray, " event"], first: int) -> Int[ndarray, " event"]:
        """Ask the function.

        Raises:
            InputError: it does not answer one integer for every event.
        """
        named = np.asarray(self.function(keys, first))
        if named.shape != keys.shape or not np.issubdtype(named.dtype, np.integer):
            raise InputError(
                f"the assignment returned {named.dtype} of shape {named.shape} but needs one integer for each of "
                f"{len(keys)} events; return an array as long as the keys it is given"
            )
        return named


def places_in_chain(keys: Int[ndarray, " event"]) -> Int[ndarray, " event"]:
    """Count, for every event, the earlier events with the same key."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(keys)])
    place = np.empty(len(keys), np.int64)
    place[order] = np.arange(len(keys)) - np.repeat(starts, lengths)
    return place


def positive(name: str, value: object) -> int:
    """Check a whole number of at least one.

    Raises:
        SettingsError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise SettingsError(f"`{name}` is {value!r} but needs to be a whole number of at least 1; give e.g. 64")
    return int(value)
