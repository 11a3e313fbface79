"""Classical policies: quantiles as in scipy, critical ratios and orders as worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import gamma, norm
from shops import shop

from walras.policies.base import Observation
from walras.policies.base_stock import (
    AbstractDemandDistribution,
    CappedBaseStock,
    ForecastBaseStock,
    GammaDemand,
    NormalDemand,
    OrderUpTo,
    PricedBaseStock,
    PricedNewsvendor,
    ScaledNewsvendor,
)
from walras.population.population import Population

# ---- demand distributions

RATIOS = np.linspace(0.01, 0.99, 99)
LAWS = [NormalDemand(), GammaDemand()]
by_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)


def quantiles(law: AbstractDemandDistribution, mean: float, sd: float, ratios: np.ndarray = RATIOS) -> np.ndarray:
    full = [jnp.asarray(np.broadcast_to(x, ratios.shape), jnp.float32) for x in (ratios, mean, sd)]
    return np.asarray(law.quantile(*full), float)


@pytest.mark.parametrize(("mean", "sd"), [(5.0, 1.6), (50.0, 8.0), (0.2, 3.0), (1e5, 1e4)])
def test_normal_quantile_is_exact(mean: float, sd: float) -> None:
    np.testing.assert_allclose(
        quantiles(NormalDemand(), mean, sd), norm.ppf(RATIOS, mean, sd), rtol=1e-5, atol=1e-5 * sd
    )


@pytest.mark.parametrize(
    ("shape", "within"), [(0.3, 0.16), (0.5, 0.075), (1, 0.03), (2, 0.02), (5, 0.011), (50, 0.002)]
)
@pytest.mark.parametrize("mean", [0.1, 7.0])
def test_gamma_quantile_is_near(shape: float, within: float, mean: float) -> None:
    """The cube-root formula errs by at most a share of the standard deviation, smaller for smoother demand."""
    sd = mean / np.sqrt(shape)
    exact = gamma.ppf(RATIOS, shape, scale=mean / shape)
    np.testing.assert_allclose(quantiles(GammaDemand(), mean, sd), exact, atol=within * sd)


@by_law
@pytest.mark.parametrize(("mean", "sd"), [(5.0, 1.6), (0.3, 1.2), (20.0, 0.5), (1.0, 10.0)])
def test_quantiles_rise_with_the_ratio(law: AbstractDemandDistribution, mean: float, sd: float) -> None:
    found = quantiles(law, mean, sd)
    assert (np.diff(found) >= 0).all()
    assert found[-1] > found[len(found) // 2]
    assert isinstance(law, NormalDemand) or (found >= 0).all()


@by_law
def test_demand_that_never_varies_is_its_mean(law: AbstractDemandDistribution) -> None:
    np.testing.assert_allclose(quantiles(law, 7.0, 0.0), 7.0, rtol=1e-6)
    np.testing.assert_array_equal(quantiles(law, 0.0, 0.0), 0.0)


@by_law
@pytest.mark.parametrize(("mean", "sd"), [(5.0, 1.6), (5.0, 0.0), (0.0, 0.0), (0.0, 2.0), (1e-6, 5.0), (1e6, 1.0)])
def test_gradients_are_finite_and_never_negative_in_the_ratio(
    law: AbstractDemandDistribution, mean: float, sd: float
) -> None:
    arguments = [jnp.asarray(np.broadcast_to(x, RATIOS.shape), jnp.float32) for x in (RATIOS, mean, sd)]
    slopes = jax.grad(lambda *a: law.quantile(*a).sum(), argnums=(0, 1, 2))(*arguments)
    assert all(np.isfinite(slope).all() for slope in slopes)
    assert (np.asarray(slopes[0]) >= 0).all()


@by_law
def test_the_gradient_in_the_ratio_is_the_derivative(law: AbstractDemandDistribution) -> None:
    ratios = np.array([0.05, 0.3, 0.5, 0.8, 0.95])
    arguments = [jnp.asarray(np.broadcast_to(x, ratios.shape), jnp.float32) for x in (ratios, 12.0, 5.0)]
    slope = np.asarray(jax.grad(lambda r: law.quantile(r, *arguments[1:]).sum())(arguments[0]))
    step = 2.0**-9
    either = [quantiles(law, 12.0, 5.0, ratios + s) for s in (step, -step)]
    np.testing.assert_allclose(slope, (either[0] - either[1]) / (2 * step), rtol=3e-3)


# ---- critical ratios by hand: C_t = c_t + g^L lambda_{t+L}; the comments carry the sums

PRICES = jnp.asarray([[9.0, 9.0], [1.0, 0.0], [0.5, 0.25], [2.0, 0.5]])
"""Price of inbound units and of storage, this week's first."""


def agent(*, lead: int, use: tuple[float, float] = (1.0, 1.0), **changed: float) -> Observation:
    """Return what one agent sees: sale price 10, cost 4 in both weeks, holding 1, penalty 2, N(50, 8) ahead."""
    given = {"holding_cost": 1.0, "lost_sale_penalty": 2.0, "sale_price": 10.0, "unit_cost": 4.0, "next_unit_cost": 4.0}
    given |= changed
    one = {name: jnp.asarray([value], jnp.float32) for name, value in given.items()}
    people = Population(
        holding_cost=one.pop("holding_cost"),
        lost_sale_penalty=one.pop("lost_sale_penalty"),
        lead_time=jnp.asarray([lead], jnp.int32),
        demand_scale=jnp.ones(1),
        unit_margin=jnp.ones(1),
        use=jnp.asarray([use], jnp.float32),
        weight=jnp.ones(1),
        resources=("inbound_units", "storage"),
    )
    ahead = {"lead_demand_mean": jnp.asarray([50.0]), "lead_demand_sd": jnp.asarray([8.0])}
    zero = jnp.zeros(1)
    return Observation(week=jnp.asarray(0), population=people, stock_start=zero, position=zero, **ahead, **one)


NEWSVENDOR = [
    # Cu = 10 + 2 - (4 + 1) = 7; Co = 1 + 0 + (4 + 1) - (4 + .5) = 1.5
    (1, 1.0, {}, 7 / 8.5),
    # Cu = 12 - (4 + .5) = 7.5; Co = 1 + .25 + (4 + .5) - (4 + 2) = -.25, kept at 2 % of 1.25
    (2, 1.0, {}, 7.5 / 7.525),
    # Each unit uses half a dock unit: Cu = 12 - 4.5 = 7.5; Co = 1 + 4.5 - 4.25 = 1.25
    (1, 1.0, {"use": (0.5, 2.0)}, 7.5 / 8.75),
    # g = .9, g^-1 = 1.1111: Cu = 12 - (4.4444 + 1); Co = 1 + 5.4444 - .9 (4.4444 + .5) = 1.99444
    (1, 0.9, {}, (12 - 4 / 0.9 - 1) / ((12 - 4 / 0.9 - 1) + 1 + 4 / 0.9 + 1 - 0.9 * (4 / 0.9 + 0.5))),
    # g = .9, two weeks: g^-2 = 1.234568; next week's cost 5: Co = 6.688 - .9 * 8.173 < 0 is kept at 2 % of 1.25
    (2, 0.9, {"next_unit_cost": 5.0}, 6.561728395 / (6.561728395 + 0.025)),
    # Sale price 4, no penalty: the price of 1 leaves a margin of -1
    (1, 1.0, {"sale_price": 4.0, "lost_sale_penalty": 0.0}, 0.0),
    # Next week costs 50: waiting is worse than any stock, Co = -44.5 is kept at 2 % of 1
    (1, 1.0, {"next_unit_cost": 50.0}, 7 / 7.02),
    # Neither margin nor cost: order nothing
    (0, 1.0, {"use": (0.0, 0.0), "sale_price": 4.0, "lost_sale_penalty": 0.0, "holding_cost": 0.0}, 0.0),
]


@pytest.mark.parametrize(("lead", "discount", "changed", "ratio"), NEWSVENDOR)
def test_newsvendor_ratio(lead: int, discount: float, changed: dict, ratio: float) -> None:
    found = PricedNewsvendor(discount=discount).critical_ratio(agent(lead=lead, **changed), PRICES)
    assert float(found[0]) == pytest.approx(ratio, rel=2e-6)


BASE_STOCK = [
    # kappa = (2 - (1 - .5)) / (2 + 1)
    (1, 1.0, {}, 1.5 / 3),
    # A dearer week follows: (2 - (.5 - 2)) / (2 + 1 + .25) = 1.08, clipped
    (2, 1.0, {}, 0.99),
    # Penalty 6: (6 - (.5 - 2)) / 7.25 = 1.03, clipped; penalty 6 and dock use .1: (6 + .15) / 7.25
    (2, 1.0, {"lost_sale_penalty": 6.0, "use": (0.1, 1.0)}, 6.15 / 7.25),
    # g = .9: growth 1.1111 x (4 - .9 x 4) + 1 - .9 x .5 = .99444
    (1, 0.9, {}, (2 - (0.4 / 0.9 + 0.55)) / 3),
    # Costs rise from 4 to 4.5: order earlier
    (1, 1.0, {"next_unit_cost": 4.5}, 2 / 3),
    # Costs fall by more than the penalty: wait, as far as the clip lets
    (1, 1.0, {"next_unit_cost": 1.0}, 0.01),
]


@pytest.mark.parametrize(("lead", "discount", "changed", "ratio"), BASE_STOCK)
def test_base_stock_ratio(lead: int, discount: float, changed: dict, ratio: float) -> None:
    found = PricedBaseStock(discount=discount).critical_ratio(agent(lead=lead, **changed), PRICES)
    assert float(found[0]) == pytest.approx(ratio, rel=2e-6)


@pytest.mark.parametrize("policy", [PricedBaseStock(NormalDemand()), PricedNewsvendor(NormalDemand())])
def test_orders_are_the_quantile_at_the_ratio_less_the_position(policy) -> None:
    seen = agent(lead=1)
    ratio = float(policy.critical_ratio(seen, PRICES)[0])
    assert float(policy.orders(seen, PRICES)[0]) == pytest.approx(50 + 8 * norm.ppf(ratio), rel=1e-5)


def test_after_the_announced_weeks_the_last_price_holds() -> None:
    """An order that arrives in or after the last announced week pays that price, and so does the order after it."""
    policy = PricedBaseStock(NormalDemand())
    # kappa = (2 - 0) / (2 + 1 + .5)
    for lead in (3, 9):
        np.testing.assert_allclose(policy.critical_ratio(agent(lead=lead), PRICES), 2 / 3.5, rtol=1e-6)


def test_the_ratio_does_not_jump_where_a_rising_price_eats_the_margin():
    before, after = (
        float(PricedNewsvendor().critical_ratio(agent(lead=2, sale_price=2.5 + step), PRICES)[0])
        for step in (0.002, 0.0)
    )
    assert after == 0.0
    assert 0 < before < 0.1


# ---- policies with given parameters

NO_PRICES = jnp.zeros((3, 3))


def seen(position: list[float], mean: list[float], sd: list[float]) -> Observation:
    number = lambda values: jnp.asarray(values, jnp.float32)  # noqa: E731
    return Observation(
        week=jnp.asarray(0),
        population=shop(agents=len(position)),
        stock_start=number(position),
        position=number(position),
        lead_demand_mean=number(mean),
        lead_demand_sd=number(sd),
        sale_price=number([15.0] * len(position)),
        unit_cost=number([5.0] * len(position)),
        next_unit_cost=number([5.0] * len(position)),
    )


SEEN = seen([2.0, 8.0, 30.0], [10.0, 20.0, 15.0], [3.0, 0.0, 5.0])


def test_a_cap_limits_the_order_and_nothing_else():
    capped = CappedBaseStock(jnp.full(3, 20.0), jnp.asarray([5.0, 100.0, 5.0]))
    np.testing.assert_array_equal(capped.orders(SEEN, NO_PRICES), [5.0, 12.0, 0.0])
    free = CappedBaseStock(jnp.asarray([20.0, 21.0, 22.0]), jnp.full(3, 1e9))
    plain = OrderUpTo(jnp.asarray([20.0, 21.0, 22.0]))
    np.testing.assert_array_equal(free.orders(SEEN, NO_PRICES), plain.orders(SEEN, NO_PRICES))


def test_a_level_on_the_forecast_moves_with_it():
    policy = ForecastBaseStock(jnp.asarray([1.0, 0.5, 1.0]), jnp.asarray([2.0, 1.0, -9.0]))
    np.testing.assert_allclose(policy.target(SEEN, NO_PRICES), [16.0, 10.0, 0.0])
    np.testing.assert_allclose(policy.orders(SEEN, NO_PRICES), [14.0, 2.0, 0.0])


def test_factors_of_one_are_the_newsvendor_and_others_correct_its_forecast():
    plain, one = PricedNewsvendor(), ScaledNewsvendor(mean_factor=jnp.ones(()), sd_factor=jnp.ones(()))
    np.testing.assert_array_equal(plain.orders(SEEN, NO_PRICES), one.orders(SEEN, NO_PRICES))
    other = ScaledNewsvendor(mean_factor=jnp.asarray([1.0, 2.0, 1.0]), sd_factor=jnp.asarray([2.0, 1.0, 1.0]))
    corrected = seen([2.0, 8.0, 30.0], [10.0, 40.0, 15.0], [6.0, 0.0, 5.0])
    np.testing.assert_allclose(other.orders(SEEN, NO_PRICES), plain.orders(corrected, NO_PRICES), rtol=1e-6)
    pulse = NO_PRICES.at[:, 0].set(100.0)
    np.testing.assert_array_equal(other.orders(SEEN, pulse), 0.0)
