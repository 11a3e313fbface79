"""History: the past of a population and what is known of its coming weeks, as given to maps.

CONTRACT: the origin is the last week: its receipts are in, its orders are not yet placed.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.errors import InputError, shape_mismatch
from walras.exogenous.paths import ExogenousPaths
from walras.maps.features import HORIZON, PRICES_AND_FORECASTS, AgentHistory, KnownFuture, open_orders, stock_use
from walras.maps.probes import pipeline_at
from walras.population.population import Population
from walras.simulation.week import State, WeekRecord


@dataclass(frozen=True, eq=False)
class History:
    """The past of a population, and what is known of the coming weeks.

    Attributes:
        agent_history: of all agents up to the origin; the last 64 weeks are read.
        known: of the coming weeks, at the origin.
        on_order: open orders by week of arrival, the origin's own first [units]; None where no map has probes.
    """

    agent_history: AgentHistory
    known: KnownFuture
    on_order: Float[Array, "lead agent"] | None = None

    def __post_init__(self) -> None:
        """Check shapes and numbers; ShapeError and InputError name the field."""
        _check_agents(self.agent_history)
        _check_known(self.known)
        if self.on_order is not None:
            object.__setattr__(self, "on_order", _checked_on_order(self.on_order, self.n_agents))

    @property
    def n_weeks(self) -> int:
        """Number of weeks of the past."""
        return self.agent_history.receipts.shape[0]

    @property
    def n_agents(self) -> int:
        """Number of agents."""
        return self.agent_history.receipts.shape[1]

    def __str__(self) -> str:
        """Say how long the history is."""
        pipeline = "with" if self.on_order is not None else "without"
        return f"History: {self.n_weeks} weeks, {self.n_agents} agents, {pipeline} open orders"

    @staticmethod
    def from_simulation(
        population: Population,
        exogenous: ExogenousPaths,
        initial: State,
        traces: WeekRecord | None,
        expected_use: Float[np.ndarray, "from_now resource"] | Float[Array, "from_now resource"] | None = None,
        holidays: Float[np.ndarray, "coming side"] | Float[Array, "coming side"] | None = None,
        *,
        valid: Float[np.ndarray, "week agent"] | Float[Array, "week agent"] | None = None,
    ) -> "History":
        """Read a history off a simulation; its last week is the origin, whose own orders are left out.

        Args:
            population, exogenous, initial: what was simulated, one path without scenarios.
            traces: `rollout.agents` of a simulation with `Record.traces()`.
            expected_use: forecast use of the origin's week and the 26 after it if all agents received what they ask
                for, summed with weights [units of resource]; default the last week's forecasts, going on unchanged.
            holidays: weeks since the last holiday and to the next, 0..1, of the 26 weeks after; default 1, none near.
            valid: 1 where an agent was on sale; default everywhere.

        Raises:
            ShapeError, InputError: several scenarios, no traces, or arrays that do not fit.
        """
        if traces is None:
            raise InputError("the simulation kept no traces but a history needs them; simulate with Record.traces()")
        weeks, agents = exogenous.n_weeks, population.n_agents
        if traces.receipts.shape != (weeks, agents):
            needed = f"({weeks}, {agents}), one path of all weeks and agents"
            raise shape_mismatch("traces", tuple(traces.receipts.shape), needed, "simulate without scenarios")
        if expected_use is None:
            weekly = exogenous.lead_demand_mean[-1] / (population.lead_time + 1.0)
            steady = (population.weight * weekly) @ population.use
            expected_use = jnp.broadcast_to(steady, (HORIZON + 1, steady.shape[0]))
        holidays = np.ones((HORIZON, 2)) if holidays is None else holidays
        _check_rows("expected", expected_use, (HORIZON + 1, len(population.resources)))
        _check_rows("holidays", holidays, (HORIZON, 2))
        shape = exogenous.demand.shape
        wide: Any = {name: jnp.broadcast_to(getattr(exogenous, name), shape) for name in PRICES_AND_FORECASTS}
        all_weeks = replace(exogenous, **wide)
        mask = jnp.ones((weeks, agents), jnp.float32) if valid is None else jnp.asarray(valid, jnp.float32)
        agent_history = AgentHistory.from_traces(all_weeks, traces, initial, mask)
        known = KnownFuture(
            expected=jnp.asarray(expected_use, jnp.float32),
            committed=open_orders(population, all_weeks, traces.orders, initial)[-1],
            stock=stock_use(population, agent_history)[-1],
            holidays=jnp.asarray(holidays, jnp.float32),
        )
        return History(agent_history, known, pipeline_at(all_weeks.arrivals, traces.orders, initial, weeks - 1))


def _check_agents(history: AgentHistory) -> None:
    shape = tuple(history.receipts.shape)
    if len(shape) != 2 or not all(shape):
        name = "history.agent_history.receipts"
        raise shape_mismatch(name, shape, "[week, agent]", "give at least one week and agent")
    for field in fields(history):
        name, values = f"history.agent_history.{field.name}", getattr(history, field.name)
        if tuple(values.shape) != shape:
            raise shape_mismatch(name, tuple(values.shape), f"{shape} as `receipts`", "give one each")
        _check_finite(name, values, ("week", "agent"))


def _check_known(known: KnownFuture) -> None:
    resources = known.stock.shape[-1:]
    if known.stock.ndim != 1:
        needed = "[resource], of one origin"
        raise shape_mismatch("history.known.stock", tuple(known.stock.shape), needed, "cut one origin out")
    rows = (HORIZON + 1, *resources)
    shapes: dict[str, tuple[int, ...]] = {"expected": rows, "committed": rows, "stock": resources}
    shapes["holidays"] = (HORIZON, 2)
    for name, shape in shapes.items():
        _check_rows(name, getattr(known, name), shape)
        axes = ("week", "column") if len(shape) == 2 else ("resource",)
        _check_finite(f"history.known.{name}", getattr(known, name), axes)


def _checked_on_order(on_order: Any, agents: int) -> Array:
    shape = tuple(np.shape(on_order))
    if len(shape) != 2 or shape[1] != agents or not shape[0]:
        raise shape_mismatch("history.on_order", shape, f"[lead, {agents} agents]", "give a row for every week")
    orders = jnp.asarray(on_order, jnp.float32)
    _check_finite("history.on_order", orders, ("week", "agent"))
    if not isinstance(orders, jax.core.Tracer) and float(orders.min()) < 0:
        raise InputError(
            f"`history.on_order` goes down to {float(orders.min()):g} but open orders are 0 or more; give units"
        )
    return orders


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
        f"`{name}` holds a NaN or infinity at {where}; give finite numbers, and mark weeks without a history by `valid`"
    )
