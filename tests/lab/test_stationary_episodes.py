"""Episodes of textbook stores are drawn as they say, the same for the same seed and number."""

import jax
import numpy as np
import pytest

from lab.stationary_episodes import DemandLaw, StationaryEpisodes

LAWS = [DemandLaw("poisson", 4.0), DemandLaw("geometric", 4.0), DemandLaw("normal", 20.0, 3.0)]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
def test_demand_follows_its_law(law):
    drawn = law.draw(np.random.default_rng(0), (20_000,))
    assert drawn.dtype == np.float32 and drawn.min() >= 0
    assert abs(drawn.mean() - law.mean) < 0.1 and abs(drawn.std() / law.deviation - 1) < 0.03
    assert bool((drawn == np.rint(drawn)).all()) is law.whole


EPISODES = StationaryEpisodes(LAWS[0], 9.0, 2, holding=0.5, stores=5, weeks=6, warm_up=3)


def test_the_same_seed_and_number_give_the_same_episode_and_others_another():
    first, again, next_one, other = (EPISODES.draw(*each) for each in ((1, 2), (1, 2), (1, 3), (2, 2)))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for episode in (next_one, other, *EPISODES.validation()):
        assert not np.array_equal(episode.exogenous.demand[:9, :5], first.exogenous.demand)
        assert jax.tree.structure(episode) == jax.tree.structure(first)
    jax.tree.map(np.testing.assert_array_equal, EPISODES.validation(), EPISODES.validation())


def test_what_an_episode_holds():
    episode = EPISODES.draw(0, 0)
    assert episode.exogenous.demand.shape == (9, 5) and episode.initial.pipeline.shape == (2, 5)
    np.testing.assert_array_equal(episode.week_weight, [0.0] * 3 + [1.0] * 6)
    np.testing.assert_array_equal(episode.population.holding_cost, [0.5] * 5)
    np.testing.assert_array_equal(episode.population.lead_time, [2] * 5)
    np.testing.assert_allclose(episode.exogenous.lead_demand_mean[0], 12.0)
    np.testing.assert_allclose(episode.exogenous.lead_demand_sd[0], np.sqrt(12.0), rtol=1e-6)
    assert float(episode.stake) == 5 * 4.0 * 9.0 and not np.asarray(episode.shadow_prices).any()
    (judge,) = EPISODES.validation()
    assert judge.exogenous.demand.shape == (3 + 24, 20) and float(judge.stake) == 20 * 4.0 * 9.0


def test_all_settings_are_what_episodes_follow_from():
    said = EPISODES.identity()
    assert set(said) == set(vars(EPISODES)) and all(isinstance(value, str) for value in said.values())
