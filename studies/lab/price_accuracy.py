"""Own how near charged shadow prices come to those of a reference, week by week.

CONTRACT: studies and reports read the measures by name.
"""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from walras.errors import shape_mismatch
from walras.evaluation.tallies import finite_array

PRICE_MEASURES = ("mean_price", "mean_price_over_reference", "price_correlation", "price_slope")
"""Measures that have a value per path and so an interval."""

HARDLY = 1e-6
"""Prices that spread or amount to less than this share of the price scale have no correlation, slope or ratio."""

AXES = ("path", "week", "resource")


def price_values(
    shadow_prices: npt.ArrayLike,
    reference: npt.ArrayLike,
    price_scale: npt.ArrayLike,
    burn_in: int = 0,
    *,
    counted: npt.ArrayLike | None = None,
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
        counted: weeks to compare in; where even the reference could not keep to capacity its price has no meaning.
            `mean_price` counts all weeks [path, week, resource].

    Raises:
        ShapeError: where paths, weeks or resources do not meet.
        NotFiniteError: where a number is NaN or infinite.
    """
    charged, given = finite_array("shadow_prices", shadow_prices, AXES), finite_array("reference", reference, AXES)
    scale = finite_array("price_scale", price_scale, ("path",))
    if given.shape != charged.shape or len(scale) != len(charged):
        raise shape_mismatch(
            "reference", given.shape, charged.shape, "give both for the same paths, weeks and resources"
        )
    kept = np.ones(charged.shape, bool) if counted is None else np.asarray(counted, bool)
    found: dict[str, dict[int, float]] = {name: {} for name in PRICE_MEASURES}
    for path, unit in enumerate(scale):
        found["mean_price"][path] = float(charged[path, burn_in:].mean() / unit)
        ours, theirs = (each[path, burn_in:][kept[path, burn_in:]] / unit for each in (charged, given))
        for name, value in _compared(ours, theirs).items():
            found[name][path] = value
    return found


def _compared(ours: Float[np.ndarray, " entry"], theirs: Float[np.ndarray, " entry"]) -> dict[str, float]:
    if len(ours) == 0 or theirs.mean() <= HARDLY:
        return {}
    values = {"mean_price_over_reference": float(ours.mean() / theirs.mean())}
    if theirs.std() > HARDLY:
        covariance = float(((ours - ours.mean()) * (theirs - theirs.mean())).mean())
        values["price_slope"] = covariance / float(theirs.var())
        if ours.std() > HARDLY:
            values["price_correlation"] = covariance / float(ours.std() * theirs.std())
    return values
