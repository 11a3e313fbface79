"""Plans of populations whose F and G are formulas."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear, nnls

from lab.formulas import QuadraticCost
from walras.planning.costs import PiecewiseLinearCost
from walras.planning.revision_loop import StopRule, run_revision_loop
from walras.planning.revision_rules import AbstractRevisionRule, Consensus, MarginalCost, ProximalPoint

RULES = [Consensus(), ProximalPoint(), MarginalCost()]
SHARP = StopRule(max_iterations=300, feasibility=2e-6, complementarity=2e-6, price_gap=2e-6)
by_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)


class LinearPopulation:
    """Use `a - B lambda`; the dual map solves its complementarity problem by nonnegative least squares."""

    resources: tuple[str, ...] = ("inbound_units", "storage")

    def __init__(self, base: np.ndarray, slope: np.ndarray, price_scale: float = 1.0) -> None:
        self.base, self.slope, self.price_scale = base, slope, price_scale
        self.n_weeks = len(base)
        self.resources = self.resources[: base.shape[1]]

    def utilization(self, shadow_prices: np.ndarray) -> np.ndarray:
        flat = shadow_prices.reshape(*shadow_prices.shape[:-2], -1)
        return self.base - (flat @ self.slope.T).reshape(shadow_prices.shape)

    def shadow_prices(self, capacity: np.ndarray) -> np.ndarray:
        root = np.linalg.cholesky(self.slope)
        plans = capacity.reshape(-1, *self.base.shape)
        prices = [nnls(root.T, np.linalg.solve(root, (self.base - plan).ravel()))[0] for plan in plans]
        return np.array(prices).reshape(capacity.shape)


def cross_week(n_weeks: int, n_resources: int, cross: float) -> np.ndarray:
    """Raise the price of a week and its use falls by 1, that of the two weeks beside it rises by `cross`."""
    weeks = np.eye(n_weeks) - cross * (np.eye(n_weeks, k=1) + np.eye(n_weeks, k=-1))
    return np.kron(weeks, np.eye(n_resources))


@by_rule
@pytest.mark.parametrize("shape", [(1, 1), (26, 2)])
@pytest.mark.parametrize(("response", "slope"), [(0.5, 0.1), (1.0, 1.0), (30.0, 0.02), (0.01, 5.0)])
def test_linear_response_meets_rising_marginal_cost(
    rule: AbstractRevisionRule, shape, response: float, slope: float
) -> None:
    """U = a - b lambda and A' = c + d K meet at K* = (a - b c) / (1 + b d)."""
    rng = np.random.default_rng(0)
    a, c = rng.uniform(50, 150, shape), rng.uniform(0.0, 1.0, shape)
    b, d = response * rng.uniform(0.8, 1.2, shape), slope * rng.uniform(0.8, 1.2, shape)
    # The unit of price plays no part in the answer, only in when to stop: take what empties the population.
    view = LinearPopulation(a, np.diag(b.ravel()), price_scale=float(np.median(a / b)))
    record = run_revision_loop(view, QuadraticCost.make(c, d), rule=rule, stop=SHARP)
    expected = (a - b * c) / (1 + b * d)
    assert record.converged and record.feasible
    np.testing.assert_allclose(record.capacity, expected, rtol=1e-4)
    np.testing.assert_allclose(record.shadow_prices, c + d * expected, rtol=1e-4)
    np.testing.assert_allclose(record.utilization, expected, rtol=1e-4)


@by_rule
@pytest.mark.parametrize(
    ("a", "c", "d", "lower", "capacity", "price"),
    [
        (10.0, -2.0, 0.1, 0.0, 20.0, 0.0),  # capacity pays for itself up to 20, more than anybody uses
        (3.0, 0.5, 0.1, 5.0, 5.0, 0.0),  # the least capacity is more than anybody uses
        (4.0, 6.0, 0.1, 0.0, 0.0, 4.0),  # too dear from the first unit: the price only has to stop everybody
    ],
)
def test_slack_and_closed_corners(rule: AbstractRevisionRule, a, c, d, lower, capacity, price) -> None:
    grid = np.ones((3, 1))
    view = LinearPopulation(a * grid, np.eye(3))
    record = run_revision_loop(view, QuadraticCost.make(c * grid, d * grid, lower=lower), rule=rule, stop=SHARP)
    assert record.converged
    np.testing.assert_allclose(record.capacity, capacity, atol=1e-3)
    np.testing.assert_allclose(record.shadow_prices, price, atol=1e-3)


@by_rule
def test_tiers_meet_a_linear_response_on_steps_and_on_edges(rule: AbstractRevisionRule) -> None:
    """With K0 = 100 and rates 0.2, 0.5, 0.9 the price is a rate where a tier is part full, else it clears an edge."""
    a = np.array([80.0, 115.0, 125.0, 145.0, 165.0, 210.0])[:, None]
    cost = PiecewiseLinearCost.tiers(np.full((6, 1), 100.0), rates=(0.2, 0.5, 0.9))
    record = run_revision_loop(LinearPopulation(a, 50 * np.eye(6)), cost, rule=rule, stop=SHARP)
    # Use at the rates is a - 10, a - 25, a - 45; edges are at 100, 115, 130.
    capacity = [70.0, 100.0, 100.0, 115.0, 120.0, 130.0]
    price = [0.2, 0.3, 0.5, 0.6, 0.9, 1.6]
    assert record.converged
    np.testing.assert_allclose(record.capacity[:, 0], capacity, rtol=1e-3)
    np.testing.assert_allclose(record.shadow_prices[:, 0], price, rtol=1e-3)


def cheapest_plan(view: LinearPopulation, cost: QuadraticCost) -> np.ndarray:
    """Solve `min A(K) - V(K)` with V's Hessian the inverse response: a bounded least-squares problem."""
    inverse = np.linalg.inv(view.slope)
    root = np.linalg.cholesky(inverse + np.diag(cost.slope.ravel()))
    pull = inverse @ view.base.ravel() - cost.base.ravel()
    found = lsq_linear(root.T, np.linalg.solve(root, pull), (0, np.inf), tol=1e-14)
    return found.x.reshape(view.base.shape)


@by_rule
def test_cross_week_response_agrees_with_a_quadratic_program(rule: AbstractRevisionRule) -> None:
    rng = np.random.default_rng(1)
    shape = (26, 2)
    view = LinearPopulation(rng.uniform(8, 12, shape), cross_week(26, 2, 0.4))
    cost = QuadraticCost.make(rng.uniform(0.1, 0.5, shape), rng.uniform(0.1, 0.3, shape))
    expected = cheapest_plan(view, cost)
    record = run_revision_loop(view, cost, rule=rule, stop=SHARP)
    assert record.converged
    assert (record.shadow_prices > 0).all()  # so the reference, which knows no slack weeks, applies
    np.testing.assert_allclose(record.capacity, expected, rtol=1e-4)


@by_rule
def test_cross_week_response_against_fixed_capacity_is_a_complementarity_problem(rule: AbstractRevisionRule) -> None:
    """Frozen everywhere, only prices move: they must be those of the dual map, slack weeks at 0."""
    weeks = np.arange(20)
    base = 100 * (1 + 0.5 * np.sin(weeks / 3))[:, None]
    view = LinearPopulation(base, 60 * cross_week(20, 1, 0.4))
    fixed = np.full((20, 1), 95.0)
    cost = PiecewiseLinearCost.tiers(fixed, rates=(0.0,), tops=(1.0,)).frozen(fixed)
    record = run_revision_loop(view, cost, rule=rule, stop=SHARP)
    expected = view.shadow_prices(fixed)
    assert record.converged and (expected == 0).any() and (expected > 0).any()
    np.testing.assert_allclose(record.shadow_prices, expected, atol=1e-4)


class Newsvendors:
    """Use `sum_i d_i 1[margin_i > lambda]` times the season: a staircase of 2,000 steps."""

    resources = ("inbound_units",)
    price_scale = 1.0

    def __init__(self, season: np.ndarray) -> None:
        rng = np.random.default_rng(4)
        margins = np.sort(rng.gamma(3.0, 1.0, 2000))
        self.margins = margins / np.median(margins)
        self.below = np.concatenate([[0.0], np.cumsum(rng.uniform(0.5, 1.5, 2000))])
        self.season, self.n_weeks = season, len(season)

    def utilization(self, shadow_prices: np.ndarray) -> np.ndarray:
        stopped = self.below[np.searchsorted(self.margins, shadow_prices, side="right")]
        return (self.below[-1] - stopped) * self.season

    def shadow_prices(self, capacity: np.ndarray) -> np.ndarray:
        surplus = self.below[-1] - capacity / self.season
        index = np.searchsorted(self.below, np.maximum(surplus, 0.0) - 1e-9)
        return np.where(index > 0, self.margins[np.maximum(index - 1, 0)], 0.0)


@by_rule
def test_staircase_of_newsvendors_clears_at_the_marginal_product(rule: AbstractRevisionRule) -> None:
    season = (1 + 0.4 * np.sin(np.arange(26) / 4))[:, None]
    view = Newsvendors(season)
    regular = np.full((26, 1), 0.9 * view.below[-1])
    cost = PiecewiseLinearCost.tiers(regular, rates=(0.1, 0.4, 0.8))
    record = run_revision_loop(
        view, cost, rule=rule, stop=StopRule(feasibility=5e-3, complementarity=5e-3, price_gap=5e-3)
    )
    # The marginal product's margin: the lowest price at which use is within what capacity that price buys.
    ladder = np.concatenate([[0.0], view.margins])
    for week in range(26):
        use = view.utilization(np.tile(ladder[:, None, None], (1, 26, 1)))[:, week, 0]
        bought = np.select([ladder < 0.1, ladder < 0.4, ladder < 0.8], [0.0, 1.0, 1.15], 1.3) * regular[week, 0]
        clearing = ladder[np.argmax(use <= bought)]
        assert record.shadow_prices[week, 0] == pytest.approx(clearing, abs=0.03)
    assert record.feasible
