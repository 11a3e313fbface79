"""Training of dual maps: backpropagation through the closed coordination loop."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from walras.errors import SettingsError
from walras.maps.agent_layout import CohortIndex
from walras.maps.closed_loop import CapacityTarget, ClosedLoopResult, DualMap, run_closed_loop
from walras.maps.features import HORIZON, FeatureScaling, MapInputs, units_of
from walras.maps.network import MapNetwork
from walras.maps.rollout import PopulationWindow, inputs_of
from walras.policies.base import Policy
from walras.simulation.record import Record
from walras.simulation.run import simulate, week_of
from walras.simulation.week import State
from walras.train.loop import TrainState, apply_gradients
from walras.train.map_task import (
    EXAMPLES,
    FIRST_EXAMPLE,
    MapEpisodes,
    MapTask,
    SampledEpisode,
    free_and_capacity,
    rolled_free,
)
from walras.train.settings import MapTraining

VALIDATION = 4  # validation episodes
ORIGINS = 2  # weeks of an episode from which the consistency of issued prices is measured


class DualExample(eqx.Module):
    """An episode that a dual map learns from."""

    window: PopulationWindow  # agents that are coordinated
    cohort: CohortIndex  # agents whose histories are read
    plan: CapacityTarget  # capacity to keep to
    origins: Int[Array, " origin"]  # weeks after the first whose issued prices are compared with those that followed


class Weights(eqx.Module):
    """Weights of the terms of the loss (spec eq. 10)."""

    violation: float = eqx.field(static=True)  # this, price and consistency: 100, 1 and 100 in the published training
    price: float = eqx.field(static=True)
    consistency: float = eqx.field(static=True)
    slackness: float = eqx.field(static=True)  # not published: without it the loss is lowest at too high prices
    burn_in: int = eqx.field(static=True)  # first coordinated weeks whose violation and prices do not count

    @staticmethod
    def of(settings: MapTraining) -> "Weights":
        """Read them off settings."""
        terms = (settings.violation_weight, settings.price_weight, settings.consistency_weight)
        return Weights(*terms, settings.slackness_weight, settings.burn_in)


def episode_terms(
    example: DualExample, policy: Policy, dual: DualMap, burn_in: int
) -> tuple[dict[str, Float[Array, ""]], ClosedLoopResult]:
    """Return violation, price, slackness and forecast consistency of an episode, unweighted, and its closed loop.

    Violation is mean `max(U - K, 0) / K`, price mean lambda in median margins, slackness mean `lambda (K - U)^+ / K`,
    all after the burn-in; consistency is the mean squared difference, relative to S(P), between use under the prices
    issued at an origin, kept to the end, and use as prices were re-issued, which has no derivative (spec eq. 10).
    """
    loop = run_closed_loop(example.window, example.cohort, policy, example.plan, dual)
    limit = example.plan.capacity[example.plan.first :]
    over = jnp.maximum(loop.utilization - limit, 0.0) / limit
    left = (jnp.maximum(limit - loop.utilization, 0.0) / limit)[burn_in:]
    charged = (loop.charged / units_of(example.window.population).price[None, :])[burn_in:]
    gaps = [_consistency_gap(example, policy, loop, origin) for origin in example.origins]
    terms = {
        "violation": over[burn_in:].mean(),
        "price": charged.mean(),
        "slackness": (charged * left).mean(),
        "consistency": sum(gaps, start=jnp.zeros(())) / max(len(gaps), 1),
    }
    return terms, loop


def _consistency_gap(example: DualExample, policy: Policy, loop: ClosedLoopResult, origin: Array) -> Float[Array, ""]:
    """Simulate from an origin under the prices issued in it, and compare use with that of the loop."""
    window, first = example.window, example.plan.first
    state: State = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf[origin]), loop.states)
    prices = jnp.concatenate([loop.charged[origin][None], loop.issued[origin]])
    fixed = simulate(
        window.population,
        week_of(window.exogenous, first + origin, HORIZON + 1),
        policy,
        initial=state,
        shadow_prices=prices,
        record=Record.use_and_reward(),
        throw=False,
    )
    reissued = jax.lax.stop_gradient(jax.lax.dynamic_slice_in_dim(loop.utilization, origin, HORIZON + 1))
    difference = (fixed.totals.utilization - reissued) / units_of(window.population).use[None, :]
    return (difference[1:] ** 2).mean()


def dual_loss(
    network: MapNetwork, scaling: FeatureScaling, example: DualExample, policy: Policy, weights: Weights
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Return the weighted sum of the terms, and the terms."""
    terms, _ = episode_terms(example, policy, DualMap(network, scaling), weights.burn_in)
    loss = weights.violation * terms["violation"] + weights.price * terms["price"]
    return loss + weights.slackness * terms["slackness"] + weights.consistency * terms["consistency"], terms


_apply_gradients = eqx.filter_jit(apply_gradients)
_loss = eqx.filter_jit(dual_loss)
_loss_and_gradient = eqx.filter_jit(eqx.filter_value_and_grad(dual_loss, has_aux=True))


def check_dual(settings: MapTraining) -> None:
    """Raise a `SettingsError` for a representation or lengths that a dual map cannot have."""
    if settings.representation == "bottom-up":
        raise SettingsError(
            "`representation` is bottom-up but its outputs are sums over agents and prices are not; train a dual "
            "map with bucketized, per-agent, global, deep-sets or moments"
        )
    if "prices" in settings.masked_features:
        raise SettingsError(
            "`masked_features` has prices but a dual map is what issues them; mask only `economics`, or nothing"
        )
    coordinated = settings.weeks - settings.first_origin
    if coordinated < HORIZON + 2:
        raise SettingsError(
            f"`weeks` is {settings.weeks} and `first_origin` {settings.first_origin}, which leaves {coordinated} weeks "
            f"to coordinate, but {HORIZON + 2} are needed to compare issued prices with later ones; raise `weeks` or "
            "lower `first_origin`"
        )
    if settings.burn_in >= coordinated:
        raise SettingsError(
            f"`burn_in` is {settings.burn_in} of {coordinated} coordinated weeks, which leaves none that count; lower "
            "it, 6 is usual"
        )


class DualTask(MapTask):
    """Train a dual map in closed loop on drawn populations and capacities."""

    kind, monitor = "dual map", "held_out_loss"

    def __init__(self, settings: MapTraining, episodes: MapEpisodes, policy: Policy) -> None:
        check_dual(settings)
        super().__init__(settings, episodes, policy)
        self.weights = Weights.of(settings)
        drawn = (episodes.draw(FIRST_EXAMPLE + number) for number in range(EXAMPLES))
        inputs = [self._unpriced_inputs(episode) for episode in drawn]
        self.scaling = FeatureScaling.fit(inputs, settings.masked_features)
        self.validation = [self.example(episode) for episode in episodes.validation(VALIDATION)]

    def _unpriced_inputs(self, episode: SampledEpisode) -> MapInputs:
        rolled, weeks = rolled_free(episode, self.policy), self.settings.weeks
        origins, reads = weeks - self.settings.first_origin, self.shape.kind.reads_agents
        return inputs_of(rolled, episode.window, episode.cohort, weeks, origins, reads_agents=reads)

    def example(self, episode: SampledEpisode) -> DualExample:
        """Draw a capacity path at the scale of the population's own use, and origins."""
        first = self.settings.first_origin
        _, capacity = free_and_capacity(episode, self.policy, first)
        last = self.settings.weeks - first - HORIZON - 1
        origins = episode.random.integers(0, last + 1, ORIGINS)
        plan = CapacityTarget(jnp.asarray(capacity, jnp.float32), first)
        return DualExample(episode.window, episode.cohort, plan, jnp.asarray(origins, jnp.int32))

    def step(self, state: TrainState, number: int) -> tuple[TrainState, Mapping[str, Any]]:
        """Draw an episode and make one update."""
        example = self.example(self.episodes.draw(number))
        parts = (self.scaling, example, self.policy, self.weights)
        (loss, terms), gradient = _loss_and_gradient(state.network, *parts)
        norm = optax.tree_utils.tree_norm(gradient)
        state = _apply_gradients(state, gradient, jnp.float32(self.settings.averaged), self.optimizer)
        return state, {"loss": loss, **terms, "gradient_norm": norm}

    def validate(self, state: TrainState) -> Mapping[str, Any]:
        """Return the mean loss and terms over the validation episodes."""
        loss, terms = self._validation_means(state.average)
        return {"held_out_loss": loss, **{f"held_out_{name}": value for name, value in terms.items()}}

    def diagnostics(self, network: MapNetwork) -> dict[str, Any]:
        """Return the mean terms of the loss over the validation episodes."""
        return {"terms": self._validation_means(network)[1]}

    def _validation_means(self, network: MapNetwork) -> tuple[float, dict[str, float]]:
        losses = [_loss(network, self.scaling, example, self.policy, self.weights) for example in self.validation]
        terms = {name: float(np.mean([terms[name] for _, terms in losses])) for name in losses[0][1]}
        return float(np.mean([loss for loss, _ in losses])), terms
