"""Level bundle on markets with known prices: buyers with a value each."""

import numpy as np
import pytest

from lab.bundle import LevelBundle, MixedSolution, ValuedProblem
from walras.errors import InputError, SettingsError

VALUES = np.array([[10.0, 8.0, 6.0, 3.0], [9.0, 5.0, 4.0, 1.0], [7.0, 2.0, 2.0, 2.0], [5.0, 4.0, 3.0, 2.0]])
CAPACITY = np.array([2.5, 0.5, 9.0, np.inf])


def market(prices: np.ndarray) -> tuple[float, np.ndarray]:
    """Let everybody buy one unit where it is worth more than its price."""
    bought = prices[:, None] < VALUES
    return float((VALUES * bought).sum()), bought.sum(1).astype(float)


def solve(capacity: np.ndarray = CAPACITY, max_price: float = 12.0, start: float = 0.0) -> MixedSolution:
    problem = ValuedProblem(market, capacity, max_price)
    return LevelBundle(tolerance=1e-9).solve(problem, np.full(len(capacity), start))


@pytest.mark.parametrize("start", [0.0, 3.0, 50.0])
def test_prices_are_those_of_the_last_buyer(start: float) -> None:
    """10 + 8 + 6 / 2, 9 / 2, all of 13 and all of 14 are bought; the mix takes half a unit where the price is met."""
    found = solve(start=start)
    assert found.converged and found.violation <= 1e-9
    np.testing.assert_allclose(found.prices, [6.0, 9.0, 0.0, 0.0], atol=1e-6)
    assert found.dual_value == pytest.approx(21.0 + 4.5 + 13.0 + 14.0)
    assert found.primal_value == pytest.approx(found.dual_value)
    np.testing.assert_allclose(found.utilization, [2.5, 0.5, 4.0, 4.0], atol=1e-6)


def test_buyers_who_can_choose_their_week_make_prices_equal() -> None:
    """Five units over two weeks for buyers worth 9, 8, .. 1 who wait for free: the sixth value, 4, clears both."""
    values = np.arange(9.0, 0.0, -1.0)

    def patient(prices: np.ndarray) -> tuple[float, np.ndarray]:
        cheaper = int(prices[1] < prices[0])
        bought = values > prices[cheaper]
        return float(values[bought].sum()), bought.sum() * np.eye(2)[cheaper]

    found = LevelBundle(tolerance=1e-9).solve(ValuedProblem(patient, np.array([2.0, 3.5]), 10.0), np.zeros(2))
    np.testing.assert_allclose(found.prices, [4.0, 4.0], atol=1e-6)
    np.testing.assert_allclose(found.utilization, [2.0, 3.5], atol=1e-6)
    assert found.primal_value == pytest.approx(9 + 8 + 7 + 6 + 5 + 4 / 2)


def test_what_no_price_below_the_ceiling_clears_is_reported() -> None:
    """At most 7, buyers worth 10 and 8 still buy: two units where half a unit is for sale."""
    found = solve(np.array([0.5, 0.5, 9.0, 9.0]), max_price=7.0)
    np.testing.assert_allclose(found.prices[:2], [7.0, 7.0])
    assert found.violation == pytest.approx(3.0)


def test_the_last_query_ends_the_search() -> None:
    found = LevelBundle(max_queries=2).solve(ValuedProblem(market, CAPACITY, 12.0), np.zeros(4))
    assert not found.converged and found.queries == 2 and len(found.trace) == 2
    assert found.dual_value >= 52.5 - 1e-9


@pytest.mark.parametrize("slope", [1.0, -0.2])
def test_agents_that_do_not_maximise_are_refused(slope: float) -> None:
    """Whoever earns the same whatever it uses would use nothing at a price: neither more nor a little less."""
    stubborn = ValuedProblem(lambda prices: (10.0, 1.0 + slope * prices), np.array([0.5]), 4.0)
    with pytest.raises(InputError, match="maximise"):
        LevelBundle().solve(stubborn, np.zeros(1))


@pytest.mark.parametrize("setting", [{"tolerance": 0.0}, {"level": 1.0}, {"max_queries": 0}])
def test_settings_that_never_end_are_refused(setting: dict) -> None:
    with pytest.raises(SettingsError, match="cannot work"):
        LevelBundle(**setting)
