"""Choices of the parallel engine that change the work, never the result: first guess, assignment, and window."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from numpy import ndarray

from walras.errors import InputError, SettingsError, shape_mismatch
from walras.parallel.process import AbstractEngine, DecisionProcess, n_events, over_events

HostInts = Int[ndarray, " event"]


class AbstractInitialGuess(abc.ABC):
    """Guesses the action of every event before anything is evaluated."""

    @abc.abstractmethod
    def actions(self, process: DecisionProcess, initial: PyTree, events: PyTree) -> Int[Array, " event"]:
        """Return one action for every event."""


class NoOp(AbstractInitialGuess):
    """Guess `noop` everywhere: the best start for policies that choose the best option still available."""

    def actions(self, process: DecisionProcess, initial: PyTree, events: PyTree) -> Int[Array, " event"]:
        """Return the no-op of every event."""
        return over_events(process.noop, events).astype(jnp.int32)


class WarmStart(AbstractInitialGuess):
    """Guess given actions, e.g. those of the previous policy while a policy is being improved."""

    def __init__(self, actions: Int[Array, " event"] | HostInts):
        self.given = jnp.asarray(actions, jnp.int32)

    def actions(self, process: DecisionProcess, initial: PyTree, events: PyTree) -> Int[Array, " event"]:
        """Return the given actions, and refuse another number than one for every event."""
        needed = (n_events(events),)
        if self.given.shape != needed:
            raise shape_mismatch("actions", self.given.shape, f"{needed} [event]", "give one action for every event")
        return self.given


@dataclass(frozen=True, eq=False)
class FromPolicy(AbstractInitialGuess):
    """Guess the actions of a cheaper process on the same events, run by its own engine."""

    process: DecisionProcess
    engine: AbstractEngine

    def actions(self, process: DecisionProcess, initial: PyTree, events: PyTree) -> Int[Array, " event"]:
        """Run the cheaper process."""
        return self.engine.run(self.process, initial, events)[0].records


class AbstractAssignment(abc.ABC):
    """Assigns events to processes; a process evaluates its events in order, on its own new decisions."""

    @abc.abstractmethod
    def processes(self, keys: HostInts, offset: int) -> HostInts:
        """Return the process, any integer, of every event of a window that begins with event `offset`, by its key."""


class ByKey(AbstractAssignment):
    """One process per key: every decision of a key builds on those before it."""

    def processes(self, keys: HostInts, offset: int) -> HostInts:
        """Return the keys."""
        return keys


class PerEvent(AbstractAssignment):
    """One process per event: fewest serial steps, most guesses."""

    def processes(self, keys: HostInts, offset: int) -> HostInts:
        """Number the events."""
        return np.arange(len(keys), dtype=np.int32)


class ChainSegments(AbstractAssignment):
    """One process per segment of `length` consecutive events of a key; the length is a positive whole number."""

    def __init__(self, length: int):
        self.length = positive_integer("length", length)

    def processes(self, keys: HostInts, offset: int) -> HostInts:
        """Number the segments."""
        order = np.argsort(keys, kind="stable")
        starts = run_starts(keys[order])
        position = np.empty(len(keys), np.int64)
        position[order] = np.arange(len(keys)) - np.repeat(starts, np.diff(np.r_[starts, len(keys)]))
        return (keys.astype(np.int64) * (len(keys) // self.length + 1)) + position // self.length


class RandomAssignment(AbstractAssignment):
    """One of `number` processes, a positive whole number, drawn for every event."""

    def __init__(self, number: int, seed: int = 0):
        self.number, self.seed = positive_integer("number", number), seed

    def processes(self, keys: HostInts, offset: int) -> HostInts:
        """Draw the processes, the same ones whenever a window starts at `offset`."""
        return np.random.default_rng((self.seed, offset)).integers(self.number, size=len(keys))


@dataclass(frozen=True, eq=False)
class CustomAssignment(AbstractAssignment):
    """The processes that `function(keys, offset)` returns."""

    function: Callable[[ndarray, int], ndarray]

    def processes(self, keys: HostInts, offset: int) -> HostInts:
        """Call the function, and refuse anything but one integer for every event."""
        processes = np.asarray(self.function(keys, offset))
        if processes.shape != keys.shape or not np.issubdtype(processes.dtype, np.integer):
            raise InputError(
                f"the assignment returned {processes.dtype} of shape {processes.shape} but needs one integer for each "
                f"of {len(keys)} events; return an array as long as the keys it is given"
            )
        return processes


class SlidingWindow:
    """Iterate on `size` events together (all where None); once a share `refill` of them is final, advance to the rest.

    Raises:
        SettingsError: the size is no positive whole number, or the share is not within 0 and 1.
    """

    def __init__(self, size: int | None = None, refill: float = 0.5):
        if not 0 <= refill <= 1:
            raise SettingsError(f"`refill` is {refill!r} but needs to be a share of the window; give e.g. 0.5")
        self.size = None if size is None else positive_integer("size", size)
        self.refill = refill

    def should_advance(self, n_final: int, size: int) -> bool:
        """Say whether to advance to the first event that is not final when the first `n_final` of `size` are."""
        return n_final > 0 and n_final >= self.refill * size

    def resolve(self, engine: Any, process: DecisionProcess, initial: PyTree, events: PyTree) -> Any:
        """Return the `Picard` engine to run; another one where the size of the window depends on the problem."""
        return engine

    def length(self, horizon: int) -> int:
        """Return the number of events of a window, and refuse one larger than the horizon."""
        if self.size is not None and self.size > horizon:
            raise SettingsError(
                f"the window has {self.size} events but there are only {horizon}; leave `size` out to take them all "
                f"at once, or give at most {horizon}"
            )
        return horizon if self.size is None else self.size


class FixedWindows(SlidingWindow):
    """Finish a window before the next one begins; no guesses are kept across windows."""

    def __init__(self, size: int | None = None):
        super().__init__(size, refill=1.0)


def run_starts(*sorted_values: HostInts) -> Int[ndarray, " run"]:
    """Return where runs of equal values begin, in arrays sorted together."""
    new = np.zeros(len(sorted_values[0]), bool)
    new[:1] = True
    for values in sorted_values:
        new[1:] |= values[1:] != values[:-1]
    return np.flatnonzero(new).astype(np.int32)


def positive_integer(name: str, value: object) -> int:
    """Return a whole number of at least one, and refuse anything else."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise SettingsError(f"`{name}` is {value!r} but needs to be a whole number of at least 1; give e.g. 64")
    return int(value)
