"""Known answers in closed form; each function in `FORMULAS` returns the largest relative difference to its formula."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import norm

from lab.textbook import identical_agents
from walras.exogenous.arrivals import IntegerLeadTimes
from walras.exogenous.paths import ExogenousPaths, constant_paths
from walras.planning.costs import AbstractAcquisitionCost, QuadraticTerms, stationary
from walras.planning.prices.dual_ascent import GaussNewton
from walras.planning.prices.simulated_view import SimulatedView
from walras.planning.protocols import Grid
from walras.planning.revision_loop import StopRule, run_revision_loop
from walras.policies.base import Observation, Policy
from walras.policies.base_stock import NormalDemand, PricedBaseStock, PricedNewsvendor, ReorderPoint
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.week import empty_state

SHARP = GaussNewton(tolerance=1e-6, max_iterations=60)
WEEKS = 12


def _paths(demand: np.ndarray, lead: int, **money: float) -> ExogenousPaths:
    times = jnp.broadcast_to(jnp.asarray(lead, jnp.int32), demand.shape)
    return constant_paths(demand.astype(np.float32), IntegerLeadTimes(times), **money)


def _relative_error(ours: np.ndarray, exact: np.ndarray) -> float:
    return float(np.max(np.abs(np.asarray(ours, float) - exact)) / max(float(np.max(np.abs(exact))), 1e-12))


class FixedQuantity(Policy):
    """Order Q when the position is at or below R.

    Attributes:
        reorder_point, quantity: R and Q [units].
    """

    reorder_point: float
    quantity: float

    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return Q or nothing."""
        return jnp.where(observation.position <= self.reorder_point, self.quantity, 0.0)


class LinearBuyer(Policy):
    """Order `base - slope x price of the week of arrival`, as long as that is positive.

    Attributes:
        base, slope: of each agent [units; units per money].
    """

    base: Float[Array, " agent"]
    slope: Float[Array, " agent"]

    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return the linear response to the price at arrival."""
        due = jnp.minimum(observation.population.lead_time, shadow_prices.shape[0] - 1)
        return jnp.maximum(self.base - self.slope * shadow_prices[due, 0], 0.0)


DAYS = 59
DAY_BY_DAY = (
    (FixedQuantity(500.0, 500.0), 2, 1000.0, 120.0, (400, 7600, 7, 3500, 6, 3000)),
    (FixedQuantity(500.0, 500.0), 2, 1000.0, 200.0, (500, 7100, 12, 6000, 11, 5500)),
    (ReorderPoint(jnp.asarray(200.0), jnp.asarray(500.0)), 1, 500.0, 200.0, (100, 3500, 15, 6000, 14, 5600)),
)
"""Policy, lead time, start, demand of every second day; then end stock, carrying cost, orders and receipts."""


def day_by_day() -> float:
    """Replay the published 59 days: end stock, carrying cost, orders and receipts are known to the unit."""
    worst = 0.0
    for policy, lead, start, daily, known in DAY_BY_DAY:
        demand = np.zeros((DAYS + 1, 1))
        demand[:DAYS:2] = daily
        # A review after all demands of a day is this timing's order of the next day, with a lead time one shorter.
        agents, paths = identical_agents(1, holding=0.2, penalty=0.0, lead=lead - 1), _paths(demand, lead - 1)
        happened = simulate(agents, paths, policy, initial=empty_state(1, 1, start), record=Record.traces()).agents
        assert happened is not None  # requested by the record
        orders, receipts = np.asarray(happened.orders, float), np.asarray(happened.receipts, float)[:DAYS]
        carrying = -np.asarray(happened.reward[:DAYS], float).sum()
        end = float(happened.stock_end[DAYS - 1, 0])
        found = (end, carrying, (orders > 0).sum(), orders.sum(), (receipts > 0).sum(), receipts.sum())
        worst = max(worst, float(np.max(np.abs(np.array(found) / np.array(known) - 1))))
    return worst


def _line(lead: int) -> tuple[SimulatedView, float, float]:
    random = np.random.default_rng(lead)
    base, slope = (random.uniform(*ends, 40).astype(np.float32) for ends in ((50, 150), (1, 3)))
    paths = _paths(np.full((2, WEEKS, 40), 20.0), lead, sale_price=20.0, unit_cost=5.0)
    policy = LinearBuyer(jnp.asarray(base), jnp.asarray(slope))
    start = empty_state(40, 3, 7.0)
    view = SimulatedView(identical_agents(40, lead=lead, margin=15.0), paths, policy, start, solver=SHARP)
    return view, float(base.sum()), float(slope.sum())


def linear_use() -> float:
    """Use of linear buyers with several lead times: F = A - B lambda."""
    worst = 0.0
    for lead in (0, 1, 3):
        view, a, b = _line(lead)
        prices = np.random.default_rng(1).uniform(0, 10, (WEEKS, 1))
        worst = max(worst, _relative_error(view.utilization(prices)[lead:], (a - b * prices)[lead:]))
    return worst


def linear_prices() -> float:
    """Prices of linear buyers: G = (A - K)^+ / B, 0 in slack weeks."""
    worst = 0.0
    for lead in (0, 1, 3):
        view, a, b = _line(lead)
        capacity = a * np.random.default_rng(2).uniform(0.85, 1.1, (WEEKS, 1))
        exact = np.maximum(a - capacity, 0.0) / b
        worst = max(worst, _relative_error(view.shadow_prices(capacity)[lead:], exact[lead:]))
    return worst


MARGIN, HOLDING, LAW_MEAN, LAW_SD, COUNT = 4.0, 1.0, 50.0, 8.0, 30


def _sold_out() -> SimulatedView:
    law = {"lead_demand_mean": LAW_MEAN, "lead_demand_sd": LAW_SD}
    paths = _paths(np.full((1, WEEKS, COUNT), 500.0), 0, sale_price=6.0, unit_cost=2.0, **law)
    agents = identical_agents(COUNT, holding=HOLDING, penalty=0.0, margin=MARGIN)
    return SimulatedView(agents, paths, PricedNewsvendor(NormalDemand()), empty_state(COUNT, 1), solver=SHARP)


def newsvendor_use() -> float:
    """Use of newsvendors who sell out: n (mean + sd z(kappa))."""
    prices = np.random.default_rng(3).uniform(0.0, 1.5, WEEKS)
    after = np.append(prices[1:], prices[-1])
    exact = COUNT * (LAW_MEAN + LAW_SD * norm.ppf((MARGIN - prices) / (MARGIN + HOLDING - after)))
    return _relative_error(_sold_out().utilization(prices[:, None])[:, 0], exact)


def newsvendor_prices() -> float:
    """Prices of the same newsvendors for a capacity, solved by hand from the last week backwards."""
    capacity = COUNT * LAW_MEAN * np.random.default_rng(4).uniform(0.94, 1.02, WEEKS)
    ratio = norm.cdf((capacity / COUNT - LAW_MEAN) / LAW_SD)
    exact = np.zeros(WEEKS)
    after = exact[-1] = max(0.0, (MARGIN - ratio[-1] * (MARGIN + HOLDING)) / (1 - ratio[-1]))
    for week in range(WEEKS - 2, -1, -1):
        after = exact[week] = max(0.0, MARGIN - ratio[week] * (MARGIN + HOLDING - after))
    return _relative_error(_sold_out().shadow_prices(capacity[:, None])[:, 0], exact)


def pulse_response() -> float:
    """One week's price announced to base-stock stores: arrivals move to the week before and the week after it."""
    height, at, weeks, lead = 0.6, 11, 20, 3
    law = {"lead_demand_mean": 40.0 * (lead + 1), "lead_demand_sd": 6.0 * np.sqrt(lead + 1)}
    demand = np.random.default_rng(11).normal(40.0, 6.0, (weeks, 4))
    level = lambda ratio: law["lead_demand_mean"] + law["lead_demand_sd"] * norm.ppf(ratio)  # noqa: E731
    parts: dict[str, Any] = {"initial": empty_state(4, 5, level(0.8)), "record": Record.traces(), "backlog": True}
    setup = (identical_agents(4, lead=lead), _paths(demand, lead, **law), PricedBaseStock(NormalDemand()))
    prices = jnp.asarray((np.arange(weeks) == at) * height, jnp.float32)[:, None]
    priced, free = simulate(*setup, shadow_prices=prices, **parts).agents, simulate(*setup, **parts).agents
    assert priced is not None and free is not None  # requested by the record
    up, down = level((4 + height) / 5) - level(0.8), level(0.8) - level((4 - height) / 5)
    exact = np.zeros((weeks, 4))
    exact[at - 1 : at + 2] = np.array([up, -(up + down), down])[:, None]
    return _relative_error(np.asarray(priced.receipts - free.receipts), exact)


@dataclass(frozen=True, eq=False)
class QuadraticCost(AbstractAcquisitionCost):
    """A marginal cost that rises linearly, `A'(K) = base + slope K`.

    Attributes:
        base: marginal cost of the first unit [money/unit].
        slope: rise of the marginal cost, > 0 [money/unit^2].
        lower, upper: bounds of capacity.
    """

    base: Grid
    slope: Grid
    lower: Grid
    upper: Grid

    @classmethod
    def make(
        cls, base: Grid, slope: Grid, *, lower: Grid | float = 0.0, upper: Grid | float = np.inf
    ) -> "QuadraticCost":
        """Build the cost from arrays, with bounds broadcast over all weeks where they are single numbers."""
        bounds = (np.broadcast_to(bound, base.shape).astype(float) for bound in (lower, upper))
        return cls(base, slope, *bounds)

    def total(self, capacity: Grid) -> float:
        """Return `sum base K + slope/2 K^2` [money]."""
        return float(np.sum(self.base * capacity + 0.5 * self.slope * capacity**2))

    def top_rate(self) -> Grid:
        """Return the marginal cost at the upper bound."""
        return self.base + self.slope * self.upper

    def minimise(self, terms: QuadraticTerms) -> Grid:
        """Return the root of a piecewise-linear derivative, week by week."""
        return np.clip(stationary(self.base, self.slope, terms), self.lower, self.upper)


class _LinearView:
    """A population that uses `a - b lambda`."""

    resources = ("inbound_units",)

    def __init__(self, a: np.ndarray, b: np.ndarray) -> None:
        self.a, self.b, self.n_weeks = a, b, len(a)
        self.price_scale = float(np.median(a / b))

    def utilization(self, shadow_prices: np.ndarray) -> np.ndarray:
        return self.a - self.b * shadow_prices

    def shadow_prices(self, capacity: np.ndarray) -> np.ndarray:
        return np.maximum(self.a - capacity, 0.0) / self.b


def plan_fixed_point() -> float:
    """Plan of a linear population whose capacity costs c + d K at the margin: K = (a - b c) / (1 + b d)."""
    random = np.random.default_rng(0)
    a, b, c, d = (random.uniform(*ends, (26, 1)) for ends in ((50.0, 150.0), (0.4, 0.6), (0.0, 1.0), (0.08, 0.12)))
    sharp = StopRule(max_iterations=300, feasibility=2e-6, complementarity=2e-6, price_gap=2e-6)
    return _relative_error(
        run_revision_loop(_LinearView(a, b), QuadraticCost.make(c, d), stop=sharp).capacity, (a - b * c) / (1 + b * d)
    )


FORMULAS: Mapping[str, Callable[[], float]] = {
    "59 days, to the unit": day_by_day,
    "linear buyers, use": linear_use,
    "linear buyers, prices": linear_prices,
    "newsvendors, use": newsvendor_use,
    "newsvendors, prices": newsvendor_prices,
    "pulse, three weeks": pulse_response,
    "plan, fixed point": plan_fixed_point,
}
"""Functions by name of the known answer."""
