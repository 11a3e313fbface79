"""Own how agents are laid out for pooling: sorted into tiles of one bucket each, with weights, shares and attributes.

CONTRACT: empty slots have weight 0 and change nothing; a weight stands for so many agents that are exactly alike.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.maps.probes import ProbeAgents
from walras.population.cohort import Cohort
from walras.population.population import bucket_of

EMPTY = -1
"""Index of a slot that holds nobody."""


class PooledAgents(eqx.Module):
    """Hold what pooling knows of agents beside their embeddings.

    Attributes:
        weight: agents that each stands for; 0 for an empty slot.
        size: weight x demand scale [units/week].
        bucket: of each tile.
        attributes: static attributes, scaled [slot, attribute].
        n_buckets: number of buckets.
    """

    weight: Float[Array, " slot"]
    size: Float[Array, " slot"]
    bucket: Int[Array, " tile"]
    attributes: Float[Array, "slot attribute"]
    n_buckets: int = eqx.field(static=True)

    @property
    def tile(self) -> int:
        """Count the slots of a tile."""
        return self.weight.shape[0] // self.bucket.shape[0]

    def relative_size(self) -> Float[Array, " slot"]:
        """Return each agent's demand over the mean of all; 0 for an empty slot."""
        mean = self.size.sum() / self.weight.sum()
        there = self.weight > 0
        return jnp.where(there, self.size / jnp.where(there, self.weight, 1.0) / mean, 0.0)

    def of_bucket(self) -> Float[Array, "tile bucket"]:
        """Mark each tile's bucket with 1."""
        return (self.bucket[:, None] == jnp.arange(self.n_buckets)[None, :]).astype(jnp.float32)

    def shares(self) -> Float[Array, "bucket share"]:
        """Return each bucket's share of agents and of demand (spec eq. 9)."""
        tiles = jnp.stack([each.reshape(-1, self.tile).sum(1) for each in (self.weight, self.size)], -1)
        totals = self.of_bucket().T @ tiles
        return totals / totals.sum(0, keepdims=True)


def slots_for(count: int, n_buckets: int, tile: int) -> int:
    """Return how many slots hold any `count` agents, however they fall into buckets."""
    return tile * ((count + n_buckets * (tile - 1)) // tile)


def pack_by_bucket(
    bucket: Int[np.ndarray, " agent"], n_buckets: int, tile: int
) -> tuple[Int[np.ndarray, " slot"], Int[np.ndarray, " tile"]]:
    """Sort agents into tiles of one bucket each.

    Args:
        bucket: of each agent.
        n_buckets: number of buckets.
        tile: slots of a tile.

    Returns:
        Which agent is in each slot (`EMPTY` for none), and the bucket of each tile. Their number depends only on that
        of the agents, so that compiled programs fit all populations of a size.
    """
    tiles = slots_for(len(bucket), n_buckets, tile) // tile
    slot = np.full((tiles, tile), EMPTY, np.int64)
    of_tile = np.full(tiles, n_buckets - 1, np.int32)
    first = 0
    for index in range(n_buckets):
        members = np.flatnonzero(bucket == index)
        used = -(-len(members) // tile)
        slot[first : first + used].flat[: len(members)] = members
        of_tile[first : first + used] = index
        first += used
    return slot.reshape(-1), of_tile


class CohortIndex(eqx.Module):
    """Hold the cohort whose histories a map reads, slot by slot in tiles of one bucket.

    Attributes:
        index: which agent of the stretch is in each slot; an empty slot repeats some agent with weight 0.
        weight: agents of the stretch that it stands for.
        bucket: of each tile.
        n_buckets: number of buckets.
        delegates: whose policies are asked in every query; None where nobody's are.
    """

    index: Int[Array, " slot"]
    weight: Float[Array, " slot"]
    bucket: Int[Array, " tile"]
    n_buckets: int = eqx.field(static=True)
    delegates: ProbeAgents | None = None


def cohort_index(
    size: Float[np.ndarray, " agent"],
    cohort: Cohort,
    edges: Float[np.ndarray, " edge"],
    tile: int,
    delegates: ProbeAgents | None = None,
) -> CohortIndex:
    """Lay a cohort out in tiles of one demand bucket each.

    Args:
        size: demand scale of everybody [units/week].
        cohort: who is read.
        edges: inner edges of the buckets.
        tile: slots of a tile.
        delegates: whose policies are asked.
    """
    slot, bucket = pack_by_bucket(bucket_of(size[cohort.index], edges), len(edges) + 1, tile)
    there = slot != EMPTY
    index, weight = cohort.index[slot], np.where(there, cohort.weight[slot], 0.0)
    slots = jnp.asarray(index, jnp.int32), jnp.asarray(weight, jnp.float32), jnp.asarray(bucket)
    return CohortIndex(*slots, len(edges) + 1, delegates)
