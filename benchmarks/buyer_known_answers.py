"""Train a buyer on a textbook store and compare its cost with the best base-stock level and the known optimum.

One setting for all stores: `python benchmarks/buyer_known_answers.py --demand poisson --mean 5 --penalty 9 --lead 2`.
The cost is that of the last 2,000 of 5,000 weeks on 12,288 stores on demand that training never saw. Orders are rounded
to whole units where demand comes in whole units; where it does not, the cost with whole orders is given beside it.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from lab.stationary_episodes import DemandLaw, StationaryEpisodes
from walras.exogenous.arrivals import ConstantLeadTime
from walras.exogenous.paths import constant_paths
from walras.policies.base import Policy
from walras.policies.base_stock import NormalDemand, OrderUpTo, PricedNewsvendor
from walras.policies.buyer import Buyer, BuyerShape
from walras.policies.order_constraints import CasePacks, Constrained
from walras.population.agent_axis import Broadcast
from walras.progress import on_terminal
from walras.simulation.run import simulate
from walras.simulation.week import State
from walras.train.buyer_training import BuyerTask
from walras.train.loop import train
from walras.train.settings import BuyerTraining

SETTINGS = BuyerTraining(steps=1500, assess_every=100, patience=15, checkpoint_every=500)
"""The common setting."""

STORES, WEEKS, DISCARDED, CHUNK = 12_288, 5000, 3000, 250
POISSON_OPTIMA = {
    (4.0, 1): 4.041,
    (4.0, 2): 4.395,
    (4.0, 3): 4.599,
    (4.0, 4): 4.728,
    (9.0, 1): 5.438,
    (9.0, 2): 6.094,
    (9.0, 3): 6.531,
    (9.0, 4): 6.836,
}
"""Lost sales, Poisson(5), holding cost 1, (penalty, lead time) -> cost per week: Zipkin (2008), table 3."""


def shape_for(lead: int) -> BuyerShape:
    """See as many open orders as there can be; demand is alike in all weeks, so that no past is read."""
    return BuyerShape(history=0, open_orders=max(lead - 1, 1), before=0, after=0, profile=False)


def optimal(episodes: StationaryEpisodes) -> float | None:
    """Return the known optimal cost, where it is known."""
    law, lead, penalty = episodes.law, episodes.lead_time, episodes.penalty
    if episodes.backlog and law.kind == "normal":
        # Closed form without the cut at 0; the cut matters where the mean is less than three standard deviations.
        if law.mean < 3 * law.sd:
            return None
        z = norm.ppf(penalty / (1 + penalty))
        return float((1 + penalty) * norm.pdf(z) * law.sd * (lead + 1) ** 0.5)
    if not episodes.backlog and law.kind == "poisson" and law.mean == 5:
        return POISSON_OPTIMA.get((penalty, lead))
    return None


def cost_of(
    episodes: StationaryEpisodes,
    policy: Policy,
    *,
    stores: int = STORES,
    weeks: int = WEEKS,
    discarded: int = DISCARDED,
    seed: int = 1,
) -> tuple[float, float]:
    """Simulate chunk after chunk of weeks and return mean cost per week and store with its standard error."""
    shop, state = episodes.agents(stores), episodes.start(np.random.default_rng([seed, 7]), stores)
    spent = np.zeros(stores)
    for first in range(0, weeks, CHUNK):
        random = np.random.default_rng([seed, first])
        paths = episodes.paths(random, stores, CHUNK)
        counts = first >= discarded
        rewards, state = _rewards(shop, paths, policy, state, episodes.backlog)
        spent -= counts * np.asarray(rewards, float)
    per_week = spent / (weeks - discarded)
    return float(per_week.mean()), float(per_week.std(ddof=1) / stores**0.5)


@eqx.filter_jit
def _rewards(shop, paths, policy, state, backlog):
    from walras.simulation.record import Record

    rollout = simulate(shop, paths, policy, initial=state, backlog=backlog, record=Record.traces(), throw=False)
    return rollout.agents.reward.sum(0), rollout.final


def best_base_stock(episodes: StationaryEpisodes, whole: bool) -> tuple[float, float]:
    """Search the best level on other demand, and return its cost on the evaluation's, and the level."""
    mean = episodes.law.mean * (episodes.lead_time + 1)
    step = 1.0 if whole else episodes.law.deviation / 20
    low, high = 0.5 * mean, mean + 5 * episodes.law.deviation * (episodes.lead_time + 1) ** 0.5
    levels = np.arange(np.floor(low), np.ceil(high) + step, step)
    each = 4096
    while len(levels) * each > 400_000:
        each //= 2
    stores = len(levels) * each
    shop = episodes.agents(stores)
    start = State(jnp.repeat(jnp.asarray(levels, jnp.float32), each), jnp.zeros((episodes.lead_time, stores)))
    demand = np.tile(episodes.law.draw(np.random.default_rng(99), (300, each)), (1, len(levels)))
    paths = constant_paths(demand, ConstantLeadTime(episodes.lead_time))
    rewards, _ = _rewards(shop, paths, OrderUpTo(start.stock_end), start, episodes.backlog)
    level = float(levels[np.argmax(np.asarray(rewards).reshape(len(levels), each).mean(1))])
    return cost_of(episodes, OrderUpTo(jnp.asarray(level)))[0], level


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demand", choices=("poisson", "geometric", "normal"), default="poisson")
    parser.add_argument("--mean", type=float, default=5.0, help="units per week")
    parser.add_argument("--sd", type=float, default=1.6, help="of normal demand")
    parser.add_argument("--penalty", type=float, default=9.0, help="per unit short, where holding a unit costs 1")
    parser.add_argument("--lead", type=int, default=2, help="lead time in weeks, at least 1")
    parser.add_argument("--backlog", action="store_true", help="unmet demand waits instead of being lost")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=SETTINGS.steps, help="fewer only to try the script out")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.lead < 1 or args.mean <= 0 or args.penalty <= 0 or args.sd <= 0 or args.steps < 1:
        parser.error("--lead and --steps need at least 1; --mean, --sd and --penalty more than 0")
    law = DemandLaw(args.demand, args.mean, args.sd)
    print_facts(measure(law, args), args.json)


def measure(law: DemandLaw, args: argparse.Namespace) -> dict:
    """Train, evaluate, compare."""
    began = time.perf_counter()
    episodes = StationaryEpisodes(law, args.penalty, args.lead, backlog=args.backlog)
    settings = SETTINGS.model_copy(update={"seed": args.seed, "steps": args.steps})
    shape, base = shape_for(args.lead), PricedNewsvendor(law=NormalDemand())
    with tempfile.TemporaryDirectory() as folder, on_terminal() as progress:
        fitted = train(BuyerTask(settings, episodes, shape, base), settings, Path(folder) / "run", progress=progress)
    trained = time.perf_counter() - began
    buyer = Buyer(Broadcast(fitted.parameters), shape, base)
    whole = Constrained(buyer, CasePacks())
    cost, error = cost_of(episodes, whole if law.whole else buyer)
    base_stock, level = best_base_stock(episodes, law.whole)
    known = optimal(episodes)
    return {
        "demand": args.demand,
        "mean": args.mean,
        "penalty": args.penalty,
        "lead": args.lead,
        "backlog": args.backlog,
        "cost": cost,
        "standard_error": error,
        "relative_standard_error": error / cost,
        "whole_orders": law.whole,
        "cost_with_whole_orders": cost if law.whole else cost_of(episodes, whole)[0],
        "best_base_stock": base_stock,
        "best_level": level,
        "optimal": known,
        "gap": None if known is None else cost / known - 1,
        "gain_on_base_stock": 1 - cost / base_stock,
        "training_seconds": trained,
        "seconds": time.perf_counter() - began,
        "steps": fitted.step,
        "agent_weeks_per_second": fitted.step * episodes.stores * (episodes.weeks + episodes.warm_up) / trained,
        "cores": len(__import__("os").sched_getaffinity(0)),
        "jax": jax.__version__,
    }


def print_facts(facts: dict, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    for name, value in facts.items():
        print(f"{name:>26}  {value:.5g}" if isinstance(value, float) else f"{name:>26}  {value}")


if __name__ == "__main__":
    main()
