"""Own the finish of a plan that learned maps found: a few revisions by simulation, where it does not fit yet.

CONTRACT: the plan that comes out never fits worse, as simulated, than the one that went in.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from walras.control.search import SearchableView
from walras.planner.costs import AbstractAcquisitionCost
from walras.planner.loop import plan
from walras.planner.result import PlanRecord
from walras.planner.rules import ProximalPoint
from walras.planner.search import TOLERANCE, stop_rule
from walras.progress import Progress

REVISIONS = 12
"""Newton steps at most: each is a simulation, or three where it disappoints, and every third needs a Jacobian."""

NEAR = 0.05
"""Mean miss up to which planned prices are kept to start from."""

LOWERED = 0.25
"""Share of planned prices to start from where they miss by more.

Use falls steeply where a price begins to bite and hardly where it has bitten, so that Newton steps go well from low
prices and wrong from high ones.
"""


def polished(
    view: SearchableView,
    cost: AbstractAcquisitionCost,
    record: PlanRecord,
    simulated: Float[np.ndarray, "week resource"],
    progress: Progress | None = None,
    *,
    revisions: int = REVISIONS,
) -> PlanRecord:
    """Revise a plan by Newton steps on simulated use, with the simulator's own slope, unless it fits as it is.

    Args:
        view: by simulation, of everybody or of a cohort that stands for all; it counts what is asked of it.
        cost: of capacity.
        record: the plan that maps found.
        simulated: use to plan for at its prices [units of resource].
        progress: told about steps.
        revisions: at most.

    Returns:
        Of the two plans the one that fits better; `converged` and `stop_reason` tell of simulated use.
    """
    missed = misses(view, record, simulated)
    if missed.max(initial=0.0) <= TOLERANCE:
        return record
    start = record.shadow_prices * (1.0 if missed.mean() <= NEAR else LOWERED)
    stop = stop_rule(view, revisions, revisions)
    found = plan(view, cost, rule=ProximalPoint(), start=start, stop=stop, progress=progress)
    before, after = missed.mean(), misses(view, found, found.utilization).mean()
    best = found if after < before else record
    return replace(
        best,
        converged=found.converged and best is found,
        stop_reason=_told(record, found, min(before, after)),
        iterations=record.iterations + found.iterations,
        trace=_joined(record.trace, found.trace),
    )


def misses(
    view: SearchableView, record: PlanRecord, simulated: Float[np.ndarray, "week resource"]
) -> Float[np.ndarray, "week resource"]:
    """Return how far weeks are from either no price or no room, as simulated; 0 where prices can do no more.

    Args:
        view: knows where orders make a difference, and the highest price.
        record: a plan.
        simulated: use to plan for at its prices [units of resource].
    """
    room = (record.capacity - simulated) / np.maximum(record.capacity, 1e-9)
    hopeless = ~view.controllable | ((record.shadow_prices >= view.max_price) & (room < 0))
    return np.where(hopeless, 0.0, np.abs(np.minimum(record.shadow_prices / view.price_scale, room)))


def _told(record: PlanRecord, found: PlanRecord, missed: float) -> str:
    """Say how both searches ended."""
    first, rest = record.iterations, found.iterations
    if found.converged:
        return f"converged after {first} revisions and {rest} more by simulation"
    return (
        f"not converged: after {first} revisions and {rest} more by simulation weeks are {missed:.2%} off on average, "
        "reserve included"
    )


def _joined(
    first: tuple[Mapping[str, float], ...], second: tuple[Mapping[str, float], ...]
) -> tuple[Mapping[str, float], ...]:
    """Count the iterations of a second trace on from the first."""
    return (*first, *({**entry, "iteration": entry["iteration"] + len(first)} for entry in second))
