"""Own the proof that prices that are searched are what a planner would ask about.

FREE: internals of training.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from walras.train.price_proposals import search_prices


def test_searched_prices_fit_a_line():
    """Use 2 - lambda fits a capacity of 1 at a price of 1, and one of 3 at hardly any."""
    capacity = jnp.array([[1.0], [3.0]])
    found = np.asarray(search_prices(lambda prices: 2.0 - prices, capacity, 200))
    assert found[0, 0] == pytest.approx(1.0, abs=0.05) and found[1, 0] < 0.05
