"""Own whether forecasts are of the right size: the line of realised on predicted utilization.

CONTRACT: studies and reports read `Calibration`; the field names are stored in records.
"""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from walras.errors import InputError, shape_mismatch
from walras.evaluation.tallies import AbstractTally, finite_array, path_numbers

Sums = Float[np.ndarray, "path resource"]
AXES = ("path", "origin", "week", "resource")


@dataclass(frozen=True)
class Calibration:
    """Hold the least-squares line `U = intercept + slope U_hat` over all weeks of all paths and resources.

    Attributes:
        slope: 1 is right; below 1 forecasts vary too much, above 1 too little. None where forecasts never vary.
        intercept: in the unit of the utilization given; None with the slope.
        correlation: of forecast and realised; None where either never varies.
    """

    slope: float | None
    intercept: float | None
    correlation: float | None

    def as_dict(self) -> dict[str, float | None]:
        """Return the measures by name, ready for a record."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class CalibrationTally(AbstractTally):
    """Sum first and second moments of forecast and realised, per path and resource.

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
        spread = float(self.forecast_squared.sum()) - predicted**2 / weeks
        other = float(self.realised_squared.sum()) - actual**2 / weeks
        both = float(self.product.sum()) - predicted * actual / weeks
        # Sums of squares of equal numbers differ by rounding alone.
        flat = spread <= ROUNDING * float(self.forecast_squared.sum())
        if flat:
            return Calibration(None, None, None)
        slope = both / spread
        still = other <= ROUNDING * float(self.realised_squared.sum())
        return Calibration(
            slope, (actual - slope * predicted) / weeks, None if still else both / (spread * other) ** 0.5
        )


ROUNDING = 1e-12
"""Share of the sum of squares below which a variance is rounding."""


def calibration_tally(forecast: npt.ArrayLike, realised: npt.ArrayLike, *, first_path: int = 0) -> CalibrationTally:
    """Sum up the moments of one piece of a study; give utilization relative to its scale where paths differ in size.

    Args:
        forecast: U_hat [path, origin, week, resource].
        realised: U of the same weeks [path, origin, week, resource].
        first_path: number of the first path.
    """
    predicted, actual = finite_array("forecast", forecast, AXES), finite_array("realised", realised, AXES)
    if predicted.shape != actual.shape:
        raise shape_mismatch("forecast", predicted.shape, actual.shape, "pass forecasts of the realised weeks")
    if predicted.size == 0:
        raise InputError(f"`forecast` has shape {predicted.shape} and needs at least one week; pass at least one")
    parts = {
        "weeks": np.ones_like(actual),
        "forecast": predicted,
        "realised": actual,
        "forecast_squared": predicted**2,
        "realised_squared": actual**2,
        "product": predicted * actual,
    }
    summed = {name: values.sum(axis=(1, 2)) for name, values in parts.items()}
    return CalibrationTally(paths=path_numbers(len(actual), first_path), **summed)
