"""Own the training of the neural buyer by direct backprop through the simulator.

FREE: internals; what is stored of a buyer is said in `train.buyer_file`.
"""

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from walras.engine.lanes import cores, for_a_lane, in_lanes
from walras.model.record import Record
from walras.model.run import slicer
from walras.policies.base import AbstractPolicy, Memory, Observation, Outlook
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.buyer import Buyer, BuyerShape, Network
from walras.population.along import Shared
from walras.population.population import Population
from walras.simulate import simulate
from walras.train.episodes import AbstractEpisodes, Episode
from walras.train.loop import AbstractTask
from walras.train.settings import BuyerTraining

PARTS = 2
"""An episode is differentiated in so many parts of its agents, side by side where there are cores: the same bits
however many there are."""

LAST_RATE = 0.02
"""The step size falls along a half cosine to this share of the first."""


class Carry(eqx.Module):
    """Hold what goes from step to step."""

    network: Network
    optimizer: Any


class Learner(AbstractPolicy):
    """Let another policy learn: orders can be nudged, and the last weeks' orders are facts without derivative.

    Attributes:
        policy: who decides.
        nudge: added to every order [units], to find the loss's derivative in the orders themselves; None for nothing.
        last_week: orders from this week on have no derivative.
    """

    policy: AbstractPolicy
    nudge: Float[Array, "week agent"] | None
    last_week: int = eqx.field(static=True)

    @property
    def ahead(self) -> int:
        """Count the weeks that the policy looks ahead."""
        return self.policy.ahead

    @property
    def reads(self) -> bool:
        """Tell whether the policy reads the past."""
        return self.policy.reads

    def begin(self, population: Population) -> Memory | None:
        """Return the policy's memory."""
        return self.policy.begin(population)

    def read(self, memory: Any, outlooks: Outlook, demand: Float[Array, "week agent"]) -> tuple[Any, Any]:
        """Let the policy read."""
        return self.policy.read(memory, outlooks, demand)

    def remember(self, observation: Observation, orders: Float[Array, " agent"]) -> Any:
        """Let the policy remember."""
        return self.policy.remember(observation, orders)

    def encode(self, outlook: Outlook, shadow_prices: Float[Array, "lead resource"]) -> Any:
        """Return what the policy says beforehand."""
        return self.policy.encode(outlook, shadow_prices)

    def decide(
        self, encoded: Any, observation: Observation, shadow_prices: Float[Array, "lead resource"]
    ) -> Float[Array, " agent"]:
        """Return the policy's orders."""
        orders = self.policy.decide(encoded, observation, shadow_prices)
        orders = jnp.where(observation.week >= self.last_week, jax.lax.stop_gradient(orders), orders)
        return orders if self.nudge is None else orders + self.nudge[observation.week]

    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return what encoding and deciding in one go gives."""
        return self.decide(self.encode(observation, shadow_prices), observation, shadow_prices)


def episode_loss(
    policy: AbstractPolicy, episode: Episode, *, backlog: bool = False, free_weeks: int = 0, nudge: Array | None = None
) -> Float[Array, ""]:
    """Return minus the money earned in an episode, in units of what its agents have at stake.

    Spec section 3: discounted reward minus priced use, `sum_t w_t (r_t - lambda_t . u_t)`, plus what is left at the end
    at unit cost, minus what was there at the start.

    Args:
        policy: what agents order.
        episode: agents, paths, prices and weights.
        backlog: unmet demand waits.
        free_weeks: last weeks whose orders have no derivative.
        nudge: added to orders [units].
    """
    weeks = episode.exogenous.n_weeks
    learner = Learner(policy, nudge, weeks - free_weeks)
    rollout = simulate(
        episode.population,
        episode.exogenous,
        learner,
        initial=episode.initial,
        shadow_prices=episode.shadow_prices,
        notice=episode.notice,
        record=Record.use_and_reward(),
        backlog=backlog,
        throw=False,
    )
    totals, start = rollout.totals, episode.initial
    earned = totals.reward - (episode.shadow_prices * totals.utilization).sum(-1)
    units = episode.population.weight * (start.stock_end + start.pipeline.sum(0))
    added = rollout.end_value - (episode.exogenous.unit_cost[-1] * units).sum()
    money = (episode.week_weight * earned).sum() + episode.week_weight[-1] * added
    return -money / (episode.stake * episode.week_weight.sum())


class BuyerTask(AbstractTask):
    """Train the network of a buyer."""

    kind = "buyer"

    def __init__(
        self, settings: BuyerTraining, episodes: AbstractEpisodes, shape: BuyerShape, base: PricedNewsvendor
    ) -> None:
        """Keep what is trained on.

        Args:
            settings: step size, clipping, number of steps.
            episodes: what is trained on and judged by.
            shape: size of the network.
            base: the closed-form policy that it corrects.
        """
        self.settings, self.episodes, self.shape, self.base = settings, episodes, shape, base
        decay = optax.cosine_decay_schedule(settings.learning_rate, settings.steps, LAST_RATE)
        self.optimizer = optax.chain(optax.clip_by_global_norm(settings.clip_norm), optax.adam(decay))
        self._held_out = episodes.held_out()

    def identity(self) -> Mapping[str, Any]:
        """Return the shape of the network and what the episodes follow from."""
        return {"shape": repr(self.shape), "base": repr(self.base), **self.episodes.identity()}

    def buyer(self, carry: Carry) -> Buyer:
        """Return the buyer with the weights of a carry."""
        return Buyer(Shared(carry.network), self.shape, self.base)

    def begin(self, seed: int) -> Carry:
        """Draw a network that orders nearly what the newsvendor does."""
        network = Network.draw(self.shape, seed)
        return Carry(network, self.optimizer.init(eqx.filter(network, eqx.is_inexact_array)))

    def step(self, carry: Carry, number: int) -> tuple[Carry, Mapping[str, Any]]:
        """Draw an episode and go one step down."""
        episode = self.episodes.draw(self.settings.seed, number)
        options = (self.shape, self.base, self.episodes.backlog, self.episodes.free_weeks)
        tasks = [partial(_slope(), carry.network, part, *options) for part in parts_of(episode)]
        found = in_lanes(tasks, min(cores(), PARTS))
        return _updated(carry, found, self.optimizer)

    def assess(self, carry: Carry) -> Mapping[str, Any]:
        """Return the mean loss over the held-out episodes, and each by itself."""
        backlog, buyer = self.episodes.backlog, self.buyer(carry)
        losses = [float(_judged(buyer, episode, backlog)) for episode in self._held_out]
        each = {f"held_out_{index}": loss for index, loss in enumerate(losses)} if len(losses) > 1 else {}
        return {"held_out_loss": float(np.mean(losses)), **each}

    def parameters(self, carry: Carry) -> Network:
        """Return the weights."""
        return carry.network


def parts_of(episode: Episode) -> list[Episode]:
    """Cut an episode's agents into parts that are differentiated side by side."""
    count = episode.population.n_agents
    edges = [count * part // PARTS for part in range(PARTS + 1)]
    cut = []
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        take = slicer(first, last - first, count)
        people = jax.tree.map(lambda leaf, a=first, b=last: leaf[a:b], episode.population)
        cut.append(
            Episode(
                people,
                take(episode.exogenous),
                take(episode.initial),
                episode.shadow_prices,
                episode.notice,
                episode.week_weight,
                episode.stake,
            )
        )
    return cut


@cache
def _slope() -> Any:
    """Compile the derivative of a part's loss in the weights, for a lane of its own on a processor."""
    return eqx.filter_jit(_part_slope, **(for_a_lane() if jax.default_backend() == "cpu" else {}))


def _part_slope(
    network: Network, episode: Episode, shape: BuyerShape, base: PricedNewsvendor, backlog: bool, free_weeks: int
) -> tuple[Array, Network]:
    def loss(network: Network) -> Array:
        return episode_loss(Buyer(Shared(network), shape, base), episode, backlog=backlog, free_weeks=free_weeks)

    return eqx.filter_value_and_grad(loss)(network)


@eqx.filter_jit
def _updated(
    carry: Carry, found: list[tuple[Array, Network]], optimizer: optax.GradientTransformation
) -> tuple[Carry, dict[str, Array]]:
    """Add up the parts and go one step down."""
    loss, slope = jax.tree.map(lambda *parts: sum(parts), *found)
    updates, state = optimizer.update(slope, carry.optimizer)
    metrics = {"loss": loss, "gradient_norm": optax.global_norm(slope)}
    return Carry(eqx.apply_updates(carry.network, updates), state), metrics


@eqx.filter_jit
def _judged(buyer: Buyer, episode: Episode, backlog: bool) -> Float[Array, ""]:
    return episode_loss(buyer, episode, backlog=backlog)


@eqx.filter_jit
def gradient_by_week(buyer: Buyer, episode: Episode, backlog: bool = False) -> Float[Array, " week"]:
    """Return the norm over agents of the loss's derivative in the orders of each week.

    A norm that grows or dies out towards the first weeks tells that the way back through the simulator explodes or
    vanishes; that it falls to nothing in the last weeks is due to the end of the episode.

    Args:
        buyer: the policy.
        episode: what it is run through.
        backlog: unmet demand waits.
    """
    nudge = jnp.zeros((episode.exogenous.n_weeks, episode.population.n_agents))
    slope = jax.grad(lambda nudge: episode_loss(buyer, episode, backlog=backlog, nudge=nudge))(nudge)
    return jnp.sqrt((slope**2).sum(-1))
