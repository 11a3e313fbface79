"""The zooming grid finds each group's own best.

Scores are formulas.
"""

import numpy as np
import pytest

from walras.train.policy_families import GridSpec, grid_search

PEAKS = np.array([0.0, 3.3, 7.9, 10.0])
RANGE = (np.zeros(4), np.full(4, 10.0))


def test_every_group_finds_its_own_peak():
    found = grid_search(lambda at: -np.abs(at["x"] - PEAKS), {"x": RANGE})
    np.testing.assert_allclose(found.parameters["x"], PEAKS, atol=10 / 300)
    np.testing.assert_allclose(found.value, 0.0, atol=10 / 300)


def test_two_parameters_on_a_slanted_ridge():
    score = lambda at: -((at["x"] - PEAKS) ** 2) - 5 * (at["x"] + at["y"] - 10.0) ** 2  # noqa: E731
    found = grid_search(score, {"x": RANGE, "y": RANGE})
    np.testing.assert_allclose(found.parameters["x"], PEAKS, atol=0.2)
    np.testing.assert_allclose(found.parameters["y"], 10 - PEAKS, atol=0.2)


def test_whole_multiples_are_found_exactly():
    found = grid_search(lambda at: -np.abs(at["x"] - PEAKS), {"x": RANGE}, steps={"x": 2.0})
    np.testing.assert_array_equal(found.parameters["x"], [0.0, 4.0, 8.0, 10.0])


@pytest.mark.parametrize("outside", [-4.0, 14.0])
def test_a_start_that_is_better_is_kept_even_outside_the_ranges(outside):
    score = lambda at: np.where(at["x"] == outside, 100.0, -np.abs(at["x"] - PEAKS))  # noqa: E731
    found = grid_search(score, {"x": RANGE}, starts=[{"x": np.full(4, outside)}])
    np.testing.assert_array_equal(found.parameters["x"], outside)


def test_a_narrow_peak_beside_a_broad_one_needs_a_fine_first_grid():
    score = lambda at: np.where(np.abs(at["x"] - 6.1) < 0.3, 5.0, -np.abs(at["x"] - 2.0))  # noqa: E731
    assert (grid_search(score, {"x": RANGE}, grid=GridSpec(points=(41, 9))).value == 5.0).all()
    assert (grid_search(score, {"x": RANGE}, grid=GridSpec(points=(4, 9))).value < 5.0).all()
