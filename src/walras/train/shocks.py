"""Own what all agents' demand has in common: surprises drawn anew, and how late forecasts follow them.

OPEN: only one past has happened; what is drawn here keeps training from learning that one by heart.
"""

import numpy as np
from jaxtyping import Float

from walras.exogenous.capacity import AnnouncedPrices, HaarPrices, PulsePrices, haar_noise
from walras.population.population import Population

HALF_LIFE = 8.0
"""Weeks after which a forecast has followed half of a change that all products have in common."""

LONGEST_BLOCK = 8
"""Most weeks on which a common surprise is constant."""


def draw_common(random: np.random.Generator, weeks: int, spread: float) -> Float[np.ndarray, " week"]:
    """Draw a common surprise: factors that are constant on blocks of 1 to `LONGEST_BLOCK` weeks, of mean 1.

    Args:
        random: source of the block length and of the factors.
        weeks: length of the path.
        spread: standard deviation of the log factors; 0 gives ones.
    """
    return common_factors(random, weeks, spread, int(random.integers(1, LONGEST_BLOCK + 1)))


def common_factors(random: np.random.Generator, weeks: int, spread: float, block: int) -> Float[np.ndarray, " week"]:
    """Draw factors of mean 1 whose logs lie on a truncated Haar basis, constant on blocks of `block` weeks."""
    drawn = np.exp(spread * haar_noise(random, weeks, 1, block, 1.0)[:, 0])
    return drawn / drawn.mean()


def lagged_forecast(factors: Float[np.ndarray, " week"], start: float = 1.0) -> Float[np.ndarray, " week"]:
    """Return the level that a forecast has reached before each week: a moving average of the weeks before it.

    Args:
        factors: what all demand was multiplied with in each week.
        start: level before the first week.
    """
    keep, level, levels = 0.5 ** (1.0 / HALF_LIFE), start, []
    for value in factors:
        levels.append(level)
        level = keep * level + (1.0 - keep) * value
    return np.asarray(levels)


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
