"""Own the training of dual maps: direct backprop through the closed coordination loop.

FREE: internals; the loop itself is `maps.closed_loop`.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from walras.errors import SettingsError
from walras.maps.closed_loop import CapacityTarget, ClosedLoopResult, DualMap, run_closed_loop
from walras.maps.features import HORIZON, Scaling, units_of
from walras.maps.network import MapNetwork
from walras.maps.pooling import CohortIndex
from walras.maps.rollout import PopulationWindow, inputs_of, roll_out
from walras.policies.base import Policy
from walras.simulation.record import Record
from walras.simulation.run import simulate, week_of
from walras.simulation.state import State
from walras.train.loop.train import TrainingTask
from walras.train.map_task import MapEpisodes, SampledEpisode, drawn_capacity
from walras.train.primal_task import FIRST_EXAMPLE, TrainState, apply_gradients, network_config, optimizer_of
from walras.train.settings import MapTraining

EXAMPLES = 12
"""Rollouts without prices over which features are measured once."""

JUDGING = 4
"""Held-out episodes."""

ORIGINS = 2
"""Weeks of an episode from which it is looked how well plans were kept."""


class DualExample(eqx.Module):
    """Hold an episode that a dual map learns from.

    Attributes:
        stretch, readers: who is coordinated, and whose histories are read.
        plan: what is to be kept to.
        origins: weeks after the first whose issued plans are compared with what came about.
    """

    stretch: PopulationWindow
    readers: CohortIndex
    plan: CapacityTarget
    origins: Int[Array, " origin"]


class Weights(eqx.Module):
    """Hold the weights of the terms of the loss (spec eq. 10).

    Attributes:
        violation, price, consistency: 100, 1 and 100 in the published training.
        slackness: ours, 0 in the published training, which is won by prices that are too high in weeks with room.
        burn_in: first coordinated weeks whose violation and prices do not count.
    """

    violation: float = eqx.field(static=True)
    price: float = eqx.field(static=True)
    consistency: float = eqx.field(static=True)
    slackness: float = eqx.field(static=True)
    burn_in: int = eqx.field(static=True)

    @staticmethod
    def of(settings: MapTraining) -> "Weights":
        """Read them off settings."""
        return Weights(
            settings.violation_weight,
            settings.price_weight,
            settings.consistency_weight,
            settings.slackness_weight,
            settings.burn_in,
        )


def episode_terms(
    lesson: DualExample, policy: Policy, dual: DualMap, burn_in: int
) -> tuple[dict[str, Float[Array, ""]], ClosedLoopResult]:
    """Return violation, price, slackness and forecast consistency of an episode, unweighted, and what happened in it.

    Violation is mean `max(U - K, 0) / K`, price mean lambda in median margins, slackness mean `lambda (K - U)^+ / K`,
    all after the burn-in; consistency is the mean squared difference, relative to S(P), between use under the plan
    issued at an origin, kept to the end, and use that came about as prices were re-issued, which counts as given (spec
    eq. 10).

    Args:
        lesson: the episode.
        policy: what agents follow.
        dual: the map.
        burn_in: first coordinated weeks that do not count.
    """
    done = run_closed_loop(lesson.stretch, lesson.readers, policy, lesson.plan, dual)
    limit = lesson.plan.capacity[lesson.plan.first :]
    over = jnp.maximum(done.utilization - limit, 0.0) / limit
    left = (jnp.maximum(limit - done.utilization, 0.0) / limit)[burn_in:]
    charged = (done.charged / units_of(lesson.stretch.population).price[None, :])[burn_in:]
    gaps = [_plan_not_kept(lesson, policy, done, origin) for origin in lesson.origins]
    terms = {
        "violation": over[burn_in:].mean(),
        "price": charged.mean(),
        "slackness": (charged * left).mean(),
        "consistency": sum(gaps, start=jnp.zeros(())) / max(len(gaps), 1),
    }
    return terms, done


def _plan_not_kept(lesson: DualExample, policy: Policy, done: ClosedLoopResult, origin: Array) -> Float[Array, ""]:
    """Roll on from an origin under the plan issued in it, and compare with what came about."""
    stretch, first = lesson.stretch, lesson.plan.first
    state: State = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf[origin]), done.states)
    prices = jnp.concatenate([done.charged[origin][None], done.issued[origin]])
    kept = simulate(
        stretch.population,
        week_of(stretch.exogenous, first + origin, HORIZON + 1),
        policy,
        initial=state,
        shadow_prices=prices,
        record=Record.use_and_reward(),
        throw=False,
    )
    came = jax.lax.dynamic_slice_in_dim(done.utilization, origin, HORIZON + 1)
    difference = (kept.totals.utilization - jax.lax.stop_gradient(came)) / units_of(stretch.population).use[None, :]
    return (difference[1:] ** 2).mean()


def episode_loss(
    network: MapNetwork, scaling: Scaling, lesson: DualExample, policy: Policy, weights: Weights
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Return the weighted sum of the terms, and the terms."""
    terms, _ = episode_terms(lesson, policy, DualMap(network, scaling), weights.burn_in)
    loss = (
        weights.violation * terms["violation"]
        + weights.price * terms["price"]
        + weights.slackness * terms["slackness"]
        + weights.consistency * terms["consistency"]
    )
    return loss, terms


_stepped = eqx.filter_jit(apply_gradients)


@eqx.filter_jit
def _slope(network: MapNetwork, scaling: Scaling, lesson: DualExample, policy: Policy, weights: Weights) -> Any:
    return eqx.filter_value_and_grad(episode_loss, has_aux=True)(network, scaling, lesson, policy, weights)


@eqx.filter_jit
def _judged(network: MapNetwork, scaling: Scaling, lesson: DualExample, policy: Policy, weights: Weights) -> Any:
    return episode_loss(network, scaling, lesson, policy, weights)


def check_dual(settings: MapTraining) -> None:
    """Refuse a representation or lengths that a dual map cannot have.

    Raises:
        SettingsError: which, and what can be chosen.
    """
    if settings.representation == "bottom-up":
        raise SettingsError(
            "`representation` is bottom-up but its answers are sums over agents and prices are not; train a dual "
            "map with bucketized, per-agent, global, deep-sets or moments"
        )
    if "prices" in settings.blind:
        raise SettingsError(
            "`blind` is prices but a dual map is what issues them; leave only what agents earn out (`economics`), or "
            "nothing"
        )
    coordinated = settings.weeks - settings.first_origin
    if coordinated < HORIZON + 2:
        raise SettingsError(
            f"`weeks` is {settings.weeks} and `first_origin` {settings.first_origin}, which leaves {coordinated} weeks "
            f"to coordinate, but {HORIZON + 2} are needed to see whether plans are kept; raise the one or lower the "
            "other"
        )
    if settings.burn_in >= coordinated:
        raise SettingsError(
            f"`burn_in` is {settings.burn_in} of {coordinated} coordinated weeks, which leaves none that count; lower "
            "it, 6 is usual"
        )


class DualTask(TrainingTask):
    """Train a dual map in closed loop on drawn populations and capacities."""

    kind, watched = "dual map", "held_out_loss"

    def __init__(self, settings: MapTraining, episodes: MapEpisodes, policy: Policy) -> None:
        """Keep what is trained on, and measure features once.

        Args:
            settings: sizes, steps, weights of the loss.
            episodes: populations and weeks.
            policy: what agents follow; it has to be differentiable in the prices.

        Raises:
            SettingsError: a representation or lengths that a dual map cannot have.
        """
        check_dual(settings)
        self.settings, self.episodes, self.policy = settings, episodes, policy
        self.shape, self.optimizer, self.weights = (
            network_config(settings),
            optimizer_of(settings),
            Weights.of(settings),
        )
        examples = []
        for number in range(EXAMPLES):
            drawn = episodes.draw(FIRST_EXAMPLE + number)
            rolled = roll_out(drawn.stretch, policy, jnp.zeros((settings.weeks, len(settings.resources))))
            origins = settings.weeks - settings.first_origin
            examples.append(
                inputs_of(
                    rolled,
                    drawn.stretch,
                    drawn.readers,
                    settings.weeks,
                    origins,
                    reads_agents=self.shape.kind.reads_agents,
                )
            )
        self.scaling = Scaling.fit(examples, settings.blind)
        self.judging = [self.lesson(drawn) for drawn in episodes.held_out(JUDGING)]

    def lesson(self, drawn: SampledEpisode) -> DualExample:
        """Draw a capacity path at the scale of the population's own use, and origins."""
        settings = self.settings
        free = roll_out(drawn.stretch, self.policy, jnp.zeros((settings.weeks, len(settings.resources))))
        first = settings.first_origin
        capacity = drawn_capacity(drawn.random, np.asarray(free.utilization, float), first)
        last = settings.weeks - first - HORIZON - 1
        origins = drawn.random.integers(0, last + 1, ORIGINS)
        plan = CapacityTarget(jnp.asarray(capacity, jnp.float32), first)
        return DualExample(drawn.stretch, drawn.readers, plan, jnp.asarray(origins, jnp.int32))

    def identity(self) -> Mapping[str, Any]:
        """Return what the episodes follow from, and the policy."""
        return {**self.episodes.identity(), "policy": repr(self.policy)}

    def begin(self, seed: int) -> TrainState:
        """Draw a network."""
        network = MapNetwork.draw(self.shape, seed)
        return TrainState(network, network, self.optimizer.init(eqx.filter(network, eqx.is_inexact_array)))

    def step(self, carry: TrainState, number: int) -> tuple[TrainState, Mapping[str, Any]]:
        """Draw an episode and go one step down."""
        lesson = self.lesson(self.episodes.draw(number))
        (loss, terms), slope = _slope(carry.network, self.scaling, lesson, self.policy, self.weights)
        norm = optax.tree_utils.tree_norm(slope)
        after = _stepped(carry, slope, jnp.float32(self.settings.averaged), self.optimizer)
        return after, {"loss": loss, **terms, "gradient_norm": norm}

    def assess(self, carry: TrainState) -> Mapping[str, Any]:
        """Return the mean loss and terms over held-out episodes."""
        judged = [_judged(carry.average, self.scaling, each, self.policy, self.weights) for each in self.judging]
        terms = {f"held_out_{name}": float(np.mean([t[name] for _, t in judged])) for name in judged[0][1]}
        return {"held_out_loss": float(np.mean([loss for loss, _ in judged])), **terms}

    def parameters(self, carry: TrainState) -> MapNetwork:
        """Return the averaged weights."""
        return carry.average

    def measured(self, network: MapNetwork) -> dict[str, Any]:
        """Return the terms of the loss over held-out episodes."""
        judged = [_judged(network, self.scaling, each, self.policy, self.weights)[1] for each in self.judging]
        return {"terms": {name: float(np.mean([terms[name] for terms in judged])) for name in judged[0]}}
