"""How maps read a population: whose histories they read, and the encoding of a benchmark population."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from walras.maps.agent_layout import CohortIndex
from walras.maps.features import HORIZON, KnownFuture
from walras.maps.file import PRIMAL, LearnedMap, probes_for
from walras.maps.history import History
from walras.maps.interface import Interface
from walras.maps.probes import pipeline_at
from walras.maps.rollout import roll_out
from walras.maps.view import LearnedView
from walras.population.cohort import AbstractDesign, Cohort, StratifiedSample
from walras.population.population import Population

TILE = 16
"""Agents of a cohort that are pooled at a time, as in training."""


def index_cohort(population: Population, learned: LearnedMap, cohort: Cohort) -> CohortIndex:
    """Sort a cohort into the demand buckets of a map, with the probe agents that the map queries."""
    size = np.asarray(population.demand_scale)
    return CohortIndex.of(size, cohort, learned.edges, TILE, probes_for(learned, population, cohort))


def index_sample(
    population: Population,
    learned: LearnedMap,
    count: int,
    random: np.random.Generator,
    design: AbstractDesign | None = None,
) -> CohortIndex:
    """Draw the cohort whose histories a map reads, `count` agents, by default stratified by demand."""
    size = np.asarray(population.demand_scale)
    return index_cohort(population, learned, (design or StratifiedSample()).draw(size, count, random))


def index_all(population: Population, learned: LearnedMap) -> CohortIndex:
    """Let a map read all agents; they keep the weights that they have in the population."""
    n = population.n_agents
    return index_cohort(population, learned, Cohort(np.arange(n), np.ones(n), 0 * np.arange(n), n, "all"))


def encode_case(episode: Any, learned: LearnedMap) -> LearnedView:
    """Encode all agents of a `BenchmarkPopulation`; week 0 of the view is its first coordinated week."""
    pop_window, first = episode.pop_window, episode.first
    no_prices = jnp.zeros((pop_window.n_weeks, len(pop_window.population.resources)))
    rolled = roll_out(pop_window, episode.policy, no_prices)
    past = jax.tree.map(lambda leaf: leaf[: first + 1], rolled.agent_history)
    known: KnownFuture = jax.tree.map(lambda leaf: leaf[first], rolled.known)
    before = rolled.agent_history.orders_before
    orders = jnp.concatenate([before[1:], before[-1:]])
    on_order = pipeline_at(pop_window.exogenous.arrivals, orders, pop_window.initial, first)
    interface = Interface(learned, None) if learned.kind == PRIMAL else Interface(None, learned)
    weeks = min(HORIZON + 1, pop_window.n_weeks - first)
    return interface.encode(pop_window.population, History(past, known, on_order), episode.policy, weeks=weeks)
