"""Own how one map reads one population at one origin: encoded once, and read on week by week.

FREE: internals of views; compiled once for every number of agents and weeks.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.maps.history import History
from walras.maps.inputs import (
    LOOK_BACK,
    KnownFuture,
    Ledger,
    MapInputs,
    Scales,
    Scaling,
    agent_features,
    base_of,
    cohort_of,
    crowd_of,
    future_features,
    total_features,
)
from walras.maps.learned_map import LearnedMap
from walras.maps.network import Encoded, MapNetwork
from walras.maps.readers import Readers, readers_of
from walras.population.cohort import Cohort
from walras.population.population import Population

TILE, SMALL_TILE, MANY = 128, 16, 4096
"""Slots pooled at a time: for `MANY` agents or more (a tile's scores stay in the cache), and for fewer."""


class Read(eqx.Module):
    """Hold what a map made of a population.

    Attributes:
        encoded: all that no query changes, packed for queries.
        summary: the population as a vector, to compare with those of training; None where the map gives none.
    """

    encoded: Encoded
    summary: Float[Array, " summary"] | None


class Kept(eqx.Module):
    """Hold what reading on needs: for every layer of the history's networks its last inputs.

    Attributes:
        agents: of each tile of agents; None for maps that read none.
        totals: of the population.
    """

    agents: Any
    totals: Any


@dataclass(frozen=True, eq=False)
class Reading:
    """Hold one map's reading of one population.

    Attributes:
        learned: the map.
        readers: whose histories it reads.
        read: what it made of them.
        kept: what reading on needs; None until it is asked for.
    """

    learned: LearnedMap
    readers: Readers
    read: Read
    kept: Kept | None = None

    @staticmethod
    def of(learned: LearnedMap, population: Population, units: Scales, cohort: Cohort, history: History) -> "Reading":
        """Read a population.

        Args:
            learned: the map.
            population: everybody that the history tells of, without names.
            units: in which the map sees them.
            cohort: whose histories are read.
            history: at the origin.
        """
        tile = TILE if cohort.n_drawn >= MANY else SMALL_TILE
        readers = readers_of(np.asarray(population.demand_scale), cohort, learned.edges, tile)
        parts = (learned.network, learned.scaling, population, units, readers, latest(history.ledger))
        return Reading(learned, readers, _read(*parts, history.known, n_buckets=learned.shape.buckets))

    def advanced(self, population: Population, units: Scales, before: Ledger, history: History) -> "Reading":
        """Read the next week.

        Args:
            population, units: as before.
            before: the ledger up to the week before; needed the first time alone.
            history: the next week's column, and what is then known of the coming ones.
        """
        parts = (self.learned.network, self.learned.scaling, population, units, self.readers)
        kept = _kept(*parts, latest(before)) if self.kept is None else self.kept
        kept, read = _read_on(*parts, kept, history.ledger, history.known, n_buckets=self.learned.shape.buckets)
        return replace(self, read=read, kept=kept)


def latest(ledger: Ledger) -> Ledger:
    """Return the last 64 weeks, or as many as there are: what was before a short history counts for nothing."""
    return jax.tree.map(lambda leaf: leaf[-LOOK_BACK:], ledger)


@partial(jax.jit, static_argnames="n_buckets")
def _read(
    network: MapNetwork,
    scaling: Scaling,
    population: Population,
    units: Scales,
    readers: Readers,
    ledger: Ledger,
    known: KnownFuture,
    *,
    n_buckets: int,
) -> Read:
    def embed(features: Array, valid: Array) -> Array:
        # Counted back from the last week with this spacing, every layer computes only what the last week needs.
        return network.agents(features, valid, LOOK_BACK)[-1]  # type: ignore[misc]

    embeddings = None if network.agents is None else _by_tile(embed, scaling, population, units, readers, ledger)
    totals = scaling.of_totals(total_features(population, ledger, units))
    return _finished(
        network, scaling, population, units, readers, known, embeddings, network.totals(totals)[-1], n_buckets
    )


@jax.jit
def _kept(
    network: MapNetwork, scaling: Scaling, population: Population, units: Scales, readers: Readers, ledger: Ledger
) -> Kept:
    agents = None
    if network.agents is not None:
        agents = _by_tile(network.agents.kept, scaling, population, units, readers, ledger)
    return Kept(agents, network.totals.kept(scaling.of_totals(total_features(population, ledger, units))))


@partial(jax.jit, static_argnames="n_buckets")
def _read_on(
    network: MapNetwork,
    scaling: Scaling,
    population: Population,
    units: Scales,
    readers: Readers,
    kept: Kept,
    column: Ledger,
    known: KnownFuture,
    *,
    n_buckets: int,
) -> tuple[Kept, Read]:
    embeddings, rings = None, None
    if network.agents is not None:

        def step(features: Array, valid: Array, ring: Any) -> tuple[Any, Array]:
            return network.agents.read(ring, features[0], valid[0])  # type: ignore[union-attr]

        rings, embeddings = _by_tile(step, scaling, population, units, readers, column, kept.agents)
    row = scaling.of_totals(total_features(population, column, units))[0]
    total_rings, totals = network.totals.read(kept.totals, row)
    read = _finished(network, scaling, population, units, readers, known, embeddings, totals, n_buckets)
    return Kept(rings, total_rings), read


def _by_tile(
    use: Any, scaling: Scaling, population: Population, units: Scales, readers: Readers, ledger: Ledger, *more: Any
) -> Any:
    """Apply `use(features, valid, ...)` to one tile of agents after the other, so that a tile stays in the cache."""
    tiles = readers.bucket.shape[0]

    def one(given: tuple) -> Any:
        index, rest = given[0], given[1:]
        history = jax.tree.map(lambda leaf: leaf[:, index], ledger)
        features = scaling.of_agents(agent_features(population.take(index), history, units))
        return use(features, history.valid, *rest)

    return jax.lax.map(one, (readers.index.reshape(tiles, -1), *more))


def _finished(
    network: MapNetwork,
    scaling: Scaling,
    population: Population,
    units: Scales,
    readers: Readers,
    known: KnownFuture,
    embeddings: Float[Array, "tile slot channel"] | None,
    totals: Float[Array, " channel"],
    n_buckets: int,
) -> Read:
    """Prepare the representation on what was read."""
    cohort = cohort_of(population, readers.index, readers.weight)
    crowd = crowd_of(cohort, readers.bucket, n_buckets, units)
    future, base = future_features(known, units), base_of(known, units)
    inputs = scaling(MapInputs(None, jnp.zeros_like(scaling.totals), future, base, crowd, None))
    flat = None if embeddings is None else embeddings.reshape(-1, embeddings.shape[-1])
    encoded = network.encoded(flat, totals, inputs)
    packed = network.representation.packed(encoded.prepared, inputs.crowd)
    summary = network.representation.summary(flat, inputs.crowd)
    return Read(replace(encoded, prepared=packed), summary)
