"""The window size chosen by measuring, on the first events, what a round and a policy call cost."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int, PyTree
from numpy import ndarray

from walras.errors import SettingsError
from walras.parallel.picard import Picard
from walras.parallel.process import AdditiveProcess, DecisionProcess, n_events, over_events
from walras.parallel.strategies import ChainSegments, NoOp, SlidingWindow

MANY = 65_536  # events from which measuring costs less than it saves
SMALL, LARGE = 2, 16  # sizes of the two timed windows [wide batches]
REPEATS = 5  # timed after compilation; the fastest counts, since other load only ever slows a run
LENGTHS = (64, 16)  # of segments that are tried where a window has a longer chain [events]
CLEARLY = 0.8  # share of the seconds that segments must save below: they cost policy calls, and timings are noisy


def default_engine(n_events: int, window: SlidingWindow | None = None, *, verify: bool = False) -> Picard:
    """Return the parallel engine for a number of events: one window for few of them, a measured one for many."""
    if window is None:
        window = SlidingWindow() if n_events <= MANY else _shared_window()
    return Picard(window, verify=verify)


@cache
def _shared_window() -> "AutoWindow":
    """Return one window for all runs, so that equal shapes are measured once."""
    return AutoWindow()


class WindowCosts(NamedTuple):
    """Seconds per round, whatever is in it, and seconds per policy call."""

    per_round: float
    per_call: float


class RunTiming(NamedTuple):
    """What a run of the first events took."""

    seconds: float
    rounds: int
    calls: int


class AutoWindow(SlidingWindow):
    """Choose window size and segment length by the costs of a round and of a call, measured on the first events.

    Rounds may cost a positive `share` of what calls cost. Measured once per shapes of arrays; `choice` is the last one.
    Timings differ between runs, and so may the numbers of rounds, but never the actions.
    """

    def __init__(self, share: float = 0.25, clock: Callable[[], float] = time.perf_counter):
        super().__init__()
        if not share > 0:
            raise SettingsError(f"`share` is {share!r} but needs to be a positive number; give e.g. 0.25")
        self.share, self.clock = share, clock
        self.costs: WindowCosts | None = None
        self.choice: tuple[int, int | None] | None = None
        self._measured: dict[Any, tuple[WindowCosts, int, int | None]] = {}

    def resolve(self, engine: Picard, process: DecisionProcess, initial: PyTree, events: PyTree) -> Picard:
        """Return the engine with window and segments chosen; an explicit assignment is kept."""
        horizon = n_events(events)
        if horizon < 2 * SMALL * max(engine.rows):
            self.choice = (horizon, None)
            return replace(engine, window=SlidingWindow())
        leaves, structure = jax.tree.flatten((process, initial, events))
        shapes = [(getattr(leaf, "shape", None), str(getattr(leaf, "dtype", type(leaf)))) for leaf in leaves]
        settings = (engine.rows, engine.assignment, engine.certified, structure, tuple(shapes))
        if settings not in self._measured:
            self._measured[settings] = self._measure(engine, process, initial, events)
        self.costs, size, length = self._measured[settings]
        self.choice = (size, length)
        assignment = engine.assignment if length is None else ChainSegments(length)
        return replace(engine, window=SlidingWindow(size), assignment=assignment)

    def _measure(
        self, engine: Picard, process: DecisionProcess, initial: PyTree, events: PyTree
    ) -> tuple[WindowCosts, int, int | None]:
        """Return the costs, the window size, and the fastest segment length in it; None where whole chains are."""
        wide, horizon = max(engine.rows), n_events(events)
        large = min(LARGE * wide, horizon // 2)
        windows = [replace(engine, window=SlidingWindow(size)) for size in (SMALL * wide, large)]
        costs = fit_costs(*self._time_runs(windows, process, initial, _first(events, 2 * large)))
        # Small windows guess less in vain: the fewest events W with `per_round <= share W per_call`.
        wanted = max(costs.per_round / (self.share * costs.per_call), SMALL * wide)
        # A power of two, so that few sizes are compiled.
        size = min(1 << int(np.ceil(np.log2(wanted))), horizon) if wanted < horizon else horizon
        if engine.assignment is not None or not isinstance(process, AdditiveProcess):
            return costs, size, None
        keys: Int[ndarray, " event"] = np.asarray(over_events(process.key, _first(events, size)))
        longest = np.unique(keys, return_counts=True)[1].max()
        lengths = [length for length in LENGTHS if length < longest]
        if not lengths:
            return costs, size, None
        engine = replace(engine, window=SlidingWindow(size))
        engines = [engine, *(replace(engine, assignment=ChainSegments(length)) for length in lengths)]
        timings = self._time_runs(engines, process, initial, _first(events, min(2 * size, horizon)))
        whole, *seconds = [timing.seconds for timing in timings]
        best = int(np.argmin(seconds))
        return costs, size, lengths[best] if seconds[best] < CLEARLY * whole else None

    def _time_runs(
        self, engines: list[Picard], process: DecisionProcess, initial: PyTree, events: PyTree
    ) -> list[RunTiming]:
        """Run every engine: once to compile, then in turn, so that load affects all alike."""
        engines = [replace(engine, start=NoOp(), verify=False, max_rounds=None) for engine in engines]
        infos = [engine.run(process, initial, events)[1] for engine in engines]
        seconds = [float("inf")] * len(engines)
        for _ in range(REPEATS):
            for number, engine in enumerate(engines):
                started = self.clock()
                jax.block_until_ready(engine.run(process, initial, events)[0])
                seconds[number] = min(seconds[number], self.clock() - started)
        pairs = zip(seconds, infos, strict=True)
        return [RunTiming(best, int(info.rounds), int(info.policy_calls)) for best, info in pairs]


def _first(events: PyTree, count: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[:count], events)


def fit_costs(small: RunTiming, large: RunTiming) -> WindowCosts:
    """Solve `seconds = rounds * per_round + calls * per_call` for two runs.

    Noise never makes a cost vanish: each is at least a hundredth of what it would be if it alone took the time.
    """
    by_round, by_call = small.seconds / small.rounds, large.seconds / large.calls
    determinant = small.rounds * large.calls - large.rounds * small.calls
    per_round = (small.seconds * large.calls - large.seconds * small.calls) / determinant if determinant else 0.0
    per_round = min(max(per_round, by_round / 100), by_round)
    per_call = max((large.seconds - large.rounds * per_round) / large.calls, by_call / 100)
    return WindowCosts(per_round, per_call)
