"""Rankings of policies on common random numbers, with intervals paired by agent (method at `rank`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from walras.errors import InputError, SettingsError, shape_mismatch
from walras.evaluation.inference import Interval, finite_array, mean_interval

MOST_UNITS = 1000
"""More agents than this are pooled at random into this many groups of similar size before resampling."""

EXACT = "exact"  # method of an interval without width: a policy compared with itself
Pool = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class PolicyOutcome:
    """Reward, sales and stock of one policy by agent, in the weeks it is evaluated on; all policies on the same paths.

    Attributes:
        reward: less payments for resources; stock is charged at the start and valued at the end, both at unit cost
            [money; agent].
        demand, sales: in all weeks [units; agent].
        stock: mean stock at the end of a week [units; agent].
        seconds: time for tuning or training.
    """

    name: str
    reward: Float[np.ndarray, " agent"]
    demand: Float[np.ndarray, " agent"]
    sales: Float[np.ndarray, " agent"]
    stock: Float[np.ndarray, " agent"]
    weeks: int
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("reward", "demand", "sales", "stock"):
            values = finite_array(name, getattr(self, name), ("agent",))
            if values.shape != self.reward.shape:
                raise shape_mismatch(name, values.shape, self.reward.shape, "give one number per agent")

    @property
    def service(self) -> float | None:
        """Return sales over demand; None without demand."""
        demand = float(self.demand.sum(dtype=float))
        return float(self.sales.sum(dtype=float)) / demand if demand > 0 else None

    @property
    def stock_weeks(self) -> float | None:
        """Return mean stock in weeks of mean demand; None without demand."""
        weekly = float(self.demand.sum(dtype=float)) / self.weeks
        return float(self.stock.sum(dtype=float)) / weekly if weekly > 0 else None


@dataclass(frozen=True)
class Ranked:
    """One row of a ranking; units as in `PolicyOutcome`.

    Attributes:
        difference: total reward minus that of the reference [money].
        ratio: total reward over that of the reference; None where the reference earns nothing.
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
        row: dict[str, Any] = {"policy": self.name, "reward": self.reward}
        for name, interval in (("ratio", self.ratio), ("difference", self.difference)):
            ends = (None, None, None) if interval is None else (interval.estimate, interval.low, interval.high)
            row |= zip((name, f"{name}_low", f"{name}_high"), ends, strict=True)
        return row | {"service": self.service, "stock_weeks": self.stock_weeks, "seconds": self.seconds}


@dataclass(frozen=True)
class Ranking:
    """Policies by total reward, the best first, compared with `reference`; `method` is that of the intervals."""

    rows: tuple[Ranked, ...]
    reference: str
    agents: int
    level: float
    method: str

    def as_dict(self) -> dict[str, Any]:
        """Return the ranking by name, ready for a record."""
        facts = {name: getattr(self, name) for name in ("reference", "agents", "level", "method")}
        return {**facts, "policies": [row.as_dict() for row in self.rows]}

    def cells(self) -> tuple[tuple[str, ...], ...]:
        """Return the written table: a row of headings, then one row per policy."""
        to = "the best" if self.reference == self.rows[0].name else self.reference
        head = ("policy", "reward", f"ratio to {to}", "difference", "service", "stock", "tuning")
        return (head, *(_cells(row) for row in self.rows))

    def __str__(self) -> str:
        return _aligned(self.cells())


def rank(
    outcomes: Sequence[PolicyOutcome], *, against: str | None = None, level: float = 0.95, seed: int = 0
) -> Ranking:
    """Rank policies that were run on the same paths.

    Differences and ratios are of totals over agents, paired by agent. By the delta method each agent contributes
    `(ours - R theirs) / mean theirs` to the ratio R of two totals; the interval is that of the mean contribution, by
    the studentised bootstrap over agents (`mean_interval`; over a thousand random groups if there are more). It
    holds for other products like these in the same weeks; variation between weeks is not included.

    Args:
        outcomes: of at least one policy, for the same agents in the same order.
        against: name of the policy to compare with; by default the best one.
        level: nominal coverage.
        seed: of pooling and resampling.

    Raises:
        InputError: no policies, a name twice, fewer than two agents, or `against` is not one of them.
    """
    outcomes = sorted(outcomes, key=lambda outcome: -float(outcome.reward.sum(dtype=float)))
    reference = _reference(outcomes, against)
    pool = _pools(len(reference.reward), seed)
    rows = tuple(_row(outcome, reference, pool, level, seed) for outcome in outcomes)
    method = f"paired over {len(reference.reward)} agents, delta method, studentised bootstrap by agent"
    return Ranking(rows, reference.name, len(reference.reward), level, method)


def _row(outcome: PolicyOutcome, reference: PolicyOutcome, pool: Pool, level: float, seed: int) -> Ranked:
    ours, theirs, same = pool(outcome.reward), pool(reference.reward), outcome is reference
    difference, ratio = _total(ours - theirs, same, level, seed), _ratio(ours, theirs, same, level, seed)
    facts = (outcome.service, outcome.stock_weeks, outcome.seconds)
    return Ranked(outcome.name, float(ours.sum()), difference, ratio, *facts)


def reward_ratio(ours: npt.ArrayLike, theirs: npt.ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval | None:
    """Return the ratio of two totals [money; agent], paired by agent; None if that of `theirs` is not positive."""
    left, right = finite_array("ours", ours, ("agent",)), finite_array("theirs", theirs, ("agent",))
    if left.shape != right.shape:
        raise shape_mismatch("theirs", right.shape, left.shape, "pass both policies' rewards for the same agents")
    pool = _pools(len(left), seed)
    return _ratio(pool(left), pool(right), False, level, seed)


def _reference(outcomes: Sequence[PolicyOutcome], against: str | None) -> PolicyOutcome:
    names = [outcome.name for outcome in outcomes]
    if not names:
        raise InputError("there is no policy to rank; give at least one")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"`{twice}` is the name of two policies; give each a name of its own")
    shape = outcomes[0].reward.shape
    for outcome in outcomes:
        if outcome.reward.shape != shape:
            raise shape_mismatch(f"reward of {outcome.name}", outcome.reward.shape, shape, "run all on the same agents")
    if len(outcomes[0].reward) < 2:
        raise InputError("one agent says nothing about the difference between policies; give at least two")
    if against is not None and against not in names:
        raise SettingsError(f"`against` is {against}, which is not ranked; choose from {', '.join(names)}")
    return outcomes[0 if against is None else names.index(against)]


def _pools(agents: int, seed: int) -> Pool:
    """Return a function that sums agents within random groups of similar size, or leaves few agents as they are."""
    if agents <= MOST_UNITS:
        return lambda values: np.asarray(values, float)
    group = np.random.default_rng([seed, 0x9001]).permutation(agents) % MOST_UNITS
    return lambda values: np.bincount(group, np.asarray(values, float), MOST_UNITS)


def _total(values: Float[np.ndarray, " unit"], same: bool, level: float, seed: int) -> Interval:
    count = len(values)
    if same:
        return Interval(0.0, 0.0, 0.0, level, count, EXACT)
    mean = mean_interval(values, level, seed)
    method = mean.method.replace("path", "agent")
    return Interval(float(values.sum()), count * mean.low, count * mean.high, level, count, method)


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
    ratio, gap = row.ratio, row.difference
    written_ratio = "-" if ratio is None else f"{ratio.estimate:.4f}"
    if ratio is not None and ratio.method != EXACT:
        written_ratio += f" [{ratio.low:.4f}, {ratio.high:.4f}]"
    return (
        row.name,
        f"{row.reward:,.0f}",
        written_ratio,
        "" if gap.method == EXACT else f"{gap.estimate:,.0f} [{gap.low:,.0f}, {gap.high:,.0f}]",
        "-" if row.service is None else f"{100 * row.service:.1f} %",
        "-" if row.stock_weeks is None else f"{row.stock_weeks:.1f} weeks",
        f"{row.seconds:.1f} s",
    )


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[row[0].ljust(first), *map(str.rjust, row[1:], others)] for row in rows]
    return "\n".join("  ".join(row).rstrip() for row in cells)
