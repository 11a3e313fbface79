"""Own the measuring of what a map training covered, on populations, prices and capacities drawn as in training.

FREE: how many are drawn; what is stored and judged by is `maps.coverage`.
"""

from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from walras.maps.coverage import Coverage, save_coverage, summary_of
from walras.maps.inputs import HORIZON
from walras.maps.learned import COVERAGE
from walras.maps.learned_map import LearnedMap
from walras.maps.rollout import coming, inputs_of, roll
from walras.train.map_episodes import drawn_capacity
from walras.train.price_sources import FIRST_PRICED
from walras.train.primal import FIRST_EXAMPLE, PrimalTask

EXAMPLES = 64
"""Populations over which it is measured."""

_summary = eqx.filter_jit(summary_of)


def covered(learned: LearnedMap, task: PrimalTask, folder: Path) -> Coverage:
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
        rolled = roll(drawn.stretch, task.policy, charged)
        reads = learned.shape.kind.reads_agents
        inputs = learned.scaling(inputs_of(rolled, drawn.stretch, drawn.readers, weeks, 1, reads_agents=reads))
        summaries.append(_summary(network, inputs))
        prices.append(np.asarray(coming(charged / rolled.units.price[None, :], weeks, 1)))
        quiet = roll(drawn.stretch, task.policy, jnp.zeros_like(charged))
        capacity = drawn_capacity(drawn.random, np.asarray(quiet.utilization, float), FIRST_PRICED)
        capacities.append(capacity[FIRST_PRICED:] / np.asarray(rolled.units.use, float))
    found = Coverage.fit(
        summaries, prices, task.policy, n_agents=task.settings.target, capacities=capacities, kind=learned.kind
    )
    save_coverage(folder / COVERAGE, found)
    return found
