"""Own the first cut through the history: demand = product level x week effect x effect of a product's age.

FREE: internals of the demand model; change them as long as the backtest does not get worse.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

ALTERNATIONS = 8
"""Rounds of the alternating fit; more change less than 1e-3."""

AGE_BIN = 6
"""Weeks in a bin of the age effect."""

AGE_BINS = 5
"""Bins of the age effect; the last one is "grown up" and stays."""

LAUNCH_EDGE = 4
"""A product first seen within this many weeks of the history's start may be older: it counts as grown up."""

AGE_PRODUCTS = 15
"""Launched products at which the age effect is half trusted."""


@dataclass(frozen=True, eq=False)
class TwoWayEffects:
    """Hold the raw effects of the alternating fit.

    Attributes:
        week: week effect, mean 1 over known weeks, 0 where nothing is known [week].
        empty: share of known weeks without any demand.
        age: demand at an age relative to a grown-up product [age bin].
    """

    week: Float[np.ndarray, " week"]
    empty: float
    age: Float[np.ndarray, " bin"]


def age_bins(on_sale: Bool[np.ndarray, "week agent"], weeks: Int[np.ndarray, " any"]) -> Int[np.ndarray, "any agent"]:
    """Return the age bin of each product in the weeks with these indices; the last bin is grown up."""
    launch = np.where(on_sale.any(axis=0), on_sale.argmax(axis=0), len(on_sale))
    age = np.clip((weeks[:, None] - launch[None, :]) // AGE_BIN, 0, AGE_BINS - 1)
    return np.where(launch[None, :] < LAUNCH_EDGE, AGE_BINS - 1, age)


def fit_two_way_effects(
    units: Float[np.ndarray, "week agent"], known: Bool[np.ndarray, "week agent"], bins: Int[np.ndarray, "week agent"]
) -> TwoWayEffects:
    """Fit the three effects by alternating ratios of observed to expected demand.

    Args:
        units: demand with single spikes capped.
        known: weeks that count (on sale, after the launch week, not closed).
        bins: age bin of each product and week.
    """
    sold = np.where(known, units, 0.0).astype(np.float32)
    per_week, per_agent = sold.sum(axis=1, dtype=np.float64), sold.sum(axis=0, dtype=np.float64)
    parts = [known & (bins == number) for number in range(AGE_BINS)]
    masks = [part.astype(np.float32) for part in parts]
    per_bin = np.array([sold[part].sum(dtype=np.float64) for part in parts])
    young = int((parts[0] | parts[1]).any(axis=0).sum())
    trust = young / (young + AGE_PRODUCTS)
    seen = known.any(axis=1)
    week, age = np.ones(len(units)), np.ones(AGE_BINS)
    for _ in range(ALTERNATIONS):
        exposure = np.stack([week @ mask for mask in masks])
        level = per_agent / np.maximum(age @ exposure, 1e-9)
        expected = exposure @ level
        raw = np.divide(per_bin, expected, out=np.ones(AGE_BINS), where=expected > 0)
        age = np.clip((raw / raw[-1] if raw[-1] > 0 else raw), 0.25, 4.0) ** trust
        per_level = sum(share * (mask @ level) for share, mask in zip(age, masks, strict=True))
        week = np.divide(per_week, per_level, out=np.zeros(len(units)), where=per_level > 0)
        week /= max(float(week[seen].mean()) if seen.any() else 1.0, 1e-9)
    empty = float((per_week[seen] == 0).mean()) if seen.any() else 0.0
    return TwoWayEffects(week, empty, age)
