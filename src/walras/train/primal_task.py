"""Own the training of primal maps: supervised, on rollouts that are made while training.

FREE: internals; what is stored of a map is said in `maps.map_file`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from walras.errors import SettingsError
from walras.maps.features import HORIZON, LEAST_DEMAND, MapInputs, Scaling
from walras.maps.network import Encoded, MapNetwork, MapShape
from walras.maps.pooling import CohortIndex
from walras.maps.rollout import MapRollout, PopulationWindow, horizon_slices, inputs_of, roll_out
from walras.policies.base import Policy
from walras.train.loop.train import TrainingTask
from walras.train.map_task import DRAWN, MapEpisodes, SampledEpisode, drawn_prices
from walras.train.price_proposals import PriceProposal
from walras.train.settings import MapTraining

EXAMPLES = 12
"""Rollouts over which features are measured once, before training."""

FIRST_EXAMPLE = 2**31
"""Number of the first of them: no step has it."""

WATCHED = 96
"""Slots of a cohort that are looked at one by one."""

AGENT_WEIGHT = 0.1
"""Weight of their errors, which are mostly noise, beside those of the population."""

SMALL_ORDER = 1.0
"""Forecasts of an agent below its mean demand count as that large in the loss: orders are lumpy."""

SMALL_USE = 0.2
"""Forecasts below this share of mean use count as that large in the loss."""

JUDGING = 8
"""Held-out rollouts."""


class TrainState(eqx.Module):
    """Hold what goes from step to step: weights, their running average, and the optimizer's state."""

    network: MapNetwork
    average: MapNetwork
    optimizer: Any


class PrimalExample(eqx.Module):
    """Hold what a primal map learns from one rollout, at several origins.

    Attributes:
        inputs: features, not yet scaled.
        prices: of the coming weeks in median unit margins.
        use: of the coming weeks, relative to S(P).
        watched: slots that are looked at one by one; None where no agents are read.
        each: use of these in units of their demand scale x the base of the coming weeks.
    """

    inputs: MapInputs
    prices: Float[Array, "origin ahead resource"]
    use: Float[Array, "origin ahead resource"]
    watched: Int[Array, " watched"] | None
    each: Float[Array, "origin ahead watched resource"] | None


def network_config(settings: MapTraining) -> MapShape:
    """Return the network's sizes that settings ask for."""
    return MapShape(
        representation=settings.representation,
        resources=len(settings.resources),
        history_width=settings.history_width,
        future_width=settings.future_width,
        decoder_width=settings.decoder_width,
        attention=settings.attention,
        buckets=settings.buckets,
        delegates=settings.asks,
        sees_prices="prices" not in settings.blind,
    )


def optimizer_of(settings: MapTraining, updates: int = 1) -> optax.GradientTransformation:
    """Return Adam on clipped gradients, its step size falling along a half cosine; a step may make several updates."""
    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.steps * updates, settings.last_rate)
    return optax.chain(optax.clip_by_global_norm(settings.clip_norm), optax.adam(rate))


@eqx.filter_jit
def make_example(
    rolled: MapRollout,
    stretch: PopulationWindow,
    readers: CohortIndex,
    prices: Float[Array, "week resource"],
    shape: MapShape,
    weeks: int,
    origins: int,
    spacing: int,
) -> PrimalExample:
    """Read a lesson off a rollout.

    Args:
        rolled: the rollout.
        stretch, readers: who was simulated, and whose histories are read.
        prices: announced in full [money per unit of resource].
        shape: of the map.
        weeks, origins, spacing: which weeks are origins, see `maps.rollout.inputs_of`.
    """
    inputs = inputs_of(rolled, stretch, readers, weeks, origins, spacing, reads_agents=shape.kind.reads_agents)
    each, watched = None, None
    if shape.kind.reads_agents:
        # Every so many slots: all buckets are among them.
        watched = jnp.arange(0, readers.index.shape[0], max(readers.index.shape[0] // WATCHED, 1))[:WATCHED]
        received = rolled.received / jnp.maximum(stretch.population.demand_scale, LEAST_DEMAND)[None, :]
        seen = received[:, readers.index[watched]]
        each = horizon_slices(seen, weeks, origins, spacing)[..., None] / inputs.base.level[:, None, None, :]
    return PrimalExample(
        inputs=inputs,
        prices=horizon_slices(prices / rolled.units.price[None, :], weeks, origins, spacing),
        use=horizon_slices(rolled.utilization / rolled.units.use[None, :], weeks, origins, spacing),
        watched=watched,
        each=each,
    )


def example_loss(network: MapNetwork, scaling: Scaling, lesson: PrimalExample, spacing: int) -> Float[Array, ""]:
    """Return the mean squared error of use relative to the forecast, of the population and of some agents one by one.

    What agents do one by one teaches how to read a history: a single total a week says little about thousands of
    them. A map that answers by adding agents up has no other teacher.
    """
    inputs = scaling(lesson.inputs)
    agents = network.embeddings(inputs, spacing)
    encoded = network.encoded_on(agents, inputs, spacing)
    if agents is None or lesson.watched is None:
        return _of_population(network, encoded, lesson)
    loss = _of_agents(network, encoded, agents[:, lesson.watched], lesson)
    return loss if network.each is None else _of_population(network, encoded, lesson) + AGENT_WEIGHT * loss


def _of_population(network: MapNetwork, encoded: Encoded, lesson: PrimalExample) -> Float[Array, ""]:
    guess = network.utilization(encoded, lesson.prices)
    # Weighted by the forecast, not by what came: that would favour forecasts that are too low.
    size = jax.lax.stop_gradient(guess) + SMALL_USE * lesson.use.mean()
    return (((guess - lesson.use) / size) ** 2).mean()


def _of_agents(network: MapNetwork, encoded: Encoded, agents: Array, lesson: PrimalExample) -> Float[Array, ""]:
    head = network.agent_head()
    assert head is not None and lesson.each is not None  # agents are read
    signal, _ = network.price_signal(encoded, lesson.prices)
    guess = head.of_each(head.of_agent(agents), network.query(encoded, signal))
    there = (lesson.inputs.crowd.weight[lesson.watched] > 0)[None, None, :, None]
    size = jax.lax.stop_gradient(guess) + SMALL_ORDER
    errors = jnp.where(there, ((guess - lesson.each) / size) ** 2, 0.0)
    return errors.sum() / (there.sum() * errors.shape[0] * errors.shape[1] * errors.shape[3])


def apply_gradients(
    carry: TrainState, slope: Any, averaged: float | Array, optimizer: optax.GradientTransformation
) -> TrainState:
    """Go one step down a slope, and let the average follow.

    Args:
        carry: as it was.
        slope: of the loss in the weights.
        averaged: share of the average that is kept.
        optimizer: which makes a step of a slope.
    """
    updates, state = optimizer.update(slope, carry.optimizer)
    network = eqx.apply_updates(carry.network, updates)
    average = jax.tree.map(lambda kept, new: averaged * kept + (1 - averaged) * new, carry.average, network)
    return TrainState(network, average, state)


@eqx.filter_jit
def _updated(
    carry: TrainState,
    lesson: PrimalExample,
    scaling: Scaling,
    spacing: int,
    averaged: Array,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, dict[str, Array]]:
    loss, slope = eqx.filter_value_and_grad(example_loss)(carry.network, scaling, lesson, spacing)
    metrics = {"loss": loss, "gradient_norm": optax.tree_utils.tree_norm(slope)}
    return apply_gradients(carry, slope, averaged, optimizer), metrics


def without_agents(lesson: PrimalExample) -> PrimalExample:
    """Leave the agents' histories out: what is then learned is what the totals alone say."""
    inputs = replace(lesson.inputs, agents=None, valid=None)
    return replace(lesson, inputs=inputs, watched=None, each=None)


@eqx.filter_jit
def forecast_error(network: MapNetwork, scaling: Scaling, lesson: PrimalExample, spacing: int) -> Float[Array, ""]:
    """Return the mean of |forecast - use| / use over weeks whose use is at least a twentieth of its mean."""
    guess = network.utilization(network.encode(scaling(lesson.inputs), spacing), lesson.prices)
    counts = lesson.use >= 0.05 * lesson.use.mean()
    return (jnp.abs(guess - lesson.use) / jnp.where(counts, lesson.use, 1.0) * counts).sum() / counts.sum()


@eqx.filter_jit
def _relative_errors(
    network: MapNetwork, scaling: Scaling, lesson: PrimalExample, spacing: int
) -> Float[Array, "origin ahead resource"]:
    guess = network.utilization(network.encode(scaling(lesson.inputs), spacing), lesson.prices)
    return (guess - lesson.use) / lesson.use.mean()


def check_primal(settings: MapTraining) -> None:
    """Refuse lengths that leave no origin to learn from.

    Raises:
        SettingsError: which, and what can be chosen.
    """
    needed = settings.first_origin + HORIZON + 1
    if settings.weeks < needed:
        raise SettingsError(
            f"`weeks` is {settings.weeks} and `first_origin` {settings.first_origin}, which leaves no origin with "
            f"{HORIZON} weeks after it; raise `weeks` to {needed} or lower `first_origin`"
        )
    if "prices" in settings.blind and (settings.asks or settings.prices == "mixed"):
        raise SettingsError(
            "`blind` is prices but delegates and planners who propose prices know them; set `delegates` to 0 and "
            "`prices` to drawn or haar"
        )


class PrimalTask(TrainingTask):
    """Train a primal map on rollouts under prices of several sources."""

    kind, watched = "primal map", "held_out_error"

    def __init__(
        self,
        settings: MapTraining,
        episodes: MapEpisodes,
        policy: Policy,
        source: PriceProposal | None = None,
    ) -> None:
        """Keep what is trained on, and measure features once.

        Args:
            settings: sizes, steps.
            episodes: populations and weeks.
            policy: what agents follow.
            source: proposes prices beside those drawn at random.

        Raises:
            SettingsError: lengths that leave no origin.
        """
        check_primal(settings)
        self.settings, self.episodes, self.policy, self.source = settings, episodes, policy, source
        self.shape = network_config(settings)
        rounds = 0 if self.shape.kind.by_agent else settings.rounds
        self.optimizer = optimizer_of(settings, settings.rollouts * (1 + rounds))
        self.weeks = settings.weeks - HORIZON
        self.origins = (self.weeks - 1 - settings.first_origin) // settings.spacing + 1
        first = [self.lesson(episodes.draw(FIRST_EXAMPLE + number), None) for number in range(EXAMPLES)]
        self.scaling = Scaling.fit([each.inputs for each in first], settings.blind)
        self.judging = [self.lesson(drawn, None) for drawn in episodes.held_out(JUDGING)]

    def lesson(self, drawn: SampledEpisode, network: MapNetwork | None) -> PrimalExample:
        """Simulate a drawn population under drawn or proposed prices, and read the lesson off."""
        prices = self.prices(drawn, network)
        rolled = roll_out(drawn.stretch, self.policy, prices)
        parts = (drawn.stretch, drawn.readers)
        return make_example(rolled, *parts, prices, self.shape, self.weeks, self.origins, self.settings.spacing)

    def prices(self, drawn: SampledEpisode, network: MapNetwork | None) -> Float[Array, "week resource"]:
        """Return prices announced for all weeks, half of them proposed by the source where there is one."""
        proposed = None
        if self.source is not None and network is not None and drawn.random.random() < 0.5:
            proposed = self.source.propose(drawn, self.policy, network, self.scaling)
        weeks = self.settings.weeks
        among = DRAWN[self.settings.prices]
        found = drawn_prices(drawn.random, drawn.stretch, weeks, among) if proposed is None else proposed
        return jnp.asarray(found, jnp.float32)

    def identity(self) -> Mapping[str, Any]:
        """Return what the episodes follow from, the policy and the source of prices."""
        source = "none" if self.source is None else self.source.identity()
        return {**self.episodes.identity(), "policy": repr(self.policy), "prices": source}

    def begin(self, seed: int) -> TrainState:
        """Draw a network."""
        network = MapNetwork.draw(self.shape, seed)
        return TrainState(network, network, self.optimizer.init(eqx.filter(network, eqx.is_inexact_array)))

    def step(self, carry: TrainState, number: int) -> tuple[TrainState, Mapping[str, Any]]:
        """Draw some rollouts and go a step down each: some rounds for the totals' part, then for all.

        How totals move is most of what there is to learn, and learning it costs a tenth of what reading agents does.
        """
        settings, metrics = self.settings, []
        first = (number - 1) * settings.rollouts
        drawn = [self.lesson(self.episodes.draw(first + index), carry.average) for index in range(settings.rollouts)]
        fixed = (self.scaling, int(settings.spacing), jnp.float32(settings.averaged), self.optimizer)
        if not self.shape.kind.by_agent:
            for _ in range(settings.rounds):
                for lesson in drawn:
                    carry, _ = _updated(carry, without_agents(lesson), *fixed)
        for lesson in drawn:
            carry, seen = _updated(carry, lesson, *fixed)
            metrics.append(seen)
        return carry, {name: sum(each[name] for each in metrics) / len(metrics) for name in metrics[0]}

    def assess(self, carry: TrainState) -> Mapping[str, Any]:
        """Return the mean forecast error over held-out rollouts."""
        errors = [
            float(forecast_error(carry.average, self.scaling, each, self.settings.spacing)) for each in self.judging
        ]
        return {"held_out_error": float(np.mean(errors))}

    def parameters(self, carry: TrainState) -> MapNetwork:
        """Return the averaged weights."""
        return carry.average

    def measured(self, network: MapNetwork) -> dict[str, Any]:
        """Return what held-out rollouts say of a map: the root mean square of its relative error by coming week."""
        squares = [_relative_errors(network, self.scaling, each, self.settings.spacing) ** 2 for each in self.judging]
        by_week = np.sqrt(np.mean(np.concatenate(squares), axis=0))
        return {"relative_error": by_week.astype(float).round(5).tolist()}
