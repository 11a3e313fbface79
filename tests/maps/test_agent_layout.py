"""Agents are laid out completely, in tiles of one bucket, in a fixed number of slots."""

import jax.numpy as jnp
import numpy as np
import pytest

from walras.maps.agent_layout import EMPTY, CohortIndex, PooledAgents, pack_by_bucket, slots_for
from walras.population.cohort import Cohort

BUCKETS, TILE = 4, 3
DRAWN = np.random.default_rng(0).integers(0, BUCKETS, (6, 17))
EDGE_CASES = [np.zeros(17, int), np.full(17, BUCKETS - 1), np.arange(17) % BUCKETS]


@pytest.mark.parametrize("bucket", [*DRAWN, *EDGE_CASES], ids=lambda each: "".join(map(str, each)))
def test_every_agent_has_one_slot_in_a_tile_of_the_right_bucket(bucket):
    slot, of_tile = pack_by_bucket(bucket, BUCKETS, TILE)
    assert slot.shape == (slots_for(17, BUCKETS, TILE),) and of_tile.shape == (slots_for(17, BUCKETS, TILE) // TILE,)
    assert sorted(slot[slot != EMPTY]) == list(range(17))
    there = slot != EMPTY
    np.testing.assert_array_equal(bucket[slot[there]], np.repeat(of_tile, TILE)[there])


def test_slots_are_enough_and_some_populations_need_them():
    """Each bucket may leave a tile nearly empty."""
    assert slots_for(1, BUCKETS, TILE) == 9 and slots_for(17, 1, 1) == 17 and slots_for(17, BUCKETS, TILE) == 24
    worst = np.repeat(np.arange(BUCKETS), [1, 1, 1, 4])
    used = sum(-(-count // TILE) for count in np.bincount(worst))
    assert TILE * used <= slots_for(7, BUCKETS, TILE)


def pooled(weight, size) -> PooledAgents:
    given = (jnp.asarray(each, jnp.float32) for each in (weight, size))
    return PooledAgents(*given, jnp.asarray([0, 2, 2]), jnp.zeros((6, 1)), 3)


def test_shares_are_of_agents_and_of_demand():
    found = np.asarray(pooled([1, 3, 2, 0, 0, 2], [2, 6, 4, 0, 0, 28]).shares())
    np.testing.assert_allclose(found, [[0.5, 0.2], [0, 0], [0.5, 0.8]], rtol=1e-6)


def test_sizes_are_relative_to_the_mean_agent():
    mine = pooled([1, 3, 2, 0, 0, 2], [2, 6, 4, 0, 0, 28])
    np.testing.assert_allclose(mine.relative_size(), [0.4, 0.4, 0.4, 0, 0, 2.8], rtol=1e-6)
    assert float((mine.weight * mine.relative_size()).sum()) == pytest.approx(float(mine.weight.sum()))
    np.testing.assert_array_equal(mine.of_bucket(), [[1, 0, 0], [0, 0, 1], [0, 0, 1]])
    assert mine.tile == 2


def test_cohort_indices_stand_for_the_weights_of_their_cohort():
    size = np.array([1.0, 50.0, 3.0, 40.0, 2.0, 5.0])
    cohort = Cohort(np.array([0, 2, 3, 5]), np.array([2.0, 1.0, 4.0, 1.5]), np.zeros(4, int), 6, "some")
    index_ = CohortIndex.of(size, cohort, np.array([2.5, 10.0]), 2)
    index, weight = np.asarray(index_.index), np.asarray(index_.weight)
    assert index_.n_buckets == 3 and len(index) == slots_for(4, 3, 2) == 2 * len(index_.bucket)
    assert {int(i): float(w) for i, w in zip(index, weight, strict=True) if w} == {0: 2.0, 2: 1.0, 3: 4.0, 5: 1.5}
    of_slot = np.repeat(np.asarray(index_.bucket), 2)
    np.testing.assert_array_equal(of_slot[weight > 0], np.digitize(size[index[weight > 0]], [2.5, 10.0]))
