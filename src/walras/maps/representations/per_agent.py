"""Own the population embedding that attends to all agents at once.

FREE: an agent's weight multiplies its attention, so that a weighted cohort embeds as the population it stands for.
"""

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from walras.maps.crowd import Crowd
from walras.maps.layers import Perceptron
from walras.maps.representations.attention import Attention, Packed, pack, pooled, sums_by_bucket
from walras.maps.representations.base import AbstractPooling, Widths, weighted_mean


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

    def prepare(self, embeddings: Float[Array, "*axes slot channel"], crowd: Crowd) -> tuple[Array, Array]:
        """Return the agents' keys and values."""
        return self.attention.items(embeddings, crowd)

    def packed(self, prepared: Any, crowd: Crowd) -> Packed:
        """Lay keys and values out tile by tile."""
        return pack(prepared, crowd)

    def pool(
        self, prepared: Any, crowd: Crowd, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead pooled"]:
        """Return the attended mean over all agents."""
        sums = sums_by_bucket(self.attention, prepared, crowd, query).sum(-2)
        return pooled(sums, crowd.weight.sum(), crowd.weight.sum())[0]

    def summary(self, embeddings: Float[Array, "slot channel"], crowd: Crowd) -> Float[Array, " summary"]:
        """Return the mean value over agents."""
        return weighted_mean(self.attention.items(embeddings)[1][..., :-1], crowd.weight)
