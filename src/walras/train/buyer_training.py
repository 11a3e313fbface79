"""Own the road from a table, or from made-up populations, to a trained buyer in a folder.

CONTRACT: `train_buyer` is what commands and benchmarks call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from walras.clipping import positive_part
from walras.config import HistorySettings
from walras.data.panel import Panel
from walras.data.write import write_text
from walras.distribute.threads import cores, run_parallel, single_core_options
from walras.policies.base import AbstractWrapper, Observation, Policy
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.buyer import Buyer, BuyerNetwork, BuyerShape
from walras.population.agent_axis import Broadcast
from walras.population.generate import generate_panel
from walras.progress import Progress
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.setup import slice_agents
from walras.simulation.state import State
from walras.train.buyer_episodes import Episode, EpisodeSource, HistoryEpisodes
from walras.train.buyer_file import save_buyer
from walras.train.history import FEWEST_WEEKS, FIRST_FORECAST, train_test_split
from walras.train.loop.train import TrainingTask, TrainResult, train
from walras.train.settings import BuyerTraining

PARTS = 2
"""An episode is differentiated in so many parts of its agents, side by side where there are cores: the same bits
however many there are."""

LAST_RATE = 0.02
"""The step size falls along a half cosine to this share of the first."""


AVERAGED = 0.995
"""Share of the running average of the weights that a step keeps: single steps are noisy, their average is not."""


class BuyerTrainState(eqx.Module):
    """Hold what goes from step to step: weights, their running average, and the optimizer's state."""

    network: BuyerNetwork
    average: BuyerNetwork
    optimizer: Any


class Learner(AbstractWrapper):
    """Let another policy learn: orders can be nudged, and those of some weeks are facts without derivative.

    Attributes:
        policy: who decides.
        nudge: added to every order [units], to find the loss's derivative in the orders themselves; None for nothing.
        learns: weeks whose orders have a derivative.
    """

    policy: Policy
    nudge: Float[Array, "week agent"] | None
    learns: Broadcast

    def decide(
        self, encoded: Any, observation: Observation, shadow_prices: Float[Array, "lead resource"]
    ) -> Float[Array, " agent"]:
        """Return the policy's orders."""
        orders = self.policy.decide(encoded, observation, shadow_prices)
        orders = orders if self.nudge is None else orders + self.nudge[observation.week]
        return jnp.where(self.learns.value[observation.week], orders, jax.lax.stop_gradient(orders))


def episode_loss(
    policy: Policy, episode: Episode, *, backlog: bool = False, free_weeks: int = 0, nudge: Array | None = None
) -> Float[Array, ""]:
    """Return minus the money earned in an episode, in units of what its agents have at stake.

    Spec section 3: discounted reward minus priced use, `sum_t w_t (r_t - lambda_t . u_t)`, plus what is added
    to stock and open orders (`worth`). Weeks of weight 0 are lived through without being learned from.

    Args:
        policy: what agents order.
        episode: agents, paths, prices and weights.
        backlog: unmet demand waits.
        free_weeks: last weeks whose orders have no derivative.
        nudge: added to orders [units].
    """
    weeks = episode.exogenous.n_weeks
    # What was ordered before the weeks that count would be stock without a price.
    learns = (episode.week_weight > 0) & (jnp.arange(weeks) < weeks - free_weeks)
    learner = Learner(policy, nudge, Broadcast(learns))
    rollout = simulate(
        episode.population,
        episode.exogenous,
        learner,
        initial=episode.initial,
        shadow_prices=episode.shadow_prices,
        notice=episode.notice,
        record=Record(agents=True, flows=()),
        backlog=backlog,
        throw=False,
    )
    totals, happened = rollout.totals, rollout.agents
    assert happened is not None  # traces were asked for
    earned = totals.reward - (episode.shadow_prices * totals.utilization).sum(-1)
    before = jnp.where(episode.week_weight > 0, 0.0, 1.0)[:, None]
    start = _units(episode.initial) + jax.lax.stop_gradient(before * (happened.orders - happened.sales)).sum(0)
    left = worth(episode, _units(rollout.final)) - worth(episode, start)
    money = (episode.week_weight * earned).sum() + episode.week_weight[-1] * left
    return -money / (episode.stake * episode.week_weight.sum())


def worth(episode: Episode, units: Float[Array, " agent"]) -> Float[Array, ""]:
    """Return what stock and open orders are worth: unit cost less the holding cost until they are sold [money].

    Valued at unit cost alone, stock at the end of an episode would be as good as sold, and buyers would learn to fill
    the shelves. Sold at the mean rate of demand m, a stock of x waits x / 2m weeks on average; it is never worth less
    than nothing.

    Args:
        episode: its agents, their weights and costs.
        units: stock and open orders.
    """
    people = episode.population
    waits = people.holding_cost * units / (2.0 * people.demand_scale)
    return (people.weight * units * positive_part(episode.exogenous.unit_cost[-1] - waits)).sum()


def _units(state: State) -> Float[Array, " agent"]:
    return positive_part(state.stock_end + state.pipeline.sum(0))


class BuyerTask(TrainingTask):
    """Train the network of a buyer."""

    kind = "buyer"

    def __init__(
        self, settings: BuyerTraining, episodes: EpisodeSource, shape: BuyerShape, base: PricedNewsvendor
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

    def buyer(self, carry: BuyerTrainState) -> Buyer:
        """Return the buyer with the averaged weights of a carry."""
        return Buyer(Broadcast(carry.average), self.shape, self.base)

    def begin(self, seed: int) -> BuyerTrainState:
        """Draw a network that adds next to nothing to what forecast and history say."""
        network = BuyerNetwork.draw(self.shape, seed)
        return BuyerTrainState(network, network, self.optimizer.init(eqx.filter(network, eqx.is_inexact_array)))

    def step(self, carry: BuyerTrainState, number: int) -> tuple[BuyerTrainState, Mapping[str, Any]]:
        """Draw an episode and go one step down."""
        return self.descend(carry, self.slopes(carry, self.episodes.draw(self.settings.seed, number)))

    def slopes(self, carry: BuyerTrainState, episode: Episode) -> list[tuple[Array, BuyerNetwork]]:
        """Return loss and derivative in the weights of each part of an episode."""
        options = (self.shape, self.base, self.episodes.backlog, self.episodes.free_weeks)
        tasks = [partial(_slope(), carry.network, part, *options) for part in parts_of(episode)]
        return run_parallel(tasks, min(cores(), PARTS))

    def descend(
        self, carry: BuyerTrainState, found: list[tuple[Array, BuyerNetwork]]
    ) -> tuple[BuyerTrainState, Mapping[str, Any]]:
        """Go one step down the sum of the slopes."""
        return _updated(carry, found, self.optimizer)

    def assess(self, carry: BuyerTrainState) -> Mapping[str, Any]:
        """Return the mean loss over the held-out episodes, and each by itself."""
        backlog, buyer = self.episodes.backlog, self.buyer(carry)
        losses = [float(_judged(buyer, episode, backlog)) for episode in self._held_out]
        each = {f"held_out_{index}": loss for index, loss in enumerate(losses)} if len(losses) > 1 else {}
        return {"held_out_loss": float(np.mean(losses)), **each}

    def parameters(self, carry: BuyerTrainState) -> BuyerNetwork:
        """Return the averaged weights."""
        return carry.average


def parts_of(episode: Episode) -> list[Episode]:
    """Cut an episode's agents into parts that are differentiated side by side."""
    count = episode.population.n_agents
    edges = [count * part // PARTS for part in range(PARTS + 1)]
    cut = []
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        exogenous, initial, profile = slice_agents(
            (episode.exogenous, episode.initial, episode.profile), first, last - first, count
        )
        people = jax.tree.map(lambda leaf, a=first, b=last: leaf[a:b], episode.population)
        cut.append(
            Episode(
                people,
                exogenous,
                initial,
                episode.shadow_prices,
                episode.notice,
                episode.week_weight,
                episode.stake,
                profile,
            )
        )
    return cut


@cache
def _slope() -> Any:
    """Compile the derivative of a part's loss in the weights, for a lane of its own on a processor."""
    return eqx.filter_jit(_part_slope, **(single_core_options() if jax.default_backend() == "cpu" else {}))


def _part_slope(
    network: BuyerNetwork, episode: Episode, shape: BuyerShape, base: PricedNewsvendor, backlog: bool, free_weeks: int
) -> tuple[Array, BuyerNetwork]:
    def loss(network: BuyerNetwork) -> Array:
        buyer = Buyer(Broadcast(network), shape, base, episode.profile)
        return episode_loss(buyer, episode, backlog=backlog, free_weeks=free_weeks)

    return eqx.filter_value_and_grad(loss)(network)


@eqx.filter_jit
def _updated(
    carry: BuyerTrainState, found: list[tuple[Array, BuyerNetwork]], optimizer: optax.GradientTransformation
) -> tuple[BuyerTrainState, dict[str, Array]]:
    """Add up the parts and go one step down."""
    loss, slope = jax.tree.map(lambda *parts: sum(parts), *found)
    updates, state = optimizer.update(slope, carry.optimizer)
    metrics = {"loss": loss, "gradient_norm": optax.global_norm(slope)}
    network = eqx.apply_updates(carry.network, updates)
    average = jax.tree.map(lambda kept, new: AVERAGED * kept + (1 - AVERAGED) * new, carry.average, network)
    return BuyerTrainState(network, average, state), metrics


@eqx.filter_jit
def _judged(buyer: Buyer, episode: Episode, backlog: bool) -> Float[Array, ""]:
    return episode_loss(buyer.knowing(episode.profile), episode, backlog=backlog)


@eqx.filter_jit
def gradient_by_week(
    buyer: Buyer, episode: Episode, backlog: bool = False, free_weeks: int = 0
) -> Float[Array, " week"]:
    """Return the norm over agents of the loss's derivative in the orders of each week.

    A norm that grows or dies out towards the first weeks tells that the way back through the simulator explodes or
    vanishes; that it falls to nothing in the last weeks is due to the end of the episode. Weeks that are not learned
    from have none.

    Args:
        buyer: the policy.
        episode: what it is run through.
        backlog: unmet demand waits.
        free_weeks: last weeks that are not learned from.
    """
    nudge = jnp.zeros((episode.exogenous.n_weeks, episode.population.n_agents))
    buyer = buyer.knowing(episode.profile)

    def loss(nudge: Array) -> Array:
        return episode_loss(buyer, episode, backlog=backlog, free_weeks=free_weeks, nudge=nudge)

    slope = jax.grad(loss)(nudge)
    return jnp.sqrt((slope**2).sum(-1))


BUYER, GRADIENTS = "buyer.walras", "gradient_by_week.csv"
"""Files that a training of a buyer adds to its folder."""

MADE_UP_AGENTS, MADE_UP_WEEKS = 4000, 130
"""Size of the population that is made up where no table is given."""

RESOURCES = ("inbound_units", "storage")
"""Resources priced in training: one used on arrival, one by stock, which is all that a buyer tells apart."""

SHORTEST_PART = 4
"""The held-out weeks are at most one part in so many of the table's."""


def train_buyer(
    panel: Panel | None,
    settings: BuyerTraining,
    folder: str | Path,
    *,
    progress: Progress | None = None,
    resume: bool = True,
    command: Sequence[str] = (),
) -> TrainResult:
    """Train a buyer on a table's history, or go on with a training.

    Args:
        panel: as read; a made-up population where None.
        settings: how.
        folder: for checkpoints, records, and the buyer.
        progress: told about stages and steps.
        resume: go on where the folder's training ended, or begin again.
        command: noted in the records.

    Returns:
        What came of it; `path` is the file of the buyer.

    Raises:
        InputError: too few weeks or products; a folder of another training.
    """
    progress = Progress() if progress is None else progress
    words = "a table" if panel is not None else f"{MADE_UP_AGENTS} made-up products"
    if panel is None:
        panel = generate_panel(agents=MADE_UP_AGENTS, weeks=MADE_UP_WEEKS, seed=settings.seed)
    case = train_test_split(panel, _history(panel, settings), progress=progress)
    episodes = HistoryEpisodes(case, settings)
    shape = BuyerShape(history=settings.history_channels, hidden=(settings.hidden, settings.hidden))
    task = BuyerTask(settings, episodes, shape, PricedNewsvendor(discount=settings.discount))
    progress.stage("Training the buyer")
    fitted = train(task, settings, folder, progress=progress, resume=resume, command=command)
    buyer = Buyer(Broadcast(fitted.parameters), shape, task.base)
    facts = {
        "trained_on": words,
        "products": case.n_agents,
        "weeks": len(case.training.weeks),
        "steps": fitted.step,
        "held_out_loss": fitted.best_value,
        "settings": settings.model_dump(),
    }
    path = Path(folder) / BUYER
    save_buyer(path, buyer, facts)
    _write_gradients(task, buyer, Path(folder) / GRADIENTS)
    return replace(fitted, path=path)


def _history(panel: Panel, settings: BuyerTraining) -> HistorySettings:
    spare = panel.n_weeks - FIRST_FORECAST - FEWEST_WEEKS
    weeks = max(min(settings.held_out_weeks, panel.n_weeks // SHORTEST_PART, spare), 1)
    return HistorySettings(holdout=weeks, draws=1, resources=RESOURCES, seed=settings.seed)


def _write_gradients(task: BuyerTask, buyer: Buyer, path: Path) -> None:
    """Write the norm of the loss's derivative in each week's orders, before training and after."""
    episode = task.episodes.draw(task.settings.seed, 0)
    untrained = task.buyer(task.begin(task.settings.seed))
    rows = np.stack([np.asarray(gradient_by_week(each, episode)) for each in (untrained, buyer)], axis=1)
    lines = [f"{week},{before:.6g},{after:.6g}" for week, (before, after) in enumerate(rows)]
    write_text(path, "\n".join(["week,before_training,after_training", *lines]) + "\n")
