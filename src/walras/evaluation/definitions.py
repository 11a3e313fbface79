"""Own what one week's violation, near-limit mark, idleness and complementarity residual are.

LAW: every reported measure follows from these lines; changing one changes what published numbers mean.

Weeks without capacity (K = 0) have no ratio. They are left out of every mean *ratio* and counted
(`zero_capacity_weeks`, and of them `zero_capacity_weeks_used` with U > 0). The two *marks* "over 10 %" and "near the
limit" compare U with a multiple of K and need no division, so a closed week that is used counts there, as it should.
"""

import numpy as np
from jaxtyping import Bool, Float

NEAR_LIMIT = 0.9
"""A week is near its limit when the unconstrained utilization exceeds this share of capacity."""

OVER = 0.10
"""A week counts as badly violated when utilization exceeds capacity by more than this share."""

BURN_IN_WEEKS = 6
"""Weeks that control studies skip, while orders placed before the first price still arrive; plans skip none."""

SMALL_USE = 0.05
"""Weeks that use less than this share of the path's mean utilization have no relative forecast error."""

Weekly = Float[np.ndarray, "path week resource"]
Marks = Bool[np.ndarray, "path week resource"]


def per_capacity(amount: Weekly, capacity: Weekly) -> Weekly:
    """Divide by capacity, with 0 where there is none (callers leave those weeks out of their counts)."""
    return np.divide(amount, capacity, out=np.zeros_like(amount), where=capacity > 0)


def violation(utilization: Weekly, capacity: Weekly) -> Weekly:
    """Return `max(U - K, 0) / K`, a fraction; 0 in weeks without capacity, which callers do not count."""
    return per_capacity(np.maximum(utilization - capacity, 0.0), capacity)


def over_limit(utilization: Weekly, capacity: Weekly) -> Marks:
    """Mark weeks with more than 10 % violation: `U > 1.1 K`."""
    return utilization > (1.0 + OVER) * capacity


def near_limit(unconstrained: Weekly, capacity: Weekly) -> Marks:
    """Mark weeks whose unconstrained utilization exceeds 0.9 of capacity: `U0 > 0.9 K`."""
    return unconstrained > NEAR_LIMIT * capacity


def idle(utilization: Weekly, capacity: Weekly) -> Weekly:
    """Return `max(K - U, 0) / K`, a fraction; it is a loss only where U0 > K."""
    return per_capacity(np.maximum(capacity - utilization, 0.0), capacity)


def slack_value(shadow_prices: Weekly, utilization: Weekly, capacity: Weekly) -> Weekly:
    """Return `lambda (K - U)^+` [money]: prices charged for capacity that stays empty."""
    return shadow_prices * np.maximum(capacity - utilization, 0.0)


def complementarity(shadow_prices: Weekly, utilization: Weekly, capacity: Weekly, price_scale: float) -> Weekly:
    """Return `|min(lambda', K - U)| / K` with the scaled price `lambda' = K lambda / price_scale`.

    The price is brought to the units of capacity first (a price of one unit margin weighs as much as an empty week);
    compared raw, a few money units against thousands of units of capacity would always look complementary.

    Args:
        shadow_prices: prices lambda [money per unit of resource].
        utilization: U [units of resource].
        capacity: K [units of resource].
        price_scale: median unit margin of the population [money].
    """
    gap = per_capacity(capacity - utilization, capacity)
    return np.abs(np.minimum(shadow_prices / price_scale, gap))
