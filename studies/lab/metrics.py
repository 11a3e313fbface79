"""Metrics of forecasts and prices: relative errors, calibration slope, differences of twins, price accuracy."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from walras.errors import InputError, shape_mismatch
from walras.evaluation.inference import finite_array
from walras.evaluation.metrics import SMALL_USE, mean_ratio, path_contributions

FORECAST_AXES = ("path", "origin", "week", "resource")
TWIN_AXES = ("pair", "twin", "origin", "week", "resource")
PRICE_AXES = ("path", "week", "resource")

PRICE_MEASURES = ("mean_price", "mean_price_over_reference", "price_correlation", "price_slope")
"""Measures of `price_values`."""

NEGLIGIBLE_PRICE = 1e-6
"""Prices whose mean or spread is below this share of the price scale have no correlation, slope or ratio."""

ROUNDING = 1e-12
"""Share of the sum of squares below which a variance is rounding."""


@dataclass(frozen=True)
class ForecastErrors:
    """Relative errors, per path and resource and then averaged.

    Attributes:
        mape: mean `|U_hat - U| / U` over origins and weeks; None where every week was dropped.
        bias: mean `(U_hat - U) / U` over the same weeks.
        dropped_weeks: left out because U is below 5 % of its mean (or zero), over all paths and resources.
        by_path: path -> value; their mean is the MAPE.
    """

    mape: float | None
    bias: float | None
    dropped_weeks: int
    by_path: dict[int, float]


def _checked(forecast: npt.ArrayLike, realised: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    predicted, actual = (
        finite_array(name, values, FORECAST_AXES) for name, values in (("forecast", forecast), ("realised", realised))
    )
    if predicted.shape != actual.shape:
        raise shape_mismatch("forecast", predicted.shape, actual.shape, "pass forecasts of the realised weeks")
    if predicted.size == 0:
        raise InputError(f"`forecast` has shape {predicted.shape} and needs at least one week; pass at least one")
    return predicted, actual


def forecast_errors(
    forecast: npt.ArrayLike, realised: npt.ArrayLike, mean_utilization: npt.ArrayLike | None = None
) -> ForecastErrors:
    """Measure relative errors of forecasts.

    Args:
        forecast: U_hat [path, origin, week, resource], the weeks 1 to 26 after each origin.
        realised: U of the same weeks [path, origin, week, resource].
        mean_utilization: mean U that decides which weeks are too small [path, resource]; default that of `realised`.
    """
    predicted, actual = _checked(forecast, realised)
    paths, resources = actual.shape[0], actual.shape[3]
    mean = actual.mean(axis=(1, 2))
    if mean_utilization is not None:
        mean = finite_array("mean_utilization", mean_utilization, ("path", "resource"))
    if mean.shape != (paths, resources):
        raise shape_mismatch("mean_utilization", mean.shape, (paths, resources), "pass one mean per path and resource")
    counted = (actual > 0) & (actual >= SMALL_USE * mean[:, None, None, :])
    error = np.divide(predicted - actual, actual, out=np.zeros_like(actual), where=counted)
    parts = (counted, ~counted, np.abs(error), error)
    weeks, dropped, absolute, signed = (part.sum(axis=(1, 2), dtype=np.float64) for part in parts)
    kept, values = path_contributions(absolute, weeks)
    by_path = dict(zip(np.arange(paths)[kept].tolist(), values.tolist(), strict=True))
    return ForecastErrors(mean_ratio(absolute, weeks), mean_ratio(signed, weeks), int(dropped.sum()), by_path)


def calibration_slope(forecast: npt.ArrayLike, realised: npt.ArrayLike) -> float | None:
    """Return the slope of the least-squares line `U = intercept + slope U_hat` over all weeks, paths and resources.

    1 is right; below 1 forecasts vary too much, above 1 too little. None where forecasts never vary. Give utilization
    relative to its scale where paths differ in size.

    Args:
        forecast: U_hat [path, origin, week, resource].
        realised: U of the same weeks [path, origin, week, resource].
    """
    predicted, actual = _checked(forecast, realised)
    parts = (predicted, actual, predicted**2, predicted * actual)
    forecasts, uses, squares, products = (float(part.sum(axis=(1, 2)).sum()) for part in parts)
    spread = squares - forecasts**2 / predicted.size
    return None if spread <= ROUNDING * squares else (products - forecasts * uses / predicted.size) / spread


@dataclass(frozen=True)
class TwinErrors:
    """Errors of the predicted difference between twins, relative to their mean utilization.

    Attributes:
        twin_error: mean `|(F_a - F_b) - (U_a - U_b)|`, over mean U.
        difference: mean `|U_a - U_b|`, likewise: the error of a forecast that sees no difference.
        predicted_difference: mean `|F_a - F_b|`, likewise.
        captured: slope of the real difference on the predicted one, through 0; None where none is predicted.
        explained: 1 - sum of squared errors / sum of squared differences; 0 for a forecast that sees no difference.
        by_pair, difference_by_pair: `twin_error` and `difference` of each pair.
    """

    twin_error: float
    difference: float
    predicted_difference: float
    captured: float | None
    explained: float
    by_pair: list[float]
    difference_by_pair: list[float]


def twin_errors(forecast: npt.ArrayLike, realised: npt.ArrayLike) -> TwinErrors:
    """Measure predicted differences between twins.

    Args:
        forecast: U_hat of both twins of each pair [pair, twin, origin, week, resource].
        realised: U of the same weeks, or its expectation [pair, twin, origin, week, resource].
    """
    predicted, actual = finite_array("forecast", forecast, TWIN_AXES), finite_array("realised", realised, TWIN_AXES)
    if predicted.shape != actual.shape or predicted.shape[1] != 2:
        needed = (len(actual), 2, *actual.shape[2:])
        raise shape_mismatch("forecast", predicted.shape, needed, "pass forecasts of both twins in the realised weeks")
    if not (actual > 0).any(axis=(1, 2, 3, 4)).all():
        raise InputError("`realised` has a pair that uses nothing at all; leave out pairs without utilization")
    guess, true = predicted[:, 0] - predicted[:, 1], actual[:, 0] - actual[:, 1]
    parts = (actual.mean(axis=1), np.abs(true), np.abs(guess), np.abs(guess - true), true**2, guess**2, guess * true)
    use, real, seen, error, *squares = (part.sum(axis=(1, 2)) for part in parts)
    real_squared, seen_squared, product = (float(part.sum()) for part in squares)
    missed = real_squared - 2 * product + seen_squared
    return TwinErrors(
        *(float(part.sum()) / float(use.sum()) for part in (error, real, seen)),
        captured=product / seen_squared if seen_squared > 0 else None,
        explained=1.0 - missed / real_squared if real_squared > 0 else 0.0,
        by_pair=(error.sum(1) / use.sum(1)).tolist(),
        difference_by_pair=(real.sum(1) / use.sum(1)).tolist(),
    )


def price_values(
    shadow_prices: npt.ArrayLike,
    reference: npt.ArrayLike,
    price_scale: npt.ArrayLike,
    burn_in: int = 0,
    *,
    counted: npt.ArrayLike | None = None,
) -> dict[str, dict[int, float]]:
    """Compare prices with a reference; return measure -> path -> value, without paths where it is not defined.

    `mean_price` is in price scales; `mean_price_over_reference` is a ratio of means; `price_correlation` is Pearson's
    over weeks and resources; `price_slope` is that of the regression line of the charged price on the reference.

    Args:
        shadow_prices: charged [money per unit of resource; path, week, resource].
        reference: e.g. the clairvoyant oracle's, likewise.
        price_scale: median unit margin of each path's population [money; path].
        burn_in: first weeks to skip.
        counted: weeks to compare in [path, week, resource]; the reference has no meaning where it could not keep to
            capacity either. `mean_price` counts all weeks.

    Raises:
        ShapeError: paths, weeks or resources differ.
        NotFiniteError: a number is NaN or infinite.
    """
    charged = finite_array("shadow_prices", shadow_prices, PRICE_AXES)
    given = finite_array("reference", reference, PRICE_AXES)
    scale = finite_array("price_scale", price_scale, ("path",))
    if given.shape != charged.shape or len(scale) != len(charged):
        remedy = "give both for the same paths, weeks and resources"
        raise shape_mismatch("reference", given.shape, charged.shape, remedy)
    kept = np.ones(charged.shape, bool) if counted is None else np.asarray(counted, bool)
    values: dict[str, dict[int, float]] = {name: {} for name in PRICE_MEASURES}
    for path, unit in enumerate(scale):
        values["mean_price"][path] = float(charged[path, burn_in:].mean() / unit)
        ours, theirs = (part[path, burn_in:][kept[path, burn_in:]] / unit for part in (charged, given))
        for name, value in _compare_prices(ours, theirs).items():
            values[name][path] = value
    return values


def _compare_prices(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    if len(ours) == 0 or theirs.mean() <= NEGLIGIBLE_PRICE:
        return {}
    values = {"mean_price_over_reference": float(ours.mean() / theirs.mean())}
    if theirs.std() > NEGLIGIBLE_PRICE:
        covariance = float(((ours - ours.mean()) * (theirs - theirs.mean())).mean())
        values["price_slope"] = covariance / float(theirs.var())
        if ours.std() > NEGLIGIBLE_PRICE:
            values["price_correlation"] = covariance / float(ours.std() * theirs.std())
    return values
