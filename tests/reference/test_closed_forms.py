"""Newsvendor stores whose best level and cost are formulas, and published (s,S) and 59-day cases."""

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float
from scipy.stats import norm
from textbook import (
    AGENTS,
    WEEKS,
    Store,
    assert_costs,
    lead_times,
    run_traced,
    standard_error,
    stores,
)

from lab.textbook import REORDER
from walras.exogenous.paths import constant_paths
from walras.policies.base import Observation, Policy
from walras.policies.base_stock import NormalDemand, OrderUpTo, PricedBaseStock, PricedNewsvendor, ReorderPoint
from walras.simulation.week import empty_state

LONGEST = 10
HALF_THOUSANDTH = 5e-4

NEWSVENDOR = [(0, 56.60395592743389, 1.997605193176645), (0, 40.0, 7.356131552870388), (4, 264.7667943741548, 4.466781)]
"""Lead time, level and cost of stores with Normal(50, 8) demand, holding cost .18, penalty .70, backlog."""

BACKLOGGED = {
    (0, 4): None,
    (0, 9): None,
    (1, 4): 3.167,
    (1, 9): 3.971,
    (4, 4): 5.008,
    (4, 9): 6.279,
    (7, 4): 6.335,
    (7, 9): 7.942,
    (10, 4): 7.428,
    (10, 9): 9.313,
}
"""Published cost by (lead time, penalty) for Normal(5, 1.6) demand; lead time 0 by the formula."""


def up_to(level: float) -> OrderUpTo:
    return OrderUpTo(jnp.asarray(level, jnp.float32))


@pytest.fixture(scope="module")
def normal_fifty() -> np.ndarray:
    return np.random.default_rng(50).normal(50.0, 8.0, (WEEKS, AGENTS)).astype(np.float32)


@pytest.fixture(scope="module")
def normal_five() -> np.ndarray:
    return np.random.default_rng(5).normal(5.0, 1.6, (WEEKS, AGENTS)).clip(0).astype(np.float32)


@pytest.mark.parametrize(("lead", "level", "cost"), NEWSVENDOR)
def test_newsvendor_costs_its_closed_form(normal_fifty, lead: int, level: float, cost: float) -> None:
    store = Store(holding=0.18, penalty=0.7, lead=lead, backlog=True)
    costs = store.costs(up_to(level), normal_fifty, level, room=LONGEST)
    assert_costs(costs, cost)
    assert standard_error(costs) < 0.003 * cost


def test_with_lead_time_zero_lost_sales_cost_what_backlog_costs(normal_fifty) -> None:
    """Every week starts at the level, so that last week's shortage is forgotten either way."""
    for _, level, cost in NEWSVENDOR[:2]:
        store = Store(holding=0.18, penalty=0.7)
        assert_costs(store.costs(up_to(level), normal_fifty, level, room=LONGEST), cost)


def test_poisson_newsvendor_costs_its_sum() -> None:
    demand = np.random.default_rng(6).poisson(6.0, (WEEKS, AGENTS)).astype(np.float32)
    costs = {level: Store().costs(up_to(level), demand, level, room=LONGEST) for level in (7, 8, 9)}
    assert_costs(costs[8], 3.570106945770946)
    assert min(costs, key=lambda level: costs[level].mean()) == 8


@pytest.mark.parametrize(("lead", "penalty"), BACKLOGGED)
def test_backlogged_normal_costs_its_closed_form(normal_five, lead: int, penalty: int) -> None:
    """Demand is clipped at 0 in one week of 1,100, which changes the cost by far less than a tenth of a percent."""
    z, spread = norm.ppf(penalty / (penalty + 1)), 1.6 * np.sqrt(lead + 1)
    formula = (1 + penalty) * norm.pdf(z) * spread
    published = BACKLOGGED[lead, penalty]
    assert published is None or abs(formula - published) <= HALF_THOUSANDTH + 1e-9
    level = 5 * (lead + 1) + z * spread
    store = Store(penalty=float(penalty), lead=lead, backlog=True)
    costs = store.costs(up_to(level), normal_five, level, room=LONGEST)
    assert_costs(costs, formula, slack=1e-3 * formula)
    assert standard_error(costs) < 0.002 * formula


PRICED = [
    (PricedBaseStock(NormalDemand()), {"sale_price": 0.0, "unit_cost": 0.0}, 0.7),
    (PricedBaseStock(NormalDemand()), {"sale_price": 9.0, "unit_cost": 3.0}, 0.7),
    (PricedNewsvendor(NormalDemand()), {"sale_price": 0.0, "unit_cost": 0.0}, 0.7),
    (PricedNewsvendor(NormalDemand()), {"sale_price": 1.2, "unit_cost": 0.5}, 0.0),
    (PricedNewsvendor(NormalDemand()), {"sale_price": 1.0, "unit_cost": 0.5}, 0.2),
]
"""At price 0 margin + penalty is .70 in every one of them: the critical ratio is .70 / .88."""


@pytest.mark.parametrize(("policy", "money", "penalty"), PRICED)
@pytest.mark.parametrize(("lead", "level"), [(0, 56.60395592743389), (4, 264.7667943741548)])
def test_priced_policies_order_up_to_the_closed_form_at_price_zero(policy, money, penalty, lead, level) -> None:
    demand = np.zeros((2, 3), np.float32)
    forecast = {"lead_demand_mean": 50.0 * (lead + 1), "lead_demand_sd": 8.0 * np.sqrt(lead + 1)}
    paths = constant_paths(demand, lead_times(demand, lead), **money, **forecast)
    people = stores(3, holding=0.18, penalty=penalty, lead=lead)
    stock = jnp.asarray([0.0, 40.0, level + 1.0], jnp.float32)
    happened = run_traced(people, paths, policy, initial=empty_state(3, 4, stock), backlog=True).agents
    np.testing.assert_allclose(happened.orders[0], [level, level - 40.0, 0.0], rtol=2e-6, atol=2e-5)
    np.testing.assert_allclose(happened.orders[1], 0.0, atol=2e-5)


EACH = 4_000


@pytest.fixture(scope="module")
def reorder_costs() -> np.ndarray:
    """Simulate all instances at once, one block of agents each."""
    mean, low, level, _ = (np.repeat(column, EACH).astype(np.float32) for column in zip(*REORDER, strict=True))
    demand = np.random.default_rng(64).poisson(mean, (WEEKS, len(mean))).astype(np.float32)
    policy = ReorderPoint(jnp.asarray(low), jnp.asarray(level))
    costs = Store(penalty=9.0, backlog=True).costs(policy, demand, level, room=1, order=64.0)
    return costs.reshape(len(REORDER), EACH)


@pytest.mark.parametrize("row", range(len(REORDER)), ids=lambda row: f"mean {REORDER[row][0]}")
def test_reorder_point_costs_the_published_amount(reorder_costs, row: int) -> None:
    assert_costs(reorder_costs[row], REORDER[row][3], slack=HALF_THOUSANDTH)
    assert standard_error(reorder_costs[row]) < 0.002 * REORDER[row][3]


class FixedQuantity(Policy):
    """Order Q when the position is at or below R: the (R,Q) policy."""

    reorder_point: Float[Array, "*agent"]
    quantity: Float[Array, "*agent"]

    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return Q or nothing."""
        return jnp.where(observation.position <= self.reorder_point, self.quantity, 0.0)


DAYS = 59
R_Q = FixedQuantity(jnp.asarray(500.0), jnp.asarray(500.0))
S_S = ReorderPoint(jnp.asarray(200.0), jnp.asarray(500.0))

CASES = [
    (R_Q, 2, 1000.0, (120.0,), {"end": 400, "carrying": 7600, "orders": (7, 3500), "received": (6, 3000)}),
    (R_Q, 2, 1000.0, (120.0, 80.0), {"end": 500, "carrying": 7100, "orders": (12, 6000), "received": (11, 5500)}),
    (S_S, 1, 500.0, (120.0, 80.0), {"end": 100, "carrying": 3500, "orders": (15, 6000), "received": (14, 5600)}),
]


@pytest.mark.parametrize(("policy", "lead", "start", "demands", "known"), CASES)
def test_deterministic_days_come_out_to_the_unit(policy, lead, start, demands, known) -> None:
    """A review after all demands of a day is this timing's order of the next day, with a lead time one shorter."""
    demand = np.zeros((DAYS + 1, 1), np.float32)
    demand[0:DAYS:2] = sum(demands)
    paths = constant_paths(demand, lead_times(demand, lead - 1))
    people = stores(1, holding=0.2, penalty=0.0, lead=lead - 1)
    initial = empty_state(1, 1, start)
    happened = run_traced(people, paths, policy, initial=initial).agents
    orders, receipts, stock = (np.asarray(x)[:, 0] for x in (happened.orders, happened.receipts, happened.stock_end))
    # The last day's review falls on the day after; nothing but that order counts there.
    assert ((orders > 0).sum(), orders.sum()) == known["orders"]
    assert ((receipts[:DAYS] > 0).sum(), receipts[:DAYS].sum()) == known["received"]
    assert stock[DAYS - 1] == known["end"]
    assert -np.asarray(happened.reward[:DAYS], float).sum() == pytest.approx(known["carrying"], rel=1e-6)
    assert np.asarray(happened.lost_sales).sum() == 0
