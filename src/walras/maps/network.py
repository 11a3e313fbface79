"""Network of a map: reads history once, and in every query coming weeks and a signal (prices or capacity)."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.maps.agent_layout import PooledAgents
from walras.maps.features import AGENT_FEATURES, AHEAD, TOTALS, Baseline, MapInputs
from walras.maps.layers import (
    DilatedCNN,
    FutureCNN,
    Linear,
    Perceptron,
    inverse_head,
    prepend_axes,
    relative_use,
    scaled_price,
)
from walras.maps.probes import PreparedProbes
from walras.maps.representations import AbstractRepresentation, BottomUp, MapShape

Plan = Float[Array, "*axes ahead resource"]

SLACK_SCALE, LEAST_CAPACITY = 4.0, 0.05
"""Capacities vary by about a quarter; less than a twentieth of expected use is read as that much."""

CORRECTIONS = 3  # times that a dual map corrects its prices by the use of its probes


class EncodedPopulation(eqx.Module):
    """A population as encoded at one or several origins: all that no query changes."""

    prepared: Any  # what the representation prepared; None for the answer of the totals alone
    totals: Float[Array, "*origin channel"]  # embedding of the totals' history
    future: Float[Array, "*origin ahead feature"]  # scaled features of the coming weeks
    baseline: Baseline  # what answers start from
    pooled: PooledAgents  # who the agents are
    probes: PreparedProbes | None = None  # agents to simulate in every query; None for maps without


class MapNetwork(eqx.Module):
    """Answer for the coming weeks, given a population's history and a signal: prices (primal) or capacity (dual)."""

    agents: DilatedCNN | None  # reads each agent's history; None where the representation reads none
    totals: DilatedCNN  # reads the totals' history
    future: FutureCNN  # reads coming weeks and signal
    context: Linear  # brings the totals' embedding into the query
    basis: Perceptron  # the answer of the totals alone; the representation adds what the population's mix changes
    representation: AbstractRepresentation  # of the population
    # Predicts each agent, by which reading histories is learned; None where the representation does so or reads none
    agent_head: BottomUp | None
    sees_prices: bool = eqx.field(static=True, default=True)  # as in `MapShape`

    @staticmethod
    def draw(shape: MapShape, seed: int) -> "MapNetwork":
        """Draw all weights."""
        random = np.random.default_rng([seed, 0x3A9])
        m, width = shape.resources, shape.history_width
        reads = shape.kind.reads_agents
        return MapNetwork(
            agents=DilatedCNN.draw(random, AGENT_FEATURES, width, shape.dilations) if reads else None,
            totals=DilatedCNN.draw(random, TOTALS * m, width, shape.dilations),
            future=FutureCNN.draw(random, (AHEAD + shape.signals) * m + 2, shape.future_width, shape.future_dilations),
            context=Linear.draw(random, width, shape.query_width),
            basis=shape.draw_decoder(random, 0),
            representation=shape.kind.draw(random, shape),  # type: ignore[attr-defined]
            agent_head=BottomUp.draw(random, shape) if reads and not shape.kind.by_agent else None,
            sees_prices=shape.sees_prices,
        )

    def encode(self, inputs: MapInputs, spacing: int = 1) -> EncodedPopulation:
        """Encode a population at several origins, `spacing` weeks apart, in one pass over its history.

        Scaled inputs end with the last origin's week; without agents the answer is that of the totals alone.
        """
        return self.encode_on(self.embed_agents(inputs, spacing), inputs, spacing)

    def embed_agents(self, inputs: MapInputs, spacing: int = 1) -> Float[Array, "origin slot channel"] | None:
        """Embed every agent's history up to every origin; None where no agents are read."""
        if self.agents is None or inputs.agents is None:
            return None
        return self.agents(inputs.agents, inputs.valid, spacing)[-inputs.future.shape[0] :]

    def encode_on(self, embeddings: Array | None, inputs: MapInputs, spacing: int = 1) -> EncodedPopulation:
        """Encode as `encode` does, on embeddings of agents that were computed before."""
        totals = self.totals(inputs.totals, spacing=spacing)[-inputs.future.shape[0] :]
        return self.assemble(embeddings, totals, inputs)

    def assemble(self, embeddings: Any, totals: Array, inputs: MapInputs) -> EncodedPopulation:
        """Prepare the representation on embeddings of agents (None where none are read) and of totals."""
        unknown = embeddings is None and self.agents is not None
        prepared = None if unknown else self.representation.prepare(embeddings, inputs.pooled)
        return EncodedPopulation(prepared, totals, inputs.future, inputs.baseline, inputs.pooled, inputs.probes)

    def head_of_agents(self) -> BottomUp | None:
        """Return the layers that predict each agent by itself, if there are any."""
        return self.representation if isinstance(self.representation, BottomUp) else self.agent_head

    def embed_query(
        self, encoded: EncodedPopulation, signal: Float[Array, "*axes ahead signal"]
    ) -> Float[Array, "*axes ahead query"]:
        """Read the signal beside the coming weeks; axes in front of the origins' are free."""
        future = jnp.broadcast_to(encoded.future, (*signal.shape[:-1], encoded.future.shape[-1]))
        read = self.future(jnp.concatenate([future, signal], -1))
        context = self.context(encoded.totals)[..., None, :]
        return read + jnp.broadcast_to(context, read.shape)

    def forward(self, encoded: EncodedPopulation, signal: Float[Array, "*axes ahead signal"]) -> Plan:
        """Return the output before any head."""
        query = self.embed_query(encoded, signal)
        if self.representation.by_agent:
            return self.representation.forward(encoded.prepared, encoded.pooled, query)
        basis = self.basis(query)
        if encoded.prepared is None:  # nothing is known of the population beyond its totals
            return basis
        return basis + self.representation.forward(encoded.prepared, encoded.pooled, query)

    def utilization(self, encoded: EncodedPopulation, shadow_prices: Plan) -> Plan:
        """Return use relative to S(P); prices are in median unit margins (the primal head).

        Use by open orders is added where the representation answers for the population as a whole: only orders yet to
        be placed are learned, and with probes only the error of these.
        """
        level = prepend_axes(encoded.baseline.level[..., None, :], shadow_prices.ndim)
        signal, known = self.probe_features(encoded, shadow_prices)
        use = relative_use(self.forward(encoded, signal) + known) * level
        return use if self.representation.by_agent else use + prepend_axes(encoded.baseline.due, use.ndim)

    def probe_features(
        self, encoded: EncodedPopulation, shadow_prices: Plan
    ) -> tuple[Float[Array, "*axes ahead signal"], Plan | float]:
        """Return the signal read beside the coming weeks, and the output that the probes' new orders amount to."""
        probes = encoded.probes
        if not self.sees_prices:
            return jnp.zeros_like(shadow_prices), 0.0
        if probes is None:
            return shadow_prices, 0.0
        level = prepend_axes(encoded.baseline.level[..., None, :], shadow_prices.ndim)
        use = probes.use(shadow_prices) / level
        ordered = use - prepend_axes(probes.due, use.ndim) / level
        moved = use - prepend_axes(probes.free, use.ndim) / level
        return jnp.concatenate([shadow_prices, use, moved], -1), inverse_head(ordered)

    def shadow_prices(self, encoded: EncodedPopulation, capacity: Plan) -> Plan:
        """Return prices in median unit margins; capacity is relative to S(P) (the dual head).

        The network reads the logarithm of capacity over expected use, scaled to vary like other features: capacity
        itself varies so little beside them that maps hardly learned to use it. With probes, their use at the prices so
        far is compared with capacity, and the network corrects the prices a few times.
        """
        level = prepend_axes(encoded.baseline.level[..., None, :], capacity.ndim)
        capacity = jnp.maximum(capacity, LEAST_CAPACITY * level)
        log_capacity = SLACK_SCALE * jnp.log(capacity / level)
        if encoded.probes is None:
            return scaled_price(self.forward(encoded, log_capacity))
        output = jnp.zeros(capacity.shape)
        for _ in range(CORRECTIONS):
            use = jnp.maximum(encoded.probes.use(scaled_price(output)), LEAST_CAPACITY * level)
            log_slack = SLACK_SCALE * jnp.log(capacity / use)
            output = output + self.forward(encoded, jnp.concatenate([log_capacity, output, log_slack], -1))
        return scaled_price(output)
