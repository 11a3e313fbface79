"""Families of classical policies, tuned through the simulator: what any learned policy has to beat."""

import abc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.errors import SettingsError
from walras.policies.base import Policy
from walras.policies.base_stock import (
    AbstractDemandDistribution,
    CappedBaseStock,
    ConstantOrder,
    ForecastBaseStock,
    GammaDemand,
    OrderUpTo,
    PricedNewsvendor,
    ReorderPoint,
    ScaledNewsvendor,
)
from walras.policies.order_constraints import CasePacks, Constrained
from walras.population.population import bucket_edges, bucket_of
from walras.train.policy_value import TunedPolicy, TuningProblem

Parameters = dict[str, Float[np.ndarray, " group"]]
Score = Callable[[Parameters], Float[np.ndarray, " group"]]
Ranges = dict[str, tuple[Float[np.ndarray, " group"], Float[np.ndarray, " group"]]]

TINY = 1e-6  # least holding cost in the economic order quantity [money/unit/week]
FOLDS = 3  # times that a choice is tuned on first weeks and evaluated on those that follow


@dataclass(frozen=True)
class GridSpec:
    """How finely to search."""

    points: tuple[int, int] = (17, 9)  # candidates per parameter in a round, for one parameter and for two or more
    # the last round's spacing is at most this share of a parameter's range, likewise
    resolution: tuple[float, float] = (1e-3, 1e-2)
    most_polish: int = 8  # rounds of single steps to either side at the end, where parameters are whole multiples


class GridResult:
    """Best candidate of each group so far; of equally good ones the first."""

    def __init__(self, score: Score) -> None:
        self._score = score
        self.parameters: Parameters = {}  # name -> value per group
        self.value = np.empty(0)  # score per group
        self.tried = 0  # candidates that were scored

    def offer(self, candidate: Parameters) -> bool:
        """Score a candidate and return whether it is better for any group."""
        value = np.asarray(self._score(candidate), float)
        self.tried += 1
        if self.tried == 1:
            self.value, self.parameters = value, {name: x.copy() for name, x in candidate.items()}
            return True
        better = value > self.value
        self.value = np.where(better, value, self.value)
        self.parameters = {name: np.where(better, x, self.parameters[name]) for name, x in candidate.items()}
        return bool(better.any())


def grid_search(
    score: Score,
    ranges: Mapping[str, tuple[Float[np.ndarray, " group"], Float[np.ndarray, " group"]]],
    *,
    starts: Sequence[Parameters] = (),
    steps: Mapping[str, float] | None = None,
    grid: GridSpec | None = None,
) -> GridResult:
    """Find the parameters with the highest score for every group by itself.

    The whole grid over the ranges is scored, then a smaller one around each group's best, and so on. The result is
    never worse than a given start.

    Args:
        score: maps one candidate per group to one score per group, higher is better.
        ranges: name -> lowest and highest value per group.
        starts: further candidates; they may lie outside the ranges.
        steps: name -> whole multiples that the parameter must be; others are continuous.
    """
    grid, steps, best = grid or GridSpec(), steps or {}, GridResult(score)
    points, resolution = ((pair[0] if len(ranges) == 1 else pair[1]) for pair in (grid.points, grid.resolution))
    low, high = ({name: np.asarray(pair[side], float) for name, pair in ranges.items()} for side in (0, 1))
    bottom, top, share = low, high, 1.0 / (points - 1)
    while True:
        for candidate in _candidates(bottom, top, int(points), steps):
            best.offer(candidate)
        if share <= resolution:
            break
        spacing = {name: (high[name] - low[name]) * share for name in ranges}
        bottom = {name: np.maximum(best.parameters[name] - spacing[name], low[name]) for name in ranges}
        top = {name: np.minimum(best.parameters[name] + spacing[name], high[name]) for name in ranges}
        share *= 2.0 / (points - 1)
    # Only now: a good start beside a better region would keep the grid from zooming in on that region.
    for start in starts:
        best.offer(start)
    _local_search(best, steps, low, grid.most_polish)
    return best


def _candidates(low: Parameters, high: Parameters, points: int, steps: Mapping[str, float]) -> Iterator[Parameters]:
    """Spread candidates evenly over each group's box, without those that rounding makes equal."""
    seen: set[bytes] = set()
    for shares in product(np.linspace(0.0, 1.0, points), repeat=len(low)):
        candidate = {
            name: whole_multiples(low[name] + share * (high[name] - low[name]), steps.get(name))
            for name, share in zip(low, shares, strict=True)
        }
        key = b"".join(x.tobytes() for x in candidate.values())
        if key not in seen:
            seen.add(key)
            yield candidate


def whole_multiples(values: np.ndarray, step: float | None) -> np.ndarray:
    """Round to whole multiples of a step; None leaves values as they are."""
    return values if step is None else np.rint(values / step) * step


def _local_search(best: GridResult, steps: Mapping[str, float], low: Parameters, most: int) -> None:
    """Step to either side of whole multiples until no group gains, `most` times at most."""
    for _ in range(most):
        gained = False
        for name, step in steps.items():
            for side in (-step, step):
                moved = np.maximum(best.parameters[name] + side, low[name])
                gained |= best.offer({**best.parameters, name: moved})
        if not gained:
            return


class PolicyFamily(abc.ABC):
    """Policies of one kind, to be tuned."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Name for tables."""

    @abc.abstractmethod
    def tune(self, problem: TuningProblem) -> TunedPolicy:
        """Return the policy that is best on the problem's weeks."""


@dataclass(frozen=True)
class SearchedFamily(PolicyFamily):
    """Family tuned by grid search, with separate candidates for every agent or group of agents."""

    # 0 gives every agent its own parameters, n gives n buckets of similar demand theirs; 1 is one set of
    # parameters for all. Own parameters overfit where the history is short
    groups: int = 0
    grid: GridSpec = field(default_factory=GridSpec)  # how finely to search

    title: ClassVar[str]
    in_units: ClassVar[tuple[str, ...]] = ()  # parameters in units of product
    builds: ClassVar[Callable[..., Policy]]  # policy from the parameters in the order of `ranges`

    @abc.abstractmethod
    def ranges(self, problem: TuningProblem) -> Ranges:
        """Return the lowest and highest value of each parameter, per agent; groups get the widest of their agents."""

    def policy(self, parameters: Mapping[str, Float[Array, " agent"]]) -> Policy:
        """Return the policy with these parameters per agent."""
        return type(self).builds(*parameters.values())

    def starts(self, problem: TuningProblem) -> Sequence[Parameters]:
        """Return candidates per agent that are tried besides: the result is no worse than they are."""
        return ()

    @property
    def name(self) -> str:
        """Name for tables, with how many share a parameter."""
        shared = {0: "", 1: ", one for all"}.get(self.groups, f", {self.groups} demand buckets")
        return f"{self.title}{shared}"

    def tune(self, problem: TuningProblem) -> TunedPolicy:
        """Search over the problem's weeks."""
        began, group = time.perf_counter(), self._group(problem)
        count = int(group.max()) + 1

        def score(candidate: Parameters) -> Float[np.ndarray, " group"]:
            value = problem.evaluate(self.rounded_policy(_per_agent(candidate, group), problem)).value
            return np.bincount(group, value, count)

        ranges = {
            name: (_widest(low, group, count, np.minimum), _widest(high, group, count, np.maximum))
            for name, (low, high) in self.ranges(problem).items()
        }
        firsts = np.unique(group, return_index=True)[1]
        starts = [{name: x[firsts] for name, x in start.items()} for start in self.starts(problem)]
        steps = {name: problem.round_to for name in self.in_units if problem.round_to is not None}
        result = grid_search(score, ranges, starts=starts, steps=steps, grid=self.grid)
        parameters = _per_agent(result.parameters, group)
        policy = self.rounded_policy(parameters, problem)
        value = problem.evaluate(policy).value
        return TunedPolicy(self.name, policy, value, parameters, time.perf_counter() - began, result.tried)

    def rounded_policy(self, parameters: Mapping[str, np.ndarray], problem: TuningProblem) -> Policy:
        """Return the policy with these parameters per agent, its orders rounded as the problem says."""
        policy = self.policy({name: jnp.asarray(x, jnp.float32) for name, x in parameters.items()})
        return in_multiples(policy, problem.round_to)

    def _group(self, problem: TuningProblem) -> Int[np.ndarray, " agent"]:
        """Number the agents that share parameters, from 0 on without gaps."""
        if self.groups == 0:
            return np.arange(problem.n_agents)
        scale = np.asarray(problem.population.demand_scale, float)
        return np.unique(bucket_of(scale, bucket_edges(scale, self.groups)), return_inverse=True)[1]


@dataclass(frozen=True)
class BestBaseStock(SearchedFamily):
    """Order up to a fixed level."""

    title: ClassVar[str] = "base-stock"
    in_units: ClassVar[tuple[str, ...]] = ("level",)
    builds: ClassVar[Callable[..., Policy]] = OrderUpTo

    def ranges(self, problem: TuningProblem) -> Ranges:
        """Search levels up to the highest that could have been of use."""
        return {"level": _from_zero(problem.max_useful_position)}


@dataclass(frozen=True)
class CappedBaseStockFamily(SearchedFamily):
    """Order up to a fixed level but at most a cap; begins at the best level without one."""

    title: ClassVar[str] = "capped base-stock"
    in_units: ClassVar[tuple[str, ...]] = ("level", "cap")
    builds: ClassVar[Callable[..., Policy]] = CappedBaseStock

    def ranges(self, problem: TuningProblem) -> Ranges:
        """Search levels around the best one without a cap, rather above than below it, and caps up to a large week."""
        level, week = _base_stock_level(self, problem), problem.max_demand(1)
        return {"level": (0.5 * level, level + week), "cap": _from_zero(week)}

    def starts(self, problem: TuningProblem) -> Sequence[Parameters]:
        """Begin at the best base-stock level with a cap that never binds."""
        level = _base_stock_level(self, problem)
        return ({"level": level, "cap": np.maximum(level, problem.max_useful_position)},)


@dataclass(frozen=True)
class SsPolicy(SearchedFamily):
    """Order up to S when the position is at or below s: searched over s and the gap S - s; begins at base-stock."""

    title: ClassVar[str] = "(s,S)"
    in_units: ClassVar[tuple[str, ...]] = ("reorder_point", "gap")

    def ranges(self, problem: TuningProblem) -> Ranges:
        """Search points that could have been of use, and gaps up to such points or two economic order quantities."""
        useful, mean = problem.max_useful_position, np.asarray(problem.exogenous.demand, float)
        mean = mean.reshape(-1, mean.shape[-1]).mean(0)
        holding = np.maximum(np.asarray(problem.population.holding_cost, float), TINY)
        economic = np.sqrt(2.0 * problem.objective.order_cost * mean / holding)
        return {"reorder_point": _from_zero(useful), "gap": _from_zero(np.maximum(useful, 2.0 * economic))}

    def starts(self, problem: TuningProblem) -> Sequence[Parameters]:
        """Begin at the best base-stock level: s = S."""
        level = _base_stock_level(self, problem)
        return ({"reorder_point": level, "gap": np.zeros_like(level)},)

    def policy(self, parameters: Mapping[str, Float[Array, " agent"]]) -> Policy:
        """Return the (s,S) policy."""
        return ReorderPoint(parameters["reorder_point"], parameters["reorder_point"] + parameters["gap"])


@dataclass(frozen=True)
class ConstantOrderFamily(SearchedFamily):
    """Order the same quantity every week."""

    title: ClassVar[str] = "constant order"
    in_units: ClassVar[tuple[str, ...]] = ("quantity",)
    builds: ClassVar[Callable[..., Policy]] = ConstantOrder

    def ranges(self, problem: TuningProblem) -> Ranges:
        """Search quantities up to the largest week."""
        return {"quantity": _from_zero(problem.max_demand(1))}


@dataclass(frozen=True)
class ForecastBaseStockFamily(SearchedFamily):
    """Order up to a x mean + b x standard deviation of the forecast: levels that follow a product's demand."""

    title: ClassVar[str] = "base-stock on the forecast"
    builds: ClassVar[Callable[..., Policy]] = ForecastBaseStock

    def ranges(self, problem: TuningProblem) -> Ranges:
        """Search around mean + safety stock, from none to far more than any distribution would need."""
        return _factor_ranges(problem, mean=(0.0, 2.0), sd=(-1.0, 3.5))


@dataclass(frozen=True)
class TunedNewsvendor(SearchedFamily):
    """Correct the mean and the spread of the priced newsvendor's forecast; begins at no correction."""

    law: AbstractDemandDistribution = field(default_factory=GammaDemand)
    discount: float = 1.0

    title: ClassVar[str] = "tuned newsvendor"

    def ranges(self, problem: TuningProblem) -> Ranges:
        """Search factors from nothing to twice the mean and three times the spread."""
        return _factor_ranges(problem, mean=(0.0, 2.0), sd=(0.0, 3.0))

    def starts(self, problem: TuningProblem) -> Sequence[Parameters]:
        """Begin at the newsvendor itself."""
        ones = np.ones(problem.n_agents)
        return ({"mean_factor": ones, "sd_factor": ones},)

    def policy(self, parameters: Mapping[str, Float[Array, " agent"]]) -> Policy:
        """Return the newsvendor on the corrected forecast."""
        return ScaledNewsvendor(self.law, self.discount, **parameters)


@dataclass(frozen=True)
class Newsvendor(PolicyFamily):
    """The priced newsvendor as it is, without parameters."""

    name: ClassVar[str] = "newsvendor"
    law: AbstractDemandDistribution = field(default_factory=GammaDemand)
    discount: float = 1.0

    def tune(self, problem: TuningProblem) -> TunedPolicy:
        """Return the policy with its value."""
        began = time.perf_counter()
        policy = in_multiples(PricedNewsvendor(self.law, self.discount), problem.round_to)
        value = problem.evaluate(policy).value
        return TunedPolicy(self.name, policy, value, {}, time.perf_counter() - began, 1)


def time_series_splits(problem: TuningProblem, folds: int = FOLDS) -> Iterator[tuple[TuningProblem, TuningProblem]]:
    """Yield problems of the weeks before each of `folds` parts of the second half, and of the part.

    Raises:
        SettingsError: too few weeks for this many parts.
    """
    first, weeks = problem.objective.warm_up, problem.exogenous.n_weeks
    edges = np.unique(np.linspace((first + weeks) // 2, weeks, folds + 1).round().astype(int))
    if folds < 1 or len(edges) <= folds or edges[0] <= first:
        raise SettingsError(
            f"`folds` is {folds} but {weeks} weeks with {first} of warm-up cannot be cut into so many; give more weeks "
            "or fewer folds"
        )
    for head, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        early = replace(problem.objective, stop=head)
        late = replace(problem.objective, warm_up=head, stop=end)
        yield replace(problem, objective=early), replace(problem, objective=late)


@dataclass(frozen=True)
class CrossValidated(PolicyFamily):
    """Choose between families by their value in weeks after those they were tuned on, against overfitting."""

    families: tuple[PolicyFamily, ...]
    title: str
    folds: int = FOLDS

    @property
    def name(self) -> str:
        """Name for tables."""
        return self.title

    def tune(self, problem: TuningProblem) -> TunedPolicy:
        """Keep the family that earns most in the later weeks, and tune it on all."""
        began, tried = time.perf_counter(), 0
        earned = np.zeros(len(self.families))
        for early, late in time_series_splits(problem, self.folds):
            for index, family in enumerate(self.families):
                tuned = family.tune(early)
                tried += tuned.tried
                earned[index] += late.evaluate(tuned.policy).value.sum(dtype=float)
        best = self.families[int(np.argmax(earned))].tune(problem)
        seconds = time.perf_counter() - began
        return replace(best, name=f"{self.title}: {best.name}", seconds=seconds, tried=tried + best.tried)


@dataclass(frozen=True)
class Rescaled(PolicyFamily):
    """Scale the parameters in units that a search found by one factor for all, chosen in later weeks.

    A level that is best in hindsight covers the largest demand seen and no more: on short histories it is too low for
    the future, and later weeks show by how much.
    """

    family: SearchedFamily  # that is searched
    factors: tuple[float, ...] = (0.85, 1.0, 1.15, 1.3, 1.5, 1.75, 2.0, 2.5)  # to choose from
    folds: int = FOLDS  # as in `time_series_splits`

    @property
    def name(self) -> str:
        """Name for tables: that of the searched family."""
        return self.family.name

    def tune(self, problem: TuningProblem) -> TunedPolicy:
        """Search on all weeks, and scale by the factor that earns most in weeks after those searched."""
        began, tried = time.perf_counter(), 0
        earned = np.zeros(len(self.factors))
        for early, late in time_series_splits(problem, self.folds):
            tuned = self.family.tune(early)
            tried += tuned.tried + len(self.factors)
            for index, factor in enumerate(self.factors):
                policy = self.family.rounded_policy(self._scaled(tuned, factor, problem), problem)
                earned[index] += late.evaluate(policy).value.sum(dtype=float)
        factor = self.factors[int(np.argmax(earned))]
        best = self.family.tune(problem)
        parameters = self._scaled(best, factor, problem)
        policy = self.family.rounded_policy(parameters, problem)
        value, seconds = problem.evaluate(policy).value, time.perf_counter() - began
        return TunedPolicy(f"{self.name} x {factor:g}", policy, value, parameters, seconds, tried + best.tried)

    def _scaled(self, tuned: TunedPolicy, factor: float, problem: TuningProblem) -> dict[str, np.ndarray]:
        """Scale parameters in units, in whole multiples where they have to be."""
        scaled = {name: tuned.parameters[name] * factor for name in self.family.in_units}
        return {**tuned.parameters, **{name: whole_multiples(x, problem.round_to) for name, x in scaled.items()}}


def in_multiples(policy: Policy, round_to: float | None) -> Policy:
    """Round a policy's orders to whole multiples [units]; None leaves them as they are."""
    return policy if round_to is None else Constrained(policy, CasePacks(case_pack=round_to))


def _per_agent(parameters: Parameters, group: np.ndarray) -> dict[str, Float[np.ndarray, " agent"]]:
    return {name: values[group] for name, values in parameters.items()}


def _widest(values: np.ndarray, group: np.ndarray, count: int, join: np.ufunc) -> Float[np.ndarray, " group"]:
    out = np.full(count, np.inf if join is np.minimum else -np.inf)
    join.at(out, group, values)
    return out


def _from_zero(top: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros_like(top), top


def _factor_ranges(problem: TuningProblem, mean: tuple[float, float], sd: tuple[float, float]) -> Ranges:
    n = problem.n_agents
    return {
        name: (np.full(n, low), np.full(n, high))
        for name, (low, high) in {"mean_factor": mean, "sd_factor": sd}.items()
    }


def _base_stock_level(family: SearchedFamily, problem: TuningProblem) -> Float[np.ndarray, " agent"]:
    tuned = BestBaseStock(groups=family.groups, grid=family.grid).tune(problem)
    return np.asarray(tuned.parameters["level"])
