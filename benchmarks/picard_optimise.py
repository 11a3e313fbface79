"""Learning prices of stock and capacity on rolled-out trajectories: seconds per step, and what the prices are worth.

    python benchmarks/picard_optimise.py --orders 3000 30000 300000 --out benchmarks/results/picard_optimise.json

A step rolls every sample out and takes its gradient. `parallel_s` is the step of the parallel engine, from the last
trajectory where that takes fewer calls; `cold_s` the same always from nothing; `sequential_s` has the device's scan in
place of it, extrapolated from `--sequential-orders` where there are more. Rewards are on the orders learned from, and
on other orders of the same law that the prices never saw (means of three draws); `bound` is what nobody can beat, where
the program is small.
"""

import argparse
import json
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import jax
import numpy as np
from table import machine

from walras.domains.fulfilment.instance import generate_instance
from walras.domains.fulfilment.optimise import clairvoyant_bound, learn_prices
from walras.domains.fulfilment.policies import Greedy, scarcity_prices
from walras.domains.fulfilment.process import fulfil, orders_of, process_of
from walras.errors import WalrasError
from walras.parallel.process import run_sequentially


def options(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--orders", type=int, nargs="+", default=[3000, 30_000])
    add("--orders-per-product", type=float, default=3.0)
    add("--centres", type=int, default=30)
    add("--beta", type=float, default=-0.8)
    add("--capacity", type=float, default=0.6)
    add("--timed-steps", type=int, default=12, help="steps on one sample that are timed")
    add("--steps", type=int, default=40, help="steps on all samples that prices are judged after; 0 leaves it out")
    add("--samples", type=int, default=4)
    add("--judged-orders", type=int, default=30_000, help="prices are learned and judged up to this size")
    add("--bounded-orders", type=int, default=6000, help="the bound is solved up to this size")
    add("--sequential-orders", type=int, default=20_000)
    add("--seed", type=int, default=0)
    add("--out", type=Path)
    add("--json", action="store_true")
    return parser.parse_args(words)


def instance_of(given, orders, draw=0):
    products = max(int(orders / given.orders_per_product), 1)
    law = {"beta": given.beta, "capacity_share": given.capacity, "seed": given.seed, "draw": draw}
    return generate_instance(orders, products, given.centres, **law)


def timed(call):
    """Return the median seconds of three calls, after one to compile."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def speed(given, instance):
    """Time a step in parallel and one by one; the first two steps compile."""
    learned = learn_prices(instance, steps=given.timed_steps)
    warm = statistics.median(learned.step_seconds[2:])
    trajectory = statistics.median(learned.seconds[2:])
    some = min(given.sequential_orders, instance.n_orders)
    first = jax.tree.map(lambda leaf: leaf[:some], orders_of(instance))
    scan = timed(lambda: run_sequentially(process_of(instance, learned.rule), instance.initial_state(), first).records)
    sequential = scan * instance.n_orders / some + warm - trajectory
    cold = timed(lambda: fulfil(instance, learned.rule).actions)
    return {
        "parallel_s": warm,
        "trajectory_s": trajectory,
        "cold_s": cold + warm - trajectory,
        "sequential_s": sequential,
        "sequential_orders": some,
        "sequential_over_parallel": sequential / warm,
        "rounds": float(np.median(learned.rounds[2:])),
    }


def worth(given, instance):
    """Judge learned prices on orders that they never saw."""
    samples = [instance.resampled(given.seed + number) for number in range(given.samples)]
    unseen = [instance_of(given, instance.n_orders, draw) for draw in (1, 2, 3)]
    learned = learn_prices(samples or [instance], steps=given.steps)
    by_heart = learn_prices(instance, steps=given.steps)
    rules = {"greedy": Greedy(), "rule_of_thumb": scarcity_prices(instance)}
    rules |= {"learned": learned.rule, "learned_on_one_sequence": by_heart.rule}
    found = {}
    for name, rule in rules.items():
        found[f"{name}_given"] = fulfil(instance, rule).reward
        found[f"{name}_unseen"] = float(np.mean([fulfil(one, rule).reward for one in unseen]))
    found["gain_unseen"] = found["learned_unseen"] / found["greedy_unseen"] - 1
    if instance.n_orders <= given.bounded_orders:
        found["bound_given"] = clairvoyant_bound(instance)
        found["bound_unseen"] = float(np.mean([clairvoyant_bound(one) for one in unseen]))
    return found


def measure(given, orders):
    instance = instance_of(given, orders)
    found = {"orders": orders, "products": len(instance.stock), "centres": given.centres, "beta": given.beta}
    found |= {"capacity": given.capacity, **speed(given, instance)}
    return found | (worth(given, instance) if given.steps and orders <= given.judged_orders else {})


def main():
    given, rows = options(), []
    for orders in given.orders:
        try:
            rows.append(measure(given, orders))
        except WalrasError as error:
            sys.exit(f"picard_optimise: {error}")
        if given.json:
            print(json.dumps(rows[-1]), flush=True)
        else:
            for name, value in rows[-1].items():
                print(f"{name:30}{value:.4g}" if isinstance(value, float) else f"{name:30}{value}", flush=True)
        if given.out:
            answer = {"command": " ".join(["python", *sys.argv]), "date": datetime.now(UTC).isoformat(), **machine()}
            aside = given.out.with_suffix(".unfinished")
            aside.write_text(json.dumps(answer | {"rows": rows}, indent=1) + "\n")
            aside.replace(given.out)


if __name__ == "__main__":
    main()
