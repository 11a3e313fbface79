"""Compiled programs of a parallel run: begin the first window, do one round, advance the window, finish.

There is one call per round and one per advance, since calls and transfers have a fixed cost.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree
from numpy import ndarray

from walras.parallel.cache import AbstractStates, ActionCache, KeyChains, empty_cache
from walras.parallel.process import AdditiveProcess, DecisionProcess, n_events, over_events, rows_equal
from walras.parallel.schedule import Batches, ProcessChains


class Problem(eqx.Module):
    """What is constant throughout a run: process, all events, and how states are rebuilt."""

    process: DecisionProcess
    events: PyTree
    states: AbstractStates

    def window_events(self, index: "WindowIndex") -> PyTree:
        """Return the events of a window, padded with the last event."""
        size, horizon = index.chains.shape[1], n_events(self.events)
        if size == horizon:
            return self.events
        numbers = jnp.minimum(index.offset + jnp.arange(size), horizon - 1)
        return jax.tree.map(lambda leaf: leaf[numbers], self.events)

    def certify(self, state: PyTree, events: PyTree, cache: ActionCache, index: "WindowIndex") -> "Observed":
        """Rebuild what every event observes under the cached actions, and mark decisions that are not certain."""
        process, chains = self.process, index.key_chains
        own, shared = self.states.before_events(process, state, events, cache.action, chains)

        def certificates() -> Bool[Array, " event"]:
            inputs = over_events(process.encoder_inputs, own, events)
            now = over_events(process.decision_inputs, own, shared, events)
            valid = over_events(process.still_valid, cache.action, cache.decision_inputs, now)
            return valid & cache.known & rows_equal(cache.encoder_inputs, inputs, len(cache.known))

        valid = jax.lax.cond(cache.known.any(), certificates, lambda: jnp.zeros_like(cache.known))
        return Observed(own, shared, ~valid & chains.live)


class Observed(eqx.Module):
    """What every event of a window observes, and whether its decision has to be evaluated again."""

    own: PyTree
    shared: PyTree
    invalid: Bool[Array, " event"]


class WindowIndex(eqx.Module):
    """Where a window lies: its first event, its number of events, and its key chains (order, start, place)."""

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

    @property
    def key_chains(self) -> KeyChains:
        """Return the chains by name."""
        order, start, place = self.chains
        return KeyChains(order, start, place, jnp.arange(self.chains.shape[1]) < self.live)


class WindowState(eqx.Module):
    """The state at the first event of a window, what is known of its events, and what they observe."""

    state: PyTree
    cache: ActionCache
    observed: Observed


class PackedBatches(eqx.Module):
    """`Batches` in one array, sent to the device at once; its rows are the array fields of `Batches`, padded."""

    lists: Int[Array, "five listed"]
    n_narrow: Int[Array, ""]
    n_batches: Int[Array, ""]

    @staticmethod
    def of(plan: Batches, length: int, padding: int) -> "PackedBatches":
        """Pack batches into lists of `length` places; `padding` is an event number beyond the window."""
        lists = np.zeros((5, length), np.int32)
        lists[0] = padding
        parts = (plan.events, plan.level_start, plan.level_count, plan.batch_level, plan.batch_depth)
        for row, part in zip(lists, parts, strict=True):
            row[: len(part)] = part
        return PackedBatches(*jax.device_put((lists, np.int32(plan.n_narrow), np.int32(len(plan.batch_level)))))


class EvaluationCounts(eqx.Module):
    """Evaluations of `encode`, and of decisions that were not certain."""

    encodes: Int[Array, ""]
    calls: Int[Array, ""]


@eqx.filter_jit
def init_window(
    problem: Problem, index: WindowIndex, initial: PyTree, actions: Int[ndarray, " event"] | Int[Array, " event"]
) -> WindowState:
    """Begin the first window."""
    events = problem.window_events(index)
    cache = empty_cache(problem.process, initial, events, jnp.asarray(actions))
    # A copy, since the state's memory is reused by the next window.
    state = jax.tree.map(jnp.copy, initial)
    return WindowState(state, cache, problem.certify(state, events, cache, index))


@eqx.filter_jit(donate="all-except-first")
def iterate(
    constants: tuple[Problem, WindowIndex, PackedBatches, PyTree],
    cache: ActionCache,
    observed: Observed,
    rows: tuple[int, int],
    recompute: bool,
) -> tuple[ActionCache, Observed, EvaluationCounts]:
    """Do one round: evaluate the listed events, then certify all; all but `constants` is donated.

    These are the problem, the window, its batches, and the state at its first event.
    """
    problem, index, batches, state = constants
    events = problem.window_events(index)
    cache, counts = evaluate(problem.process, events, (observed.own, observed.shared), cache, batches, rows, recompute)
    return cache, problem.certify(state, events, cache, index), counts


@eqx.filter_jit(donate="all-except-first")
def advance_window(
    constants: tuple[Problem, WindowIndex, WindowIndex, Int[Array, " event"]], window: WindowState
) -> WindowState:
    """Begin the window later, and keep what is known of the events that stay in it; `window` is donated.

    `constants` are the problem, the window before and now, and the actions to begin with.
    """
    problem, before, now, actions = constants
    count = now.offset - before.offset
    events = problem.window_events(before)
    state = problem.states.after(problem.process, window.state, events, window.cache.action, count)
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
    return problem.states.after(problem.process, state, problem.window_events(index), cache.action, count)


def evaluate(
    process: DecisionProcess,
    events: PyTree,
    observed: tuple[PyTree, PyTree],
    cache: ActionCache,
    batches: PackedBatches,
    rows: tuple[int, int],
    recompute: bool,
) -> tuple[ActionCache, EvaluationCounts]:
    """Evaluate the listed events of a window, on their own and the shared part of the state before each.

    `rows` are those of a wide and of a narrow batch; with `recompute` certain decisions are evaluated too.
    """
    listed_events = batches.lists[0]
    places = jnp.minimum(jnp.pad(listed_events, (0, max(rows))), len(cache.action) - 1)
    inputs = jax.tree.map(lambda leaf: leaf[places], (events, *observed, cache))
    zero = jnp.zeros((), jnp.int32)
    # Results go to arrays that are only written: XLA copies arrays that are read and written in one loop.
    carry = jax.tree.map(jnp.zeros_like, inputs[3]), EvaluationCounts(zero, zero)
    for size, first, last in ((rows[1], zero, batches.n_narrow), (rows[0], batches.n_narrow, batches.n_batches)):
        batch = _Batch(process, size, recompute)
        carry = jax.lax.fori_loop(
            first, last, lambda number, carry, batch=batch: batch(number, inputs, batches.lists, *carry), carry
        )
    results, counts = carry
    cache = jax.tree.map(
        lambda old, new: old.at[listed_events].set(new[: len(listed_events)], mode="drop"), cache, results
    )
    return cache, counts


class _Batch(eqx.Module):
    """Evaluates one batch, level by level; its fixed number of rows makes results independent of their neighbours."""

    process: DecisionProcess
    rows: int
    recompute: bool

    def __call__(
        self, number: Array, inputs: tuple, lists: Array, results: ActionCache, counts: EvaluationCounts
    ) -> tuple[ActionCache, EvaluationCounts]:
        first, depth = lists[3, number], lists[4, number]

        def level(step: Array, carry: tuple) -> tuple:
            return self._level(lists[1, first + step], lists[2, first + step], inputs, *carry)

        corrections = None
        if isinstance(self.process, AdditiveProcess):  # others have one event per chain
            corrections = tuple(jnp.zeros((self.rows, part.shape[1]), part.dtype) for part in inputs[1:3])
        return jax.lax.fori_loop(0, depth, level, (results, counts, corrections))[:2]

    def _level(
        self,
        start: Array,
        count: Array,
        inputs: tuple,
        results: ActionCache,
        counts: EvaluationCounts,
        corrections: Any,
    ) -> tuple[ActionCache, EvaluationCounts, Any]:
        """Evaluate the next event of every chain of the batch; `corrections` add up what new actions changed."""
        live = jnp.arange(self.rows) < count
        events, own, shared, old = jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, self.rows), inputs
        )
        if corrections is not None:
            own, shared = own + corrections[0], shared + corrections[1]
        new, encoded, called = self._evaluate(events, own, shared, old, live)
        if corrections is not None:
            corrections = self._correct(events, old, new, corrections, live)
        counts = EvaluationCounts(
            counts.encodes + encoded.sum(dtype=jnp.int32), counts.calls + called.sum(dtype=jnp.int32)
        )
        # Rows beyond `count` belong to the next level, which overwrites them.
        results = jax.tree.map(
            lambda leaf, part: jax.lax.dynamic_update_slice_in_dim(leaf, part, start, axis=0), results, new
        )
        return results, counts, corrections

    def _evaluate(
        self, events: PyTree, own: PyTree, shared: PyTree, old: ActionCache, live: Bool[Array, " row"]
    ) -> tuple[ActionCache, Bool[Array, " row"], Bool[Array, " row"]]:
        """Encode where the inputs changed and decide where the action is not certain; say where each was done."""
        process = self.process
        inputs = over_events(process.encoder_inputs, own, events)
        fresh = old.known & rows_equal(old.encoder_inputs, inputs, self.rows) & (not self.recompute)
        encoded = live & ~fresh
        code = jax.lax.cond(
            encoded.any(),
            lambda: _where_rows(encoded, over_events(process.encode, inputs, events), old.code),
            lambda: old.code,
        )
        now = over_events(process.decision_inputs, own, shared, events)
        called = live & ~(fresh & over_events(process.still_valid, old.action, old.decision_inputs, now))
        action = jnp.where(called, over_events(process.decide, code, now, events), old.action)
        return ActionCache(action, jnp.ones_like(live), inputs, code, now), encoded, called

    def _correct(self, events: PyTree, old: ActionCache, new: ActionCache, corrections: tuple, live: Array) -> tuple:
        process = self.process
        assert isinstance(process, AdditiveProcess)
        added, taken = (over_events(process.change, events, action) for action in (new.action, old.action))
        return tuple(
            total + jnp.where(live[:, None], plus, 0) - jnp.where(live[:, None], minus, 0)
            for total, plus, minus in zip(corrections, added, taken, strict=True)
        )


def _where_rows(where: Bool[Array, " row"], new: PyTree, old: PyTree) -> PyTree:

    def pick(one: Array, other: Array) -> Array:
        return jnp.where(where.reshape(-1, *(1,) * (one.ndim - 1)), one, other)

    return jax.tree.map(pick, new, old)
