"""Order fulfilment in parallel and one by one: the same actions, how much work, how long.

    python benchmarks/picard_fulfilment.py --orders 200000 --products 66000 --centres 30 --beta -0.8 --policy mlp --json
    python benchmarks/picard_fulfilment.py --orders 200000 --policy mlp --baseline published --processes 1000 --chunk 30

Baselines: one by one on the same device (a scan), one by one compiled on one core (numba, where installed), the safe
window of Time Warp, and the floor: every decision evaluated once in batches, with no book-keeping. A sequential run of
more orders than `--sequential-orders` is extrapolated from that many, and the answer says so; `exact` then compares
that many. On a GPU nothing changes but `--tile`, which is larger there by default.
"""

import argparse
import json
import statistics
import sys
import time
from functools import partial

import compiled_fulfilment
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from table import machine

from walras.domains.fulfilment.generate import generate_world
from walras.domains.fulfilment.policies import named
from walras.domains.fulfilment.process import orders_of, process_of, safe_orders
from walras.domains.fulfilment.world import check_actions, exhausted
from walras.engine.assignment import ByKey, OneEach, Scattered, Segments
from walras.engine.decided import over_events
from walras.engine.picard import Picard
from walras.engine.safe_window import SafeWindow
from walras.engine.sequential import Sequential
from walras.engine.starts import Given, Idle
from walras.engine.windows import AllOrNothing, Frontier
from walras.errors import WalrasError


def options(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--orders", type=int, default=200_000)
    add("--products", type=int, default=66_000)
    add("--centres", type=int, default=30)
    add("--beta", type=float, default=0.0)
    add("--capacity", type=float, default=0.8, help="units all centres can send over units ordered; 0.6 is tight")
    add("--policy", default="greedy", choices=("greedy", "mlp", "dual", "capacity"))
    add("--width", type=int, default=64, help="units of a hidden layer of the network")
    add("--gamma", type=float, default=0.5, help="price of a centre whose capacity is used up")
    add("--start", default="idle", choices=("idle", "random", "nearest"))
    add("--window", type=int, help="orders worked on together; all of them without")
    add("--all-or-nothing", action="store_true", help="finish a window before the next is begun")
    add("--segment", type=int, help="cut the chains of products into processes of so many orders")
    add("--scatter", type=int, help="give every order to one of so many processes at random")
    add("--tile", type=int, help="rows evaluated together")
    add("--baseline", choices=("published",), help="run the published iteration instead of ours")
    add("--processes", type=int, default=1000, help="of the published iteration")
    add("--chunk", type=int, default=30, help="orders of each of them in a window")
    add("--sequential-orders", type=int, default=200_000)
    add("--repeats", type=int, default=1)
    add("--seed", type=int, default=0)
    add("--json", action="store_true")
    return parser.parse_args(words)


def engine_of(given, world):
    wide = given.tile or (256 if jax.default_backend() == "cpu" else 16_384)
    start = Idle()
    if given.start == "nearest":
        start = Given(world.reward.argmax(1)[world.destination])
    elif given.start == "random":
        start = Given(np.random.default_rng(given.seed).integers(world.n_centres, size=world.n_orders))
    if given.baseline == "published":
        # Chains of products in so many processes; the next window begins at the first order that changed.
        size = min(given.chunk * given.processes, world.n_orders)
        return Picard(Frontier(size, refill=0.0), ByKey(), start, certified=False, tile=(wide, 16))
    assignment = Segments(given.segment) if given.segment else ByKey()
    assignment = Scattered(given.scatter, given.seed) if given.scatter else assignment
    window = AllOrNothing(given.window) if given.all_or_nothing else Frontier(given.window)
    return Picard(window, OneEach() if given.segment == 1 else assignment, start, tile=(wide, 16))


def timed(call, repeats):
    """Return the result and the median seconds, after one call to compile."""
    result, seconds = jax.block_until_ready(call()), []
    for _ in range(repeats):
        started = time.perf_counter()
        result = jax.block_until_ready(call())
        seconds.append(time.perf_counter() - started)
    return result, statistics.median(seconds)


@eqx.filter_jit
def scan(process, state, events):
    return Sequential().run(process, state, events)[0].records


@eqx.filter_jit
def floor(process, rows, shared, events, tile):
    """Evaluate every decision once, in batches, on rows as they are at the start."""

    def some(part):
        rows, events = part
        inputs = over_events(process.inputs, rows, events)
        reads = over_events(process.reads, rows, jnp.broadcast_to(shared, rows.shape), events)
        return over_events(process.decide, over_events(process.encode, inputs, events), reads, events)

    def cut(leaf):
        return jnp.pad(leaf, ((0, -len(leaf) % tile), *((0, 0),) * (leaf.ndim - 1))).reshape(-1, tile, *leaf.shape[1:])

    return jax.lax.map(some, jax.tree.map(cut, (rows, events)))


def safe_engine(world):
    return SafeWindow(
        lambda process, state, first: safe_orders(process, state, int(world.quantity.max()), world.refill_before, first)
    )


def baselines(given, world, rule, actions):
    """Time the others; say what each found."""
    process, state, events = process_of(world, rule), world.state(), orders_of(world)
    some = min(given.sequential_orders, world.n_orders)
    factor = world.n_orders / some
    first = jax.tree.map(lambda leaf: leaf[:some], events)
    one_by_one, device = timed(lambda: scan(process, state, first), given.repeats)
    found = {"exact": bool(np.array_equal(one_by_one, actions[:some])), "sequential_device_s": device * factor}
    found |= {"sequential_orders": some, "sequential_cpu_s": None, "time_warp_s": None, "time_warp_rounds": None}
    if compiled_fulfilment.available():
        compiled, cpu = timed(lambda: compiled_fulfilment.run(world.first_orders(some), rule), given.repeats)
        found |= {"sequential_cpu_s": cpu * factor, "exact_cpu": bool(np.array_equal(compiled, actions[:some]))}
    if given.policy != "capacity":
        (warped, info), warp = timed(lambda: safe_engine(world).run(process, state, events), given.repeats)
        found |= {"time_warp_s": warp, "time_warp_rounds": int(info.rounds)}
        found["exact_time_warp"] = bool(np.array_equal(warped.records, actions))
    rows = state.table[events.product]
    call = partial(floor, process, rows, state.shared, events, 1024)
    return found | {"floor_s": timed(call, given.repeats)[1]}


def measure(given):
    """Run everything; return what is printed."""
    world = generate_world(
        given.orders, given.products, given.centres, given.beta, capacity_share=given.capacity, seed=given.seed
    )
    rule = named(world, given.policy, given.width, given.gamma, given.seed)
    engine = engine_of(given, world)
    process, state, events = process_of(world, rule), world.state(), orders_of(world)
    (trajectory, info), seconds = timed(lambda: engine.run(process, state, events), given.repeats)
    actions = np.asarray(trajectory.records)
    check_actions(world, actions)
    rows = baselines(given, world, rule, actions)
    found = {
        **{name: getattr(given, name) for name in ("policy", "width", "beta", "orders", "products", "centres")},
        "exact": rows.pop("exact") and bool(info.converged),
        "converged": bool(info.converged),
        "centres_exhausted": len(exhausted(world, actions)),
        "fulfilled": float((actions >= 0).mean()),
        "rounds": int(info.rounds),
        "calls_per_order": int(info.policy_calls) / given.orders,
        "encode_calls_per_order": int(info.encode_calls) / given.orders,
        "tile_rows_per_order": int(info.tile_rows) / given.orders,
        "serial_steps": int(info.serial_steps),
        "seconds": seconds,
        **rows,
    }
    for name in ("sequential_device", "sequential_cpu", "time_warp", "floor"):
        other = found[f"{name}_s"]
        found[f"{name}_over_ours"] = None if other is None else other / seconds
    return found | machine()


def main():
    given = options()
    try:
        found = measure(given)
    except WalrasError as error:
        sys.exit(f"picard_fulfilment: {error}")
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:26}{value:.4g}" if isinstance(value, float) else f"{name:26}{value}")


if __name__ == "__main__":
    main()
