"""Attention over agents: softmax without a maximum, weights as multiplicities, sums by demand bucket.

Keys and queries are normalised without gain, so that scores are at most sqrt(dim) and exponentials stay small; values
are not normalised, so that amounts add up.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.maps.layers import Linear, Perceptron, normalise
from walras.maps.pooling import PooledAgents

EMPTY_SUM = 1e-9
"""Sum of attention below which a bucket is empty."""


class AttentionCache(eqx.Module):
    """Keys and values laid out tile by tile for queries; values are multiplied by the weight of their slot."""

    keys: Float[Array, "tile slot dim"]
    values: Float[Array, "tile slot sums"]
    bucket: Int[Array, " tile"]


class Attention(eqx.Module):
    """Attend to items from queries: `z = sum_i softmax_i(q . k_i / sqrt(dim)) v_i` (spec eq. 8)."""

    query: Linear  # Wq, Wk
    key: Linear
    value: Perceptron  # two layers (ours): what an agent will do is no linear function of its embedding

    @staticmethod
    def draw(random: np.random.Generator, query: int, item: int, dim: int) -> "Attention":
        """Draw weights for queries and items of these widths, and keys and values of dimension `dim`."""
        of_query, of_key = (Linear.draw(random, given, dim) for given in (query, item))
        return Attention(of_query, of_key, Perceptron.draw(random, (item, item, dim)))

    @property
    def dim(self) -> int:
        """Dimension of keys and values."""
        return self.key.bias.shape[0]

    def items(
        self, embeddings: Float[Array, "*axes item channel"], pooled: PooledAgents | None = None
    ) -> tuple[Array, Array]:
        """Return keys and values; a value ends with a 1, so that one sum gives numerator and denominator.

        Args:
            embeddings: of the items.
            pooled: where the items are its agents, values are doubled: once per agent, once in proportion to demand
                (ours), since use is a sum in which large agents count for more.
        """
        values = self.value(embeddings)
        values = jnp.concatenate([values, jnp.ones_like(values[..., :1])], -1)
        if pooled is not None:
            size = jnp.broadcast_to(pooled.relative_size()[:, None], (*values.shape[:-1], 1))
            values = jnp.concatenate([values, values * size], -1)
        return normalise(self.key(embeddings)), values

    def scores(self, keys: Array, query: Float[Array, "*axes ahead query"]) -> Float[Array, "*axes ahead item"]:
        """Return exp(q . k / sqrt(dim)), not yet divided by its sum."""
        scaled = normalise(self.query(query)) / self.dim**0.5
        return jnp.exp(scaled @ jnp.swapaxes(keys, -1, -2))


def attention_cache(items: tuple[Array, Array], pooled: PooledAgents) -> AttentionCache:
    """Lay the keys and values of one origin out for queries."""
    keys, values = (part.reshape(-1, pooled.tile, part.shape[-1]) for part in items)
    return AttentionCache(keys, values * pooled.weight.reshape(*values.shape[:2], 1), pooled.bucket)


def sums_by_bucket(
    attention: Attention,
    items: tuple[Array, Array] | AttentionCache,
    pooled: PooledAgents,
    query: Float[Array, "*axes ahead query"],
) -> Float[Array, "*axes ahead bucket sums"]:
    """Return for every bucket the attended sum of its values and, last, the sum of attention itself.

    An `AttentionCache` gives the same sums one tile after the other in the processor's cache: five times faster for
    many plans, and no score of every agent for every plan in memory. Items of another form may have axes of origins.
    """
    if isinstance(items, AttentionCache):
        return _tile_by_tile(attention, items, pooled.n_buckets, query)
    keys, values = items
    weight = pooled.weight.reshape((1,) * (query.ndim - 1) + pooled.weight.shape)
    scores = attention.scores(keys, query) * weight
    tiles = scores.reshape(*scores.shape[:-1], -1, pooled.tile)
    by_tile = values.reshape(*values.shape[:-2], -1, pooled.tile, values.shape[-1])
    sums = jnp.einsum("...hts,...tsd->...thd", tiles, by_tile)
    return jnp.einsum("...thd,tb->...hbd", sums, pooled.of_bucket())


def _tile_by_tile(
    attention: Attention, items: AttentionCache, n_buckets: int, query: Float[Array, "*axes ahead query"]
) -> Float[Array, "*axes ahead bucket sums"]:
    axes, flat = query.shape[:-1], query.reshape(-1, query.shape[-1])

    def add(sums: Array, tile: AttentionCache) -> tuple[Array, None]:
        return sums.at[tile.bucket].add(attention.scores(tile.keys, flat) @ tile.values), None

    empty = jnp.zeros((n_buckets, flat.shape[0], items.values.shape[-1]), flat.dtype)
    sums = jax.lax.scan(add, empty, items)[0]
    return jnp.moveaxis(sums, 0, 1).reshape(*axes, n_buckets, -1)


def attended_features(
    sums: Float[Array, "*axes sums"], weight: Float[Array, "*rest"], size: Float[Array, "*rest"]
) -> tuple[Float[Array, "*axes channel"], Float[Array, "*axes"]]:
    """Return what attention says of a group of agents, and 1 where the group has members, else 0.

    The features are the means per agent and per unit of demand, and the logarithms of the attention itself (ours): a
    mean alone does not tell whether a price suits all agents or hardly any.

    Args:
        sums: from `sums_by_bucket`.
        weight, size: agents and demand of each group, as shares of all.
    """
    by_number, by_demand = jnp.split(sums, 2, axis=-1)
    mean, nonempty = attended_mean(by_number)
    means = jnp.concatenate([mean, attended_mean(by_demand)[0]], -1)
    masses = [_log_mean(part[..., -1], total) for part, total in ((by_number, weight), (by_demand, size))]
    return jnp.concatenate([means, jnp.stack(masses, -1)], -1), nonempty


def attended_mean(sums: Float[Array, "*axes sums"]) -> tuple[Float[Array, "*axes channel"], Float[Array, "*axes"]]:
    """Return the attended mean, 0 for an empty group, and 1 where the group has members, else 0."""
    total = sums[..., -1]
    nonempty = total > EMPTY_SUM
    mean = sums[..., :-1] / jnp.where(nonempty, total, 1.0)[..., None]
    return jnp.where(nonempty[..., None], mean, 0.0), nonempty.astype(sums.dtype)


def _log_mean(mass: Array, total: Array) -> Array:
    total = jnp.broadcast_to(total, mass.shape)
    nonempty = (mass > EMPTY_SUM) & (total > EMPTY_SUM)
    return jnp.where(nonempty, jnp.log(jnp.where(nonempty, mass, 1.0) / jnp.where(nonempty, total, 1.0)), 0.0)
