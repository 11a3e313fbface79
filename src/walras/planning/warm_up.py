"""The state that a plan starts from: stock and open orders as recorded, else as a replay of the policy leaves them."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from walras.data.panel import Panel
from walras.errors import InputError
from walras.exogenous.calendar import holiday_distance
from walras.exogenous.paths import ExogenousPaths
from walras.exogenous.scenarios import Demand, past_paths, pipeline_length
from walras.maps.features import HORIZON, LOOK_BACK, AgentHistory, KnownFuture, stock_use
from walras.maps.history import History
from walras.planning.protocols import Grid
from walras.policies.base import Policy
from walras.population.population import Population
from walras.simulation.record import Record
from walras.simulation.run import Rollout, simulate
from walras.simulation.week import State, empty_state

WARM_UP_WEEKS = 30
"""Weeks of history replayed to find a plausible state; several times the longest lead time."""


@dataclass(frozen=True, eq=False)
class WarmUp:
    """The last weeks of the history, replayed with the policy.

    Attributes:
        exogenous: demand, prices, lead times and forecasts of these weeks, one path.
        initial: the state before the first of them.
        rollout: what traces.
    """

    exogenous: ExogenousPaths
    initial: State
    rollout: Rollout


def replay_history(
    panel: Panel,
    population: Population,
    policy: Policy,
    demand: Demand,
    *,
    log_sd: float,
    seed: int,
    weeks: int = WARM_UP_WEEKS,
    record: Record | None = None,
) -> WarmUp:
    """Simulate the policy over the last weeks of the history, without shadow prices and from empty shelves.

    Args:
        panel, population, policy: completed panel, its agents and what they order.
        demand: fitted demand model, for the forecasts of the past.
        log_sd, seed: spread of the log lead time between orders, and the seed of these draws.
        weeks: at most.
        record: default totals only.
    """
    lead = np.asarray(population.lead_time)
    weeks = min(weeks, panel.n_weeks)
    paths = past_paths(panel, lead, demand, weeks=weeks, seed=seed + 1, log_sd=log_sd)
    empty = empty_state(population.n_agents, pipeline_length(lead, log_sd), paths.lead_demand_mean[0])
    return WarmUp(paths, empty, simulate(population, paths, policy, initial=empty, record=record or Record.totals()))


def state_after(past: WarmUp, panel: Panel, population: Population) -> tuple[State, tuple[str, ...]]:
    """Return the state after a replay, with recorded stock and open orders where there are any, and notes."""
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
    """Put recorded orders that are not yet due into the week in which they are."""
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


REPLAYED_WEEKS = LOOK_BACK + WARM_UP_WEEKS
"""Weeks replayed for maps: all that they read, after weeks in which empty shelves fill up."""


def map_history(
    panel: Panel, population: Population, past: WarmUp, initial: State, coming: ExogenousPaths, demand: Demand
) -> History:
    """Return what maps read: the replay, the first planned week before its orders, and what is known then.

    Args:
        panel, population: completed panel and its agents.
        past: replay of the last weeks, with traces.
        initial: state that the plan starts from.
        coming: the planned weeks, for prices, costs and forecasts of the first of them.
        demand: fitted demand model.

    Raises:
        InputError: a replay without traces.
    """
    traces = past.rollout.agents
    if traces is None:
        raise InputError("the replay kept no traces but maps read them; replay with Record.traces()")
    weeks = past.exogenous.n_weeks
    # A product was for sale in the planned weeks, or it would not be planned.
    valid = jnp.asarray(panel.on_sale[-weeks:], jnp.float32)
    before = AgentHistory.from_traces(past.exogenous, traces, past.initial, valid)
    on_sale = jnp.ones_like(initial.pipeline[0])
    now = AgentHistory.of_week(coming, initial, 0, traces.demand[-1], traces.orders[-1], on_sale)
    ledger: AgentHistory = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), before, now)
    per_unit = np.asarray(population.weight)[:, None] * np.asarray(population.use)
    holidays = holiday_distance(panel.next_weeks(1)[0], HORIZON + 1)[1:]
    known = KnownFuture(
        expected=jnp.asarray(demand.mean(HORIZON + 1) @ per_unit, jnp.float32),
        committed=jnp.asarray(_due(np.asarray(initial.pipeline) @ per_unit), jnp.float32),
        stock=stock_use(population, ledger)[-1],
        holidays=jnp.asarray(holidays),
    )
    return History(ledger, known, initial.pipeline)


def _due(by_week: Float[np.ndarray, "lead resource"]) -> Grid:
    """Return use by open orders in the origin's week and those after it; beyond the longest lead time there is none."""
    due = np.zeros((HORIZON + 1, by_week.shape[1]))
    rows = min(len(by_week), len(due))
    due[:rows] = by_week[:rows]
    return due
