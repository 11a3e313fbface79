"""Own looking through large arrays for a bad number: quickly, in little memory, and each unchanging array only once.

FREE: works on numpy arrays, on JAX arrays of any device and on arrays sharded over several; nothing here knows what
the numbers mean.
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class Memory:
    """Remember what was measured of JAX arrays for as long as they live, since they never change.

    Numpy arrays can be written to between two calls and are measured every time.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self._known: dict[tuple[int, Callable], tuple[weakref.ref, Any]] = {}

    def __len__(self) -> int:
        """Count the measurements kept."""
        return len(self._known)

    def of(self, array: Any, measure: Callable[[Any], Any]) -> Any:
        """Return `measure(array)`, from memory where it is known.

        Args:
            array: numpy or JAX array, concrete.
            measure: a module-level function of the array alone; with the array it is the key.
        """
        if not isinstance(array, jax.Array):
            return measure(array)
        key = (id(array), measure)
        known = self._known.get(key)
        if known is not None and known[0]() is array:
            return known[1]
        found = measure(array)
        self._known[key] = (weakref.ref(array, lambda gone: self._forget(key, gone)), found)
        return found

    def _forget(self, key: tuple[int, Callable], gone: weakref.ref) -> None:
        """Drop a dead array, unless its number already belongs to a new one."""
        known = self._known.get(key)
        if known is not None and known[0] is gone:
            del self._known[key]


def is_concrete(array: Any) -> bool:
    """Tell whether there are numbers to look at: not inside a JAX transform, and not an array of no elements."""
    return not isinstance(array, jax.core.Tracer) and array.size > 0


def extremes(array: Any) -> tuple[float, float]:
    """Return the least and the greatest number; both are NaN where any number is NaN. No copy is made."""
    lows, highs = zip(*(_extremes_of_piece(piece) for piece, _ in _pieces(array)), strict=True)
    return float(np.min(lows)), float(np.max(highs))


def gap_from_one(shares: Any) -> float:
    """Return the greatest distance from 1 of sums over the last axis but one, week by week [..., week, lead, agent]."""
    rows = (row for piece, _ in _pieces(shares) for _, row in _rows(piece, shares.ndim - 3))
    return max(float(np.max(np.abs(row.sum(-2) - 1.0))) for row in rows)


def first_place(
    array: Any, is_bad: Callable[[np.ndarray], np.ndarray], axis: int | None
) -> tuple[tuple[int, ...], float]:
    """Find the first number along `axis` that is bad, and the number itself; there must be one on this process.

    Args:
        array: numpy or JAX array, concrete.
        is_bad: marks the bad numbers of one slice.
        axis: the array is read slice by slice along it, in order; None reads it at once.
    """
    found = []
    for piece, start in _pieces(array):
        for number, row in _rows(piece, axis):
            bad = is_bad(row)
            if bad.any():
                inner = [int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape)]
                place = inner if axis is None else [*inner[:axis], number, *inner[axis:]]
                whole = tuple(at + first for at, first in zip(place, start, strict=True))
                found.append(((whole[axis] if axis is not None else 0, whole), float(row[tuple(inner)])))
                break
    (_, place_found), value = min(found)
    return place_found, value


def _pieces(array: Any) -> list[tuple[Any, tuple[int, ...]]]:
    """List the parts of an array that this process holds, each once, with the index at which each starts."""
    if not isinstance(array, jax.Array):
        return [(array, (0,) * array.ndim)]
    parts: dict[tuple[int, ...], Any] = {}
    for shard in array.addressable_shards:
        starts = tuple(cut.indices(size)[0] for cut, size in zip(shard.index, array.shape, strict=True))
        parts.setdefault(starts, shard.data)
    return [(piece, starts) for starts, piece in parts.items() if piece.size > 0]


def _extremes_of_piece(piece: Any) -> tuple[float, float]:
    """Reduce on the host where the numbers lie there already, else on the device that holds them."""
    if isinstance(piece, jax.Array) and next(iter(piece.devices())).platform != "cpu":
        with jax.ensure_compile_time_eval():
            return float(jnp.min(piece)), float(jnp.max(piece))
    host = np.asarray(piece)  # of a CPU device's array this is a view
    return float(np.min(host)), float(np.max(host))


def _rows(piece: Any, axis: int | None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield slices along an axis as numpy arrays, one at a time."""
    if isinstance(piece, jax.Array) and next(iter(piece.devices())).platform == "cpu":
        piece = np.asarray(piece)
    if axis is None:
        yield 0, np.asarray(piece)
        return
    for number in range(piece.shape[axis]):
        with jax.ensure_compile_time_eval():
            row = np.asarray(piece[(slice(None),) * axis + (number,)])
        yield number, row
