"""Own how near charged shadow prices come to those of a reference, week by week.

CONTRACT: studies and reports read the measures by name.
"""

import numpy as np
import numpy.typing as npt

from walras.errors import shape_mismatch
from walras.evaluation.tally import checked

PRICE_MEASURES = ("mean_price", "mean_price_over_reference", "price_correlation", "price_slope")
"""Measures that have a value per path and so an interval."""

HARDLY = 1e-6
"""Prices that spread or amount to less than this share of the price scale have no correlation, slope or ratio."""

AXES = ("path", "week", "resource")


def price_values(
    shadow_prices: npt.ArrayLike, reference: npt.ArrayLike, price_scale: npt.ArrayLike, burn_in: int = 0
) -> dict[str, dict[int, float]]:
    """Return measure -> path -> value; paths that say nothing about a measure are absent.

    `mean_price` is in price scales; `mean_price_over_reference` is the mean charged over the mean of the reference;
    `price_correlation` is Pearson's over weeks and resources; `price_slope` is that of the line by which the charged
    price is read off the reference (1 and a correlation of 1: the same but for a constant).

    Args:
        shadow_prices: prices charged [money per unit of resource; path, week, resource].
        reference: prices to compare with, e.g. the clairvoyant oracle's, likewise.
        price_scale: median unit margin of each path's population [money; path].
        burn_in: first weeks to skip.

    Raises:
        ShapeError: where paths, weeks or resources do not meet.
        NotFiniteError: where a number is NaN or infinite.
    """
    charged, given = checked("shadow_prices", shadow_prices, AXES), checked("reference", reference, AXES)
    scale = checked("price_scale", price_scale, ("path",))
    if given.shape != charged.shape or len(scale) != len(charged):
        raise shape_mismatch("reference", given.shape, charged.shape, "give both for the same paths, weeks and resources")
    found: dict[str, dict[int, float]] = {name: {} for name in PRICE_MEASURES}
    for path, unit in enumerate(scale):
        ours, theirs = (each[path, burn_in:].ravel() / unit for each in (charged, given))
        for name, value in _of_path(ours, theirs).items():
            found[name][path] = value
    return found


def _of_path(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    values = {"mean_price": float(ours.mean())}
    if theirs.mean() > HARDLY:
        values["mean_price_over_reference"] = float(ours.mean() / theirs.mean())
    if theirs.std() > HARDLY:
        covariance = float(((ours - ours.mean()) * (theirs - theirs.mean())).mean())
        values["price_slope"] = covariance / float(theirs.var())
        if ours.std() > HARDLY:
            values["price_correlation"] = covariance / float(ours.std() * theirs.std())
    return values
