"""Assumptions where a table is silent: each a stated distribution, and random numbers keyed by product name.

CONTRACT: draws depend on the product's name, the purpose and the seed only, so that they do not change with the other
products of the table. The provenance of assumed fields starts with "assumed".
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import betaincinv, gammaincinv, ndtr, ndtri

from walras.data.panel import Panel
from walras.data.read import NOT_RECORDED

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST_MIX = np.uint64(0xBF58476D1CE4E5B9)
SECOND_MIX = np.uint64(0x94D049BB133111EB)
MANTISSA_BITS = 53


def keyed_uniform(names: np.ndarray, purpose: str, seed: int) -> Float[np.ndarray, " agent"]:
    """Draw one number between 0 and 1 (both excluded) for each name.

    Args:
        names: products or vendors [agent].
        purpose: another purpose gives an independent number.
        seed: any whole number.
    """
    distinct, place = np.unique(names, return_inverse=True)
    hashes = np.array([_hash(str(name)) for name in distinct.tolist()], dtype=np.uint64)[place]
    with np.errstate(over="ignore"):
        mixed = _mix(hashes + GOLDEN * np.uint64(_hash(f"{seed}/{purpose}") | 1))
    return ((mixed >> np.uint64(64 - MANTISSA_BITS)).astype(np.float64) + 0.5) / 2.0**MANTISSA_BITS


def keyed_normal(names: np.ndarray, purpose: str, seed: int) -> Float[np.ndarray, " agent"]:
    """Draw one standard normal number for each name."""
    return np.asarray(ndtri(keyed_uniform(names, purpose, seed)))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _mix(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(30))) * FIRST_MIX
    bits = (bits ^ (bits >> np.uint64(27))) * SECOND_MIX
    return bits ^ (bits >> np.uint64(31))


MARGIN_SHAPES = (1.7611, 1.2719)
MARGIN_TOP = 0.4847
"""Beta shapes and upper end that give gross margins p5/50/95 = 7.4/29.1/45.7 % (supermarket juice, 106,139 weeks)."""
LEAD_SHAPE = 2.49
"""Gamma shape of purchase-order lead times (3,399 shipments of 68 vendors)."""
LEAD_MEDIAN = 2.0
LEAD_BOUNDS = (1.0, 4.0)
LEAD_LOG_SD_VENDOR = 0.326
LEAD_LOG_SD_WITHIN = 0.6405
"""Log standard deviations between vendors and within a vendor, same source."""
VOLUME_LOG_SD = 0.75
PRICE_MEDIAN = 3.5
PRICE_LOG_SDS = (1.183, 0.843)
"""Log standard deviations below and above the median: p5/95 = 0.5/14."""
CATEGORY = "all"


def complete_panel(panel: Panel, *, seed: int = 0) -> Panel:
    """Draw what the table lacks from stated distributions.

    Args:
        panel: what was read.
        seed: of the draws; another seed gives another equally plausible table.

    Returns:
        A panel whose price, unit cost, lead time, volume, fill rate, vendor and category are all there.
    """
    for name in FIELDS:
        panel = _fill(panel, name, *_rules(panel, seed)[name])
    return panel


def gross_margins(names: np.ndarray, seed: int) -> Float[np.ndarray, " agent"]:
    """Draw a gross margin per product, as a share of the sale price."""
    return np.asarray(MARGIN_TOP * betaincinv(*MARGIN_SHAPES, keyed_uniform(names, "margin", seed)))


def lead_times(names: np.ndarray, vendors: np.ndarray, seed: int) -> Float[np.ndarray, " agent"]:
    """Draw a typical lead time per product: Gamma-shaped, alike within a vendor, whole weeks from 1 to 4 [weeks]."""
    between, within = LEAD_LOG_SD_VENDOR, LEAD_LOG_SD_WITHIN
    score = between * keyed_normal(vendors, "lead time of vendor", seed) + within * keyed_normal(names, "lead", seed)
    gamma = gammaincinv(LEAD_SHAPE, ndtr(score / np.hypot(between, within)))
    weeks = gamma / gammaincinv(LEAD_SHAPE, 0.5) * LEAD_MEDIAN
    return np.clip(np.round(weeks), *LEAD_BOUNDS)


def vendor_labels(names: np.ndarray, seed: int) -> np.ndarray:
    """Assign about as many vendors as the square root of the number of products.

    The number is a power of two, so that leaving a few products out seldom moves the others to other vendors.
    """
    count = 2 ** round(np.log2(np.sqrt(max(names.size, 1))))
    index = np.floor(keyed_uniform(names, "vendor", seed) * count).astype(int)
    return np.char.add("vendor ", np.char.zfill((index + 1).astype(np.str_), len(str(count))))


def _rules(panel: Panel, seed: int) -> dict[str, tuple[str, Callable[[], np.ndarray]]]:
    """Return for each field its distribution in words and a function that draws one value per product."""
    names = panel.agents

    def price() -> np.ndarray:
        score = keyed_normal(names, "price", seed)
        drawn = PRICE_MEDIAN * np.exp(score * np.where(score < 0, *PRICE_LOG_SDS))
        return np.broadcast_to(drawn, panel.units.shape).copy()

    return {
        "vendor": (
            "products are assigned at random to about as many vendors as the square root of their number",
            lambda: vendor_labels(names, seed),
        ),
        "category": (f'all products are in one category, "{CATEGORY}"', lambda: np.full(panel.n_agents, CATEGORY)),
        "price": (
            f"constant per product, lognormal around {PRICE_MEDIAN:g} (5th and 95th percentile 0.5 and 14)",
            price,
        ),
        "unit_cost": (
            "sale price times one minus a gross margin drawn per product (5th, 50th, 95th percentile 7, 29, 46 %)",
            lambda: np.asarray(panel.price) * (1.0 - gross_margins(names, seed)),
        ),
        "lead_time": (
            f"whole weeks, Gamma-shaped (shape {LEAD_SHAPE:g}) around a median of {LEAD_MEDIAN:g} weeks with a vendor "
            f"component (log standard deviation {LEAD_LOG_SD_VENDOR:.2f}), cut to "
            f"{LEAD_BOUNDS[0]:g}-{LEAD_BOUNDS[1]:g} weeks",
            lambda: lead_times(names, np.asarray(panel.vendor), seed),
        ),
        "volume": (
            f"lognormal with median 1 (log standard deviation {VOLUME_LOG_SD:g})",
            lambda: np.exp(VOLUME_LOG_SD * keyed_normal(names, "volume", seed)),
        ),
        "fill_rate": ("vendors deliver what is ordered (fill rate 1)", lambda: np.ones(panel.n_agents)),
    }


FIELDS = ("vendor", "category", "price", "unit_cost", "lead_time", "volume", "fill_rate")
"""Fields that may be assumed, in an order in which later ones may use earlier ones."""


def _fill(panel: Panel, name: str, words: str, draw: Callable[[], np.ndarray]) -> Panel:
    """Fill a field where it is missing and record it; nothing is drawn where all is given."""
    given = getattr(panel, name)
    missing = np.ones(panel.n_agents, dtype=bool) if given is None else _missing(given)
    if not missing.any():
        return panel
    values, origin = draw(), f"assumed: {words}"
    if given is not None:
        values = np.where(missing, values, given)
        before = panel.provenance.get(name, "given")
        origin = f"{before}; {missing.sum():,} of {panel.n_agents:,} products {origin}"
    change: dict[str, Any] = {name: values, "provenance": {**panel.provenance, name: origin}}
    return replace(panel, **change)


def _missing(given: np.ndarray) -> np.ndarray:
    if given.dtype.kind in "UO":
        return given == NOT_RECORDED
    return np.isnan(given).any(axis=0) if given.ndim > 1 else np.isnan(given)
