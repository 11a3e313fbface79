"""Grid search for the best parameters of many groups of agents at once: a grid that zooms in on each group's best."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float

Parameters = dict[str, Float[np.ndarray, " group"]]
Score = Callable[[Parameters], Float[np.ndarray, " group"]]


@dataclass(frozen=True)
class GridSpec:
    """How finely to search.

    Attributes:
        points: candidates per parameter in a round, for one parameter and for two or more.
        resolution: the last round's spacing is at most this share of a parameter's range, likewise.
        most_polish: rounds of single steps to either side at the end, where parameters are whole multiples.
    """

    points: tuple[int, int] = (17, 9)
    resolution: tuple[float, float] = (1e-3, 1e-2)
    most_polish: int = 8


@dataclass(frozen=True, eq=False)
class GridResult:
    """Best candidate of each group.

    Attributes:
        parameters: name -> value per group.
        value: score per group.
        tried: candidates that were scored.
    """

    parameters: Parameters
    value: Float[np.ndarray, " group"]
    tried: int


class _Best:
    """Best candidate of each group so far; of equally good ones the first."""

    def __init__(self, score: Score) -> None:
        self._score = score
        self.parameters: Parameters = {}
        self.value: np.ndarray | None = None
        self.tried = 0

    def offer(self, candidate: Parameters) -> bool:
        """Score a candidate and return whether it is better for any group."""
        value = np.asarray(self._score(candidate), float)
        self.tried += 1
        if self.value is None:
            self.value, self.parameters = value, {name: x.copy() for name, x in candidate.items()}
            return True
        better = value > self.value
        self.value = np.where(better, value, self.value)
        self.parameters = {name: np.where(better, x, self.parameters[name]) for name, x in candidate.items()}
        return bool(better.any())


def grid_search(
    score: Score,
    ranges: Mapping[str, tuple[Float[np.ndarray, " group"], Float[np.ndarray, " group"]]],
    *,
    starts: Sequence[Parameters] = (),
    steps: Mapping[str, float] | None = None,
    grid: GridSpec | None = None,
) -> GridResult:
    """Find the parameters with the highest score for every group by itself.

    The whole grid over the ranges is scored, then a smaller one around each group's best, and so on. Nothing is assumed
    of the score's shape beyond what the first grid resolves, and the result is never worse than a given start.

    Args:
        score: maps one candidate per group to one score per group, higher is better.
        ranges: name -> lowest and highest value per group.
        starts: further candidates; they may lie outside the ranges.
        steps: name -> whole multiples that the parameter must be; others are continuous.
        grid: how finely.
    """
    grid, steps, best = grid or GridSpec(), steps or {}, _Best(score)
    points, resolution = ((pair[0] if len(ranges) == 1 else pair[1]) for pair in (grid.points, grid.resolution))
    low, high = ({name: np.asarray(pair[side], float) for name, pair in ranges.items()} for side in (0, 1))
    bottom, top, share = low, high, 1.0 / (points - 1)
    while True:
        for candidate in _candidates(bottom, top, int(points), steps):
            best.offer(candidate)
        if share <= resolution:
            break
        spacing = {name: (high[name] - low[name]) * share for name in ranges}
        bottom = {name: np.maximum(best.parameters[name] - spacing[name], low[name]) for name in ranges}
        top = {name: np.minimum(best.parameters[name] + spacing[name], high[name]) for name in ranges}
        share *= 2.0 / (points - 1)
    # Only now: a good start beside a better region would keep the grid from zooming in on that region.
    for start in starts:
        best.offer(start)
    _local_search(best, steps, low, grid.most_polish)
    assert best.value is not None  # a grid has at least one candidate
    return GridResult(best.parameters, best.value, best.tried)


def _candidates(low: Parameters, high: Parameters, points: int, steps: Mapping[str, float]) -> Iterator[Parameters]:
    """Spread candidates evenly over each group's box, without those that rounding makes equal."""
    seen: set[bytes] = set()
    for shares in product(np.linspace(0.0, 1.0, points), repeat=len(low)):
        candidate = {
            name: whole_multiples(low[name] + share * (high[name] - low[name]), steps.get(name))
            for name, share in zip(low, shares, strict=True)
        }
        key = b"".join(x.tobytes() for x in candidate.values())
        if key not in seen:
            seen.add(key)
            yield candidate


def whole_multiples(values: np.ndarray, step: float | None) -> np.ndarray:
    """Round to whole multiples of a step; None leaves values as they are."""
    return values if step is None else np.rint(values / step) * step


def _local_search(best: _Best, steps: Mapping[str, float], low: Parameters, most: int) -> None:
    """Step to either side of whole multiples until no group gains."""
    for _ in range(most):
        gained = False
        for name, step in steps.items():
            for side in (-step, step):
                moved = np.maximum(best.parameters[name] + side, low[name])
                gained |= best.offer({**best.parameters, name: moved})
        if not gained:
            return
