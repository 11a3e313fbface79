"""Own the measures of coordination: how far utilization exceeds capacity, and what that restraint left empty.

CONTRACT: plans, studies and reports read `ControlMetrics`; the field names are stored in records.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from walras.errors import InputError, SettingsError
from walras.evaluation import metrics
from walras.evaluation.inference import mean_interval, paired_interval
from walras.evaluation.tallies import (
    AbstractTally,
    checked_cells,
    defined_mean,
    on_every_path,
    path_contributions,
    path_numbers,
)

Sums = Float[np.ndarray, "path resource"]


@dataclass(frozen=True)
class ControlMetrics:
    """Say how well utilization kept to capacity; ratios are per path and resource, then averaged.

    Attributes:
        mean_violation: mean `max(U - K, 0) / K` over weeks; None where no week has capacity.
        near_limit_mean_violation: the same over near-limit weeks; None where there is none.
        near_limit_share: share of weeks with U0 > 0.9 K.
        share_weeks_over_10_percent: share of weeks with U > 1.1 K.
        near_limit_share_over_10_percent: share of near-limit weeks with U > 1.1 K; None where there is none.
        irreducible_violation: violation if nobody ordered after the origin; None where `committed` was not given.
        avoidable_violation: `mean_violation` minus the irreducible one.
        idle_capacity: mean `max(K - U, 0) / K` over weeks with U0 > K; None where there is none.
        slackness: `sum_t lambda_t (K_t - U_t)^+` over weeks and resources, mean over paths [money].
        complementarity_residual: mean `|min(lambda', K - U)| / K` with scaled prices; None without prices and scale.
        paths, weeks: paths, and weeks x paths x resources counted after the burn-in.
        near_limit_weeks: of those, near-limit ones.
        zero_capacity_weeks: weeks with K = 0, which have no ratio and are left out of the mean ratios.
        zero_capacity_weeks_used: of those, weeks with U > 0.
    """

    mean_violation: float | None
    near_limit_mean_violation: float | None
    near_limit_share: float | None
    share_weeks_over_10_percent: float | None
    near_limit_share_over_10_percent: float | None
    irreducible_violation: float | None
    avoidable_violation: float | None
    idle_capacity: float | None
    slackness: float | None
    complementarity_residual: float | None
    paths: int
    weeks: int
    near_limit_weeks: int
    zero_capacity_weeks: int
    zero_capacity_weeks_used: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the measures by name, ready for a record."""
        return asdict(self)


RATIOS: Mapping[str, tuple[str, str]] = {
    "mean_violation": ("violation", "open_weeks"),
    "near_limit_mean_violation": ("near_violation", "near_open_weeks"),
    "near_limit_share": ("near_weeks", "weeks"),
    "share_weeks_over_10_percent": ("over_weeks", "weeks"),
    "near_limit_share_over_10_percent": ("near_over_weeks", "near_weeks"),
    "irreducible_violation": ("committed_violation", "open_weeks"),
    "avoidable_violation": ("avoidable", "open_weeks"),
    "idle_capacity": ("idle", "short_open_weeks"),
    "complementarity_residual": ("residual", "open_weeks"),
}
"""Measure -> the sum and the count it is the quotient of."""


@dataclass(frozen=True, eq=False)
class ControlTally(AbstractTally):
    """Count weeks and sum what happened in them, per path and resource.

    Attributes:
        weeks, open_weeks: weeks counted; of them, those with K > 0.
        near_weeks, near_open_weeks: near-limit weeks; of them, those with K > 0.
        short_open_weeks: weeks with U0 > K > 0.
        over_weeks, near_over_weeks: weeks over 10 %, all and near-limit.
        used_closed_weeks: weeks with K = 0 and U > 0.
        violation, near_violation, idle: sums of the weekly ratios over the weeks that they are about.
        committed_violation, slack_value, residual: the same for what was given optionally.
    """

    weeks: Sums
    open_weeks: Sums
    near_weeks: Sums
    near_open_weeks: Sums
    short_open_weeks: Sums
    over_weeks: Sums
    near_over_weeks: Sums
    used_closed_weeks: Sums
    violation: Sums
    near_violation: Sums
    idle: Sums
    committed_violation: Sums | None = None
    slack_value: Sums | None = None
    residual: Sums | None = None

    @property
    def avoidable(self) -> Sums | None:
        """Return the violation minus what was in the pipeline already."""
        return None if self.committed_violation is None else self.violation - self.committed_violation

    def metrics(self) -> ControlMetrics:
        """Derive every measure from the sums."""
        return ControlMetrics(
            **{name: self._ratio(name) for name in RATIOS},
            slackness=None if self.slack_value is None else float(self.slack_value.sum(axis=1).mean()),
            paths=len(self.paths),
            weeks=int(self.weeks.sum()),
            near_limit_weeks=int(self.near_weeks.sum()),
            zero_capacity_weeks=int((self.weeks - self.open_weeks).sum()),
            zero_capacity_weeks_used=int(self.used_closed_weeks.sum()),
        )

    def path_values(self, measure: str) -> dict[int, float]:
        """Return path number -> value, whose mean is the measure; paths without such weeks are absent."""
        if measure == "slackness":
            sums = None if self.slack_value is None else self.slack_value.sum(axis=1, keepdims=True)
            counts = np.ones((len(self.paths), 1))
        elif measure in RATIOS:
            sums, counts = (getattr(self, name) for name in RATIOS[measure])
        else:
            raise SettingsError(f"`measure` is {measure!r} and needs to be one of {', '.join(MEASURES)}; choose one")
        if sums is None:
            return {}
        kept, values = path_contributions(sums, counts)
        return dict(zip(self.paths[kept].tolist(), values.tolist(), strict=True))

    def _ratio(self, measure: str) -> float | None:
        sums, counts = (getattr(self, name) for name in RATIOS[measure])
        return None if sums is None else defined_mean(sums, counts)


MEASURES = (*RATIOS, "slackness")
"""Measures that have a value per path and so an interval."""


def control_tally(
    utilization: npt.ArrayLike,
    unconstrained: npt.ArrayLike,
    capacity: npt.ArrayLike,
    committed: npt.ArrayLike | None = None,
    shadow_prices: npt.ArrayLike | None = None,
    burn_in: int = 0,
    *,
    price_scale: float | None = None,
    first_path: int = 0,
) -> ControlTally:
    """Sum up one piece of a study, so that pieces can be added.

    Args:
        utilization: U [path, week, resource].
        unconstrained: U0, the same paths with prices 0 throughout [path, week, resource].
        capacity: K [week, resource] or [path, week, resource].
        committed: utilization if nobody ordered after the origin, with or without the path axis.
        shadow_prices: prices charged [money per unit of resource], with or without the path axis.
        burn_in: first weeks to skip (`metrics.BURN_IN_WEEKS` in control studies, 0 for plans).
        price_scale: median unit margin [money], for the complementarity residual.
        first_path: number of the first path; pieces with the same numbers add up over their weeks.

    Raises:
        ShapeError: where paths, weeks or resources do not meet.
        NotFiniteError: where a number is NaN or infinite.
        InputError: where a capacity or a price is negative.
    """
    used = checked_cells("utilization", utilization, ("path", "week", "resource"))
    _check_settings(used.shape, burn_in, price_scale)

    def ready(name: str, values: npt.ArrayLike, minimum: float = -np.inf) -> np.ndarray:
        return on_every_path(name, values, used.shape, minimum)[:, burn_in:]

    free, limit = ready("unconstrained", unconstrained), ready("capacity", capacity, 0.0)
    already = None if committed is None else ready("committed", committed)
    prices = None if shadow_prices is None else ready("shadow_prices", shadow_prices, 0.0)
    use = used[:, burn_in:]
    sums = {**_counts(use, free, limit), **_ratio_sums(use, free, limit)}
    return ControlTally(
        paths=path_numbers(len(used), first_path),
        **{name: values.sum(axis=1, dtype=np.float64) for name, values in sums.items()},
        **_optional_sums(use, limit, already, prices, price_scale),
    )


def control_metrics(
    utilization: npt.ArrayLike,
    unconstrained: npt.ArrayLike,
    capacity: npt.ArrayLike,
    committed: npt.ArrayLike | None = None,
    shadow_prices: npt.ArrayLike | None = None,
    burn_in: int = 0,
    *,
    price_scale: float | None = None,
) -> ControlMetrics:
    """Measure how well utilization kept to capacity; see `control_tally` for the arguments."""
    tally = control_tally(
        utilization, unconstrained, capacity, committed, shadow_prices, burn_in, price_scale=price_scale
    )
    return tally.metrics()


def control_intervals(tally: ControlTally, level: float = 0.95, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Return measure -> (low, high) over paths, for every measure that two paths or more have."""
    values = {measure: list(tally.path_values(measure).values()) for measure in MEASURES}
    found = {measure: mean_interval(each, level, seed) for measure, each in values.items() if len(each) > 1}
    return {measure: _within(measure, interval.low, interval.high) for measure, interval in found.items()}


def _within(measure: str, low: float, high: float) -> tuple[float, float]:
    """Cut an interval to the values that the measure can take: all but the avoidable violation are at least 0."""
    least = -np.inf if measure == "avoidable_violation" else 0.0
    most = 1.0 if "share" in measure or measure == "idle_capacity" else np.inf
    return max(low, least), min(high, most)


def paired_control_intervals(
    ours: ControlTally, theirs: ControlTally, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return measure -> (low, high) of ours minus theirs, over the paths that both have."""
    found = {}
    for measure in MEASURES:
        left, right = ours.path_values(measure), theirs.path_values(measure)
        both = [path for path in left if path in right]
        if len(both) > 1:
            interval = paired_interval([left[path] for path in both], [right[path] for path in both], level, seed)
            found[measure] = (interval.low, interval.high)
    return found


def _check_settings(shape: tuple[int, ...], burn_in: int, price_scale: float | None) -> None:
    if 0 in shape:
        raise InputError(f"`utilization` has shape {shape} and needs a path, a week and a resource; pass at least one")
    if not 0 <= burn_in < shape[1]:
        raise SettingsError(f"`burn_in` is {burn_in} and needs to be 0 to {shape[1] - 1}; leave at least one week")
    if price_scale is not None and not 0 < price_scale < np.inf:
        raise SettingsError(f"`price_scale` is {price_scale} and needs to be positive; pass the median unit margin")


def _counts(use: np.ndarray, free: np.ndarray, limit: np.ndarray) -> dict[str, np.ndarray]:
    is_open, near = limit > 0, metrics.near_limit(free, limit)
    over = metrics.over_limit(use, limit)
    return {
        "weeks": np.ones_like(use),
        "open_weeks": is_open,
        "near_weeks": near,
        "near_open_weeks": near & is_open,
        "short_open_weeks": (free > limit) & is_open,
        "over_weeks": over,
        "near_over_weeks": over & near,
        "used_closed_weeks": ~is_open & (use > 0),
    }


def _ratio_sums(use: np.ndarray, free: np.ndarray, limit: np.ndarray) -> dict[str, np.ndarray]:
    violation = metrics.violation(use, limit)
    return {
        "violation": violation,
        "near_violation": np.where(metrics.near_limit(free, limit), violation, 0.0),
        "idle": np.where(free > limit, metrics.idle(use, limit), 0.0),
    }


def _optional_sums(
    use: np.ndarray,
    limit: np.ndarray,
    committed: np.ndarray | None,
    prices: np.ndarray | None,
    price_scale: float | None,
) -> dict[str, np.ndarray]:
    sums = {}
    if committed is not None:
        sums["committed_violation"] = metrics.violation(committed, limit)
    if prices is not None:
        sums["slack_value"] = metrics.slack_value(prices, use, limit)
    if prices is not None and price_scale is not None:
        residual = metrics.complementarity(prices, use, limit, price_scale)
        sums["residual"] = np.where(limit > 0, residual, 0.0)
    return {name: values.sum(axis=1) for name, values in sums.items()}
