"""Ask whether answers to prices are those of the simulator."""

import jax.numpy as jnp
import numpy as np
from shops import AGENTS, SCENARIOS, Leaning, happenings, prices, shop, start

from walras.planning.prices.simulated_view import expected_response, simulate_prices
from walras.simulation.run import simulate

PARTS = (shop(), happenings(shop(), scenarios=SCENARIOS), Leaning(jnp.linspace(30.0, 60.0, AGENTS)), start(shop()))


def test_answers_are_the_simulators():
    charged = prices(shop(), scenarios=SCENARIOS)
    use, reward = simulate_prices(*PARTS, charged)
    run = simulate(*PARTS[:3], initial=PARTS[3], shadow_prices=charged)
    np.testing.assert_allclose(use, run.totals.utilization, rtol=1e-6)
    np.testing.assert_allclose(reward, run.reward, rtol=1e-6)


def test_the_mean_keeps_standard_deviations_in_reserve():
    charged = prices(shop())
    use, reward = (np.asarray(part, float) for part in simulate_prices(*PARTS, charged))
    mean, worth = expected_response(*PARTS, charged, 0.5)
    np.testing.assert_allclose(mean, use.mean(0) + 0.5 * use.std(0), rtol=1e-5)
    np.testing.assert_allclose(worth, reward.mean(), rtol=1e-6)
