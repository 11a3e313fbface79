"""Own the cheap competitor that knows a population by moments and deciles of its agents' static attributes.

FREE: it reads no history of agents; totals' history comes with the query.
"""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.maps.crowd import Crowd
from walras.maps.layers import Perceptron
from walras.maps.representations.base import AbstractPooling, Widths

DECILES = tuple(part / 10 for part in range(1, 10))


class MomentVector(AbstractPooling):
    """Let a network read mean, variance and deciles of every attribute, weighted by number and mean by demand too.

    Attributes:
        inner: network applied to the moments.
        decoder: of its output beside the query.
    """

    reads_agents: ClassVar[bool] = False
    inner: Perceptron
    decoder: Perceptron

    @staticmethod
    def draw(random: np.random.Generator, widths: Widths) -> "MomentVector":
        """Draw both networks."""
        given = widths.attributes * (3 + len(DECILES))
        inner = Perceptron.draw(random, (given, widths.decoder, widths.attention))
        return MomentVector(inner, widths.draw_decoder(random, widths.attention))

    def prepare(self, embeddings: Float[Array, "*axes slot channel"] | None, crowd: Crowd) -> Float[Array, " pooled"]:
        """Return what the network makes of the moments."""
        return self.inner(moments(crowd))

    def pool(
        self, prepared: Float[Array, " pooled"], crowd: Crowd, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead pooled"]:
        """Repeat the vector for every coming week."""
        wide = prepared.reshape((1,) * (query.ndim - 1) + prepared.shape)
        return jnp.broadcast_to(wide, (*query.shape[:-1], prepared.shape[-1]))

    def summary(self, embeddings: Float[Array, "slot channel"] | None, crowd: Crowd) -> Float[Array, " summary"]:
        """Return the moments."""
        return moments(crowd)


def moments(crowd: Crowd) -> Float[Array, " moment"]:
    """Return mean, variance, demand-weighted mean and deciles of every attribute."""
    share = (crowd.weight / crowd.weight.sum())[:, None]
    mean = (share * crowd.attributes).sum(0)
    variance = (share * (crowd.attributes - mean[None, :]) ** 2).sum(0)
    by_demand = ((crowd.size / crowd.size.sum())[:, None] * crowd.attributes).sum(0)
    order = jnp.argsort(crowd.attributes, axis=0)
    values = jnp.take_along_axis(crowd.attributes, order, 0)
    below = jnp.cumsum(jnp.broadcast_to(share, values.shape)[order, jnp.arange(values.shape[1])[None, :]], 0)
    deciles = [jnp.take_along_axis(values, jnp.argmax(below >= part - 1e-6, 0)[None, :], 0)[0] for part in DECILES]
    return jnp.concatenate([mean, variance, by_demand, *deciles])
