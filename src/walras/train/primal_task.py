"""Training of primal maps: supervised, on rollouts under drawn prices and prices that maps or planners propose."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from walras.data.resume_log import digest
from walras.errors import SettingsError
from walras.maps.agent_layout import CohortIndex
from walras.maps.closed_loop import (
    CapacityTarget,
    DualMap,
    adam_on_softplus_prices,
    run_closed_loop,
    softplus_prices,
)
from walras.maps.features import HORIZON, LEAST_DEMAND, FeatureScaling, MapInputs
from walras.maps.file import LearnedMap
from walras.maps.network import EncodedPopulation, MapNetwork
from walras.maps.representations import MapShape
from walras.maps.rollout import MapRollout, PopulationWindow, horizon_slices, inputs_of, roll_out
from walras.policies.base import Policy
from walras.train.loop import TrainState, apply_gradients
from walras.train.map_task import EXAMPLES, FIRST_EXAMPLE, MapEpisodes, MapTask, SampledEpisode, free_and_capacity
from walras.train.settings import MapTraining
from walras.train.shocks import DRAWN, drawn_prices

Prices = Float[np.ndarray, "week resource"]

VALIDATION = 8  # validation rollouts
WATCHED = 96  # slots of a cohort whose own use is part of the loss
AGENT_WEIGHT = 0.1  # weight of their errors, which are mostly noise, beside those of the population
# Smaller forecasts count as this large in the loss, since orders are lumpy: of an agent in units of its mean demand, of
# the population in units of its mean use.
SMALL_ORDER, SMALL_USE = 1.0, 0.2
FIRST_PRICED = 26  # first week in which a dual map issues prices: later origins then have a history with prices in it
QUERY_SPACING = 32  # weeks between the origins of price queries that are strung together
SEARCH_STEPS, SEARCH_RATE = 40, 0.15  # steps of the price search, and its step size
PRICE_WEIGHT = 0.01  # weight of prices in the search, so that prices fall to zero in weeks with room


class PrimalExample(eqx.Module):
    """What a primal map learns from one rollout, at several origins."""

    inputs: MapInputs  # features, not yet scaled
    prices: Float[Array, "origin ahead resource"]  # of the coming weeks in median unit margins
    use: Float[Array, "origin ahead resource"]  # of the coming weeks, relative to S(P)
    watched: Int[Array, " watched"] | None  # slots whose own use is part of the loss; None where no agents are read
    # use of these in units of their demand scale x the base of the coming weeks
    agent_use: Float[Array, "origin ahead watched resource"] | None

    def without_agents(self) -> "PrimalExample":
        """Leave out agents' histories, so that only what totals say is learned."""
        inputs = replace(self.inputs, agents=None, valid=None)
        return replace(self, inputs=inputs, watched=None, agent_use=None)


@eqx.filter_jit
def make_example(
    rolled: MapRollout,
    window: PopulationWindow,
    cohort: CohortIndex,
    prices: Float[Array, "week resource"],
    shape: MapShape,
    weeks: int,
    origins: int,
    spacing: int,
) -> PrimalExample:
    """Read an example off a rollout."""
    inputs = inputs_of(rolled, window, cohort, weeks, origins, spacing, reads_agents=shape.kind.reads_agents)
    agent_use, watched = None, None
    if shape.kind.reads_agents:
        # Evenly spaced slots: all buckets are among them.
        watched = jnp.arange(0, cohort.index.shape[0], max(cohort.index.shape[0] // WATCHED, 1))[:WATCHED]
        received = rolled.received / jnp.maximum(window.population.demand_scale, LEAST_DEMAND)[None, :]
        seen = received[:, cohort.index[watched]]
        agent_use = horizon_slices(seen, weeks, origins, spacing)[..., None] / inputs.baseline.level[:, None, None, :]
    return PrimalExample(
        inputs=inputs,
        prices=horizon_slices(prices / rolled.units.price[None, :], weeks, origins, spacing),
        use=horizon_slices(rolled.utilization / rolled.units.use[None, :], weeks, origins, spacing),
        watched=watched,
        agent_use=agent_use,
    )


def example_loss(
    network: MapNetwork, scaling: FeatureScaling, example: PrimalExample, spacing: int
) -> Float[Array, ""]:
    """Return the mean squared error of use relative to the forecast, of the population and of single agents.

    The use of single agents trains the reading of histories: one total a week says little about thousands of them. A
    map that sums agents' own responses learns from them alone.
    """
    inputs = scaling(example.inputs)
    agents = network.embed_agents(inputs, spacing)
    encoded = network.encode_on(agents, inputs, spacing)
    if agents is None or example.watched is None:
        return _population_loss(network, encoded, example)
    loss = _agent_loss(network, encoded, agents[:, example.watched], example)
    return loss if network.agent_head is None else _population_loss(network, encoded, example) + AGENT_WEIGHT * loss


def _population_loss(network: MapNetwork, encoded: EncodedPopulation, example: PrimalExample) -> Float[Array, ""]:
    forecast = network.utilization(encoded, example.prices)
    # Weighted by the forecast, not by the outcome: that would favour forecasts that are too low.
    size = jax.lax.stop_gradient(forecast) + SMALL_USE * example.use.mean()
    return (((forecast - example.use) / size) ** 2).mean()


def _agent_loss(
    network: MapNetwork, encoded: EncodedPopulation, agents: Array, example: PrimalExample
) -> Float[Array, ""]:
    head = network.head_of_agents()
    assert head is not None and example.agent_use is not None  # agents are read
    signal, _ = network.probe_features(encoded, example.prices)
    forecast = head.agent_use(head.of_agent(agents), network.embed_query(encoded, signal))
    filled = (example.inputs.pooled.weight[example.watched] > 0)[None, None, :, None]
    size = jax.lax.stop_gradient(forecast) + SMALL_ORDER
    errors = jnp.where(filled, ((forecast - example.agent_use) / size) ** 2, 0.0)
    return errors.sum() / (filled.sum() * errors.shape[0] * errors.shape[1] * errors.shape[3])


@eqx.filter_jit
def _update(
    state: TrainState,
    example: PrimalExample,
    scaling: FeatureScaling,
    spacing: int,
    averaged: Array,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, dict[str, Array]]:
    loss, gradient = eqx.filter_value_and_grad(example_loss)(state.network, scaling, example, spacing)
    metrics = {"loss": loss, "gradient_norm": optax.tree_utils.tree_norm(gradient)}
    return apply_gradients(state, gradient, averaged, optimizer), metrics


@eqx.filter_jit
def forecast_error(
    network: MapNetwork, scaling: FeatureScaling, example: PrimalExample, spacing: int
) -> Float[Array, ""]:
    """Return the mean of |forecast - use| / use over weeks whose use is at least a twentieth of its mean."""
    forecast = network.utilization(network.encode(scaling(example.inputs), spacing), example.prices)
    counts = example.use >= 0.05 * example.use.mean()
    return (jnp.abs(forecast - example.use) / jnp.where(counts, example.use, 1.0) * counts).sum() / counts.sum()


@eqx.filter_jit
def _relative_errors(
    network: MapNetwork, scaling: FeatureScaling, example: PrimalExample, spacing: int
) -> Float[Array, "origin ahead resource"]:
    forecast = network.utilization(network.encode(scaling(example.inputs), spacing), example.prices)
    return (forecast - example.use) / example.use.mean()


class PriceProposal(abc.ABC):
    """Source of prices beside random ones: what maps issue and planners query."""

    @abc.abstractmethod
    def propose(self, episode: SampledEpisode, policy: Policy, network: MapNetwork, scaling: FeatureScaling) -> Prices:
        """Return prices for all weeks of the window [money per unit of resource]."""

    @abc.abstractmethod
    def identity(self) -> Any:
        """Return what proposals depend on, as JSON values."""


@dataclass(frozen=True, eq=False)
class DualProposals(PriceProposal):
    """Propose the prices that a trained dual map charges to keep a population to a drawn capacity."""

    dual: LearnedMap  # the map

    def propose(self, episode: SampledEpisode, policy: Policy, network: MapNetwork, scaling: FeatureScaling) -> Prices:
        """Run the closed loop, and return the prices charged in it."""
        _, capacity = free_and_capacity(episode, policy, FIRST_PRICED)
        plan = CapacityTarget(jnp.asarray(capacity, jnp.float32), FIRST_PRICED)
        dual = DualMap(self.dual.network, self.dual.scaling)
        charged = np.asarray(_charged(episode.window, episode.cohort, policy, plan, dual), float)
        return np.concatenate([np.zeros((FIRST_PRICED, charged.shape[1])), charged])

    def identity(self) -> Any:
        """Return a digest of the map."""
        return digest((self.dual.network, self.dual.scaling))


@eqx.filter_jit
def _charged(*given: Any) -> Float[Array, "week resource"]:
    return run_closed_loop(*given).charged


class PlannerQueries(PriceProposal):
    """Propose prices as a planner would query: those at which the map itself predicts that use fits a capacity."""

    def propose(self, episode: SampledEpisode, policy: Policy, network: MapNetwork, scaling: FeatureScaling) -> Prices:
        """Search prices at origins half a year apart, some steps only, and string them together."""
        window, (free, capacity) = episode.window, free_and_capacity(episode, policy, FIRST_PRICED)
        last = window.n_weeks - HORIZON
        origins = (last - 1) // QUERY_SPACING + 1
        reads = network.agents is not None
        inputs = inputs_of(free, window, episode.cohort, last, origins, QUERY_SPACING, reads_agents=reads)
        firsts = last - 1 - QUERY_SPACING * np.arange(origins)[::-1]
        coming = np.stack([capacity[first + 1 : first + 1 + HORIZON] for first in firsts])
        relative = jnp.asarray(coming, jnp.float32) / free.units.use[None, None, :]
        steps = int(episode.random.integers(5, SEARCH_STEPS + 1))
        searched = _searched(network, scaling, inputs, relative, np.int32(steps))
        prices = np.zeros(capacity.shape)
        for first, block in zip(firsts, np.asarray(searched * free.units.price[None, None, :], float), strict=True):
            prices[first + 1 : first + 1 + HORIZON] = block
        return prices

    def identity(self) -> Any:
        """Return the name; proposals depend on the map that is being trained."""
        return "planner queries"


class AnyOf(PriceProposal):
    """Choose one of several sources, equally likely."""

    def __init__(self, *sources: PriceProposal) -> None:
        self.sources = sources

    def propose(self, episode: SampledEpisode, policy: Policy, network: MapNetwork, scaling: FeatureScaling) -> Prices:
        """Return the prices of one of them."""
        source = self.sources[episode.random.integers(len(self.sources))]
        return source.propose(episode, policy, network, scaling)

    def identity(self) -> Any:
        """Return those of all sources."""
        return [source.identity() for source in self.sources]


@eqx.filter_jit
def _searched(
    network: MapNetwork,
    scaling: FeatureScaling,
    inputs: MapInputs,
    capacity: Float[Array, "origin ahead resource"],
    steps: Any,
) -> Float[Array, "origin ahead resource"]:
    encoded = network.encode(scaling(inputs), QUERY_SPACING)
    return search_proposals(lambda prices: network.utilization(encoded, prices), capacity, steps)


def search_proposals(
    utilization: Any, capacity: Float[Array, "*axes ahead resource"], steps: Array | int
) -> Float[Array, "*axes ahead resource"]:
    """Search prices `softplus(nu)` at which use fits capacity, by Adam on squared violation plus a small price term.

    `utilization` maps prices to use; both and `capacity` are relative to S(P).
    """

    def loss(prices: Array) -> tuple[Array, Array]:
        over = jnp.maximum(utilization(prices) - capacity, 0.0)
        return (over**2).sum() + PRICE_WEIGHT * (prices * capacity).sum(), jnp.zeros(())

    start = jnp.full(capacity.shape, -3.0)
    nu, _ = adam_on_softplus_prices(loss, start, learning_rate=lambda _: SEARCH_RATE, max_steps=steps)
    return softplus_prices(nu)


def check_primal(settings: MapTraining) -> None:
    """Raise a `SettingsError` for lengths that leave no origin to learn from, and for masks that do not fit."""
    needed = settings.first_origin + HORIZON + 1
    if settings.weeks < needed:
        raise SettingsError(
            f"`weeks` is {settings.weeks} and `first_origin` {settings.first_origin}, which leaves no origin with "
            f"{HORIZON} weeks after it; raise `weeks` to {needed} or lower `first_origin`"
        )
    if "prices" in settings.masked_features and (settings.n_probes or settings.prices == "mixed"):
        raise SettingsError(
            "`masked_features` has prices but delegates and planners who propose prices know them; set `delegates` to "
            "0 and `prices` to drawn or haar"
        )


class PrimalTask(MapTask):
    """Train a primal map on rollouts under prices of several sources."""

    kind, monitor = "primal map", "held_out_error"

    def __init__(
        self, settings: MapTraining, episodes: MapEpisodes, policy: Policy, source: PriceProposal | None = None
    ) -> None:
        check_primal(settings)
        super().__init__(settings, episodes, policy)
        self.source = source
        self.weeks = settings.weeks - HORIZON
        self.origins = (self.weeks - 1 - settings.first_origin) // settings.spacing + 1
        first = [self.example(episodes.draw(FIRST_EXAMPLE + number), None) for number in range(EXAMPLES)]
        self.scaling = FeatureScaling.fit([example.inputs for example in first], settings.masked_features)
        self.validation = [self.example(episode, None) for episode in episodes.validation(VALIDATION)]

    @property
    def warm_rounds(self) -> int:
        """Rounds over the rollouts of a step that train on totals alone."""
        return 0 if self.shape.kind.by_agent else self.settings.warm_rounds

    @property
    def updates_per_step(self) -> int:  # type: ignore[override]
        """Updates of the optimizer in one step."""
        return self.settings.rollouts_per_step * (1 + self.warm_rounds)

    def example(self, episode: SampledEpisode, network: MapNetwork | None) -> PrimalExample:
        """Simulate a population under drawn or proposed prices, and read the example off."""
        prices = self.prices(episode, network)
        rolled = roll_out(episode.window, self.policy, prices)
        parts = (episode.window, episode.cohort)
        return make_example(rolled, *parts, prices, self.shape, self.weeks, self.origins, self.settings.spacing)

    def prices(self, episode: SampledEpisode, network: MapNetwork | None) -> Float[Array, "week resource"]:
        """Return prices announced for all weeks, half of them proposed by the source where there is one."""
        if self.source is not None and network is not None and episode.random.random() < 0.5:
            prices = self.source.propose(episode, self.policy, network, self.scaling)
        else:
            kinds = DRAWN[self.settings.prices]
            prices = drawn_prices(episode.random, episode.window.population, self.settings.weeks, kinds)
        return jnp.asarray(prices, jnp.float32)

    def identity(self) -> Mapping[str, Any]:
        """Return what the episodes depend on, the policy and the source of prices."""
        return {**super().identity(), "prices": "none" if self.source is None else self.source.identity()}

    def step(self, state: TrainState, number: int) -> tuple[TrainState, Mapping[str, Any]]:
        """Draw some rollouts and make an update on each: first `warm_rounds` on totals, then one on all.

        How totals move is most of what there is to learn, and learning it costs a tenth of reading agents.
        """
        settings = self.settings
        numbers = range((number - 1) * settings.rollouts_per_step, number * settings.rollouts_per_step)
        examples = [self.example(self.episodes.draw(index), state.average) for index in numbers]
        fixed = (self.scaling, int(settings.spacing), jnp.float32(settings.averaged), self.optimizer)
        for _ in range(self.warm_rounds):
            for example in examples:
                state, _ = _update(state, example.without_agents(), *fixed)
        metrics = []
        for example in examples:
            state, of_update = _update(state, example, *fixed)
            metrics.append(of_update)
        return state, {name: sum(values[name] for values in metrics) / len(metrics) for name in metrics[0]}

    def validate(self, state: TrainState) -> Mapping[str, Any]:
        """Return the mean forecast error over the validation rollouts."""
        network, spacing = state.average, self.settings.spacing
        errors = [float(forecast_error(network, self.scaling, example, spacing)) for example in self.validation]
        return {"held_out_error": float(np.mean(errors))}

    def diagnostics(self, network: MapNetwork) -> dict[str, Any]:
        """Return the root mean square of the relative error by coming week over the validation rollouts."""
        spacing = self.settings.spacing
        squares = [_relative_errors(network, self.scaling, example, spacing) ** 2 for example in self.validation]
        by_week = np.sqrt(np.mean(np.concatenate(squares), axis=0))
        return {"relative_error": by_week.astype(float).round(5).tolist()}
