"""Own how much of a trajectory is worked on at a time, and when the window moves on.

OPEN: a window changes how much work it is, never the result; add one beside the others.
"""

import abc
from typing import TYPE_CHECKING

from jaxtyping import PyTree

from walras.errors import SettingsError
from walras.parallel.process import DecisionProcess
from walras.parallel.schedule import positive

if TYPE_CHECKING:
    from walras.parallel.picard import Picard


class AbstractWindow(abc.ABC):
    """Say how many events are worked on together, and when to go on to those behind them."""

    size: int | None

    @abc.abstractmethod
    def moves(self, done: int, size: int) -> bool:
        """Say whether to move on, `done` of `size` events being final; what was guessed beyond them is kept."""

    def settled(self, engine: "Picard", process: DecisionProcess, initial: PyTree, events: PyTree) -> "Picard":
        """Return the engine to run: the one that has this window, unless the window is yet to be chosen."""
        return engine

    def events(self, horizon: int) -> int:
        """Return the events of a window.

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
    """Let the window begin at the first event that is not final, once a share `refill` of it is final.

    Args:
        size: events in the window; all there are where not given.
        refill: 0 moves on after every round, 1 when all is final.

    Raises:
        SettingsError: the size is no positive whole number, or the share is not within 0 and 1.
    """

    def __init__(self, size: int | None = None, refill: float = 0.5):
        if not 0 <= refill <= 1:
            raise SettingsError(f"`refill` is {refill!r} but needs to be a share of the window; give e.g. 0.5")
        self.size = None if size is None else positive("size", size)
        self.refill = refill

    def moves(self, done: int, size: int) -> bool:
        """Move when enough is final."""
        return done > 0 and done >= self.refill * size


class FixedWindows(AbstractWindow):
    """Finish a window before the next one is begun; nothing is kept across windows."""

    def __init__(self, size: int | None = None):
        self.size = None if size is None else positive("size", size)

    def moves(self, done: int, size: int) -> bool:
        """Move when all is final."""
        return done == size
