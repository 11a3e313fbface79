"""Exact parallel-in-time simulation: `run` returns the actions of a plain loop in a few batched rounds."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from walras.errors import SettingsError
from walras.lazy import lazy_names

if TYPE_CHECKING:
    from walras.parallel.process import AbstractEngine, DecisionProcess, EngineInfo

_MODULES = {
    "process": ("AbstractEngine", "AdditiveProcess", "AdditiveState", "DecisionProcess", "EngineInfo", "Sequential"),
    "strategies": (
        *("NoOp", "WarmStart", "FromPolicy", "SlidingWindow", "FixedWindows"),
        *("ByKey", "PerEvent", "ChainSegments", "RandomAssignment", "CustomAssignment"),
    ),
    "autotune": ("AutoWindow", "default_engine"),
    "picard": ("Picard", "PicardInfo"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["ParallelRun", "run", *_HOME]
__getattr__ = lazy_names(__name__, _HOME)


@dataclass(frozen=True)
class ParallelRun:
    """Result of `run`: the actions of all events, final as far as `info` says, and the state after the last of them."""

    actions: Any
    state: Any
    info: "EngineInfo"

    @property
    def converged(self) -> bool:
        """Say whether all actions are final."""
        return bool(getattr(self.info, "converged", True))

    @property
    def exact(self) -> bool | None:
        """Say whether all actions equal those of a plain loop; None where that was not verified."""
        verified = getattr(self.info, "verified", None)
        return None if verified is None else bool(verified)

    def __str__(self) -> str:
        rows = {
            "events": f"{len(self.actions):,}",
            "rounds": f"{int(self.info.rounds):,}",
            "calls per event": f"{int(self.info.policy_calls) / len(self.actions):.3f}",
            "converged": self.converged,
            "exact": "not verified" if self.exact is None else self.exact,
        }
        return "\n".join(f"{name:18}{value}" for name, value in rows.items())


def run(
    process: "DecisionProcess",
    state: Any,
    events: Any,
    *,
    verify: bool = False,
    engine: "AbstractEngine | None" = None,
    start: Any = None,
) -> ParallelRun:
    """Decide all events of one trajectory, with the result of a plain loop.

    Args:
        process: transition and policy, e.g. an `AdditiveProcess`.
        state: before the first event, e.g. an `AdditiveState`.
        events: tree of arrays with the event axis first.
        verify: also run sequentially, and compare.
        engine: instead of the default `Picard`.
        start: initial guess: one action per event, or e.g. `FromPolicy(...)`.

    Raises:
        InputError: `process` is no `DecisionProcess`, or there are no events.
        SettingsError: `verify` or `start` are given for an engine that does not guess.
    """
    import jax

    from walras.parallel.autotune import default_engine
    from walras.parallel.picard import Picard
    from walras.parallel.strategies import AbstractInitialGuess, WarmStart

    if engine is None:
        engine = default_engine(len(jax.tree.leaves(events)[0]) if jax.tree.leaves(events) else 0)
    if isinstance(engine, Picard):
        guess = engine.start if start is None else start
        guess = guess if isinstance(guess, AbstractInitialGuess) else WarmStart(guess)
        engine = replace(engine, verify=verify or engine.verify, start=guess)
    elif verify or start is not None:
        raise SettingsError(
            f"`engine` is {type(engine).__name__}, which neither verifies nor starts from a guess; leave out `verify` "
            "and `start`, or give `Picard()`"
        )
    trajectory, info = engine.run(process, state, events)
    return ParallelRun(trajectory.records, trajectory.final, info)
