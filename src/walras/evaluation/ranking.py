"""Own the ranking of policies on common random numbers: what each earned, agent by agent, and what that says.

LAW: differences are paired by agent; how their intervals are made is written at `rank`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from walras.errors import InputError, SettingsError, shape_mismatch
from walras.evaluation.inference import Interval, mean_interval
from walras.evaluation.tallies import checked_cells

MOST_UNITS = 1000
"""Agents beyond so many are pooled at random into so many groups of like size before resampling."""

EXACT = "exact"
"""How an interval is made that has no width: a policy compared with itself."""

Pool = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class PolicyOutcome:
    """Hold what one policy did on the weeks that judge it, agent by agent; all policies on the same paths.

    Attributes:
        name: of the policy.
        reward: what the weeks earned, payments for resources taken off; stock is charged at the start and valued at the
            end, both at unit cost [money; agent].
        demand, sales: in all weeks [units; agent].
        stock: mean stock at the end of a week [units; agent].
        weeks: weeks that were judged.
        seconds: that tuning or training took.
    """

    name: str
    reward: Float[np.ndarray, " agent"]
    demand: Float[np.ndarray, " agent"]
    sales: Float[np.ndarray, " agent"]
    stock: Float[np.ndarray, " agent"]
    weeks: int
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers for different agents, and numbers that are none."""
        for name in ("reward", "demand", "sales", "stock"):
            values = checked_cells(name, getattr(self, name), ("agent",))
            if values.shape != self.reward.shape:
                raise shape_mismatch(name, values.shape, self.reward.shape, "give one number per agent")

    @property
    def service(self) -> float | None:
        """Return sales over demand; None where nothing was asked for."""
        demand = float(self.demand.sum(dtype=float))
        return float(self.sales.sum(dtype=float)) / demand if demand > 0 else None

    @property
    def stock_weeks(self) -> float | None:
        """Return mean stock in weeks of mean demand; None where nothing was asked for."""
        weekly = float(self.demand.sum(dtype=float)) / self.weeks
        return float(self.stock.sum(dtype=float)) / weekly if weekly > 0 else None


@dataclass(frozen=True)
class Ranked:
    """Hold one row of a ranking.

    Attributes:
        name: of the policy.
        reward: total [money].
        difference: total reward minus that of the reference [money], with its interval.
        ratio: total reward over that of the reference, with its interval; None where the reference earns nothing.
        service: sales over demand.
        stock_weeks: mean stock in weeks of mean demand.
        seconds: that tuning or training took.
    """

    name: str
    reward: float
    difference: Interval
    ratio: Interval | None
    service: float | None
    stock_weeks: float | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the row by name, ready for a record."""
        ratio = self.ratio
        return {
            "policy": self.name,
            "reward": self.reward,
            "ratio": None if ratio is None else ratio.estimate,
            "ratio_low": None if ratio is None else ratio.low,
            "ratio_high": None if ratio is None else ratio.high,
            "difference": self.difference.estimate,
            "difference_low": self.difference.low,
            "difference_high": self.difference.high,
            "service": self.service,
            "stock_weeks": self.stock_weeks,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Ranking:
    """Order policies by what they earned, the best first.

    Attributes:
        rows: one per policy.
        reference: name of the policy that the others are compared with.
        agents: agents that the differences are paired over.
        level: nominal coverage of the intervals.
        method: how they were made, in words.
    """

    rows: tuple[Ranked, ...]
    reference: str
    agents: int
    level: float
    method: str

    def row(self, name: str) -> Ranked:
        """Find the row of a policy.

        Raises:
            InputError: there is none of this name.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise InputError(f"`{name}` was not ranked; there are {', '.join(row.name for row in self.rows)}")

    def as_dict(self) -> dict[str, Any]:
        """Return the ranking by name, ready for a record."""
        rows = [row.as_dict() for row in self.rows]
        return {
            "reference": self.reference,
            "agents": self.agents,
            "level": self.level,
            "method": self.method,
            "policies": rows,
        }

    def cells(self) -> tuple[tuple[str, ...], ...]:
        """Write the ranking for people: a row of headings, then one row per policy."""
        to = "the best" if self.reference == self.rows[0].name else self.reference
        head = ("policy", "reward", f"ratio to {to}", "difference", "service", "stock", "tuning")
        return (head, *(_cells(row) for row in self.rows))

    def __str__(self) -> str:
        """Print as a table."""
        return _aligned(self.cells())


def rank(
    outcomes: Sequence[PolicyOutcome], *, against: str | None = None, level: float = 0.95, seed: int = 0
) -> Ranking:
    """Rank policies that were run on the same paths.

    Differences and ratios are of totals over agents, paired by agent. The ratio R of two totals is linear in small
    changes (the delta method): each agent contributes `(ours - R theirs) / mean theirs`, and the interval is that of
    the mean contribution, by the studentised bootstrap over agents (`inference.mean_interval`; pooled into a thousand
    random groups where there are more). It answers "would it be so for other products like these in these weeks?";
    what all products have in common in other weeks is not in it.

    Args:
        outcomes: of at least one policy, for the same agents in the same order.
        against: name of the policy to compare with; the best one where not given.
        level: nominal coverage.
        seed: of pooling and resampling.

    Raises:
        InputError: no policies, a name twice, fewer than two agents, or `against` is not one of them.
    """
    outcomes = sorted(outcomes, key=lambda one: -float(one.reward.sum(dtype=float)))
    reference = _reference(outcomes, against)
    pool = _pools(len(reference.reward), seed)
    rows = tuple(_row(one, reference, pool, level, seed) for one in outcomes)
    method = f"paired over {len(reference.reward)} agents, delta method, studentised bootstrap by agent"
    return Ranking(rows, reference.name, len(reference.reward), level, method)


def _row(one: PolicyOutcome, reference: PolicyOutcome, pool: Pool, level: float, seed: int) -> Ranked:
    ours, theirs, same = pool(one.reward), pool(reference.reward), one is reference
    difference = _total(ours - theirs, same, level, seed)
    ratio = _ratio(ours, theirs, same, level, seed)
    return Ranked(one.name, float(ours.sum()), difference, ratio, one.service, one.stock_weeks, one.seconds)


def reward_ratio(ours: npt.ArrayLike, theirs: npt.ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval | None:
    """Bound the ratio of two total rewards, paired by agent; None where theirs is not positive.

    Args:
        ours: one number per agent [money; agent].
        theirs: the other policy's, same agents in the same order [money; agent].
        level: nominal coverage.
        seed: of pooling and resampling.
    """
    left, right = checked_cells("ours", ours, ("agent",)), checked_cells("theirs", theirs, ("agent",))
    if left.shape != right.shape:
        raise shape_mismatch("theirs", right.shape, left.shape, "pass both policies' rewards for the same agents")
    pool = _pools(len(left), seed)
    return _ratio(pool(left), pool(right), False, level, seed)


def _reference(outcomes: Sequence[PolicyOutcome], against: str | None) -> PolicyOutcome:
    names = [one.name for one in outcomes]
    if not names:
        raise InputError("there is no policy to rank; give at least one")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"`{twice}` is the name of two policies; give each a name of its own")
    shape = outcomes[0].reward.shape
    for one in outcomes:
        if one.reward.shape != shape:
            raise shape_mismatch(f"reward of {one.name}", one.reward.shape, shape, "run all on the same agents")
    if len(outcomes[0].reward) < 2:
        raise InputError("one agent says nothing about the difference between policies; give at least two")
    if against is not None and against not in names:
        raise SettingsError(f"`against` is {against}, which is not ranked; choose from {', '.join(names)}")
    return outcomes[0 if against is None else names.index(against)]


def _pools(agents: int, seed: int) -> Pool:
    """Return what sums agents within random groups of like size, or leaves them alone where they are few."""
    if agents <= MOST_UNITS:
        return lambda values: np.asarray(values, float)
    group = np.random.default_rng([seed, 0x9001]).permutation(agents) % MOST_UNITS
    return lambda values: np.bincount(group, np.asarray(values, float), MOST_UNITS)


def _total(values: Float[np.ndarray, " unit"], same: bool, level: float, seed: int) -> Interval:
    """Bound a sum over agents."""
    count = len(values)
    if same:
        return Interval(0.0, 0.0, 0.0, level, count, EXACT)
    mean = mean_interval(values, level, seed)
    low, high = count * mean.low, count * mean.high
    return Interval(float(values.sum()), low, high, level, count, mean.method.replace("path", "agent"))


def _ratio(ours: np.ndarray, theirs: np.ndarray, same: bool, level: float, seed: int) -> Interval | None:
    total = float(theirs.sum())
    if total <= 0:
        return None
    if same:
        return Interval(1.0, 1.0, 1.0, level, len(ours), EXACT)
    ratio = float(ours.sum()) / total
    contribution = mean_interval((ours - ratio * theirs) / theirs.mean(), level, seed)
    method = f"delta method, {contribution.method.replace('path', 'agent')}"
    return Interval(ratio, ratio + contribution.low, ratio + contribution.high, level, len(ours), method)


def _cells(row: Ranked) -> tuple[str, ...]:
    """Write one row for people."""
    ratio = "-" if row.ratio is None else f"{row.ratio.estimate:.4f} [{row.ratio.low:.4f}, {row.ratio.high:.4f}]"
    gap = row.difference
    difference = f"{gap.estimate:,.0f} [{gap.low:,.0f}, {gap.high:,.0f}]"
    service = "-" if row.service is None else f"{100 * row.service:.1f} %"
    stock = "-" if row.stock_weeks is None else f"{row.stock_weeks:.1f} weeks"
    alike = (row.ratio is None or row.ratio.method == EXACT, gap.method == EXACT)
    return (
        row.name,
        f"{row.reward:,.0f}",
        ratio.split(" [")[0] if alike[0] else ratio,
        "" if alike[1] else difference,
        service,
        stock,
        f"{row.seconds:.1f} s",
    )


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Line columns up: the first to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
