"""What primal and dual trainings share: sampled populations with cohorts, the network's sizes, and the base task."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from walras.data.resume_log import digest
from walras.maps.agent_layout import CohortIndex
from walras.maps.features import HORIZON, FeatureScaling
from walras.maps.network import MapNetwork
from walras.maps.probes import draw_probes
from walras.maps.representations import MapShape
from walras.maps.rollout import MapRollout, PopulationWindow, roll_out
from walras.policies.base import Policy
from walras.population.cohort import ProportionalSample, StratifiedSample, UniformSample
from walras.population.population import bucket_edges
from walras.population.shift import CompositionShift
from walras.train.agent_pool import AgentPool
from walras.train.loop import TrainingTask, TrainState, clipped_adam
from walras.train.settings import MapTraining
from walras.train.shocks import draw_common, drawn_capacity

DESIGNS = (UniformSample(), StratifiedSample(), ProportionalSample())  # of cohorts, equally likely

LEAST_MARGIN = 1e-6  # smaller margins count as this [money/unit]
SHIFTED_BY = ("demand", "economics")  # attributes whose composition shifts in training, equally likely
EXAMPLES = 12  # rollouts on which the scaling of features is measured once, before training
FIRST_EXAMPLE = 2**31  # number of the first of them: no step has it


@dataclass(frozen=True, eq=False)
class SampledEpisode:
    """A population over some weeks, and the cohort that a map reads of it."""

    window: PopulationWindow  # all agents that are simulated
    cohort: CohortIndex  # agents whose histories are read
    random: np.random.Generator  # source of all later draws


class MapEpisodes:
    """Draw populations and weeks to train on, and others for validation; freeze demand buckets from the pools."""

    def __init__(
        self, pools: Sequence[AgentPool], settings: MapTraining, validation_pools: Sequence[AgentPool] = ()
    ) -> None:
        self.settings = settings
        demand = np.concatenate([np.asarray(pool.population.demand_scale) for pool in pools])
        self.edges = bucket_edges(demand, settings.buckets)
        longest = max(pool.max_lead for pool in (*pools, *validation_pools))
        self.pools = tuple(replace(pool, max_lead=longest) for pool in pools)
        self.validation_pools = tuple(replace(pool, max_lead=longest) for pool in validation_pools) or self.pools

    def identity(self) -> Mapping[str, Any]:
        """Return digests of the pools."""
        return {"worlds": [digest((pool.population, pool.exogenous)) for pool in (*self.pools, *self.validation_pools)]}

    def draw(self, number: int) -> SampledEpisode:
        """Draw an episode for a step."""
        return self._draw(self.pools, np.random.default_rng([self.settings.seed, number, 0x3A5]))

    def validation(self, count: int) -> list[SampledEpisode]:
        """Return the validation episodes, always the same."""
        return [self._draw(self.validation_pools, np.random.default_rng([n, 0x7E57])) for n in range(count)]

    def _draw(self, pools: Sequence[AgentPool], random: np.random.Generator) -> SampledEpisode:
        settings = self.settings
        pool = pools[int(random.integers(len(pools)))]
        by = SHIFTED_BY[random.integers(len(SHIFTED_BY))]
        alpha = random.uniform(-1, 1) * settings.composition_shift
        population = pool.population  # by mean demand [units/week] or unit margin [money/unit]
        values = np.asarray(population.demand_scale if by == "demand" else population.unit_margin)
        shift = CompositionShift.fit(values, by)
        start = int(random.integers(pool.n_weeks - settings.weeks + 1))
        within = self._margin_tilt(pool, start, random)
        chosen = shift.draw(values, alpha, settings.population_size, random, within=within)
        spread = random.uniform(0.0, settings.common_surprise)
        window = pool.window(chosen, start, settings.weeks, common=draw_common(random, settings.weeks, spread))
        design = DESIGNS[random.integers(len(DESIGNS))]
        size = np.asarray(window.population.demand_scale)
        cohort = design.draw(size, settings.agents, random)
        n_probes = settings.n_probes
        probes = (
            draw_probes(window.population, n_probes, HORIZON + 1, int(random.integers(2**31))) if n_probes else None
        )
        return SampledEpisode(window, CohortIndex.of(size, cohort, self.edges, settings.tile, probes), random)

    def _margin_tilt(self, pool: AgentPool, start: int, random: np.random.Generator) -> Float[np.ndarray, " agent"]:
        """Return relative frequencies of agents within a bucket: those that sold lately, tilted by their margin.

        Without the tilt, margins would be spread over demand alike in all populations, and no map could learn them.
        """
        margin = np.maximum(np.asarray(pool.population.unit_margin, float), LEAST_MARGIN)
        rank = np.argsort(np.argsort(margin)) / len(margin) - 0.5
        tilt = random.uniform(-1, 1) * self.settings.margin_tilt
        return pool.active[start + self.settings.first_origin] * np.exp(tilt * 12.0**0.5 * rank)


def rolled_free(episode: SampledEpisode, policy: Policy) -> MapRollout:
    """Simulate an episode without prices."""
    no_prices = jnp.zeros((episode.window.n_weeks, len(episode.window.population.resources)))
    return roll_out(episode.window, policy, no_prices)


def free_and_capacity(
    episode: SampledEpisode, policy: Policy, first: int
) -> tuple[MapRollout, Float[np.ndarray, "week resource"]]:
    """Return the rollout without prices, and a capacity path at the scale of its use from week `first` on."""
    free = rolled_free(episode, policy)
    return free, drawn_capacity(episode.random, np.asarray(free.utilization, float), first)


def network_config(settings: MapTraining) -> MapShape:
    """Return the network's sizes for these settings."""
    return MapShape(
        representation=settings.representation,
        resources=len(settings.resources),
        history_width=settings.history_width,
        future_width=settings.future_width,
        decoder_width=settings.decoder_width,
        attention=settings.attention_dim,
        buckets=settings.buckets,
        n_probes=settings.n_probes,
        sees_prices="prices" not in settings.masked_features,
    )


class MapTask(TrainingTask):
    """Base of the primal and the dual task."""

    settings: MapTraining
    episodes: MapEpisodes
    policy: Policy  # that agents follow
    shape: MapShape  # sizes of the network
    scaling: FeatureScaling  # of features, measured once
    optimizer: optax.GradientTransformation  # with its schedule

    updates_per_step = 1  # of the optimizer

    def __init__(self, settings: MapTraining, episodes: MapEpisodes, policy: Policy) -> None:
        self.settings, self.episodes, self.policy = settings, episodes, policy
        self.shape = network_config(settings)
        updates = settings.steps * self.updates_per_step
        self.optimizer = clipped_adam(settings.learning_rate, updates, settings.last_rate, settings.clip_norm)

    def identity(self) -> Mapping[str, Any]:
        """Return what the episodes depend on, and the policy."""
        return {**self.episodes.identity(), "policy": repr(self.policy)}

    def begin(self, seed: int) -> TrainState:
        """Draw a network."""
        return TrainState.of(MapNetwork.draw(self.shape, seed), self.optimizer)

    def parameters(self, state: TrainState) -> MapNetwork:
        """Return the averaged weights."""
        return state.average

    @abc.abstractmethod
    def diagnostics(self, network: MapNetwork) -> dict[str, Any]:
        """Return facts on a trained map over the validation episodes, for its file."""
