"""Own the baseline that knows a population by its totals alone.

FREE: it reads no agent, so that queries cost the same for any number of them.
"""

from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float

from walras.maps.crowd import Crowd
from walras.maps.layers import Perceptron
from walras.maps.representations.base import AbstractRepresentation, Widths


class GlobalAggregate(AbstractRepresentation):
    """Decode the query, which holds the totals' history already (spec section 6).

    Attributes:
        decoder: two ELU layers, then the answer.
    """

    reads_agents: ClassVar[bool] = False
    decoder: Perceptron

    @staticmethod
    def draw(random: np.random.Generator, widths: Widths) -> "GlobalAggregate":
        """Draw the decoder."""
        return GlobalAggregate(widths.draw_decoder(random, 0))

    def prepare(self, embeddings: Float[Array, "*axes slot channel"] | None, crowd: Crowd) -> None:
        """Prepare nothing."""

    def respond(
        self, prepared: None, crowd: Crowd, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead resource"]:
        """Decode the query."""
        return self.decoder(query)
