"""Own the figures of speed and work: always a ratio to a reference in the same process run, never bare seconds.

CONTRACT: benchmarks and studies report through these; higher is better and 1 is equal, but for flatness and calls.
"""

import numpy as np
import numpy.typing as npt

from walras.errors import InputError
from walras.evaluation.tallies import finite_array

LEAST_REPEATS = 5
"""Runs that a median of seconds needs."""

LARGE_POPULATION = 10_000
"""Agents from which on the cost per agent has to be flat."""

MODERATE_SHIFT = (0.5, 2.0)
"""Induced mean-demand ratios within which a composition shift is called moderate."""


def speed_ratio(reference_seconds: npt.ArrayLike, our_seconds: npt.ArrayLike) -> float:
    """Return the reference's median seconds over ours: 1 is equal, higher is better.

    Args:
        reference_seconds: at least five runs of the reference at its own best settings [s].
        our_seconds: at least five runs of ours, in the same process run [s].
    """
    return _median_seconds("reference_seconds", reference_seconds) / _median_seconds("our_seconds", our_seconds)


def two_process_speedup(one_core_seconds: npt.ArrayLike, two_core_seconds: npt.ArrayLike) -> float:
    """Return the seconds of one process pinned to one core over those of two processes on one core each."""
    return speed_ratio(one_core_seconds, two_core_seconds)


def flatness(agents: npt.ArrayLike, weeks: int, seconds: npt.ArrayLike) -> float | None:
    """Return largest over smallest seconds per agent-week over sizes of 10,000 agents and more; None below two sizes.

    Args:
        agents: sizes of the populations [size].
        weeks: weeks simulated.
        seconds: median seconds of each size [s; size].
    """
    sizes, times = finite_array("agents", agents, ("size",)), finite_array("seconds", seconds, ("size",))
    if sizes.shape != times.shape or np.any(sizes <= 0) or np.any(times <= 0) or weeks < 1:
        raise InputError(
            "`agents` and `seconds` need one positive number per size and `weeks` at least 1; correct them"
        )
    large = sizes >= LARGE_POPULATION
    cost = times[large] / (sizes[large] * weeks)
    return float(cost.max() / cost.min()) if cost.size > 1 else None


def calls_per_order(policy_rows: int, orders: int) -> float:
    """Return policy rows per order: `calls_per_order` with padding rows, `needed_calls_per_order` without."""
    if orders < 1 or policy_rows < 0:
        raise InputError(
            f"`orders` is {orders} and `policy_rows` {policy_rows}; pass at least one order and no negative"
        )
    return policy_rows / orders


def is_moderate_shift(induced_mean: float, baseline_mean: float) -> bool:
    """Say whether a shifted population's mean demand is within 0.5 to 2 times the baseline's."""
    if not (0 < baseline_mean < np.inf and 0 <= induced_mean < np.inf):
        raise InputError(f"mean demands are {induced_mean} and {baseline_mean}; pass a positive baseline mean")
    return MODERATE_SHIFT[0] <= induced_mean / baseline_mean <= MODERATE_SHIFT[1]


def _median_seconds(name: str, values: npt.ArrayLike) -> float:
    seconds = finite_array(name, values, ("run",))
    if len(seconds) < LEAST_REPEATS or np.any(seconds <= 0):
        raise InputError(
            f"`{name}` has {len(seconds)} runs and needs {LEAST_REPEATS} of positive seconds; repeat the run"
        )
    return float(np.median(seconds))
