"""Own what one week's violation, near-limit mark, idleness and complementarity residual are.

LAW: every reported measure follows from these lines; changing one changes what published numbers mean.

Weeks without capacity (K = 0) have no ratio. They are left out of every mean *ratio* and counted
(`zero_capacity_weeks`, and of them `zero_capacity_weeks_used` with U > 0). The two *marks* "over 10 %" and "near the
limit" compare U with a multiple of K and need no division, so a closed week that is used counts there, as it should.
"""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float

from walras.errors import InputError, SettingsError, shape_mismatch
from walras.evaluation.tallies import AbstractTally, checked_cells, defined_mean, path_numbers

NEAR_LIMIT = 0.9
"""A week is near its limit when the unconstrained utilization exceeds this share of capacity."""

OVER = 0.10
"""A week counts as badly violated when utilization exceeds capacity by more than this share."""

BURN_IN_WEEKS = 6
"""Weeks that control studies skip, while orders placed before the first price still arrive; plans skip none."""

SMALL_USE = 0.05
"""Weeks that use less than this share of the path's mean utilization have no relative forecast error."""

Weekly = Float[np.ndarray, "path week resource"]
Marks = Bool[np.ndarray, "path week resource"]


def per_capacity(amount: Weekly, capacity: Weekly) -> Weekly:
    """Divide by capacity, with 0 where there is none (callers leave those weeks out of their counts)."""
    return np.divide(amount, capacity, out=np.zeros_like(amount), where=capacity > 0)


def violation(utilization: Weekly, capacity: Weekly) -> Weekly:
    """Return `max(U - K, 0) / K`, a fraction; 0 in weeks without capacity, which callers do not count."""
    return per_capacity(np.maximum(utilization - capacity, 0.0), capacity)


def over_limit(utilization: Weekly, capacity: Weekly) -> Marks:
    """Mark weeks with more than 10 % violation: `U > 1.1 K`."""
    return utilization > (1.0 + OVER) * capacity


def near_limit(unconstrained: Weekly, capacity: Weekly) -> Marks:
    """Mark weeks whose unconstrained utilization exceeds 0.9 of capacity: `U0 > 0.9 K`."""
    return unconstrained > NEAR_LIMIT * capacity


def idle(utilization: Weekly, capacity: Weekly) -> Weekly:
    """Return `max(K - U, 0) / K`, a fraction; it is a loss only where U0 > K."""
    return per_capacity(np.maximum(capacity - utilization, 0.0), capacity)


def slack_value(shadow_prices: Weekly, utilization: Weekly, capacity: Weekly) -> Weekly:
    """Return `lambda (K - U)^+` [money]: prices charged for capacity that stays empty."""
    return shadow_prices * np.maximum(capacity - utilization, 0.0)


def complementarity(shadow_prices: Weekly, utilization: Weekly, capacity: Weekly, price_scale: float) -> Weekly:
    """Return `|min(lambda', K - U)| / K` with the scaled price `lambda' = K lambda / price_scale`.

    The price is brought to the units of capacity first (a price of one unit margin weighs as much as an empty week);
    compared raw, a few money units against thousands of units of capacity would always look complementary.

    Args:
        shadow_prices: prices lambda [money per unit of resource].
        utilization: U [units of resource].
        capacity: K [units of resource].
        price_scale: median unit margin of the population [money].
    """
    gap = per_capacity(capacity - utilization, capacity)
    return np.abs(np.minimum(shadow_prices / price_scale, gap))


NO_DIFFERENCE = 1e-4
"""Share of the rewards below which a denominator says nothing: rewards are summed in single precision, and an oracle's
search stops short of its optimum by about as much."""

REWARD_MEASURES = ("reward_kept", "regret_ratio", "pooled_regret_ratio")
"""Measures that have a value per path and so an interval."""


@dataclass(frozen=True)
class RewardMetrics:
    """Say how much reward is left under coordination; ratios are per path, then averaged.

    Attributes:
        reward_kept: reward over the oracle's at equal violation; None where no path's oracle earns anything.
        regret_ratio: `(R0 - R) / (R0 - R_oracle)`; None where on no path the oracle gave up any reward.
        pooled_regret_ratio: the same of the summed rewards, steadier where some paths are hardly constrained.
        paths: paths counted.
        reward_kept_left_out: paths whose oracle reward is zero or negative, so that a share of it says nothing.
        regret_left_out: paths on which the oracle gave up nothing (`R0 <= R_oracle` but for rounding).
    """

    reward_kept: float | None
    regret_ratio: float | None
    pooled_regret_ratio: float | None
    paths: int
    reward_kept_left_out: int
    regret_left_out: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the measures by name, ready for a record."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class RewardTally(AbstractTally):
    """Sum rewards per path [money]; parts of the same path add.

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
            reward_kept=defined_mean(self.reward, kept_from),
            regret_ratio=defined_mean(lost, np.where(has_regret, given_up, 0.0)),
            pooled_regret_ratio=None if pooled is None else float(pooled),
            paths=len(self.paths),
            reward_kept_left_out=int((kept_from == 0).sum()),
            regret_left_out=int((~has_regret).sum()),
        )

    def path_values(self, measure: str) -> dict[int, float]:
        """Return path number -> value, whose mean is the measure; paths that say nothing about it are absent.

        The pooled ratio is one of two sums over paths, and the values are its linearisation.
        """
        if measure not in REWARD_MEASURES:
            raise SettingsError(
                f"`measure` is {measure!r} and needs to be one of {', '.join(REWARD_MEASURES)}; choose one"
            )
        lost, floor = self._lost()
        given_up = self.unconstrained_reward - self.oracle_reward
        if measure == "pooled_regret_ratio":
            pooled = self.metrics().pooled_regret_ratio
            found = None if pooled is None else pooled + (lost - pooled * given_up) / given_up.mean()
            return {} if found is None else dict(zip(self.paths.tolist(), found.tolist(), strict=True))
        over, under = (self.reward, self.oracle_reward) if measure == "reward_kept" else (lost, given_up)
        there = under > floor
        return dict(zip(self.paths[there].tolist(), (over[there] / under[there]).tolist(), strict=True))

    def _lost(self) -> tuple[Float[np.ndarray, " path"], Float[np.ndarray, " path"]]:
        size = np.maximum(np.abs(self.unconstrained_reward), np.abs(self.oracle_reward))
        return self.unconstrained_reward - self.reward, NO_DIFFERENCE * size


def reward_tally(
    reward: npt.ArrayLike, oracle_reward: npt.ArrayLike, unconstrained_reward: npt.ArrayLike, *, first_path: int = 0
) -> RewardTally:
    """Collect the rewards of one piece of a study, so that pieces can be added.

    Args:
        reward: of the method [money; path].
        oracle_reward: of the oracle at equal violation, on the same paths [money; path].
        unconstrained_reward: R0, prices 0 throughout, on the same paths [money; path].
        first_path: number of the first path.
    """
    given = {"reward": reward, "oracle_reward": oracle_reward, "unconstrained_reward": unconstrained_reward}
    rewards = {name: checked_cells(name, values, ("path",)) for name, values in given.items()}
    number = len(rewards["reward"])
    if number == 0:
        raise InputError("`reward` is empty and needs one number per path; pass at least one path")
    for name, values in rewards.items():
        if len(values) != number:
            raise shape_mismatch(name, values.shape, (number,), "pass the rewards of the same paths")
    return RewardTally(paths=path_numbers(number, first_path), **rewards)


def reward_metrics(
    reward: npt.ArrayLike, oracle_reward: npt.ArrayLike, unconstrained_reward: npt.ArrayLike
) -> RewardMetrics:
    """Measure the reward kept; see `reward_tally` for the arguments."""
    return reward_tally(reward, oracle_reward, unconstrained_reward).metrics()
