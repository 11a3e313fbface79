"""Own the search for the prices at which a population fits a capacity, for any view that knows its slope.

CONTRACT: views by simulation and by learned maps are searched alike.
"""

from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float

from walras.control.dual import AbstractDualSolver, DualProblem, DualSolution
from walras.maps.interface import DifferentiableView


class SearchableView(DifferentiableView, Protocol):
    """Know besides utilization and its slope where prices make a difference, and how high they may be.

    Attributes:
        controllable: weeks in which orders still to be placed make a difference [week, resource].
        max_price: the price beyond which nobody would order [money per unit of resource].
    """

    @property
    def controllable(self) -> Bool[np.ndarray, "week resource"]:
        """Mark the weeks in which orders still to be placed make a difference."""
        ...

    @property
    def max_price(self) -> float:
        """Give the price beyond which nobody would order [money per unit of resource]."""
        ...


def search(
    view: SearchableView,
    capacity: Float[np.ndarray, "week resource"],
    start: Float[np.ndarray, "week resource"] | None,
    solver: AbstractDualSolver,
) -> DualSolution:
    """Find the prices for one capacity, and say how well and with how much work.

    Args:
        view: the population; only weeks that it can change are made to fit.
        capacity: K [units of resource].
        start: first prices tried; 0 where None.
        solver: how.
    """
    shape = capacity.shape
    problem = DualProblem(
        response=lambda prices: view.utilization(prices.reshape(-1, *shape)).reshape(len(prices), -1),
        jacobian=lambda prices: view.jacobian(prices[0].reshape(shape)),
        capacity=np.where(view.controllable, capacity, np.inf).reshape(1, -1),
        price_scale=view.price_scale,
        max_price=view.max_price,
    )
    first = np.zeros((1, capacity.size)) if start is None else np.asarray(start, float).reshape(1, -1)
    return solver.solve(problem, first)
