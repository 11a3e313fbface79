"""Own what a population representation promises to a map: prepared once for a population, asked for every query.

OPEN: a new one subclasses `AbstractRepresentation`, or `AbstractPooling` if it gives a vector for every coming week.
"""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.maps.layers import Perceptron
from walras.maps.pooling import PooledAgents


class AbstractRepresentation(eqx.Module):
    """Say how a population answers a query, given its agents' embeddings.

    Axes before `slot` and `ahead` are free (origins, plans); those of a query may have more of them in front.
    """

    reads_agents: ClassVar[bool] = True
    """Whether agents' histories are read at all."""

    by_agent: ClassVar[bool] = False
    """Whether the answer is a sum of what every agent is expected to do, which can be learned agent by agent."""

    @abc.abstractmethod
    def prepare(self, embeddings: Float[Array, "*axes slot channel"], crowd: PooledAgents) -> Any:
        """Return what does not depend on the query."""

    @abc.abstractmethod
    def respond(
        self, prepared: Any, crowd: PooledAgents, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead resource"]:
        """Return the answer to a query, before the map's head makes use or prices of it."""

    def packed(self, prepared: Any, crowd: PooledAgents) -> Any:
        """Return what was prepared at one origin, laid out for queries alone; any way of asking gives the same."""
        return prepared

    def summary(self, embeddings: Float[Array, "slot channel"], crowd: PooledAgents) -> Float[Array, " summary"] | None:
        """Describe the population by a vector, to tell whether training has seen its like; None for no description."""
        return None


class AbstractPooling(AbstractRepresentation):
    """Pool a population into a vector for every coming week, and decode it together with the query.

    Attributes:
        decoder: two ELU layers, then the answer.
    """

    decoder: eqx.AbstractVar[Perceptron]

    @abc.abstractmethod
    def pool(
        self, prepared: Any, crowd: PooledAgents, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead pooled"]:
        """Return what the population is, as seen from each coming week."""

    def respond(
        self, prepared: Any, crowd: PooledAgents, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead resource"]:
        """Decode the pooled vector beside the query."""
        pooled = self.pool(prepared, crowd, query)
        return self.decoder(jnp.concatenate([pooled, query], -1))


class Widths(eqx.Module):
    """Hold the sizes that representations are drawn with.

    Attributes:
        embedding: channels of an agent's embedding.
        query: channels of a query.
        attention: dimension of keys, values and pooled vectors.
        decoder: width of the decoder's two layers.
        resources: numbers in an answer.
        attributes: static attributes of an agent.
        buckets: number of buckets.
    """

    embedding: int = eqx.field(static=True)
    query: int = eqx.field(static=True)
    attention: int = eqx.field(static=True)
    decoder: int = eqx.field(static=True)
    resources: int = eqx.field(static=True)
    attributes: int = eqx.field(static=True)
    buckets: int = eqx.field(static=True)

    def draw_decoder(self, random: np.random.Generator, pooled: int) -> Perceptron:
        """Draw a decoder that starts out answering next to nothing."""
        return Perceptron.draw(random, (pooled + self.query, self.decoder, self.decoder, self.resources), 0.1)


def weighted_mean(values: Float[Array, "*axes slot channel"], weight: Float[Array, " slot"]) -> Float[Array, "..."]:
    """Return the mean over slots; empty slots count for nothing."""
    return jnp.einsum("...sc,s->...c", values, weight / weight.sum())
