"""Own attention over agents: scores without a maximum, weights as multiplicities, sums by tile of one bucket.

FREE: keys and queries are normalised without gain, so that scores are at most sqrt(dim) and exponentials stay small;
values are not, so that amounts add up.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.maps.layers import Linear, Perceptron, normalised
from walras.maps.pooling import PooledAgents


class AttentionCache(eqx.Module):
    """Hold keys and values tile by tile, as they are asked fastest: weights are in the values already.

    Attributes:
        keys: as in `Attention.items`.
        values: times the weight of each slot.
        bucket: of each tile.
    """

    keys: Float[Array, "tile slot dim"]
    values: Float[Array, "tile slot sums"]
    bucket: Int[Array, " tile"]


LEAST = 1e-9
"""Sum of attention below which a bucket is empty."""


class Attention(eqx.Module):
    """Attend to items from queries: `z = sum_i softmax_i(q . k_i / sqrt(dim)) v_i` (spec eq. 8).

    Attributes:
        query, key: Wq, Wk.
        value: two layers (ours): what an agent will do is no linear function of its embedding.
    """

    query: Linear
    key: Linear
    value: Perceptron

    @staticmethod
    def draw(random: np.random.Generator, query: int, item: int, dim: int) -> "Attention":
        """Draw all three."""
        asks, is_asked = (Linear.draw(random, given, dim) for given in (query, item))
        return Attention(asks, is_asked, Perceptron.draw(random, (item, item, dim)))

    @property
    def dim(self) -> int:
        """Give the dimension of keys and values."""
        return self.key.bias.shape[0]

    def items(
        self, embeddings: Float[Array, "*axes item channel"], crowd: PooledAgents | None = None
    ) -> tuple[Array, Array]:
        """Return keys and values, which no query changes; a value has a 1 at its end, so that one sum does both.

        Args:
            embeddings: of the items.
            crowd: if the items are its agents, their values come twice: once counting everybody alike, once in
                proportion to demand (ours), since use is a sum in which large agents count for more.
        """
        values = self.value(embeddings)
        values = jnp.concatenate([values, jnp.ones_like(values[..., :1])], -1)
        if crowd is not None:
            size = jnp.broadcast_to(crowd.relative_size()[:, None], (*values.shape[:-1], 1))
            values = jnp.concatenate([values, values * size], -1)
        return normalised(self.key(embeddings)), values

    def scores(self, keys: Array, query: Float[Array, "*axes ahead query"]) -> Float[Array, "*axes ahead item"]:
        """Return exp(q . k / sqrt(dim)), not yet divided by its sum."""
        asked = normalised(self.query(query)) / self.dim**0.5
        return jnp.exp(asked @ jnp.swapaxes(keys, -1, -2))


def pack(items: tuple[Array, Array], crowd: PooledAgents) -> AttentionCache:
    """Lay out the keys and values of one origin for queries alone."""
    keys, values = (each.reshape(-1, crowd.tile, each.shape[-1]) for each in items)
    return AttentionCache(keys, values * crowd.weight.reshape(*values.shape[:2], 1), crowd.bucket)


def sums_by_bucket(
    attention: Attention,
    items: tuple[Array, Array] | AttentionCache,
    crowd: PooledAgents,
    query: Float[Array, "*axes ahead query"],
) -> Float[Array, "*axes ahead bucket sums"]:
    """Return, for every bucket, the attended sum of its values and at the end the sum of attention itself.

    Packed items give the same sums, one tile after the other in the processor's cache: five times faster for many
    plans, and without a score of every agent for every plan in memory. Those not packed may have axes of origins.
    """
    if isinstance(items, AttentionCache):
        return _tile_by_tile(attention, items, crowd.n_buckets, query)
    keys, values = items
    scores = attention.scores(keys, query) * _like(crowd.weight, query.ndim)
    tiles = scores.reshape(*scores.shape[:-1], -1, crowd.tile)
    by_tile = values.reshape(*values.shape[:-2], -1, crowd.tile, values.shape[-1])
    sums = jnp.einsum("...hts,...tsd->...thd", tiles, by_tile)
    return jnp.einsum("...thd,tb->...hbd", sums, crowd.of_bucket())


def _tile_by_tile(
    attention: Attention, items: AttentionCache, n_buckets: int, query: Float[Array, "*axes ahead query"]
) -> Float[Array, "*axes ahead bucket sums"]:
    axes, flat = query.shape[:-1], query.reshape(-1, query.shape[-1])

    def add(sums: Array, tile: AttentionCache) -> tuple[Array, None]:
        return sums.at[tile.bucket].add(attention.scores(tile.keys, flat) @ tile.values), None

    empty = jnp.zeros((n_buckets, flat.shape[0], items.values.shape[-1]), flat.dtype)
    sums = jax.lax.scan(add, empty, items)[0]
    return jnp.moveaxis(sums, 0, 1).reshape(*axes, n_buckets, -1)


def pooled(
    sums: Float[Array, "*axes sums"], weight: Float[Array, "*rest"], size: Float[Array, "*rest"]
) -> tuple[Float[Array, "*axes channel"], Float[Array, "*axes"]]:
    """Return what attention says of a group, and whether there is anybody in it (1 or 0).

    Beside the attended means by number and by demand it is the logarithm of attention itself (ours): a mean alone does
    not tell whether a price suits all agents or hardly any.

    Args:
        sums: from `sums_by_bucket`.
        weight, size: agents and demand of each group, as shares of all.
    """
    by_number, by_demand = jnp.split(sums, 2, axis=-1)
    mean, there = ratio(by_number)
    means = jnp.concatenate([mean, ratio(by_demand)[0]], -1)
    masses = [_log_mean(part[..., -1], total) for part, total in ((by_number, weight), (by_demand, size))]
    return jnp.concatenate([means, jnp.stack(masses, -1)], -1), there


def _log_mean(mass: Array, total: Array) -> Array:
    total = jnp.broadcast_to(total, mass.shape)
    there = (mass > LEAST) & (total > LEAST)
    return jnp.where(there, jnp.log(jnp.where(there, mass, 1.0) / jnp.where(there, total, 1.0)), 0.0)


def ratio(sums: Float[Array, "*axes sums"]) -> tuple[Float[Array, "*axes channel"], Float[Array, "*axes"]]:
    """Return the attended mean, 0 where there is nobody, and whether there is anybody (1 or 0)."""
    total = sums[..., -1]
    there = total > LEAST
    mean = sums[..., :-1] / jnp.where(there, total, 1.0)[..., None]
    return jnp.where(there[..., None], mean, 0.0), there.astype(sums.dtype)


def _like(vector: Array, axes: int) -> Array:
    return vector.reshape((1,) * (axes - 1) + vector.shape)
