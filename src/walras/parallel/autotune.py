"""Own the window that is chosen by what a round and a call cost here, measured on the first events.

FREE: two numbers and a rule; what is chosen changes the work, never the result.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Int, PyTree
from numpy import ndarray

from walras.errors import SettingsError
from walras.parallel.initial_guess import NoOp
from walras.parallel.process import AdditiveProcess, DecisionProcess, n_events, over_events
from walras.parallel.schedule import ChainSegments
from walras.parallel.windows import SlidingWindow

if TYPE_CHECKING:
    from walras.parallel.picard import Picard

SMALL, LARGE = 2, 16
"""Events of the two windows that are timed, in wide tiles."""

TIMES = 5
"""A trial is repeated so often, after once to compile; the quickest counts, since other work only ever slows it."""

LENGTHS = (64, 16)
"""Segments that are tried where a window has a longer chain [events]."""

CLEARLY = 0.8
"""Segments are taken where they need less than this part of the seconds: they cost calls, and clocks are noisy."""


@dataclass(frozen=True)
class Costs:
    """Hold the two numbers: seconds per round, whatever is in it, and seconds per policy call."""

    per_round: float
    per_call: float

    def window(self, share: float) -> float:
        """Return the fewest events for which the rounds cost at most a share of what the calls cost.

        A window of `W` events takes a round of `W` calls: `per_round <= share * W * per_call`. What is guessed behind a
        limit that binds is guessed in vain, the more the larger the window: hence the fewest.
        """
        return self.per_round / (share * self.per_call)


@dataclass(frozen=True)
class Timing:
    """Hold what a run of the first events took."""

    seconds: float
    rounds: int
    calls: int


class AutoWindow(SlidingWindow):
    """Choose window and segments by two costs measured on the first events: that of a round and that of a call.

    Chosen once for arrays of the same shapes; `choice` says what. Another clock or machine may choose others, so the
    rounds of two runs may differ; their results do not.

    Args:
        share: what rounds may cost over what calls cost.
        clock: returns seconds.

    Raises:
        SettingsError: the share is not positive.
    """

    def __init__(self, share: float = 0.25, clock: Callable[[], float] = time.perf_counter):
        super().__init__()
        if not share > 0:
            raise SettingsError(f"`share` is {share!r} but needs to be a positive number; give e.g. 0.25")
        self.share, self.clock = share, clock
        self.costs: Costs | None = None
        self.choice: tuple[int, int | None] | None = None
        self._chosen: dict[Any, tuple[Costs, int, int | None]] = {}

    def settled(self, engine: "Picard", process: DecisionProcess, initial: PyTree, events: PyTree) -> "Picard":
        """Return the engine with the window and the segments chosen; those of a given assignment stay."""
        wide, horizon = max(engine.tile), n_events(events)
        if horizon < 2 * SMALL * wide:
            self.choice = (horizon, None)
            return replace(engine, window=SlidingWindow())
        about = (engine.tile, engine.assignment, engine.certified, _shapes((process, initial, events)))
        if about not in self._chosen:
            bench = _Calibrator(engine, process, initial, events, self.clock)
            costs = bench.costs(SMALL * wide, min(LARGE * wide, horizon // 2))
            size = rounded(costs.window(self.share), SMALL * wide, horizon)
            self._chosen[about] = (costs, size, bench.length(size))
        self.costs, size, length = self._chosen[about]
        self.choice = (size, length)
        assignment = engine.assignment if length is None else ChainSegments(length)
        return replace(engine, window=SlidingWindow(size), assignment=assignment)


def rounded(wanted: float, least: int, most: int) -> int:
    """Round up to a power of two, so that few sizes are ever compiled; within limits."""
    return min(1 << int(np.ceil(np.log2(max(wanted, least)))), most) if wanted < most else most


def solve(small: Timing, large: Timing) -> Costs:
    """Solve `seconds = rounds * per_round + calls * per_call` for two trials; neither cost is less than a trace.

    A hundredth of what all rounds, or all calls, would cost alone is the least: noise never makes a cost vanish.
    """
    by_round, by_call = small.seconds / small.rounds, large.seconds / large.calls
    determinant = small.rounds * large.calls - large.rounds * small.calls
    per_round = (small.seconds * large.calls - large.seconds * small.calls) / determinant if determinant else 0.0
    per_round = min(max(per_round, by_round / 100), by_round)
    per_call = max((large.seconds - large.rounds * per_round) / large.calls, by_call / 100)
    return Costs(per_round, per_call)


@dataclass(frozen=True)
class _Calibrator:
    """Run an engine on the first events with one window or another, and look at the clock."""

    engine: "Picard"
    process: DecisionProcess
    initial: PyTree
    events: PyTree
    clock: Callable[[], float]

    def costs(self, small: int, large: int) -> Costs:
        """Time two windows on the same events."""
        return solve(
            *self.trials([replace(self.engine, window=SlidingWindow(size)) for size in (small, large)], 2 * large)
        )

    def length(self, size: int) -> int | None:
        """Return the length of segments that is quickest in a window, or None where whole chains are."""
        if self.engine.assignment is not None or not isinstance(self.process, AdditiveProcess):
            return None
        engine, first = replace(self.engine, window=SlidingWindow(size)), min(2 * size, n_events(self.events))
        lengths = [length for length in LENGTHS if length < self.longest(size)]
        if not lengths:
            return None
        cut = [replace(engine, assignment=ChainSegments(length)) for length in lengths]
        whole, *seconds = [trial.seconds for trial in self.trials([engine, *cut], first)]
        best = int(np.argmin(seconds))
        return lengths[best] if seconds[best] < CLEARLY * whole else None

    def longest(self, size: int) -> int:
        """Return the length of the longest chain among the first events."""
        assert isinstance(self.process, AdditiveProcess)
        keys: Int[ndarray, " event"] = np.asarray(over_events(self.process.key, self._first(size)))
        return int(np.unique(keys, return_counts=True)[1].max())

    def trials(self, engines: list["Picard"], count: int) -> list[Timing]:
        """Run some events by every engine, once to compile and then in turn for the clock, so that noise meets all."""
        events, seconds = self._first(count), [float("inf")] * len(engines)
        engines = [replace(engine, start=NoOp(), verify=False, max_rounds=None) for engine in engines]
        infos = [engine.run(self.process, self.initial, events)[1] for engine in engines]
        for _ in range(TIMES):
            for number, engine in enumerate(engines):
                started = self.clock()
                jax.block_until_ready(engine.run(self.process, self.initial, events)[0])
                seconds[number] = min(seconds[number], self.clock() - started)
        work = zip(seconds, infos, strict=True)
        return [Timing(taken, int(info.rounds), int(info.policy_calls)) for taken, info in work]

    def _first(self, count: int) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[:count], self.events)


def _shapes(tree: PyTree) -> Any:
    leaves, kind = jax.tree.flatten(tree)
    return kind, tuple((getattr(leaf, "shape", None), str(getattr(leaf, "dtype", type(leaf)))) for leaf in leaves)
