"""Own the history that learned maps read at a plan's origin: the replayed past, the first planned week, what is known.

CONTRACT: the last column is the first planned week: its receipts are in, its orders are not yet placed.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.data.panel import Panel
from walras.errors import InputError
from walras.exogenous.holidays import holiday_distance
from walras.exogenous.paths import ExogenousPaths
from walras.exogenous.scenarios import Demand
from walras.maps.history import History
from walras.maps.inputs import HORIZON, LOOK_BACK, KnownFuture, Ledger, ledger_of, stock_use
from walras.model.state import State
from walras.planner.start import WARM_UP_WEEKS, Replay
from walras.population.population import Population

REPLAYED_WEEKS = LOOK_BACK + WARM_UP_WEEKS
"""Weeks replayed for maps: all that they read, and before them those in which empty shelves fill up."""


def history_at_origin(
    panel: Panel,
    population: Population,
    past: Replay,
    initial: State,
    coming: ExogenousPaths,
    demand: Demand,
) -> History:
    """Put together what maps read: the replay, the first planned week before its orders, and what is known then.

    Args:
        panel: completed panel.
        population: its agents.
        past: replay of the last weeks, with traces.
        initial: state that the plan starts from; its recorded stock and open orders are those of the last column.
        coming: the planned weeks, for prices, costs and forecasts of the first of them.
        demand: fitted demand model.

    Raises:
        InputError: a replay without traces.
    """
    happened = past.rollout.agents
    if happened is None:
        raise InputError("the replay kept no traces but maps read them; replay with Record.traces()")
    weeks = past.exogenous.n_weeks
    # A product was for sale in the planned weeks, or it would not be planned.
    valid = jnp.asarray(panel.on_sale[-weeks:], jnp.float32)
    before = ledger_of(past.exogenous, happened, past.initial, valid)
    now = _first_week(initial, coming, happened.demand[-1], happened.orders[-1])
    ledger: Ledger = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), before, now)
    per_unit = np.asarray(population.weight)[:, None] * np.asarray(population.use)
    holidays = holiday_distance(panel.next_weeks(1)[0], HORIZON + 1)[1:]
    known = KnownFuture(
        expected=jnp.asarray(demand.mean(HORIZON + 1) @ per_unit, jnp.float32),
        committed=jnp.asarray(_due(np.asarray(initial.pipeline) @ per_unit), jnp.float32),
        stock=stock_use(population, ledger)[-1],
        holidays=jnp.asarray(holidays),
    )
    return History(ledger, known, initial.pipeline)


def _first_week(
    initial: State, coming: ExogenousPaths, demand: Float[Array, " agent"], orders: Float[Array, " agent"]
) -> Ledger:
    """Return the ledger of the first planned week alone."""
    receipts = initial.pipeline[:1]
    return Ledger(
        receipts=receipts,
        stock_start=initial.stock_end[None] + receipts,
        position=(initial.stock_end + initial.pipeline.sum(0))[None],
        demand_before=demand[None],
        orders_before=orders[None],
        sale_price=coming.sale_price[:1],
        unit_cost=coming.unit_cost[:1],
        lead_demand_mean=coming.lead_demand_mean[:1],
        lead_demand_sd=coming.lead_demand_sd[:1],
        valid=jnp.ones_like(receipts),
    )


def _due(by_week: Float[np.ndarray, "lead resource"]) -> Float[np.ndarray, "week resource"]:
    """Return use by open orders in the origin's week and those after it; beyond the longest lead time there is none."""
    due = np.zeros((HORIZON + 1, by_week.shape[1]))
    rows = min(len(by_week), len(due))
    due[:rows] = by_week[:rows]
    return due
