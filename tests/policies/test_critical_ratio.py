"""Own the critical ratios of the priced policies against numbers worked out by hand.

FREE: C_t = c_t + g^L lambda_{t+L}; the comments carry the sums.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from walras.policies.base import Observation
from walras.policies.base_stock import NormalDemand, PricedBaseStock, PricedNewsvendor
from walras.population.population import Population

PRICES = jnp.asarray([[9.0, 9.0], [1.0, 0.0], [0.5, 0.25], [2.0, 0.5]])
"""Price of inbound units and of storage, this week's first."""


def agent(*, lead: int, use: tuple[float, float] = (1.0, 1.0), **changed: float) -> Observation:
    """Return what one agent sees: sale price 10, cost 4 in both weeks, holding 1, penalty 2, N(50, 8) ahead."""
    given = {"holding_cost": 1.0, "lost_sale_penalty": 2.0, "sale_price": 10.0, "unit_cost": 4.0, "next_unit_cost": 4.0}
    given |= changed
    one = {name: jnp.asarray([value], jnp.float32) for name, value in given.items()}
    people = Population(
        holding_cost=one.pop("holding_cost"),
        lost_sale_penalty=one.pop("lost_sale_penalty"),
        lead_time=jnp.asarray([lead], jnp.int32),
        demand_scale=jnp.ones(1),
        unit_margin=jnp.ones(1),
        use=jnp.asarray([use], jnp.float32),
        weight=jnp.ones(1),
        resources=("inbound_units", "storage"),
    )
    ahead = {"lead_demand_mean": jnp.asarray([50.0]), "lead_demand_sd": jnp.asarray([8.0])}
    zero = jnp.zeros(1)
    return Observation(week=jnp.asarray(0), population=people, stock_start=zero, position=zero, **ahead, **one)


NEWSVENDOR = [
    # Cu = 10 + 2 - (4 + 1) = 7; Co = 1 + 0 + (4 + 1) - (4 + .5) = 1.5
    (1, 1.0, {}, 7 / 8.5),
    # Cu = 12 - (4 + .5) = 7.5; Co = 1 + .25 + (4 + .5) - (4 + 2) = -.25, kept at 2 % of 1.25
    (2, 1.0, {}, 7.5 / 7.525),
    # Each unit uses half a dock unit: Cu = 12 - 4.5 = 7.5; Co = 1 + 4.5 - 4.25 = 1.25
    (1, 1.0, {"use": (0.5, 2.0)}, 7.5 / 8.75),
    # g = .9, g^-1 = 1.1111: Cu = 12 - (4.4444 + 1); Co = 1 + 5.4444 - .9 (4.4444 + .5) = 1.99444
    (1, 0.9, {}, (12 - 4 / 0.9 - 1) / ((12 - 4 / 0.9 - 1) + 1 + 4 / 0.9 + 1 - 0.9 * (4 / 0.9 + 0.5))),
    # g = .9, two weeks: g^-2 = 1.234568; next week's cost 5: Co = 6.688 - .9 * 8.173 < 0 is kept at 2 % of 1.25
    (2, 0.9, {"next_unit_cost": 5.0}, 6.561728395 / (6.561728395 + 0.025)),
    # Sale price 4, no penalty: the price of 1 leaves a margin of -1
    (1, 1.0, {"sale_price": 4.0, "lost_sale_penalty": 0.0}, 0.0),
    # Next week costs 50: waiting is worse than any stock, Co = -44.5 is kept at 2 % of 1
    (1, 1.0, {"next_unit_cost": 50.0}, 7 / 7.02),
    # Neither margin nor cost: order nothing
    (0, 1.0, {"use": (0.0, 0.0), "sale_price": 4.0, "lost_sale_penalty": 0.0, "holding_cost": 0.0}, 0.0),
]


@pytest.mark.parametrize(("lead", "discount", "changed", "ratio"), NEWSVENDOR)
def test_newsvendor_ratio(lead: int, discount: float, changed: dict, ratio: float) -> None:
    found = PricedNewsvendor(discount=discount).critical_ratio(agent(lead=lead, **changed), PRICES)
    assert float(found[0]) == pytest.approx(ratio, rel=2e-6)


BASE_STOCK = [
    # kappa = (2 - (1 - .5)) / (2 + 1)
    (1, 1.0, {}, 1.5 / 3),
    # A dearer week follows: (2 - (.5 - 2)) / (2 + 1 + .25) = 1.08, clipped
    (2, 1.0, {}, 0.99),
    # Penalty 6: (6 - (.5 - 2)) / 7.25 = 1.03, clipped; penalty 6 and dock use .1: (6 + .15) / 7.25
    (2, 1.0, {"lost_sale_penalty": 6.0, "use": (0.1, 1.0)}, 6.15 / 7.25),
    # g = .9: growth 1.1111 x (4 - .9 x 4) + 1 - .9 x .5 = .99444
    (1, 0.9, {}, (2 - (0.4 / 0.9 + 0.55)) / 3),
    # Costs rise from 4 to 4.5: order earlier
    (1, 1.0, {"next_unit_cost": 4.5}, 2 / 3),
    # Costs fall by more than the penalty: wait, as far as the clip lets
    (1, 1.0, {"next_unit_cost": 1.0}, 0.01),
]


@pytest.mark.parametrize(("lead", "discount", "changed", "ratio"), BASE_STOCK)
def test_base_stock_ratio(lead: int, discount: float, changed: dict, ratio: float) -> None:
    found = PricedBaseStock(discount=discount).critical_ratio(agent(lead=lead, **changed), PRICES)
    assert float(found[0]) == pytest.approx(ratio, rel=2e-6)


@pytest.mark.parametrize("policy", [PricedBaseStock(NormalDemand()), PricedNewsvendor(NormalDemand())])
def test_orders_are_the_quantile_at_the_ratio_less_the_position(policy) -> None:
    seen = agent(lead=1)
    ratio = float(policy.critical_ratio(seen, PRICES)[0])
    assert float(policy.orders(seen, PRICES)[0]) == pytest.approx(50 + 8 * norm.ppf(ratio), rel=1e-5)


def test_after_the_announced_weeks_the_last_price_holds() -> None:
    """An order that arrives in or after the last announced week pays that price, and so does the order after it."""
    policy = PricedBaseStock(NormalDemand())
    # kappa = (2 - 0) / (2 + 1 + .5)
    for lead in (3, 9):
        np.testing.assert_allclose(policy.critical_ratio(agent(lead=lead), PRICES), 2 / 3.5, rtol=1e-6)


def test_the_ratio_does_not_jump_where_a_rising_price_eats_the_margin():
    before, after = (
        float(PricedNewsvendor().critical_ratio(agent(lead=2, sale_price=2.5 + step), PRICES)[0])
        for step in (0.002, 0.0)
    )
    assert after == 0.0
    assert 0 < before < 0.1
