"""Own the CorrectedView: what learned maps answer, times what simulation found them to be off by, week by week.

CONTRACT: right at the prices it was corrected at, since these were simulated; elsewhere only the slope is learned.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from walras.control.dual import GaussNewton, NewtonThenProjected, ProjectedDual
from walras.control.search import search
from walras.maps.learned_view import LearnedView
from walras.planner.scaled import AbstractScaledView

ROUGH = 0.01
"""Residual at which prices that the primal map is searched for are good enough to start from."""


@dataclass(frozen=True, eq=False)
class CorrectedView(AbstractScaledView):
    """Answer as learned maps do, times a factor for each week and resource.

    A map that was trained on many populations is a few percent off for the one at hand, in the same direction for
    prices that are alike. One simulation at prices that a plan has found says by how much; the next search starts there
    and sees use as simulated: U(lambda) = F(lambda) U(lambda_0) / F(lambda_0).

    Attributes:
        view: by learned maps.
        factor: 1 where nothing was corrected.
    """

    view: LearnedView

    @staticmethod
    def of(view: LearnedView) -> "CorrectedView":
        """Begin with what the maps say."""
        return CorrectedView(view, np.ones((view.n_weeks, len(view.resources))))

    def between(self, other: "CorrectedView") -> "CorrectedView":
        """Return the view half way to another one's correction."""
        return replace(self, factor=np.sqrt(self.factor * other.factor))

    def shadow_prices(self, capacity: Any) -> Any:
        """Return the prices at which the population fits a capacity [*plans, week, resource].

        The dual map says so where there is one; otherwise the primal one is searched.
        """
        asked = np.asarray(capacity, float) / self.factor
        if self.view.dual is not None:
            return np.minimum(self.view.shadow_prices(asked), self.max_price)
        solver = NewtonThenProjected(GaussNewton(ROUGH, 8), ProjectedDual(0.3, ROUGH, 150))
        plans = asked.reshape(-1, self.n_weeks, len(self.resources))
        found = [search(self.view, plan, None, solver).prices[0].reshape(plan.shape) for plan in plans]
        return np.stack(found).reshape(asked.shape)
