"""Own the proof that forecasts follow common surprises late, and that drawn ones are what was asked for.

FREE: no simulation here.
"""

import numpy as np
import pytest

from walras.train.shocks import HALF_LIFE, LONGEST_BLOCK, draw_common, lagged_forecast


def test_half_of_a_change_is_followed_after_the_half_life():
    level = lagged_forecast(np.full(2 * int(HALF_LIFE) + 1, 3.0))
    np.testing.assert_allclose(level[[0, int(HALF_LIFE), 2 * int(HALF_LIFE)]], [1.0, 2.0, 2.5])


def test_a_week_changes_only_later_levels():
    one, other = np.ones(12), np.ones(12)
    other[4] = 5.0
    np.testing.assert_array_equal(lagged_forecast(one)[:5], lagged_forecast(other)[:5])
    assert (lagged_forecast(other)[5:] > 1).all()


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_drawn_factors_have_the_mean_and_the_spread_asked_for(spread):
    for seed in range(20):
        drawn = draw_common(np.random.default_rng(seed), 64, spread)
        np.testing.assert_allclose([drawn.mean(), np.log(drawn).std()], [1.0, spread], atol=1e-6)
        assert (drawn > 0).all()
    again = draw_common(np.random.default_rng(19), 64, spread)
    np.testing.assert_array_equal(again, drawn)


def test_blocks_are_of_one_to_the_most_weeks():
    def longest(seed: int) -> int:
        drawn = draw_common(np.random.default_rng(seed), 200, 0.3)
        edges = np.flatnonzero(np.diff(drawn) != 0)
        return int(np.diff(edges).min())

    found = {longest(seed) for seed in range(60)}
    assert found == set(range(1, LONGEST_BLOCK + 1))
