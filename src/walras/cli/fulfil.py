"""`walras fulfil`: order fulfilment, decided in parallel with the result of one order after the other."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from walras.cli import options
from walras.cli.app import EXIT_DEFECT, EXIT_FINE, print_error
from walras.domains.fulfilment.instance import (
    GENERATED_FIELDS,
    DecisionSettings,
    InstanceSettings,
    LearningSettings,
    generate_instance,
)
from walras.errors import SettingsError
from walras.progress import on_terminal

if TYPE_CHECKING:
    from walras.domains.fulfilment.instance import Instance
    from walras.domains.fulfilment.process import FulfilmentResult

OUT = Path("walras-out/fulfilment")
TABLE_HELP = "orders: Parquet or CSV with unique_id, country, qty (default: a generated instance)"
Table = Annotated[Path | None, Parameter(help=TABLE_HELP)]
Stock = Annotated[Path | None, Parameter(name="--stock-file", help="stock: unique_id, centre, stock")]
PLACES_HELP = "places: place, latitude, longitude, and capacity where a centre is"
Places = Annotated[Path | None, Parameter(name="--places", help=PLACES_HELP)]
Decision = Annotated[DecisionSettings | None, Parameter(name="*")]
Learning = Annotated[LearningSettings | None, Parameter(name="*")]
Verify = Annotated[bool, Parameter(negative="", help="also decide one by one, and compare")]


def simulate_fulfilment(
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
    """Decide all orders; write which centre sends what, and when centres ran out."""
    settings = flags or DecisionSettings()
    options.require_writable(out)
    with on_terminal() as progress:
        progress.stage("Reading the orders")
        instance = open_instance(table, settings, stock_file, places)
        progress.stage("Deciding")
        result, facts = simulate_orders(instance, settings, verify)
        progress.stage("Writing the report")
        from walras.domains.fulfilment.process import audit_actions
        from walras.report.fulfilment import outcome_sentences, work_sentences, write_fulfilment

        audit = audit_actions(instance, result.actions)
        facts |= {
            "products": len(instance.stock),
            "centres": instance.n_centres,
            "filled": audit.filled,
            "units": audit.ordered_units,
            "filled_units": audit.filled_units,
            "not_filled": audit.unfilled,
            "lowest_stock": audit.lowest_stock,
            "lowest_capacity": int(audit.lowest_capacity.min()),
            "out_after_order": {
                name: int(order) + 1 for name, order in zip(instance.names, audit.out_after, strict=True) if order >= 0
            },
            "settings": effective_settings(settings, table=table, stock_file=stock_file, places=places),
        }
        files = write_fulfilment(result, audit, facts, out)
    sentences = (*outcome_sentences(result, audit), *work_sentences(result, facts["seconds"]))
    options.print_result(as_json, facts, sentences, files)
    return exit_code(facts.get("verified"))


def optimise_fulfilment(
    table: Table = None,
    /,
    *,
    flags: Learning = None,
    stock_file: Stock = None,
    places: Places = None,
    as_json: options.Json = False,
) -> None:
    """Learn prices of stock and capacity, and evaluate them on other orders."""
    settings = flags or LearningSettings()
    with on_terminal() as progress:
        progress.stage("Reading the orders")
        instance = open_instance(table, settings, stock_file, places)
        from walras.domains.fulfilment.optimise import MOST_VARIABLES, clairvoyant_bound, learn_prices
        from walras.domains.fulfilment.policies import Greedy
        from walras.domains.fulfilment.process import fulfil

        if table is None:
            unseen = generate_instance(**generator_settings(settings), draw=1)
        else:
            instance, unseen = instance.halves()
        progress.stage("Learning prices")

        samples = [instance.resampled(settings.seed + number) for number in range(settings.samples)] or [instance]
        learned = learn_prices(
            samples,
            steps=settings.steps,
            rate=settings.rate,
            progress=lambda step, reward: progress.step(step + 1, settings.steps),
        )
        progress.stage("Evaluating them")
        facts: dict[str, Any] = {
            name: {
                "orders": orders.n_orders,
                "greedy": fulfil(orders, Greedy()).reward,
                "learned": fulfil(orders, learned.rule).reward,
                "bound": clairvoyant_bound(orders)
                if orders.n_orders * orders.n_centres <= MOST_VARIABLES // 4
                else None,
            }
            for name, orders in (("given", instance), ("unseen", unseen))
        }
    if as_json:
        history = {name: getattr(learned, name) for name in ("rewards", "seconds", "step_seconds", "rounds")}
        options.print_json({"reward": learned.reward, **history, **facts})
        return
    title = f"Means over the {len(samples)} samples that prices were learned on:"
    options.print_text(title, str(learned), *format_gains(facts))


def benchmark_fulfilment(*, flags: Decision = None, as_json: options.Json = False) -> int:
    """Time the parallel engine and one order after the other on this device, without compilation."""
    import numpy as np

    from walras.domains.fulfilment.policies import make_policy
    from walras.domains.fulfilment.process import orders_of, process_of
    from walras.parallel.process import run_sequentially

    settings = flags or DecisionSettings(policy="mlp")
    instance = open_instance(None, settings)
    rule = make_policy(instance, settings.policy, settings.width, settings.gamma, settings.seed)
    problem = (process_of(instance, rule), instance.initial_state(), orders_of(instance))
    for _ in range(2):
        result, facts = simulate_orders(instance, settings, False)
        started = time.perf_counter()
        expected = np.asarray(run_sequentially(*problem).records)
        sequential = time.perf_counter() - started
    facts |= {"exact": bool(np.array_equal(expected, result.actions)), "sequential_device_s": sequential}
    facts["sequential_device_over_ours"] = sequential / facts["seconds"]
    if as_json:
        options.print_json(facts)
    else:
        options.print_text("\n".join(f"{name:30}{value}" for name, value in facts.items()))
    return exit_code(facts["exact"])


def exit_code(same: bool | None) -> int:
    """Return the exit code of a comparison with one order after the other; None where there was none."""
    if same is not False:
        return EXIT_FINE
    return print_error(
        "deciding in parallel gave other actions than one order after the other, which is a defect in walras; report "
        "the command and decide by `Sequential()` until it is fixed",
        EXIT_DEFECT,
    )


def open_instance(
    table: Path | None, settings: InstanceSettings, stock_file: Path | None = None, places: Path | None = None
) -> "Instance":
    """Read orders, or generate an instance; refuse settings of one beside the other."""
    if table is None:
        for name, given in (("--stock-file", stock_file), ("--places", places)):
            if given is not None:
                raise SettingsError(f"`{name}` belongs to a table of orders, but none was named; name one")
        instance = generate_instance(**generator_settings(settings))
    else:
        extra = [name for name in GENERATED_FIELDS if name in settings.model_fields_set]
        if extra:
            raise SettingsError(
                f"`--{extra[0].replace('_', '-')}` is of a generated instance, but orders come from {table}; "
                "leave it out"
            )
        from walras.domains.fulfilment.from_table import read_orders

        shares = (settings.stock, settings.capacity, settings.seed)
        instance = read_orders(table, *shares, stock=stock_file, places=places, refills=settings.refills)
    window = getattr(settings, "window", None)
    if window is not None and window > instance.n_orders:
        raise SettingsError(
            f"`--window` is {window:,} but there are only {instance.n_orders:,} orders; leave it out to take them all"
        )
    return instance


def effective_settings(settings: DecisionSettings, **files: Path | None) -> dict[str, Any]:
    """Return the files and the settings that had an effect."""
    unused = {
        *(GENERATED_FIELDS if files["table"] is not None else ()),
        *(("stock",) if files["stock_file"] is not None else ()),
        *(("width",) if settings.policy not in ("mlp", "capacity") else ()),
        *(("gamma",) if settings.policy != "capacity" else ()),
    }
    given = {name: str(path) for name, path in files.items() if path is not None}
    return given | settings.model_dump(exclude=unused)


def generator_settings(settings: InstanceSettings) -> dict[str, Any]:
    """Return the settings as arguments of `generate_instance`."""
    fields = {name: getattr(settings, name) for name in (*GENERATED_FIELDS, "refills", "seed")}
    return fields | {"stock_share": settings.stock, "capacity_share": settings.capacity}


def format_gains(facts: dict[str, Any]) -> list[str]:
    """Say how much learned prices gain over greedy."""
    lines = []
    for name, orders in (("given", "the orders they were learned on"), ("unseen", "unseen orders")):
        case = facts[name]
        gain = case["learned"] / case["greedy"] - 1 if case["greedy"] else 0.0
        bound = "" if case["bound"] is None else f"; the clairvoyant bound is {case['bound']:,.1f}"
        lines.append(f"On {orders}: {case['learned']:,.1f}, {gain:+.1%} on greedy's {case['greedy']:,.1f}{bound}.")
    return lines


def simulate_orders(
    instance: "Instance", settings: DecisionSettings, verify: bool
) -> tuple["FulfilmentResult", dict[str, Any]]:
    """Decide all orders in parallel; return the result, and its facts under the names of the JSON output."""
    from walras.domains.fulfilment.policies import make_policy
    from walras.domains.fulfilment.process import fulfil
    from walras.parallel.autotune import default_engine
    from walras.parallel.strategies import SlidingWindow

    started = time.perf_counter()
    rule = make_policy(instance, settings.policy, settings.width, settings.gamma, settings.seed)
    window = None if settings.window is None else SlidingWindow(settings.window)
    result = fulfil(instance, rule, default_engine(instance.n_orders, window, verify=verify))
    seconds = time.perf_counter() - started
    info: Any = result.info
    return result, {
        "orders": instance.n_orders,
        "fulfilled": result.fill_rate,
        "reward": result.reward,
        "converged": result.converged,
        "centres_exhausted": len(result.exhausted),
        "rounds": int(info.rounds),
        "needed_calls_per_order": int(info.policy_calls) / instance.n_orders,
        "encode_calls_per_order": int(info.encode_calls) / instance.n_orders,
        "serial_steps": int(info.serial_steps),
        "verified": None if info.verified is None else bool(info.verified),
        "seconds": seconds,
    }
