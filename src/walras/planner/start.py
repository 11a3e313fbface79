"""Own the state that a plan starts from: stock and open orders as recorded, or as the policy would have left them.

CONTRACT: returns a `State` with room for every lead time, and sentences on where its numbers come from.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from walras.data.panel import Panel
from walras.exogenous.paths import ExogenousPaths
from walras.exogenous.scenarios import Demand, past_paths, pipeline_length
from walras.model.record import Record
from walras.model.state import State, empty_state
from walras.policies.base import AbstractPolicy
from walras.population.population import Population
from walras.simulate import Rollout, simulate

WARM_UP_WEEKS = 30
"""Weeks of history replayed to find a plausible state; several times the longest lead time."""


@dataclass(frozen=True, eq=False)
class Replay:
    """Hold the last weeks of the history as a policy would have lived through them.

    Attributes:
        exogenous: demand, prices, lead times and forecasts of these weeks, one path.
        initial: the state before the first of them.
        rollout: what happened.
    """

    exogenous: ExogenousPaths
    initial: State
    rollout: Rollout


def initial_state(
    panel: Panel, population: Population, policy: AbstractPolicy, demand: Demand, *, log_sd: float, seed: int
) -> tuple[State, tuple[str, ...]]:
    """Find stock and open orders at the end of the history.

    The policy is replayed over the last weeks of demand without shadow prices; recorded stock and open orders, where
    the table has them, then replace what the replay found.

    Args:
        panel: completed panel.
        population: its agents.
        policy: what they order.
        demand: fitted demand model, for the forecasts of the past.
        log_sd: spread of the log lead time between orders.
        seed: decides the lead times of the replay.

    Returns:
        The state, and sentences for the report.
    """
    past = replay(panel, population, policy, demand, log_sd=log_sd, seed=seed)
    return state_after(past, panel, population)


def replay(
    panel: Panel,
    population: Population,
    policy: AbstractPolicy,
    demand: Demand,
    *,
    log_sd: float,
    seed: int,
    weeks: int = WARM_UP_WEEKS,
    record: Record | None = None,
) -> Replay:
    """Let the policy live through the last weeks of the history, without shadow prices and from empty shelves.

    Args:
        panel, population, policy, demand, log_sd, seed: see `initial_state`.
        weeks: how many, or all that there are.
        record: what is kept of them.
    """
    lead = np.asarray(population.lead_time)
    weeks = min(weeks, panel.n_weeks)
    paths = past_paths(panel, lead, demand, weeks=weeks, seed=seed + 1, log_sd=log_sd)
    empty = empty_state(population.n_agents, pipeline_length(lead, log_sd), paths.lead_demand_mean[0])
    return Replay(paths, empty, simulate(population, paths, policy, initial=empty, record=record or Record.totals()))


def state_after(past: Replay, panel: Panel, population: Population) -> tuple[State, tuple[str, ...]]:
    """Return the state that a replay ends in, with recorded stock and open orders instead where there are any."""
    replayed = past.rollout.final
    stock, stock_words = _recorded_stock(panel, np.asarray(replayed.stock_end))
    pipeline, order_words = _open_orders(panel, np.asarray(population.lead_time), np.asarray(replayed.pipeline))
    state = State(jnp.asarray(stock), jnp.asarray(pipeline), replayed.memory)
    return state, (stock_words, order_words)


def _recorded_stock(panel: Panel, replayed: np.ndarray) -> tuple[np.ndarray, str]:
    if panel.on_hand is None:
        return (
            replayed,
            "The table has no stock on hand: the policy was replayed over the last weeks of demand instead.",
        )
    last = np.asarray(panel.on_hand)[-1]
    known = np.isfinite(last)
    words = f"Stock on hand at the start is as recorded for {int(known.sum())} of {len(known)} products"
    return np.where(known, last, replayed).astype(np.float32), words + (
        "." if known.all() else ", replayed for the rest."
    )


def _open_orders(panel: Panel, lead: np.ndarray, replayed: np.ndarray) -> tuple[np.ndarray, str]:
    """Put recorded orders that should not have arrived yet into the week in which they are due."""
    if panel.orders is None:
        return replayed, "The table has no replenishment orders: open orders are those of the replayed policy."
    orders = np.asarray(panel.orders)
    pipeline = np.zeros_like(replayed)
    recorded = np.isfinite(orders).any(0)
    for age in range(min(len(orders), int(lead.max(initial=0)))):
        due = lead - age - 1  # weeks beyond the first coming one
        placed = np.nan_to_num(orders[-1 - age])
        rows = np.flatnonzero((due >= 0) & (placed > 0))
        pipeline[due[rows], rows] += placed[rows]
    words = f"Open orders are as recorded for {int(recorded.sum())} of {len(recorded)} products"
    return np.where(recorded[None], pipeline, replayed), words + ("." if recorded.all() else ", replayed for the rest.")
