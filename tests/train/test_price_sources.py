"""Own the proof that prices of every source are what a planner would ask about.

FREE: internals of training.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from walras.policies.base_stock import PricedNewsvendor
from walras.population.generate import generate_panel
from walras.train import price_sources
from walras.train.fitted_prices import use_under
from walras.train.map_episodes import MapEpisodes
from walras.train.map_settings import MapTraining
from walras.train.price_sources import FIRST_PRICED, hindsight_prices, search_prices
from walras.train.world import World

POLICY = PricedNewsvendor()


@pytest.fixture(scope="module")
def episodes() -> MapEpisodes:
    world = World.from_panel(generate_panel(80, 150, 5), seed=5, refit_weeks=13)
    return MapEpisodes([world], MapTraining(target=48, agents=32, weeks=98, delegates=0, tile=16))


def test_prices_in_hindsight_make_use_fit_the_drawn_capacity(episodes, monkeypatch):
    monkeypatch.setattr(price_sources, "SAMPLE", 200)  # everybody
    seen = []
    kept = price_sources._free_and_capacity
    monkeypatch.setattr(price_sources, "_free_and_capacity", lambda *given: seen.append(kept(*given)) or seen[-1])
    drawn = episodes.draw(0)
    prices = hindsight_prices(drawn, POLICY)
    free, capacity = seen[0]
    assert prices.shape == capacity.shape and (prices[:FIRST_PRICED] == 0.0).all() and prices.max() > 0.0
    use = np.asarray(use_under(drawn.stretch, POLICY, jnp.asarray(prices, jnp.float32)))
    over = [np.maximum(each - capacity, 0.0)[FIRST_PRICED:].sum() for each in (np.asarray(free.utilization), use)]
    assert over[1] < 0.5 * over[0]


def test_searched_prices_fit_a_line():
    """Use 2 - lambda fits a capacity of 1 at a price of 1, and one of 3 at hardly any."""
    capacity = jnp.array([[1.0], [3.0]])
    found = np.asarray(search_prices(lambda prices: 2.0 - prices, capacity, 200))
    assert found[0, 0] == pytest.approx(1.0, abs=0.05) and found[1, 0] < 0.05
