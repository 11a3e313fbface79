"""Own attention over agents: scores without a maximum, weights as multiplicities, sums by tile of one bucket.

FREE: keys and queries are normalised without gain, so that scores are at most sqrt(dim) and exponentials stay small.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.maps.crowd import Crowd
from walras.maps.layers import Linear, normalised

LEAST = 1e-9
"""Sum of attention below which a bucket is empty."""


class Attention(eqx.Module):
    """Attend to items from queries: `z = sum_i softmax_i(q . k_i / sqrt(dim)) v_i` (spec eq. 8).

    Attributes:
        query, key, value: Wq, Wk, Wv.
    """

    query: Linear
    key: Linear
    value: Linear

    @staticmethod
    def draw(random: np.random.Generator, query: int, item: int, dim: int) -> "Attention":
        """Draw all three."""
        return Attention(*(Linear.draw(random, given, dim) for given in (query, item, item)))

    @property
    def dim(self) -> int:
        """Give the dimension of keys and values."""
        return self.key.bias.shape[0]

    def items(self, embeddings: Float[Array, "*axes item channel"]) -> tuple[Array, Array]:
        """Return keys and values, which no query changes; a value has a 1 at its end, so that one sum does both."""
        values = normalised(self.value(embeddings))
        return normalised(self.key(embeddings)), jnp.concatenate([values, jnp.ones_like(values[..., :1])], -1)

    def scores(self, keys: Array, query: Float[Array, "*axes ahead query"]) -> Float[Array, "*axes ahead item"]:
        """Return exp(q . k / sqrt(dim)), not yet divided by its sum."""
        asked = normalised(self.query(query)) / self.dim**0.5
        return jnp.exp(asked @ jnp.swapaxes(keys, -1, -2))


def sums_by_bucket(
    attention: Attention, items: tuple[Array, Array], crowd: Crowd, query: Float[Array, "*axes ahead query"]
) -> Float[Array, "*axes ahead bucket sums"]:
    """Return, for every bucket, the attended sum of its values and at the end the sum of attention itself."""
    keys, values = items
    scores = attention.scores(keys, query) * _like(crowd.weight, query.ndim)
    tiles = scores.reshape(*scores.shape[:-1], -1, crowd.tile)
    by_tile = values.reshape(*values.shape[:-2], -1, crowd.tile, values.shape[-1])
    sums = jnp.einsum("...hts,...tsd->...thd", tiles, by_tile)
    return jnp.einsum("...thd,tb->...hbd", sums, crowd.of_bucket())


def ratio(sums: Float[Array, "*axes sums"]) -> tuple[Float[Array, "*axes channel"], Float[Array, "*axes"]]:
    """Return the attended mean, 0 where there is nobody, and whether there is anybody (1 or 0)."""
    total = sums[..., -1]
    there = total > LEAST
    mean = sums[..., :-1] / jnp.where(there, total, 1.0)[..., None]
    return jnp.where(there[..., None], mean, 0.0), there.astype(sums.dtype)


def _like(vector: Array, axes: int) -> Array:
    return vector.reshape((1,) * (axes - 1) + vector.shape)
