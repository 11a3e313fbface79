"""Choice of the policy that agents are expected to follow: the trained buyer where it earned more on the last weeks.

The sentence and the numbers are printed by reports.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from walras.config import HistorySettings, PlanSettings
from walras.data.panel import Panel
from walras.errors import InputError
from walras.evaluation.ranking import reward_ratio
from walras.planning.problem import PolicyChoice, active_panel, priced_newsvendor
from walras.policies.buyer import Buyer
from walras.progress import Progress
from walras.train.buyer_training import load_buyer
from walras.train.history import train_test_split
from walras.train.policy_comparison import COMPETITORS, evaluate_policy, tuning_problem, with_history

RIVALS = {"newsvendor": "the newsvendor", "base-stock": "the best base-stock level of each product"}
"""Policies that the buyer has to beat: the closed form, and tuned levels; with their names in sentences."""

MAX_PRODUCTS = 2000
"""Products that policies are compared on, drawn evenly from larger tables."""

MIN_PRODUCTS, MIN_WEEKS = 300, 48
"""Smaller tables and shorter histories decide nothing: the closed form is used."""

HOLDOUT_WEEKS, REFIT_WEEKS = 26, 4
"""Last weeks of the history that decide, at most a third of it; weeks between two fits of the forecast."""


def select_policy(panel: Panel, settings: PlanSettings, progress: Progress | None = None) -> PolicyChoice:
    """Choose as the settings say; by default the buyer, if it earned more than its rivals on the table's last weeks.

    Learned maps know one policy, so that by default nothing is compared where `interface` is learned.

    Args:
        panel: as read.
        settings: `policy`, `buyer` and `interface`.
        progress: notified of stages.
    """
    newsvendor = "Agents are taken to follow the priced newsvendor"
    if settings.policy == "newsvendor":
        return priced_newsvendor(settings, f"{newsvendor}, as asked.")
    if settings.policy == "auto" and settings.interface == "learned":
        reason = "which learned maps are trained with: it was not compared with the trained buyer"
        return priced_newsvendor(settings, f"{newsvendor}, {reason}.")
    buyer = load_buyer(settings.buyer).buyer
    if settings.policy == "buyer":
        return PolicyChoice(buyer, "Agents are taken to follow the trained buyer, as asked.", {"name": "buyer"})
    active, _, _ = active_panel(panel, settings)
    if active.n_agents < MIN_PRODUCTS or active.n_weeks < MIN_WEEKS:
        reason = (
            f"{active.n_agents} products over {active.n_weeks} weeks are too few to tell whether the trained buyer is "
            f"better ({MIN_PRODUCTS} over {MIN_WEEKS} are needed)"
        )
        return priced_newsvendor(settings, f"{newsvendor}: {reason}.")
    if progress is not None:
        progress.stage("Comparing policies on the last weeks")
    try:
        facts = backtest_policies(active, buyer, settings)
    except InputError as error:
        return priced_newsvendor(settings, f"{newsvendor}: {error.args[0]}.")
    if facts["low"] > 1.0:
        words = f"Agents are taken to follow the trained buyer: {_comparison(facts)}."
        return PolicyChoice(buyer, words, {"name": "buyer", **facts})
    choice = priced_newsvendor(settings, f"{newsvendor}: {_comparison(facts)}.")
    return PolicyChoice(choice.policy, choice.words, {**choice.facts, **facts})


def backtest_policies(active: Panel, buyer: Buyer, settings: PlanSettings) -> dict[str, Any]:
    """Compare a buyer with its tuned rivals on the last weeks of the history.

    Returns:
        `reward_ratio` of the buyer to the better rival with `low` and `high` of its 95 % interval, `against`,
        `products`, `weeks`.
    """
    random = np.random.default_rng([settings.seed, 0xC0])
    sample = np.sort(random.permutation(active.n_agents)[:MAX_PRODUCTS])
    history = HistorySettings(
        holdout=min(HOLDOUT_WEEKS, active.n_weeks // 3),
        draws=2,
        refit_weeks=REFIT_WEEKS,
        seed=settings.seed,
        economics=settings.economics,
    )
    split = train_test_split(active.take(sample), history)
    tuning = tuning_problem(split)
    rivals = {name: evaluate_policy(split, COMPETITORS[name](split, tuning), name=name) for name in RIVALS}
    against = max(rivals, key=lambda name: float(rivals[name].reward.sum()))
    ours = evaluate_policy(split, with_history(split, buyer))
    ratio = reward_ratio(ours.reward, rivals[against].reward)
    if ratio is None:
        raise InputError(f"no policy earned anything in the last {len(split.holdout.weeks)} weeks")
    facts = {"reward_ratio": ratio.estimate, "low": ratio.low, "high": ratio.high}
    return {**facts, "against": against, "products": split.n_agents, "weeks": len(split.holdout.weeks)}


def _comparison(facts: Mapping[str, Any]) -> str:
    return (
        f"on the last {facts['weeks']} weeks of {facts['products']} products the trained buyer earned "
        f"{facts['reward_ratio']:.2f} times ({facts['low']:.2f} to {facts['high']:.2f}) "
        f"what {RIVALS[facts['against']]} did"
    )
