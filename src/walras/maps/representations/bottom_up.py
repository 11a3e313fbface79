"""Own the baseline that predicts every agent by itself and adds up.

FREE: learned agent by agent; it knows nothing of the population beyond the totals' history in the query.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.maps.crowd import Crowd
from walras.maps.heads import answer_for, relative_use
from walras.maps.layers import Linear, Perceptron
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
        first = (Linear.draw(random, given, widths.decoder) for given in (widths.embedding, widths.query))
        return BottomUp(*first, Perceptron.draw(random, (widths.decoder, widths.decoder, widths.resources), 0.1))

    def prepare(self, embeddings: Float[Array, "*axes slot channel"] | None, crowd: Crowd) -> Float[Array, "..."]:
        """Return the agents' side of the first layer."""
        return self.of_agent(embeddings)

    def of_each(
        self, prepared: Any, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead slot resource"]:
        """Return each agent's use in units of its demand scale, relative to what is expected of all."""
        both = prepared[..., None, :, :] + self.of_query(query)[..., :, None, :]
        return relative_use(self.decoder(jax.nn.elu(both)))

    def respond(
        self, prepared: Any, crowd: Crowd, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead resource"]:
        """Return the answer that means the demand-weighted mean of what each agent is expected to do."""
        share = crowd.size / crowd.size.sum()
        return answer_for(jnp.einsum("...hsr,s->...hr", self.of_each(prepared, query), share))
