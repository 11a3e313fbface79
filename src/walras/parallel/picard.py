"""Own the exact parallel-in-time engine: guess all actions, evaluate many at once, keep what is certain, repeat.

CONTRACT: what it returns is what the sequential engine returns, or it says that it has not converged.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree
from numpy import ndarray

from walras.errors import InputError, SettingsError
from walras.parallel.cache import AbstractStates, PrefixSums, ReplayStates
from walras.parallel.evaluate import PackedBatches
from walras.parallel.initial_guess import AbstractInitialGuess, NoOp
from walras.parallel.process import AdditiveProcess, DecisionProcess, n_events, over_events
from walras.parallel.rounds import Problem, WindowIndex, WindowState, advance_window, finish, init_window, iterate
from walras.parallel.schedule import AbstractAssignment, ByKey, PerEvent, group_by_process, plan_batches
from walras.parallel.sequential import AbstractEngine, EngineInfo, Sequential, Trajectory, Transition
from walras.parallel.windows import AbstractWindow, SlidingWindow

WIDE, NARROW = 256, 16
"""Rows of a tile: where a level has many events, and where it has few, at the end of long chains."""

FEWER, LARGE = 16, 1 << 14
"""A walk of less than this part of a window as large as that has arrays of that size; two programs are compiled."""


PARTS: dict[str, tuple[type, bool, str, str]] = {
    "window": (AbstractWindow, False, "a window", "`SlidingWindow(4096)`"),
    "assignment": (AbstractAssignment, True, "an assignment", "`ByKey()`"),
    "start": (AbstractInitialGuess, False, "a start", "`NoOp()`"),
    "states": (AbstractStates, True, "a way to rebuild states", "`PrefixSums()`"),
    "certified": (bool, False, "true or false", "True"),
    "verify": (bool, False, "true or false", "True"),
}
"""Kinds that parts of the engine need to be, whether they can be left out as None, words for them, and an example."""


class PicardInfo(EngineInfo):
    """Say how much work it was, and whether the trajectory is final.

    `policy_calls` counts decisions that were evaluated because they were not certain, `encode_calls` evaluations of the
    expensive part; `serial_steps` levels that waited for each other; `tile_rows` rows evaluated with the padding. Of
    the trajectory `committed` events are final: all of them where `converged`. `verified` is None unless asked for.
    `window` is how many events were worked on together.
    """

    encode_calls: Int[Array, ""]
    serial_steps: Int[Array, ""]
    tile_rows: Int[Array, ""]
    committed: Int[Array, ""]
    converged: Bool[Array, ""]
    verified: Bool[Array, ""] | None
    events: int = eqx.field(static=True)
    window: int = eqx.field(static=True)

    def __str__(self) -> str:
        """Print a small table."""
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

    A round walks every process (`assignment`) through its own events, on its own new decisions and the guessed ones of
    all others; then the states are rebuilt from all actions, and every event whose decision is certified to stand up to
    the first one that is not, is final. Nothing that was guessed beyond is thrown away.

    Args:
        window: events worked on together, and when to move on; `Measured()` chooses by what a round and a call cost.
        assignment: who evaluates what; by key where states add up, one process per event elsewhere.
        start: the first guess.
        states: how states are rebuilt; by sums where states add up, by a replay elsewhere.
        certified: evaluate only what is not certain to stand; otherwise everything in every round, as published.
        tile: rows of a wide and of a narrow tile; one shape for both makes any policy's rows equal bit by bit.
        max_rounds: rounds after which it gives up and says so; as many as events where not given.
        verify: replay everything one by one afterwards and compare.

    Raises:
        SettingsError: a part is of another kind; which one, and what is needed.
    """

    window: AbstractWindow = eqx.field(static=True, default_factory=SlidingWindow)
    assignment: AbstractAssignment | None = eqx.field(static=True, default=None)
    start: AbstractInitialGuess = eqx.field(static=True, default_factory=NoOp)
    states: AbstractStates | None = None
    certified: bool = eqx.field(static=True, default=True)
    tile: tuple[int, int] = eqx.field(static=True, default=(WIDE, NARROW))
    max_rounds: int | None = eqx.field(static=True, default=None)
    verify: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        """Refuse parts of another kind at once, rather than in the middle of a run."""
        for name, (kind, optional, needed, example) in PARTS.items():
            given = getattr(self, name)
            if not (isinstance(given, kind) or (optional and given is None)):
                raise SettingsError(f"`{name}` is {given!r} but needs to be {needed}; give e.g. {example}")
        check_tile(self.tile)
        most = self.max_rounds
        if most is not None and (isinstance(most, bool) or not isinstance(most, int | np.integer) or most < 0):
            raise SettingsError(
                f"`max_rounds` is {most!r} but needs a whole number of at least 0; leave it out for as many as it takes"
            )

    def run(self, transition: Transition, initial: PyTree, inputs: PyTree) -> tuple[Trajectory, PicardInfo]:
        """Run; the trajectory's records are the actions, its final state that after the last event that is final.

        Raises:
            InputError: the transition takes no decisions that could be taken apart, or there are no events.
        """
        process = check(transition, initial, inputs, self.assignment)
        run = _Run(self.window.settled(self, process, initial, inputs), process, initial, inputs)
        most = run.horizon if self.max_rounds is None else self.max_rounds
        while not run.finished and run.step(may_walk=run.rounds < most):
            pass
        trajectory = Trajectory(final=run.stop(), records=jnp.asarray(run.actions))
        verified = equal_one_by_one(process, initial, inputs, trajectory) if self.verify and run.finished else None
        return trajectory, run.info(verified)


def check(
    transition: Transition, initial: PyTree, events: PyTree, assignment: AbstractAssignment | None = None
) -> DecisionProcess:
    """Refuse what cannot be run in parallel.

    Raises:
        InputError: see there.
        SettingsError: processes of several events where states do not add up.
    """
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
            "leave it out, write the transition as a `AdditiveProcess`, or use `PublishedJacobi`"
        )
    return transition


def check_tile(tile: object) -> None:
    """Refuse what is no pair of tiles, and tiles that do not fit into each other.

    Raises:
        SettingsError: there are not two whole numbers, or the wide one is no multiple of the narrow one.
    """
    pair = isinstance(tile, tuple) and len(tile) == 2 and all(type(rows) is int and rows > 0 for rows in tile)
    if not pair or tile[0] % tile[1]:  # type: ignore[index]
        raise SettingsError(
            f"`tile` is {tile!r} but needs two positive whole numbers, the first a multiple of the second; give e.g. "
            "(256, 16)"
        )


def equal_one_by_one(
    process: DecisionProcess, initial: PyTree, events: PyTree, trajectory: Trajectory
) -> Bool[Array, ""]:
    """Run one by one and compare all actions."""
    expected = one_by_one(process, initial, events)
    return jnp.array_equal(expected.records, trajectory.records)


@eqx.filter_jit
def one_by_one(process: DecisionProcess, initial: PyTree, events: PyTree) -> Trajectory:
    """Run one by one on the device: what every parallel run is held to."""
    return Sequential().run(process, initial, events)[0]


class _Run:
    """Hold one run: the window, what is known of it, and what was counted."""

    def __init__(self, engine: Picard, process: DecisionProcess, initial: PyTree, events: PyTree):
        self.engine = engine
        self.horizon = n_events(events)
        self.size = engine.window.events(self.horizon)
        summed = isinstance(process, AdditiveProcess)
        self.law = Problem(process, events, engine.states or (PrefixSums() if summed else ReplayStates()))
        self.assignment = engine.assignment or (ByKey() if summed else PerEvent())
        self.keys = keys_of(process, events)
        self.actions = np.array(engine.start.actions(process, initial, events))
        self.rounds = self.calls = self.encodes = self.steps = self.rows = 0
        self.first = self.done = self.sure = 0
        self._line_up()
        self.scene = init_window(self.law, self.place, initial, jax.device_put(self._cached()))
        self.marks = np.asarray(self.scene.seen.marks)

    @property
    def live(self) -> int:
        """Count the events of the window that are events."""
        return min(self.size, self.horizon - self.first)

    @property
    def finished(self) -> bool:
        """Say whether every action is final."""
        return self.first >= self.horizon

    def _cached(self) -> Int[ndarray, " event"]:
        part = self.actions[self.first : self.first + self.size]
        return np.pad(part, (0, self.size - len(part)))

    def _line_up(self) -> None:
        """Place the events of the window in chains and lanes."""
        keys = self.keys[self.first : self.first + self.live]
        self.lanes = group_by_process(keys, self.assignment.processes(keys, self.first))
        self.place = WindowIndex.of(self.lanes, self.first, self.size)

    def step(self, may_walk: bool) -> bool:
        """Settle what is certain; then move on, or walk what is not certain if that is still allowed.

        Returns:
            Whether anything was done.
        """
        broken = self.marks.copy()
        # Decided on final actions only: final, even where a policy's floats differ between two programs.
        broken[: self.sure] = False
        if self.engine.certified:
            self.done = int(broken.argmax()) if broken.any() else self.live
        else:
            broken = (np.arange(self.size) >= self.done) & (np.arange(self.size) < self.live)
        more = self.first + self.size < self.horizon
        if self.done == self.live or (more and self.engine.window.moves(self.done, self.size)):
            self.move()
        elif may_walk:
            self._walk(broken)
        else:
            return False
        return True

    def move(self) -> None:
        """Begin the window at the first event that is not final, and keep what was guessed of the others."""
        before, count = self.place, jax.device_put(np.int32(self.done))
        self.actions[self.first : self.first + self.live] = np.asarray(self.scene.guess.action)[: self.live]
        self.first, self.done, self.sure = self.first + self.done, 0, 0
        if self.finished:
            self.final = finish((self.law, before, self.scene.guess, count), self.scene.state)
            return
        self._line_up()
        kept = (self.law, before, self.place, jax.device_put(self._cached()))
        self.scene = advance_window(kept, self.scene)
        self.marks = np.asarray(self.scene.seen.marks)

    def _walk(self, broken: Bool[ndarray, " event"]) -> None:
        """Evaluate what is not certain, and what follows it in its lane."""
        shapes, again = self.engine.tile, not self.engine.certified
        plan = plan_batches(self.lanes, broken[: self.live], *shapes)
        few = self.size >= LARGE and len(plan.events) <= self.size // FEWER
        room = self.size // FEWER if few else self.size
        before = np.asarray(self.scene.guess.action).copy() if again else None
        kept = (self.law, self.place, PackedBatches.of(plan, room, self.size), self.scene.state)
        guess, seen, counts = iterate(kept, self.scene.guess, self.scene.seen, shapes, again)
        self.scene = WindowState(self.scene.state, guess, seen)
        self.marks, counts = jax.device_get((seen.marks, counts))
        self.rounds += 1
        self.sure = min(self.done + 1, self.live)
        self.encodes += int(counts.encodes)
        self.calls += int(counts.calls)
        self.steps += plan.levels
        self.rows += plan.rows(*shapes)
        if before is not None:
            changed = np.flatnonzero(np.asarray(guess.action)[: self.live] != before[: self.live])
            self.done = min(int(changed[0]) + 1, self.live) if len(changed) else self.live

    def stop(self) -> PyTree:
        """Return the state behind the last event that is final."""
        if not self.finished:
            self.move()
        return self.final if self.finished else self.scene.state

    def info(self, verified: Bool[Array, ""] | None) -> PicardInfo:
        """Say what it took."""
        numbers = (self.rounds, self.calls, self.encodes, self.steps, self.rows, self.first)
        return counted(numbers, self.finished, self.horizon, self.size, verified)


def counted(
    numbers: Sequence[int], converged: bool, events: int, window: int, verified: Bool[Array, ""] | None = None
) -> PicardInfo:
    """Put counts together: rounds, policy calls, encode calls, serial steps, rows of tiles, final events."""
    parts = [jnp.asarray(int(number)) for number in numbers]
    return PicardInfo(*parts, jnp.asarray(converged), verified, events, window)  # type: ignore[arg-type, call-arg]


def keys_of(process: DecisionProcess, events: PyTree) -> Int[ndarray, " event"]:
    """Return the key of every event; each has its own where states do not add up."""
    if isinstance(process, AdditiveProcess):
        return np.asarray(over_events(process.key, events))
    return np.arange(n_events(events), dtype=np.int32)
