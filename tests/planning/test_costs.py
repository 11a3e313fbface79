"""What capacity costs: the bill, its derivatives, and one-sentence refusals."""

import numpy as np
import pytest

from lab.formulas import QuadraticCost
from walras.errors import InputError
from walras.planning.costs import PiecewiseLinearCost


def tiers(**more) -> PiecewiseLinearCost:
    regular = np.array([[100.0], [100.0], [200.0]])
    return PiecewiseLinearCost.tiers(regular, rates=(1.0, 1.5, 3.0), **more)


def test_total_adds_tiers_and_ramps() -> None:
    capacity = np.array([[110.0], [90.0], [260.0]])
    bill = (100 + 10 * 1.5) + 90 + (200 + 30 * 1.5 + 30 * 3)
    assert tiers().total(capacity) == pytest.approx(bill)
    ramped = tiers(ramp_up=0.5, ramp_down=0.25, previous=np.array([100.0]))
    assert ramped.total(capacity) == pytest.approx(bill + 0.5 * 10 + 0.25 * 20 + 0.5 * 170)
    assert tiers(ramp_up=0.5).total(capacity) == pytest.approx(bill + 0.5 * 170)  # the change into week 0 is free


def test_bounds_are_the_last_tier_and_the_floor() -> None:
    cost = tiers(lower=50.0)
    np.testing.assert_allclose(cost.upper[:, 0], [130, 130, 260])
    np.testing.assert_allclose(cost.lower, 50.0)
    np.testing.assert_allclose(cost.top_rate(), 3.0)
    assert tiers(ramp_up=0.5, ramp_down=0.25).top_rate()[0, 0] == pytest.approx(3.75)


def test_frozen_weeks_cannot_move() -> None:
    cost = tiers().frozen(np.array([[120.0], [80.0]]))
    capacity = cost.prox(np.full((3, 1), 50.0), np.ones((3, 1)))
    np.testing.assert_allclose(capacity[:, 0], [120.0, 80.0, 49.0])


def test_quadratic_cost_and_its_minimiser() -> None:
    cost = QuadraticCost.make(np.array([[1.0]]), np.array([[0.5]]), upper=10.0)
    assert cost.total(np.array([[4.0]])) == pytest.approx(4 + 0.25 * 16)
    assert cost.top_rate()[0, 0] == 6.0
    assert cost.prox(np.array([[5.0]]), np.array([[1.0]]))[0, 0] == pytest.approx(4 / 1.5)
    assert cost.cover(np.array([[5.0]]), np.array([[1.0]]))[0, 0] == pytest.approx(4 / 1.5)


def test_room_that_costs_nothing_is_granted_and_saves_ramps() -> None:
    free = PiecewiseLinearCost.tiers(np.full((2, 1), 100.0), rates=(0.0, 1.0), tops=(1.0, 1.3))
    np.testing.assert_allclose(free.cover(np.full((2, 1), 40.0), np.ones((2, 1))), 100.0)
    costly = PiecewiseLinearCost.tiers(np.full((2, 1), 100.0), rates=(0.1,), tops=(1.0,), ramp_down=1.0)
    # Falling from 60 to 20 costs 1 a unit, holding 60 costs 0.1: hold, although only 20 are used.
    held = costly.cover(np.array([[60.0], [20.0]]), np.full((2, 1), 1e4))
    np.testing.assert_allclose(held, 60.0, atol=0.01)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tiers(ramp_up=-1.0), "`ramp_up` is -1 in week 0, resource 0; a change cannot earn money"),
        (lambda: tiers(lower=150.0), "`lower` is 150 in week 0, resource 0|`upper` is 130"),
        (lambda: tiers(lower=np.zeros((2, 1))), "`lower` has shape"),
        (lambda: tiers(previous=np.zeros(2)), "`previous` has shape"),
        (lambda: tiers(ramp_down=np.nan), "`ramp_down` is nan in week 0, resource 0"),
        (lambda: tiers().frozen(np.array([[500.0]])), "`frozen` is 500 in week 0"),
        (lambda: tiers().frozen(np.zeros((4, 1))), "`frozen` has shape"),
        (lambda: PiecewiseLinearCost.tiers(np.ones((2, 1)), rates=(2.0, 1.0), tops=(1.0, 1.2)), "must not be cheaper"),
        (lambda: PiecewiseLinearCost.tiers(np.ones((2, 1)), rates=(1.0, 2.0), tops=(1.2, 1.0)), "edges must not fall"),
        (lambda: PiecewiseLinearCost.tiers(np.ones((2, 1)), rates=(1.0,)), "give one rate per tier"),
        (lambda: PiecewiseLinearCost.tiers(-np.ones((2, 1)), rates=(1.0,), tops=(1.0,)), "cannot be negative"),
    ],
)
def test_refusals_are_one_sentence(make, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
