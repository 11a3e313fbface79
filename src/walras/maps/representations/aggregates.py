"""Own the cheap competitor that pools by a plain mean of what a small network makes of each agent.

FREE: the pooled vector does not depend on the query, so that queries cost the same for any number of agents.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.maps.layers import Perceptron
from walras.maps.pooling import PooledAgents
from walras.maps.representations.base import AbstractPooling, AbstractRepresentation, Widths, weighted_mean


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

    def prepare(self, embeddings: Float[Array, "*axes slot channel"], crowd: PooledAgents) -> Float[Array, "..."]:
        """Return the pooled vector."""
        made = self.inner(embeddings)
        return jnp.concatenate([weighted_mean(made, crowd.weight), weighted_mean(made, crowd.size)], -1)

    def pool(
        self, prepared: Float[Array, "..."], crowd: PooledAgents, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead pooled"]:
        """Repeat the vector for every coming week."""
        return jnp.broadcast_to(prepared[..., None, :], (*query.shape[:-1], prepared.shape[-1]))

    def summary(self, embeddings: Float[Array, "slot channel"], crowd: PooledAgents) -> Float[Array, " summary"]:
        """Return the pooled vector."""
        return self.prepare(embeddings, crowd)


class GlobalAggregate(AbstractRepresentation):
    """Add nothing to what the totals' history says (spec section 6).

    Attributes:
        resources: numbers in an answer.
    """

    reads_agents: ClassVar[bool] = False
    resources: int = eqx.field(static=True)

    @staticmethod
    def draw(random: np.random.Generator, widths: Widths) -> "GlobalAggregate":
        """Draw nothing."""
        return GlobalAggregate(widths.resources)

    def prepare(self, embeddings: Float[Array, "*axes slot channel"] | None, crowd: PooledAgents) -> None:
        """Prepare nothing."""

    def respond(
        self, prepared: None, crowd: PooledAgents, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead resource"]:
        """Return zeros."""
        return jnp.zeros((*query.shape[:-1], self.resources))

    def summary(self, embeddings: Float[Array, "slot channel"] | None, crowd: PooledAgents) -> None:
        """Describe nothing: it knows no population from another."""


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

    def prepare(
        self, embeddings: Float[Array, "*axes slot channel"] | None, crowd: PooledAgents
    ) -> Float[Array, " pooled"]:
        """Return what the network makes of the moments."""
        return self.inner(moments(crowd))

    def pool(
        self, prepared: Float[Array, " pooled"], crowd: PooledAgents, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead pooled"]:
        """Repeat the vector for every coming week."""
        wide = prepared.reshape((1,) * (query.ndim - 1) + prepared.shape)
        return jnp.broadcast_to(wide, (*query.shape[:-1], prepared.shape[-1]))

    def summary(self, embeddings: Float[Array, "slot channel"] | None, crowd: PooledAgents) -> Float[Array, " summary"]:
        """Return the moments."""
        return moments(crowd)


def moments(crowd: PooledAgents) -> Float[Array, " moment"]:
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
