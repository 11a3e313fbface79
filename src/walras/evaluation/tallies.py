"""Tallies: sums per path that merge with `+`, over weeks of the same paths and over different paths alike."""

from abc import ABC
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from walras.errors import InputError, NotFiniteError, shape_mismatch

Tally = TypeVar("Tally", bound="AbstractTally")


@dataclass(frozen=True, eq=False)
class AbstractTally(ABC):
    """Sums by path, which add; measures are derived from them and never added themselves.

    Attributes:
        paths: numbers of the paths, increasing and unique [path].
    """

    paths: Int[np.ndarray, " path"]

    def __add__(self: Tally, other: Any) -> Tally:
        """Merge: sums of the same path add, other paths are joined."""
        if not isinstance(other, type(self)):
            return NotImplemented
        union = np.union1d(self.paths, other.paths)
        names = [item.name for item in fields(self) if item.name != "paths"]
        merged = {name: self._merged(name, other, union) for name in names}
        return type(self)(paths=union, **merged)

    def __radd__(self: Tally, other: Any) -> Tally:
        """Let `sum(tallies)` start at 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def _merged(self, name: str, other: Any, union: Int[np.ndarray, " path"]) -> np.ndarray | None:
        ours, theirs = getattr(self, name), getattr(other, name)
        if ours is None and theirs is None:
            return None
        if ours is None or theirs is None:
            raise InputError(f"`{name}` was recorded in one tally only and both need it; record it in both or in none")
        if ours.shape[1:] != theirs.shape[1:]:
            needed = (len(theirs), *ours.shape[1:])
            raise shape_mismatch(name, theirs.shape, needed, "merge tallies of the same resources")
        total = np.zeros((len(union), *ours.shape[1:]), np.result_type(ours, theirs))
        total[np.searchsorted(union, self.paths)] += ours
        total[np.searchsorted(union, other.paths)] += theirs
        return total


def path_numbers(count: int, first_path: int) -> Int[np.ndarray, " path"]:
    """Number the paths of one piece, starting at `first_path`."""
    return np.arange(first_path, first_path + count)


def finite_array(name: str, values: npt.ArrayLike, axes: tuple[str, ...]) -> np.ndarray:
    """Return the array in double precision.

    Raises:
        ShapeError: the number of axes differs from `axes`.
        NotFiniteError: a number is NaN or infinite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != len(axes):
        raise shape_mismatch(name, array.shape, list(axes), "add or select the missing axes")
    if not np.isfinite(array).all():
        place = np.argwhere(~np.isfinite(array))[0]
        where = ", ".join(f"{axis} {index}" for axis, index in zip(axes, place, strict=True))
        raise NotFiniteError(f"`{name}` is not finite at {where} and needs finite numbers; repair that entry")
    return array


def broadcast_to_paths(
    name: str, values: npt.ArrayLike, shape: tuple[int, ...], minimum: float = -np.inf
) -> np.ndarray:
    """Broadcast `[week, resource]` to the paths, or check `[path, week, resource]` against `shape`.

    Args:
        name: the argument as the user knows it.
        values: numbers with or without the path axis.
        shape: paths, weeks and resources of the utilization they go with.
        minimum: smallest allowed value.
    """
    with_paths = np.ndim(values) == len(shape)
    array = finite_array(name, values, ("path", "week", "resource") if with_paths else ("week", "resource"))
    if array.shape != (shape if with_paths else shape[1:]):
        raise shape_mismatch(name, array.shape, f"{shape[1:]} or {shape}", "cut all arrays to the same paths and weeks")
    if array.size and array.min() < minimum:
        raise InputError(f"`{name}` is {array.min():g} somewhere and needs at least {minimum:g}; correct that entry")
    return np.broadcast_to(array, shape)


def mean_ratio(sums: Float[np.ndarray, "*shape"], counts: Float[np.ndarray, "*shape"]) -> float | None:
    """Average `sums / counts` over the entries with a count; None if there is none."""
    has = counts > 0
    return float(np.mean(sums[has] / counts[has])) if has.any() else None


def path_contributions(
    sums: Float[np.ndarray, "path resource"], counts: Float[np.ndarray, "path resource"]
) -> tuple[Int[np.ndarray, " kept"], Float[np.ndarray, " kept"]]:
    """Return one value per path whose mean is `mean_ratio`, for inference over paths.

    If every path has the same number of counted resources this is the path's own mean. Otherwise the mean is a ratio
    of two sums over paths, and the values are its linearisation, whose spread gives its standard error.

    Args:
        sums: what is averaged [path, resource].
        counts: number of weeks in each sum [path, resource].

    Returns:
        Positions of the paths with at least one counted resource, and their values.
    """
    has = counts > 0
    share = np.divide(sums, counts, out=np.zeros_like(sums), where=has).sum(axis=1)
    number = has.sum(axis=1)
    kept = np.flatnonzero(number)
    if not kept.size:
        return kept, np.zeros(0)
    share, number = share[kept], number[kept]
    mean = share.sum() / number.sum()
    return kept, mean + (share - mean * number) / number.mean()
