"""Own how well forecasts tell two populations apart whose totals are the same.

CONTRACT: studies and reports read `TwinMetrics`; the field names are stored in records.
"""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from walras.errors import InputError, shape_mismatch
from walras.evaluation.tallies import AbstractTally, finite_array, path_numbers

Sums = Float[np.ndarray, "path resource"]
AXES = ("pair", "twin", "origin", "week", "resource")


@dataclass(frozen=True)
class TwinMetrics:
    """Say how far the predicted difference between twins is from the real one, over the twins' mean utilization.

    Attributes:
        twin_error: mean `|(F_a - F_b) - (U_a - U_b)|`, over mean U.
        difference: mean `|U_a - U_b|`, likewise: the error of a forecast that sees no difference.
        predicted_difference: mean `|F_a - F_b|`, likewise.
        captured: slope of the real difference on the predicted one, through 0; None where none is predicted.
        explained: 1 - sum of squared errors / sum of squared differences; 0 is a forecast that sees no difference.
    """

    twin_error: float
    difference: float
    predicted_difference: float
    captured: float | None
    explained: float

    def as_dict(self) -> dict[str, float | None]:
        """Return the measures by name, ready for a record."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class TwinTally(AbstractTally):
    """Sum differences between twins and errors of them, per pair and resource.

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
        """Derive the measures from the sums."""
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
        """Return one twin error per pair (number -> value)."""
        return dict(zip(self.paths.tolist(), (self.error.sum(1) / self.use.sum(1)).tolist(), strict=True))


def twin_tally(forecast: npt.ArrayLike, realised: npt.ArrayLike, *, first_pair: int = 0) -> TwinTally:
    """Sum up differences between twins.

    Args:
        forecast: U_hat of both twins of each pair [pair, twin, origin, week, resource].
        realised: U of the same weeks, or what is expected of it [pair, twin, origin, week, resource].
        first_pair: number of the first pair.
    """
    predicted, actual = finite_array("forecast", forecast, AXES), finite_array("realised", realised, AXES)
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
    summed = {name: values.sum(axis=(1, 2)) for name, values in parts.items()}
    return TwinTally(paths=path_numbers(len(actual), first_pair), **summed)
