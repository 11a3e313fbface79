"""Populations whose utilization and shadow prices are formulas, through the planner's view."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float
from scipy.stats import norm
from textbook import lead_times, stores

from walras.exogenous.paths import constant_paths
from walras.planning.prices.dual_ascent import GaussNewton
from walras.planning.prices.simulated_view import SimulatedView
from walras.policies.base import Observation, Policy
from walras.policies.base_stock import NormalDemand, PricedNewsvendor
from walras.simulation.week import empty_state

SHARP = GaussNewton(tolerance=1e-6, max_iterations=60)
WEEKS = 8


class LinearBuyer(Policy):
    """Order `base - slope x price of the week in which the order arrives`, as long as that is positive."""

    base: Float[Array, " agent"]
    slope: Float[Array, " agent"]

    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return the linear answer to the price at arrival."""
        due = jnp.minimum(observation.population.lead_time, shadow_prices.shape[0] - 1)
        return jnp.maximum(self.base - self.slope * shadow_prices[due, 0], 0.0)


def linear_view(lead: int, solver: GaussNewton = SHARP) -> tuple[SimulatedView, float, float]:
    """Return the view of 40 linear buyers with the sums of their bases and slopes; no price here stops one of them."""
    rng = np.random.default_rng(lead)
    base, slope = rng.uniform(50, 150, 40).astype(np.float32), rng.uniform(1, 3, 40).astype(np.float32)
    demand = np.full((2, WEEKS, 40), 20.0, np.float32)
    people = stores(40, lead=lead, margin=15.0)
    policy = LinearBuyer(jnp.asarray(base), jnp.asarray(slope))
    exogenous = constant_paths(demand, lead_times(demand, lead), sale_price=20.0, unit_cost=5.0)
    view = SimulatedView(people, exogenous, policy, empty_state(40, 3, 7.0), solver=solver)
    return view, float(base.sum()), float(slope.sum())


@pytest.mark.parametrize("lead", [0, 1, 3])
def test_linear_population_uses_what_the_line_says(lead: int) -> None:
    view, a, b = linear_view(lead)
    prices = np.random.default_rng(1).uniform(0, 10, (3, WEEKS, 1))
    expected = a - b * prices
    expected[:, :lead] = 0.0
    np.testing.assert_allclose(view.utilization(prices), expected, rtol=2e-6, atol=1e-3)


@pytest.mark.parametrize("lead", [0, 1, 3])
def test_linear_population_is_priced_at_the_inverse_of_the_line(lead: int) -> None:
    """G(K) = (A - K)^+ / B; weeks that no order can reach any more, and slack weeks, carry no price."""
    view, a, b = linear_view(lead)
    capacity = a * np.random.default_rng(2).uniform(0.85, 1.1, (2, WEEKS, 1))
    expected = np.maximum(a - capacity, 0.0) / b
    expected[:, :lead] = 0.0
    assert (expected > 0).any() and (expected[:, lead:] == 0).any()
    np.testing.assert_allclose(view.shadow_prices(capacity), expected, atol=2e-4)


def test_linear_population_earns_what_its_purchases_leave() -> None:
    """Everybody sells all 20 units a week; what is bought and not sold keeps its cost, except for holding."""
    view, _, _ = linear_view(0)
    prices = np.zeros((WEEKS, 1))
    base = np.asarray(view.policy.base, float)
    stock = 7.0 + np.outer(np.arange(1, WEEKS + 1), base - 20.0)
    money = WEEKS * 40 * 20.0 * 20.0 - 5.0 * WEEKS * base.sum() - stock.sum() + 5.0 * stock[-1].sum()
    assert view.value(prices) == pytest.approx(money, rel=1e-5)


def test_linear_jacobian_is_the_slope() -> None:
    view, _, b = linear_view(1)
    expected = -b * np.diag(np.arange(WEEKS) >= 1)
    np.testing.assert_allclose(view.jacobian(np.full((WEEKS, 1), 3.0)), expected, rtol=1e-5)


MARGIN, HOLDING = 4.0, 1.0
COUNT, LAW_MEAN, LAW_SD = 30, 50.0, 8.0


def sold_out_view(lead: int = 0, discount: float = 1.0) -> SimulatedView:
    """Return the view of newsvendors who sell out every week, so that what they order is their level."""
    demand = np.full((1, WEEKS, COUNT), 500.0, np.float32)
    money = {"sale_price": 6.0, "unit_cost": 2.0}
    exogenous = constant_paths(
        demand, lead_times(demand, lead), **money, lead_demand_mean=LAW_MEAN, lead_demand_sd=LAW_SD
    )
    people = stores(COUNT, holding=HOLDING, penalty=0.0, lead=lead, margin=MARGIN)
    policy = PricedNewsvendor(NormalDemand(), discount=discount)
    return SimulatedView(people, exogenous, policy, empty_state(COUNT, 1), solver=SHARP)


def newsvendor_use(prices: np.ndarray, discount: float) -> np.ndarray:
    """F: n (mean + sd z(kappa)), kappa = (M - lambda) / (M + h + (1 - g) c - g lambda of the week after)."""
    after = np.append(prices[1:], prices[-1])
    ratio = (MARGIN - prices) / (MARGIN + HOLDING + (1 - discount) * 2.0 - discount * after)
    return COUNT * (LAW_MEAN + LAW_SD * norm.ppf(ratio))


def newsvendor_prices(capacity: np.ndarray) -> np.ndarray:
    """G: from the last week backwards, lambda = (M - kappa (M + h - lambda of the week after))^+, kappa from K."""
    ratio = norm.cdf((capacity / COUNT - LAW_MEAN) / LAW_SD)
    prices = np.zeros(len(capacity))
    last = ratio[-1]
    after = prices[-1] = max(0.0, (MARGIN - last * (MARGIN + HOLDING)) / (1 - last))
    for week in range(len(capacity) - 2, -1, -1):
        after = prices[week] = max(0.0, MARGIN - ratio[week] * (MARGIN + HOLDING - after))
    return prices


@pytest.mark.parametrize("discount", [1.0, 0.99])
def test_newsvendor_population_uses_its_quantile(discount: float) -> None:
    view = sold_out_view(discount=discount)
    prices = np.random.default_rng(3).uniform(0.0, 1.5, WEEKS)
    expected = newsvendor_use(prices, discount)
    np.testing.assert_allclose(view.utilization(prices[:, None])[:, 0], expected, rtol=1e-5)


TIGHT = np.array([0.98, 0.96, 1.0, 0.94, 1.02, 0.97, 0.95, 0.99])
PARTLY_SLACK = np.array([1.10, 1.08, 1.20, 1.09, 1.08, 1.25, 1.07, 1.2])


@pytest.mark.parametrize("share", [TIGHT, PARTLY_SLACK], ids=["all weeks tight", "some weeks slack"])
def test_newsvendor_population_is_priced_at_its_inverse(share: np.ndarray) -> None:
    view = sold_out_view()
    capacity = COUNT * LAW_MEAN * share
    expected = newsvendor_prices(capacity)
    assert (expected == 0).sum() == (2 if share is PARTLY_SLACK else 0)
    fits = newsvendor_use(expected, 1.0)
    np.testing.assert_allclose(fits[expected > 0], capacity[expected > 0], rtol=1e-9)
    assert (fits <= capacity * (1 + 1e-9)).all()
    np.testing.assert_allclose(view.shadow_prices(capacity[:, None])[:, 0], expected, atol=2e-3)


def test_prices_far_above_the_margin_are_refused_the_solver() -> None:
    """A capacity of nothing cannot be reached by price alone beyond the margin; no price goes above it."""
    prices = sold_out_view().shadow_prices(np.zeros((WEEKS, 1)))
    assert prices.max() <= MARGIN * (1 + 1e-6)


def test_newsvendors_facing_random_demand_use_their_expected_sales() -> None:
    """From the second week on orders replace last week's sales: F = n E[min(D, S)] = n (S - sd (phi(z) + z Phi(z)))."""
    rng = np.random.default_rng(4)
    demand = rng.normal(LAW_MEAN, LAW_SD, (20, WEEKS, 2_000)).astype(np.float32)
    law = {"lead_demand_mean": LAW_MEAN, "lead_demand_sd": LAW_SD}
    exogenous = constant_paths(demand, lead_times(demand, 0), sale_price=6.0, unit_cost=2.0, **law)
    people = dataclasses.replace(stores(2_000, holding=HOLDING, penalty=0.0), unit_margin=jnp.full(2_000, MARGIN))
    view = SimulatedView(people, exogenous, PricedNewsvendor(NormalDemand()), empty_state(2_000, 1), solver=SHARP)
    for price in (0.0, 1.0, 2.5):
        ratio = (MARGIN - price) / (MARGIN + HOLDING - price)
        z = norm.ppf(ratio)
        sales = LAW_MEAN + LAW_SD * z - LAW_SD * (norm.pdf(z) + z * norm.cdf(z))
        use = view.utilization(np.full((WEEKS, 1), price))[:, 0] / 2_000
        assert use[0] == pytest.approx(LAW_MEAN + LAW_SD * z, rel=1e-4)
        # 40,000 draws a week: one standard error is at most 8 / 200.
        np.testing.assert_allclose(use[1:], sales, atol=3.5 * LAW_SD / np.sqrt(20 * 2_000))
