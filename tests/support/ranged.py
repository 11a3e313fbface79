"""A generated source of any size for tests in processes of their own."""

import os
import signal

import jax.numpy as jnp
import numpy as np
from shops import Leaning

from walras.exogenous.arrivals import IntegerLeadTimes
from walras.exogenous.paths import ExogenousPaths
from walras.population.population import Population
from walras.simulation.out_of_core import AbstractSource, ChunkedRecord, ChunkedTotals, simulate_out_of_core

TILE, MAX_LEAD = 256, 3


class MadeUp(AbstractSource):
    """Draw tile after tile of agents, each from a seed of its own, so that ranges may be cut anywhere."""

    def __init__(self, agents: int, weeks: int) -> None:
        """Set the size."""
        self.n_agents, self.n_weeks, self.max_lead = agents, weeks, MAX_LEAD

    def identity(self):
        """Name the size: all else is fixed."""
        return f"made up {self.n_agents} {self.n_weeks}"

    def read(self, start, stop):
        """Draw the tiles of a range, and cut it out of them."""
        tiles = range(start // TILE, -(-stop // TILE))
        drawn = [self._tile(tile) for tile in tiles]
        cut = slice(start - tiles[0] * TILE, stop - tiles[0] * TILE)
        numbers, weeks = (np.concatenate(parts, axis=-1)[..., cut] for parts in zip(*drawn, strict=True))
        demand, price, cost, mean, sd = (jnp.asarray(each) for each in numbers)
        paths = ExogenousPaths(demand, price, cost, IntegerLeadTimes(jnp.asarray(weeks)), mean, sd)
        return _people(stop - start), paths, None

    def _tile(self, tile):
        random = np.random.default_rng([7, tile])
        numbers = random.random((5, self.n_weeks, TILE), dtype=np.float32) * 10
        return numbers, random.integers(0, MAX_LEAD + 1, (self.n_weeks, TILE), dtype=np.int8)


class Killed(MadeUp):
    """End the process as a power cut would, when the range that begins with agent `at` is read."""

    def __init__(self, agents: int, weeks: int, at: int) -> None:
        """Set the size and the end."""
        super().__init__(agents, weeks)
        self.at = at

    def read(self, start, stop):
        """Draw, or end."""
        if start == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(start, stop)


def _people(count: int) -> Population:
    ones = jnp.ones(count, jnp.float32)
    return Population(ones, ones, ones.astype(jnp.int32), ones, ones, ones[:, None], ones, ("inbound_units",))


def policy_of(*_: int) -> Leaning:
    """Order up to one level for all."""
    return Leaning(jnp.asarray(31.7, jnp.float32))


def simulate_made_up(source: MadeUp, chunk_agents: int, journal: str | None = None) -> ChunkedTotals:
    """Simulate with prices and two agents traced."""
    return simulate_out_of_core(
        source,
        policy_of,
        shadow_prices=jnp.full((source.n_weeks, 1), 0.3),
        record=ChunkedRecord(agents=(1, 700)),
        chunk_agents=chunk_agents,
        journal=journal,
    )
