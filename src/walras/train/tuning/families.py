"""Own the tuning of classical policies through the simulator: the competitors that anything learned has to beat.

OPEN: add a family as a class beside these; it says what its parameters are, between which values, and what they order.
"""

import abc
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.errors import SettingsError
from walras.exogenous.paths import ExogenousPaths
from walras.policies.base import Policy
from walras.policies.base_stock import AbstractDemandDistribution, GammaDemand, PricedNewsvendor, ScaledNewsvendor
from walras.policies.order_constraints import CasePacks, Constrained
from walras.policies.simple import CappedBaseStock, ConstantOrder, ForecastBaseStock, OrderUpTo, ReorderPoint
from walras.population.population import Population, bucket_edges, bucket_of
from walras.simulation.state import State
from walras.train.tuning.grid_search import GridResult, GridSpec, Parameters, grid_search
from walras.train.tuning.policy_value import Objective, PolicyValue, policy_value

Ranges = dict[str, tuple[Float[np.ndarray, " group"], Float[np.ndarray, " group"]]]


@dataclass(frozen=True, eq=False)
class TuningProblem:
    """Hold what policies are tuned on.

    Attributes:
        population, exogenous, initial, shadow_prices: as in `simulate`.
        objective: what counts.
        round_to: orders, and parameters in units, are whole multiples of this [units]; None for any amount.
    """

    population: Population
    exogenous: ExogenousPaths
    initial: State
    shadow_prices: Float[Array, "*scenario week resource"] | None = None
    objective: Objective = field(default_factory=Objective)
    round_to: float | None = None

    @property
    def n_agents(self) -> int:
        """Count the agents."""
        return self.population.n_agents

    def outcome(self, policy: Policy) -> PolicyValue:
        """Return what a policy does for every agent."""
        return policy_value(
            self.population,
            self.exogenous,
            policy,
            initial=self.initial,
            shadow_prices=self.shadow_prices,
            objective=self.objective,
        )

    def most_asked(self, weeks: int) -> Float[np.ndarray, " agent"]:
        """Return the most that each agent was asked for in so many weeks on end, over all scenarios [units]."""
        demand = np.asarray(self.exogenous.demand, float)
        demand = demand.reshape(-1, *demand.shape[-2:])
        weeks = min(weeks, demand.shape[1])
        total = np.cumsum(np.concatenate([np.zeros_like(demand[:, :1]), demand], axis=1), axis=1)
        return (total[:, weeks:] - total[:, :-weeks]).max((0, 1))

    @property
    def most_useful(self) -> Float[np.ndarray, " agent"]:
        """Return the position above which no unit would have been sold before the next order could arrive [units]."""
        return self.most_asked(self.initial.max_lead + 1)


@dataclass(frozen=True, eq=False)
class TunedPolicy:
    """Hold a policy whose parameters were chosen on the weeks of a question.

    Attributes:
        name: of the policy, for people.
        policy: with the parameters that were best.
        value: of each agent on those weeks: in sample, never a measure of what the policy is worth [money].
        parameters: name -> value per agent.
        seconds: that tuning took.
        tried: candidates that were simulated.
    """

    name: str
    policy: Policy
    value: Float[np.ndarray, " agent"]
    parameters: Mapping[str, Float[np.ndarray, " agent"]]
    seconds: float = 0.0
    tried: int = 0

    def __str__(self) -> str:
        """Say what was tuned, and the middle of each parameter."""
        middle = ", ".join(f"{name} {np.median(values):.4g}" for name, values in self.parameters.items())
        return f"{self.name}: {self.tried} candidates in {self.seconds:.1f} s" + (f" (median {middle})" * bool(middle))


class PolicyFamily(abc.ABC):
    """Offer policies of one kind, to be tuned."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Name the family as tables do."""

    @abc.abstractmethod
    def tune(self, question: TuningProblem) -> TunedPolicy:
        """Choose the policy that is best on the question's weeks."""


@dataclass(frozen=True)
class SearchedFamily(PolicyFamily):
    """Tune by search, with a candidate of its own for every agent or group of agents.

    Attributes:
        groups: 0 gives every agent its own parameters, a number as many buckets of like demand theirs; 1 is one set of
            parameters for all. Own parameters overfit where the history is short.
        grid: how finely to search.
    """

    groups: int = 0
    grid: GridSpec = field(default_factory=GridSpec)

    title: ClassVar[str]
    in_units: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def ranges(self, question: TuningProblem) -> Ranges:
        """Return the lowest and highest value of each parameter, per agent; groups get the widest of their agents."""

    @abc.abstractmethod
    def policy(self, parameters: Mapping[str, Float[Array, " agent"]]) -> Policy:
        """Return the policy with these parameters per agent."""

    def starts(self, question: TuningProblem) -> Sequence[Parameters]:
        """Return candidates per agent to begin with, so that the answer is no worse than they are."""
        return ()

    @property
    def name(self) -> str:
        """Name the family, and how many share a parameter."""
        shared = {0: "", 1: ", one for all"}.get(self.groups, f", {self.groups} demand buckets")
        return f"{self.title}{shared}"

    def tune(self, question: TuningProblem) -> TunedPolicy:
        """Search over the question's weeks."""
        began, group = time.perf_counter(), self._group(question)
        count = int(group.max()) + 1

        def score(candidate: Parameters) -> Float[np.ndarray, " group"]:
            value = question.outcome(self.placed(_spread(candidate, group), question)).value
            return np.bincount(group, value, count)

        ranges = {
            name: (_widest(low, group, count, np.minimum), _widest(high, group, count, np.maximum))
            for name, (low, high) in self.ranges(question).items()
        }
        starts = [{name: _first(x, group, count) for name, x in start.items()} for start in self.starts(question)]
        steps = {name: question.round_to for name in self.in_units if question.round_to is not None}
        found: GridResult = grid_search(score, ranges, starts=starts, steps=steps, grid=self.grid)
        chosen = _spread(found.parameters, group)
        policy = self.placed(chosen, question)
        value = question.outcome(policy).value
        return TunedPolicy(self.name, policy, value, chosen, time.perf_counter() - began, found.tried)

    def placed(self, parameters: Mapping[str, np.ndarray], question: TuningProblem) -> Policy:
        """Return the policy with these parameters per agent, its orders rounded as the question asks."""
        policy = self.policy({name: jnp.asarray(x, jnp.float32) for name, x in parameters.items()})
        return _whole(policy, question.round_to)

    def _group(self, question: TuningProblem) -> Int[np.ndarray, " agent"]:
        """Number the agents that share parameters, from 0 on without gaps."""
        if self.groups == 0:
            return np.arange(question.n_agents)
        scale = np.asarray(question.population.demand_scale, float)
        return np.unique(bucket_of(scale, bucket_edges(scale, self.groups)), return_inverse=True)[1]


@dataclass(frozen=True)
class BestBaseStock(SearchedFamily):
    """Order up to a fixed level, the best one for each agent."""

    title: ClassVar[str] = "base-stock"
    in_units: ClassVar[tuple[str, ...]] = ("level",)

    def ranges(self, question: TuningProblem) -> Ranges:
        """Search levels up to the highest that could have been of use."""
        return {"level": _from_zero(question.most_useful)}

    def policy(self, parameters: Mapping[str, Float[Array, " agent"]]) -> Policy:
        """Return the order-up-to policy."""
        return OrderUpTo(parameters["level"])


@dataclass(frozen=True)
class CappedBaseStockFamily(SearchedFamily):
    """Order up to a fixed level but at most a cap; begins at the best level without one."""

    title: ClassVar[str] = "capped base-stock"
    in_units: ClassVar[tuple[str, ...]] = ("level", "cap")

    def ranges(self, question: TuningProblem) -> Ranges:
        """Search levels around the best one without a cap, rather above than below it, and caps up to a large week."""
        level, week = _base_stock_of(self, question), question.most_asked(1)
        return {"level": (0.5 * level, level + week), "cap": _from_zero(week)}

    def starts(self, question: TuningProblem) -> Sequence[Parameters]:
        """Begin at the best base-stock level with a cap that never binds."""
        level = _base_stock_of(self, question)
        return ({"level": level, "cap": np.maximum(level, question.most_useful)},)

    def policy(self, parameters: Mapping[str, Float[Array, " agent"]]) -> Policy:
        """Return the capped policy."""
        return CappedBaseStock(parameters["level"], parameters["cap"])


@dataclass(frozen=True)
class SsPolicy(SearchedFamily):
    """Order up to S when the position is at or below s: searched over s and the gap S - s; begins at base-stock."""

    title: ClassVar[str] = "(s,S)"
    in_units: ClassVar[tuple[str, ...]] = ("reorder_point", "gap")

    def ranges(self, question: TuningProblem) -> Ranges:
        """Search points that could have been of use, and gaps up to a few economic order quantities or such points."""
        useful, mean = question.most_useful, np.asarray(question.exogenous.demand, float)
        mean = mean.reshape(-1, mean.shape[-1]).mean(0)
        holding = np.maximum(np.asarray(question.population.holding_cost, float), TINY)
        economic = np.sqrt(2.0 * question.objective.order_cost * mean / holding)
        return {"reorder_point": _from_zero(useful), "gap": _from_zero(np.maximum(useful, 2.0 * economic))}

    def starts(self, question: TuningProblem) -> Sequence[Parameters]:
        """Begin at the best base-stock level: s = S."""
        level = _base_stock_of(self, question)
        return ({"reorder_point": level, "gap": np.zeros_like(level)},)

    def policy(self, parameters: Mapping[str, Float[Array, " agent"]]) -> Policy:
        """Return the (s,S) policy."""
        return ReorderPoint(parameters["reorder_point"], parameters["reorder_point"] + parameters["gap"])


@dataclass(frozen=True)
class ConstantOrderFamily(SearchedFamily):
    """Order the same quantity every week, the best one for each agent."""

    title: ClassVar[str] = "constant order"
    in_units: ClassVar[tuple[str, ...]] = ("quantity",)

    def ranges(self, question: TuningProblem) -> Ranges:
        """Search quantities up to the largest week."""
        return {"quantity": _from_zero(question.most_asked(1))}

    def policy(self, parameters: Mapping[str, Float[Array, " agent"]]) -> Policy:
        """Return the constant order."""
        return ConstantOrder(parameters["quantity"])


@dataclass(frozen=True)
class ForecastBaseStockFamily(SearchedFamily):
    """Order up to a x mean + b x standard deviation of the forecast: levels that follow a product up and down."""

    title: ClassVar[str] = "base-stock on the forecast"

    def ranges(self, question: TuningProblem) -> Ranges:
        """Search around mean + safety stock, from none to far more than any law would ask for."""
        return _factors(question, mean=(0.0, 2.0), sd=(-1.0, 3.5))

    def policy(self, parameters: Mapping[str, Float[Array, " agent"]]) -> Policy:
        """Return the policy with these factors."""
        return ForecastBaseStock(parameters["mean_factor"], parameters["sd_factor"])


@dataclass(frozen=True)
class TunedNewsvendor(SearchedFamily):
    """Correct the mean and the spread of the forecast that the priced newsvendor plans with; begins at no correction.

    Attributes:
        law: of lead-time demand.
        discount: worth next week of one unit of money now.
    """

    law: AbstractDemandDistribution = field(default_factory=GammaDemand)
    discount: float = 1.0

    title: ClassVar[str] = "tuned newsvendor"

    def ranges(self, question: TuningProblem) -> Ranges:
        """Search factors from nothing to twice the mean and three times the spread."""
        return _factors(question, mean=(0.0, 2.0), sd=(0.0, 3.0))

    def starts(self, question: TuningProblem) -> Sequence[Parameters]:
        """Begin at the newsvendor itself."""
        ones = np.ones(question.n_agents)
        return ({"mean_factor": ones, "sd_factor": ones},)

    def policy(self, parameters: Mapping[str, Float[Array, " agent"]]) -> Policy:
        """Return the newsvendor on the corrected forecast."""
        return ScaledNewsvendor(self.law, self.discount, **parameters)


@dataclass(frozen=True)
class Newsvendor(PolicyFamily):
    """Take the priced newsvendor as it is: nothing to tune.

    Attributes:
        law: of lead-time demand.
        discount: worth next week of one unit of money now.
    """

    law: AbstractDemandDistribution = field(default_factory=GammaDemand)
    discount: float = 1.0

    @property
    def name(self) -> str:
        """Name the family."""
        return "newsvendor"

    def tune(self, question: TuningProblem) -> TunedPolicy:
        """Return the policy with its value."""
        began = time.perf_counter()
        policy = _whole(PricedNewsvendor(self.law, self.discount), question.round_to)
        value = question.outcome(policy).value
        return TunedPolicy(self.name, policy, value, {}, time.perf_counter() - began, 1)


def tune(
    family: PolicyFamily,
    population: Population,
    exogenous: ExogenousPaths,
    *,
    initial: State,
    shadow_prices: Float[Array, "*scenario week resource"] | None = None,
    backlog: bool = False,
    warm_up: int = 0,
    order_cost: float = 0.0,
    round_to: float | None = None,
) -> TunedPolicy:
    """Choose a family's best policy on given paths, for all agents at once.

    Args:
        family: what may be chosen.
        population: who the agents are.
        exogenous: training weeks only; with a scenario axis the mean over scenarios counts.
        initial: stock and pipeline at the start.
        shadow_prices: charged for use [money per unit of resource].
        backlog: unmet demand waits instead of being lost.
        warm_up: first weeks that do not count.
        order_cost: cost of placing an order [money/order].
        round_to: orders are whole multiples of this [units].
    """
    objective = Objective(warm_up, backlog, order_cost)
    return family.tune(TuningProblem(population, exogenous, initial, shadow_prices, objective, round_to))


TINY = 1e-6
"""Keeps a ratio to a holding cost of nothing defined [money/unit/week]."""


def _whole(policy: Policy, round_to: float | None) -> Policy:
    return policy if round_to is None else Constrained(policy, CasePacks(case_pack=round_to))


def _spread(parameters: Parameters, group: np.ndarray) -> dict[str, Float[np.ndarray, " agent"]]:
    return {name: values[group] for name, values in parameters.items()}


def _widest(values: np.ndarray, group: np.ndarray, count: int, join: np.ufunc) -> Float[np.ndarray, " group"]:
    out = np.full(count, np.inf if join is np.minimum else -np.inf)
    join.at(out, group, values)
    return out


def _first(values: np.ndarray, group: np.ndarray, count: int) -> Float[np.ndarray, " group"]:
    """Return the value of one agent of each group: where agents share parameters, starts are alike or of no use."""
    out = np.zeros(count)
    out[group[::-1]] = values[::-1]
    return out


def _from_zero(top: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros_like(top), top


def _factors(question: TuningProblem, mean: tuple[float, float], sd: tuple[float, float]) -> Ranges:
    full = lambda value: np.full(question.n_agents, value)  # noqa: E731
    return {"mean_factor": (full(mean[0]), full(mean[1])), "sd_factor": (full(sd[0]), full(sd[1]))}


def _base_stock_of(family: SearchedFamily, question: TuningProblem) -> Float[np.ndarray, " agent"]:
    found = BestBaseStock(groups=family.groups, grid=family.grid).tune(question)
    return np.asarray(found.parameters["level"])


FOLDS = 3
"""Times that a choice is tuned on the first weeks and judged on those that follow."""


def time_series_splits(question: TuningProblem, folds: int = FOLDS) -> Iterator[tuple[TuningProblem, TuningProblem]]:
    """Cut the second half of the weeks that count into parts, one after the other.

    Args:
        question: whose weeks are cut.
        folds: number of parts.

    Yields:
        The question of the weeks before a part, and that of the part.

    Raises:
        SettingsError: too few weeks for so many parts.
    """
    first, weeks = question.objective.warm_up, question.exogenous.n_weeks
    edges = np.unique(np.linspace((first + weeks) // 2, weeks, folds + 1).round().astype(int))
    if folds < 1 or len(edges) <= folds or edges[0] <= first:
        raise SettingsError(
            f"`folds` is {folds} but {weeks} weeks with {first} of warm-up cannot be cut into so many; give more weeks "
            "or fewer folds"
        )
    for head, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        early = replace(question.objective, stop=head)
        late = replace(question.objective, warm_up=head, stop=end)
        yield replace(question, objective=early), replace(question, objective=late)


@dataclass(frozen=True)
class CrossValidated(PolicyFamily):
    """Choose between families by how they do in weeks after those they were tuned on: guards against overfitting.

    Attributes:
        families: to choose from.
        title: name of the choice; what was chosen is named too.
        folds: times that each family is tuned on the first weeks and judged on those that follow: the second half of
            the weeks is cut into so many parts, one after the other.
    """

    families: tuple[PolicyFamily, ...]
    title: str
    folds: int = FOLDS

    @property
    def name(self) -> str:
        """Name the choice."""
        return self.title

    def tune(self, question: TuningProblem) -> TunedPolicy:
        """Keep the family that earns most in the weeks that followed, and tune it on all."""
        began, tried = time.perf_counter(), 0
        earned = np.zeros(len(self.families))
        for early, late in time_series_splits(question, self.folds):
            for index, family in enumerate(self.families):
                tuned = family.tune(early)
                tried += tuned.tried
                earned[index] += late.outcome(tuned.policy).value.sum(dtype=float)
        best = self.families[int(np.argmax(earned))].tune(question)
        seconds = time.perf_counter() - began
        return replace(best, name=f"{self.title}: {best.name}", seconds=seconds, tried=tried + best.tried)


@dataclass(frozen=True)
class Rescaled(PolicyFamily):
    """Scale the parameters in units that a search found by one factor for all, found in the weeks that follow.

    A level that is best in hindsight covers the largest demand it has seen and no more: on short histories it is too
    low for what comes. How much too low shows in weeks that it has not seen.

    Attributes:
        family: what is searched.
        factors: to choose from.
        folds: as in `CrossValidated`.
    """

    family: SearchedFamily
    factors: tuple[float, ...] = (0.85, 1.0, 1.15, 1.3, 1.5, 1.75, 2.0, 2.5)
    folds: int = FOLDS

    @property
    def name(self) -> str:
        """Name the family that is searched."""
        return self.family.name

    def tune(self, question: TuningProblem) -> TunedPolicy:
        """Search on all weeks, and scale by the factor that earns most in weeks after those searched."""
        began, tried = time.perf_counter(), 0
        earned = np.zeros(len(self.factors))
        for early, late in time_series_splits(question, self.folds):
            found = self.family.tune(early)
            tried += found.tried + len(self.factors)
            for index, factor in enumerate(self.factors):
                policy = self.family.placed(self._scaled(found, factor, question), question)
                earned[index] += late.outcome(policy).value.sum(dtype=float)
        factor = self.factors[int(np.argmax(earned))]
        best = self.family.tune(question)
        parameters = self._scaled(best, factor, question)
        policy = self.family.placed(parameters, question)
        value, seconds = question.outcome(policy).value, time.perf_counter() - began
        return TunedPolicy(f"{self.name} x {factor:g}", policy, value, parameters, seconds, tried + best.tried)

    def _scaled(self, found: TunedPolicy, factor: float, question: TuningProblem) -> dict[str, np.ndarray]:
        """Scale what is in units, and keep it whole where it has to be."""
        step = question.round_to
        scaled = {name: found.parameters[name] * factor for name in self.family.in_units}
        whole = {name: values if step is None else np.rint(values / step) * step for name, values in scaled.items()}
        return {**found.parameters, **whole}
