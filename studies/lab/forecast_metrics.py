"""Own how far predicted utilization is from what came about.

CONTRACT: studies and reports read `ForecastMetrics`; the field names are stored in records.
"""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from walras.errors import InputError, shape_mismatch
from walras.evaluation.metrics import SMALL_USE
from walras.evaluation.tallies import AbstractTally, finite_array, mean_ratio, path_contributions, path_numbers

Sums = Float[np.ndarray, "path resource"]
AXES = ("path", "origin", "week", "resource")


@dataclass(frozen=True)
class ForecastMetrics:
    """Say how far forecasts were off; ratios are per path and resource, then averaged.

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

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the measures by name, ready for a record."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class ForecastTally(AbstractTally):
    """Sum relative errors and count weeks, per path and resource.

    Attributes:
        weeks, dropped_weeks: weeks with and without a relative error.
        absolute_error, signed_error: sums of the relative errors.
    """

    weeks: Sums
    dropped_weeks: Sums
    absolute_error: Sums
    signed_error: Sums

    def metrics(self) -> ForecastMetrics:
        """Derive the measures from the sums."""
        return ForecastMetrics(
            mape=mean_ratio(self.absolute_error, self.weeks),
            bias=mean_ratio(self.signed_error, self.weeks),
            weeks=int(self.weeks.sum()),
            dropped_weeks=int(self.dropped_weeks.sum()),
        )

    def path_values(self) -> dict[int, float]:
        """Return one value per path (number -> value) whose mean is the MAPE."""
        kept, values = path_contributions(self.absolute_error, self.weeks)
        return dict(zip(self.paths[kept].tolist(), values.tolist(), strict=True))


def forecast_tally(
    forecast: npt.ArrayLike,
    realised: npt.ArrayLike,
    *,
    mean_utilization: npt.ArrayLike | None = None,
    first_path: int = 0,
) -> ForecastTally:
    """Sum up the errors of one piece of a study, so that pieces can be added.

    Args:
        forecast: U_hat [path, origin, week, resource], the weeks 1 to 26 after each origin.
        realised: U of the same weeks [path, origin, week, resource].
        mean_utilization: mean U that decides which weeks are too small [path, resource]; taken from `realised` where
            it is not given. Pass it where a path's origins come in several pieces.
        first_path: number of the first path.
    """
    predicted, actual = finite_array("forecast", forecast, AXES), finite_array("realised", realised, AXES)
    if predicted.shape != actual.shape:
        raise shape_mismatch("forecast", predicted.shape, actual.shape, "pass forecasts of the realised weeks")
    if predicted.size == 0:
        raise InputError(f"`forecast` has shape {predicted.shape} and needs at least one week; pass at least one")
    paths, resources = actual.shape[0], actual.shape[3]
    mean = actual.mean(axis=(1, 2))
    if mean_utilization is not None:
        mean = finite_array("mean_utilization", mean_utilization, ("path", "resource"))
    if mean.shape != (paths, resources):
        raise shape_mismatch("mean_utilization", mean.shape, (paths, resources), "pass one mean per path and resource")
    counted = (actual > 0) & (actual >= SMALL_USE * mean[:, None, None, :])
    error = np.divide(predicted - actual, actual, out=np.zeros_like(actual), where=counted)
    sums = {"weeks": counted, "dropped_weeks": ~counted, "absolute_error": np.abs(error), "signed_error": error}
    summed = {name: values.sum(axis=(1, 2), dtype=np.float64) for name, values in sums.items()}
    return ForecastTally(paths=path_numbers(paths, first_path), **summed)


def forecast_metrics(forecast: npt.ArrayLike, realised: npt.ArrayLike) -> ForecastMetrics:
    """Measure forecasts of utilization; see `forecast_tally` for the arguments."""
    return forecast_tally(forecast, realised).metrics()
