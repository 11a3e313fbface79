"""Comparison of shadow prices with the marginal value of capacity, week by week, where prices can change use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import spearmanr

from lab.capacity_benchmark import BenchmarkCase
from lab.controllers import DualMapController
from lab.encoding import encode_case
from walras.maps.file import DUAL, LearnedMap
from walras.planning.prices.dual_ascent import NewtonThenProjected, ProjectedDual, solve_prices
from walras.planning.prices.oracle import PathOutcome, oracle

OTHER_START = 0.5
"""Price of every week that the second search starts from, in price scales."""

HIGHEST = 4.0
"""Cost of a unit beyond capacity where outcomes are compared, and highest price, in price scales."""

SCARCE = 0.05
"""Share of the largest price or value beyond which a week counts as scarce."""

Prices = Float[np.ndarray, " week"]


@dataclass(frozen=True)
class SearchBudget:
    """Effort of the search.

    Attributes:
        step: change of capacity up and down, as a share of the week's own.
        queries: of the search for complementary prices.
        climb: gradient steps afterwards.
        at_once: problems solved side by side.
    """

    step: float = 0.1
    queries: int = 120
    climb: int = 40
    at_once: int = 32


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Outcomes of many price paths on one scenario; each of them is possible whatever the capacity.

    Attributes:
        reward: of each [money].
        utilization: of each [units of resource; outcome, week].
    """

    reward: Float[np.ndarray, " outcome"]
    utilization: Float[np.ndarray, "outcome week"]

    @staticmethod
    def of(searches: Sequence[PathOutcome]) -> "Outcomes":
        """Concatenate outcomes."""
        rewards, uses = [each.reward for each in searches], [each.utilization[..., 0] for each in searches]
        return Outcomes(np.concatenate(rewards), np.concatenate(uses))

    def net(self, capacity: Float[np.ndarray, "*plan week"], highest: float) -> Float[np.ndarray, " outcome"]:
        """Return the reward of each outcome, units beyond capacity bought at the highest price [money]."""
        return self.reward - highest * np.maximum(self.utilization - capacity, 0.0).sum(-1)

    def value(self, capacity: Float[np.ndarray, "plan week"], highest: float) -> Float[np.ndarray, " plan"]:
        """Return the most that any outcome earns at each capacity [money]."""
        return self.net(capacity[:, None], highest).max(1)


def marginal_values(
    case: BenchmarkCase, weeks: Int[np.ndarray, " evaluated"], budget: SearchBudget, *, start: float | None = None
) -> tuple[Float[np.ndarray, " evaluated"], Float[np.ndarray, " evaluated"], PathOutcome]:
    """Return the central difference of the oracle's reward in the capacity of single weeks, on the realised path.

    Args:
        case: population and capacity.
        weeks: whose capacity is changed.
        budget: of the search.
        start: price of every week that the search starts from, in price scales; default 0. Another start shows how
            much of a difference is due to the search.

    Returns:
        Marginal values [money per unit of resource]: with every outcome counted at every capacity, so that the value
        increases with capacity whatever the search misses, and by each problem's own outcome alone; and the outcome at
        the capacity itself.
    """
    capacity, highest = case.capacity[:, 0], HIGHEST * case.episode.price_scale
    steps = np.zeros((len(weeks), len(capacity)))
    steps[np.arange(len(weeks)), weeks] = budget.step * capacity[weeks]
    plans = np.concatenate([capacity[None], capacity + steps, capacity - steps])
    flat = None if start is None else np.full((1, len(capacity), 1), start * case.episode.price_scale)
    base = _oracle(case, plans[:1], flat, budget)
    searches = [base]
    for first in range(1, len(plans), budget.at_once):
        group = plans[first : first + budget.at_once]
        filled = np.concatenate([group, np.repeat(group[-1:], budget.at_once - len(group), 0)])
        near = np.repeat(base.shadow_prices, budget.at_once, 0)
        searches.append(_first(_oracle(case, filled, near, budget, 0.1), len(group)))
    outcomes, count = Outcomes.of(searches), len(weeks)
    values = outcomes.value(plans, highest), outcomes.net(plans, highest)
    pooled, own = ((v[1 : 1 + count] - v[1 + count :]) / (2 * budget.step * capacity[weeks]) for v in values)
    best = int(np.argmax(outcomes.net(capacity, highest)))
    prices = np.concatenate([search.shadow_prices for search in searches])[best][None]
    return pooled, own, PathOutcome(outcomes.utilization[best][None, :, None], outcomes.reward[best][None], prices)


def _oracle(
    case: BenchmarkCase,
    plans: Float[np.ndarray, "plan week"],
    start: Float[np.ndarray, "plan week resource"] | None,
    budget: SearchBudget,
    step: float = 0.5,
) -> PathOutcome:
    view = case.episode.view(len(plans))
    view.max_price = HIGHEST * view.price_scale
    solver = ProjectedDual(step=step, tolerance=5e-4, max_queries=budget.queries)
    return oracle(view, plans[..., None], start, solver=solver, ascent_steps=budget.climb)


def _first(found: PathOutcome, count: int) -> PathOutcome:
    fields = {name: getattr(found, name)[:count] for name in ("utilization", "reward", "shadow_prices")}
    return replace(found, **fields)


def evaluated_weeks(case: BenchmarkCase, count: int) -> Int[np.ndarray, " evaluated"]:
    """Return weeks that orders can reach and maps cover, evenly spread."""
    view = case.episode.view()
    last = min(len(case.capacity), 27)
    able = np.flatnonzero(view.controllable[1:last, 0]) + 1
    return able[np.unique(np.linspace(0, len(able) - 1, min(count, len(able))).astype(int))]


def map_prices(case: BenchmarkCase, maps: Mapping[str, LearnedMap]) -> dict[str, Prices]:
    """Return the prices of maps for a case, queried once in its first week and week by week.

    A dual map is queried for the capacity (`NAME`) and then every week (`NAME, re-issued`); a primal one is searched
    for the prices under which its own forecast fits (`NAME, searched`).
    """
    prices = {}
    for name, learned in maps.items():
        view = encode_case(case.episode, learned)
        capacity = case.capacity[: view.n_weeks]
        if learned.kind == DUAL:
            prices[name] = view.shadow_prices(capacity)[:, 0]
            prices[f"{name}, re-issued"] = DualMapController(name, learned).run(case).shadow_prices[:, 0]
        else:
            found = solve_prices(view, capacity, None, NewtonThenProjected()).prices
            prices[f"{name}, searched"] = found.reshape(capacity.shape)[:, 0]
    return prices


def compare_prices(
    prices: Float[np.ndarray, " evaluated"], values: Float[np.ndarray, " evaluated"], scale: float
) -> dict[str, float | None]:
    """Compare prices with marginal values in the same weeks.

    Returns:
        `rank`: Spearman's correlation; `slope`: regression of the value on the price; `ratio`: mean price over mean
        value; `gap`: mean distance in price scales; `scarce`: share of weeks in which price and value agree on whether
        capacity is scarce. None where weeks do not differ.
    """
    vary = prices.std() > 1e-6 * scale and values.std() > 1e-6 * scale
    limits = [SCARCE * max(each.max(), 1e-9) for each in (prices, values)]
    return {
        "rank": float(spearmanr(prices, values).statistic) if vary else None,
        "slope": float(np.cov(prices, values)[0, 1] / prices.var(ddof=1)) if vary else None,
        "ratio": float(prices.mean() / values.mean()) if values.mean() > 1e-6 * scale else None,
        "gap": float(np.abs(prices - values).mean() / scale),
        "scarce": float(((prices > limits[0]) == (values > limits[1])).mean()),
    }


def evaluate_case(
    case: BenchmarkCase, maps: Mapping[str, LearnedMap], count: int, budget: SearchBudget
) -> dict[str, Any]:
    """Compare all prices of a case with the marginal value, and that with the one from another start.

    Returns:
        `methods`: `compare_prices` of each; `weeks`, `values`, `prices` (in price scales) by week; `beyond`: mean share
        by which the oracle's use exceeds capacity in these weeks.
    """
    weeks, scale = evaluated_weeks(case, count), case.episode.price_scale
    values, own, best = marginal_values(case, weeks, budget)
    again, _, other = marginal_values(case, weeks, budget, start=OTHER_START)
    prices = {"oracle": best.shadow_prices[0, :, 0], "oracle, other start": other.shadow_prices[0, :, 0]}
    prices |= map_prices(case, maps)
    methods = {name: compare_prices(each[weeks], values, scale) for name, each in prices.items()}
    methods["value, other start"] = compare_prices(again, values, scale)
    methods["value, each its own"] = compare_prices(own, values, scale)
    use, limit = best.utilization[0, weeks, 0], case.capacity[weeks, 0]
    return {
        "methods": methods,
        "weeks": weeks.tolist(),
        "values": (values / scale).tolist(),
        "prices": {name: (each[weeks] / scale).tolist() for name, each in prices.items()},
        "beyond": float((np.maximum(use - limit, 0.0) / limit).mean()),
    }
