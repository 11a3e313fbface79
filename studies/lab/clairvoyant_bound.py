"""Own the bound that methods are judged against: prices of those who know everything that will happen in a case.

FREE: one search is `control.paths.oracle`; this tries several starts, since a single one may be caught.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from lab.capacity_benchmark import BenchmarkCase, ComputeCost, ControlOutcome
from walras.planning.prices.dual_ascent import AbstractDualSolver, ProjectedDual
from walras.planning.prices.oracle import PathOutcome, oracle
from walras.planning.prices.simulated_view import SimulatedView

WORTH = 2.0
"""Price scales that a unit beyond the limit costs where searches are compared."""


@dataclass(frozen=True)
class ClairvoyantBound:
    """Search for the prices with the most reward within a limit, from several starts, and keep each path's best.

    A price that towers over its neighbours makes agents stock up in the week before, and what arrives late fills the
    very week that it was to empty: a search that has got there does not come down again. Lower ceilings avoid that, and
    so does a start at the prices that a method charged.

    Attributes:
        ceilings: highest price of each search from 0, in price scales.
        ascent_steps: of each search, see `control.paths.oracle`.
        solver: of each search. On these cases Newton steps hardly ever converge, and projected steps alone find the
            same prices in a third of the time.
    """

    ceilings: tuple[float, ...] = (4.0, 1.5)
    ascent_steps: int = 60
    solver: AbstractDualSolver = field(default_factory=ProjectedDual)

    def of(self, case: BenchmarkCase, others: Sequence[ControlOutcome]) -> list[ControlOutcome]:
        """Coordinate at the case's capacity, and at equal violation with others: at max(K, U) of each.

        Args:
            case: who has to keep to what.
            others: what came about under other methods.

        Returns:
            One for the capacity and one for each of the others; all searches share their seconds.
        """
        limit = np.stack([case.capacity, *(np.maximum(case.capacity, other.utilization) for other in others)])
        charged = np.stack([np.zeros_like(case.capacity), *(other.shadow_prices for other in others)])
        started = time.perf_counter()
        view = case.scene.view(len(limit))
        found = [oracle(view, limit, charged, solver=self.solver, ascent_steps=self.ascent_steps)]
        for ceiling in self.ceilings:
            view.max_price = ceiling * view.price_scale
            found.append(oracle(view, limit, solver=self.solver, ascent_steps=self.ascent_steps))
        chosen = np.argmax([_merit(view, limit, each) for each in found], axis=0)
        seconds = (time.perf_counter() - started) / len(limit)
        work = ComputeCost(simulations=sum(each.simulations for each in found), seconds=seconds)
        return [_kept(found[search], path, work) for path, search in enumerate(chosen)]


def _merit(
    view: SimulatedView, limit: Float[np.ndarray, "path week resource"], found: PathOutcome
) -> Float[np.ndarray, " path"]:
    excess = np.maximum(found.utilization - limit, 0.0).sum((1, 2))
    return found.reward - WORTH * view.price_scale * excess


def _kept(found: PathOutcome, path: int, work: ComputeCost) -> ControlOutcome:
    return ControlOutcome(found.utilization[path], float(found.reward[path]), found.shadow_prices[path], work)
