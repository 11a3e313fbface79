"""Own what the margins of a population say of prices: beyond which price nobody would order.

FREE: read by views, for planners that look for prices.
"""

import numpy as np

from walras.population.population import Population

MAX_PRICE_QUANTILE = 0.99
"""The highest price tried eats this quantile of the margins per unit of resource: beyond it nobody would order."""


def highest_price(population: Population) -> float:
    """Return the price beyond which it is no use to go: it eats nearly everybody's margin."""
    margin = np.asarray(population.unit_margin)
    use = np.asarray(population.use)
    ratios = margin[:, None] / np.maximum(use, np.finfo(np.float32).tiny)
    return float(np.quantile(ratios[np.asarray(population.demand_scale) > 0], MAX_PRICE_QUANTILE))
