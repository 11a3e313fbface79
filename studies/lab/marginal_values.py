"""Own the comparison of shadow prices with the marginal value of capacity, week by week of a case.

FREE: cases are `control.fixed_plan`, the search `control.paths.oracle`. Only weeks that prices can change are compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import spearmanr

from lab.capacity_benchmark import BenchmarkCase
from lab.controllers import DualMapController
from lab.encode_case import encode_case
from walras.maps.file import DUAL, LearnedMap
from walras.maps.view import LearnedView
from walras.planning.prices.dual_ascent import NewtonThenProjected, ProjectedDual, solve_prices
from walras.planning.prices.oracle import PathOutcome, oracle

OTHER_START = 0.5
"""Price of every week, in price scales, that the second search begins with."""

DEAREST = 4.0
"""Price scales that a unit beyond capacity costs where outcomes are compared, and no price goes above this."""

BINDS = 0.05
"""Share of the largest price or value beyond which a week counts as scarce."""


@dataclass(frozen=True)
class Budget:
    """Say how hard it is searched.

    Attributes:
        step: of capacity, share of the week's own, up and down.
        queries: of the search for complementarity prices.
        climb: gradient steps afterwards.
        at_once: problems solved side by side.
    """

    step: float = 0.1
    queries: int = 120
    climb: int = 40
    at_once: int = 32


@dataclass(frozen=True, eq=False)
class Tried:
    """Hold outcomes of many prices on one path, each of which is possible whatever the capacity.

    Attributes:
        reward: of each [money].
        utilization: of each [units of resource; outcome, week].
    """

    reward: Float[np.ndarray, " outcome"]
    utilization: Float[np.ndarray, "outcome week"]

    @staticmethod
    def of(found: Sequence[PathOutcome]) -> "Tried":
        """Put outcomes together."""
        return Tried(
            np.concatenate([each.reward for each in found]),
            np.concatenate([each.utilization[..., 0] for each in found]),
        )

    def value(self, capacity: Float[np.ndarray, "plan week"], dearest: float) -> Float[np.ndarray, " plan"]:
        """Return the most that any of the outcomes earns, units beyond capacity bought at the dearest price."""
        excess = np.maximum(self.utilization[None] - capacity[:, None], 0.0).sum(-1)
        return (self.reward[None] - dearest * excess).max(1)


def marginal_values(
    case: BenchmarkCase, weeks: Int[np.ndarray, " asked"], budget: Budget, *, start: float | None = None
) -> tuple[Float[np.ndarray, " asked"], Float[np.ndarray, " asked"], PathOutcome]:
    """Take the central difference of what an oracle earns in the capacity of single weeks, on the path that happens.

    Args:
        case: who, and the capacity.
        weeks: whose capacity is moved.
        budget: how hard is searched.
        start: price of every week that the search begins with, in price scales; default 0. Another one shows how much
            of a difference is the search's.

    Returns:
        Marginal values [money per unit of resource]: with every outcome tried counted at every capacity, which makes
        the value rise with capacity whatever the search misses, and by each problem's own outcome alone; and what came
        about at the capacity itself.
    """
    capacity, scale = case.capacity[:, 0], case.scene.price_scale
    steps = np.zeros((len(weeks), len(capacity)))
    steps[np.arange(len(weeks)), weeks] = budget.step * capacity[weeks]
    plans = np.concatenate([capacity[None], capacity + steps, capacity - steps])
    flat = None if start is None else np.full((1, len(capacity), 1), start * scale)
    base = _solved(case, plans[:1], flat, budget)
    found = [base]
    for first in range(1, len(plans), budget.at_once):
        group = plans[first : first + budget.at_once]
        filled = np.concatenate([group, np.repeat(group[-1:], budget.at_once - len(group), 0)])
        near = np.repeat(base.shadow_prices, budget.at_once, 0)
        found.append(_cut(_solved(case, filled, near, budget, 0.1), len(group)))
    tried, count = Tried.of(found), len(weeks)
    width = 2 * budget.step * capacity[weeks]
    pooled = tried.value(plans, DEAREST * scale)
    own = tried.reward - DEAREST * scale * np.maximum(tried.utilization - plans, 0.0).sum(-1)
    best = int(np.argmax(tried.reward - DEAREST * scale * np.maximum(tried.utilization - capacity, 0.0).sum(-1)))
    values = [(each[1 : 1 + count] - each[1 + count :]) / width for each in (pooled, own)]
    everything = np.concatenate([each.shadow_prices for each in found])
    kept = PathOutcome(tried.utilization[best][None, :, None], tried.reward[best][None], everything[best][None])
    return values[0], values[1], kept


def _solved(
    case: BenchmarkCase,
    plans: Float[np.ndarray, "plan week"],
    start: Float[np.ndarray, "plan week resource"] | None,
    budget: Budget,
    step: float = 0.5,
) -> PathOutcome:
    view = case.scene.view(len(plans))
    view.max_price = DEAREST * view.price_scale
    solver = ProjectedDual(step=step, tolerance=5e-4, max_queries=budget.queries)
    return oracle(view, plans[..., None], start, solver=solver, ascent_steps=budget.climb)


def _cut(found: PathOutcome, count: int) -> PathOutcome:
    return replace(
        found,
        utilization=found.utilization[:count],
        reward=found.reward[:count],
        shadow_prices=found.shadow_prices[:count],
    )


def asked_weeks(case: BenchmarkCase, count: int) -> Int[np.ndarray, " asked"]:
    """Return weeks that orders can reach and that maps answer for, as evenly spread as fits."""
    view = case.scene.view()
    last = min(len(case.capacity), 27)
    there = np.flatnonzero(view.controllable[1:last, 0]) + 1
    return there[np.unique(np.linspace(0, len(there) - 1, min(count, len(there))).astype(int))]


def map_prices(case: BenchmarkCase, maps: Mapping[str, LearnedMap]) -> dict[str, Float[np.ndarray, " week"]]:
    """Return the prices of maps for a case, asked once at its first week and week by week.

    A dual map is asked for the capacity (`NAME`) and then re-asked every week (`NAME, re-issued`); a primal one is
    searched for the prices under which its own forecast fits (`NAME, searched`).
    """
    found = {}
    for name, learned in maps.items():
        view = encode_case(case.scene, learned)
        weeks = view.n_weeks
        if learned.kind == DUAL:
            found[name] = view.shadow_prices(case.capacity[:weeks])[:, 0]
            found[f"{name}, re-issued"] = DualMapController(name, learned).keep(case).shadow_prices[:, 0]
        else:
            found[f"{name}, searched"] = _searched(view, case.capacity[:weeks])
    return found


def _searched(view: LearnedView, capacity: Float[np.ndarray, "week resource"]) -> Float[np.ndarray, " week"]:
    return solve_prices(view, capacity, None, NewtonThenProjected()).prices.reshape(capacity.shape)[:, 0]


def compared(
    prices: Float[np.ndarray, " asked"], values: Float[np.ndarray, " asked"], scale: float
) -> dict[str, float | None]:
    """Compare prices with marginal values in the same weeks.

    Returns:
        `rank`: Spearman's correlation; `slope`: by how much the value rises with the price, a line through all weeks;
        `ratio`: mean price over mean value; `gap`: mean distance in price scales; `scarce`: share of weeks in which
        price and value agree on whether capacity is scarce. None where weeks do not differ.
    """
    moving = prices.std() > 1e-6 * scale and values.std() > 1e-6 * scale
    limits = [BINDS * max(each.max(), 1e-9) for each in (prices, values)]
    return {
        "rank": float(spearmanr(prices, values).statistic) if moving else None,
        "slope": float(np.cov(prices, values)[0, 1] / prices.var(ddof=1)) if moving else None,
        "ratio": float(prices.mean() / values.mean()) if values.mean() > 1e-6 * scale else None,
        "gap": float(np.abs(prices - values).mean() / scale),
        "scarce": float(((prices > limits[0]) == (values > limits[1])).mean()),
    }


def judged_case(case: BenchmarkCase, maps: Mapping[str, LearnedMap], count: int, budget: Budget) -> dict[str, Any]:
    """Compare all prices of a case with the marginal value, and the marginal value with that of another start.

    Args:
        case: who has to keep to what.
        maps: dual and primal, by name.
        count: weeks whose capacity is moved.
        budget: how hard is searched.

    Returns:
        `methods`: what `compared` says of each; `weeks`, `values`, `prices` (in price scales) week by week; `beyond`:
        mean share by which the oracle's use exceeds capacity in the weeks asked.
    """
    weeks, scale = asked_weeks(case, count), case.scene.price_scale
    values, raw, best = marginal_values(case, weeks, budget)
    again, _, other = marginal_values(case, weeks, budget, start=OTHER_START)
    prices = {"oracle": best.shadow_prices[0, :, 0], "oracle, other start": other.shadow_prices[0, :, 0]}
    prices |= map_prices(case, maps)
    methods = {name: compared(each[weeks], values, scale) for name, each in prices.items()}
    methods["value, other start"] = compared(again, values, scale)
    methods["value, each its own"] = compared(raw, values, scale)
    use, limit = best.utilization[0, weeks, 0], case.capacity[weeks, 0]
    return {
        "methods": methods,
        "weeks": weeks.tolist(),
        "values": (values / scale).tolist(),
        "prices": {name: (each[weeks] / scale).tolist() for name, each in prices.items()},
        "beyond": float((np.maximum(use - limit, 0.0) / limit).mean()),
    }
