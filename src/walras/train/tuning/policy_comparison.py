"""Own the contest of policies on a user's own history: tuned on earlier weeks, judged on later ones, the same for all.

OPEN: add a competitor to `COMPETITORS` under its name: a function from a case and a question to a tuned policy.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.config import PriceKind
from walras.errors import SettingsError
from walras.evaluation.ranking import PolicyOutcome, Ranking, rank
from walras.exogenous.capacity import haar_noise
from walras.policies.base import Policy
from walras.policies.buyer import Buyer
from walras.policies.order_constraints import CasePacks, Constrained
from walras.population.population import Population
from walras.progress import Progress
from walras.simulation.state import State
from walras.train.buyer_file import load_buyer
from walras.train.history import HistorySplit
from walras.train.shocks import typical_prices
from walras.train.tuning.families import (
    BestBaseStock,
    CappedBaseStockFamily,
    ConstantOrderFamily,
    CrossValidated,
    ForecastBaseStockFamily,
    Newsvendor,
    PolicyFamily,
    Rescaled,
    SsPolicy,
    TunedNewsvendor,
    TunedPolicy,
    TuningProblem,
)
from walras.train.tuning.policy_value import Objective, policy_value

POOLS = (0, 10, 1)
"""Parameters per agent, per demand bucket, and one for all: which of them is best, training weeks decide."""

WARM_UP_SHARE = 5
"""One part in so many of the training weeks is warm-up, in which what was on order at the start runs out."""

PULSE_HEIGHT, HAAR_LEVEL, HAAR_BLOCK = 0.5, 0.25, 4
"""Height of a pulse, and mean of a Haar path, in median margins; weeks on which a Haar path is constant."""

HELD_OUT_PRICES = 7919
"""Added to the seed for the prices of the held-out weeks."""

Competitor = Callable[[HistorySplit, TuningProblem], TunedPolicy]


def tuned_family(family: Callable[[HistorySplit], PolicyFamily]) -> Competitor:
    """Make a competitor of a family: it is tuned on the question."""
    return lambda case, question: family(case).tune(question)


def with_history(case: HistorySplit, buyer: Buyer, round_to: float | None = None) -> TunedPolicy:
    """Tell a buyer what is known of a case's products before the held-out weeks: nothing else is tuned.

    Args:
        case: whose products.
        buyer: the shipped one, or another.
        round_to: orders are whole multiples of this [units]; None for any amount.
    """
    known = np.asarray(case.panel.units)[: -len(case.holdout.weeks)]
    policy: Policy = buyer.told(known, np.asarray(case.population.lead_time))
    if round_to is not None:
        policy = Constrained(policy, CasePacks(case_pack=round_to))
    return TunedPolicy("buyer", policy, np.zeros(case.n_agents), {})


COMPETITORS: dict[str, Competitor] = {
    "buyer": lambda case, question: with_history(case, load_buyer().buyer, question.round_to),
    "newsvendor": tuned_family(lambda case: Newsvendor(discount=case.discount)),
    "tuned-newsvendor": tuned_family(
        lambda case: CrossValidated(
            (
                Newsvendor(discount=case.discount),
                *(TunedNewsvendor(groups=n, discount=case.discount) for n in POOLS),
            ),
            "tuned-newsvendor",
        )
    ),
    "base-stock": tuned_family(lambda case: BestBaseStock()),
    "scaled-base-stock": tuned_family(lambda case: Rescaled(BestBaseStock())),
    "forecast-base-stock": tuned_family(
        lambda case: CrossValidated(tuple(ForecastBaseStockFamily(groups=n) for n in POOLS), "forecast-base-stock")
    ),
    "capped-base-stock": tuned_family(lambda case: CappedBaseStockFamily()),
    "reorder-point": tuned_family(lambda case: SsPolicy()),
    "constant-order": tuned_family(lambda case: ConstantOrderFamily()),
}
"""What takes part by name; whoever trains a policy adds it here, or passes it to `compare_policies`."""


@dataclass(frozen=True)
class PolicyComparison:
    """Hold the outcome of a contest.

    Attributes:
        ranking: on the held-out weeks.
        tuned: name -> what took part, with the parameters that were chosen.
        outcomes: name -> what each did for every agent on the held-out weeks.
    """

    ranking: Ranking
    tuned: Mapping[str, TunedPolicy]
    outcomes: Mapping[str, PolicyOutcome]

    def __str__(self) -> str:
        """Print the ranking as a table."""
        return str(self.ranking)


def compare_policies(
    case: HistorySplit,
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
    """Tune policies on the training weeks of a case and rank them on its held-out weeks.

    Args:
        case: training and held-out weeks, from `split_history`.
        names: of those who take part; all of them where none is named.
        shadow_price: what is charged for the resources in both, drawn anew for the held-out weeks.
        round_to: orders are whole multiples of this [units].
        against: whom the others are compared with; the best where not given.
        level: nominal coverage of the intervals.
        seed: of prices and intervals.
        competitors: name -> competitor; `COMPETITORS` where not given.
        progress: told about stages.

    Raises:
        SettingsError: a name that no competitor has, or one named twice.
    """
    progress = Progress() if progress is None else progress
    competitors = COMPETITORS if competitors is None else competitors
    names = chosen(names, competitors)
    question = tuning_problem(case, shadow_price=shadow_price, round_to=round_to, seed=seed)
    prices = price_path(shadow_price, case.population, len(case.holdout.weeks), seed + HELD_OUT_PRICES)
    tuned, outcomes = {}, {}
    for name in names:
        progress.stage(f"Tuning {name}")
        tuned[name] = competitors[name](case, question)
        outcomes[name] = evaluate_policy(
            case, tuned[name], name=name, shadow_prices=prices, training_prices=question.shadow_prices
        )
    return PolicyComparison(rank(list(outcomes.values()), against=against, level=level, seed=seed), tuned, outcomes)


def chosen(names: Sequence[str], competitors: Mapping[str, Competitor] | None = None) -> tuple[str, ...]:
    """Return who takes part, or say in one sentence which name is wrong."""
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
    case: HistorySplit, *, shadow_price: PriceKind = "none", round_to: float | None = None, seed: int = 0
) -> TuningProblem:
    """Ask for the best policy on the training weeks of a case, the first of which are warm-up."""
    weeks = case.training
    prices = price_path(shadow_price, case.population, len(weeks.weeks), seed)
    warm_up = min(weeks.initial.max_lead, len(weeks.weeks) // WARM_UP_SHARE)
    return TuningProblem(case.population, weeks.exogenous, weeks.initial, prices, Objective(warm_up), round_to)


def evaluate_policy(
    case: HistorySplit,
    tuned: TunedPolicy,
    *,
    name: str | None = None,
    initial: State | None = None,
    shadow_prices: Float[Array, "week resource"] | None = None,
    training_prices: Float[Array, "trained resource"] | None = None,
) -> PolicyOutcome:
    """Run a policy through the weeks of a case and count what it earns in the held-out ones.

    A policy lives with what it did: it runs through the training weeks too, and begins the held-out ones with the stock
    that it left itself. That stock is charged at unit cost, as what it leaves at the end is valued, so that the reward
    is what the held-out weeks earned.

    Args:
        case: whose agents act.
        tuned: the policy; it is run as it is.
        name: in the ranking; the policy's own where not given.
        initial: stock and open orders to begin the held-out weeks with instead, the same for all policies.
        shadow_prices: of the held-out weeks, announced in full [money per unit of resource].
        training_prices: of the weeks before, where the policy runs through them.
    """
    weeks, warm_up = (case.whole, len(case.training.weeks)) if initial is None else (case.holdout, 0)
    start = weeks.initial if initial is None else initial
    prices = _full(shadow_prices, len(case.holdout.weeks), case)
    if initial is None:
        prices = jnp.concatenate([_full(training_prices, warm_up, case), prices])
    objective = Objective(warm_up)
    found = policy_value(
        case.population, weeks.exogenous, tuned.policy, initial=start, shadow_prices=prices, objective=objective
    )
    units = np.asarray(start.stock_end, float) + np.asarray(start.pipeline, float).sum(-2)
    cost = np.asarray(case.holdout.exogenous.unit_cost, float)[0]
    return PolicyOutcome(
        name=tuned.name if name is None else name,
        reward=found.value.astype(float) - cost * units,
        demand=found.demand.astype(float),
        sales=found.sales.astype(float),
        stock=found.stock.astype(float),
        weeks=len(case.holdout.weeks),
        seconds=tuned.seconds,
    )


def _full(prices: Array | None, weeks: int, case: HistorySplit) -> Float[Array, "week resource"]:
    return jnp.zeros((weeks, len(case.population.resources))) if prices is None else jnp.asarray(prices)


def price_path(kind: PriceKind, population: Population, weeks: int, seed: int) -> Float[Array, "week resource"] | None:
    """Draw a path of shadow prices of about the size that capacity is worth; None for no prices.

    Args:
        kind: "pulse" is two weeks at half the median margin, somewhere in the middle; "haar" moves around a quarter
            of it in blocks of four weeks.
        population: whose margins set the size; for storage, whose holding costs do.
        weeks: length.
        seed: the same seed gives the same path.

    Returns:
        Prices [money per unit of resource].
    """
    if kind == "none":
        return None
    rng, resources = np.random.default_rng([seed, 0x9A7]), len(population.resources)
    if kind == "haar":
        shape = HAAR_LEVEL * np.maximum(1.0 + haar_noise(rng, weeks, resources, HAAR_BLOCK, 1.0), 0.0)
    else:
        first = rng.integers(weeks // 4, max(weeks // 2, weeks // 4 + 1))
        shape = np.zeros((weeks, resources))
        shape[first : first + 2] = PULSE_HEIGHT
    return jnp.asarray(shape * typical_prices(population), jnp.float32)


def with_fixed(competitors: Mapping[str, Competitor], name: str, tuned: TunedPolicy) -> dict[str, Competitor]:
    """Add a policy that needs no more tuning under a name of its own."""
    return {**competitors, name: lambda case, question: replace(tuned, name=name)}
