"""Demand shocks common to all agents, shadow prices and capacities that training draws: only one past was observed."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from walras.exogenous.capacity import AnnouncedPrices, HaarCapacity, HaarPrices, PulsePrices, haar_noise
from walras.maps.features import units_of
from walras.population.population import Population

HALF_LIFE = 8.0  # weeks after which a forecast has followed half of a common change
LONGEST_BLOCK = 8  # most weeks on which a common shock is constant
KINDS = ("none", "haar", "pulses")  # kinds of a resource's prices in a buyer's episode, equally likely
ALWAYS = 1_000  # notice of prices that are known from the start [weeks]
LEAST_USE = 1e-9  # least use per unit in a typical price
MIXED = ("none", "haar", "haar", "pulses", "pulses")
DRAWN = {"mixed": MIXED, "drawn": MIXED, "haar": ("haar",)}  # the same for a map's rollout, by the setting `prices`
ROOMY_SHARE, MOST_ROOM = 0.25, 2.5  # share of capacity paths with room to spare, and their largest factor


def draw_common(random: np.random.Generator, weeks: int, spread: float) -> Float[np.ndarray, " week"]:
    """Draw common demand factors of mean 1, constant on blocks of 1 to `LONGEST_BLOCK` weeks."""
    return common_factors(random, weeks, spread, int(random.integers(1, LONGEST_BLOCK + 1)))


def common_factors(random: np.random.Generator, weeks: int, spread: float, block: int) -> Float[np.ndarray, " week"]:
    """Draw factors of mean 1 whose logs lie on a truncated Haar basis, constant on blocks of `block` weeks."""
    drawn = np.exp(spread * haar_noise(random, weeks, 1, block, 1.0)[:, 0])
    return drawn / drawn.mean()


def lagged_forecast(factors: Float[np.ndarray, " week"], start: float = 1.0) -> Float[np.ndarray, " week"]:
    """Return the level that a forecast has reached before each week: an exponential average of earlier weeks."""
    keep, level, levels = 0.5 ** (1.0 / HALF_LIFE), start, []
    for value in factors:
        levels.append(level)
        level = keep * level + (1.0 - keep) * value
    return np.asarray(levels)


def typical_prices(population: Population) -> Float[np.ndarray, " resource"]:
    """Return the price at which a typical unit pays its margin on arrival, or doubles what holding it costs."""
    use = np.median(np.asarray(population.use, float), axis=0)
    margin, holding = (float(np.median(np.asarray(x))) for x in (population.unit_margin, population.holding_cost))
    money = np.maximum(np.where(population.stock_resource, holding, margin), 0.0)
    return money / np.maximum(use, LEAST_USE)


def mixed_prices(seed: int, weeks: int, scale: Float[np.ndarray, " resource"]) -> AnnouncedPrices:
    """Draw for every resource no prices, a Haar path known in full, or pulses announced 0 to 26 weeks ahead.

    The scale of each resource is as `typical_prices` [money per unit of resource].
    """
    return _announced(np.random.default_rng([seed, 0x9B1]), weeks, scale, KINDS)


def _announced(
    random: np.random.Generator, weeks: int, scale: Float[np.ndarray, " resource"], kinds: Sequence[str]
) -> AnnouncedPrices:
    prices, notice = np.zeros((weeks, len(scale))), np.full((weeks, len(scale)), ALWAYS)
    for resource, unit in enumerate(scale):
        kind, seed = kinds[int(random.integers(len(kinds)))], int(random.integers(2**31))
        if kind == "haar":
            prices[:, [resource]] = HaarPrices().sample(seed, weeks, [unit]).prices
        if kind == "pulses":
            pulses = PulsePrices().sample(seed, weeks, [unit])
            prices[:, [resource]], notice[:, [resource]] = pulses.prices, pulses.notice
    return AnnouncedPrices(prices, notice)


def drawn_prices(
    random: np.random.Generator, population: Population, weeks: int, kinds: Sequence[str] = MIXED
) -> Float[np.ndarray, "week resource"]:
    """Draw for every resource of a map's rollout no prices, a Haar path or pulses [money per unit of resource]."""
    map_units = np.asarray(units_of(population).price, float)
    scale = np.where(population.stock_resource, typical_prices(population), map_units)
    return _announced(random, weeks, scale, kinds).prices


def drawn_capacity(
    random: np.random.Generator, free: Float[np.ndarray, "week resource"], first: int
) -> Float[np.ndarray, "week resource"]:
    """Draw a Haar capacity path at the scale of use without prices, from week `first` on."""
    mean = np.maximum(free[first:].mean(0), 1e-6)
    # One path in four has room to spare: maps also have to learn where no price is needed.
    roomy = random.uniform(1.0, MOST_ROOM) if random.random() < ROOMY_SHARE else 1.0
    return roomy * HaarCapacity().sample(int(random.integers(2**31)), len(free), mean)
