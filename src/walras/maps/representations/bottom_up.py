"""Own the baseline that predicts every agent by itself and adds up.

FREE: learned agent by agent; it knows nothing of the population beyond the totals' history in the query.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.maps.layers import Linear, Perceptron
from walras.maps.output_heads import inverse_head, relative_use
from walras.maps.pooling import PooledAgents
from walras.maps.representations.base import AbstractRepresentation, Widths


class BottomUp(AbstractRepresentation):
    """Predict each agent's use in units of its own demand scale, and sum (spec section 6).

    Attributes:
        of_agent, of_query: first layer, which adds what comes from either side.
        decoder: the layers after it.
    """

    by_agent: ClassVar[bool] = True
    of_agent: Linear
    of_query: Linear
    decoder: Perceptron

    @staticmethod
    def draw(random: np.random.Generator, widths: Widths) -> "BottomUp":
        """Draw all layers."""
        agent, query = (Linear.draw(random, given, widths.decoder) for given in (widths.embedding, widths.query))
        return BottomUp(agent, query, Perceptron.draw(random, (widths.decoder, widths.decoder, widths.resources), 0.1))

    def prepare(self, embeddings: Float[Array, "*axes slot channel"], crowd: PooledAgents) -> Float[Array, "..."]:
        """Return the agents' side of the first layer."""
        return self.of_agent(embeddings)

    def of_each(
        self, prepared: Any, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead slot resource"]:
        """Return each agent's use in units of its demand scale, relative to what is expected of all."""
        asked = self.of_query(query)[..., :, None, :]
        first = prepared[..., None, :, :]
        both = first.reshape((1,) * (asked.ndim - first.ndim) + first.shape) + asked
        return relative_use(self.decoder(jax.nn.elu(both)))

    def respond(
        self, prepared: Any, crowd: PooledAgents, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead resource"]:
        """Return the answer that means the demand-weighted mean of what each agent is expected to do."""
        if isinstance(prepared, PackedAgents):
            return inverse_head(self._tile_by_tile(prepared, query))
        share = crowd.size / crowd.size.sum()
        return inverse_head(jnp.einsum("...hsr,s->...hr", self.of_each(prepared, query), share))

    def packed(self, prepared: Any, crowd: PooledAgents) -> "PackedAgents":
        """Lay the agents' side out tile by tile."""
        share = (crowd.size / crowd.size.sum()).reshape(-1, crowd.tile)
        return PackedAgents(prepared.reshape(*share.shape, -1), share)

    def _tile_by_tile(
        self, prepared: "PackedAgents", query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead resource"]:
        def add(total: Array, tile: PackedAgents) -> tuple[Array, None]:
            return total + jnp.einsum("...sr,s->...r", self.of_each(tile.first, query), tile.share), None

        empty = jnp.zeros((*query.shape[:-1], self.decoder.layers[-1].bias.shape[0]), query.dtype)
        return jax.lax.scan(add, empty, prepared)[0]


class PackedAgents(eqx.Module):
    """Hold what `BottomUp` prepared tile by tile, so that many plans need no number of every agent at once.

    Attributes:
        first: the agents' side of the first layer.
        share: of each agent in demand.
    """

    first: Float[Array, "tile slot channel"]
    share: Float[Array, "tile slot"]
