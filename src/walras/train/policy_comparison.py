"""Comparison of policies on a user's own history: tuned on earlier weeks, evaluated on later ones, the same for all."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.config import PriceKind
from walras.errors import SettingsError
from walras.evaluation.ranking import PolicyOutcome, Ranking, rank
from walras.exogenous.capacity import haar_noise
from walras.policies.buyer import Buyer
from walras.population.population import Population
from walras.progress import Progress
from walras.simulation.week import State
from walras.train.buyer_training import load_buyer
from walras.train.history import HistorySplit
from walras.train.policy_families import (
    BestBaseStock,
    CappedBaseStockFamily,
    ConstantOrderFamily,
    CrossValidated,
    ForecastBaseStockFamily,
    Newsvendor,
    Rescaled,
    SsPolicy,
    TunedNewsvendor,
    in_multiples,
)
from walras.train.policy_value import Objective, TunedPolicy, TuningProblem
from walras.train.shocks import typical_prices

GROUPINGS = (0, 10, 1)  # parameters per agent, per demand bucket, and one for all: training weeks decide which is best
WARM_UP_SHARE = 5  # the first fifth of the training weeks is warm-up, in which orders open at the start arrive
PULSE_HEIGHT, HAAR_LEVEL = 0.5, 0.25  # height of a pulse, and mean of a Haar path, in median margins
HAAR_BLOCK = 4  # weeks on which a Haar path is constant
HELD_OUT_PRICES = 7919  # added to the seed for the prices of the held-out weeks
Competitor = Callable[[HistorySplit, TuningProblem], TunedPolicy]


def with_history(split: HistorySplit, buyer: Buyer, round_to: float | None = None) -> TunedPolicy:
    """Give a buyer what is known of the products before the held-out weeks; nothing else is tuned."""
    known = np.asarray(split.panel.units)[: -len(split.holdout.weeks)]
    policy = in_multiples(buyer.with_history(known, np.asarray(split.population.lead_time)), round_to)
    return TunedPolicy("buyer", policy, np.zeros(split.n_agents), {})


def _tuned_newsvendor(discount: float) -> CrossValidated:
    corrected = (TunedNewsvendor(groups=n, discount=discount) for n in GROUPINGS)
    return CrossValidated((Newsvendor(discount=discount), *corrected), "tuned-newsvendor")


_ON_FORECAST = CrossValidated(tuple(ForecastBaseStockFamily(groups=n) for n in GROUPINGS), "forecast-base-stock")
COMPETITORS: dict[str, Competitor] = {
    "buyer": lambda split, problem: with_history(split, load_buyer().buyer, problem.round_to),
    "newsvendor": lambda split, problem: Newsvendor(discount=split.discount).tune(problem),
    "tuned-newsvendor": lambda split, problem: _tuned_newsvendor(split.discount).tune(problem),
    "base-stock": lambda split, problem: BestBaseStock().tune(problem),
    "scaled-base-stock": lambda split, problem: Rescaled(BestBaseStock()).tune(problem),
    "forecast-base-stock": lambda split, problem: _ON_FORECAST.tune(problem),
    "capped-base-stock": lambda split, problem: CappedBaseStockFamily().tune(problem),
    "reorder-point": lambda split, problem: SsPolicy().tune(problem),
    "constant-order": lambda split, problem: ConstantOrderFamily().tune(problem),
}
"""Competitors by name; add one here, or pass others to `compare_on_split`."""


@dataclass(frozen=True)
class PolicyComparison:
    """Outcome of a comparison."""

    ranking: Ranking  # on the held-out weeks
    tuned: Mapping[str, TunedPolicy]  # name -> competitor with the parameters that were chosen
    outcomes: Mapping[str, PolicyOutcome]  # name -> what it earned for every agent in the held-out weeks

    def __str__(self) -> str:
        """Show the ranking as a table."""
        return str(self.ranking)


def compare_on_split(
    split: HistorySplit,
    names: Sequence[str] = (),
    *,
    shadow_price: PriceKind = "none",
    round_to: float | None = None,
    against: str | None = None,
    level: float = 0.95,
    seed: int = 0,
    competitors: Mapping[str, Competitor] | None = None,
    progress: Progress | None = None,
) -> PolicyComparison:
    """Tune policies on the training weeks of a split and rank them on its held-out weeks.

    Args:
        split: from `train_test_split`.
        names: of the competitors; all where none is named.
        shadow_price: charged for the resources in both, drawn anew for the held-out weeks.
        round_to: orders are whole multiples of this [units].
        against: competitor that the others are compared with; the best where not given.
        level: nominal coverage of the intervals.
        competitors: name -> competitor; `COMPETITORS` where not given.

    Raises:
        SettingsError: a name that no competitor has, or one named twice.
    """
    progress = Progress() if progress is None else progress
    competitors = COMPETITORS if competitors is None else competitors
    names = select_names(names, competitors)
    problem = tuning_problem(split, shadow_price=shadow_price, round_to=round_to, seed=seed)
    prices = price_path(shadow_price, split.population, len(split.holdout.weeks), seed + HELD_OUT_PRICES)
    tuned, outcomes = {}, {}
    for name in names:
        progress.stage(f"Tuning {name}")
        tuned[name] = competitors[name](split, problem)
        outcomes[name] = evaluate_policy(
            split, tuned[name], name=name, shadow_prices=prices, training_prices=problem.shadow_prices
        )
    return PolicyComparison(rank(list(outcomes.values()), against=against, level=level, seed=seed), tuned, outcomes)


def select_names(names: Sequence[str], competitors: Mapping[str, Competitor] | None = None) -> tuple[str, ...]:
    """Return the names of the competitors, all where none is named; refuse unknown names and names given twice."""
    known = COMPETITORS if competitors is None else competitors
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean `{near[0]}`?" if near else f"choose from {', '.join(known)}"
            raise SettingsError(f"policy `{name}` is not known; {advice}")
        if list(names).count(name) > 1:
            raise SettingsError(f"`policies` names {name} twice; name each once")
    return tuple(names) if names else tuple(known)


def tuning_problem(
    split: HistorySplit, *, shadow_price: PriceKind = "none", round_to: float | None = None, seed: int = 0
) -> TuningProblem:
    """Return the problem of tuning on the training weeks of a split, the first of which are warm-up."""
    weeks = split.training
    prices = price_path(shadow_price, split.population, len(weeks.weeks), seed)
    warm_up = min(weeks.initial.max_lead, len(weeks.weeks) // WARM_UP_SHARE)
    return TuningProblem(split.population, weeks.exogenous, weeks.initial, prices, Objective(warm_up), round_to)


def evaluate_policy(
    split: HistorySplit,
    tuned: TunedPolicy,
    *,
    name: str | None = None,
    initial: State | None = None,
    shadow_prices: Float[Array, "week resource"] | None = None,
    training_prices: Float[Array, "trained resource"] | None = None,
) -> PolicyOutcome:
    """Simulate a policy through the training weeks of a split and count what it earns in the held-out ones.

    It begins the held-out weeks with the stock that it left itself, charged at unit cost, as what it leaves at the end
    is valued, so that the reward is what the held-out weeks earned.

    Args:
        split, tuned: whose agents act, and the policy.
        name: in the ranking; the policy's own where not given.
        initial: stock and open orders to begin the held-out weeks with instead, the same for all policies.
        shadow_prices, training_prices: of the held-out weeks and of those before, announced in full [money per unit of
            resource].
    """
    weeks, warm_up = (split.whole, len(split.training.weeks)) if initial is None else (split.holdout, 0)
    start = weeks.initial if initial is None else initial
    prices = _prices_or_zeros(shadow_prices, len(split.holdout.weeks), split)
    if initial is None:
        prices = jnp.concatenate([_prices_or_zeros(training_prices, warm_up, split), prices])
    problem = TuningProblem(split.population, weeks.exogenous, start, prices, Objective(warm_up))
    result = problem.evaluate(tuned.policy)
    units = np.asarray(start.stock_end, float) + np.asarray(start.pipeline, float).sum(-2)
    cost = np.asarray(split.holdout.exogenous.unit_cost, float)[0]
    return PolicyOutcome(
        name=tuned.name if name is None else name,
        reward=result.value.astype(float) - cost * units,
        demand=result.demand.astype(float),
        sales=result.sales.astype(float),
        stock=result.stock.astype(float),
        weeks=len(split.holdout.weeks),
        seconds=tuned.seconds,
    )


def _prices_or_zeros(prices: Array | None, weeks: int, split: HistorySplit) -> Float[Array, "week resource"]:
    return jnp.zeros((weeks, len(split.population.resources))) if prices is None else jnp.asarray(prices)


def price_path(kind: PriceKind, population: Population, weeks: int, seed: int) -> Float[Array, "week resource"] | None:
    """Draw a path of shadow prices of about the size that capacity is worth [money per unit of resource].

    "pulse" is two weeks at half the median margin (or holding cost, for storage), somewhere in the middle; "haar" moves
    around a quarter of it in blocks of four weeks; "none" gives None. The same seed gives the same path.
    """
    if kind == "none":
        return None
    random, resources = np.random.default_rng([seed, 0x9A7]), len(population.resources)
    if kind == "haar":
        shape = HAAR_LEVEL * np.maximum(1.0 + haar_noise(random, weeks, resources, HAAR_BLOCK, 1.0), 0.0)
    else:
        first = random.integers(weeks // 4, max(weeks // 2, weeks // 4 + 1))
        shape = np.zeros((weeks, resources))
        shape[first : first + 2] = PULSE_HEIGHT
    return jnp.asarray(shape * typical_prices(population), jnp.float32)
