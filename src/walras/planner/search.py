"""Own the search for a plan on any view, by simulation or by learned maps, and the judging of it by simulation.

FREE: rules and tolerances; what a plan is, is said in `planner.result`.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from walras.config import PlanSettings
from walras.control.search import SearchableView
from walras.control.simulated_view import SimulatedView
from walras.planner.costs import PiecewiseLinearCost
from walras.planner.loop import StopRule, plan
from walras.planner.result import PlanRecord
from walras.planner.rules import AbstractRule, Consensus, EntrywiseConsensus, MarginalCost, ProximalPoint
from walras.progress import Progress

RULES: dict[str, type[AbstractRule]] = {
    "consensus": Consensus,
    "marginal": MarginalCost,
    "proximal": ProximalPoint,
}
"""Revision rules by the name that settings use."""

TOLERANCE = 5e-3
"""Residuals at which a plan is good enough: a tenth of what scenarios differ by from week to week."""

FEASIBLE = 0.01
"""Expected use may exceed capacity by this share in a feasible plan."""

NOTHING = 1e-6
"""Use below this is none [units of resource]: it keeps a week without capacity and without use feasible."""


def found(
    view: SearchableView,
    cost: PiecewiseLinearCost,
    settings: PlanSettings,
    progress: Progress,
    start: Float[np.ndarray, "week resource"],
) -> PlanRecord:
    """Run the planning loop, and creep on where the named rule stalls.

    Args:
        view: the population.
        cost: of capacity.
        settings: rule and iterations.
        progress: told about steps.
        start: first shadow prices [money per unit of resource].
    """

    def run(rule: AbstractRule, first: np.ndarray, iterations: int, patience: int) -> PlanRecord:
        stop = stop_rule(view, iterations, patience)
        return plan(view, cost, rule=rule, start=first, stop=stop, progress=progress)

    record = run(RULES[settings.rule](), start, settings.max_iterations, 12)
    if not record.converged:
        crept = run(EntrywiseConsensus(), record.shadow_prices, 3 * settings.max_iterations, settings.max_iterations)
        record = min((record, crept), key=_worst)
    return record


def stop_rule(view: SearchableView, iterations: int, patience: int) -> StopRule:
    """Stop where every residual is within `TOLERANCE`, or after so many revisions in all or without progress."""
    limits = {"feasibility": TOLERANCE, "complementarity": TOLERANCE, "price_gap": TOLERANCE}
    return StopRule(max_iterations=iterations, patience=patience, max_price=view.max_price, **limits)


def judged(
    view: SimulatedView, record: PlanRecord, expected: Float[np.ndarray, "week resource"] | None = None
) -> PlanRecord:
    """Judge a plan by expected use, without the reserve that it was made with, and name the weeks that do not fit.

    Args:
        view: everybody, by simulation.
        record: the plan.
        expected: use at its prices, simulated unless given [units of resource].
    """
    expected = view.expected(record.shadow_prices) if expected is None else expected
    limit = record.capacity * (1 + FEASIBLE) + NOTHING
    over, late = expected > limit, view.committed > limit
    parts = [in_short(record).replace("largest shortage", "largest shortage, reserve included,")]
    for words, where in (("already committed", over & late), ("expected use above capacity", over & ~late)):
        weeks = np.flatnonzero(where.any(axis=1)) + 1
        if len(weeks):
            named = ", ".join(map(str, weeks[:6])) + (f" and {len(weeks) - 6} more" if len(weeks) > 6 else "")
            parts.append(f"{words} in planned week {named}")
    return replace(record, utilization=expected, feasible=not bool(over.any()), stop_reason="; ".join(parts))


def in_short(record: PlanRecord) -> str:
    """Say why the search stopped, without the weeks that the loop itself names."""
    return record.stop_reason.partition(";")[0]


def _worst(record: PlanRecord) -> float:
    """Return the worst residual of the best iterate."""
    return min(max(entry["feasibility"], entry["complementarity"], entry["price_gap"]) for entry in record.trace)
