"""Training of the neural buyer by backpropagation through the simulator, and the file of a trained buyer."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.resources import files
from importlib.resources.abc import Traversable
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
from walras.data.array_file import Stored, flatten, read_arrays, restore, write_arrays
from walras.data.panel import Panel
from walras.data.write import write_text
from walras.distribute.threads import cores, run_parallel, single_core_options
from walras.errors import InputError, quote
from walras.policies.base import AbstractWrapper, Observation, Policy
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.buyer import Buyer, BuyerNetwork, BuyerShape
from walras.population.agent_axis import Broadcast
from walras.population.generate import generate_panel
from walras.progress import Progress
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.setup import slice_agents
from walras.simulation.week import State
from walras.train.buyer_episodes import Episode, EpisodeSource, HistoryEpisodes
from walras.train.history import FEWEST_WEEKS, FIRST_FORECAST, train_test_split
from walras.train.loop import TrainingTask, TrainResult, TrainState, apply_gradients, clipped_adam, train
from walras.train.settings import BuyerTraining

PARTS = 2  # of an episode's agents, differentiated in parallel; bits do not depend on the number of cores
LAST_RATE = 0.02  # share of the first step size at the end of the half cosine
AVERAGED = 0.995  # share of the weights' running average that a step keeps: single steps are noisy
KIND, VERSION = "buyer", 1  # kind of a buyer's file, and the version of the network's inputs and their order
SHIPPED = "buyer.walras"  # file of the buyer that comes with the package
BUYER, GRADIENTS = "buyer.walras", "gradient_by_week.csv"  # files that a training of a buyer adds to its folder
GENERATED_AGENTS, GENERATED_WEEKS = 4000, 130  # size of the population that is generated where no table is given
RESOURCES = ("inbound_units", "storage")  # priced in training: one used on arrival and one by stock
SHORTEST_PART = 4  # the held-out weeks are at most the table's divided by this


class Learner(AbstractWrapper):
    """Wrap a policy for training: orders can be nudged, and those of some weeks have no derivative."""

    policy: Policy  # that decides
    # added to every order [units], to differentiate the loss in the orders themselves; None for nothing
    nudge: Float[Array, "week agent"] | None
    learns: Broadcast  # weeks whose orders have a derivative

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

    Discounted reward minus priced use, `sum_t w_t (r_t - lambda_t . u_t)`, plus the worth of what is
    added to stock and open orders. Weeks of weight 0 are simulated without being learned from.

    `free_weeks` counts the last weeks whose orders have no derivative; `nudge` is added to orders [units].
    """
    weeks = episode.exogenous.n_weeks
    # Orders before the weeks that count would be stock without a price.
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
    totals, traces = rollout.totals, rollout.agents
    assert traces is not None  # recorded
    earned = totals.reward - (episode.shadow_prices * totals.utilization).sum(-1)
    before = jnp.where(episode.week_weight > 0, 0.0, 1.0)[:, None]
    start = _units(episode.initial) + jax.lax.stop_gradient(before * (traces.orders - traces.sales)).sum(0)
    left = worth(episode, _units(rollout.final)) - worth(episode, start)
    money = (episode.week_weight * earned).sum() + episode.week_weight[-1] * left
    return -money / (episode.stake * episode.week_weight.sum())


def worth(episode: Episode, units: Float[Array, " agent"]) -> Float[Array, ""]:
    """Return the worth of stock and open orders: unit cost less the holding cost until they are sold [money].

    Valued at unit cost alone, stock at the end would be as good as sold, and buyers would learn to fill the shelves.
    Sold at the mean rate of demand m, a stock of x waits x / 2m weeks on average; its worth is never negative.
    """
    population = episode.population
    waits = population.holding_cost * units / (2.0 * population.demand_scale)
    return (population.weight * units * positive_part(episode.exogenous.unit_cost[-1] - waits)).sum()


def _units(state: State) -> Float[Array, " agent"]:
    return positive_part(state.stock_end + state.pipeline.sum(0))


class BuyerTask(TrainingTask):
    """Train the network of a buyer."""

    kind = "buyer"

    def __init__(
        self, settings: BuyerTraining, episodes: EpisodeSource, shape: BuyerShape, base: PricedNewsvendor
    ) -> None:
        self.settings, self.episodes, self.shape, self.base = settings, episodes, shape, base
        self.optimizer = clipped_adam(settings.learning_rate, settings.steps, LAST_RATE, settings.clip_norm)
        self._validation = episodes.validation()

    def identity(self) -> Mapping[str, Any]:
        """Return the shape of the network and what the episodes depend on."""
        return {"shape": repr(self.shape), "base": repr(self.base), **self.episodes.identity()}

    def buyer(self, state: TrainState) -> Buyer:
        """Return the buyer with the averaged weights of a state."""
        return Buyer(Broadcast(state.average), self.shape, self.base)

    def begin(self, seed: int) -> TrainState:
        """Draw a network that adds next to nothing to the closed-form policy."""
        return TrainState.of(BuyerNetwork.draw(self.shape, seed), self.optimizer)

    def step(self, state: TrainState, number: int) -> tuple[TrainState, Mapping[str, Any]]:
        """Draw an episode and make one update."""
        episode = self.episodes.draw(self.settings.seed, number)
        return _update(state, self.gradients(state, episode), self.optimizer)

    def gradients(self, state: TrainState, episode: Episode) -> list[tuple[Array, BuyerNetwork]]:
        """Return loss and gradient in the weights of each part of an episode."""
        options = (self.shape, self.base, self.episodes.backlog, self.episodes.free_weeks)
        calls = [partial(_loss_and_gradient(), state.network, part, *options) for part in parts_of(episode)]
        return run_parallel(calls, min(cores(), PARTS))

    def validate(self, state: TrainState) -> Mapping[str, Any]:
        """Return the loss of each validation episode, and their mean."""
        backlog, buyer = self.episodes.backlog, self.buyer(state)
        losses = [float(_loss(buyer, episode, backlog)) for episode in self._validation]
        single = {f"held_out_{index}": loss for index, loss in enumerate(losses)} if len(losses) > 1 else {}
        return {"held_out_loss": float(np.mean(losses)), **single}

    def parameters(self, state: TrainState) -> BuyerNetwork:
        """Return the averaged weights."""
        return state.average


def parts_of(episode: Episode) -> list[Episode]:
    """Split an episode's agents into parts that are differentiated in parallel."""
    count = episode.population.n_agents
    edges = [count * part // PARTS for part in range(PARTS + 1)]
    parts = []
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        cut = slice_agents((episode.exogenous, episode.initial, episode.profile), first, last - first, count)
        exogenous, initial, profile = cut
        population = jax.tree.map(lambda leaf, a=first, b=last: leaf[a:b], episode.population)
        part = replace(episode, population=population, exogenous=exogenous, initial=initial, profile=profile)
        parts.append(part)
    return parts


@cache
def _loss_and_gradient() -> Any:
    """Compile loss and gradient of a part for one core, since parts run in parallel threads."""
    return eqx.filter_jit(_part_gradient, **(single_core_options() if jax.default_backend() == "cpu" else {}))


def _part_gradient(
    network: BuyerNetwork, episode: Episode, shape: BuyerShape, base: PricedNewsvendor, backlog: bool, free_weeks: int
) -> tuple[Array, BuyerNetwork]:
    def loss(network: BuyerNetwork) -> Array:
        buyer = Buyer(Broadcast(network), shape, base, episode.profile)
        return episode_loss(buyer, episode, backlog=backlog, free_weeks=free_weeks)

    return eqx.filter_value_and_grad(loss)(network)


@eqx.filter_jit
def _update(
    state: TrainState, parts: list[tuple[Array, BuyerNetwork]], optimizer: optax.GradientTransformation
) -> tuple[TrainState, dict[str, Array]]:
    """Sum the gradients of the parts and make one update."""
    loss, gradient = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    metrics = {"loss": loss, "gradient_norm": optax.global_norm(gradient)}
    return apply_gradients(state, gradient, AVERAGED, optimizer), metrics


@eqx.filter_jit
def _loss(buyer: Buyer, episode: Episode, backlog: bool) -> Float[Array, ""]:
    return episode_loss(buyer.with_profile(episode.profile), episode, backlog=backlog)


@eqx.filter_jit
def gradient_by_week(
    buyer: Buyer, episode: Episode, backlog: bool = False, free_weeks: int = 0
) -> Float[Array, " week"]:
    """Return the norm over agents of the loss's derivative in the orders of each week.

    If it grows or vanishes towards the first weeks, gradients through the simulator explode or vanish; that it falls in
    the last weeks is due to the end of the episode. Weeks that are not learned from have norm 0.
    """
    nudge = jnp.zeros((episode.exogenous.n_weeks, episode.population.n_agents))
    buyer = buyer.with_profile(episode.profile)

    def loss(nudge: Array) -> Array:
        return episode_loss(buyer, episode, backlog=backlog, free_weeks=free_weeks, nudge=nudge)

    return jnp.sqrt((jax.grad(loss)(nudge) ** 2).sum(-1))


def train_buyer(
    panel: Panel | None,
    settings: BuyerTraining,
    folder: str | Path,
    *,
    progress: Progress | None = None,
    resume: bool = True,
    command: Sequence[str] = (),
) -> TrainResult:
    """Train a buyer on a table's history, or resume a training; `path` of the result is the buyer's file.

    A population is generated where `panel` is None; `resume` continues the folder's training.

    Raises:
        InputError: too few weeks or products; a folder of another training.
    """
    progress = Progress() if progress is None else progress
    source = "a table" if panel is not None else f"{GENERATED_AGENTS} made-up products"
    if panel is None:
        panel = generate_panel(agents=GENERATED_AGENTS, weeks=GENERATED_WEEKS, seed=settings.seed)
    split = train_test_split(panel, _history_settings(panel, settings), progress=progress)
    shape = BuyerShape(history=settings.history_channels, hidden=(settings.hidden, settings.hidden))
    base = PricedNewsvendor(discount=settings.discount)
    task = BuyerTask(settings, HistoryEpisodes(split, settings), shape, base)
    progress.stage("Training the buyer")
    result = train(task, settings, folder, progress=progress, resume=resume, command=command)
    buyer = Buyer(Broadcast(result.parameters), shape, base)
    facts = {
        "trained_on": source,
        "products": split.n_agents,
        "weeks": len(split.training.weeks),
        "steps": result.step,
        "held_out_loss": result.best_value,
        "settings": settings.model_dump(),
    }
    save_buyer(Path(folder) / BUYER, buyer, facts)
    _write_gradients(task, buyer, Path(folder) / GRADIENTS)
    return replace(result, path=Path(folder) / BUYER)


def _history_settings(panel: Panel, settings: BuyerTraining) -> HistorySettings:
    spare = panel.n_weeks - FIRST_FORECAST - FEWEST_WEEKS
    weeks = max(min(settings.held_out_weeks, panel.n_weeks // SHORTEST_PART, spare), 1)
    return HistorySettings(holdout=weeks, draws=1, resources=RESOURCES, seed=settings.seed)


def _write_gradients(task: BuyerTask, buyer: Buyer, path: Path) -> None:
    """Write the norm of the loss's derivative in each week's orders, before training and after."""
    episode = task.episodes.draw(task.settings.seed, 0)
    untrained = task.buyer(task.begin(task.settings.seed))
    norms = (np.asarray(gradient_by_week(policy, episode)) for policy in (untrained, buyer))
    lines = [f"{week},{before:.6g},{after:.6g}" for week, (before, after) in enumerate(zip(*norms, strict=True))]
    write_text(path, "\n".join(["week,before_training,after_training", *lines]) + "\n")


@dataclass(frozen=True, eq=False)
class TrainedBuyer:
    """A buyer, facts on its training (settings, steps, data, validation loss), and the name of its file."""

    buyer: Buyer
    facts: Mapping[str, Any]
    source: str


def save_buyer(path: str | Path, buyer: Buyer, facts: Mapping[str, Any]) -> None:
    """Write a buyer to a file; the folder must exist."""
    shape = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(buyer.shape).items()}
    header = {"version": VERSION, "shape": shape, "discount": buyer.base.discount, "facts": dict(facts)}
    write_arrays(path, KIND, flatten(buyer.network.value), header)


def load_buyer(path: str | Path | Traversable | None = None) -> TrainedBuyer:
    """Read a buyer; no code is run, and every byte is checked.

    A damaged file, another kind of file, or one of another version is refused.
    """
    stored = read_arrays(files("walras.policies") / SHIPPED if path is None else path, KIND)
    shape, discount = _stored_shape(stored)
    network = restore(jax.eval_shape(lambda: BuyerNetwork.draw(shape, 0)), stored)
    buyer = Buyer(Broadcast(network), shape, PricedNewsvendor(discount=discount))
    return TrainedBuyer(buyer, stored.header.get("facts", {}), stored.source)


def _stored_shape(stored: Stored) -> tuple[BuyerShape, float]:
    version = stored.header.get("version")
    if version != VERSION:
        raise InputError(
            f"{stored.source} holds a buyer of version {quote(version)} but this walras reads version {VERSION}; "
            "train it again"
        )
    try:
        shape = dict(stored.header["shape"]).items()
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in shape}
        return BuyerShape(**fields), float(stored.header["discount"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{stored.source} does not say what shape its buyer has; train it again") from None
