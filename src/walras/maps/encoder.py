"""Own how one map reads one population at one origin: encoded once, and read on week by week.

FREE: internals of views; compiled once for every number of agents and weeks.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.errors import InputError, NotFiniteError, shape_mismatch
from walras.maps.features import (
    LOOK_BACK,
    AgentHistory,
    KnownFuture,
    MapInputs,
    Scaling,
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
from walras.maps.network import Encoded, MapNetwork
from walras.maps.pooling import CohortIndex, cohort_index
from walras.maps.probes import PreparedProbes, ProbeAgents
from walras.policies.base import Policy
from walras.population.cohort import Cohort
from walras.population.population import Population
from walras.simulation.checks import check_policy_call
from walras.simulation.run import window_length

Layers = tuple[tuple[Array, ...], ...]

TILE, SMALL_TILE, MANY = 128, 16, 4096
"""Slots pooled at a time: for `MANY` agents or more (a tile's scores stay in the cache), and for fewer."""


class EncodedPopulation(eqx.Module):
    """Hold what a map made of a population.

    Attributes:
        encoded: all that no query changes, packed for queries.
        summary: the population as a vector, to compare with those of training; None where the map gives none.
    """

    encoded: Encoded
    summary: Float[Array, " summary"] | None


@dataclass(frozen=True, eq=False)
class ConvCache:
    """Hold what reading on needs: for every layer of the history's networks its last inputs, a week at a time.

    Weeks are arrays of their own, so that a view and the one a week later share all but the newest.

    Attributes:
        agents: of all slots, by layer; None for maps that read no agents.
        totals: of the population, by layer.
    """

    agents: Layers | None
    totals: Layers

    def oldest(self) -> tuple[tuple[Array, ...] | None, tuple[Array, ...]]:
        """Return each layer's input of so many weeks ago as it looks back."""
        agents = None if self.agents is None else tuple(weeks[0] for weeks in self.agents)
        return agents, tuple(weeks[0] for weeks in self.totals)

    def followed(self, agents: tuple[Array, ...] | None, totals: tuple[Array, ...]) -> "ConvCache":
        """Take the newest week in."""
        return ConvCache(
            None if self.agents is None or agents is None else _moved(self.agents, agents), _moved(self.totals, totals)
        )


def _by_week(rings: tuple[Array, ...]) -> Layers:
    """Part weeks by way of numpy: nothing is compiled for it."""
    return tuple(tuple(jnp.asarray(week) for week in np.asarray(ring)) for ring in rings)


def _moved(layers: Layers, newest: tuple[Array, ...]) -> Layers:
    return tuple((*weeks[1:], each) for weeks, each in zip(layers, newest, strict=True))


@dataclass(frozen=True, eq=False)
class EncoderState:
    """Hold one map's reading of one population.

    Attributes:
        learned: the map.
        readers: whose histories it reads.
        read: what it made of them.
        policy: what agents follow, whom the map may ask; None where nobody says.
        kept: what reading on needs; None until it is asked for.
    """

    learned: LearnedMap
    readers: CohortIndex
    read: EncodedPopulation
    policy: Policy | None = None
    kept: ConvCache | None = None

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
        """Read a population.

        Args:
            learned: the map.
            population: everybody that the history tells of, without names.
            units: in which the map sees them.
            cohort: whose histories are read.
            history: at the origin.
            policy: what agents follow; needed by maps that ask delegates.
            seed: of the delegates.

        Raises:
            InputError: delegates are to be asked, and it is not said what they follow or have on order.
        """
        tile = TILE if cohort.n_drawn >= MANY else SMALL_TILE
        delegates = probes_for(learned, population, cohort, seed)
        readers = cohort_index(np.asarray(population.demand_scale), cohort, learned.edges, tile, delegates)
        parts = (learned.network, learned.scaling, population, units, readers, latest(history.ledger))
        ask = _ready(population, units, delegates, history, policy)
        read = _read(*parts, history.known, ask, n_buckets=learned.shape.buckets)
        return EncoderState(learned, readers, read, policy)

    def advanced(self, population: Population, units: Units, before: AgentHistory, history: History) -> "EncoderState":
        """Read the next week.

        Args:
            population, units: as before.
            before: the ledger up to the week before; needed the first time alone.
            history: the next week's column, and what is then known of the coming ones.
        """
        parts = (self.learned.network, self.learned.scaling, population, units, self.readers)
        kept = self._kept(parts, latest(before)) if self.kept is None else self.kept
        n_buckets = self.learned.shape.buckets
        ask = _ready(population, units, self.readers.delegates, history, self.policy)
        newest, read = _read_on(*parts, kept.oldest(), history.ledger, history.known, ask, n_buckets=n_buckets)
        return replace(self, read=read, kept=kept.followed(*newest))

    @staticmethod
    def _kept(parts: tuple, ledger: AgentHistory) -> ConvCache:
        """Read the past once more, this time every week of every layer."""
        agents, totals = _rings(*parts, ledger)
        return ConvCache(None if agents is None else _by_week(agents), _by_week(totals))


def _ready(
    population: Population,
    units: Units,
    delegates: ProbeAgents | None,
    history: History,
    policy: Policy | None,
) -> PreparedProbes | None:
    """Make delegates ready to answer at the origin, where a map asks any."""
    if delegates is None:
        return None
    on_order = history.on_order
    if policy is None or on_order is None:
        missing = "`policy`, which they follow" if policy is None else "`on_order` in the history"
        raise InputError(
            f"these maps ask some agents in every query but lack {missing}; give it "
            "(`encode(population, history, policy)`, `History.from_simulation`), or load maps without delegates"
        )
    longest = int(np.max(np.asarray(population.lead_time)))
    if on_order.shape[0] < longest:
        needed = f"[at least {longest} weeks, the longest lead time, agents]"
        raise shape_mismatch("history.on_order", tuple(on_order.shape), needed, "give a row for every week")
    check_policy_call(population, policy, window_length(policy, on_order.shape[0]), population.n_agents)
    ready = _asked_now(population, delegates, history.ledger, history.known, on_order, policy, units)
    if not np.isfinite(np.asarray(ready.free)).all():
        raise NotFiniteError(
            f"agents that follow `{type(policy).__name__}` would use what is no finite number without any prices; "
            "check the policy, and the table for extreme values"
        )
    return ready


_asked_now = eqx.filter_jit(prepare_probes_now)


def latest(ledger: AgentHistory) -> AgentHistory:
    """Return the last 64 weeks, or as many as there are: what was before a short history counts for nothing."""
    return jax.tree.map(lambda leaf: leaf[-LOOK_BACK:], ledger)


@eqx.filter_jit
def _read(
    network: MapNetwork,
    scaling: Scaling,
    population: Population,
    units: Units,
    readers: CohortIndex,
    ledger: AgentHistory,
    known: KnownFuture,
    ask: PreparedProbes | None,
    *,
    n_buckets: int,
) -> EncodedPopulation:
    def embed(features: Array, valid: Array) -> Array:
        # Counted back from the last week with this spacing, every layer computes only what the last week needs.
        return network.agents(features, valid, LOOK_BACK)[-1]  # type: ignore[misc]

    embeddings = None if network.agents is None else _by_tile(embed, scaling, population, units, readers, ledger)
    totals = scaling.of_totals(total_features(population, ledger, units))
    return _finished(
        network, scaling, population, units, readers, known, ask, embeddings, network.totals(totals)[-1], n_buckets
    )


@jax.jit
def _rings(
    network: MapNetwork,
    scaling: Scaling,
    population: Population,
    units: Units,
    readers: CohortIndex,
    ledger: AgentHistory,
) -> tuple[tuple[Array, ...] | None, tuple[Array, ...]]:
    """Return the last inputs of every layer, week by week: of all slots, and of the totals."""
    totals = network.totals.kept(scaling.of_totals(total_features(population, ledger, units)))
    if network.agents is None:
        return None, totals
    by_tile = _by_tile(network.agents.kept, scaling, population, units, readers, ledger)
    return tuple(jnp.moveaxis(ring, 0, 1).reshape(ring.shape[1], -1, ring.shape[-1]) for ring in by_tile), totals


@eqx.filter_jit
def _read_on(
    network: MapNetwork,
    scaling: Scaling,
    population: Population,
    units: Units,
    readers: CohortIndex,
    oldest: tuple,
    column: AgentHistory,
    known: KnownFuture,
    ask: PreparedProbes | None,
    *,
    n_buckets: int,
) -> tuple[tuple, EncodedPopulation]:
    embeddings, agents = None, None
    if network.agents is not None:
        week = jax.tree.map(lambda leaf: leaf[:, readers.index], column)
        features = scaling.of_agents(agent_features(population.take(readers.index), week, units))
        agents, embeddings = network.agents.step(oldest[0], features[0], week.valid[0])
    row = scaling.of_totals(total_features(population, column, units))[0]
    totals, made = network.totals.step(oldest[1], row)
    parts = (network, scaling, population, units, readers, known, ask)
    return (agents, totals), _finished(*parts, embeddings, made, n_buckets)


def _by_tile(
    use: Callable, scaling: Scaling, population: Population, units: Units, readers: CohortIndex, ledger: AgentHistory
) -> Any:
    """Apply `use(features, valid)` to one tile of agents after the other, so that a tile stays in the cache."""

    def one(index: Int[Array, " slot"]) -> Any:
        history = jax.tree.map(lambda leaf: leaf[:, index], ledger)
        features = scaling.of_agents(agent_features(population.take(index), history, units))
        return use(features, history.valid)

    return jax.lax.map(one, readers.index.reshape(readers.bucket.shape[0], -1))


def _finished(
    network: MapNetwork,
    scaling: Scaling,
    population: Population,
    units: Units,
    readers: CohortIndex,
    known: KnownFuture,
    ask: PreparedProbes | None,
    embeddings: Float[Array, "*slots channel"] | None,
    totals: Float[Array, " channel"],
    n_buckets: int,
) -> EncodedPopulation:
    """Prepare the representation on what was read."""
    cohort = cohort_of(population, readers.index, readers.weight)
    crowd = pool_agents(cohort, readers.bucket, n_buckets, units)
    future, base = future_features(known, units), baseline_of(cohort, known, units)
    inputs = scaling(MapInputs(None, jnp.zeros_like(scaling.totals), future, base, crowd, None, ask))
    flat: Any = None if embeddings is None else embeddings.reshape(-1, embeddings.shape[-1])
    encoded = network.encoded(flat, totals, inputs)
    packed = network.representation.packed(encoded.prepared, inputs.crowd)
    summary = network.representation.summary(flat, inputs.crowd)
    return EncodedPopulation(replace(encoded, prepared=packed), summary)
