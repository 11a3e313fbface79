"""Compare one process on one core with several processes on one core each, on the same agents.

    python benchmarks/sharded.py [--processes 2] [--agents 150000] [--weeks 156] [--repeats 7] [--rounds 3] [--json]

Every process makes up and keeps its own part of the agents; only totals cross. Timed is the simulation with the
exchange of its totals, after compilation and with the data in place: medians over all repeats of all rounds, the two
kinds in turn. `speedup` is by the clock and needs cores that are free; `speedup_processor` is by the processor time of
process 0, which other work on the machine disturbs less (it does not count waiting).
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from walras.distribute.launch import join_cluster, run_processes

CHUNK = 1024
"""Agents made up from one seed, so that every process can make its own."""


def make(weeks: int, first: int, last: int) -> tuple[Any, ...]:
    """Make up the agents first .. last with their paths, stock and open orders."""
    import jax

    parts = [make_chunk(weeks, number) for number in range(first // CHUNK, -(-last // CHUNK))]
    inside = slice(first % CHUNK, first % CHUNK + last - first)

    def join(axis: int, *leaves: np.ndarray) -> Any:
        whole = np.concatenate(leaves, axis)
        return jax.numpy.asarray(whole[inside] if axis == 0 else whole[..., inside])

    return tuple(
        jax.tree.map(lambda *leaves, axis=axis: join(axis, *leaves), *trees)
        for axis, trees in zip((0, -1, -1), zip(*parts, strict=True), strict=True)
    )


def make_chunk(weeks: int, number: int) -> tuple[Any, ...]:
    """Draw real-valued demand, prices, costs and a lead time for every order."""
    from walras.exogenous.arrivals import IntegerLeadTimes
    from walras.exogenous.paths import ExogenousPaths
    from walras.population.population import Population
    from walras.simulation.week import State

    random = np.random.default_rng([number, 7])

    def drawn(low: float, high: float, *shape: int) -> np.ndarray:
        return (low + (high - low) * random.random(shape)).astype(np.float32)

    scale, lead = drawn(2, 20, CHUNK), random.integers(1, 4, CHUNK).astype(np.int32)
    population = Population(
        holding_cost=drawn(0.05, 0.1, CHUNK),
        lost_sale_penalty=drawn(0.5, 1, CHUNK),
        lead_time=lead,
        demand_scale=scale,
        unit_margin=drawn(2, 5, CHUNK),
        use=drawn(0.5, 2, CHUNK, 1),
        weight=np.ones(CHUNK, np.float32),
        resources=("inbound_units",),
    )
    mean = (scale * (lead + 1) * drawn(0.8, 1.2, weeks, CHUNK)).astype(np.float32)
    paths = ExogenousPaths(
        demand=scale * drawn(0, 2, weeks, CHUNK),
        sale_price=drawn(8, 12, weeks, CHUNK),
        unit_cost=drawn(4, 8, weeks, CHUNK),
        arrivals=IntegerLeadTimes(random.integers(1, 5, (weeks, CHUNK)).astype(np.int8)),
        lead_demand_mean=mean,
        lead_demand_sd=0.5 * mean,
    )
    return population, paths, State(2 * scale, np.tile(scale, (4, 1)))


def work(given: argparse.Namespace) -> None:
    """Be one process: simulate one's own part again and again; process 0 writes the seconds and the totals."""
    import jax

    from walras.distribute.device_mesh import AgentMesh
    from walras.policies.base_stock import PricedNewsvendor
    from walras.simulation.run import simulate

    mesh = AgentMesh.of()
    own = mesh.local_slice(0, given.agents)
    population, paths, state = make(given.weeks, own.start, own.stop)
    prices = np.random.default_rng(3).random((given.weeks, 1)).astype(np.float32)

    def once() -> Any:
        found = simulate(population, paths, PricedNewsvendor(), initial=state, shadow_prices=prices, throw=False)
        return mesh.totals((found.totals.utilization, found.totals.sales, found.totals.reward, found.end_value))

    seconds, processor, totals = [], [], once()
    for _ in range(given.repeats):
        mesh.totals(np.zeros(1, np.float32))  # all begin together
        started, spent = time.perf_counter(), time.process_time()
        totals = once()
        seconds.append(time.perf_counter() - started)
        processor.append(time.process_time() - spent)
    if jax.process_index() == 0:
        np.savez(given.worker, *totals, seconds=[seconds, processor])


def launch(given: argparse.Namespace, processes: int, folder: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Run so many processes, one core each; return the seconds [by clock or processor, repeat], and the totals."""
    place = folder / "found.npz"
    words = ("agents", "weeks", "repeats")
    options = [word for name in words for word in (f"--{name}", str(getattr(given, name)))]
    command = [sys.executable, __file__, *options, "--worker", str(place)]
    run_processes(processes, command, cores=list(range(processes)))
    found = dict(np.load(place))
    return found.pop("seconds"), list(found.values())


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Run the two kinds in turn, so that a disturbance of the machine meets both."""
    import jax

    rounds: dict[int, list[np.ndarray]] = {1: [], given.processes: []}
    totals: dict[int, list[np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.rounds):
            for processes, kept in rounds.items():
                spent, totals[processes] = launch(given, processes, Path(folder))
                kept.append(spent)
    pairs = zip(totals[1], totals[given.processes], strict=True)
    one, many = (np.median(np.concatenate(kept, axis=1), axis=1).tolist() for kept in rounds.values())
    return {
        "relative_difference": max(float(np.abs(b - a).max() / np.abs(a).max()) for a, b in pairs),
        "speedup": one[0] / many[0],
        "speedup_processor": one[1] / many[1],
        "processes": given.processes,
        "agents": given.agents,
        "weeks": given.weeks,
        "seconds_one_process": one[0],
        "seconds": many[0],
        "repeats": given.repeats * given.rounds,
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def at_least(fewest):
    """Read a whole number of at least `fewest` off the command line."""

    def read(text):
        if not text.isdigit() or int(text) < fewest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {fewest}")
        return int(text)

    return read


def main() -> None:
    """Print the comparison as a table or one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=at_least(2), default=2, help="2 or more")
    parser.add_argument("--agents", type=at_least(1), default=150_000)
    parser.add_argument("--weeks", type=at_least(1), default=156)
    parser.add_argument("--repeats", type=at_least(1), default=7, help="in each round")
    parser.add_argument("--rounds", type=at_least(1), default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        with join_cluster():
            work(given)
        return
    answer = compare(given)
    if given.json:
        print(json.dumps(answer))
        return
    for name, value in answer.items():
        print(f"{name:>22} {value}")


if __name__ == "__main__":
    main()
