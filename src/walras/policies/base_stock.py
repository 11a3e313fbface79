"""Classical policies: priced base stock (newsvendor, backlog) with its demand distributions, and unpriced ones.

LAW: the time-coupled critical ratio of an announced path of shadow prices; the three-week response to a price pulse
tests it. A further distribution needs a `quantile` that is differentiable in the ratio and finite on [.01, .99].
"""

import abc
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from walras.clipping import clip, minimum, positive_part
from walras.policies.base import AbstractOrderUpTo, Observation, PerAgent, Policy, PublicObservation, ShadowPrices

SMALLEST_SHAPE = 0.05  # gamma shapes below this (a coefficient of variation above 4.5) are treated as this one
LOWEST_RATIO, HIGHEST_RATIO = 0.01, 0.99  # critical ratios are clipped: quantiles of a fit mean little outside
LEAST_OVERAGE = 0.02  # least cost of overage as a share of the holding cost, however much unit costs rise
TINY_COST = 1e-9  # keeps a ratio of two zero costs defined [money/unit]

CENTRAL = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
"""Giles (2010), "Approximating the erfinv function", the central branch in single precision, highest power first."""


def standard_normal_quantile(ratio: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return z with Phi(z) = ratio, to single precision for ratios in [.002, .998].

    One branch of one polynomial, which suffices for clipped ratios, at a fraction of the library function's cost.
    """
    x = 2.0 * ratio - 1.0
    w = -jnp.log(4.0 * ratio * (1.0 - ratio)) - 2.5
    total = jnp.full_like(w, CENTRAL[0])
    for coefficient in CENTRAL[1:]:
        total = total * w + coefficient
    return 2.0**0.5 * total * x


class AbstractDemandDistribution(eqx.Module):
    """Turn a critical ratio into a quantile of lead-time demand."""

    @abc.abstractmethod
    def quantile(self, ratio: PerAgent, mean: PerAgent, sd: PerAgent) -> PerAgent:
        """Return F^{-1}(ratio) [units] for demand with this mean and standard deviation."""


class NormalDemand(AbstractDemandDistribution):
    """Normal lead-time demand: mean + z sd."""

    def quantile(self, ratio: PerAgent, mean: PerAgent, sd: PerAgent) -> PerAgent:
        """Return the normal quantile; it can be negative for small ratios."""
        return mean + standard_normal_quantile(ratio) * sd


class GammaDemand(AbstractDemandDistribution):
    """Gamma lead-time demand, nonnegative and skewed (Wilson-Hilferty quantile)."""

    def quantile(self, ratio: PerAgent, mean: PerAgent, sd: PerAgent) -> PerAgent:
        """Return mean (1 - 1/(9a) + z/(3 sqrt a))^3, a = (mean/sd)^2 the shape."""
        safe_mean = jnp.where(mean > 0, mean, 1.0)
        # Not the root of a square, whose derivative at sd = 0 is NaN.
        variation = minimum(sd / safe_mean, jnp.full_like(sd, SMALLEST_SHAPE**-0.5))
        root = positive_part(1.0 - variation**2 / 9.0 + standard_normal_quantile(ratio) * variation / 3.0)
        return jnp.where(mean > 0, safe_mean * root**3, 0.0)


def _prices_on_arrival(
    outlook: PublicObservation, shadow_prices: ShadowPrices, discount: float
) -> tuple[PerAgent, PerAgent, PerAgent, PerAgent]:
    """Return g^-L and the shadow cost of flow on arrival, flow a week later, and storage on arrival [money/unit]."""
    population, ahead = outlook.population, shadow_prices.shape[0]
    growth = discount ** (-population.lead_time.astype(jnp.float32))

    def arrives(lead: Int[Array, " agent"]) -> Float[Array, "lead agent"]:
        # Zeros and ones: the derivative of a matrix product is a product, that of indexing a slower scatter.
        due = jnp.minimum(lead, ahead - 1)
        return (due[None, :] == jnp.arange(ahead)[:, None]).astype(shadow_prices.dtype)

    def price(arrives: Float[Array, "lead agent"], stored: bool) -> PerAgent:
        total = jnp.zeros_like(outlook.unit_cost)
        for index, is_stock in enumerate(population.stock_resource):
            if is_stock == stored:
                due = jnp.matmul(shadow_prices[:, index], arrives, precision="highest")
                total = total + population.use[:, index] * due
        return total

    now, later = arrives(population.lead_time), arrives(population.lead_time + 1)
    return growth, price(now, False), price(later, False), price(now, True)


def _level(ratio: PerAgent, law: AbstractDemandDistribution, outlook: PublicObservation) -> PerAgent:
    """Return the quantile of lead-time demand at `ratio`; below the lowest ratio it falls linearly to nothing."""
    level = law.quantile(clip(ratio, LOWEST_RATIO, HIGHEST_RATIO), outlook.lead_demand_mean, outlook.lead_demand_sd)
    return clip(ratio / LOWEST_RATIO, 0.0, 1.0) * positive_part(level)


class PricedNewsvendor(AbstractOrderUpTo):
    """Order up to the myopic lost-sales quantile: a product stops ordering where the price exceeds its margin.

    Cu = p + penalty - g^-L C_t, Co = h + g^-L (C_t - g C_{t+1}), C_t = c_t + g^L lambda_{t+L},
    kappa = Cu^+ / (Cu^+ + Co), clipped. A storage price in the arrival week adds to the holding cost. Co is at least
    `LEAST_OVERAGE` of the holding cost: before a price rise it would be negative and kappa discontinuous.

    Attributes:
        law: distribution of lead-time demand.
        discount: g, the value next week of one unit of money now (1 is no discounting).
    """

    law: AbstractDemandDistribution = GammaDemand()
    discount: float = eqx.field(static=True, default=1.0)

    def critical_ratio(self, outlook: PublicObservation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return kappa before clipping at the top; 0 where the price exceeds the margin, 1 where waiting costs more."""
        population, g = outlook.population, self.discount
        growth, price, later, storage = _prices_on_arrival(outlook, shadow_prices, g)
        cost = growth * outlook.unit_cost + price
        next_cost = growth * outlook.next_unit_cost + later
        under = positive_part(outlook.sale_price + population.lost_sale_penalty - cost)
        holding = population.holding_cost + storage
        saved = holding + cost - g * next_cost
        over = jnp.where(saved > LEAST_OVERAGE * holding, saved, LEAST_OVERAGE * holding)
        denominator = under + over
        regular = denominator > TINY_COST
        ratio = under / jnp.where(regular, denominator, 1.0)
        return jnp.where(regular, ratio, jnp.where(under > 0, 1.0, 0.0))

    def target(self, outlook: PublicObservation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the quantile of lead-time demand at kappa [units]."""
        return _level(self.critical_ratio(outlook, shadow_prices), self.law, outlook)


class ScaledNewsvendor(PricedNewsvendor):
    """Order up to the newsvendor's quantile of a corrected forecast; with both factors 1 it is the newsvendor.

    The factors correct the forecast, and the myopic level for lost sales and crossing orders.

    Attributes:
        mean_factor: the forecast's mean is multiplied by this.
        sd_factor: the same for its standard deviation; both one number, or both one per agent.
    """

    mean_factor: Float[Array, "*agent"] = eqx.field(kw_only=True)
    sd_factor: Float[Array, "*agent"] = eqx.field(kw_only=True)

    def target(self, outlook: PublicObservation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the quantile of corrected lead-time demand at kappa [units]."""
        mean, sd = self.mean_factor * outlook.lead_demand_mean, self.sd_factor * outlook.lead_demand_sd
        return super().target(replace(outlook, lead_demand_mean=mean, lead_demand_sd=sd), shadow_prices)


class PricedBaseStock(AbstractOrderUpTo):
    """Order up to the time-coupled backlog quantile, the optimal myopic base-stock with announced prices.

    Spec section 3 (R): kappa_t = (b - g^-L (C_t - g C_{t+1})) / (b + h), C_t = c_t + g^L lambda_{t+L}; with g = 1 a
    constant price leaves kappa unchanged, a pulse moves orders to the weeks around it. Fields as in the newsvendor.
    """

    law: AbstractDemandDistribution = NormalDemand()
    discount: float = eqx.field(static=True, default=1.0)

    def critical_ratio(self, outlook: PublicObservation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return kappa clipped to [.01, .99]; the penalty for a unit short and week is `lost_sale_penalty`."""
        population, g = outlook.population, self.discount
        growth, price, later, storage = _prices_on_arrival(outlook, shadow_prices, g)
        step = growth * (outlook.unit_cost - g * outlook.next_unit_cost) + price - g * later
        short, over = population.lost_sale_penalty, population.holding_cost + storage
        return clip((short - step) / (short + over + TINY_COST), LOWEST_RATIO, HIGHEST_RATIO)

    def target(self, outlook: PublicObservation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the quantile of lead-time demand at kappa [units]."""
        return _level(self.critical_ratio(outlook, shadow_prices), self.law, outlook)


class OrderUpTo(Policy):
    """Order the inventory position up to a fixed level [units], one number or one per agent."""

    level: Float[Array, "*agent"]

    def orders(self, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return (S - position)^+."""
        return positive_part(self.level - observation.position)


class CappedBaseStock(Policy):
    """Order up to a fixed level, but in a week at most a cap: smoother orders for lost-sales stores.

    Level and cap [units] are both one number, or both one per agent; so are the parameters of the policies below.
    """

    level: Float[Array, "*agent"]
    cap: Float[Array, "*agent"]

    def orders(self, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the lesser of (S - position)^+ and the cap."""
        wanted = positive_part(self.level - observation.position)
        return minimum(wanted, jnp.broadcast_to(self.cap, wanted.shape))


class ForecastBaseStock(AbstractOrderUpTo):
    """Order up to a level that moves with forecast lead-time demand: factors times its mean and standard deviation."""

    mean_factor: Float[Array, "*agent"]
    sd_factor: Float[Array, "*agent"]

    def target(self, outlook: PublicObservation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return mean_factor x mean + sd_factor x standard deviation, not below 0 [units]."""
        return positive_part(self.mean_factor * outlook.lead_demand_mean + self.sd_factor * outlook.lead_demand_sd)


class ConstantOrder(Policy):
    """Order the same quantity every week [units]."""

    quantity: Float[Array, "*agent"]

    def orders(self, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the constant."""
        return jnp.broadcast_to(self.quantity, observation.position.shape)


class ReorderPoint(Policy):
    """Order up to a level S when the position is at or below a reorder point s [units]: the (s,S) policy."""

    reorder_point: Float[Array, "*agent"]
    level: Float[Array, "*agent"]

    def orders(self, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return S - position where position <= s, else nothing."""
        due = observation.position <= self.reorder_point
        return jnp.where(due, positive_part(self.level - observation.position), 0.0)
