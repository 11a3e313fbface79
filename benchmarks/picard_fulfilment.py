"""Order fulfilment in parallel and one by one: the same actions, how much work, how long.

    python benchmarks/picard_fulfilment.py --orders 200000 --products 66000 --centres 30 --beta -0.8 --policy mlp --json
    python benchmarks/picard_fulfilment.py --orders 200000 --policy mlp --baseline published --processes 1000 --chunk 30
    python benchmarks/picard_fulfilment.py --table                     # all parts; or --table beta,width; stored
    python benchmarks/picard_fulfilment.py --table million --fresh     # measure again what is stored already

Baselines: one by one on the same device (a scan), one by one compiled on one core (numba, where installed), the safe
window of Time Warp, and the floor: every decision evaluated once in batches, with no book-keeping. Runs of more orders
than `--sequential-orders` (`--compiled-orders`) are extrapolated from that many, and the answer says so; `exact` means
that all actions compared are equal, `compared_orders` how many were. All are timed in turn, in one process; medians.
Runs on any device unchanged; a tile has more rows on one that is no processor.
"""

import argparse
import json
import statistics
import sys
import time
from functools import cache

import compiled_fulfilment
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from picard_table import fill
from table import machine

from lab.parallel_baselines import PublishedJacobi, SafeWindow, safe_orders
from walras.domains.fulfilment.instance import generate_instance, make_instance
from walras.domains.fulfilment.policies import Greedy, make_policy, priced
from walras.domains.fulfilment.process import audit_actions, check_actions, orders_of, process_of
from walras.errors import WalrasError
from walras.parallel.autotune import AutoWindow
from walras.parallel.picard import Picard
from walras.parallel.process import Sequential, over_events
from walras.parallel.strategies import (
    ChainSegments,
    CustomAssignment,
    FixedWindows,
    NoOp,
    PerEvent,
    RandomAssignment,
    SlidingWindow,
    WarmStart,
)

NARROW_NETWORK = 128
"""Up to this width compiled code decides all orders in seconds."""

ONE_WINDOW = 300_000
"""More orders in one window need more memory than most machines have to spare; they are not needed to see the bound."""

MASKS = ("greedy", "dual")
"""Policies that are moved only by what runs out: rounds are bounded by the centres that do."""


def options(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--orders", type=positive, default=200_000)
    add("--products", type=positive, default=66_000)
    add("--centres", type=positive, default=30)
    add("--beta", type=float, default=0.0)
    add("--capacity", type=float, default=0.8, help="units all centres can send over units ordered; 0.6 is tight")
    add("--policy", default="greedy", choices=("greedy", "mlp", "dual", "capacity"))
    add("--width", type=positive, default=64, help="units of a hidden layer of the network")
    add("--gamma", type=float, default=0.5, help="price of a centre whose capacity is used up")
    add("--two-centres", action="store_true", help="the worst case: every order changes what the next one prefers")
    add("--start", default="idle", choices=("idle", "random", "nearest"))
    add(
        "--window",
        type=window,
        default="measured",
        help="orders of a window: `measured` costs choose, `all`, or a number",
    )
    add("--all-or-nothing", action="store_true", help="finish a window before the next is begun")
    add("--segment", type=positive, help="cut the chains of products into processes of so many orders")
    add("--scatter", type=positive, help="give every order to one of so many processes at random")
    add("--deal", type=positive, help="give orders to so many processes in turn")
    add("--tile", type=positive, help="rows evaluated together")
    add(
        "--baseline",
        choices=("published", "jacobi"),
        help="run the published iteration instead: in our tiles, or as is",
    )
    add("--processes", type=positive, default=1000, help="of the published iteration")
    add("--chunk", type=positive, default=30, help="orders of each of them in a window")
    add("--sequential-orders", type=positive, default=200_000)
    add("--compiled-orders", type=positive, help="all of them without, where the network is narrow")
    add("--without", default="", help="leave these out, e.g. time_warp,sequential_device")
    add("--repeats", type=positive, default=5)
    add("--seed", type=int, default=0)
    add("--json", action="store_true")
    add("--table", nargs="?", const="", help="measure parts of the table, and store them")
    add("--fresh", action="store_true", help="measure again what is stored already")
    add("--into", default="benchmarks/results/picard_fulfilment.json")
    given = parser.parse_args(words)
    if given.window.isdecimal() and int(given.window) > given.orders:
        parser.error(
            f"--window is {given.window} but there are only {given.orders} orders; give `all` to take them all"
        )
    return given


def positive(word):
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number of at least 1")
    return int(word)


def window(word):
    return word if word in ("measured", "all") else str(positive(word))


@cache
def measured():
    """Return the one window that remembers what was measured."""
    return AutoWindow()


def instance_of(given):
    if given.two_centres:
        # One product, two equal centres, and a price of every unit sent: decisions alternate, each on the one before.
        n = given.orders
        both = np.array([[n, n]])
        return make_instance(np.zeros(n, int), np.zeros(n, int), np.ones((1, 2)), both, both[0])
    return generate_instance(
        given.orders, given.products, given.centres, given.beta, capacity_share=given.capacity, seed=given.seed
    )


def rule_of(given, instance):
    if given.two_centres:
        return priced(Greedy(), given.gamma)
    return make_policy(instance, given.policy, given.width, given.gamma, given.seed)


def start_of(given, instance):
    if given.start == "nearest":
        return WarmStart(instance.reward.argmax(1)[instance.destination])
    if given.start == "random":
        return WarmStart(np.random.default_rng(given.seed).integers(instance.n_centres, size=instance.n_orders))
    return NoOp()


def engine_of(given, instance):
    wide = given.tile or (256 if jax.default_backend() == "cpu" else 16_384)
    start, size = start_of(given, instance), min(given.chunk * given.processes, instance.n_orders)
    dealt = CustomAssignment(lambda keys, first: keys % given.processes)
    if given.baseline == "jacobi":
        return PublishedJacobi(dealt, size, start)
    if given.baseline == "published":
        # Products dealt to so many processes; the next window begins at the first order that changed.
        return Picard(SlidingWindow(size, refill=0.0), dealt, start, certified=False, rows=(wide, 16))
    assignment = ChainSegments(given.segment) if given.segment else None
    assignment = RandomAssignment(given.scatter, given.seed) if given.scatter else assignment
    if given.deal:
        assignment = CustomAssignment(lambda keys, first: (np.arange(len(keys)) + first) % given.deal)
    number = None if given.window in ("measured", "all") else int(given.window)
    together = measured() if given.window == "measured" else SlidingWindow(number)
    together = FixedWindows(number) if given.all_or_nothing else together
    return Picard(together, PerEvent() if given.segment == 1 else assignment, start, rows=(wide, 16))


def in_turn(calls, repeats):
    """Return what every call returns, and its median seconds, all called in turn after one call each to compile."""
    results = {name: jax.block_until_ready(call()) for name, call in calls.items()}
    seconds = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - started)
    return results, {name: statistics.median(values) for name, values in seconds.items()}


@eqx.filter_jit
def scan(process, state, events):
    return Sequential().run(process, state, events)[0].records


@eqx.filter_jit
def floor(process, rows, shared, events, tile):
    """Evaluate every decision once, in batches, on rows as they are at the start."""

    def some(part):
        rows, events = part
        inputs = over_events(process.encoder_inputs, rows, events)
        reads = over_events(process.decision_inputs, rows, jnp.broadcast_to(shared, rows.shape), events)
        return over_events(process.decide, over_events(process.encode, inputs, events), reads, events)

    def cut(leaf):
        return jnp.pad(leaf, ((0, -len(leaf) % tile), *((0, 0),) * (leaf.ndim - 1))).reshape(-1, tile, *leaf.shape[1:])

    return jax.lax.map(some, jax.tree.map(cut, (rows, events)))


def safe_engine(instance):
    return SafeWindow(
        lambda process, state, first: safe_orders(
            process, state, int(instance.quantity.max()), instance.refill_before, first
        )
    )


def contestants(given, instance, rule):
    """Return what is timed, by name, and how many orders each decides."""
    process, state, events = process_of(instance, rule), instance.initial_state(), orders_of(instance)
    network = given.policy in ("mlp", "capacity") and not given.two_centres
    few = given.sequential_orders if network and given.width > NARROW_NETWORK else instance.n_orders
    orders = {"sequential_device": min(given.sequential_orders, instance.n_orders)}
    orders["sequential_cpu"] = min(given.compiled_orders or few, instance.n_orders)
    first = jax.tree.map(lambda leaf: leaf[: orders["sequential_device"]], events)
    part, rows = instance.first_orders(orders["sequential_cpu"]), state.table[events.product]
    engine = engine_of(given, instance)
    calls = {
        "ours": lambda: engine.run(process, state, events),
        "sequential_device": lambda: scan(process, state, first),
        "sequential_cpu": lambda: compiled_fulfilment.run(part, rule),
        "time_warp": lambda: safe_engine(instance).run(process, state, events),
        "floor": lambda: floor(process, rows, state.shared, events, 1024),
    }
    left_out = set(given.without.split(","))
    left_out |= set() if compiled_fulfilment.available() else {"sequential_cpu"}
    # Where every unit of capacity has a price no two orders are safe together.
    left_out |= {"time_warp"} if given.policy == "capacity" or given.two_centres else set()
    return {name: call for name, call in calls.items() if name not in left_out}, orders


def centres_out(instance, actions):
    """Count the centres that sent their last unit of capacity."""
    return int((audit_actions(instance, actions).out_after >= 0).sum())


def whole_horizon(given, instance, rule, actions):
    """Count the rounds of one window over everything, where theory bounds them; say whether that holds."""
    if given.policy not in MASKS or given.two_centres or given.baseline or instance.n_orders > ONE_WINDOW:
        return {}
    info = Picard().run(process_of(instance, rule), instance.initial_state(), orders_of(instance))[1]
    bound = centres_out(instance, actions) + 1
    return {"rounds_whole": int(info.rounds), "rounds_bound": bound, "rounds_hold": int(info.rounds) <= bound}


def measure(given):
    """Run everything; return what is printed."""
    instance = instance_of(given)
    rule = rule_of(given, instance)
    calls, orders = contestants(given, instance, rule)
    results, seconds = in_turn(calls, given.repeats)
    trajectory, info = results["ours"]
    actions = np.asarray(trajectory.records)
    check_actions(instance, actions)
    found = {
        **{name: getattr(given, name) for name in ("policy", "width", "gamma", "beta", "capacity", "start")},
        **{"orders": instance.n_orders, "products": len(instance.stock), "centres": instance.n_centres},
        **compared(results, orders, actions, bool(info.converged)),
        "converged": bool(info.converged),
        "centres_exhausted": centres_out(instance, actions),
        "fulfilled": float((actions >= 0).mean()),
        "rounds": int(info.rounds),
        **whole_horizon(given, instance, rule, actions),
        "window": info.window,
        "calls_per_order": int(info.evaluated_rows) / instance.n_orders,
        "needed_calls_per_order": int(info.policy_calls) / instance.n_orders,
        "encode_calls_per_order": int(info.encode_calls) / instance.n_orders,
        "serial_steps": int(info.serial_steps),
        "seconds": seconds["ours"],
    }
    for name in ("sequential_device", "sequential_cpu", "time_warp", "floor"):
        scale = instance.n_orders / orders.get(name, instance.n_orders)
        found[f"{name}_s"] = seconds[name] * scale if name in seconds else None
        found[f"{name}_over_ours"] = seconds[name] * scale / seconds["ours"] if name in seconds else None
    if "time_warp" in results:
        found["time_warp_rounds"] = int(results["time_warp"][1].rounds)
    return found


def compared(results, orders, actions, converged):
    """Say whether all actions compared are equal, how many were, and whose seconds are extrapolated."""
    others = {name: results[name] for name in ("sequential_device", "sequential_cpu") if name in results}
    if "time_warp" in results:
        others["time_warp"] = results["time_warp"][0].records
    equal = {name: bool(np.array_equal(other, actions[: len(other)])) for name, other in others.items()}
    most = max((len(other) for other in others.values()), default=0)
    notes = [
        f"{name} from {number:,} orders" for name, number in orders.items() if name in results and number < len(actions)
    ]
    return {
        "exact": converged and bool(equal) and all(equal.values()),
        "exact_by": equal,
        "compared_orders": most,
        "extrapolated": notes,
    }


def main():
    given = options()
    try:
        if given.table is not None:
            fill(given.table, given.into, given.fresh, lambda words: measure(options(words)), machine())
            return
        found = measure(given) | machine()
    except WalrasError as error:
        sys.exit(f"picard_fulfilment: {error}")
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:26}{value:.4g}" if isinstance(value, float) else f"{name:26}{value}")


if __name__ == "__main__":
    main()
