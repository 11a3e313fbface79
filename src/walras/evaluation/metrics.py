"""Measures of coordination (violation of capacity, idle capacity, complementarity, reward kept) from tallies that add.

LAW: every reported measure follows from here; changing one changes what published numbers mean.

Weeks without capacity (K = 0) have no ratio. They are left out of every mean *ratio* and counted
(`zero_capacity_weeks`, of them `zero_capacity_weeks_used` with U > 0). The *marks* "over 10 %" and "near the limit"
compare U with a multiple of K and need no division, so a closed week that is used counts there.
"""

from abc import ABC
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from walras.errors import InputError, SettingsError, shape_mismatch
from walras.evaluation.inference import finite_array, mean_interval

NEAR_LIMIT = 0.9
"""A week is near its limit when the unconstrained utilization exceeds this share of capacity."""

OVER = 0.10  # a week is badly violated when utilization exceeds capacity by more than this share
BURN_IN_WEEKS = 6  # that control studies skip, while orders before the first price still arrive; plans skip none
SMALL_USE = 0.05  # weeks with less than this share of the path's mean utilization have no relative forecast error
NO_DIFFERENCE = 1e-4
"""Share of the rewards below which a denominator is noise: rewards are summed in single precision, and the oracle's
search stops about as far from its optimum."""

Weekly = Float[np.ndarray, "path week resource"]
Sums = Float[np.ndarray, "path resource"]


def per_capacity(amount: Weekly, capacity: Weekly) -> Weekly:
    """Divide by capacity, with 0 where there is none; callers do not count those weeks."""
    return np.divide(amount, capacity, out=np.zeros_like(amount), where=capacity > 0)


def violation(utilization: Weekly, capacity: Weekly) -> Weekly:
    """Return `max(U - K, 0) / K`, a fraction."""
    return per_capacity(np.maximum(utilization - capacity, 0.0), capacity)


def complementarity(shadow_prices: Weekly, utilization: Weekly, capacity: Weekly, price_scale: float) -> Weekly:
    """Return `|min(lambda', K - U)| / K` with the scaled price `lambda' = K lambda / price_scale`.

    The price is brought to the units of capacity first (a price of one unit margin weighs as much as an empty week);
    compared raw, a few money units against thousands of units of capacity would always look complementary. Prices are
    in money per unit of resource, U and K in units of resource, the scale is the median unit margin [money].
    """
    return np.abs(np.minimum(shadow_prices / price_scale, per_capacity(capacity - utilization, capacity)))


Tally = TypeVar("Tally", bound="AbstractTally")


@dataclass(frozen=True, eq=False)
class AbstractTally(ABC):
    """Sums by path that merge with `+`, of the same paths and of others; `paths` are numbers, increasing and unique."""

    paths: Int[np.ndarray, " path"]

    def __add__(self: Tally, other: Any) -> Tally:
        """Merge: sums of the same path add, other paths are joined."""
        if not isinstance(other, type(self)):
            return NotImplemented
        union = np.union1d(self.paths, other.paths)
        names = [item.name for item in fields(self) if item.name != "paths"]
        return type(self)(paths=union, **{name: self._merged(name, other, union) for name in names})

    def __radd__(self: Tally, other: Any) -> Tally:
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def _merged(self, name: str, other: Any, union: Int[np.ndarray, " path"]) -> np.ndarray | None:
        ours, theirs = getattr(self, name), getattr(other, name)
        if ours is None and theirs is None:
            return None
        if ours is None or theirs is None:
            raise InputError(f"`{name}` was recorded in one tally only and both need it; record it in both or in none")
        if ours.shape[1:] != theirs.shape[1:]:
            needed = (len(theirs), *ours.shape[1:])
            raise shape_mismatch(name, theirs.shape, needed, "merge tallies of the same resources")
        total = np.zeros((len(union), *ours.shape[1:]), np.result_type(ours, theirs))
        total[np.searchsorted(union, self.paths)] += ours
        total[np.searchsorted(union, other.paths)] += theirs
        return total


def path_numbers(count: int, first_path: int) -> Int[np.ndarray, " path"]:
    """Number the paths of one piece, starting at `first_path`."""
    return np.arange(first_path, first_path + count)


def broadcast_to_paths(
    name: str, values: npt.ArrayLike, shape: tuple[int, ...], minimum: float = -np.inf
) -> np.ndarray:
    """Broadcast `[week, resource]` to the paths, or check `[path, week, resource]`; nothing is below `minimum`."""
    with_paths = np.ndim(values) == len(shape)
    array = finite_array(name, values, ("path", "week", "resource") if with_paths else ("week", "resource"))
    if array.shape != (shape if with_paths else shape[1:]):
        raise shape_mismatch(name, array.shape, f"{shape[1:]} or {shape}", "cut all arrays to the same paths and weeks")
    if array.size and array.min() < minimum:
        raise InputError(f"`{name}` is {array.min():g} somewhere and needs at least {minimum:g}; correct that entry")
    return np.broadcast_to(array, shape)


def mean_ratio(sums: Float[np.ndarray, "*shape"], counts: Float[np.ndarray, "*shape"]) -> float | None:
    """Average `sums / counts` over the entries with a count; None if there is none."""
    has = counts > 0
    return float(np.mean(sums[has] / counts[has])) if has.any() else None


def path_contributions(sums: Sums, counts: Sums) -> tuple[Int[np.ndarray, " kept"], Float[np.ndarray, " kept"]]:
    """Return one value per path whose mean is `mean_ratio`, for inference over paths.

    If every path has the same number of counted resources this is the path's own mean. Otherwise the mean is a ratio
    of two sums over paths, and the values are its linearisation, whose spread gives its standard error. Paths without
    a count are left out; the first result has the positions of the others.
    """
    has = counts > 0
    share = np.divide(sums, counts, out=np.zeros_like(sums), where=has).sum(axis=1)
    number = has.sum(axis=1)
    kept = np.flatnonzero(number)
    if not kept.size:
        return kept, np.zeros(0)
    share, number = share[kept], number[kept]
    mean = share.sum() / number.sum()
    return kept, mean + (share - mean * number) / number.mean()


@dataclass(frozen=True)
class Measures:
    """Measures derived from a tally, in the fields of a dataclass."""

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the measures by name, ready for a record."""
        return asdict(self)


@dataclass(frozen=True)
class ControlMetrics(Measures):
    """How well utilization kept to capacity; ratios are per path and resource, then averaged.

    Attributes:
        mean_violation: mean `max(U - K, 0) / K` over weeks; None if no week has capacity.
        near_limit_mean_violation: the same over near-limit weeks; None where there is none.
        near_limit_share: share of weeks with U0 > 0.9 K.
        share_weeks_over_10_percent: share of weeks with U > 1.1 K.
        near_limit_share_over_10_percent: share of near-limit weeks with U > 1.1 K; None where there is none.
        irreducible_violation: violation without any order after the origin; None if `committed` was not given.
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
"""Measure -> the sum and the count whose quotient it is."""


@dataclass(frozen=True, eq=False)
class ControlTally(AbstractTally):
    """Counts of weeks (open: K > 0; short: U0 > K; closed: K = 0) and sums of weekly ratios, by path and resource.

    The last three are there where the optional arguments of `control_tally` were given.
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
        """Return the violation minus that of orders already in the pipeline."""
        return None if self.committed_violation is None else self.violation - self.committed_violation

    def metrics(self) -> ControlMetrics:
        """Derive every measure from the sums."""
        pairs = {name: [getattr(self, part) for part in parts] for name, parts in RATIOS.items()}
        return ControlMetrics(
            **{name: None if sums is None else mean_ratio(sums, counts) for name, (sums, counts) in pairs.items()},
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
            known = ", ".join(CONTROL_MEASURES)
            raise SettingsError(f"`measure` is {measure!r} and needs to be one of {known}; choose one")
        if sums is None:
            return {}
        kept, values = path_contributions(sums, counts)
        return dict(zip(self.paths[kept].tolist(), values.tolist(), strict=True))


CONTROL_MEASURES = (*RATIOS, "slackness")
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
    """Sum up some paths and weeks, so that pieces can be added.

    Args:
        utilization: U [path, week, resource].
        unconstrained: U0, the same paths with prices 0 throughout [path, week, resource].
        capacity: K [week, resource] or [path, week, resource].
        committed: utilization without any order after the origin, with or without the path axis.
        shadow_prices: prices charged [money per unit of resource], with or without the path axis.
        burn_in: first weeks to skip (`metrics.BURN_IN_WEEKS` in control studies, 0 for plans).
        price_scale: median unit margin [money], for the complementarity residual.
        first_path: number of the first path; pieces with the same numbers add over their weeks.

    Raises:
        ShapeError: paths, weeks or resources differ.
        NotFiniteError: a number is NaN or infinite.
        InputError: a capacity or a price is negative.
    """
    used = finite_array("utilization", utilization, ("path", "week", "resource"))
    _check_settings(used.shape, burn_in, price_scale)

    def ready(name: str, values: npt.ArrayLike, minimum: float = -np.inf) -> np.ndarray:
        return broadcast_to_paths(name, values, used.shape, minimum)[:, burn_in:]

    use, free, limit = used[:, burn_in:], ready("unconstrained", unconstrained), ready("capacity", capacity, 0.0)
    weekly = _weekly(use, free, limit)
    if committed is not None:
        weekly["committed_violation"] = violation(ready("committed", committed), limit)
    if shadow_prices is not None:
        prices = ready("shadow_prices", shadow_prices, 0.0)
        weekly["slack_value"] = prices * np.maximum(limit - use, 0.0)
        if price_scale is not None:
            weekly["residual"] = np.where(limit > 0, complementarity(prices, use, limit, price_scale), 0.0)
    sums = {name: values.sum(axis=1, dtype=np.float64) for name, values in weekly.items()}
    return ControlTally(paths=path_numbers(len(used), first_path), **sums)


def _weekly(use: Weekly, free: Weekly, limit: Weekly) -> dict[str, np.ndarray]:
    """Return what is summed over weeks; the rest of `control_tally` depends on optional arguments."""
    is_open, near, over = limit > 0, free > NEAR_LIMIT * limit, use > (1.0 + OVER) * limit
    excess = violation(use, limit)
    return {
        "weeks": np.ones_like(use),
        "open_weeks": is_open,
        "near_weeks": near,
        "near_open_weeks": near & is_open,
        "short_open_weeks": (free > limit) & is_open,
        "over_weeks": over,
        "near_over_weeks": over & near,
        "used_closed_weeks": ~is_open & (use > 0),
        "violation": excess,
        "near_violation": np.where(near, excess, 0.0),
        "idle": np.where(free > limit, per_capacity(np.maximum(limit - use, 0.0), limit), 0.0),
    }


def control_intervals(tally: ControlTally, level: float = 0.95, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Return measure -> (low, high) over paths, for every measure with values on at least two paths."""
    values = {measure: list(tally.path_values(measure).values()) for measure in CONTROL_MEASURES}
    intervals = {name: mean_interval(paths, level, seed) for name, paths in values.items() if len(paths) > 1}
    return {name: _within(name, interval.low, interval.high) for name, interval in intervals.items()}


def _within(measure: str, low: float, high: float) -> tuple[float, float]:
    """Clip an interval to the measure's range: all but the avoidable violation are at least 0."""
    least = -np.inf if measure == "avoidable_violation" else 0.0
    most = 1.0 if "share" in measure or measure == "idle_capacity" else np.inf
    return max(low, least), min(high, most)


def _check_settings(shape: tuple[int, ...], burn_in: int, price_scale: float | None) -> None:
    if 0 in shape:
        raise InputError(f"`utilization` has shape {shape} and needs a path, a week and a resource; pass at least one")
    if not 0 <= burn_in < shape[1]:
        raise SettingsError(f"`burn_in` is {burn_in} and needs to be 0 to {shape[1] - 1}; leave at least one week")
    if price_scale is not None and not 0 < price_scale < np.inf:
        raise SettingsError(f"`price_scale` is {price_scale} and needs to be positive; pass the median unit margin")


REWARD_MEASURES = ("reward_kept", "regret_ratio", "pooled_regret_ratio")
"""Measures that have a value per path and so an interval."""


@dataclass(frozen=True)
class RewardMetrics(Measures):
    """How much reward is left under coordination; ratios are per path, then averaged, None if no path counts.

    Attributes:
        reward_kept: reward over the oracle's at equal violation.
        regret_ratio: `(R0 - R) / (R0 - R_oracle)`.
        pooled_regret_ratio: the same of the summed rewards, steadier if some paths are hardly constrained.
        reward_kept_left_out: paths whose oracle reward is not positive, so that a share of it is meaningless.
        regret_left_out: paths on which the oracle gave up nothing (`R0 <= R_oracle` but for rounding).
    """

    reward_kept: float | None
    regret_ratio: float | None
    pooled_regret_ratio: float | None
    paths: int
    reward_kept_left_out: int
    regret_left_out: int


@dataclass(frozen=True, eq=False)
class RewardTally(AbstractTally):
    """Rewards per path [money]; parts of the same path add.

    Attributes:
        reward: of the method, without the price payment, end stock valued.
        oracle_reward: of the oracle at capacity `max(K, U of the method)` on the same path.
        unconstrained_reward: with prices 0 throughout.
    """

    reward: Float[np.ndarray, " path"]
    oracle_reward: Float[np.ndarray, " path"]
    unconstrained_reward: Float[np.ndarray, " path"]

    def metrics(self) -> RewardMetrics:
        """Derive the measures from the sums."""
        lost, floor = self._lost()
        kept_from = np.where(self.oracle_reward > floor, self.oracle_reward, 0.0)
        given_up = self.unconstrained_reward - self.oracle_reward
        has_regret = given_up > floor
        pooled_floor = NO_DIFFERENCE * np.abs(self.unconstrained_reward.sum())
        pooled = lost.sum() / given_up.sum() if given_up.sum() > pooled_floor else None
        return RewardMetrics(
            reward_kept=mean_ratio(self.reward, kept_from),
            regret_ratio=mean_ratio(lost, np.where(has_regret, given_up, 0.0)),
            pooled_regret_ratio=None if pooled is None else float(pooled),
            paths=len(self.paths),
            reward_kept_left_out=int((kept_from == 0).sum()),
            regret_left_out=int((~has_regret).sum()),
        )

    def path_values(self, measure: str) -> dict[int, float]:
        """Return path number -> value, whose mean is the measure; paths without it are absent.

        The pooled ratio is one of two sums over paths, and the values are its linearisation.
        """
        if measure not in REWARD_MEASURES:
            known = ", ".join(REWARD_MEASURES)
            raise SettingsError(f"`measure` is {measure!r} and needs to be one of {known}; choose one")
        lost, floor = self._lost()
        given_up = self.unconstrained_reward - self.oracle_reward
        if measure == "pooled_regret_ratio":
            pooled = self.metrics().pooled_regret_ratio
            if pooled is None:
                return {}
            values = pooled + (lost - pooled * given_up) / given_up.mean()
            return dict(zip(self.paths.tolist(), values.tolist(), strict=True))
        over, under = (self.reward, self.oracle_reward) if measure == "reward_kept" else (lost, given_up)
        counted = under > floor
        return dict(zip(self.paths[counted].tolist(), (over[counted] / under[counted]).tolist(), strict=True))

    def _lost(self) -> tuple[Float[np.ndarray, " path"], Float[np.ndarray, " path"]]:
        size = np.maximum(np.abs(self.unconstrained_reward), np.abs(self.oracle_reward))
        return self.unconstrained_reward - self.reward, NO_DIFFERENCE * size


def reward_tally(
    reward: npt.ArrayLike, oracle_reward: npt.ArrayLike, unconstrained_reward: npt.ArrayLike, *, first_path: int = 0
) -> RewardTally:
    """Collect the rewards of some paths, so that pieces can be added.

    Args:
        reward, oracle_reward, unconstrained_reward: as in `RewardTally`, on the same paths [money; path].
        first_path: number of the first path.

    Raises:
        InputError, ShapeError, NotFiniteError: no path, different paths, or a number that is not finite.
    """
    given = {"reward": reward, "oracle_reward": oracle_reward, "unconstrained_reward": unconstrained_reward}
    rewards = {name: finite_array(name, values, ("path",)) for name, values in given.items()}
    number = len(rewards["reward"])
    if number == 0:
        raise InputError("`reward` is empty and needs one number per path; pass at least one path")
    for name, values in rewards.items():
        if len(values) != number:
            raise shape_mismatch(name, values.shape, (number,), "pass the rewards of the same paths")
    return RewardTally(paths=path_numbers(number, first_path), **rewards)
