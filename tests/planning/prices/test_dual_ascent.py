"""Ask whether both dual solvers find the prices that linear algebra, or a population, says are right."""

import numpy as np
import pytest

from walras.planning.prices.dual_ascent import DualProblem, GaussNewton, ProjectedDual, newton_target

WEEKS = 6
BASE = np.array([90.0, 120.0, 140.0, 80.0, 130.0, 100.0])
SLOPE = -(np.diag(np.full(WEEKS, 20.0)) - np.diag(np.full(WEEKS - 1, 4.0), 1) - np.diag(np.full(WEEKS - 1, 4.0), -1))
SOLVERS = [GaussNewton(tolerance=1e-5), ProjectedDual(tolerance=1e-5)]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)


def linear(capacity: np.ndarray, max_price: float = 50.0) -> DualProblem:
    return DualProblem(
        response=lambda prices: BASE + prices @ SLOPE.T,
        jacobian=lambda prices: SLOPE,
        capacity=capacity,
        price_scale=1.0,
        max_price=max_price,
    )


def by_enumeration(capacity: np.ndarray) -> np.ndarray:
    """Try every set of weeks with a price; the right one leaves no shortage and no negative price."""
    for number in range(2**WEEKS):
        priced = np.array([number >> week & 1 for week in range(WEEKS)], bool)
        prices = np.zeros(WEEKS)
        prices[priced] = np.linalg.solve(SLOPE[np.ix_(priced, priced)], (capacity - BASE)[priced])
        if (prices >= 0).all() and (BASE + SLOPE @ prices <= capacity + 1e-9).all():
            return prices
    raise AssertionError("no prices clear this")


@every_solver
def test_a_linear_population_is_cleared_exactly(solver):
    capacity = np.array([np.full(WEEKS, 100.0), [100, 100, 110, 100, 90, 100.0], np.full(WEEKS, 200.0)])
    found = solver.solve(linear(capacity), np.zeros(capacity.shape))
    expected = np.stack([by_enumeration(row) for row in capacity])
    np.testing.assert_allclose(found.prices, expected, atol=2e-3)
    assert found.converged and (found.residual <= 1e-5).all()
    assert (expected[0] > 0).sum() > 1 and (expected[2] == 0).all()
    np.testing.assert_allclose(found.utilization, BASE + found.prices @ SLOPE.T, rtol=1e-6)


@every_solver
def test_a_good_start_needs_one_question(solver):
    capacity = np.full((1, WEEKS), 100.0)
    found = solver.solve(linear(capacity), by_enumeration(capacity[0])[None])
    assert found.converged and found.queries == 1


@every_solver
def test_a_price_that_may_not_rise_further_is_left_at_the_top(solver):
    capacity = np.full((1, WEEKS), 100.0)
    found = solver.solve(linear(capacity, max_price=0.5), np.zeros((1, WEEKS)))
    assert found.prices.max() == 0.5 and (found.prices <= 0.5).all()
    assert found.utilization[0, 2] > 100


@every_solver
def test_weeks_without_a_limit_have_no_price(solver):
    capacity = np.full((1, WEEKS), 100.0)
    capacity[0, 2] = np.inf
    found = solver.solve(linear(capacity), np.zeros((1, WEEKS)))
    assert found.prices[0, 2] == pytest.approx(0.0, abs=1e-4) and found.converged


def test_the_residual_says_what_is_wrong():
    problem = linear(np.full((1, WEEKS), 100.0), max_price=2.0)
    use = np.array([[100.0, 150.0, 50.0, 50.0, 150.0, 100.0]])
    prices = np.array([[0.3, 0.0, 0.0, 0.2, 2.0, 0.0]])
    # cleared; short by half; idle without price; idle in spite of a price; short at the highest price; cleared
    np.testing.assert_allclose(problem.residual(prices, use), [[0, -0.5, 0, 0.2, 0, 0]])
    np.testing.assert_allclose(problem.score(prices, use), [0.7 / 6])


def test_the_linearised_problem_keeps_to_its_limits():
    room = (np.full(WEEKS, 100.0) - BASE)[None]
    target = newton_target(SLOPE, np.zeros((1, WEEKS)), room, np.zeros(1), 50.0)
    np.testing.assert_allclose(target[0], by_enumeration(np.full(WEEKS, 100.0)), atol=1e-3)
    low = newton_target(SLOPE, np.zeros((1, WEEKS)), room, np.zeros(1), 0.4)
    assert low.max() == pytest.approx(0.4) and low.min() >= 0
