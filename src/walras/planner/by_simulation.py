"""Own planning by simulating everybody at every step: no learning, any population.

CONTRACT: maps fall back to it where their plan does not settle.
"""

from walras.config import PlanSettings
from walras.control.dual import GaussNewton, NewtonThenProjected, ProjectedDual
from walras.control.simulated_view import SimulatedView
from walras.planner.costs import PiecewiseLinearCost
from walras.planner.result import PlanRecord
from walras.planner.search import found, judged
from walras.progress import Progress

ROUGH = 0.01
"""Residual at which the prices that the loop starts from are good enough."""


def make_plan(view: SimulatedView, cost: PiecewiseLinearCost, settings: PlanSettings, progress: Progress) -> PlanRecord:
    """Run the planning loop on a simulated population, from the prices of the middle tier.

    `feasible` then says that expected use is within capacity in every week; that the reserve is kept as well is what
    `converged` says.
    """
    rough = NewtonThenProjected(GaussNewton(ROUGH, 8), ProjectedDual(0.3, ROUGH, 150))
    start = view.solve(cost.edges[..., 2], solver=rough).prices[0].reshape(cost.lower.shape)
    return judged(view, found(view, cost, settings, progress, start))
