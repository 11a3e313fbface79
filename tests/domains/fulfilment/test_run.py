"""Ask whether what is reported of a run is what is final, and whether a wrong argument ends in one sentence."""

import numpy as np
import pytest

from walras.domains.fulfilment.generate import generate_world
from walras.domains.fulfilment.policies import Greedy
from walras.domains.fulfilment.run import fulfil
from walras.domains.fulfilment.world import NONE, earned, exhausted
from walras.engine.assignment import OneEach
from walras.engine.picard import Picard
from walras.engine.starts import Given


@pytest.fixture(scope="module")
def world():
    return generate_world(60, 7, 4, -0.8, capacity_share=0.5)


def test_of_an_unconverged_run_only_what_is_final_is_told(world):
    expected = fulfil(world, Greedy()).actions
    found = fulfil(world, Greedy(), Picard(max_rounds=1, assignment=OneEach(), verify=True))
    final = int(found.info.committed)
    assert not found.converged and 0 < final < 60 and f"{final} of 60" in str(found)
    np.testing.assert_array_equal(found.actions, np.where(np.arange(60) < final, expected, NONE))
    assert found.reward == earned(world, found.actions) and found.share < np.mean(expected != NONE)
    assert f"fulfilled               {found.share:.1%}" in str(found)
    np.testing.assert_array_equal(found.exhausted, exhausted(world, found.actions))


def test_a_start_that_no_world_has_is_never_told(world):
    found = fulfil(world, Greedy(), Picard(start=Given(np.full(60, 99)), max_rounds=0))
    assert not found.converged and found.share == 0 and found.reward == 0 and not len(found.exhausted)
    again = fulfil(world, Greedy(), Picard(start=Given(np.full(60, 99))))
    np.testing.assert_array_equal(again.actions, fulfil(world, Greedy()).actions)
