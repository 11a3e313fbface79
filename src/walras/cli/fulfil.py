"""Own `walras fulfil`: order fulfilment, decided in parallel with the result of one order after the other.

EDGE: everything heavy is imported inside the commands, so that help stays quick.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from walras.cli import options
from walras.cli.answer import print_json, print_words

if TYPE_CHECKING:
    from walras.domains.fulfilment.run import Fulfilled
    from walras.domains.fulfilment.world import World

Policy = Annotated[Literal["greedy", "mlp", "dual", "capacity"], Parameter(help="what decides")]
Orders = Annotated[int, Parameter(help="orders of the made-up world")]
Products = Annotated[int, Parameter(help="its products")]
Centres = Annotated[int, Parameter(help="its centres")]
Beta = Annotated[float, Parameter(help="popularity is the rank to this power; real catalogues have -0.6 to -0.8")]
Capacity = Annotated[float, Parameter(help="units that all centres can send, over units ordered; 0.6 is tight")]
Width = Annotated[int, Parameter(help="units of a hidden layer of `mlp` and `capacity`")]
Gamma = Annotated[float, Parameter(help="price of a centre without capacity left, for `capacity` [reward]")]
Window = Annotated[int | None, Parameter(help="orders worked on together; all of them where not given")]
Table = Annotated[
    Path | None, Parameter(name="--table", help="Parquet with unique_id, country, qty instead of a made-up world")
]
Seed = Annotated[int, Parameter(help="of everything that is drawn")]


def simulate(
    *,
    policy: Policy = "greedy",
    orders: Orders = 20_000,
    products: Products = 6_600,
    centres: Centres = 30,
    beta: Beta = -0.8,
    capacity: Capacity = 0.8,
    width: Width = 64,
    gamma: Gamma = 0.5,
    window: Window = None,
    table: Table = None,
    verify: Annotated[bool, Parameter(negative="", help="also decide one by one, and compare")] = False,
    seed: Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Decide all orders of a world, and say how much work it was."""
    world = _world(table, orders, products, centres, beta, capacity, seed)
    found, seconds = _decide(world, policy, width, gamma, window, verify, seed)
    if as_json:
        print_json({**summary(found), "seconds": seconds})
    else:
        print_words(f"{found}\n{'seconds':24}{seconds:.3f}")


def optimise(
    *,
    orders: Orders = 20_000,
    products: Products = 6_600,
    centres: Centres = 30,
    beta: Beta = -0.8,
    capacity: Capacity = 0.6,
    steps: Annotated[int, Parameter(help="trajectories rolled out")] = 20,
    rate: Annotated[float, Parameter(help="of the first step")] = 0.3,
    table: Table = None,
    seed: Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Learn prices of stock and capacity, every trajectory started from the last one."""
    from walras.domains.fulfilment.optimise import optimise as learn

    learned = learn(_world(table, orders, products, centres, beta, capacity, seed), steps=steps, rate=rate)
    if as_json:
        facts = {name: getattr(learned, name).tolist() for name in ("rewards", "seconds", "rounds")}
        print_json({"reward": learned.reward, **facts})
    else:
        print_words(str(learned))


def benchmark(
    *,
    policy: Policy = "mlp",
    orders: Orders = 20_000,
    products: Products = 6_600,
    centres: Centres = 30,
    beta: Beta = -0.8,
    capacity: Capacity = 0.8,
    width: Width = 64,
    gamma: Gamma = 0.5,
    window: Window = None,
    seed: Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Time the parallel engine and one order after the other on this device; compilation does not count."""
    import numpy as np

    from walras.domains.fulfilment.policies import named
    from walras.domains.fulfilment.process import orders_of, process_of
    from walras.engine.picard import one_by_one

    world = _world(None, orders, products, centres, beta, capacity, seed)
    rule = named(world, policy, width, gamma, seed)
    parts = (process_of(world, rule), world.state(), orders_of(world))
    for _ in range(2):
        found, seconds = _decide(world, policy, width, gamma, window, False, seed)
        started = time.perf_counter()
        expected = np.asarray(one_by_one(*parts).records)
        sequential = time.perf_counter() - started
    facts = summary(found) | {"exact": bool(np.array_equal(expected, found.actions)), "seconds": seconds}
    facts |= {"sequential_device_s": sequential, "sequential_device_over_ours": sequential / seconds}
    if as_json:
        print_json(facts)
    else:
        print_words("\n".join(f"{name:30}{value}" for name, value in facts.items()))


def summary(found: "Fulfilled") -> dict[str, Any]:
    """Return a trajectory's facts under the names that benchmarks use."""
    from walras.engine.picard import PicardInfo

    info, orders = found.info, found.world.n_orders
    facts: dict[str, Any] = {
        "orders": orders,
        "fulfilled": found.share,
        "reward": found.reward,
        "converged": found.converged,
    }
    facts |= {"centres_exhausted": len(found.exhausted), "rounds": int(info.rounds)}
    facts["calls_per_order"] = int(info.policy_calls) / orders
    if isinstance(info, PicardInfo):
        facts |= {"encode_calls_per_order": int(info.encode_calls) / orders, "serial_steps": int(info.serial_steps)}
        facts["verified"] = None if info.verified is None else bool(info.verified)
    return facts


def _world(
    table: Path | None, orders: int, products: int, centres: int, beta: float, capacity: float, seed: int
) -> "World":
    """Read orders, or make a world up."""
    if table is not None:
        from walras.domains.fulfilment.real import read_orders

        return read_orders(table, capacity_share=capacity, seed=seed)
    from walras.domains.fulfilment.generate import generate_world

    return generate_world(orders, products, centres, beta, capacity_share=capacity, seed=seed)


def _decide(
    world: "World", policy: str, width: int, gamma: float, window: int | None, verify: bool, seed: int
) -> tuple["Fulfilled", float]:
    """Decide all orders in parallel, and say how long it took."""
    from walras.domains.fulfilment.policies import named
    from walras.domains.fulfilment.run import fulfil
    from walras.engine.picard import Picard
    from walras.engine.windows import Frontier

    started = time.perf_counter()
    found = fulfil(world, named(world, policy, width, gamma, seed), Picard(window=Frontier(window), verify=verify))
    return found, time.perf_counter() - started
