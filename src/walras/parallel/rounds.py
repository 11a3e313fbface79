"""Compiled programs of a parallel run: begin the first window, do one round, advance the window, finish.

There is one call per round and one per advance, since calls and transfers have a fixed cost.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from walras.parallel.process import AdditiveProcess, AdditiveState, DecisionProcess, n_events, over_events, rows_equal
from walras.parallel.schedule import ProcessChains

PerEvent = Int[Array, " event"]
Flags = Bool[Array, " event"]
PackedBatches = tuple[Int[Array, "five listed"], Array, Array]  # of `Batches.to_device`
Counts = tuple[Int[Array, ""], Int[Array, ""]]  # evaluations of `encode`, and of decisions that were not certain

RUN = 64  # events that are summed one after the other, side by side with other runs


class ActionCache(eqx.Module):
    """The action of every event of a window (first axis), and what it was decided on.

    Where `known` is False the action is a guess and nothing else is set.
    """

    action: PerEvent
    known: Flags
    encoder_inputs: PyTree
    code: PyTree
    decision_inputs: PyTree


class Observed(eqx.Module):
    """What every event of a window observes, and whether its decision has to be evaluated again."""

    own: PyTree
    shared: PyTree
    invalid: Flags


class WindowState(eqx.Module):
    """The state at the first event of a window, what is known of its events, and what they observe."""

    state: PyTree
    cache: ActionCache
    observed: Observed


class WindowIndex(eqx.Module):
    """Where a window lies: its first event, and its number of events without padding; and its events by key.

    `chains` are the events key by key, the first place of the same key for every place, and the place of every event.
    """

    offset: Int[Array, ""]
    live: Int[Array, ""]
    chains: Int[Array, "three event"]

    @staticmethod
    def of(grouped: ProcessChains, offset: int, size: int) -> "WindowIndex":
        """Send a grouping to the device; padding events are chains of their own."""
        live = len(grouped.key_order)
        chains = np.empty((3, size), np.int32)
        chains[:, live:] = np.arange(live, size, dtype=np.int32)
        chains[0, :live], chains[1, :live] = grouped.key_order, grouped.key_start
        chains[2, grouped.key_order] = np.arange(live, dtype=np.int32)
        return WindowIndex(*jax.device_put((np.int32(offset), np.int32(live), chains)))

    def is_live(self) -> Flags:
        """Say which places are no padding."""
        return jnp.arange(self.chains.shape[1]) < self.live


class Problem(eqx.Module):
    """What is constant throughout a run.

    `rows` are those of a wide and of a narrow batch; with `recompute` certain decisions are evaluated too.
    """

    process: DecisionProcess
    events: PyTree
    rows: tuple[int, int] = eqx.field(static=True)
    recompute: bool = eqx.field(static=True)

    def window_events(self, index: WindowIndex) -> PyTree:
        """Return the events of a window, padded with the last event."""
        size, horizon = index.chains.shape[1], n_events(self.events)
        if size == horizon:
            return self.events
        numbers = jnp.minimum(index.offset + jnp.arange(size), horizon - 1)
        return jax.tree.map(lambda leaf: leaf[numbers], self.events)

    def certify(self, state: PyTree, events: PyTree, cache: ActionCache, index: WindowIndex) -> Observed:
        """Rebuild what every event observes under the cached actions, and mark decisions that are not certain."""
        process = self.process
        own, shared = states_before_events(process, state, events, cache.action, index)

        def certificates() -> Flags:
            inputs = over_events(process.encoder_inputs, own, events)
            now = over_events(process.decision_inputs, own, shared, events)
            valid = over_events(process.still_valid, cache.action, cache.decision_inputs, now)
            return valid & cache.known & rows_equal(cache.encoder_inputs, inputs, len(cache.known))

        valid = jax.lax.cond(cache.known.any(), certificates, lambda: jnp.zeros_like(cache.known))
        return Observed(own, shared, ~valid & index.is_live())


@eqx.filter_jit
def empty_cache(process: DecisionProcess, state: PyTree, events: PyTree, actions: PerEvent) -> ActionCache:
    """Return a cache of guessed actions."""

    def evaluated(state: PyTree, event: PyTree) -> tuple:
        own, shared = process.observe(state, event)
        inputs = process.encoder_inputs(own, event)
        return inputs, process.encode(inputs, event), process.decision_inputs(own, shared, event)

    shapes = eqx.filter_eval_shape(evaluated, state, jax.tree.map(lambda leaf: leaf[0], events))
    zeros = jax.tree.map(lambda one: jnp.zeros((len(actions), *one.shape), one.dtype), shapes)
    return ActionCache(actions, jnp.zeros(len(actions), bool), *zeros)


@eqx.filter_jit
def init_window(problem: Problem, index: WindowIndex, initial: PyTree, actions: PerEvent) -> WindowState:
    """Begin the first window."""
    events = problem.window_events(index)
    cache = empty_cache(problem.process, initial, events, actions)
    # A copy, since the state's memory is reused by the next window.
    state = jax.tree.map(jnp.copy, initial)
    return WindowState(state, cache, problem.certify(state, events, cache, index))


@eqx.filter_jit(donate="all-except-first")
def iterate(
    constants: tuple[Problem, WindowIndex, PackedBatches, PyTree], cache: ActionCache, observed: Observed
) -> tuple[ActionCache, Observed, Counts]:
    """Do one round: evaluate the listed events, then certify all; all but `constants` is donated.

    These are the problem, the window, its batches, and the state at its first event.
    """
    problem, index, batches, state = constants
    events = problem.window_events(index)
    cache, counts = evaluate(problem, events, (observed.own, observed.shared), cache, batches)
    return cache, problem.certify(state, events, cache, index), counts


@eqx.filter_jit(donate="all-except-first")
def advance_window(constants: tuple[Problem, WindowIndex, WindowIndex, PerEvent], window: WindowState) -> WindowState:
    """Begin the window later, and keep what is known of the events that stay in it; `window` is donated.

    `constants` are the problem, the window before and now, and the actions to begin with.
    """
    problem, before, now, actions = constants
    count = now.offset - before.offset
    state = state_after_events(problem.process, window.state, problem.window_events(before), window.cache.action, count)
    numbers = jnp.arange(len(actions)) + count
    moved = jax.tree.map(lambda leaf: leaf[jnp.minimum(numbers, len(actions) - 1)], window.cache)
    known = moved.known & (numbers < len(actions))
    cache = ActionCache(actions, known, moved.encoder_inputs, moved.code, moved.decision_inputs)
    events = problem.window_events(now)
    return WindowState(state, cache, problem.certify(state, events, cache, now))


@eqx.filter_jit(donate="all-except-first")
def finish(constants: tuple[Problem, WindowIndex, ActionCache, Int[Array, ""]], state: PyTree) -> PyTree:
    """Return the state after a number of first events of a window; `state` is donated."""
    problem, index, cache, count = constants
    return state_after_events(problem.process, state, problem.window_events(index), cache.action, count)


def evaluate(
    problem: Problem, events: PyTree, observed: tuple[PyTree, PyTree], cache: ActionCache, batches: PackedBatches
) -> tuple[ActionCache, Counts]:
    """Evaluate the listed events of a window, on their own and the shared part of the state before each."""
    wide, narrow = problem.rows
    lists, n_narrow, n_batches = batches
    places = jnp.minimum(jnp.pad(lists[0], (0, wide)), len(cache.action) - 1)
    inputs = jax.tree.map(lambda leaf: leaf[places], (events, *observed, cache))
    zero = jnp.zeros((), jnp.int32)
    # Results go to arrays that are only written: XLA copies arrays that are read and written in one loop.
    carry = jax.tree.map(jnp.zeros_like, inputs[3]), (zero, zero)
    for size, first_batch, last_batch in ((narrow, zero, n_narrow), (wide, n_narrow, n_batches)):

        def evaluate_batch(number: Array, carry: tuple, size: int = size) -> tuple:
            first, depth = lists[3, number], lists[4, number]
            corrections = None
            if isinstance(problem.process, AdditiveProcess):  # others have one event per chain
                corrections = tuple(jnp.zeros((size, part.shape[1]), part.dtype) for part in inputs[1:3])

            def level(step: Array, carry: tuple) -> tuple:
                start, count = lists[1, first + step], lists[2, first + step]
                return _evaluate_level(problem, inputs, start, jnp.arange(size) < count, *carry)

            return jax.lax.fori_loop(0, depth, level, (*carry, corrections))[:2]

        carry = jax.lax.fori_loop(first_batch, last_batch, evaluate_batch, carry)
    results, counts = carry
    cache = jax.tree.map(lambda old, new: old.at[lists[0]].set(new[: lists.shape[1]], mode="drop"), cache, results)
    return cache, counts


def _evaluate_level(
    problem: Problem,
    inputs: tuple[PyTree, PyTree, PyTree, ActionCache],
    start: Int[Array, ""],
    live: Bool[Array, " row"],
    results: ActionCache,
    counts: Counts,
    corrections: tuple | None,
) -> tuple[ActionCache, Counts, tuple | None]:
    """Evaluate the next event of every chain of a batch, `start` being the place of the first chain's.

    A fixed number of rows makes results independent of their neighbours. `corrections` add up what new actions changed.
    """
    process, rows = problem.process, len(live)
    events, own, shared, old = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, rows), inputs)
    if corrections is not None:
        own, shared = own + corrections[0], shared + corrections[1]

    encoder_inputs = over_events(process.encoder_inputs, own, events)
    fresh = old.known & rows_equal(old.encoder_inputs, encoder_inputs, rows) & (not problem.recompute)
    encoded = live & ~fresh

    def encode() -> PyTree:
        def pick(new: Array, old: Array) -> Array:
            return jnp.where(encoded.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

        return jax.tree.map(pick, over_events(process.encode, encoder_inputs, events), old.code)

    code = jax.lax.cond(encoded.any(), encode, lambda: old.code)
    now = over_events(process.decision_inputs, own, shared, events)
    called = live & ~(fresh & over_events(process.still_valid, old.action, old.decision_inputs, now))
    action = jnp.where(called, over_events(process.decide, code, now, events), old.action)
    new = ActionCache(action, jnp.ones_like(live), encoder_inputs, code, now)

    if isinstance(process, AdditiveProcess) and corrections is not None:
        added, taken = (over_events(process.change, events, one) for one in (action, old.action))
        corrections = tuple(
            total + jnp.where(live[:, None], plus, 0) - jnp.where(live[:, None], minus, 0)
            for total, plus, minus in zip(corrections, added, taken, strict=True)
        )
    counts = counts[0] + encoded.sum(dtype=jnp.int32), counts[1] + called.sum(dtype=jnp.int32)
    # Rows that are not live belong to the next level, which overwrites them.
    results = jax.tree.map(
        lambda leaf, part: jax.lax.dynamic_update_slice_in_dim(leaf, part, start, axis=0), results, new
    )
    return results, counts, corrections


def states_before_events(
    process: DecisionProcess, state: PyTree, events: PyTree, actions: PerEvent, index: WindowIndex
) -> tuple[PyTree, PyTree]:
    """Return the own and the shared part that every event observes, the window starting in `state`.

    States that add up are prefix sums: over all earlier events for the shared row, over those of the same key for the
    own row. Others are replayed.
    """
    if not isinstance(process, AdditiveProcess):

        def step(state: PyTree, event: tuple) -> tuple[PyTree, tuple[PyTree, PyTree]]:
            return apply_action(process, state, *event), process.observe(state, event[0])

        return jax.lax.scan(step, state, (events, actions))[1]
    own, shared = _changes(process, events, actions, index.is_live())
    rows = state.table[over_events(process.key, events)]
    order, start, place = index.chains

    def summed() -> tuple[Array, Array]:
        before = exclusive_sums(own[order])
        before = before - before[start]
        return rows + before[place], state.shared[None] + exclusive_sums(shared)

    def unchanged() -> tuple[Array, Array]:
        return rows, jnp.broadcast_to(state.shared, shared.shape)

    # Most new windows hold only no-ops, which need no sums.
    return jax.lax.cond(own.any() | shared.any(), summed, unchanged)


def state_after_events(
    process: DecisionProcess, state: PyTree, events: PyTree, actions: PerEvent, count: Array
) -> PyTree:
    """Return the state after the first `count` events."""
    if not isinstance(process, AdditiveProcess):
        return replay(process, state, events, actions, count)
    own, shared = _changes(process, events, actions, jnp.arange(len(actions)) < count)
    table = state.table.at[over_events(process.key, events)].add(own)
    return AdditiveState(table=table, shared=state.shared + shared.sum(0, dtype=shared.dtype))


def replay(process: DecisionProcess, state: PyTree, events: PyTree, actions: PerEvent, count: Array) -> PyTree:
    """Apply the first `count` actions one after the other."""

    def step(number: Array, state: PyTree) -> PyTree:
        return apply_action(process, state, jax.tree.map(lambda leaf: leaf[number], events), actions[number])

    return jax.lax.fori_loop(0, count, step, state)


def apply_action(process: DecisionProcess, state: PyTree, event: PyTree, action: Array) -> PyTree:
    """Advance by an action, or by the no-op where the action is not allowed."""
    possible = jnp.where(process.allowed(state, event, action), action, process.noop(event))
    return process.advance(state, event, possible)


def _changes(
    process: AdditiveProcess, events: PyTree, actions: PerEvent, counted: Flags
) -> tuple[Int[Array, "event own"], Int[Array, "event shared"]]:
    own, shared = over_events(process.change, events, actions)
    return jnp.where(counted[:, None], own, 0), jnp.where(counted[:, None], shared, 0)


def exclusive_sums(values: Int[Array, "event column"]) -> Int[Array, "event column"]:
    """Sum, for every row, the rows before it; with `RUN` serial steps and few passes over memory."""
    n, width = values.shape
    runs = jnp.pad(values, ((0, -n % RUN), (0, 0))).reshape(-1, RUN, width)
    totals = runs.sum(1, dtype=values.dtype)

    def add(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        total, sums = carry
        sums = jax.lax.dynamic_update_slice_in_dim(sums, total[:, None], step, axis=1)
        return total + jax.lax.dynamic_index_in_dim(runs, step, axis=1, keepdims=False), sums

    before = jnp.cumsum(totals, axis=0) - totals
    return jax.lax.fori_loop(0, RUN, add, (before, jnp.zeros_like(runs)))[1].reshape(-1, width)[:n]
