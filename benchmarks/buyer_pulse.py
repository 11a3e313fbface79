"""Show what a trained buyer does with an announced price pulse, beside the priced newsvendor, and where its time goes.

    python benchmarks/buyer_pulse.py --buyer FILE|shipped --table TABLE|made-up [--agents 2000] [--out DIR] [--json]

Each policy lives through the training weeks with its own stock. In one held-out week inbound units have a price, known
from the start, of so many times the price at which a typical unit pays its margin. Elasticity is the change of use in
the pulse week per such price, in shares of the use without a pulse, from a two-sided difference. The policy's share of
the time is what the buyer takes longer than orders that are always the same, on the same paths.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from measure import medians

from walras.config import HistorySettings
from walras.data.panel import Panel
from walras.data.read import read_panel
from walras.errors import WalrasError
from walras.policies.base import Policy
from walras.policies.base_stock import ConstantOrder
from walras.population.generate import generate_panel
from walras.population.population import N_BUCKETS, bucket_edges, bucket_of
from walras.simulation.gradients import utilization_jvp
from walras.simulation.record import Record
from walras.simulation.run import Rollout, simulate
from walras.train.buyer_episodes import HistoryEpisodes
from walras.train.buyer_training import RESOURCES, BuyerTask, TrainedBuyer, load_buyer
from walras.train.history import HistorySplit, train_test_split
from walras.train.policy_comparison import with_history
from walras.train.settings import BuyerTraining
from walras.train.shocks import typical_prices

HEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
"""Of the pulse, in median margins."""

BEFORE, AFTER = 10, 6
"""Weeks before and after the pulse that are shown: what is bought early comes as early as prices are looked at."""

LEAST_USE = 1.0
"""A bucket that uses less without a pulse has no elasticity [units in the week]."""

SLOPES = {"small": (0.1, 0.05), "large": (1.0, 0.1)}
"""Prices at which elasticities are taken, and the step to both sides, in median margins."""

ROUNDING = 1e-5
"""Receipts of two heights this close, in shares of those without a pulse, are the same number."""

INBOUND = RESOURCES.index("inbound_units")
MADE_UP, MADE_UP_WEEKS, MADE_UP_SEED = "made-up", 130, 4711
ROUNDS = 5


@dataclass(frozen=True, eq=False)
class Setting:
    """Hold who orders under which paths, when the pulse is, and what a price of 1 is [money per unit]."""

    case: HistorySplit
    week: int
    unit: float
    group: np.ndarray

    @property
    def run(self) -> dict:
        """Name what all simulations have in common."""
        whole = self.case.whole
        return {"population": self.case.population, "exogenous": whole.exogenous, "initial": whole.initial}

    def prices(self, height: float) -> np.ndarray:
        """Return the path of prices with a pulse of so many median margins."""
        prices = np.zeros((len(self.case.whole.weeks), len(RESOURCES)), np.float32)
        prices[self.week, INBOUND] = height * self.unit
        return prices

    def pulsed(self, policy: Policy, height: float) -> Rollout:
        """Run a policy through training and held-out weeks, and keep use by demand bucket."""
        record = Record.by_group(jnp.asarray(self.group), N_BUCKETS)
        return simulate(policy=policy, shadow_prices=jnp.asarray(self.prices(height)), record=record, **self.run)


def setting(panel: Panel, holdout: int, draws: int, seed: int) -> Setting:
    """Cut the history and put the pulse in the middle of the held-out weeks."""
    case = train_test_split(panel, HistorySettings(holdout=holdout, draws=draws, resources=RESOURCES, seed=seed))
    scale = np.asarray(case.population.demand_scale)
    week = len(case.training.weeks) + (holdout - 1) // 2
    return Setting(case, week, float(typical_prices(case.population)[INBOUND]), bucket_of(scale, bucket_edges(scale)))


def response(given: Setting, policy: Policy) -> dict:
    """Run every height, and say what changes against no pulse."""
    rollouts = [given.pulsed(policy, height) for height in HEIGHTS]
    weeks = slice(given.week - BEFORE, given.week + AFTER + 1)
    flows = {name: np.stack([_mean(getattr(r.totals, name))[weeks] for r in rollouts]) for name in FLOWS}
    percent = {name: 100.0 * rows / np.maximum(rows[0], 1e-9) for name, rows in flows.items()}
    used = np.stack([_mean(r.groups)[given.week, :, INBOUND] for r in rollouts])
    in_pulse = flows["receipts"][:, BEFORE]
    return {
        "heights": list(HEIGHTS),
        "weeks": list(range(-BEFORE, AFTER + 1)),
        **{f"{name}_percent": rows.round(3).tolist() for name, rows in percent.items()},
        "receipts_in_pulse_week": in_pulse.round(2).tolist(),
        "monotone": falls(in_pulse),
        "buckets_monotone": sum(falls(column) for column in used.T),
        "use_by_bucket_percent": [in_shares(100.0 * row, used[0]) for row in used],
        "elasticity": {name: elasticity(given, policy, *at, used[0]) for name, at in SLOPES.items()},
    }


FLOWS = ("receipts", "orders")


def falls(values: np.ndarray) -> bool:
    """Tell whether numbers never rise, but for rounding."""
    return bool((np.diff(values) <= ROUNDING * max(abs(float(values[0])), 1e-9)).all())


def in_shares(values: np.ndarray, free: np.ndarray) -> list[float | None]:
    """Divide by the use without a pulse, where there is any to speak of."""
    return [round(float(v / f), 4) if f >= LEAST_USE else None for v, f in zip(values, free, strict=True)]


def elasticity(given: Setting, policy: Policy, height: float, step: float, free: np.ndarray) -> dict:
    """Return the slope of use in the pulse week in shares of the `free` use: by bucket, in total, and as derived."""
    high, low = (
        _mean(given.pulsed(policy, height + sign * step).groups)[given.week, :, INBOUND] for sign in (1.0, -1.0)
    )
    direction = jnp.asarray(given.prices(1.0))
    _, slope = utilization_jvp(
        policy=policy, shadow_prices=jnp.asarray(given.prices(height)), direction=direction, **given.run
    )
    return {
        "price": height,
        "by_bucket": in_shares((high - low) / (2 * step), free),
        "total": float((high - low).sum() / (2 * step * free.sum())),
        "total_by_derivative": float(_mean(slope)[given.week, INBOUND] / free.sum()),
    }


def _mean(values: jax.Array) -> np.ndarray:
    """Average over the draws of the lead times."""
    return np.asarray(values, float).mean(0)


def simulation_times(given: Setting, buyer: Policy, others: dict[str, Policy], rounds: int) -> dict:
    """Split the time of a simulation: policy, simulator, and the checks around both [s]."""
    prices = jnp.asarray(given.prices(0.5))
    nothing = ConstantOrder(jnp.asarray(given.case.population.demand_scale))
    policies = {"buyer": buyer, "nothing": nothing, **others}

    def once(policy: Policy, throw: bool) -> jax.Array:
        record = Record.use_and_reward()
        run = simulate(policy=policy, shadow_prices=prices, record=record, throw=throw, **given.run)
        return run.totals.reward

    calls = {name: partial(once, policy, False) for name, policy in policies.items()}
    seconds, done = medians({**calls, "checked": partial(once, buyer, True)}, rounds)
    whole, bare = seconds["checked"], seconds["nothing"]
    agent_weeks = int(np.prod(given.case.whole.exogenous.demand.shape))
    return {
        "agents": given.case.n_agents,
        "agent_weeks": agent_weeks,
        "rounds": done,
        "seconds": seconds,
        "policy_share": (seconds["buyer"] - bare) / whole,
        "simulator_share": bare / whole,
        "rest_share": (whole - seconds["buyer"]) / whole,
        "agent_weeks_per_second": agent_weeks / seconds["buyer"],
    }


def training_times(given: Setting, trained: TrainedBuyer, agents: int | None, rounds: int) -> dict:
    """Split the time of a training step: drawing an episode; its gradient and the update [s]."""
    settings = BuyerTraining(agents=agents) if agents else BuyerTraining()
    episodes = HistoryEpisodes(given.case, settings)
    task = BuyerTask(settings, episodes, trained.buyer.shape, trained.buyer.base)
    state, draw, step = task.begin(0), [], []
    for number in range(rounds + 1):
        episode = _timed(draw, partial(episodes.draw, 0, number))
        state, _ = _timed(step, partial(task.step, state, number))
    # The first round compiles; a step draws its episode too.
    whole = statistics.median(step[1:])
    seconds = {"draw": statistics.median(draw[1:])}
    seconds["update"] = whole - seconds["draw"]
    agent_weeks = episode.population.n_agents * episode.exogenous.n_weeks
    return {
        "agents": episode.population.n_agents,
        "weeks": episode.exogenous.n_weeks,
        "rounds": rounds,
        "seconds": seconds,
        **{f"{name}_share": value / whole for name, value in seconds.items()},
        "agent_weeks_per_second": agent_weeks / whole,
    }


def _timed(kept: list[float], call):
    """Call, wait for the answer, note the seconds."""
    started = time.perf_counter()
    answer = call()
    jax.block_until_ready(eqx.filter(answer, eqx.is_array))
    kept.append(time.perf_counter() - started)
    return answer


def measure(given: argparse.Namespace) -> dict:
    """Load, run, compare."""
    trained = load_buyer(None if given.buyer == "shipped" else given.buyer)
    made_up = given.table == MADE_UP
    panel = generate_panel(given.agents, MADE_UP_WEEKS, MADE_UP_SEED) if made_up else read_panel(given.table)
    case = setting(panel, given.holdout, given.draws, given.seed)
    buyer, newsvendor = with_history(case.case, trained.buyer).policy, trained.buyer.base
    return {
        "buyer": trained.source,
        "trained_on": trained.facts.get("trained_on"),
        "steps": trained.facts.get("steps"),
        "table": given.table,
        "agents": case.case.n_agents,
        "draws": given.draws,
        "pulse_week": str(case.case.whole.weeks[case.week].astype("datetime64[D]")),
        "median_margin": case.unit,
        "policies": {"buyer": response(case, buyer), "newsvendor": response(case, newsvendor)},
        "simulate": simulation_times(case, buyer, {"newsvendor": newsvendor}, given.rounds),
        "training": training_times(case, trained, given.episode_agents, given.rounds),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }


def show(answer: dict) -> None:
    """Print the tables."""
    print(
        f"{answer['buyer']} (trained on {answer['trained_on']}, {answer['steps']} steps); {answer['agents']} products "
        f"of {answer['table']}, pulse in the week of {answer['pulse_week']}, 1 = {answer['median_margin']:.4g} per unit"
    )
    for name, found in answer["policies"].items():
        for flow in FLOWS:
            print(f"\n{name}: {flow} in percent of those without a pulse, by height and week around the pulse")
            print("height" + "".join(f"{week:>+6d}" for week in found["weeks"]))
            for height, row in zip(found["heights"], found[f"{flow}_percent"], strict=True):
                print(f"{height:>6}" + _columns(row, 1))
        numbers = ", ".join(f"{value:,.0f}" for value in found["receipts_in_pulse_week"])
        print(
            f"\n{name}: receipts in the pulse week fall with its height: {str(found['monotone']).lower()} ({numbers});"
        )
        print(f"  and so they do in {found['buckets_monotone']} of {N_BUCKETS} demand buckets")
        print(
            f"\n{name}: use in the pulse week by demand bucket (small to large demand), percent of that without a pulse"
        )
        for height, row in zip(found["heights"], found["use_by_bucket_percent"], strict=True):
            print(f"{height:>6}" + _columns(row, 1))
        for words, at in found["elasticity"].items():
            print(
                f"elasticity at a {words} price, {at['price']}: {at['total']:.3f} ({at['total_by_derivative']:.3f} as"
            )
            print("  derived); by bucket" + _columns(at["by_bucket"], 2))
    _show_times(answer["simulate"], answer["training"])


def _columns(values: list[float | None], digits: int) -> str:
    return "".join("     -" if value is None else f"{value:6.{digits}f}" for value in values)


def _show_times(simulated: dict, training: dict) -> None:
    seconds = ", ".join(f"{name} {value:.3f} s" for name, value in simulated["seconds"].items())
    print(f"\nsimulate, {simulated['agent_weeks']:,} agent-weeks, medians of {simulated['rounds']}: {seconds}")
    shares = (f"{name} {simulated[f'{name}_share']:.0%}" for name in ("policy", "simulator", "rest"))
    print(f"  {', '.join(shares)}; {simulated['agent_weeks_per_second']:,.0f} agent-weeks per second")
    parts = (f"{name} {value:.4f} s ({training[f'{name}_share']:.0%})" for name, value in training["seconds"].items())
    print(f"training step, {training['agents']} agents x {training['weeks']} weeks, medians of {training['rounds']}:")
    print(f"  {', '.join(parts)}; {training['agent_weeks_per_second']:,.0f} agent-weeks per second")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--buyer", default="shipped", help="file of a trained buyer, or `shipped`")
    parser.add_argument("--table", default=MADE_UP, help="table of products and weeks, or `made-up`")
    parser.add_argument("--agents", type=int, default=2000, help="products that are made up")
    parser.add_argument("--holdout", type=int, default=26, help=f"held-out weeks, at least {2 * AFTER + 1}")
    parser.add_argument("--draws", type=int, default=2, help="draws of the lead times, averaged")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="times that everything is timed")
    parser.add_argument(
        "--episode-agents", type=int, help="agents in an episode of training; as in training by default"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for a picture")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args(words)
    if given.holdout < 2 * AFTER + 1 or min(given.agents, given.draws, given.rounds) < 1:
        parser.error(f"--holdout needs at least {2 * AFTER + 1}; --agents, --draws and --rounds at least 1")
    try:
        answer = measure(given)
    except WalrasError as error:
        parser.error(str(error))
    show(answer)
    if given.out is not None:
        from buyer_pulse_picture import draw

        print(f"wrote {draw(answer, given.out)}")
    if given.json:
        sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
