"""Encoder: one map reads one population at one origin, and then week by week."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.errors import InputError, NotFiniteError, shape_mismatch
from walras.maps.agent_layout import CohortIndex
from walras.maps.features import (
    LOOK_BACK,
    AgentHistory,
    FeatureScaling,
    KnownFuture,
    MapInputs,
    Units,
    agent_features,
    baseline_of,
    cohort_of,
    future_features,
    pool_agents,
    prepare_probes_now,
    total_features,
)
from walras.maps.file import LearnedMap, probes_for
from walras.maps.history import History
from walras.maps.network import EncodedPopulation, MapNetwork
from walras.maps.probes import PreparedProbes
from walras.policies.base import Policy
from walras.population.cohort import Cohort
from walras.population.population import Population
from walras.simulation.checks import check_policy_call
from walras.simulation.run import window_length

Layers = tuple[tuple[Array, ...], ...]

# Slots pooled at a time: for `MANY` agents or more (a tile's scores stay in the cache), and for fewer.
TILE, SMALL_TILE, MANY = 128, 16, 4096
_prepare_probes_now = eqx.filter_jit(prepare_probes_now)


@dataclass(frozen=True, eq=False)
class ConvCache:
    """The last inputs of every layer of the convolutions over history, one array per week.

    Weeks are arrays of their own, so that a view and the one a week later share all but the newest.
    """

    agents: Layers | None  # of all slots, by layer; None for maps that read no agents
    totals: Layers  # of the population, by layer

    def oldest(self) -> tuple[tuple[Array, ...] | None, tuple[Array, ...]]:
        """Return each layer's input `dilation` weeks ago."""
        agents = None if self.agents is None else tuple(weeks[0] for weeks in self.agents)
        return agents, tuple(weeks[0] for weeks in self.totals)

    def append(self, agents: tuple[Array, ...] | None, totals: tuple[Array, ...]) -> "ConvCache":
        """Return the cache with the newest week in place of the oldest."""

        def appended(layers: Layers, newest: tuple[Array, ...]) -> Layers:
            return tuple((*weeks[1:], new) for weeks, new in zip(layers, newest, strict=True))

        moved = None if self.agents is None or agents is None else appended(self.agents, agents)
        return ConvCache(moved, appended(self.totals, totals))


def _by_week(rings: tuple[Array, ...]) -> Layers:
    """Split weeks in numpy, so that nothing is compiled for it."""
    return tuple(tuple(jnp.asarray(week) for week in np.asarray(ring)) for ring in rings)


class PopulationReader(eqx.Module):
    """A map's network with the population that it reads: all that stays the same from week to week."""

    network: MapNetwork  # of the map
    scaling: FeatureScaling
    population: Population  # the whole population, without names
    units: Units  # in which the map sees it
    cohort_index: CohortIndex  # agents whose histories are read

    @eqx.filter_jit
    def read(
        self, history: AgentHistory, known: KnownFuture, probes: PreparedProbes | None
    ) -> tuple[EncodedPopulation, Float[Array, " summary"] | None]:
        """Encode the population at the history's last week; return also the vector that describes it."""

        def embed(features: Array, valid: Array) -> Array:
            # Counted back from the last week with this spacing, every layer computes only what the last week needs.
            return self.network.agents(features, valid, LOOK_BACK)[-1]  # type: ignore[misc]

        embeddings = None if self.network.agents is None else self._by_tile(embed, history)
        totals = self.network.totals(self._totals(history))[-1]
        return self._finish(embeddings, totals, known, probes)

    @eqx.filter_jit
    def caches(self, history: AgentHistory) -> tuple[tuple[Array, ...] | None, tuple[Array, ...]]:
        """Return the last inputs of every layer: of all slots, and of the totals."""
        totals = self.network.totals.cache(self._totals(history))
        if self.network.agents is None:
            return None, totals
        tiles = self._by_tile(self.network.agents.cache, history)
        return tuple(jnp.moveaxis(ring, 0, 1).reshape(ring.shape[1], -1, ring.shape[-1]) for ring in tiles), totals

    @eqx.filter_jit
    def step(
        self, oldest: tuple, column: AgentHistory, known: KnownFuture, probes: PreparedProbes | None
    ) -> tuple[tuple, tuple[EncodedPopulation, Float[Array, " summary"] | None]]:
        """Read the next week; return this week's inputs of every layer, and what `read` returns."""
        embeddings, agents = None, None
        if self.network.agents is not None:
            week = column.of_agents(self.cohort_index.index)
            features = agent_features(self.population.take(self.cohort_index.index), week, self.units)
            features = self.scaling.of_agents(features)
            agents, embeddings = self.network.agents.step(oldest[0], features[0], week.valid[0])
        totals, total_embedding = self.network.totals.step(oldest[1], self._totals(column)[0])
        return (agents, totals), self._finish(embeddings, total_embedding, known, probes)

    def _totals(self, history: AgentHistory) -> Float[Array, "week feature"]:
        return self.scaling.of_totals(total_features(self.population, history, self.units))

    def _by_tile(self, function: Callable, history: AgentHistory) -> Any:
        """Apply `function(features, valid)` to one tile of agents after the other; a tile stays in the cache."""

        def one(index: Int[Array, " slot"]) -> Any:
            own = history.of_agents(index)
            features = agent_features(self.population.take(index), own, self.units)
            return function(self.scaling.of_agents(features), own.valid)

        tiles = self.cohort_index.bucket.shape[0]
        return jax.lax.map(one, self.cohort_index.index.reshape(tiles, -1))

    def _finish(
        self,
        embeddings: Float[Array, "*slots channel"] | None,
        totals: Float[Array, " channel"],
        known: KnownFuture,
        probes: PreparedProbes | None,
    ) -> tuple[EncodedPopulation, Float[Array, " summary"] | None]:
        """Prepare the representation on embeddings of agents and totals."""
        network, index = self.network, self.cohort_index
        cohort = cohort_of(self.population, index.index, index.weight)
        pooled = pool_agents(cohort, index.bucket, index.n_buckets, self.units)
        future, baseline = future_features(known, self.units), baseline_of(cohort, known, self.units)
        no_totals = jnp.zeros_like(self.scaling.totals)
        inputs = self.scaling(MapInputs(None, no_totals, future, baseline, pooled, None, probes))
        flat: Any = None if embeddings is None else embeddings.reshape(-1, embeddings.shape[-1])
        encoded = network.assemble(flat, totals, inputs)
        cache = network.representation.cache(encoded.prepared, inputs.pooled)
        return replace(encoded, prepared=cache), network.representation.summary(flat, inputs.pooled)


@dataclass(frozen=True, eq=False)
class EncoderState:
    """One map with one encoded population."""

    learned: LearnedMap  # the map
    reader: PopulationReader  # reads the population
    encoded: EncodedPopulation  # the population at the origin
    summary: Float[Array, " summary"] | None  # to compare populations by; None where the map gives none
    policy: Policy | None = None  # of the agents, for the map's probes; None where it is not given
    cache: ConvCache | None = None  # of the convolutions; None before the first `step`

    @staticmethod
    def of(
        learned: LearnedMap,
        population: Population,
        units: Units,
        cohort: Cohort,
        history: History,
        policy: Policy | None = None,
        *,
        seed: int = 0,
    ) -> "EncoderState":
        """Encode a population, given without names; `cohort` are the agents whose histories are read.

        A map with probes that lacks the agents' policy or open orders is an InputError.
        """
        tile = TILE if cohort.n_drawn >= MANY else SMALL_TILE
        probes = probes_for(learned, population, cohort, seed)
        index = CohortIndex.of(np.asarray(population.demand_scale), cohort, learned.edges, tile, probes)
        reader = PopulationReader(learned.network, learned.scaling, population, units, index)
        prepared = _prepared_probes(reader, history, policy)
        encoded, summary = reader.read(latest(history.agent_history), history.known, prepared)
        return EncoderState(learned, reader, encoded, summary, policy)

    @property
    def parts(self) -> tuple[MapNetwork, EncodedPopulation]:
        """Network and encoded population, as queries need them."""
        return self.learned.network, self.encoded

    def step(self, before: AgentHistory, history: History) -> "EncoderState":
        """Read the next week; the history before it is used in the first step alone."""
        cache = self.cache
        if cache is None:
            agents, totals = self.reader.caches(latest(before))
            cache = ConvCache(None if agents is None else _by_week(agents), _by_week(totals))
        probes = _prepared_probes(self.reader, history, self.policy)
        newest, (encoded, summary) = self.reader.step(cache.oldest(), history.agent_history, history.known, probes)
        return replace(self, encoded=encoded, summary=summary, cache=cache.append(*newest))


def _prepared_probes(reader: PopulationReader, history: History, policy: Policy | None) -> PreparedProbes | None:
    """Prepare the probes of a map that has any at the origin."""
    population, probes, on_order = reader.population, reader.cohort_index.probes, history.on_order
    if probes is None:
        return None
    if policy is None or on_order is None:
        missing = "`policy`, which they follow" if policy is None else "`on_order` in the history"
        raise InputError(
            f"these maps simulate some agents in every query but lack {missing}; give it "
            "(`encode(population, history, policy)`, `History.from_simulation`), or load maps without probes"
        )
    longest = int(np.max(np.asarray(population.lead_time)))
    if on_order.shape[0] < longest:
        needed = f"[at least {longest} weeks, the longest lead time, agents]"
        raise shape_mismatch("history.on_order", tuple(on_order.shape), needed, "give a row for every week")
    check_policy_call(population, policy, window_length(policy, on_order.shape[0]), population.n_agents)
    past = (history.agent_history, history.known, on_order)
    prepared = _prepare_probes_now(population, probes, *past, policy, reader.units)
    if not np.isfinite(np.asarray(prepared.free)).all():
        raise NotFiniteError(
            f"agents that follow `{type(policy).__name__}` would use an amount that is not finite even without prices; "
            "check the policy, and the table for extreme values"
        )
    return prepared


def latest(history: AgentHistory) -> AgentHistory:
    """Return the last 64 weeks, or as many as there are; missing weeks before a short history count for nothing."""
    return jax.tree.map(lambda leaf: leaf[-LOOK_BACK:], history)
