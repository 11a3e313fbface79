"""Training of a primal or dual map on a table or on generated populations, into the folder of an interface."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np

from walras.data.panel import Panel
from walras.data.resume_log import digest
from walras.errors import InputError, SettingsError
from walras.maps.features import HORIZON
from walras.maps.file import DUAL, LearnedMap, load_map, save_map
from walras.maps.interface import FILES, SUPPORT_FILE
from walras.maps.rollout import horizon_slices, inputs_of, roll_out
from walras.maps.support import TrainingSupport, save_support, summary_of
from walras.policies.base import Policy
from walras.policies.base_stock import PricedNewsvendor
from walras.progress import Progress
from walras.train.agent_pool import AgentPool, pools_from_generator
from walras.train.dual_task import DualTask, check_dual
from walras.train.history import FIRST_FORECAST
from walras.train.loop import TrainResult, refuse_other_settings, train
from walras.train.map_task import FIRST_EXAMPLE, MapEpisodes, free_and_capacity
from walras.train.primal_task import (
    FIRST_PRICED,
    AnyOf,
    DualProposals,
    PlannerQueries,
    PriceProposal,
    PrimalTask,
    check_primal,
)
from walras.train.settings import MapTraining

POOLS = "worlds"  # folder of the agent pools of trainings, which may be deleted: fitting forecasts takes minutes
# Settings that pools depend on; those of other settings are other files.
MADE_FROM = ("seed", "worlds", "world_agents", "world_weeks", "refit_weeks", "held_out_weeks", "resources")
VALIDATION_SHARE = 0.2  # share of a table's agents used for validation only
VALIDATION_SEED = 7_919  # added to the seed for the generated validation pool
EXAMPLES = 64  # populations over which the training support is measured

_summary = eqx.filter_jit(summary_of)


def train_map(
    kind: str,
    panel: Panel | None,
    settings: MapTraining,
    folder: str | Path,
    *,
    policy: Policy | None = None,
    pools: Path | None = None,
    support: bool = True,
    progress: Progress | None = None,
    resume: bool = True,
    command: Sequence[str] = (),
) -> TrainResult:
    """Train a primal or a dual map, or resume a training.

    Where the folder has a trained dual map, a primal one is also trained under the prices that it proposes. The path of
    the result is the file of the map.

    Args:
        kind: "primal map" or "dual map".
        panel: table to train on, as read; generated populations where None.
        folder: of the interface; the training has a folder of its own in it.
        policy: that agents follow, valid for any population; the priced newsvendor where not given.
        pools: folder of prepared agent pools, which several interfaces may share; one in `folder` where not given.
        support: measure the training support of a primal map, which planning needs.
        resume: continue the folder's training, or begin again.

    Raises:
        InputError: too few weeks or products; a folder of another training.
        SettingsError: settings that do not fit together, or a dual map of another population representation.
    """
    progress, folder = progress or Progress(), Path(folder)
    (check_dual if kind == DUAL else check_primal)(settings)
    usable = settings.world_weeks - FIRST_FORECAST
    if panel is None and settings.weeks > usable:
        raise SettingsError(
            f"`weeks` is {settings.weeks} but generated pools of `world_weeks` {settings.world_weeks} have {usable} "
            "usable ones; lower `weeks` or raise `world_weeks`"
        )
    source = None if kind == DUAL else _price_source(settings, folder)
    training = folder / FILES[kind].removesuffix(".walras")
    if resume:
        refuse_other_settings(kind, settings, training)
    *training_pools, validation_pool = _agent_pools(panel, settings, pools or folder / POOLS, resume, progress)
    progress.stage("Preparing")
    episodes = MapEpisodes(training_pools, settings, [validation_pool])
    policy = PricedNewsvendor() if policy is None else policy
    task: DualTask | PrimalTask
    task = DualTask(settings, episodes, policy) if kind == DUAL else PrimalTask(settings, episodes, policy, source)
    result = train(task, settings, training, progress=progress, resume=resume, command=command)
    learned = _learned_map(task, result, on_table=panel is not None)
    save_map(folder / FILES[kind], learned)
    if isinstance(task, PrimalTask) and support:
        progress.stage("Measuring the training support")
        save_support(folder / SUPPORT_FILE, measure_support(learned, task))
    return replace(result, path=folder / FILES[kind])


def measure_support(learned: LearnedMap, task: PrimalTask) -> TrainingSupport:
    """Measure which populations, prices and capacities a map was trained on."""
    summaries, prices, capacities = [], [], []
    weeks, network = task.settings.weeks - HORIZON, learned.network
    for number in range(EXAMPLES):
        episode = task.episodes.draw(FIRST_EXAMPLE + number)
        charged = task.prices(episode, network)
        rolled = roll_out(episode.window, task.policy, charged)
        reads = learned.shape.kind.reads_agents
        inputs = inputs_of(rolled, episode.window, episode.cohort, weeks, 1, reads_agents=reads)
        summaries.append(_summary(network, learned.scaling(inputs)))
        prices.append(np.asarray(horizon_slices(charged / rolled.units.price[None, :], weeks, 1)))
        _, capacity = free_and_capacity(episode, task.policy, FIRST_PRICED)
        capacities.append(capacity[FIRST_PRICED:] / np.asarray(rolled.units.use, float))
    size = task.settings.population_size
    return TrainingSupport.fit(summaries, prices, task.policy, n_agents=size, capacities=capacities, kind=learned.kind)


def _learned_map(task: DualTask | PrimalTask, result: TrainResult, on_table: bool) -> LearnedMap:
    pools, settings = task.episodes.pools, task.settings
    facts = {
        "trained_on": "a table" if on_table else f"{len(pools)} made-up worlds",
        "products": sum(pool.n_agents for pool in pools),
        "weeks": pools[0].n_weeks,
        "steps": result.step,
        "best_step": result.best_step,
        task.monitor: result.best_value,
        "settings": settings.model_dump(mode="json"),
        **task.diagnostics(result.parameters),
    }
    parts = (task.kind, result.parameters, task.scaling, task.shape, task.episodes.edges)
    return LearnedMap(*parts, tuple(settings.resources), facts)


def _price_source(settings: MapTraining, folder: Path) -> PriceProposal | None:
    """Return what proposes prices to a primal map: planner queries, and the folder's dual map where it has one."""
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


def _agent_pools(
    panel: Panel | None, settings: MapTraining, folder: Path, resume: bool, progress: Progress
) -> list[AgentPool]:
    """Prepare the training pools and, last, the validation pool; or read them where an earlier start left them."""
    count = 2 if panel is not None else settings.worlds + 1
    key = digest([*(getattr(settings, name) for name in MADE_FROM), None if panel is None else panel.units])[:12]
    paths = [folder / f"{key}-{number}.walras" for number in range(count)]
    if resume and all(path.exists() for path in paths):
        return [AgentPool.load(path) for path in paths]
    pools = _generated(settings, progress) if panel is None else _from_table(panel, settings, progress)
    folder.mkdir(parents=True, exist_ok=True)
    for pool, path in zip(pools, paths, strict=True):
        pool.save(path)
    return pools


def _generated(settings: MapTraining, progress: Progress) -> list[AgentPool]:
    options: dict[str, Any] = {
        "resources": settings.resources,
        "refit_weeks": settings.refit_weeks,
        "known_weeks": settings.world_weeks // 2,  # attributes are read off the past, as in a plan
        "progress": progress,
    }
    progress.stage("Generating populations")
    seed, size = settings.seed, (settings.world_agents, settings.world_weeks)
    training = pools_from_generator(settings.worlds, *size, seed, **options)
    return [*training, *pools_from_generator(1, *size, seed + VALIDATION_SEED, **options)]


def _from_table(panel: Panel, settings: MapTraining, progress: Progress) -> list[AgentPool]:
    """Divide a table's agents into those for training and for validation, without its last weeks."""
    known = panel.n_weeks - settings.held_out_weeks
    needed = settings.weeks + FIRST_FORECAST
    if known < needed:
        raise InputError(
            f"the table has {panel.n_weeks} weeks, {settings.held_out_weeks} of them held out, but rollouts of "
            f"`weeks` {settings.weeks} need {needed}; give a longer history, lower `weeks` or `held_out_weeks`, or "
            "train on generated populations"
        )
    fit: dict[str, Any] = {"refit_weeks": settings.refit_weeks, "seed": settings.seed, "progress": progress}
    pool = AgentPool.from_panel(panel.before(known), resources=settings.resources, **fit)
    order = np.random.default_rng([settings.seed, 0x1D6]).permutation(pool.n_agents)
    n_validation = int(round(VALIDATION_SHARE * pool.n_agents))
    return [pool.take(np.sort(order[n_validation:])), pool.take(np.sort(order[:n_validation]))]
