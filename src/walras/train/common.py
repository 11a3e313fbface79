"""Own what all agents' demand has in common: surprises drawn anew, and how late forecasts follow them.

OPEN: only one past has happened; what is drawn here keeps training from learning that one by heart.
"""

import numpy as np
from jaxtyping import Float

from walras.exogenous.capacity import haar_noise

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


def followed(factors: Float[np.ndarray, " week"], start: float = 1.0) -> Float[np.ndarray, " week"]:
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
