"""Own the compiled programs of a parallel run: enter the first window, work through a round, move the window on.

FREE: one call per round and one per move, since every call and every answer waited for has its price.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from numpy import ndarray

from walras.parallel.cache import AbstractStates, ActionCache, KeyChains, Observed, certify, empty_cache
from walras.parallel.evaluate import PackedBatches, Work, evaluate
from walras.parallel.process import DecisionProcess, n_events
from walras.parallel.schedule import ProcessChains


class Problem(eqx.Module):
    """Hold what stays the same throughout a run: who decides, all events, and how states are rebuilt."""

    process: DecisionProcess
    events: PyTree
    states: AbstractStates

    def cut(self, place: "WindowIndex") -> PyTree:
        """Cut the events of a window; behind the last event that one is repeated."""
        size = place.chains.shape[1]
        horizon = n_events(self.events)
        if size == horizon:
            return self.events
        numbers = jnp.minimum(place.first + jnp.arange(size), horizon - 1)
        return jax.tree.map(lambda leaf: leaf[numbers], self.events)


class WindowIndex(eqx.Module):
    """Say where a window lies: its first event, how many of it are events, and the chains of their keys."""

    first: Int[Array, ""]
    live: Int[Array, ""]
    chains: Int[Array, "three event"]

    @staticmethod
    def of(lanes: ProcessChains, first: int, size: int) -> "WindowIndex":
        """Put a line-up into arrays; events beyond the last one are chains of their own."""
        live = len(lanes.chain_order)
        chains = np.empty((3, size), np.int32)
        chains[:, live:] = np.arange(live, size, dtype=np.int32)
        chains[0, :live], chains[1, :live] = lanes.chain_order, lanes.chain_start
        chains[2, lanes.chain_order] = np.arange(live, dtype=np.int32)
        return WindowIndex(*jax.device_put((np.int32(first), np.int32(live), chains)))

    @property
    def lines(self) -> KeyChains:
        """Return the chains by name."""
        order, start, place = self.chains
        return KeyChains(order, start, place, jnp.arange(self.chains.shape[1]) < self.live)


class WindowState(eqx.Module):
    """Hold a window: the state at its first event, what is known of its events, and what they observe."""

    state: PyTree
    guess: ActionCache
    seen: Observed


@eqx.filter_jit
def init_window(
    law: Problem, place: WindowIndex, initial: PyTree, actions: Int[ndarray, " event"] | Int[Array, " event"]
) -> WindowState:
    """Begin the first window."""
    events = law.cut(place)
    guess = empty_cache(law.process, initial, events, jnp.asarray(actions))
    # A state of the run's own: the next window is written over it.
    state = jax.tree.map(jnp.copy, initial)
    return WindowState(state, guess, certify(law.process, state, events, guess, place.lines, law.states))


@eqx.filter_jit(donate="all-except-first")
def iterate(
    kept: tuple[Problem, WindowIndex, PackedBatches, PyTree],
    guess: ActionCache,
    seen: Observed,
    shapes: tuple[int, int],
    again: bool,
) -> tuple[ActionCache, Observed, Work]:
    """Walk, and see what stands then.

    Args:
        kept: the law, where the window lies, what to walk, and the state at the window's first event.
        guess: what is known; used up.
        seen: what is observed; used up.
        shapes: rows of a wide and of a narrow tile.
        again: evaluate every listed event, certain or not.
    """
    law, place, tiles, state = kept
    events = law.cut(place)
    guess, done = evaluate(law.process, events, (seen.own, seen.shared), guess, tiles, shapes, again)
    return guess, certify(law.process, state, events, guess, place.lines, law.states), done


@eqx.filter_jit(donate="all-except-first")
def advance_window(
    kept: tuple[Problem, WindowIndex, WindowIndex, Int[Array, " event"]], scene: WindowState
) -> WindowState:
    """Begin the window later, and keep what was guessed of the events that stay in it.

    Args:
        kept: the law, where the window lay, where it lies now, and the first guess of its events.
        scene: used up.
    """
    law, before, now, actions = kept
    count = now.first - before.first
    state = law.states.after(law.process, scene.state, law.cut(before), scene.guess.action, count)
    numbers = jnp.arange(len(actions)) + count
    moved = jax.tree.map(lambda leaf: leaf[jnp.minimum(numbers, len(actions) - 1)], scene.guess)
    stays = numbers < len(actions)
    guess = ActionCache(actions, moved.known & stays, moved.inputs, moved.code, moved.reads)
    return WindowState(state, guess, certify(law.process, state, law.cut(now), guess, now.lines, law.states))


@eqx.filter_jit(donate="all-except-first")
def finish(kept: tuple[Problem, WindowIndex, ActionCache, Int[Array, ""]], state: PyTree) -> PyTree:
    """Return the state behind the first events of a window, a number of them; the state before them is used up."""
    law, place, guess, count = kept
    return law.states.after(law.process, state, law.cut(place), guess.action, count)
