"""Own the shadow-price paths that policies are trained and compared under, in units of what agents can pay.

OPEN: the mix of none, Haar and announced pulses is a choice of the training; every resource draws its own.
"""

import numpy as np
from jaxtyping import Float

from walras.exogenous.capacity import AnnouncedPrices, HaarPrices, PulsePrices
from walras.population.population import Population

KINDS = ("none", "haar", "pulse")
"""What a resource's prices are in an episode, each with the same chance."""

ALWAYS = 1_000
"""Notice of prices that are known from the start [weeks]."""

LEAST_USE = 1e-9
"""Use per unit is taken to be at least this."""


def typical_prices(population: Population) -> Float[np.ndarray, " resource"]:
    """Return the price at which a typical unit pays its margin on arrival, or doubles what holding it costs."""
    use = np.median(np.asarray(population.use, float), axis=0)
    margin, holding = (float(np.median(np.asarray(x))) for x in (population.unit_margin, population.holding_cost))
    money = np.maximum(np.where(population.stock_resource, holding, margin), 0.0)
    return money / np.maximum(use, LEAST_USE)


def mixed_prices(seed: int, weeks: int, scale: Float[np.ndarray, " resource"]) -> AnnouncedPrices:
    """Draw for every resource no prices, a Haar path known in full, or pulses announced 0 to 26 weeks ahead.

    Args:
        seed: the same seed gives the same prices.
        weeks: length, at least 1.
        scale: of each resource, as `typical_prices` [money per unit of resource].
    """
    random = np.random.default_rng([seed, 0x9B1])
    prices, notice = np.zeros((weeks, len(scale))), np.full((weeks, len(scale)), ALWAYS)
    for resource, unit in enumerate(scale):
        kind = KINDS[random.integers(len(KINDS))]
        drawn = int(random.integers(2**31))
        if kind == "haar":
            prices[:, [resource]] = HaarPrices().sample(drawn, weeks, [unit]).prices
        if kind == "pulse":
            pulses = PulsePrices().sample(drawn, weeks, [unit])
            prices[:, [resource]], notice[:, [resource]] = pulses.prices, pulses.notice
    return AnnouncedPrices(prices, notice)
