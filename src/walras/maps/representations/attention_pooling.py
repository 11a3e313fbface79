"""Own the primary population embedding: attention within demand buckets, then over them.

FREE: bucket edges are frozen from a baseline population by whoever lays the agents out.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.maps.layers import Perceptron
from walras.maps.pooling import PooledAgents
from walras.maps.representations.attention import Attention, AttentionCache, pack, pooled, ratio, sums_by_bucket
from walras.maps.representations.base import AbstractPooling, Widths, weighted_mean


class BucketizedEmbedding(AbstractPooling):
    """Attend within each bucket, join its shares of agents and demand (spec eq. 9), then attend over buckets.

    Attributes:
        within: attention over the agents of a bucket.
        over: attention over buckets.
        decoder: of the pooled vector beside the query.
    """

    within: Attention
    over: Attention
    decoder: Perceptron

    @staticmethod
    def draw(random: np.random.Generator, widths: Widths) -> "BucketizedEmbedding":
        """Draw both attentions and the decoder."""
        within = Attention.draw(random, widths.query, widths.embedding, widths.attention)
        over = Attention.draw(random, widths.query, 2 * widths.attention + 4, widths.attention)
        seen = 3 * widths.attention + 2 + 2 * widths.buckets
        return BucketizedEmbedding(within=within, over=over, decoder=widths.draw_decoder(random, seen))

    def prepare(self, embeddings: Float[Array, "*axes slot channel"], crowd: PooledAgents) -> tuple[Array, Array]:
        """Return the agents' keys and values."""
        return self.within.items(embeddings, crowd)

    def packed(self, prepared: Any, crowd: PooledAgents) -> AttentionCache:
        """Lay keys and values out tile by tile."""
        return pack(prepared, crowd)

    def pool(
        self, prepared: Any, crowd: PooledAgents, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead pooled"]:
        """Return the attended and the demand-weighted mean over buckets, beside all shares."""
        sums = sums_by_bucket(self.within, prepared, crowd, query)
        mine = crowd.shares()
        # Relative sizes are relative to the mean agent, so that demand adds up to the number of agents.
        buckets, there = pooled(sums, mine[:, 0] * crowd.weight.sum(), mine[:, 1] * crowd.weight.sum())
        shares = jnp.broadcast_to(mine, (*buckets.shape[:-1], 2))
        keys, values = self.over.items(jnp.concatenate([buckets, crowd.n_buckets * shares], -1))
        scores = self.over.scores(keys, query[..., None, :])[..., 0, :] * there
        attended = ratio(jnp.einsum("...b,...bd->...d", scores, values))[0]
        summed = (shares[..., 1:] * buckets).sum(-2)
        flat = crowd.n_buckets * shares.reshape(*shares.shape[:-2], -1)
        return jnp.concatenate([attended, summed, flat], -1)

    def summary(self, embeddings: Float[Array, "slot channel"], crowd: PooledAgents) -> Float[Array, " summary"]:
        """Return the mean value over agents and the shares of the buckets."""
        mean = weighted_mean(self.within.items(embeddings)[1][..., :-1], crowd.weight)
        return jnp.concatenate([mean, crowd.n_buckets * crowd.shares().reshape(-1)])


class PerAgentEmbedding(AbstractPooling):
    """Attend from every coming week to all agents (spec eq. 8).

    Attributes:
        attention: over agents.
        decoder: of the pooled vector beside the query.
    """

    attention: Attention
    decoder: Perceptron

    @staticmethod
    def draw(random: np.random.Generator, widths: Widths) -> "PerAgentEmbedding":
        """Draw attention and decoder."""
        attention = Attention.draw(random, widths.query, widths.embedding, widths.attention)
        return PerAgentEmbedding(attention=attention, decoder=widths.draw_decoder(random, 2 * widths.attention + 2))

    def prepare(self, embeddings: Float[Array, "*axes slot channel"], crowd: PooledAgents) -> tuple[Array, Array]:
        """Return the agents' keys and values."""
        return self.attention.items(embeddings, crowd)

    def packed(self, prepared: Any, crowd: PooledAgents) -> AttentionCache:
        """Lay keys and values out tile by tile."""
        return pack(prepared, crowd)

    def pool(
        self, prepared: Any, crowd: PooledAgents, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead pooled"]:
        """Return the attended mean over all agents."""
        sums = sums_by_bucket(self.attention, prepared, crowd, query).sum(-2)
        return pooled(sums, crowd.weight.sum(), crowd.weight.sum())[0]

    def summary(self, embeddings: Float[Array, "slot channel"], crowd: PooledAgents) -> Float[Array, " summary"]:
        """Return the mean value over agents."""
        return weighted_mean(self.attention.items(embeddings)[1][..., :-1], crowd.weight)
