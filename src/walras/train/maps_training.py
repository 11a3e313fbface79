"""Own the road from a table, or from made-up worlds, to a trained map in an interface's folder.

CONTRACT: `train_map` is what commands and benchmarks call; primal and dual maps of one interface share a folder.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from walras.data.panel import Panel
from walras.data.resume_log import digest
from walras.errors import InputError, SettingsError
from walras.maps.features import HORIZON
from walras.maps.file import DUAL, PRIMAL, LearnedMap, load_map, save_map
from walras.maps.interface import COVERAGE, FILES
from walras.maps.rollout import horizon_slices, inputs_of, roll_out
from walras.maps.support import TrainingSupport, save_support, summary_of
from walras.policies.base import Policy
from walras.policies.base_stock import PricedNewsvendor
from walras.progress import Progress
from walras.train.agent_pool import AgentPool, pools_from_generator
from walras.train.dual_task import DualTask, check_dual
from walras.train.history import FIRST_FORECAST
from walras.train.loop.train import TrainResult, refuse_other_settings, train
from walras.train.map_task import MapEpisodes, drawn_capacity
from walras.train.price_proposals import FIRST_PRICED, AnyOf, DualProposals, PlannerQueries, PriceProposal
from walras.train.primal_task import FIRST_EXAMPLE, PrimalTask, check_primal
from walras.train.settings import MapTraining

EXAMPLES = 64
"""Populations over which it is measured."""

_summary = eqx.filter_jit(summary_of)


def measure_support(learned: LearnedMap, task: PrimalTask, folder: Path) -> TrainingSupport:
    """Measure what was covered, and write it beside the map.

    Args:
        learned: the map.
        task: its training.
        folder: of the interface.
    """
    summaries, prices, capacities = [], [], []
    weeks, network = task.settings.weeks - HORIZON, learned.network
    for number in range(EXAMPLES):
        drawn = task.episodes.draw(FIRST_EXAMPLE + number)
        charged = task.prices(drawn, network)
        rolled = roll_out(drawn.stretch, task.policy, charged)
        reads = learned.shape.kind.reads_agents
        inputs = learned.scaling(inputs_of(rolled, drawn.stretch, drawn.readers, weeks, 1, reads_agents=reads))
        summaries.append(_summary(network, inputs))
        prices.append(np.asarray(horizon_slices(charged / rolled.units.price[None, :], weeks, 1)))
        quiet = roll_out(drawn.stretch, task.policy, jnp.zeros_like(charged))
        capacity = drawn_capacity(drawn.random, np.asarray(quiet.utilization, float), FIRST_PRICED)
        capacities.append(capacity[FIRST_PRICED:] / np.asarray(rolled.units.use, float))
    found = TrainingSupport.fit(
        summaries, prices, task.policy, n_agents=task.settings.target, capacities=capacities, kind=learned.kind
    )
    save_support(folder / COVERAGE, found)
    return found


WORLDS = "worlds"
"""Folder of the worlds that trainings were prepared with, which may be deleted: fitting forecasts takes minutes."""

MADE_FROM = ("seed", "worlds", "world_agents", "world_weeks", "refit_weeks", "held_out_weeks", "resources")
"""Settings that worlds follow from; those of other settings are other files."""

JUDGE_SHARE = 0.2
"""Share of a table's agents that only judge."""

JUDGE_SEED = 7_919
"""Added to the seed for the made-up world that judges."""


def train_map(
    kind: str,
    panel: Panel | None,
    settings: MapTraining,
    folder: str | Path,
    *,
    policy: Policy | None = None,
    progress: Progress | None = None,
    resume: bool = True,
    command: Sequence[str] = (),
) -> TrainResult:
    """Train a primal or a dual map, or go on with a training.

    Where the folder has a trained dual map, a primal one is trained under the prices that it proposes, too.

    Args:
        kind: "primal map" or "dual map".
        panel: table to train on, as read; made-up worlds where None.
        settings: how.
        folder: of the interface; the training has a folder of its own in it.
        policy: what agents follow; the priced newsvendor unless given. It has to fit any population.
        progress: told about stages and steps.
        resume: go on where the folder's training ended, or begin again.
        command: noted in the records.

    Returns:
        What came of it; `path` is the file of the map.

    Raises:
        InputError: too few weeks or products; a folder of another training.
        SettingsError: settings that do not fit together, or a dual map of another population representation.
    """
    progress, folder = progress or Progress(), Path(folder)
    _check(kind, panel, settings)
    source = None if kind == DUAL else _source(settings, folder)
    followed = PricedNewsvendor() if policy is None else policy
    training = folder / FILES[kind].removesuffix(".walras")
    if resume:
        refuse_other_settings(kind, settings, training)
    worlds, judges = _worlds(panel, settings, folder / WORLDS, resume, progress)
    progress.stage("Preparing")
    parts = (settings, MapEpisodes(worlds, settings, judges), followed)
    task = DualTask(*parts) if kind == DUAL else PrimalTask(*parts, source)
    fitted = train(task, settings, training, progress=progress, resume=resume, command=command)
    learned = _learned(task, fitted, "made-up worlds" if panel is None else "a table")
    save_map(folder / FILES[kind], learned)
    if isinstance(task, PrimalTask):
        progress.stage("Measuring what was covered")
        measure_support(learned, task, folder)
    return replace(fitted, path=folder / FILES[kind])


def train_primal(settings: MapTraining, folder: Path, worlds: Path, progress: Progress | None = None) -> LearnedMap:
    """Train a primal map by itself on made-up worlds, or read it where it is there: to compare, not to plan with.

    Nothing is measured of what it covers, and no dual map proposes prices.

    Args:
        settings: how.
        folder: of this map alone.
        worlds: folder of the worlds, which trainings of the same sizes share.
        progress: told about stages and steps.

    Raises:
        SettingsError: settings that do not fit together, or another training in the folder.
    """
    path = folder / FILES[PRIMAL]
    if path.exists():
        return load_map(path, PRIMAL)
    progress = progress or Progress()
    _check(PRIMAL, None, settings)
    learned, judges = _worlds(None, settings, worlds, True, progress)
    task = PrimalTask(settings, MapEpisodes(learned, settings, judges), PricedNewsvendor(), _source(settings, folder))
    fitted = train(task, settings, folder / path.stem, progress=progress)
    found = _learned(task, fitted, "made-up worlds")
    save_map(path, found)
    return found


def _learned(task: DualTask | PrimalTask, fitted: TrainResult, data: str) -> LearnedMap:
    """Put a map together with how it was made."""
    worlds, settings = task.episodes.worlds, task.settings
    facts = {
        "trained_on": data if data == "a table" else f"{len(worlds)} {data}",
        "products": sum(world.n_agents for world in worlds),
        "weeks": worlds[0].n_weeks,
        "steps": fitted.step,
        "best_step": fitted.best_step,
        task.watched: fitted.best_value,
        "settings": settings.model_dump(mode="json"),
        **task.measured(fitted.parameters),
    }
    parts = (task.kind, fitted.parameters, task.scaling, task.shape, task.episodes.edges)
    return LearnedMap(*parts, tuple(settings.resources), facts)


def _source(settings: MapTraining, folder: Path) -> PriceProposal | None:
    """Return what proposes prices to a primal map: its dual map, where the folder has one, and planners."""
    if settings.prices != "mixed":
        return None
    if not (folder / FILES[DUAL]).exists():
        return PlannerQueries()
    dual = load_map(folder / FILES[DUAL], DUAL)
    if dual.resources != tuple(settings.resources):
        raise SettingsError(
            f"`resources` is {', '.join(settings.resources)} but the dual map in {folder} prices "
            f"{', '.join(dual.resources)}; train both on the same, or in another folder"
        )
    return AnyOf(DualProposals(dual), PlannerQueries())


def _check(kind: str, panel: Panel | None, settings: MapTraining) -> None:
    """Refuse, before anything takes its time, what cannot be trained and lengths that do not fit into the worlds."""
    (check_dual if kind == DUAL else check_primal)(settings)
    if panel is not None:
        return
    known = settings.world_weeks - FIRST_FORECAST
    if settings.weeks > known:
        raise SettingsError(
            f"`weeks` is {settings.weeks} but made-up worlds of `world_weeks` {settings.world_weeks} have {known} that "
            "can be used; lower the one or raise the other"
        )


def _worlds(
    panel: Panel | None, settings: MapTraining, folder: Path, resume: bool, progress: Progress
) -> tuple[list[AgentPool], list[AgentPool]]:
    """Prepare the worlds that are trained on, and those that judge, or read them where an earlier start left them."""
    count = 2 if panel is not None else settings.worlds + 1
    key = digest([*(getattr(settings, name) for name in MADE_FROM), None if panel is None else panel.units])[:12]
    paths = [folder / f"{key}-{number}.walras" for number in range(count)]
    if resume and all(path.exists() for path in paths):
        worlds = [AgentPool.load(path) for path in paths]
    else:
        made = _made_up(settings, progress) if panel is None else _from_table(panel, settings, progress)
        folder.mkdir(parents=True, exist_ok=True)
        for world, path in zip(made, paths, strict=True):
            world.save(path)
        worlds = made
    return worlds[:-1], worlds[-1:]


def _made_up(settings: MapTraining, progress: Progress) -> list[AgentPool]:
    given: dict[str, Any] = {
        "resources": settings.resources,
        "refit_weeks": settings.refit_weeks,
        "known_weeks": settings.world_weeks // 2,  # agents are known by their past, as in a plan
        "progress": progress,
    }
    progress.stage("Making up worlds")
    seed, size = settings.seed, settings.world_agents
    learned = pools_from_generator(settings.worlds, size, settings.world_weeks, seed, **given)
    judge = pools_from_generator(1, size, settings.world_weeks, seed + JUDGE_SEED, **given)
    return [*learned, *judge]


def _from_table(panel: Panel, settings: MapTraining, progress: Progress) -> list[AgentPool]:
    """Part a table's agents into those that are learned from and those that judge, and drop its last weeks."""
    known = panel.n_weeks - settings.held_out_weeks
    needed = settings.weeks + FIRST_FORECAST
    if known < needed:
        raise InputError(
            f"the table has {panel.n_weeks} weeks, {settings.held_out_weeks} of them held out, but rollouts of "
            f"`weeks` {settings.weeks} need {needed}; give a longer history, lower `weeks` or `held_out_weeks`, or "
            "train on made-up worlds"
        )
    world = AgentPool.from_panel(
        panel.before(known),
        resources=settings.resources,
        refit_weeks=settings.refit_weeks,
        seed=settings.seed,
        progress=progress,
    )
    order = np.random.default_rng([settings.seed, 0x1D6]).permutation(world.n_agents)
    judges = int(round(JUDGE_SHARE * world.n_agents))
    return [world.take(np.sort(order[judges:])), world.take(np.sort(order[:judges]))]
