"""Compare the simulator with a plain scan of 25 lines, with NumPy and with two packages.

    python benchmarks/simulator.py [--quick] [--agents 1000 10000 100000 500000] [--json] [--out FILE]

Both do 156 weeks of a lost-sales store; `bare_scan.py` is the plain scan, at its own best block size and, for the
gradient, with or without a checkpoint round a block, whichever is faster. The simulator does the same work (bare), and
its own (full: demand, prices, costs and forecasts by week and agent, a lead time for each order, priced orders). The
gradient is that of all money in the prices of all weeks. Ratios are speeds over the bare scan's, both measured in turn
in one process, as medians; 1 is as fast. The peak of memory is that of a process of its own that runs the full
workload at the largest size.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from bare_scan import bare_forward, bare_gradient
from measure import medians, peak_gb
from numpy_loop import numpy_loop
from packages import simpy_stores, stockpyl_stages, version_of
from table import Row, bandwidth, show, versions, write
from workloads import DEFAULT, LEANEST, RECORDS, WEEKS, bare_workload, full_workload, poisson_demand, price_path

SIZES = (1_000, 10_000, 100_000, 500_000)
REFERENCE_SIZE = 100_000
"""Ratios are those at this many agents, or at the largest size where it is not among the sizes."""

LARGE = 10_000
"""From this size on the time per agent should be flat: below, starting a run is felt."""

WALRAS = ("walras", "jax", "jaxlib", "equinox")
FIGURES = {
    "bare_forward_ratio": ("bare", LEANEST, "forward"),
    "bare_gradient_ratio": ("bare", LEANEST, "gradient"),
    "full_forward_ratio": ("full", LEANEST, "forward"),
    "full_gradient_ratio": ("full", LEANEST, "gradient"),
    "bare_forward_ratio_nine_totals": ("bare", DEFAULT, "forward"),
    "full_forward_ratio_nine_totals": ("full", DEFAULT, "forward"),
}
"""Workload, record and direction of every ratio; like for like with the two totals that the bare scan keeps."""


@dataclass(frozen=True)
class Effort:
    """Say how much is measured.

    Attributes:
        sizes: agents.
        rounds: times that everything is timed, or `fewest` where a round takes longer than `patience` seconds.
        blocks, plain_blocks: block sizes tried for the bare scan (plain: its gradient without a checkpoint).
        own_blocks: block sizes tried for ours; None leaves the choice to the simulator.
        every_size: tune the bare scan, and take all gradients, at every size and not only at the reference size.
        peak_agents: size of the run whose memory is measured; `peak_gradient` to take the gradient there too.
        simpy_agents, stockpyl_agents: what these packages are given.
    """

    sizes: tuple[int, ...] = SIZES
    rounds: int = 7
    patience: float = 20.0
    fewest: int = 5
    blocks: tuple[int, ...] = (400, 800, 1_000, 2_000, 4_000, 10_000)
    plain_blocks: tuple[int, ...] = (400, 800, 1_000, 2_000, 4_000, 10_000)
    own_blocks: tuple[int | None, ...] = (None, 256, 512, 1024, 2048)
    every_size: bool = True
    peak_agents: int = SIZES[-1]
    peak_gradient: bool = True
    simpy_agents: int = 1_000
    stockpyl_agents: int = 50

    @property
    def reference(self) -> int:
        """Return the size at which ratios are told."""
        return REFERENCE_SIZE if REFERENCE_SIZE in self.sizes else max(self.sizes)

    def resized(self, sizes: tuple[int, ...]) -> "Effort":
        """Return the same effort at other sizes; packages are given no more agents than the largest."""
        most = max(sizes)
        packages = {"simpy_agents": min(self.simpy_agents, most), "stockpyl_agents": min(self.stockpyl_agents, most)}
        return replace(self, sizes=sizes, peak_agents=most, **packages)


QUICK = Effort(
    sizes=(10_000, 100_000),
    rounds=5,
    patience=3.0,
    fewest=3,
    blocks=(1_000, 2_000, 4_000),
    plain_blocks=(2_000,),
    own_blocks=(None,),
    every_size=False,
    peak_gradient=False,
    simpy_agents=200,
    stockpyl_agents=10,
)


class Benchmark:
    """Measure row after row; what the bare scan took is kept for the ratios."""

    def __init__(self, effort: Effort, command: str) -> None:
        self.effort, self.command = effort, command
        self.rows: list[Row] = []
        self.tried: dict[str, dict[str, float]] = {}
        self.speed: dict[str, float] = {}
        self.settings: dict[str, list[tuple]] = {}
        self.chosen: dict[str, str] = {}

    def run(self) -> None:
        """Measure at the reference size first, since the others may take its settings over."""
        sizes = sorted(self.effort.sizes, key=lambda agents: (agents != self.effort.reference, agents))
        for agents in sizes:
            print(f"{agents} agents ...", file=sys.stderr, flush=True)
            self.at(agents)
        self.rows.sort(key=lambda row: (row.direction != "forward", row.agents))
        self.others()

    def at(self, agents: int) -> None:
        """Measure the bare scan and ours at one size."""
        demand, prices = poisson_demand(agents), jax.numpy.asarray(price_path())
        loads = [bare_workload(demand), full_workload(agents)]
        directions = ["forward"]
        if self.effort.every_size or agents == self.effort.reference:
            directions.append("gradient")
        for direction in directions:
            if self.effort.every_size or direction not in self.settings:
                self.settings[direction] = self.tune(direction, demand, prices)
            self.compare(direction, demand, prices, loads)

    def tune(self, direction, demand, prices) -> list[tuple]:
        """Order the bare scan's block sizes, with and without a checkpoint for its gradient, fastest first."""
        effort, agents = self.effort, demand.shape[1]
        settings = [(block, False) for block in (effort.blocks if direction == "forward" else effort.plain_blocks)]
        if direction == "gradient":
            settings += [(block, True) for block in effort.blocks]
        fitting = [setting for setting in settings if agents % setting[0] == 0]
        if not fitting or jax.default_backend() != "cpu":
            fitting += [(agents, checked) for checked in sorted({checked for _, checked in settings})]
        calls = {setting: _bare(direction, setting, demand, prices) for setting in fitting}
        seconds, _ = medians(calls, min(3, effort.rounds))
        self.tried[f"{direction}, {agents} agents"] = {_words(one): seconds[one] for one in seconds}
        return sorted(seconds, key=seconds.get)

    def compare(self, direction, demand, prices, loads) -> None:
        """Time the bare scan and ours in turn; ours at each block size and, forward, with each record."""
        agents, settings = demand.shape[1], self.settings[direction]
        setting = next((one for one in settings if agents % one[0] == 0), (agents, settings[0][1]))
        calls = {"bare": _bare(direction, setting, demand, prices)}
        kinds = RECORDS if direction == "forward" else (LEANEST,)
        cases = [(load, kept, block) for load in loads for kept in kinds for block in self.effort.own_blocks]
        for load, kept, block in cases:
            calls[load.name, kept, block] = partial(getattr(load, direction), RECORDS[kept], block)
        seconds, repeats = medians(calls, self.effort.rounds, self.effort.patience, self.effort.fewest)
        if agents == self.effort.reference:
            self.speed[direction] = agents * WEEKS / seconds["bare"]
            self.chosen[direction] = _words(setting)
        base = {"direction": direction, "agents": agents, "weeks": WEEKS, "command": self.command, "repeats": repeats}
        timed = {"seconds": seconds["bare"], "bandwidth_share": _share(agents, loads[0].bytes_each, seconds["bare"])}
        known = {"ratio_to_bare": 1.0, "block": _words(setting), "versions": versions("jax", "jaxlib")}
        self.rows.append(Row("bare scan", **base, **timed, **known))
        for load, kept, block in cases:
            taken = seconds[load.name, kept, block]
            timed = {"seconds": taken, "bandwidth_share": _share(agents, load.bytes_each, taken)}
            known = {"ratio_to_bare": seconds["bare"] / taken, "versions": versions(*WALRAS)}
            chosen = "its own choice" if block is None else str(block)
            self.rows.append(Row(f"walras, {load.name}, {kept}", **base, **timed, **known, block=chosen))

    def others(self) -> None:
        """Measure NumPy and the packages at sizes they can do, against the bare scan at the reference size."""
        rounds, agents = min(5, self.effort.rounds), self.effort.reference
        demand, prices = np.asarray(poisson_demand(agents)), price_path()
        blocks = sorted({agents, min(agents, 2_000)})
        seconds, _ = medians({size: partial(numpy_loop, demand, prices, size) for size in blocks}, rounds)
        block = min(seconds, key=seconds.get)
        self._add("NumPy loop over weeks", agents, seconds[block], rounds, str(block), ("numpy",))
        few = self.effort.simpy_agents
        self._package("SimPy, a process per agent", few, partial(simpy_stores, demand[:, :few], prices), "simpy")
        few = self.effort.stockpyl_agents
        self._package("stockpyl, its own demand, backlog", few, partial(stockpyl_stages, few, WEEKS), "stockpyl")

    def _package(self, what, agents, call, package) -> None:
        if version_of(package) is None:
            base = {"direction": "forward", "agents": agents, "weeks": WEEKS, "command": self.command}
            self.rows.append(Row(what, **base, note=f"not measured: {package} is not installed"))
            return
        rounds = min(3, self.effort.rounds)
        seconds, _ = medians({what: call}, rounds)
        self._add(what, agents, seconds[what], rounds, "", (package,))

    def _add(self, what, agents, seconds, repeats, block, packages) -> None:
        ratio = agents * WEEKS / seconds / self.speed["forward"]
        measured = {"seconds": seconds, "repeats": repeats, "ratio_to_bare": ratio, "block": block}
        self.rows.append(Row(what, "forward", agents, WEEKS, self.command, versions=versions(*packages), **measured))

    def answer(self) -> dict:
        """Return the figures that are compared with their targets; ours at its best block size."""
        figures = {name: self._fastest(*case, self.effort.reference) for name, case in FIGURES.items()}
        answer = {name: row.ratio_to_bare for name, row in figures.items()}
        forward, gradient = figures["full_forward_ratio"], figures["full_gradient_ratio"]
        answer["flatness"] = self._flatness()
        answer["gradient_over_forward"] = gradient.seconds / forward.seconds
        answer["reference_agents"] = self.effort.reference
        answer["repeats"] = {name: row.repeats for name, row in figures.items()}
        answer["million_agent_weeks"] = {
            "bare scan forward": self.speed["forward"] / 1e6,
            "bare scan gradient": self.speed["gradient"] / 1e6,
            **{name.removesuffix("_ratio"): row.million_agent_weeks for name, row in figures.items()},
        }
        answer["blocks"] = {"bare scan": self.chosen}
        answer["blocks"]["tried [seconds]"] = self.tried
        answer["blocks"]["walras"] = {name: row.block for name, row in figures.items()}
        return answer

    def _fastest(self, load, kept, direction, agents) -> Row:
        wanted = (f"walras, {load}, {kept}", direction, agents)
        found = [row for row in self.rows if (row.what, row.direction, row.agents) == wanted]
        return min(found, key=lambda row: row.seconds)

    def _flatness(self) -> float | None:
        """Return the largest over the smallest time per agent-week of the full workload; None with one size only."""
        sizes = [agents for agents in self.effort.sizes if agents >= LARGE]
        each = [1 / self._fastest("full", LEANEST, "forward", agents).million_agent_weeks for agents in sizes]
        return max(each) / min(each) if len(each) > 1 else None


def _bare(direction, setting, demand, prices):
    block, checked = setting
    if direction == "forward":
        return partial(bare_forward(block), demand, prices)
    around = {"around": jax.checkpoint} if checked else {}
    return partial(bare_gradient(block, **around), prices, demand)


def _words(setting) -> str:
    return f"{setting[0]}{', checkpoint' if setting[1] else ''}"


def _share(agents, bytes_each, seconds) -> float | None:
    """Return the share of the memory's bandwidth that reading every input once takes; known on some devices only."""
    rate = bandwidth()
    return None if rate is None else agents * WEEKS * bytes_each / seconds / rate


def peak(agents: int, gradient: bool) -> dict:
    """Run the full workload at one size in this process and return its peak of memory [GB]."""
    load = full_workload(agents)
    record = RECORDS[DEFAULT]
    jax.block_until_ready(load.forward(record))
    found = {"forward": peak_gb()}
    if gradient:
        jax.block_until_ready(load.gradient(record))
        found["gradient"] = peak_gb()
    device = jax.devices()[0].memory_stats() or {}
    return found | {"device": device.get("peak_bytes_in_use", 0) / 1e9} if device else found


def peak_apart(agents: int, gradient: bool) -> dict:
    """Run `peak` in a process of its own, so that nothing else counts."""
    words = [sys.executable, __file__, "--peak", str(agents), *(["--peak-gradient"] if gradient else [])]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        raise SystemExit(f"the run of {agents} agents for its memory ended with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(effort: Effort, command: str) -> tuple[list[Row], dict]:
    """Measure everything; the process for the memory first, while the machine is otherwise idle."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    print(f"memory of {effort.peak_agents} agents ...", file=sys.stderr, flush=True)
    memory = peak_apart(effort.peak_agents, effort.peak_gradient)
    benchmark = Benchmark(effort, command)
    benchmark.run()
    held = {name: value for name, value in memory.items() if name != "device"}
    answer = benchmark.answer() | {"peak_gb": max(held.values()), "peak_agents": effort.peak_agents, "peak": memory}
    return benchmark.rows, answer | {"load_average_at_start": load}


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of agents; give whole numbers of at least 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: two sizes, fewer block sizes and rounds")
    parser.add_argument("--agents", type=_count, nargs="+", help="sizes instead of the usual ones")
    parser.add_argument("--json", action="store_true", help="print the figures as one line instead of the table")
    parser.add_argument("--out", type=Path, help="also write everything to this file")
    parser.add_argument("--peak", type=_count, help=argparse.SUPPRESS)
    parser.add_argument("--peak-gradient", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(words: list[str] | None = None) -> None:
    """Run the comparison and print a table, or one JSON line."""
    given = _parser().parse_args(words)
    if given.peak:
        print(json.dumps(peak(given.peak, given.peak_gradient)))
        return
    effort = QUICK if given.quick else Effort()
    effort = effort.resized(tuple(dict.fromkeys(given.agents))) if given.agents else effort
    command = " ".join(["python benchmarks/simulator.py", *(sys.argv[1:] if words is None else words)])
    rows, answer = measure(effort, command)
    if given.out:
        write(given.out, rows, answer, command)
    if given.json:
        print(json.dumps(answer))
    else:
        show(rows, command)
        told = {name: value for name, value in answer.items() if isinstance(value, float)}
        print("  ".join(f"{name} {value:.3g}" for name, value in told.items()))


if __name__ == "__main__":
    main()
