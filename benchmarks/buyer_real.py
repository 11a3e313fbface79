"""Train a buyer on a table's earlier weeks and compare it with tuned classical policies on later weeks.

`python benchmarks/buyer_real.py --table products.parquet --json`. Three parts of ten of the products are never seen in
training. The buyer learns from the others, in the weeks before the last 26. Every classical policy is tuned on the
training weeks of the very products that it is judged on. All live with the stock that they left themselves, and are
judged on the last 26 weeks, on the products that the buyer never saw. The competitor is the classical policy that does
best in the judging itself.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from walras.config import HistorySettings
from walras.data.read import read_panel
from walras.evaluation.ranking import reward_ratio
from walras.progress import on_terminal
from walras.train.buyer_training import load_buyer, train_buyer
from walras.train.history import HistorySplit, train_test_split
from walras.train.policy_comparison import (
    COMPETITORS,
    HELD_OUT_PRICES,
    evaluate_policy,
    price_path,
    tuning_problem,
    with_history,
)
from walras.train.settings import BuyerTraining

UNSEEN = 0.3
HOLDOUT = 26
DRAWS = 4
CLASSICAL = tuple(name for name in COMPETITORS if name != "buyer")


def contest_of(case: HistorySplit, buyer, shadow_price: str = "none", seed: int = 0, names=CLASSICAL) -> dict:
    """Tune, judge, and compare with the best."""
    question = tuning_problem(case, shadow_price=shadow_price, seed=seed)
    prices = price_path(shadow_price, case.population, len(case.holdout.weeks), seed + HELD_OUT_PRICES)
    priced = {"shadow_prices": prices, "training_prices": question.shadow_prices}
    found = {name: evaluate_policy(case, COMPETITORS[name](case, question), name=name, **priced) for name in names}
    ours = evaluate_policy(case, with_history(case, buyer), **priced)
    rewards = {name: float(one.reward.sum()) for name, one in found.items()}
    best = max(rewards, key=rewards.get)
    ratio = reward_ratio(ours.reward, found[best].reward)
    return {
        "reward_ratio": ratio.estimate,
        "low": ratio.low,
        "high": ratio.high,
        "competitor": best,
        "rewards": {"buyer": float(ours.reward.sum()), **rewards},
        "ratios": {name: float(ours.reward.sum()) / value for name, value in rewards.items()},
        "service": {name: one.service for name, one in {**found, "buyer": ours}.items()},
        "stock_weeks": {name: one.stock_weeks for name, one in {**found, "buyer": ours}.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--static", type=Path, help="table with one row per product")
    parser.add_argument("--buyer", type=Path, help="judge this buyer instead of training one")
    parser.add_argument("--steps", type=int, default=BuyerTraining().steps, help="fewer only to try the script out")
    parser.add_argument("--seed", type=int, default=0, help="of the training, and of who is never seen")
    parser.add_argument("--refit-weeks", type=int, default=1, help="weeks between two fits of the forecast")
    parser.add_argument("--attribution", action="store_true", help="also without lead-time risk, and under prices")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not args.table.exists():
        parser.error(f"--table {args.table} does not exist; give a table of weekly sales")
    facts = measure(args)
    if args.json:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        print(json.dumps(facts, indent=1))


def measure(args: argparse.Namespace) -> dict:
    began = time.perf_counter()
    panel = read_panel(args.table, static=args.static)
    unseen = np.random.default_rng([args.seed, 5]).random(panel.n_agents) < UNSEEN
    settings = BuyerTraining(steps=args.steps, seed=args.seed)
    facts = {"table": args.table.name, "products": panel.n_agents, "weeks": panel.n_weeks, "seed": args.seed}
    with on_terminal() as progress:
        if args.buyer is None:
            with tempfile.TemporaryDirectory() as folder:
                past = panel.before(panel.n_weeks - HOLDOUT).take(~unseen)
                fitted = train_buyer(past, settings, Path(folder) / "run", progress=progress)
                buyer = load_buyer(fitted.path).buyer
            facts |= {"steps": fitted.step, "best_step": fitted.best_step}
        else:
            buyer = load_buyer(args.buyer).buyer
        facts["training_seconds"] = time.perf_counter() - began
        history = HistorySettings(holdout=HOLDOUT, draws=DRAWS, refit_weeks=args.refit_weeks)
        progress.stage("Judging on products never seen")
        case = train_test_split(panel.take(unseen), history, progress=progress)
        facts |= {
            "judged_products": case.n_agents,
            "training_weeks": len(case.training.weeks),
            **contest_of(case, buyer),
        }
        facts["same_start"] = same_start(case, buyer, facts["competitor"])
        if args.attribution:
            seen = train_test_split(panel.take(~unseen), history, progress=progress)
            facts["seen_products"] = short(contest_of(seen, buyer))
            fixed = train_test_split(panel.take(unseen), history.model_copy(update={"lead_times": "planned"}))
            facts["without_lead_time_risk"] = short(contest_of(fixed, buyer))
            facts |= {f"under_{kind}_prices": short(contest_of(case, buyer, kind)) for kind in ("haar", "pulse")}
    return facts | {"seconds": time.perf_counter() - began}


def same_start(case: HistorySplit, buyer, competitor: str) -> dict:
    """Compare where all begin the held-out weeks with the stock that the untuned newsvendor has left."""
    start = case.holdout.initial
    tuned = COMPETITORS[competitor](case, tuning_problem(case))
    ours, theirs = (
        evaluate_policy(case, one, initial=start)
        for one in (with_history(case, buyer), replace(tuned, name=competitor))
    )
    ratio = reward_ratio(ours.reward, theirs.reward)
    return {"reward_ratio": ratio.estimate, "low": ratio.low, "high": ratio.high}


def short(found: dict) -> dict:
    return {name: found[name] for name in ("reward_ratio", "low", "high", "competitor", "ratios")}


if __name__ == "__main__":
    main()
