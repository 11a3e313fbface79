"""Metrics of forecasts and prices: relative errors, calibration line, differences of twins, price accuracy.

Tallies are sums per path and resource, so that pieces of a study can be added. Field names are stored in results.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from walras.errors import InputError, shape_mismatch
from walras.evaluation.metrics import SMALL_USE
from walras.evaluation.tallies import AbstractTally, finite_array, mean_ratio, path_contributions, path_numbers

Sums = Float[np.ndarray, "path resource"]
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
class ForecastMetrics:
    """Relative errors, per path and resource and then averaged.

    Attributes:
        mape: mean `|U_hat - U| / U` over origins and weeks; None where every week was dropped.
        bias: mean `(U_hat - U) / U` over the same weeks.
        weeks: origins x weeks counted, over all paths and resources.
        dropped_weeks: left out because U is below 5 % of its mean (or zero).
    """

    mape: float | None
    bias: float | None
    weeks: int
    dropped_weeks: int


@dataclass(frozen=True, eq=False)
class ForecastTally(AbstractTally):
    """Sums of relative errors and numbers of weeks.

    Attributes:
        weeks, dropped_weeks: weeks with and without a relative error.
        absolute_error, signed_error: sums of the relative errors.
    """

    weeks: Sums
    dropped_weeks: Sums
    absolute_error: Sums
    signed_error: Sums

    def metrics(self) -> ForecastMetrics:
        """Derive the metrics from the sums."""
        return ForecastMetrics(
            mape=mean_ratio(self.absolute_error, self.weeks),
            bias=mean_ratio(self.signed_error, self.weeks),
            weeks=int(self.weeks.sum()),
            dropped_weeks=int(self.dropped_weeks.sum()),
        )

    def path_values(self) -> dict[int, float]:
        """Return path -> value; their mean is the MAPE."""
        kept, values = path_contributions(self.absolute_error, self.weeks)
        return dict(zip(self.paths[kept].tolist(), values.tolist(), strict=True))


def _checked_forecasts(forecast: npt.ArrayLike, realised: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    predicted = finite_array("forecast", forecast, FORECAST_AXES)
    actual = finite_array("realised", realised, FORECAST_AXES)
    if predicted.shape != actual.shape:
        raise shape_mismatch("forecast", predicted.shape, actual.shape, "pass forecasts of the realised weeks")
    if predicted.size == 0:
        raise InputError(f"`forecast` has shape {predicted.shape} and needs at least one week; pass at least one")
    return predicted, actual


def forecast_tally(
    forecast: npt.ArrayLike,
    realised: npt.ArrayLike,
    *,
    mean_utilization: npt.ArrayLike | None = None,
    first_path: int = 0,
) -> ForecastTally:
    """Sum the relative errors of forecasts.

    Args:
        forecast: U_hat [path, origin, week, resource], the weeks 1 to 26 after each origin.
        realised: U of the same weeks [path, origin, week, resource].
        mean_utilization: mean U that decides which weeks are too small [path, resource], default that of `realised`;
            give it where a path's origins come in several pieces.
        first_path: number of the first path.
    """
    predicted, actual = _checked_forecasts(forecast, realised)
    paths, resources = actual.shape[0], actual.shape[3]
    mean = actual.mean(axis=(1, 2))
    if mean_utilization is not None:
        mean = finite_array("mean_utilization", mean_utilization, ("path", "resource"))
    if mean.shape != (paths, resources):
        raise shape_mismatch("mean_utilization", mean.shape, (paths, resources), "pass one mean per path and resource")
    counted = (actual > 0) & (actual >= SMALL_USE * mean[:, None, None, :])
    error = np.divide(predicted - actual, actual, out=np.zeros_like(actual), where=counted)
    parts = {"weeks": counted, "dropped_weeks": ~counted, "absolute_error": np.abs(error), "signed_error": error}
    sums = {name: values.sum(axis=(1, 2), dtype=np.float64) for name, values in parts.items()}
    return ForecastTally(paths=path_numbers(paths, first_path), **sums)


def forecast_metrics(forecast: npt.ArrayLike, realised: npt.ArrayLike) -> ForecastMetrics:
    """Return the metrics of forecasts; see `forecast_tally` for the arguments."""
    return forecast_tally(forecast, realised).metrics()


@dataclass(frozen=True)
class Calibration:
    """Least-squares line `U = intercept + slope U_hat` over all weeks of all paths and resources.

    Attributes:
        slope: 1 is right; below 1 forecasts vary too much, above 1 too little. None where forecasts never vary.
        intercept: in the unit of the utilization given; None with the slope.
        correlation: of forecast and realised use; None where either never varies.
    """

    slope: float | None
    intercept: float | None
    correlation: float | None


@dataclass(frozen=True, eq=False)
class CalibrationTally(AbstractTally):
    """Sums of first and second moments.

    Attributes:
        weeks: weeks counted.
        forecast, realised: sums of each.
        forecast_squared, realised_squared, product: sums of squares, and of forecast x realised.
    """

    weeks: Sums
    forecast: Sums
    realised: Sums
    forecast_squared: Sums
    realised_squared: Sums
    product: Sums

    def metrics(self) -> Calibration:
        """Derive the line from the sums."""
        weeks, predicted, actual = (float(part.sum()) for part in (self.weeks, self.forecast, self.realised))
        squares, actual_squares = float(self.forecast_squared.sum()), float(self.realised_squared.sum())
        spread = squares - predicted**2 / weeks
        if spread <= ROUNDING * squares:
            return Calibration(None, None, None)
        both = float(self.product.sum()) - predicted * actual / weeks
        slope, other = both / spread, actual_squares - actual**2 / weeks
        correlation = None if other <= ROUNDING * actual_squares else both / (spread * other) ** 0.5
        return Calibration(slope, (actual - slope * predicted) / weeks, correlation)


def calibration_tally(forecast: npt.ArrayLike, realised: npt.ArrayLike, *, first_path: int = 0) -> CalibrationTally:
    """Sum the moments of forecasts; give utilization relative to its scale where paths differ in size.

    Args:
        forecast: U_hat [path, origin, week, resource].
        realised: U of the same weeks [path, origin, week, resource].
        first_path: number of the first path.
    """
    predicted, actual = _checked_forecasts(forecast, realised)
    parts = {
        "weeks": np.ones_like(actual),
        "forecast": predicted,
        "realised": actual,
        "forecast_squared": predicted**2,
        "realised_squared": actual**2,
        "product": predicted * actual,
    }
    sums = {name: values.sum(axis=(1, 2)) for name, values in parts.items()}
    return CalibrationTally(paths=path_numbers(len(actual), first_path), **sums)


@dataclass(frozen=True)
class TwinMetrics:
    """Errors of the predicted difference between twins, relative to their mean utilization.

    Attributes:
        twin_error: mean `|(F_a - F_b) - (U_a - U_b)|`, over mean U.
        difference: mean `|U_a - U_b|`, likewise: the error of a forecast that sees no difference.
        predicted_difference: mean `|F_a - F_b|`, likewise.
        captured: slope of the real difference on the predicted one, through 0; None where none is predicted.
        explained: 1 - sum of squared errors / sum of squared differences; 0 for a forecast that sees no difference.
    """

    twin_error: float
    difference: float
    predicted_difference: float
    captured: float | None
    explained: float


@dataclass(frozen=True, eq=False)
class TwinTally(AbstractTally):
    """Sums of differences between twins and of errors of them, per pair and resource.

    Attributes:
        use: sums of the twins' mean utilization.
        difference, predicted, error: sums of the absolute real difference, the predicted one, and their distance.
        difference_squared, predicted_squared, product: sums of squares, and of real x predicted difference.
    """

    use: Sums
    difference: Sums
    predicted: Sums
    error: Sums
    difference_squared: Sums
    predicted_squared: Sums
    product: Sums

    def metrics(self) -> TwinMetrics:
        """Derive the metrics from the sums."""
        use, squared = float(self.use.sum()), float(self.difference_squared.sum())
        predicted, product = float(self.predicted_squared.sum()), float(self.product.sum())
        missed = squared - 2 * product + predicted
        return TwinMetrics(
            twin_error=float(self.error.sum()) / use,
            difference=float(self.difference.sum()) / use,
            predicted_difference=float(self.predicted.sum()) / use,
            captured=product / predicted if predicted > 0 else None,
            explained=1.0 - missed / squared if squared > 0 else 0.0,
        )

    def pair_values(self) -> dict[int, float]:
        """Return pair -> twin error."""
        return dict(zip(self.paths.tolist(), (self.error.sum(1) / self.use.sum(1)).tolist(), strict=True))


def twin_tally(forecast: npt.ArrayLike, realised: npt.ArrayLike, *, first_pair: int = 0) -> TwinTally:
    """Sum differences between twins.

    Args:
        forecast: U_hat of both twins of each pair [pair, twin, origin, week, resource].
        realised: U of the same weeks, or its expectation [pair, twin, origin, week, resource].
        first_pair: number of the first pair.
    """
    predicted, actual = finite_array("forecast", forecast, TWIN_AXES), finite_array("realised", realised, TWIN_AXES)
    if predicted.shape != actual.shape or predicted.shape[1] != 2:
        needed = (len(actual), 2, *actual.shape[2:])
        raise shape_mismatch("forecast", predicted.shape, needed, "pass forecasts of both twins in the realised weeks")
    if not (actual > 0).any(axis=(1, 2, 3, 4)).all():
        raise InputError("`realised` has a pair that uses nothing at all; leave out pairs without utilization")
    guess, true = predicted[:, 0] - predicted[:, 1], actual[:, 0] - actual[:, 1]
    parts = {
        "use": actual.mean(axis=1),
        "difference": np.abs(true),
        "predicted": np.abs(guess),
        "error": np.abs(guess - true),
        "difference_squared": true**2,
        "predicted_squared": guess**2,
        "product": guess * true,
    }
    sums = {name: values.sum(axis=(1, 2)) for name, values in parts.items()}
    return TwinTally(paths=path_numbers(len(actual), first_pair), **sums)


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
