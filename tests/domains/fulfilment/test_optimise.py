"""Ask whether learned prices earn more, and whether the last trajectory is a good start."""

import numpy as np
import pytest

from walras.domains.fulfilment.generate import generate_world
from walras.domains.fulfilment.optimise import optimise
from walras.domains.fulfilment.run import fulfil
from walras.engine.sequential import Sequential
from walras.errors import SettingsError


def test_prices_earn_more_in_a_tight_world_whatever_the_engine():
    world = generate_world(600, 40, 5, beta=-0.5, capacity_share=0.5)
    learned = optimise(world, steps=6)
    assert learned.reward == learned.rewards.max() > 1.01 * learned.rewards[0]
    assert fulfil(world, learned.rule).reward == learned.reward
    one_by_one = optimise(world, Sequential(), steps=2)
    np.testing.assert_array_equal(one_by_one.rewards, learned.rewards[:2])
    assert "best reward" in str(learned) and one_by_one.rounds[0] == 600
    with pytest.raises(SettingsError, match="steps"):
        optimise(world, steps=0)
