"""Own what the textbook policies with given parameters order, number by number.

FREE: three agents, seen once.
"""

import jax.numpy as jnp
import numpy as np
from shops import shop

from walras.policies.base import Observation
from walras.policies.base_stock import CappedBaseStock, ForecastBaseStock, OrderUpTo, PricedNewsvendor, ScaledNewsvendor

NO_PRICES = jnp.zeros((3, 3))


def seen(position: list[float], mean: list[float], sd: list[float]) -> Observation:
    number = lambda values: jnp.asarray(values, jnp.float32)  # noqa: E731
    return Observation(
        week=jnp.asarray(0),
        population=shop(agents=len(position)),
        stock_start=number(position),
        position=number(position),
        lead_demand_mean=number(mean),
        lead_demand_sd=number(sd),
        sale_price=number([15.0] * len(position)),
        unit_cost=number([5.0] * len(position)),
        next_unit_cost=number([5.0] * len(position)),
    )


SEEN = seen([2.0, 8.0, 30.0], [10.0, 20.0, 15.0], [3.0, 0.0, 5.0])


def test_a_cap_limits_the_order_and_nothing_else():
    capped = CappedBaseStock(jnp.full(3, 20.0), jnp.asarray([5.0, 100.0, 5.0]))
    np.testing.assert_array_equal(capped.orders(SEEN, NO_PRICES), [5.0, 12.0, 0.0])
    free = CappedBaseStock(jnp.asarray([20.0, 21.0, 22.0]), jnp.full(3, 1e9))
    plain = OrderUpTo(jnp.asarray([20.0, 21.0, 22.0]))
    np.testing.assert_array_equal(free.orders(SEEN, NO_PRICES), plain.orders(SEEN, NO_PRICES))


def test_a_level_on_the_forecast_moves_with_it():
    policy = ForecastBaseStock(jnp.asarray([1.0, 0.5, 1.0]), jnp.asarray([2.0, 1.0, -9.0]))
    np.testing.assert_allclose(policy.target(SEEN, NO_PRICES), [16.0, 10.0, 0.0])
    np.testing.assert_allclose(policy.orders(SEEN, NO_PRICES), [14.0, 2.0, 0.0])


def test_factors_of_one_are_the_newsvendor_and_others_correct_its_forecast():
    plain, one = PricedNewsvendor(), ScaledNewsvendor(mean_factor=jnp.ones(()), sd_factor=jnp.ones(()))
    np.testing.assert_array_equal(plain.orders(SEEN, NO_PRICES), one.orders(SEEN, NO_PRICES))
    other = ScaledNewsvendor(mean_factor=jnp.asarray([1.0, 2.0, 1.0]), sd_factor=jnp.asarray([2.0, 1.0, 1.0]))
    corrected = seen([2.0, 8.0, 30.0], [10.0, 40.0, 15.0], [6.0, 0.0, 5.0])
    np.testing.assert_allclose(other.orders(SEEN, NO_PRICES), plain.orders(corrected, NO_PRICES), rtol=1e-6)
    pulse = NO_PRICES.at[:, 0].set(100.0)
    np.testing.assert_array_equal(other.orders(SEEN, pulse), 0.0)
