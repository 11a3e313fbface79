"""Own the textbook stores of the reference tests: who they are, and what they cost per week and store.

FREE: every case fits one of few compiled shapes, since compiling takes longer than simulating.
"""

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from walras.exogenous.arrivals import IntegerLeadTimes
from walras.exogenous.paths import ExogenousPaths, constant_paths
from walras.policies.base import Policy
from walras.population.population import Population
from walras.simulation.record import Record
from walras.simulation.run import Rollout, simulate
from walras.simulation.week import State, WeekRecord, empty_state

AGENTS, WEEKS, WARM_UP = 20_000, 300, 100
ERRORS = 3.5
"""Standard errors within which a simulated mean must lie of the exact one."""


def stores(
    n_agents: int,
    *,
    holding: float | np.ndarray = 1.0,
    penalty: float | np.ndarray = 4.0,
    lead: int | np.ndarray = 0,
    margin: float | np.ndarray = 0.0,
    resources: tuple[str, ...] = ("inbound_units",),
) -> Population:
    """Build agents that differ in nothing but what is given."""

    def full(value: float | np.ndarray, dtype: type = np.float32) -> jnp.ndarray:
        return jnp.asarray(np.broadcast_to(np.asarray(value, dtype), (n_agents,)))

    return Population(
        holding_cost=full(holding),
        lost_sale_penalty=full(penalty),
        lead_time=full(lead, np.int32),
        demand_scale=full(1.0),
        unit_margin=full(margin),
        use=jnp.ones((n_agents, len(resources))),
        weight=full(1.0),
        resources=resources,
    )


def lead_times(demand: np.ndarray, lead: int | np.ndarray) -> IntegerLeadTimes:
    """Let every order take the same number of weeks (one number, or one per agent)."""
    return IntegerLeadTimes(jnp.asarray(np.broadcast_to(np.asarray(lead, np.int32), demand.shape)))


@dataclass(frozen=True)
class Store:
    """A textbook store: its costs, its lead time, and what it does with demand that it cannot serve."""

    holding: float = 1.0
    penalty: float = 4.0
    lead: int = 0
    backlog: bool = False

    def traces(self, policy: Policy, demand: np.ndarray, start: float | np.ndarray, room: int) -> WeekRecord:
        """Simulate and return what happened to every agent; `room` is the longest lead time of the compiled shape."""
        return _traces(*self._parts(policy, demand, start, room), self.backlog)

    def costs(
        self, policy: Policy, demand: np.ndarray, start: float | np.ndarray, room: int = 4, order: float = 0.0
    ) -> np.ndarray:
        """Return every agent's mean cost per week after the warm-up; `order` is the fixed cost of an order."""
        money, ordering = _means(*self._parts(policy, demand, start, room), self.backlog)
        return np.asarray(money, float) + order * np.asarray(ordering, float)

    def _parts(self, policy: Policy, demand: np.ndarray, start: float | np.ndarray, room: int) -> tuple:
        n_agents = demand.shape[1]
        people = stores(n_agents, holding=self.holding, penalty=self.penalty, lead=self.lead)
        paths = constant_paths(demand, lead_times(demand, self.lead))
        initial = empty_state(n_agents, room, jnp.asarray(np.broadcast_to(np.float32(start), (n_agents,))))
        return people, paths, policy, initial


@eqx.filter_jit
def _traces(people: Population, paths: ExogenousPaths, policy: Policy, initial: State, backlog: bool) -> WeekRecord:
    rollout = simulate(people, paths, policy, initial=initial, record=Record.traces(), backlog=backlog, throw=False)
    happened = rollout.agents
    # What is not returned is not stored either.
    return eqx.tree_at(lambda r: (r.utilization, r.receipts, r.refused, r.demand), happened, (None,) * 4)


@eqx.filter_jit
def _means(
    people: Population, paths: ExogenousPaths, policy: Policy, initial: State, backlog: bool
) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Return every agent's mean cost and share of weeks with an order, after the warm-up."""
    happened = _traces(people, paths, policy, initial, backlog)
    return -happened.reward[WARM_UP:].mean(0), (happened.orders[WARM_UP:] > 0).mean(0)


def standard_error(costs: np.ndarray) -> float:
    """Return the standard error of the mean over agents."""
    return float(costs.std(ddof=1) / np.sqrt(len(costs)))


def assert_costs(costs: np.ndarray, exact: float, slack: float = 0.0) -> None:
    """Hold the mean cost to the exact one within the standard errors, plus a stated slack for digits not printed."""
    off, allowed = costs.mean() - exact, ERRORS * standard_error(costs) + slack
    assert abs(off) <= allowed, f"cost {costs.mean():.5f}, exact {exact:.5f}, allowed {allowed:.5f}"


def run_traced(people: Population, paths: ExogenousPaths, policy: Policy, **more) -> Rollout:
    """Simulate and keep every agent's traces."""
    return simulate(people, paths, policy, record=Record.traces(), **more)
