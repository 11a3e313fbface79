"""Own the draws of order lead times around each agent's typical one.

OPEN: add a law of lead times beside this one; draws are integers, one per order, shaped [scenario, week, agent].
"""

import numpy as np
from jaxtyping import Float, Int8

ORDER_LOG_SD = 0.58
"""Spread of the log lead time between orders of one vendor's item, from public purchase-order records."""

LONGEST_FACTOR = 2.0
"""No order takes longer than this many times the longest typical lead time."""


def draw_lead_times(
    typical: np.ndarray, shape: tuple[int, int], *, log_sd: float = ORDER_LOG_SD, seed: int = 0
) -> Int8[np.ndarray, "scenario week agent"]:
    """Draw one integer lead time per order: typical x lognormal, rounded, at least one week.

    Args:
        typical: typical (median) lead time of each agent [weeks] [agent].
        shape: number of scenarios and of weeks.
        log_sd: standard deviation of the log lead time between orders; 0 gives the typical one every time.
        seed: same seed, same draws.
    """
    generator = np.random.default_rng([seed, 0x1EAD])
    noise = generator.standard_normal((*shape, len(typical)), dtype=np.float32)
    longest = longest_lead_time(typical, log_sd)
    noise *= np.float32(log_sd)
    np.exp(noise, out=noise)
    noise *= typical.astype(np.float32)
    return np.clip(np.rint(noise), 1, longest).astype(np.int8)


def longest_lead_time(typical: np.ndarray, log_sd: float = ORDER_LOG_SD) -> int:
    """Return the longest lead time that can be drawn [weeks]: the room a pipeline needs."""
    top = float(np.max(typical, initial=1))
    return int(np.ceil(top * (LONGEST_FACTOR if log_sd > 0 else 1.0)))


def lead_time_sd(typical: np.ndarray, log_sd: float = ORDER_LOG_SD) -> Float[np.ndarray, " agent"]:
    """Return the standard deviation of the lead time that agents plan with (lognormal, before rounding) [weeks]."""
    return typical * np.exp(log_sd**2 / 2) * np.sqrt(np.expm1(log_sd**2))
