"""Own the cheap competitor that pools by a plain mean of what a small network makes of each agent.

FREE: the pooled vector does not depend on the query, so that queries cost the same for any number of agents.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.maps.crowd import Crowd
from walras.maps.layers import Perceptron
from walras.maps.representations.base import AbstractPooling, Widths, weighted_mean


class DeepSets(AbstractPooling):
    """Average a network's output over agents (Zaheer et al., "Deep Sets", 2017), once by number and once by demand.

    Attributes:
        inner: network applied to each agent's embedding.
        decoder: of the pooled vector beside the query.
    """

    inner: Perceptron
    decoder: Perceptron

    @staticmethod
    def draw(random: np.random.Generator, widths: Widths) -> "DeepSets":
        """Draw both networks."""
        inner = Perceptron.draw(random, (widths.embedding, widths.decoder, widths.attention))
        return DeepSets(inner, widths.draw_decoder(random, 2 * widths.attention))

    def prepare(self, embeddings: Float[Array, "*axes slot channel"], crowd: Crowd) -> Float[Array, "..."]:
        """Return the pooled vector."""
        made = self.inner(embeddings)
        return jnp.concatenate([weighted_mean(made, crowd.weight), weighted_mean(made, crowd.size)], -1)

    def pool(
        self, prepared: Float[Array, "..."], crowd: Crowd, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead pooled"]:
        """Repeat the vector for every coming week."""
        return jnp.broadcast_to(prepared[..., None, :], (*query.shape[:-1], prepared.shape[-1]))

    def summary(self, embeddings: Float[Array, "slot channel"], crowd: Crowd) -> Float[Array, " summary"]:
        """Return the pooled vector."""
        return self.prepare(embeddings, crowd)
