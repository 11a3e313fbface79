"""The exact parallel-in-time engine: guess all actions, evaluate many at once, keep what is certified, iterate.

CONTRACT: returns what `Sequential` returns, or says that it has not converged.
"""

from collections import Counter

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree
from numpy import ndarray

from walras.errors import InputError, SettingsError
from walras.parallel import rounds
from walras.parallel.process import (
    AbstractEngine,
    AdditiveProcess,
    DecisionProcess,
    EngineInfo,
    Trajectory,
    Transition,
    n_events,
    over_events,
    run_sequentially,
)
from walras.parallel.schedule import Batches, ProcessChains
from walras.parallel.strategies import AbstractAssignment, AbstractInitialGuess, ByKey, NoOp, PerEvent, SlidingWindow

WIDE, NARROW = 256, 16
"""Rows of a batch: where a level has many events, and where it has few, at the end of long chains."""

# In large windows a round of less than a 1/16 of the events has shorter lists (one more compilation).
SMALL_PART, LARGE_WINDOW = 16, 1 << 14


COUNTED = ("rounds", "policy_calls", "encode_calls", "serial_steps", "evaluated_rows", "committed")


class PicardInfo(EngineInfo):
    """How much work a run was.

    Attributes:
        policy_calls, encode_calls: decisions evaluated because they were not certain, and evaluations of `encode`.
        serial_steps: levels that waited for each other.
        evaluated_rows: rows evaluated, with padding.
        committed: events that are final; all where `converged`.
        verified: whether all actions equal the sequential ones; None unless compared.
        events, window: number of events of the trajectory, and of those iterated on together.
    """

    encode_calls: Int[Array, ""]
    serial_steps: Int[Array, ""]
    evaluated_rows: Int[Array, ""]
    committed: Int[Array, ""]
    converged: Bool[Array, ""]
    verified: Bool[Array, ""] | None
    events: int = eqx.field(static=True)
    window: int = eqx.field(static=True)

    @staticmethod
    def of(counts: Counter[str], events: int, window: int, verified: Bool[Array, ""] | None = None) -> "PicardInfo":
        """Return what a run counted under the names of the fields."""
        arrays = {name: jnp.asarray(counts[name]) for name in COUNTED}
        converged = jnp.asarray(counts["committed"] >= events)
        return PicardInfo(**arrays, converged=converged, verified=verified, events=events, window=window)

    def __str__(self) -> str:
        rows = {
            "converged": bool(self.converged),
            "events final": f"{int(self.committed):,} of {self.events:,}",
            "rounds": f"{int(self.rounds):,}",
            "policy calls per event": f"{int(self.policy_calls) / self.events:.3f}",
            "encode calls per event": f"{int(self.encode_calls) / self.events:.3f}",
            "serial steps": f"{int(self.serial_steps):,}",
            "events of a window": f"{self.window:,}",
            "equal to one by one": "not compared" if self.verified is None else bool(self.verified),
        }
        return "\n".join(f"{name:24}{value}" for name, value in rows.items())


class Picard(AbstractEngine):
    """Evaluate the decisions of one trajectory in batches, exactly.

    In a round every process (`assignment`) evaluates its own events on its own new decisions and the cached ones of all
    others. States are then rebuilt from all actions; events with a valid certificate, up to the first without one, are
    final. Cached decisions beyond are kept.

    Args:
        window: events iterated on together, and when to advance; `AutoWindow()` measures what is fastest.
        assignment: of events to processes; by key for `AdditiveProcess`, otherwise one process per event.
        start: the initial guess.
        certified: evaluate only what is not certain; otherwise everything in every round.
        rows: of a wide and of a narrow batch; equal numbers make any policy's rows equal bit by bit.
        max_rounds: rounds after which to stop without convergence; as many as events where not given.
        verify: run sequentially afterwards and compare.

    Raises:
        SettingsError: an argument has the wrong type or value.
    """

    window: SlidingWindow = eqx.field(static=True, default_factory=SlidingWindow)
    assignment: AbstractAssignment | None = eqx.field(static=True, default=None)
    start: AbstractInitialGuess = eqx.field(static=True, default_factory=NoOp)
    certified: bool = eqx.field(static=True, default=True)
    rows: tuple[int, int] = eqx.field(static=True, default=(WIDE, NARROW))
    max_rounds: int | None = eqx.field(static=True, default=None)
    verify: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        rows, most = self.rows, self.max_rounds
        pair = isinstance(rows, tuple) and len(rows) == 2 and all(type(number) is int and number > 0 for number in rows)
        count = isinstance(most, int | np.integer) and not isinstance(most, bool) and most >= 0
        for name, fits, needed in (
            ("window", isinstance(self.window, SlidingWindow), "a window; give e.g. `SlidingWindow(4096)`"),
            (
                "assignment",
                isinstance(self.assignment, AbstractAssignment | None),
                "an assignment; give e.g. `ByKey()`",
            ),
            ("start", isinstance(self.start, AbstractInitialGuess), "an initial guess; give e.g. `NoOp()`"),
            ("certified", isinstance(self.certified, bool), "a truth value; give True or False"),
            ("verify", isinstance(self.verify, bool), "a truth value; give True or False"),
            (
                "rows",
                pair and rows[0] % rows[1] == 0,
                "two positive whole numbers, the first a multiple of the second; give e.g. (256, 16)",
            ),
            ("max_rounds", most is None or count, "a whole number of at least 0; leave it out for as many as it takes"),
        ):
            if not fits:
                raise SettingsError(f"`{name}` is {getattr(self, name)!r} but needs to be {needed}")

    def run(self, transition: Transition, initial: PyTree, inputs: PyTree) -> tuple[Trajectory, PicardInfo]:
        """Run; the records are the actions, the final state is that after the last event that is final.

        Raises:
            InputError: `transition` is no `DecisionProcess`, or there are no events.
            SettingsError: the window is larger than the horizon, or states do not add up as `assignment` needs.
        """
        process = require_decision_process(transition, initial, inputs, self.assignment)
        run = _Run(self.window.resolve(self, process, initial, inputs), process, initial, inputs)
        most = run.horizon if self.max_rounds is None else self.max_rounds
        while run.step(may_evaluate=run.counts["rounds"] < most):
            pass
        trajectory, verified = run.stop(), None
        if self.verify and run.offset == run.horizon:
            verified = jnp.array_equal(run_sequentially(process, initial, inputs).records, trajectory.records)
        return trajectory, PicardInfo.of(run.counts, run.horizon, run.size, verified)


def require_decision_process(
    transition: Transition, initial: PyTree, events: PyTree, assignment: AbstractAssignment | None = None
) -> DecisionProcess:
    """Return the transition if it can be run in parallel; else raise `InputError` or `SettingsError`."""
    if not isinstance(transition, DecisionProcess):
        raise InputError(
            f"the transition is a {type(transition).__name__} but the parallel engine needs one that takes a decision "
            "a step; write it as a `DecisionProcess` (or `AdditiveProcess`), or run it with `Sequential()`"
        )
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((transition, initial, events))):
        raise InputError(
            "the parallel engine was called inside a JAX transform but plans its rounds outside of one; call it "
            "directly, its parts are compiled by themselves"
        )
    if not jax.tree.leaves(events) or n_events(events) == 0:
        raise InputError("there are 0 events but a trajectory needs at least one; give events")
    if not isinstance(transition, AdditiveProcess) and not isinstance(assignment, PerEvent | None):
        raise SettingsError(
            f"`assignment` is {type(assignment).__name__} but processes of several events need states that add up; "
            "leave it out, or write the transition as an `AdditiveProcess`"
        )
    return transition


def keys_of(process: DecisionProcess, events: PyTree) -> Int[ndarray, " event"]:
    """Return the key of every event; each has its own where states do not add up."""
    if isinstance(process, AdditiveProcess):
        return np.asarray(over_events(process.key, events))
    return np.arange(n_events(events), dtype=np.int32)


class _Run:
    """One run: the window that begins at event `offset`; its first `n_final` events are final.

    Of these and the next, `n_certified` were decided on final actions only.
    """

    def __init__(self, engine: Picard, process: DecisionProcess, initial: PyTree, events: PyTree):
        self.engine = engine
        self.horizon = n_events(events)
        self.size = engine.window.length(self.horizon)
        self.problem = rounds.Problem(process, events, engine.rows, not engine.certified)
        self.assignment = engine.assignment or (ByKey() if isinstance(process, AdditiveProcess) else PerEvent())
        self.keys = keys_of(process, events)
        self.actions = np.array(engine.start.actions(process, initial, events))
        self.counts: Counter[str] = Counter()
        self.offset = self.n_final = self.n_certified = 0
        actions = self._group()
        self.window = rounds.init_window(self.problem, self.index, initial, actions)
        self.invalid = np.asarray(self.window.observed.invalid)

    def _group(self) -> Int[Array, " event"]:
        """Group the events of the window into chains, and return their first actions."""
        self.live = min(self.size, self.horizon - self.offset)  # events without padding
        part = slice(self.offset, self.offset + self.live)
        keys = self.keys[part]
        self.chains = ProcessChains(keys, self.assignment.processes(keys, self.offset))
        self.index = rounds.WindowIndex.of(self.chains, self.offset, self.size)
        return jax.device_put(np.pad(self.actions[part], (0, self.size - self.live)))

    def step(self, may_evaluate: bool) -> bool:
        """Advance the window, or do a round if that is allowed; return whether anything was done."""
        invalid = self.invalid.copy()
        # Final, even where the policy's floats differ between two compiled programs.
        invalid[: self.n_certified] = False
        if self.engine.certified:
            self.n_final = int(invalid.argmax()) if invalid.any() else self.live
        else:
            invalid = (np.arange(self.size) >= self.n_final) & (np.arange(self.size) < self.live)
        more = self.offset + self.size < self.horizon
        if more and (self.n_final == self.live or self.engine.window.should_advance(self.n_final, self.size)):
            self._advance()
        elif may_evaluate and self.n_final < self.live:
            self._iterate(invalid)
        else:
            return False
        return True

    def _commit(self) -> None:
        """Move the beginning of the window to the first event that is not final."""
        self.actions[self.offset : self.offset + self.live] = np.asarray(self.window.cache.action)[: self.live]
        self.offset += self.n_final

    def _advance(self) -> None:
        before = self.index
        self._commit()
        self.n_final = self.n_certified = 0
        actions = self._group()
        self.window = rounds.advance_window((self.problem, before, self.index, actions), self.window)
        self.invalid = np.asarray(self.window.observed.invalid)

    def _iterate(self, invalid: Bool[ndarray, " event"]) -> None:
        """Evaluate invalid decisions, and what follows them in their chains."""
        plan = Batches(self.chains, invalid[: self.live], *self.engine.rows)
        short = self.size >= LARGE_WINDOW and len(plan.events) <= self.size // SMALL_PART
        batches = plan.to_device(self.size // SMALL_PART if short else self.size, self.size)
        before = np.asarray(self.window.cache.action).copy() if self.problem.recompute else None
        constants = (self.problem, self.index, batches, self.window.state)
        cache, observed, done = rounds.iterate(constants, self.window.cache, self.window.observed)
        self.window = rounds.WindowState(self.window.state, cache, observed)
        self.invalid, (encodes, calls) = jax.device_get((observed.invalid, done))
        self.n_certified = min(self.n_final + 1, self.live)
        self.counts.update(rounds=1, policy_calls=int(calls), encode_calls=int(encodes))
        # Batches run side by side, the levels of one wait for each other.
        self.counts.update(serial_steps=int(plan.batch_depth.max(initial=0)), evaluated_rows=plan.n_rows)
        if before is not None:
            changed = np.flatnonzero(np.asarray(cache.action)[: self.live] != before[: self.live])
            self.n_final = min(int(changed[0]) + 1, self.live) if len(changed) else self.live

    def stop(self) -> Trajectory:
        """Return all actions, and the state after the last event that is final."""
        count = jax.device_put(np.int32(self.n_final))
        final = rounds.finish((self.problem, self.index, self.window.cache, count), self.window.state)
        self._commit()
        self.counts["committed"] = self.offset
        return Trajectory(final, jnp.asarray(self.actions))
