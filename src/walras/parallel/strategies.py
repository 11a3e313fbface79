"""What can be varied in the parallel engine: first guess, assignment of events to processes, and window.

Every choice changes the work only, never the result.
"""

import abc
from collections.abc import Callable

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
        """Return the given actions.

        Raises:
            ShapeError: there is not one action for every event.
        """
        needed = (n_events(events),)
        if self.given.shape != needed:
            raise shape_mismatch("actions", self.given.shape, f"{needed} [event]", "give one action for every event")
        return self.given


class FromPolicy(AbstractInitialGuess):
    """Guess the actions of a cheaper process on the same events, run by its own engine."""

    def __init__(self, process: DecisionProcess, engine: AbstractEngine):
        self.process, self.engine = process, engine

    def actions(self, process: DecisionProcess, initial: PyTree, events: PyTree) -> Int[Array, " event"]:
        """Run the cheaper process."""
        trajectory, _ = self.engine.run(self.process, initial, events)
        return trajectory.records


class AbstractAssignment(abc.ABC):
    """Assigns events to processes; a process evaluates its events in order, on its own new decisions."""

    @abc.abstractmethod
    def processes(self, keys: HostInts, offset: int) -> HostInts:
        """Return the process of every event, as any integers.

        Args:
            keys: the key of every event of the window.
            offset: number of the window's first event in the whole trajectory.
        """


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
    """One process per segment of `length` consecutive events of a key.

    Raises:
        SettingsError: the length is no positive whole number.
    """

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
    """One of `number` processes, drawn for every event.

    Raises:
        SettingsError: the number is no positive whole number.
    """

    def __init__(self, number: int, seed: int = 0):
        self.number, self.seed = positive_integer("number", number), seed

    def processes(self, keys: HostInts, offset: int) -> HostInts:
        """Draw the processes, the same ones whenever a window starts at `offset`."""
        return np.random.default_rng((self.seed, offset)).integers(self.number, size=len(keys))


class CustomAssignment(AbstractAssignment):
    """The processes that `function(keys, offset)` returns."""

    def __init__(self, function: Callable[[ndarray, int], ndarray]):
        self.function = function

    def processes(self, keys: HostInts, offset: int) -> HostInts:
        """Call the function.

        Raises:
            InputError: it does not return one integer for every event.
        """
        processes = np.asarray(self.function(keys, offset))
        if processes.shape != keys.shape or not np.issubdtype(processes.dtype, np.integer):
            raise InputError(
                f"the assignment returned {processes.dtype} of shape {processes.shape} but needs one integer for each "
                f"of {len(keys)} events; return an array as long as the keys it is given"
            )
        return processes


class AbstractWindow(abc.ABC):
    """How many events are iterated on together, and when the window advances; all events where `size` is None."""

    size: int | None

    @abc.abstractmethod
    def should_advance(self, n_final: int, size: int) -> bool:
        """Say whether to advance when the first `n_final` of `size` events are final; later guesses are kept."""

    def resolve(
        self, engine: AbstractEngine, process: DecisionProcess, initial: PyTree, events: PyTree
    ) -> AbstractEngine:
        """Return the engine to run, for windows whose size depends on the problem."""
        return engine

    def length(self, horizon: int) -> int:
        """Return the number of events of a window.

        Raises:
            SettingsError: the window is larger than the horizon.
        """
        if self.size is not None and self.size > horizon:
            raise SettingsError(
                f"the window has {self.size} events but there are only {horizon}; leave `size` out to take them all "
                f"at once, or give at most {horizon}"
            )
        return horizon if self.size is None else self.size


class SlidingWindow(AbstractWindow):
    """Advance to the first event that is not final, once a share `refill` of the window is final.

    Args:
        size: events in the window; all where not given.
        refill: 0 advances after every round, 1 when all is final.

    Raises:
        SettingsError: the size is no positive whole number, or the share is not within 0 and 1.
    """

    def __init__(self, size: int | None = None, refill: float = 0.5):
        if not 0 <= refill <= 1:
            raise SettingsError(f"`refill` is {refill!r} but needs to be a share of the window; give e.g. 0.5")
        self.size = None if size is None else positive_integer("size", size)
        self.refill = refill

    def should_advance(self, n_final: int, size: int) -> bool:
        """Advance when enough is final."""
        return n_final > 0 and n_final >= self.refill * size


class FixedWindows(AbstractWindow):
    """Finish a window before the next one begins; no guesses are kept across windows."""

    def __init__(self, size: int | None = None):
        self.size = None if size is None else positive_integer("size", size)

    def should_advance(self, n_final: int, size: int) -> bool:
        """Advance when all is final."""
        return n_final == size


def run_starts(*sorted_values: HostInts) -> Int[ndarray, " run"]:
    """Return where runs of equal values begin, in arrays sorted together."""
    new = np.zeros(len(sorted_values[0]), bool)
    new[:1] = True
    for values in sorted_values:
        new[1:] |= values[1:] != values[:-1]
    return np.flatnonzero(new).astype(np.int32)


def positive_integer(name: str, value: object) -> int:
    """Return a whole number of at least one.

    Raises:
        SettingsError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise SettingsError(f"`{name}` is {value!r} but needs to be a whole number of at least 1; give e.g. 64")
    return int(value)
