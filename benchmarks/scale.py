"""Simulate populations of any size by ranges and say how long it took and how much memory: python benchmarks/scale.py.

    python benchmarks/scale.py [--agents 500000] [--weeks 156] [--chunk-agents 65536] [--json]
        [--journal FOLDER]  note finished ranges there, so that the same command goes on after a kill
        [--stored FOLDER]   write the paths there first (about 21 bytes an agent and week), then simulate from disk

The workload is the full one: real-valued demand, prices and costs, random lead times, forecasts, the priced newsvendor,
two resources under price. Ranges are drawn from seeds when they are read, 256 agents at a time, so that 5 million
agents need no disk and give the same numbers whatever the range size. `peak_gb` is that of the whole process.
"""

import argparse
import json
import platform
import resource
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from walras.exogenous.arrivals import IntegerLeadTimes
from walras.exogenous.disk_paths import PathsWriter, StoredPaths
from walras.exogenous.paths import ExogenousPaths
from walras.policies.base_stock import PricedNewsvendor
from walras.population.population import Population
from walras.progress import on_terminal
from walras.simulation.out_of_core import (
    CHUNK_AGENTS,
    AbstractSource,
    ChunkedTotals,
    Inputs,
    StoredSource,
    simulate_out_of_core,
)

TILE, SEED, LONGEST = 256, 20, 12
RESOURCES = ("inbound_units", "storage")


class Drawn(AbstractSource):
    """Draw tile after tile of agents, each from a seed of its own."""

    def __init__(self, agents: int, weeks: int, seed: int = SEED) -> None:
        self.n_agents, self.n_weeks, self.max_lead, self.seed = agents, weeks, LONGEST, seed

    def identity(self) -> str:
        """Name all that the draws follow from, but for this file."""
        return f"benchmarks/scale.py: {self.n_agents} agents, {self.n_weeks} weeks, seed {self.seed}"

    def read(self, start: int, stop: int) -> Inputs:
        """Draw the tiles of the range into arrays of its size."""
        count = stop - start
        paths = np.empty((5, self.n_weeks, count), np.float32)
        lead, people = np.empty((self.n_weeks, count), np.int8), np.empty((7, count), np.float32)
        for tile in range(start // TILE, -(-stop // TILE)):
            at = max(tile * TILE, start), min((tile + 1) * TILE, stop)
            there, here = slice(at[0] - start, at[1] - start), slice(at[0] - tile * TILE, at[1] - tile * TILE)
            for whole, part in zip((paths, lead, people), self._tile(tile), strict=True):
                whole[..., there] = part[..., here]
        demand, price, cost, mean, sd = map(jnp.asarray, paths)
        exogenous = ExogenousPaths(demand, price, cost, IntegerLeadTimes(jnp.asarray(lead)), mean, sd)
        return _population(people), exogenous, None

    def _tile(self, tile: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        random = np.random.default_rng([self.seed, tile])
        people = random.random((7, TILE), dtype=np.float32)
        people[2] = np.floor(1 + people[2] * 5)  # planned lead time
        people[3] = 10 * (0.1 - np.log(people[3] + 1e-3))  # mean demand
        scale, planned = people[3], people[2]
        noise = random.random((4, self.n_weeks, TILE), dtype=np.float32)
        demand = scale * noise[0] * 2
        price = (5 + 20 * people[4]) * (0.95 + 0.1 * noise[1])
        cost = (5 + 20 * people[4]) * (0.55 + 0.1 * noise[2])
        mean = scale * (planned + 1) * (0.9 + 0.2 * noise[3])
        lead = np.rint(planned * (0.5 + random.random((self.n_weeks, TILE), dtype=np.float32) * 1.4))
        return np.stack([demand, price, cost, mean, 0.6 * mean]), np.clip(lead, 1, LONGEST).astype(np.int8), people


class Timed(AbstractSource):
    """Pass on another source, and add up how long reading took: it runs beside the computation."""

    def __init__(self, inner: AbstractSource) -> None:
        self.inner, self.seconds, self._lock = inner, 0.0, threading.Lock()
        self.n_agents, self.n_weeks, self.max_lead = inner.n_agents, inner.n_weeks, inner.max_lead

    def identity(self) -> str:
        """Return the inner one's."""
        return self.inner.identity()

    def read(self, start: int, stop: int) -> Inputs:
        """Read and take the time."""
        since = time.perf_counter()
        found = self.inner.read(start, stop)
        with self._lock:
            self.seconds += time.perf_counter() - since
        return found


def _population(people: np.ndarray) -> Population:
    holding, penalty, lead, scale, margin, volume, _ = map(jnp.asarray, people)
    return Population(
        holding_cost=0.02 + 0.1 * holding,
        lost_sale_penalty=penalty,
        lead_time=lead.astype(jnp.int32),
        demand_scale=scale,
        unit_margin=2 + 8 * margin,
        use=jnp.stack([jnp.ones_like(volume), 0.2 + volume], axis=-1),
        weight=jnp.ones_like(volume),
        resources=RESOURCES,
    )


def prices(weeks: int) -> jax.Array:
    """Announce a price on inbound that comes and goes, and a small one on storage."""
    season = np.maximum(np.sin(np.arange(weeks) / 8), 0)
    return jnp.asarray(np.stack([2 * season, np.full(weeks, 0.01)], axis=-1), jnp.float32)


def store(source: AbstractSource, folder: Path, chunk_agents: int) -> AbstractSource:
    """Write the source to disk, unless that was done before, and read from there."""
    if not folder.exists():
        with PathsWriter(folder, source.n_agents) as writer:
            for start in range(0, source.n_agents, chunk_agents):
                population, exogenous, _ = source.read(start, min(start + chunk_agents, source.n_agents))
                writer.write(population, exogenous)
    return StoredSource(StoredPaths.open(folder))


def peak_gb() -> float:
    """Return the most memory that this process ever had [GB]."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def measure(source: AbstractSource, given: argparse.Namespace) -> tuple[ChunkedTotals, dict]:
    """Run once, compilation included."""
    timed, since = Timed(source), time.perf_counter()
    with on_terminal() as progress:
        found = simulate_out_of_core(
            timed,
            PricedNewsvendor(),
            shadow_prices=prices(given.weeks),
            chunk_agents=given.chunk_agents,
            journal=given.journal,
            progress=progress,
        )
    seconds = time.perf_counter() - since
    computed = given.agents * (found.n_chunks - found.resumed) / found.n_chunks
    return found, {
        "seconds": seconds,
        "read_seconds": timed.seconds,
        "agents_per_second": computed / seconds,
        "agent_weeks_per_second": computed * given.weeks / seconds,
    }


def main() -> None:
    """Measure, and print a few lines or one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=500_000)
    parser.add_argument("--weeks", type=int, default=156)
    parser.add_argument("--chunk-agents", "--range-agents", dest="chunk_agents", type=int, default=CHUNK_AGENTS)
    parser.add_argument("--journal")
    parser.add_argument("--stored", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    since, source = time.perf_counter(), Drawn(given.agents, given.weeks)
    origin = source if given.stored is None else store(source, given.stored, given.chunk_agents)
    stored_seconds = None if given.stored is None else time.perf_counter() - since
    found, times = measure(origin, given)
    answer = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": jax.default_backend(),
        "agents": given.agents,
        "weeks": given.weeks,
        "chunk_agents": given.chunk_agents,
        "ranges": found.n_chunks,
        "resumed_ranges": found.resumed,
        "stored_seconds": stored_seconds,
        **times,
        "peak_gb": peak_gb(),
        "reward": float(found.reward),
    }
    print(json.dumps(answer) if given.json else "\n".join(f"{name:>24}  {value}" for name, value in answer.items()))


if __name__ == "__main__":
    main()
