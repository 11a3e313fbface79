"""Own the priced base-stock policies: closed-form answers to an announced path of shadow prices.

LAW: spec section 3, the time-coupled critical ratio; the three-week signature of a price pulse is its test.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.policies.base import AbstractPolicy, Observation
from walras.policies.demand_law import AbstractDemandLaw, GammaDemand, NormalDemand
from walras.ties import clip, positive_part

LOWEST_RATIO, HIGHEST_RATIO = 0.01, 0.99
"""Critical ratios outside are clipped: beyond them the quantile of a fitted law means nothing."""

LEAST_OVERAGE = 0.02
"""A unit too many costs at least this share of its holding cost, however much dearer it is next week."""

TINY_COST = 1e-9
"""Keeps a ratio of two zero costs defined [money/unit]."""


def _price_at_lead(
    observation: Observation, shadow_prices: Float[Array, "lead resource"], stock: bool, extra: int
) -> Float[Array, " agent"]:
    """Add up use x shadow price in the arrival week (+ `extra`), over flow or stock resources [money/unit]."""
    population = observation.population
    # A product with a table of ones and zeros, not an index: the derivative of an index is a slow scatter.
    due = jnp.minimum(population.lead_time + extra, shadow_prices.shape[0] - 1)
    arrives = (due[:, None] == jnp.arange(shadow_prices.shape[0])[None]).astype(shadow_prices.dtype)
    total = jnp.zeros_like(observation.position)
    for index, is_stock in enumerate(population.stock_resource):
        if is_stock == stock:
            total = total + population.use[:, index] * (arrives @ shadow_prices[:, index])
    return total


def _prices_on_arrival(
    observation: Observation, shadow_prices: Float[Array, "lead resource"], discount: float
) -> tuple[Float[Array, " agent"], Float[Array, " agent"], Float[Array, " agent"], Float[Array, " agent"]]:
    """Return g^-L, and what a unit pays for flow on arrival, a week later, and for storage on arrival [money/unit]."""
    growth = discount ** (-observation.population.lead_time.astype(jnp.float32))
    price = _price_at_lead(observation, shadow_prices, stock=False, extra=0)
    later = _price_at_lead(observation, shadow_prices, stock=False, extra=1)
    return growth, price, later, _price_at_lead(observation, shadow_prices, stock=True, extra=0)


def _order_up_to(
    ratio: Float[Array, " agent"], law: AbstractDemandLaw, observation: Observation
) -> Float[Array, " agent"]:
    """Order up to the quantile at `ratio`; below the lowest ratio the level falls linearly to nothing."""
    level = law.quantile(
        clip(ratio, LOWEST_RATIO, HIGHEST_RATIO), observation.lead_demand_mean, observation.lead_demand_sd
    )
    fade = clip(ratio / LOWEST_RATIO, 0.0, 1.0)
    return positive_part(fade * positive_part(level) - observation.position)


class PricedNewsvendor(AbstractPolicy):
    """Order up to the myopic lost-sales quantile: a product whose margin the price eats stops ordering.

    Spec section 3 (R): Cu = p + penalty - g^-L C_t, Co = h + g^-L (C_t - g C_{t+1}), C_t = c_t + g^L lambda_{t+L},
    kappa = Cu^+ / (Cu^+ + Co), clipped. A storage price in the arrival week adds to the holding cost. Co never falls
    below a fiftieth of the holding cost (ours): with a price about to rise it would turn negative, and kappa would jump
    from 1 to 0 where the price eats the margin.

    Attributes:
        law: law of lead-time demand.
        discount: g, the value next week of one unit of money now (1 is no discounting).
    """

    law: AbstractDemandLaw = GammaDemand()
    discount: float = eqx.field(static=True, default=1.0)

    def critical_ratio(
        self, observation: Observation, shadow_prices: Float[Array, "lead resource"]
    ) -> Float[Array, " agent"]:
        """Return kappa before clipping at the top; 0 where the price eats the margin, 1 where waiting costs more."""
        population, g = observation.population, self.discount
        growth, price, later, storage = _prices_on_arrival(observation, shadow_prices, g)
        cost = growth * observation.unit_cost + price
        next_cost = growth * observation.next_unit_cost + later
        under = positive_part(observation.sale_price + population.lost_sale_penalty - cost)
        holding = population.holding_cost + storage
        saved = holding + cost - g * next_cost
        over = jnp.where(saved > LEAST_OVERAGE * holding, saved, LEAST_OVERAGE * holding)
        denominator = under + over
        regular = denominator > TINY_COST
        ratio = under / jnp.where(regular, denominator, 1.0)
        return jnp.where(regular, ratio, jnp.where(under > 0, 1.0, 0.0))

    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return the order up to the quantile of lead-time demand at kappa."""
        return _order_up_to(self.critical_ratio(observation, shadow_prices), self.law, observation)


class PricedBaseStock(AbstractPolicy):
    """Order up to the time-coupled backlog quantile, the optimal myopic base-stock with announced prices.

    Spec section 3 (R): kappa_t = (b - g^-L (C_t - g C_{t+1})) / (b + h), C_t = c_t + g^L lambda_{t+L}; with g = 1 a
    constant price leaves kappa unchanged, a pulse moves orders to the weeks around it.

    Attributes:
        law: law of lead-time demand.
        discount: g.
    """

    law: AbstractDemandLaw = NormalDemand()
    discount: float = eqx.field(static=True, default=1.0)

    def critical_ratio(
        self, observation: Observation, shadow_prices: Float[Array, "lead resource"]
    ) -> Float[Array, " agent"]:
        """Return kappa clipped to [.01, .99]; the penalty for a unit short and week is `lost_sale_penalty`."""
        population, g = observation.population, self.discount
        growth, price, later, storage = _prices_on_arrival(observation, shadow_prices, g)
        step = growth * (observation.unit_cost - g * observation.next_unit_cost) + price - g * later
        short, over = population.lost_sale_penalty, population.holding_cost + storage
        return clip((short - step) / (short + over + TINY_COST), LOWEST_RATIO, HIGHEST_RATIO)

    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return the order up to the quantile of lead-time demand at kappa."""
        return _order_up_to(self.critical_ratio(observation, shadow_prices), self.law, observation)
