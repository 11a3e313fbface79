"""Hold price accuracy to small examples."""

import numpy as np
import pytest

from lab.price_accuracy import price_values
from walras.errors import ShapeError

REFERENCE = np.array([0.0, 1.0, 2.0, 3.0]).reshape(1, 4, 1)


def test_a_line_is_found():
    found = price_values(2.0 * REFERENCE + 1.0, REFERENCE, [2.0])
    assert found["price_slope"][0] == pytest.approx(2.0) and found["price_correlation"][0] == pytest.approx(1.0)
    assert found["mean_price"][0] == pytest.approx(2.0) and found["mean_price_over_reference"][0] == pytest.approx(
        8 / 3
    )


def test_weeks_without_a_meaning_do_not_count():
    counted = np.array([True, True, True, False]).reshape(1, 4, 1)
    wild = np.where(counted, REFERENCE, 100.0)
    found = price_values(REFERENCE, wild, [1.0], counted=counted)
    assert found["price_slope"][0] == pytest.approx(1.0) and found["mean_price"][0] == pytest.approx(1.5)
    assert price_values(REFERENCE, wild, [1.0])["price_slope"][0] < 0.1


def test_a_reference_that_charges_nothing_says_nothing():
    found = price_values(REFERENCE, 0 * REFERENCE, [1.0])
    assert found["price_slope"] == {} and found["mean_price"] == {0: 1.5}


def test_the_burn_in_is_left_out():
    assert price_values(REFERENCE, REFERENCE, [1.0], 2)["mean_price"][0] == pytest.approx(2.5)


def test_other_weeks_are_refused():
    with pytest.raises(ShapeError):
        price_values(REFERENCE, REFERENCE[:, :3], [1.0])
