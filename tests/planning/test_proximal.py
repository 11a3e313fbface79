"""The exact minimiser against a general quadratic program."""

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, linprog, minimize

from walras.planning.costs import PiecewiseLinearCost, QuadraticTerms

WEEKS = 5


def random_cost(rng: np.random.Generator, *, ramps: bool) -> PiecewiseLinearCost:
    shape = (WEEKS, 1)
    edges = np.cumsum(rng.integers(0, 4, (*shape, 4)), axis=-1).astype(float)
    rates = np.sort(rng.integers(-2, 5, (*shape, 3)), axis=-1).astype(float)
    lower, upper = edges[..., 0].copy(), edges[..., -1].copy()
    frozen = rng.random(shape) < 0.2
    lower[frozen] = upper[frozen] = (0.5 * (lower + upper))[frozen]
    up, down = (rng.integers(0, 3, shape).astype(float) * ramps for _ in range(2))
    previous = rng.integers(0, 6, 1).astype(float) if rng.random() < 0.5 else None
    return PiecewiseLinearCost(edges, rates, lower, upper, up, down, previous)


def random_terms(rng: np.random.Generator, *, weight: float, floor_weight: float) -> QuadraticTerms:
    spots = rng.uniform(-1, 9, (2, WEEKS, 1))
    weights = rng.uniform(0.5, 2, (2, WEEKS, 1)) * np.array([weight, floor_weight])[:, None, None]
    return QuadraticTerms(spots[0], weights[0], spots[1], weights[1])


def objective(cost: PiecewiseLinearCost, terms: QuadraticTerms, capacity: np.ndarray) -> float:
    short = np.maximum(terms.floor - capacity, 0.0)
    return cost.total(capacity) + 0.5 * float(
        np.sum(terms.weight * (capacity - terms.target) ** 2) + np.sum(terms.floor_weight * short**2)
    )


def epigraph(cost: PiecewiseLinearCost) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[float, float]]]:
    """Write the cost as `c x` with `A x <= b`, x = (capacity, tier bill, ramp bill)."""
    rows, limits = [], []
    for week in range(WEEKS):
        edges, rates = cost.edges[week, 0], cost.rates[week, 0]
        bill = rates[0] * edges[0]
        for segment, rate in enumerate(rates):
            row = np.zeros(3 * WEEKS)
            row[week], row[WEEKS + week] = rate, -1
            rows.append(row)
            limits.append(rate * edges[segment] - bill)
            bill += rate * (edges[segment + 1] - edges[segment])
        for rate, sign in ((cost.ramp_up[week, 0], 1.0), (cost.ramp_down[week, 0], -1.0)):
            row, before = np.zeros(3 * WEEKS), 0.0
            row[week], row[2 * WEEKS + week] = sign * rate, -1
            if week:
                row[week - 1] = -sign * rate
            elif cost.previous is not None:
                before = sign * rate * cost.previous[0]
            else:
                row[week] = 0.0
            rows.append(row)
            limits.append(before)
    price = np.concatenate([np.zeros(WEEKS), np.ones(2 * WEEKS)])
    bounds = [*zip(cost.lower[:, 0], cost.upper[:, 0], strict=True), *[(None, None)] * (2 * WEEKS)]
    return price, np.array(rows), np.array(limits), bounds


def reference_minimum(cost: PiecewiseLinearCost, terms: QuadraticTerms, start: np.ndarray) -> float:
    price, rows, limits, bounds = epigraph(cost)

    def value(x: np.ndarray) -> float:
        gap, short = x[:WEEKS] - terms.target[:, 0], np.maximum(terms.floor[:, 0] - x[:WEEKS], 0.0)
        return float(price @ x + 0.5 * terms.weight[:, 0] @ gap**2 + 0.5 * terms.floor_weight[:, 0] @ short**2)

    def gradient(x: np.ndarray) -> np.ndarray:
        slope = price.copy()
        slope[:WEEKS] += terms.weight[:, 0] * (x[:WEEKS] - terms.target[:, 0])
        slope[:WEEKS] -= terms.floor_weight[:, 0] * np.maximum(terms.floor[:, 0] - x[:WEEKS], 0.0)
        return slope

    first = np.concatenate([start, np.full(2 * WEEKS, 100.0)])
    found = minimize(
        value,
        first,
        jac=gradient,
        bounds=bounds,
        constraints=[LinearConstraint(rows, -np.inf, limits)],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 200},
    )
    return float(found.fun) if found.success else np.inf


@pytest.mark.parametrize("ramps", [True, False])
@pytest.mark.parametrize(("weight", "floor_weight"), [(1.0, 0.0), (0.0, 1.0), (0.3, 1.0)])
def test_minimum_beats_a_general_solver_and_every_small_move(ramps: bool, weight: float, floor_weight: float) -> None:
    rng = np.random.default_rng(7)
    compared = 0
    for _ in range(6):
        cost, terms = random_cost(rng, ramps=ramps), random_terms(rng, weight=weight, floor_weight=floor_weight)
        capacity = cost.minimise(terms)
        assert (capacity >= cost.lower).all() and (capacity <= cost.upper).all()
        best = objective(cost, terms, capacity)
        reference = reference_minimum(cost, terms, 0.5 * (cost.lower + cost.upper)[:, 0])
        compared += np.isfinite(reference)
        assert best <= reference + 1e-6 * (1 + abs(best))
        moves = rng.normal(0, 1e-3, (40, WEEKS, 1)) * (rng.random((40, WEEKS, 1)) < 0.5)
        for move in moves:
            assert best <= objective(cost, terms, np.clip(capacity + move, cost.lower, cost.upper)) + 1e-9
    assert compared >= 4


def test_without_terms_the_minimum_is_the_linear_program_and_ties_take_the_most() -> None:
    rng = np.random.default_rng(3)
    zero = np.zeros((WEEKS, 1))
    none = QuadraticTerms(zero, zero, zero, zero)
    for _ in range(40):
        cost = random_cost(rng, ramps=True)
        capacity = cost.minimise(none)
        price, rows, limits, bounds = epigraph(cost)
        program = linprog(price, A_ub=rows, b_ub=limits, bounds=bounds)
        assert cost.total(capacity) == pytest.approx(program.fun, abs=1e-8)
        largest = linprog(
            np.r_[-np.ones(WEEKS), np.zeros(2 * WEEKS)],
            A_ub=np.vstack([rows, price]),
            b_ub=np.r_[limits, program.fun + 1e-9],
            bounds=bounds,
        )
        assert capacity.sum() == pytest.approx(-largest.fun, abs=1e-6)


def test_zero_ramps_in_the_long_way_agree_with_separate_weeks() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        cost, terms = random_cost(rng, ramps=False), random_terms(rng, weight=0.5, floor_weight=1.0)
        separate = cost.minimise(terms)
        tiny = PiecewiseLinearCost(
            cost.edges, cost.rates, cost.lower, cost.upper, np.full((WEEKS, 1), 1e-13), np.zeros((WEEKS, 1))
        )
        np.testing.assert_allclose(tiny.minimise(terms), separate, atol=1e-9)


def test_frozen_weeks_hold_and_pull_their_neighbours_through_the_ramp() -> None:
    regular = np.full((4, 1), 10.0)
    cost = PiecewiseLinearCost.tiers(regular, rates=(1.0, 2.0, 3.0), ramp_up=5.0, ramp_down=5.0)
    cost = cost.frozen(np.array([[12.0]]))
    capacity = cost.prox(np.full((4, 1), 2.0), np.full((4, 1), 0.1))
    # One unit less everywhere after week 0 saves 1 (regular rate) + 0.1 x 8 in each of 3 weeks: 5.4 at K = 10, more
    # than the ramp's 5; it stops where 3 (1 + 0.1 (K - 2)) = 5.
    np.testing.assert_allclose(capacity[:, 0], [12.0, 26 / 3, 26 / 3, 26 / 3], rtol=1e-12)


def test_many_weeks_take_little_time_per_week() -> None:
    """Knots are removed as they are passed: a long horizon must not cost its square."""
    rng = np.random.default_rng(0)
    weeks = 400
    cost = PiecewiseLinearCost.tiers(np.full((weeks, 1), 100.0), rates=(0.0, 1.0, 2.0), ramp_up=0.3, ramp_down=0.2)
    target = 100 + 20 * rng.standard_normal((weeks, 1))
    capacity = cost.prox(target, np.full((weeks, 1), 0.05))
    best = cost.total(capacity) + 0.025 * np.sum((capacity - target) ** 2)
    for move in rng.normal(0, 0.05, (50, weeks, 1)):
        other = np.clip(capacity + move, cost.lower, cost.upper)
        assert best <= cost.total(other) + 0.025 * np.sum((other - target) ** 2)
