"""Own the network of a map: history read once, coming weeks and a signal read for every query, and an answer.

FREE: internals; sizes are stored with the weights, and what is fed to it is `maps.inputs`.
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.maps.features import AGENT_FEATURES, AHEAD, ATTRIBUTES, TOTALS, Baseline, MapInputs
from walras.maps.layers import DilatedCNN, FutureCNN, Linear, Perceptron
from walras.maps.output_heads import inverse_head, relative_use, scaled_price
from walras.maps.pooling import PooledAgents
from walras.maps.probes import PreparedProbes
from walras.maps.representations.base import AbstractRepresentation, Widths
from walras.maps.representations.bottom_up import BottomUp
from walras.maps.representations.registry import REPRESENTATIONS

ROOM_SCALE, LEAST_ROOM = 4.0, 0.05
"""Capacities vary by a quarter or so; less than a twentieth of expected use is read as that much."""

CORRECTIONS = 3
"""Times that a dual map corrects its prices by what delegates say of them."""


@dataclass(frozen=True)
class MapShape:
    """Hold the sizes of a map's network; the defaults are the published ones (spec section 7).

    Attributes:
        representation: its name.
        resources: number of resources.
        history_width: channels of the CNNs that read history, of agents and totals each.
        future_width: channels of each direction of the CNN that reads coming weeks.
        decoder_width: width of the decoder.
        attention: dimension of keys, values and pooled vectors.
        buckets: demand buckets.
        dilations: of the history's layers; the default knows exactly 64 weeks.
        future_dilations: of the future's layers.
        delegates: agents whose policies are asked in every query; 0 asks nobody, as the published maps do.
        sees_prices: False for a primal map that answers without looking at prices, to learn what they are worth to it.
    """

    representation: str = "bucketized"
    resources: int = 1
    history_width: int = 32
    future_width: int = 16
    decoder_width: int = 32
    attention: int = 20
    buckets: int = 10
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    future_dilations: tuple[int, ...] = (1, 2, 4, 8, 16)
    delegates: int = 0
    sees_prices: bool = True

    @property
    def kind(self) -> type[AbstractRepresentation]:
        """Give the representation's class."""
        return REPRESENTATIONS[self.representation]

    @property
    def name(self) -> str:
        """Name what the map knows its population by."""
        return self.representation + ("+delegates" if self.delegates else "")

    @property
    def signals(self) -> int:
        """Count what is read of each coming week and resource beside features: the question, and what delegates say."""
        return 3 if self.delegates else 1


class Encoded(eqx.Module):
    """Hold a population as a map knows it at one or several origins: all that no query changes.

    Attributes:
        prepared: what the representation keeps.
        totals: embedding of the totals' history.
        future: scaled features of the coming weeks.
        base: what answers start from.
        crowd: who the agents are.
        asked: delegates; None for maps that ask nobody.
    """

    prepared: Any
    totals: Float[Array, "*origin channel"]
    future: Float[Array, "*origin ahead feature"]
    base: Baseline
    crowd: PooledAgents
    asked: PreparedProbes | None = None


class MapNetwork(eqx.Module):
    """Answer for the coming weeks, given a population's history and a signal: prices (primal) or capacity (dual).

    Attributes:
        agents: reads each agent's history; None where the representation reads none.
        totals: reads the totals' history.
        future: reads coming weeks and signal.
        context: brings the totals' embedding into the query.
        basis: what the totals alone say; the representation adds what the population's mix changes.
        representation: knows the population.
        each: what every agent will do by itself, which histories are learned to be read by; None where it is the
            representation itself, or no agents are read.
        sees_prices: as in `MapShape`.
    """

    agents: DilatedCNN | None
    totals: DilatedCNN
    future: FutureCNN
    context: Linear
    basis: Perceptron
    representation: AbstractRepresentation
    each: BottomUp | None
    sees_prices: bool = eqx.field(static=True, default=True)

    @staticmethod
    def draw(shape: MapShape, seed: int) -> "MapNetwork":
        """Draw all weights."""
        random = np.random.default_rng([seed, 0x3A9])
        m, width = shape.resources, shape.history_width
        query = 2 * shape.future_width
        sizes = (width, query, shape.attention, shape.decoder_width, m, ATTRIBUTES, shape.buckets)
        reads, widths = shape.kind.reads_agents, Widths(*sizes)
        return MapNetwork(
            agents=DilatedCNN.draw(random, AGENT_FEATURES, width, shape.dilations) if reads else None,
            totals=DilatedCNN.draw(random, TOTALS * m, width, shape.dilations),
            future=FutureCNN.draw(random, (AHEAD + shape.signals) * m + 2, shape.future_width, shape.future_dilations),
            context=Linear.draw(random, width, query),
            basis=Perceptron.draw(random, (query, shape.decoder_width, shape.decoder_width, m), 0.1),
            representation=shape.kind.draw(random, widths),  # type: ignore[attr-defined]
            each=BottomUp.draw(random, widths) if reads and not shape.kind.by_agent else None,
            sees_prices=shape.sees_prices,
        )

    def encode(self, inputs: MapInputs, spacing: int = 1) -> Encoded:
        """Encode a population at several origins in one pass over its history.

        Args:
            inputs: scaled; weeks end with the last origin, `future` and `base` have one row per origin. Without agents
                the answer is that of the totals alone.
            spacing: weeks between origins.
        """
        return self.encoded_on(self.embeddings(inputs, spacing), inputs, spacing)

    def embeddings(self, inputs: MapInputs, spacing: int = 1) -> Float[Array, "origin slot channel"] | None:
        """Read every agent's history up to every origin, as `encode` does; None where there is none to be read."""
        if self.agents is None or inputs.agents is None:
            return None
        return self.agents(inputs.agents, inputs.valid, spacing)[-inputs.future.shape[0] :]

    def encoded_on(self, agents: Array | None, inputs: MapInputs, spacing: int = 1) -> Encoded:
        """Encode as `encode` does, on `embeddings` that are there already."""
        totals = self.totals(inputs.totals, spacing=spacing)[-inputs.future.shape[0] :]
        return self.encoded(agents, totals, inputs)

    def encoded(self, agents: Any, totals: Array, inputs: MapInputs) -> Encoded:
        """Prepare the representation on embeddings of agents (None where none are read) and of totals."""
        unknown = agents is None and self.agents is not None
        prepared = None if unknown else self.representation.prepare(agents, inputs.crowd)
        return Encoded(prepared, totals, inputs.future, inputs.base, inputs.crowd, inputs.asked)

    def agent_head(self) -> BottomUp | None:
        """Return what says what every agent will do by itself, if anything does."""
        return self.representation if isinstance(self.representation, BottomUp) else self.each

    def query(self, encoded: Encoded, signal: Float[Array, "*axes ahead signal"]) -> Float[Array, "*axes ahead query"]:
        """Read the signal beside the coming weeks; axes in front of the origins' are free."""
        future = jnp.broadcast_to(encoded.future, (*signal.shape[:-1], encoded.future.shape[-1]))
        read = self.future(jnp.concatenate([future, signal], -1))
        context = self.context(encoded.totals)[..., None, :]
        return read + jnp.broadcast_to(context, read.shape)

    def answer(
        self, encoded: Encoded, signal: Float[Array, "*axes ahead signal"]
    ) -> Float[Array, "*axes ahead resource"]:
        """Return what the representation responds, before any head."""
        query = self.query(encoded, signal)
        if self.representation.by_agent:
            return self.representation.respond(encoded.prepared, encoded.crowd, query)
        known = self.basis(query)
        if encoded.prepared is None:  # nothing is known of the population beyond its totals
            return known
        return known + self.representation.respond(encoded.prepared, encoded.crowd, query)

    def utilization(
        self, encoded: Encoded, shadow_prices: Float[Array, "*axes ahead resource"]
    ) -> Float[Array, "*axes ahead resource"]:
        """Return use relative to S(P); prices are in median unit margins (the primal head).

        What is on order already is added where the representation answers for the population as a whole: only what
        agents will still order is learned, and where delegates are asked only what they are off by.
        """
        level = _like(encoded.base.level[..., None, :], shadow_prices.ndim)
        signal, known = self.price_signal(encoded, shadow_prices)
        use = relative_use(self.answer(encoded, signal) + known) * level
        return use if self.representation.by_agent else use + _like(encoded.base.due, use.ndim)

    def price_signal(
        self, encoded: Encoded, shadow_prices: Float[Array, "*axes ahead resource"]
    ) -> tuple[Float[Array, "*axes ahead signal"], Float[Array, "*axes ahead resource"] | float]:
        """Return what is read beside the coming weeks, and what is known of the answer: delegates' new orders."""
        asked = encoded.asked
        if not self.sees_prices:
            return jnp.zeros_like(shadow_prices), 0.0
        if asked is None:
            return shadow_prices, 0.0
        level = _like(encoded.base.level[..., None, :], shadow_prices.ndim)
        said = asked.use(shadow_prices) / level
        ordered = said - _like(asked.due, said.ndim) / level
        moved = said - _like(asked.free, said.ndim) / level
        return jnp.concatenate([shadow_prices, said, moved], -1), inverse_head(ordered)

    def shadow_prices(
        self, encoded: Encoded, capacity: Float[Array, "*axes ahead resource"]
    ) -> Float[Array, "*axes ahead resource"]:
        """Return prices in median unit margins; capacity is relative to S(P) (the dual head).

        What is read is the logarithm of capacity over expected use, in units in which it varies like other features: K
        itself varies so little beside them that maps hardly learned to look at it. Delegates are asked what they would
        use at the prices so far, and the map corrects these by what is still too much or too little, a few times.
        """
        level = _like(encoded.base.level[..., None, :], capacity.ndim)
        capacity = jnp.maximum(capacity, LEAST_ROOM * level)
        room = ROOM_SCALE * jnp.log(capacity / level)
        if encoded.asked is None:
            return scaled_price(self.answer(encoded, room))
        found = jnp.zeros(capacity.shape)
        for _ in range(CORRECTIONS):
            said = jnp.maximum(encoded.asked.use(scaled_price(found)), LEAST_ROOM * level)
            left = ROOM_SCALE * jnp.log(capacity / said)
            found = found + self.answer(encoded, jnp.concatenate([room, found, left], -1))
        return scaled_price(found)


def _like(values: Array, axes: int) -> Array:
    """Put axes of candidate plans in front of those of origins."""
    return values.reshape((1,) * (axes - values.ndim) + values.shape)
