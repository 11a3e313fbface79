"""Own how maps are given the population of a scene: its history as simulated, at its first coordinated week.

FREE: what maps read is `maps.history`; scenes are `control.fixed_plan`.
"""

import jax
import jax.numpy as jnp

from lab.capacity_benchmark import BenchmarkPopulation
from walras.maps.features import HORIZON, KnownFuture
from walras.maps.file import PRIMAL, LearnedMap
from walras.maps.history import History
from walras.maps.interface import Interface
from walras.maps.probes import pipeline_at
from walras.maps.rollout import roll_out
from walras.maps.view import LearnedView


def encode_case(scene: BenchmarkPopulation, learned: LearnedMap) -> LearnedView:
    """Let a map read everybody of a scene; week 0 of the view is the scene's first coordinated week.

    Args:
        scene: whose history is simulated without prices.
        learned: a primal or a dual map.
    """
    stretch, first = scene.stretch, scene.first
    quiet = jnp.zeros((stretch.n_weeks, len(stretch.population.resources)))
    rolled = roll_out(stretch, scene.policy, quiet)
    ledger = jax.tree.map(lambda leaf: leaf[: first + 1], rolled.agent_history)
    known: KnownFuture = jax.tree.map(lambda leaf: leaf[first], rolled.known)
    orders = jnp.concatenate([rolled.agent_history.orders_before[1:], rolled.agent_history.orders_before[-1:]])
    on_order = pipeline_at(stretch.exogenous.arrivals, orders, stretch.initial, first)
    of_maps = Interface(learned, None) if learned.kind == PRIMAL else Interface(None, learned)
    weeks = min(HORIZON + 1, stretch.n_weeks - first)
    return of_maps.encode(stretch.population, History(ledger, known, on_order), scene.policy, weeks=weeks)
