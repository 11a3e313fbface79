"""Own the History: what is handed in about the past of everybody and about the coming weeks, at one origin.

CONTRACT: the origin is the ledger's last week: its receipts are in, its orders are not yet placed.
"""

from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.errors import InputError, shape_mismatch
from walras.exogenous.paths import ExogenousPaths
from walras.maps.features import HORIZON, AgentHistory, KnownFuture, agent_history, open_orders, stock_use
from walras.maps.probes import pipeline_at
from walras.population.population import Population
from walras.simulation.state import State
from walras.simulation.week import WeekRecord


@dataclass(frozen=True, eq=False)
class History:
    """Hold the past of everybody, and what is known of the coming weeks.

    Attributes:
        ledger: of everybody, week by week up to the origin; any number of weeks, the last 64 of which are read.
        known: of the coming weeks, at the origin.
        on_order: open orders by the week in which they arrive, the origin's own first [units]; needed by maps that ask
            delegates, None where it is not known.
    """

    ledger: AgentHistory
    known: KnownFuture
    on_order: Float[Array, "lead agent"] | None = None

    def __post_init__(self) -> None:
        """Refuse arrays whose axes do not meet, and what is no number.

        Raises:
            ShapeError, InputError: the field is named.
        """
        _check_ledger(self.ledger)
        _check_known(self.known)
        if self.on_order is not None:
            object.__setattr__(self, "on_order", _checked_on_order(self.on_order, self.n_agents))

    @property
    def n_weeks(self) -> int:
        """Count the weeks."""
        return self.ledger.receipts.shape[0]

    @property
    def n_agents(self) -> int:
        """Count the agents."""
        return self.ledger.receipts.shape[1]

    @staticmethod
    def from_simulation(
        population: Population,
        exogenous: ExogenousPaths,
        initial: State,
        happened: WeekRecord | None,
        expected_use: Float[np.ndarray, "from_now resource"] | Float[Array, "from_now resource"],
        holidays: Float[np.ndarray, "coming side"] | Float[Array, "coming side"],
        *,
        valid: Float[np.ndarray, "week agent"] | Float[Array, "week agent"] | None = None,
    ) -> "History":
        """Read a history off a simulation; its last week is the origin, whose own orders are left out.

        Args:
            population, exogenous, initial: what was simulated, one path without scenarios.
            happened: `rollout.agents` of a simulation with `Record.traces()`, of the same weeks.
            expected_use: forecast use of the origin's week and the 26 after it if everybody received what is asked
                for, summed over agents with their weights [units of resource].
            holidays: weeks since the last holiday and to the next, 0..1, of the 26 weeks after the origin.
            valid: 1 where an agent was on sale; default everywhere.

        Raises:
            ShapeError, InputError: several scenarios, no traces, or arrays that do not fit.
        """
        if happened is None:
            raise InputError("the simulation kept no traces but a history needs them; simulate with Record.traces()")
        weeks, agents = exogenous.n_weeks, population.n_agents
        if happened.receipts.shape != (weeks, agents):
            needed = f"({weeks}, {agents}), one path of all weeks and agents"
            raise shape_mismatch("happened", tuple(happened.receipts.shape), needed, "simulate without scenarios")
        full = _all_weeks(exogenous)
        mask = jnp.ones((weeks, agents), jnp.float32) if valid is None else jnp.asarray(valid, jnp.float32)
        ledger = agent_history(full, happened, initial, mask)
        resources = len(population.resources)
        _check_rows("expected", expected_use, (HORIZON + 1, resources))
        _check_rows("holidays", holidays, (HORIZON, 2))
        known = KnownFuture(
            expected=jnp.asarray(expected_use, jnp.float32),
            committed=open_orders(population, full, happened.orders, initial)[-1],
            stock=stock_use(population, ledger)[-1],
            holidays=jnp.asarray(holidays, jnp.float32),
        )
        return History(ledger, known, pipeline_at(full.arrivals, happened.orders, initial, weeks - 1))


def _all_weeks(exogenous: ExogenousPaths) -> ExogenousPaths:
    """Give every field a row for every week."""
    steady = ("sale_price", "unit_cost", "lead_demand_mean", "lead_demand_sd")
    wide = {name: jnp.broadcast_to(getattr(exogenous, name), exogenous.demand.shape) for name in steady}
    return ExogenousPaths(demand=exogenous.demand, arrivals=exogenous.arrivals, supply=exogenous.supply, **wide)


def _check_ledger(ledger: AgentHistory) -> None:
    shape = tuple(ledger.receipts.shape)
    if len(shape) != 2 or not all(shape):
        raise shape_mismatch("history.ledger.receipts", shape, "[week, agent]", "give at least one week and agent")
    for each in fields(ledger):
        values = getattr(ledger, each.name)
        if tuple(values.shape) != shape:
            given = tuple(values.shape)
            raise shape_mismatch(f"history.ledger.{each.name}", given, f"{shape} as `receipts`", "give one each")
        _check_finite(f"history.ledger.{each.name}", values, ("week", "agent"))


def _check_known(known: KnownFuture) -> None:
    resources = known.stock.shape[-1:]
    if known.stock.ndim != 1:
        needed = "[resource], of one origin"
        raise shape_mismatch("history.known.stock", tuple(known.stock.shape), needed, "cut one origin out")
    shapes: dict[str, tuple[int, ...]] = {
        "expected": (HORIZON + 1, *resources),
        "committed": (HORIZON + 1, *resources),
        "stock": resources,
        "holidays": (HORIZON, 2),
    }
    for name, shape in shapes.items():
        values = getattr(known, name)
        _check_rows(name, values, shape)
        _check_finite(f"history.known.{name}", values, ("week", "column") if len(shape) == 2 else ("resource",))


def _checked_on_order(on_order: Any, agents: int) -> Array:
    """Return open orders as an array, or refuse them."""
    shape = tuple(np.shape(on_order))
    if len(shape) != 2 or shape[1] != agents or not shape[0]:
        raise shape_mismatch("history.on_order", shape, f"[lead, {agents} agents]", "give a row for every week")
    found = jnp.asarray(on_order, jnp.float32)
    _check_finite("history.on_order", found, ("week", "agent"))
    if not isinstance(found, jax.core.Tracer) and float(found.min()) < 0:
        raise InputError(
            f"`history.on_order` goes down to {float(found.min()):g} but open orders are 0 or more; give units on order"
        )
    return found


def _check_rows(name: str, values: Any, shape: tuple[int, ...]) -> None:
    if tuple(np.shape(values)) != shape:
        remedy = "give the origin's week and the 26 after it (holidays of the 26 alone)"
        raise shape_mismatch(f"history.known.{name}", tuple(np.shape(values)), shape, remedy)


def _check_finite(name: str, values: Array, axes: tuple[str, ...]) -> None:
    if isinstance(values, jax.core.Tracer) or bool(jnp.isfinite(values).all()):
        return
    place = np.argwhere(~np.isfinite(np.asarray(values)))[0]
    where = ", ".join(f"{axis} {index}" for axis, index in zip(axes, place, strict=True))
    raise InputError(
        f"`{name}` holds a NaN or infinity at {where}; give finite numbers, and mark what is not by `valid`"
    )
