"""A revision keeps what was planned unless a change is worth what it costs."""

import numpy as np
import pytest

from walras.cli.price_tables import read_last_plan
from walras.errors import InputError
from walras.planning.costs import ChangePenalty, PiecewiseLinearCost, PreviousPlan, QuadraticTerms

RATES, RATE = (1.0, 2.0, 5.0), 0.5


@pytest.fixture
def plain() -> PiecewiseLinearCost:
    return PiecewiseLinearCost.tiers(np.full((4, 1), 100.0), rates=RATES, lower=80.0 * np.ones((4, 1)))


@pytest.fixture
def last() -> PreviousPlan:
    """Planned three of the four weeks: on a kink of the tiers, between two, and within the first tier."""
    grid = np.array([[115.0], [105.0], [90.0], [np.nan]])
    return PreviousPlan(grid, np.where(np.isnan(grid), np.nan, 100.0), np.where(np.isnan(grid), np.nan, 2.0))


def revised(plain: PiecewiseLinearCost, last: PreviousPlan, rate: float = RATE) -> ChangePenalty:
    return ChangePenalty.around(plain, last, np.full((4, 1), rate))


def test_a_change_costs_its_rate_both_ways(plain, last):
    cost = revised(plain, last)
    stays = np.array([[115.0], [105.0], [90.0], [100.0]])
    assert cost.total(stays) == pytest.approx(plain.total(stays)) == pytest.approx(cost.bill(stays))
    for week, change in ((0, 4.0), (1, -6.0), (2, 3.0)):
        other = stays.copy()
        other[week] += change
        assert cost.total(other) == pytest.approx(plain.total(other) + RATE * abs(change))
        assert cost.bill(other) == pytest.approx(plain.total(other))
    free = stays.copy()
    free[3] += 7.0
    assert cost.total(free) == pytest.approx(plain.total(free))


@pytest.mark.parametrize("rate", [0.0, 0.3, 2.0])
def test_the_minimum_is_the_best_of_a_fine_grid(plain, last, rate):
    cost = revised(plain, last, rate)
    random = np.random.default_rng(int(10 * rate))
    grid = np.linspace(80.0, 130.0, 5001)
    for _ in range(20):
        target, weight = random.uniform(70, 140, (4, 1)), random.uniform(0.01, 0.5, (4, 1))
        found = cost.minimise(QuadraticTerms(target, weight, np.zeros((4, 1)), np.zeros((4, 1))))
        for week in range(4):
            levels = np.tile(found, (len(grid), 1, 1))
            levels[:, week, 0] = grid
            values = [cost.total(each) + 0.5 * float((weight * (each - target) ** 2).sum()) for each in levels[::25]]
            mine = cost.total(found) + 0.5 * float((weight * (found - target) ** 2).sum())
            assert mine <= min(values) + 1e-9


def test_a_dear_change_is_not_made_and_a_cheap_one_is(plain, last):
    terms = QuadraticTerms(np.full((4, 1), 110.0), np.full((4, 1), 0.2), np.zeros((4, 1)), np.zeros((4, 1)))
    kept = revised(plain, last, 10.0).minimise(terms)
    np.testing.assert_allclose(kept[:3], last.capacity[:3])
    np.testing.assert_allclose(revised(plain, last, 0.0).minimise(terms), plain.minimise(terms))
    assert not np.allclose(plain.minimise(terms)[:3], last.capacity[:3])


def test_what_was_granted_and_charged_goes_on(last):
    np.testing.assert_array_equal(last.regular(np.full((4, 1), 7.0)), np.full((4, 1), 100.0))
    np.testing.assert_array_equal(last.prices(np.zeros((4, 1))), np.full((4, 1), 2.0))
    nothing = PreviousPlan(*(np.full((4, 1), np.nan) for _ in range(3)))
    np.testing.assert_array_equal(nothing.regular(np.full((4, 1), 7.0)), np.full((4, 1), 7.0))


def test_movement_counts_the_weeks_of_both(last):
    plan = np.array([[115.0], [105.0], [99.0], [500.0]])
    assert last.moved(plan) == pytest.approx(9.0 / 310.0)


def test_tiers_are_told_as_they_were(plain, last):
    cost = revised(plain, last)
    np.testing.assert_array_equal(cost.regular, plain.regular)
    np.testing.assert_array_equal(cost.middle, plain.middle)
    assert plain.first_prices is None and (cost.first_prices == 2.0).all()


HEAD = "week,resource,capacity,regular_capacity,shadow_price\n"


def test_an_earlier_plan_is_read_for_the_weeks_of_both(tmp_path):
    weeks = np.datetime64("2024-08-05") + 7 * np.arange(3)
    rows = "2024-07-29,storage,9,9,9\n2024-08-05,storage,5,4,0.5\n2024-08-12,other,1,1,1\n"
    (tmp_path / "plan.csv").write_text(HEAD + rows)
    found = read_last_plan(tmp_path, weeks, ("storage",))
    np.testing.assert_array_equal(found.capacity, [[5], [np.nan], [np.nan]])
    np.testing.assert_array_equal(found.regular_capacity, [[4], [np.nan], [np.nan]])
    np.testing.assert_array_equal(found.shadow_prices, [[0.5], [np.nan], [np.nan]])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (HEAD + "2023-01-02,storage,1,1,1\n", "plans no week of 2024-08-05 to 2024-08-19"),
        (HEAD, "plans no week of"),
        ("week,resource,capacity\n2024-08-05,storage,1\n", "lacks the column `regular_capacity`"),
        (HEAD + "2024-08-05,storage,-1,1,1\n", "`capacity` of plan.csv in data row 1 is -1.0"),
        (HEAD + "2024-08-05,storage,1,,1\n", "`regular_capacity` of plan.csv in data row 1 is None"),
        (HEAD + "2024-08-05,storage,1,1,1\n2024-08-05,storage,1,1,1\n", "twice, again in data row 2"),
    ],
)
def test_what_is_no_earlier_plan_is_refused(tmp_path, text, sentence):
    (tmp_path / "plan.csv").write_text(text)
    weeks = np.datetime64("2024-08-05") + 7 * np.arange(3)
    with pytest.raises(InputError, match=sentence) as caught:
        read_last_plan(tmp_path / "plan.csv", weeks, ("storage",))
    assert "\n" not in str(caught.value)
