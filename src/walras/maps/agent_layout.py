"""How agents are laid out for pooling: slots in tiles of one demand bucket each; empty slots have weight 0."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.maps.probes import ProbeAgents
from walras.population.cohort import Cohort
from walras.population.population import bucket_of

EMPTY = -1  # index of an empty slot


class PooledAgents(eqx.Module):
    """What pooling needs of agents beside their embeddings."""

    weight: Float[Array, " slot"]  # agents that each represents; 0 for an empty slot
    size: Float[Array, " slot"]  # weight x demand scale [units/week]
    bucket: Int[Array, " tile"]  # demand bucket of each tile
    attributes: Float[Array, "slot attribute"]  # static attributes, scaled
    n_buckets: int = eqx.field(static=True)  # number of buckets

    @property
    def tile(self) -> int:
        """Slots of a tile."""
        return self.weight.shape[0] // self.bucket.shape[0]

    def relative_size(self) -> Float[Array, " slot"]:
        """Return each agent's demand over the mean of all; 0 for an empty slot."""
        mean = self.size.sum() / self.weight.sum()
        filled = self.weight > 0
        return jnp.where(filled, self.size / jnp.where(filled, self.weight, 1.0) / mean, 0.0)

    def of_bucket(self) -> Float[Array, "tile bucket"]:
        """Mark each tile's bucket with 1."""
        return (self.bucket[:, None] == jnp.arange(self.n_buckets)[None, :]).astype(jnp.float32)

    def shares(self) -> Float[Array, "bucket share"]:
        """Return each bucket's share of agents and of demand (spec eq. 9)."""
        tiles = jnp.stack([values.reshape(-1, self.tile).sum(1) for values in (self.weight, self.size)], -1)
        totals = self.of_bucket().T @ tiles
        return totals / totals.sum(0, keepdims=True)


def slots_for(count: int, n_buckets: int, tile: int) -> int:
    """Return how many slots hold any `count` agents, however they fall into buckets."""
    return tile * ((count + n_buckets * (tile - 1)) // tile)


def pack_by_bucket(
    bucket: Int[np.ndarray, " agent"], n_buckets: int, tile: int
) -> tuple[Int[np.ndarray, " slot"], Int[np.ndarray, " tile"]]:
    """Return the agent in each slot (`EMPTY` for none) of tiles of one bucket each, and the bucket of each tile.

    Lengths depend only on the number of agents, so that compiled programs fit all populations of a size.
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
    """The cohort whose histories a map reads, slot by slot."""

    index: Int[Array, " slot"]  # agent of the population in each slot; an empty slot repeats some agent with weight 0
    weight: Float[Array, " slot"]  # agents of the population that the slot represents
    bucket: Int[Array, " tile"]  # demand bucket of each tile
    n_buckets: int = eqx.field(static=True)  # number of buckets
    probes: ProbeAgents | None = None  # agents whose policies are simulated in every query; None for maps without

    @staticmethod
    def of(
        size: Float[np.ndarray, " agent"],
        cohort: Cohort,
        edges: Float[np.ndarray, " edge"],
        tile: int,
        probes: ProbeAgents | None = None,
    ) -> "CohortIndex":
        """Lay a cohort out in tiles by demand; `size` and inner bucket `edges` are demand scales [units/week]."""
        slot, bucket = pack_by_bucket(bucket_of(size[cohort.index], edges), len(edges) + 1, tile)
        index, weight = cohort.index[slot], np.where(slot != EMPTY, cohort.weight[slot], 0.0)
        slots = jnp.asarray(index, jnp.int32), jnp.asarray(weight, jnp.float32), jnp.asarray(bucket)
        return CohortIndex(*slots, len(edges) + 1, probes)
