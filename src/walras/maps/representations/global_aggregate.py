"""Own the baseline that knows a population by its totals alone.

FREE: it reads no agent, so that queries cost the same for any number of them.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.maps.crowd import Crowd
from walras.maps.representations.base import AbstractRepresentation, Widths


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

    def prepare(self, embeddings: Float[Array, "*axes slot channel"] | None, crowd: Crowd) -> None:
        """Prepare nothing."""

    def respond(
        self, prepared: None, crowd: Crowd, query: Float[Array, "*axes ahead query"]
    ) -> Float[Array, "*axes ahead resource"]:
        """Return zeros."""
        return jnp.zeros((*query.shape[:-1], self.resources))

    def summary(self, embeddings: Float[Array, "slot channel"] | None, crowd: Crowd) -> None:
        """Describe nothing: it knows no population from another."""
