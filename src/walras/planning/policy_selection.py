"""Own the choice of the policy that a plan expects agents to follow: the shipped buyer where it has proved itself.

FREE: how it is put to the proof; the sentence and the numbers are printed by reports.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from walras.config import HistorySettings, PlanSettings
from walras.data.panel import Panel
from walras.errors import InputError
from walras.evaluation.ranking import reward_ratio
from walras.policies.base import Policy
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.buyer import Buyer
from walras.population.population import Population
from walras.progress import Progress
from walras.train.buyer_file import load_buyer
from walras.train.history import train_test_split
from walras.train.tuning.policy_comparison import COMPETITORS, evaluate_policy, tuning_problem, with_history

RIVALS = ("newsvendor", "base-stock")
"""What the buyer has to beat: the plan's own closed form, and the best level of each product in hindsight."""

MOST_JUDGED = 2000
"""Products that judge, drawn evenly from larger tables."""

FEWEST_JUDGED, FEWEST_WEEKS = 300, 48
"""Smaller tables and shorter histories decide nothing: the closed form is planned with."""

OF_MAPS = (
    "Agents are taken to follow the priced newsvendor, which learned maps are trained with: it was not compared with "
    "the trained buyer."
)
"""What is said where maps decide."""

HELD_OUT, REFIT = 26, 4
"""Last weeks of the history that judge, at most a third of it; weeks between two fits of the forecast."""


@dataclass(frozen=True)
class PolicyChoice:
    """Hold what agents are expected to follow, and why.

    Attributes:
        policy: for the agents of the plan.
        words: one sentence for the report.
        facts: `name`; and where it was put to the proof `reward_ratio` with `low` and `high`, `against`, `products`.
    """

    policy: Policy
    words: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def select_policy(
    raw: Panel, completed: Panel, population: Population, settings: PlanSettings, progress: Progress
) -> PolicyChoice:
    """Choose as the settings say; by default the buyer, if it earned more than its rivals on the table's last weeks.

    Learned maps know one policy, so that by default nothing is compared where they are asked.

    Args:
        raw: panel of the planned agents as read.
        completed: the same, completed.
        population: its agents.
        settings: `policy`, `buyer` and `interface`.
        progress: told about stages.
    """
    closed = PricedNewsvendor(discount=settings.economics.discount)
    if settings.policy == "newsvendor":
        return PolicyChoice(
            closed, "Agents are taken to follow the priced newsvendor, as asked.", {"name": "newsvendor"}
        )
    if settings.policy == "auto" and settings.interface == "learned":
        return PolicyChoice(closed, OF_MAPS, {"name": "newsvendor"})
    trained = load_buyer(settings.buyer)
    buyer = trained.buyer.told(np.asarray(completed.units), np.asarray(population.lead_time))
    if settings.policy == "buyer":
        return PolicyChoice(buyer, "Agents are taken to follow the trained buyer, as asked.", {"name": "buyer"})
    few = raw.n_agents < FEWEST_JUDGED or raw.n_weeks < FEWEST_WEEKS
    if few:
        words = (
            f"Agents are taken to follow the priced newsvendor: {raw.n_agents} products over {raw.n_weeks} weeks are "
            f"too few to tell whether the trained buyer is better ({FEWEST_JUDGED} over {FEWEST_WEEKS} are needed)."
        )
        return PolicyChoice(closed, words, {"name": "newsvendor"})
    progress.stage("Comparing policies on the last weeks")
    try:
        facts = backtest_policies(raw, trained.buyer, settings)
    except InputError as error:
        return PolicyChoice(
            closed, f"Agents are taken to follow the priced newsvendor: {error.args[0]}.", {"name": "newsvendor"}
        )
    won = facts["low"] > 1.0
    name, policy = ("buyer", buyer) if won else ("newsvendor", closed)
    return PolicyChoice(policy, _words(facts, won), {"name": name, **facts})


def backtest_policies(raw: Panel, buyer: Buyer, settings: PlanSettings) -> dict[str, Any]:
    """Judge a buyer and its tuned rivals on the last weeks of the history.

    Returns:
        `reward_ratio` of the buyer to the better rival with `low` and `high` of its 95 % interval, `against`,
        `products`, `weeks`.
    """
    random = np.random.default_rng([settings.seed, 0xC0])
    judges = np.sort(random.permutation(raw.n_agents)[:MOST_JUDGED])
    history = HistorySettings(
        holdout=min(HELD_OUT, raw.n_weeks // 3),
        draws=2,
        refit_weeks=REFIT,
        seed=settings.seed,
        economics=settings.economics,
    )
    case = train_test_split(raw.take(judges), history)
    question = tuning_problem(case)
    rivals = {name: evaluate_policy(case, COMPETITORS[name](case, question), name=name) for name in RIVALS}
    against = max(rivals, key=lambda name: float(rivals[name].reward.sum()))
    ours = evaluate_policy(case, with_history(case, buyer))
    ratio = reward_ratio(ours.reward, rivals[against].reward)
    if ratio is None:
        raise InputError(f"no policy earned anything in the last {len(case.holdout.weeks)} weeks")
    found = {"reward_ratio": ratio.estimate, "low": ratio.low, "high": ratio.high}
    return {**found, "against": against, "products": case.n_agents, "weeks": len(case.holdout.weeks)}


def _words(facts: Mapping[str, Any], won: bool) -> str:
    rival = {"newsvendor": "the newsvendor", "base-stock": "the best base-stock level of each product"}
    measured = (
        f"on the last {facts['weeks']} weeks of {facts['products']} products the trained buyer earned "
        f"{facts['reward_ratio']:.2f} times ({facts['low']:.2f} to {facts['high']:.2f}) "
        f"what {rival[facts['against']]} did"
    )
    who = "trained buyer" if won else "priced newsvendor"
    return f"Agents are taken to follow the {who}: {measured}."
