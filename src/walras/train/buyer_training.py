"""Own the road from a table, or from made-up populations, to a trained buyer in a folder.

CONTRACT: `train_buyer` is what commands and benchmarks call.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from walras.config import HistorySettings
from walras.data.panel import Panel
from walras.data.write import write_text
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.buyer import Buyer, BuyerShape
from walras.population.agent_axis import Broadcast
from walras.population.generate import generate_panel
from walras.progress import Progress
from walras.train.buyer import BuyerTask, gradient_by_week
from walras.train.buyer_file import save_buyer
from walras.train.history_episodes import HistoryEpisodes
from walras.train.loop.train import TrainResult, train
from walras.train.settings import BuyerTraining
from walras.train.tuning.history_split import FEWEST_WEEKS, FIRST_FORECAST, train_test_split

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
