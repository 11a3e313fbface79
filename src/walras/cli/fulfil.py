"""Own `walras fulfil`: order fulfilment, decided in parallel with the result of one order after the other.

EDGE: everything heavy is imported inside the commands, so that help stays quick.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from walras.cli import options
from walras.cli.app import EXIT_DEFECT, EXIT_FINE, print_error
from walras.cli.output import print_files, print_json, print_text
from walras.domains.fulfilment.generate import MADE_UP, DecisionSettings, LearningSettings, WorldSettings
from walras.errors import SettingsError
from walras.progress import on_terminal

if TYPE_CHECKING:
    from walras.domains.fulfilment.audit import Audit
    from walras.domains.fulfilment.instance import Instance
    from walras.domains.fulfilment.policies import Dual
    from walras.domains.fulfilment.run import Fulfilled

OUT = Path("walras-out/fulfilment")
Table = Annotated[
    Path | None, Parameter(help="orders: Parquet or CSV with unique_id, country, qty; a made-up world without")
]
Stock = Annotated[Path | None, Parameter(name="--stock-file", help="its stock: unique_id, centre, stock")]
Places = Annotated[
    Path | None,
    Parameter(name="--places", help="its places: place, latitude, longitude, and capacity where a centre is"),
]
Decision = Annotated[DecisionSettings | None, Parameter(name="*")]
Learning = Annotated[LearningSettings | None, Parameter(name="*")]
Verify = Annotated[bool, Parameter(negative="", help="also decide one by one, and compare")]


def simulate(
    table: Table = None,
    /,
    *,
    flags: Decision = None,
    stock_file: Stock = None,
    places: Places = None,
    verify: Verify = False,
    out: options.Out = OUT,
    as_json: options.Json = False,
) -> int:
    """Decide all orders of a world; write which centre sends what, and when centres ran out."""
    chosen = flags or DecisionSettings()
    options.require_writable(out)
    with on_terminal() as progress:
        progress.stage("Reading the orders")
        world = open_world(table, chosen, stock_file, places)
        progress.stage("Deciding")
        found, seconds = simulate_orders(world, chosen, verify)
        progress.stage("Writing the report")
        from walras.domains.fulfilment.audit import audit
        from walras.report.fulfilment import sentences, write

        books = audit(world, found.actions)
        books.check()
        settings = effective_settings(chosen, {"table": table, "stock_file": stock_file, "places": places})
        facts = {**summary(found), **audit_fields(found, books), "seconds": seconds, "settings": settings}
        files = write(found, books, facts, out)
    if as_json:
        print_json({**facts, "files": files})
    else:
        print_text(*sentences(found, books, seconds))
        print_files(files)
    return exit_code(facts.get("verified"))


def optimise(
    table: Table = None,
    /,
    *,
    flags: Learning = None,
    stock_file: Stock = None,
    places: Places = None,
    as_json: options.Json = False,
) -> None:
    """Learn prices of stock and capacity, and judge them on orders that they were not learned on."""
    chosen = flags or LearningSettings()
    with on_terminal() as progress:
        progress.stage("Reading the orders")
        world, unseen = learn_and_judge(table, chosen, stock_file, places)
        progress.stage("Learning prices")
        from walras.domains.fulfilment.optimise import optimise as learn

        samples = [world.resampled(chosen.seed + number) for number in range(chosen.samples)] or [world]
        learned = learn(
            samples,
            steps=chosen.steps,
            rate=chosen.rate,
            progress=lambda step, reward: progress.step(step + 1, chosen.steps),
        )
        progress.stage("Judging them")
        facts = evaluate_prices(world, unseen, learned.rule)
    if as_json:
        told = {name: getattr(learned, name) for name in ("rewards", "seconds", "step_seconds", "rounds")}
        print_json({"reward": learned.reward, **told, **facts})
        return
    print_text(f"Means over {len(samples)} of what prices were learned from:", str(learned), *format_gains(facts))


def benchmark(*, flags: Decision = None, as_json: options.Json = False) -> int:
    """Time the parallel engine and one order after the other on this device; compilation does not count."""
    import numpy as np

    from walras.domains.fulfilment.policies import make_policy
    from walras.domains.fulfilment.process import orders_of, process_of
    from walras.parallel.process import run_sequentially

    chosen = flags or DecisionSettings(policy="mlp")
    world = open_world(None, chosen)
    rule = make_policy(world, chosen.policy, chosen.width, chosen.gamma, chosen.seed)
    parts = (process_of(world, rule), world.state(), orders_of(world))
    for _ in range(2):
        found, seconds = simulate_orders(world, chosen, False)
        started = time.perf_counter()
        expected = np.asarray(run_sequentially(*parts).records)
        sequential = time.perf_counter() - started
    facts = summary(found) | {"exact": bool(np.array_equal(expected, found.actions)), "seconds": seconds}
    facts |= {"sequential_device_s": sequential, "sequential_device_over_ours": sequential / seconds}
    if as_json:
        print_json(facts)
    else:
        print_text("\n".join(f"{name:30}{value}" for name, value in facts.items()))
    return exit_code(facts["exact"])


def exit_code(same: bool | None) -> int:
    """Return the exit code of a comparison with one order after the other; None where there was none."""
    if same is not False:
        return EXIT_FINE
    return print_error(
        "deciding in parallel gave other actions than one order after the other, which is a defect in walras; report "
        "the command and decide by `Sequential()` until it is mended",
        EXIT_DEFECT,
    )


def open_world(
    table: Path | None, chosen: WorldSettings, stock_file: Path | None = None, places: Path | None = None
) -> "Instance":
    """Read orders, or make a world up.

    Raises:
        SettingsError: what is said of a made-up world is said beside a table, or the other way round.
    """
    if table is None:
        for name, given in (("--stock-file", stock_file), ("--places", places)):
            if given is not None:
                raise SettingsError(f"`{name}` belongs to a table of orders, but none was named; name one")
        from walras.domains.fulfilment.generate import generate_instance

        world = generate_instance(**generator_settings(chosen))
    else:
        extra = [name for name in MADE_UP if name in chosen.model_fields_set]
        if extra:
            raise SettingsError(
                f"`--{extra[0].replace('_', '-')}` is of a made-up world, but orders come from {table}; leave it out"
            )
        from walras.domains.fulfilment.from_table import read_orders

        world = read_orders(
            table, chosen.stock, chosen.capacity, chosen.seed, stock=stock_file, places=places, refills=chosen.refills
        )
    window = getattr(chosen, "window", None)
    if window is not None and window > world.n_orders:
        raise SettingsError(
            f"`--window` is {window:,} but there are only {world.n_orders:,} orders; leave it out to take all at once"
        )
    return world


def effective_settings(chosen: DecisionSettings, files: dict[str, Path | None]) -> dict[str, Any]:
    """Say what was run: the files that were named, and the settings that say something beside them."""
    fields = {name: str(path) for name, path in files.items() if path is not None} | chosen.model_dump()
    idle = {"width": chosen.policy not in ("mlp", "capacity"), "gamma": chosen.policy != "capacity"}
    idle |= {"stock": files["stock_file"] is not None, **dict.fromkeys(MADE_UP, files["table"] is not None)}
    return {name: value for name, value in fields.items() if not idle.get(name)}


def generator_settings(chosen: WorldSettings) -> dict[str, Any]:
    """Return what makes a world up."""
    fields = {name: getattr(chosen, name) for name in (*MADE_UP, "refills", "seed")}
    return fields | {"stock_share": chosen.stock, "capacity_share": chosen.capacity}


def learn_and_judge(
    table: Path | None, chosen: LearningSettings, stock_file: Path | None, places: Path | None
) -> tuple["Instance", "Instance"]:
    """Return orders to learn from, and others of the same world to judge by: later ones, or another draw."""
    world = open_world(table, chosen, stock_file, places)
    if table is not None:
        return world.halves()
    from walras.domains.fulfilment.generate import generate_instance

    return world, generate_instance(**generator_settings(chosen), draw=1)


def evaluate_prices(world: "Instance", unseen: "Instance", rule: "Dual") -> dict[str, Any]:
    """Compare learned prices with none and with what nobody can beat, on the orders given and on others."""
    from walras.domains.fulfilment.lp_bound import MOST_VARIABLES, clairvoyant_bound
    from walras.domains.fulfilment.policies import Greedy
    from walras.domains.fulfilment.run import fulfil

    facts: dict[str, Any] = {}
    for name, one in (("given", world), ("unseen", unseen)):
        small = one.n_orders * one.n_centres <= MOST_VARIABLES // 4
        facts[name] = {
            "orders": one.n_orders,
            "greedy": fulfil(one, Greedy()).reward,
            "learned": fulfil(one, rule).reward,
            "bound": clairvoyant_bound(one) if small else None,
        }
    return facts


def format_gains(facts: dict[str, Any]) -> list[str]:
    """Say what learned prices are worth."""
    lines = []
    for name, words in (("given", "the orders it was given"), ("unseen", "orders it never saw")):
        one = facts[name]
        gain = one["learned"] / one["greedy"] - 1 if one["greedy"] else 0.0
        bound = "" if one["bound"] is None else f"; nobody can earn more than {one['bound']:,.1f}"
        lines.append(f"On {words}: {one['learned']:,.1f}, {gain:+.1%} on greedy's {one['greedy']:,.1f}{bound}.")
    return lines


def summary(found: "Fulfilled") -> dict[str, Any]:
    """Return a trajectory's facts under the names that benchmarks use."""
    from walras.parallel.picard import PicardInfo

    info, orders = found.info, found.world.n_orders
    facts: dict[str, Any] = {
        "orders": orders,
        "fulfilled": found.share,
        "reward": found.reward,
        "converged": found.converged,
    }
    facts |= {"centres_exhausted": len(found.exhausted), "rounds": int(info.rounds)}
    facts["needed_calls_per_order"] = int(info.policy_calls) / orders
    if isinstance(info, PicardInfo):
        facts |= {"encode_calls_per_order": int(info.encode_calls) / orders, "serial_steps": int(info.serial_steps)}
        facts["verified"] = None if info.verified is None else bool(info.verified)
    return facts


def audit_fields(found: "Fulfilled", books: "Audit") -> dict[str, Any]:
    """Return what the books say, for programs."""
    out = {name: int(order) + 1 for name, order in zip(found.world.names, books.out_after, strict=True) if order >= 0}
    return {
        "products": len(found.world.stock),
        "centres": found.world.n_centres,
        "filled": books.filled,
        "units": books.asked_units,
        "filled_units": books.filled_units,
        "not_filled": books.missed,
        "lowest_stock": books.lowest_stock,
        "lowest_capacity": int(books.lowest_capacity.min()),
        "out_after_order": out,
    }


def simulate_orders(world: "Instance", chosen: DecisionSettings, verify: bool) -> tuple["Fulfilled", float]:
    """Decide all orders in parallel, and say how long it took."""
    from walras.domains.fulfilment.policies import make_policy
    from walras.domains.fulfilment.run import default_engine, fulfil
    from walras.parallel.strategies import SlidingWindow

    started = time.perf_counter()
    rule = make_policy(world, chosen.policy, chosen.width, chosen.gamma, chosen.seed)
    window = None if chosen.window is None else SlidingWindow(chosen.window)
    found = fulfil(world, rule, default_engine(world, window, verify=verify))
    return found, time.perf_counter() - started
