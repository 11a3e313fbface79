"""Priced base-stock agents react to announced prices, down to the unit."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from textbook import lead_times, run_traced, stores

from walras.exogenous.paths import ExogenousPaths, constant_paths
from walras.policies.base_stock import NormalDemand, PricedBaseStock, PricedNewsvendor
from walras.simulation.week import empty_state

HOLDING, PENALTY = 1.0, 4.0
MEAN, SPREAD = 40.0, 6.0
LEADS = np.array([0, 1, 3, 5])
WEEKS, PULSE_WEEK, HEIGHT = 20, 11, 0.6
PULSE = (np.arange(WEEKS) == PULSE_WEEK) * HEIGHT
"""One week's price, below the holding cost, so that no agent leaves the region where the ratio is not clipped."""


def level(ratio: float, lead: np.ndarray) -> np.ndarray:
    return MEAN * (lead + 1) + SPREAD * np.sqrt(lead + 1) * norm.ppf(ratio)


def paths(demand: np.ndarray, sale_price: float = 0.0, unit_cost: float = 0.0) -> ExogenousPaths:
    """Build paths whose forecasts fit each agent's lead time."""
    built = constant_paths(demand, lead_times(demand, LEADS), sale_price=sale_price, unit_cost=unit_cost)
    own = {"lead_demand_mean": MEAN * (LEADS + 1.0), "lead_demand_sd": SPREAD * np.sqrt(LEADS + 1.0)}
    shaped = {name: jnp.asarray(np.broadcast_to(x, demand.shape[-2:]), jnp.float32) for name, x in own.items()}
    return ExogenousPaths(**{**vars(built), **shaped})


def run(policy, prices: np.ndarray | None, *, backlog: bool = True, holding: float = HOLDING, **money):
    """Simulate four agents, one per lead time, on the same random demand; return their traces."""
    demand = np.random.default_rng(11).normal(MEAN, SPREAD, (WEEKS, len(LEADS))).astype(np.float32)
    penalty = money.pop("penalty", PENALTY)
    resources = money.pop("resources", ("inbound_units",))
    people = stores(len(LEADS), holding=holding, penalty=penalty, lead=LEADS, resources=resources)
    if prices is not None:
        prices = jnp.asarray(np.reshape(prices, (WEEKS, -1)), jnp.float32)
        prices = jnp.broadcast_to(prices, (WEEKS, len(resources)))
    start = empty_state(len(LEADS), 5, jnp.asarray(level(PENALTY / (PENALTY + HOLDING), LEADS), jnp.float32))
    exogenous = paths(demand, money.get("sale_price", 0.0), money.get("unit_cost", 0.0))
    return run_traced(people, exogenous, policy, initial=start, shadow_prices=prices, backlog=backlog).agents


def test_a_pulse_moves_arrivals_to_the_weeks_just_before_and_just_after() -> None:
    """The week before gains what the level rises ahead of the pulse, the week after what it catches up."""
    policy = PricedBaseStock(NormalDemand())
    shift = np.asarray(run(policy, PULSE).receipts - run(policy, None).receipts)
    ratio = PENALTY / (PENALTY + HOLDING)
    up = level((PENALTY + HEIGHT) / (PENALTY + HOLDING), LEADS) - level(ratio, LEADS)
    down = level(ratio, LEADS) - level((PENALTY - HEIGHT) / (PENALTY + HOLDING), LEADS)
    expected = np.zeros((WEEKS, len(LEADS)))
    expected[PULSE_WEEK - 1 : PULSE_WEEK + 2] = up, -(up + down), down
    assert (up > 1).all() and (down > 1).all()
    np.testing.assert_allclose(shift, expected, atol=2e-3)
    np.testing.assert_allclose(shift.sum(0), 0.0, atol=2e-3)


def test_each_agent_moves_its_orders_one_lead_time_ahead_of_the_pulse() -> None:
    policy = PricedBaseStock(NormalDemand())
    shift = np.asarray(run(policy, PULSE).orders - run(policy, None).orders)
    assert [int(np.argmin(shift[:, agent])) for agent in range(len(LEADS))] == [PULSE_WEEK - lead for lead in LEADS]


def test_a_higher_pulse_moves_more() -> None:
    policy = PricedBaseStock(NormalDemand())
    arrivals = [np.asarray(run(policy, scale * PULSE).receipts)[PULSE_WEEK] for scale in (0.0, 0.5, 1.0, 1.5)]
    assert (np.diff(arrivals, axis=0) < -0.5).all()


@pytest.mark.parametrize("height", [0.3, 5.0, 1000.0])
def test_a_constant_price_changes_nothing_under_backlog(height: float) -> None:
    """Demand must be met in the end: a price that never changes only adds to what is paid."""
    policy = PricedBaseStock(NormalDemand())
    constant = run(policy, np.full(WEEKS, height))
    np.testing.assert_array_equal(constant.orders, run(policy, None).orders)


def test_with_discounting_a_constant_price_rewards_waiting() -> None:
    """kappa = (b - (1 - g) lambda) / (b + h): the price can be paid later, when it is worth less."""
    g, height = 0.98, 10.0
    policy = PricedBaseStock(NormalDemand(), discount=g)
    low = level((PENALTY - (1 - g) * height) / (PENALTY + HOLDING), LEADS)
    first = np.asarray(run(policy, np.full(WEEKS, height)).orders)
    plain = np.asarray(run(policy, None).orders)
    cumulated = (first - plain).sum(0)
    np.testing.assert_allclose(cumulated, low - level(PENALTY / (PENALTY + HOLDING), LEADS), atol=2e-3)


def test_a_lost_sales_product_stops_ordering_when_the_price_eats_its_margin() -> None:
    policy = PricedNewsvendor(NormalDemand())
    money = {"sale_price": 5.0, "unit_cost": 3.0, "penalty": 0.5, "backlog": False}
    ordered = [float(run(policy, np.full(WEEKS, price), **money).orders.sum()) for price in (0.0, 1.0, 2.3, 2.5, 9.0)]
    assert ordered[0] > ordered[1] > ordered[2] > 0
    assert ordered[3] == 0 and ordered[4] == 0


def test_the_price_that_counts_is_that_of_the_week_of_arrival() -> None:
    """A price above the margin in one week empties that week's dock, whatever the lead time, and no other's."""
    policy = PricedNewsvendor(NormalDemand())
    money = {"sale_price": 5.0, "unit_cost": 3.0, "penalty": 0.0, "backlog": False}
    arrivals = np.asarray(run(policy, (np.arange(WEEKS) == PULSE_WEEK) * 2.0, **money).receipts)
    assert (arrivals[PULSE_WEEK] == 0).all()
    others = np.delete(np.arange(WEEKS), PULSE_WEEK)[LEADS.max() + 1 :]
    assert (arrivals[others] > 0).all()


@pytest.mark.parametrize("policy", [PricedBaseStock(NormalDemand()), PricedNewsvendor(NormalDemand())])
def test_a_storage_price_is_a_holding_cost(policy) -> None:
    money = {"sale_price": 9.0, "unit_cost": 3.0, "resources": ("inbound_units", "storage")}
    priced = run(policy, np.tile([0.0, 0.75], WEEKS), **money).orders
    dearer = run(policy, np.zeros(2 * WEEKS), holding=HOLDING + 0.75, **money).orders
    free = run(policy, np.zeros(2 * WEEKS), **money).orders
    np.testing.assert_allclose(priced, dearer, atol=2e-4)
    assert (np.asarray(priced.sum(0)) < np.asarray(free.sum(0)) - 0.5).all()
