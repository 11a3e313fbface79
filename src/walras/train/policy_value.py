"""Value of a policy for every agent on given paths: what tuning and comparisons of policies are based on.

Agents are simulated in blocks and only sums over weeks are kept, so that large populations fit in memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.errors import SettingsError
from walras.exogenous.paths import ExogenousPaths
from walras.policies.base import Policy
from walras.population.population import Population
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.setup import cut_agents
from walras.simulation.week import State, WeekRecord

BLOCK = 4096  # agents simulated at a time: the traces of 156 weeks, summed as they come, are a few megabytes


@dataclass(frozen=True)
class Objective:
    """What counts in the value of a policy."""

    warm_up: int = 0  # first weeks that do not count; what a policy added to its stock in them is charged at unit cost
    backlog: bool = False  # unmet demand waits instead of being lost
    order_cost: float = 0.0  # cost of placing an order, whatever its size [money/order]
    stop: int | None = None  # weeks from this one on do not count, as if the paths ended before it; None counts all


@dataclass(frozen=True, eq=False)
class PolicyValue:
    """Outcome of a policy for each agent in the weeks that count, mean over scenarios."""

    # reward - payments - order costs + worth of what is left - worth of what the warm-up added [money]
    value: Float[np.ndarray, " agent"]  # reward - payments - order costs + worth left - worth added in warm-up [money]
    payments: Float[np.ndarray, " agent"]  # shadow prices x use [money]
    demand: Float[np.ndarray, " agent"]  # this and the next two: units in all weeks that count
    sales: Float[np.ndarray, " agent"]
    orders: Float[np.ndarray, " agent"]
    stock: Float[np.ndarray, " agent"]  # mean stock at the end of a week [units]
    order_weeks: Float[np.ndarray, " agent"]  # weeks with an order


@dataclass(frozen=True, eq=False)
class TuningProblem:
    """Data that policies are tuned on; paths, start and prices as in `simulate`.

    Prices are announced in full at the start [money per unit of resource]; None charges nothing. Of paths with a
    scenario axis, values are means over scenarios.
    """

    population: Population
    exogenous: ExogenousPaths
    initial: State
    shadow_prices: Float[Array, "*scenario week resource"] | None = None
    objective: Objective = field(default_factory=Objective)
    round_to: float | None = None  # orders, and parameters in units, are whole multiples of this [units]; None: any

    @property
    def n_agents(self) -> int:
        """Number of agents."""
        return self.population.n_agents

    def evaluate(self, policy: Policy, block_agents: int = BLOCK) -> PolicyValue:
        """Simulate a policy in blocks of agents and sum over weeks, agent by agent.

        Raises:
            SettingsError: a warm-up as long as the paths.
        """
        exogenous, population, objective = self.exogenous, self.population, self.objective
        stop = exogenous.n_weeks if objective.stop is None else objective.stop
        if not 0 <= objective.warm_up < stop <= exogenous.n_weeks:
            raise SettingsError(
                f"`warm_up` is {objective.warm_up} weeks of {min(stop, exogenous.n_weeks)}; leave at least one week "
                "that counts"
            )
        no_prices = jnp.zeros((exogenous.n_weeks, len(population.resources)))
        prices = jnp.asarray(no_prices if self.shadow_prices is None else self.shadow_prices, jnp.float32)
        span = jnp.asarray([objective.warm_up, stop], jnp.int32)
        order_cost = jnp.asarray(objective.order_cost, jnp.float32)
        agents, size, parts = self.n_agents, min(block_agents, self.n_agents), []
        for first in range(0, agents, size):
            # The last block overlaps the one before it: blocks of one size are one compilation.
            start = jnp.asarray(min(first, agents - size))
            given = (population, exogenous, policy, self.initial, prices, start, span, order_cost)
            block = _block(*given, size, objective.backlog)
            parts.append([np.asarray(leaf)[first - int(start) :] for leaf in block])
        return PolicyValue(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))

    def max_demand(self, weeks: int) -> Float[np.ndarray, " agent"]:
        """Return each agent's largest demand in this many consecutive weeks, over all scenarios [units]."""
        demand = np.asarray(self.exogenous.demand, float)
        demand = demand.reshape(-1, *demand.shape[-2:])
        weeks = min(weeks, demand.shape[1])
        total = np.cumsum(np.concatenate([np.zeros_like(demand[:, :1]), demand], axis=1), axis=1)
        return (total[:, weeks:] - total[:, :-weeks]).max((0, 1))

    @property
    def max_useful_position(self) -> Float[np.ndarray, " agent"]:
        """Position above which no unit would have been sold before the next order could arrive [units]."""
        return self.max_demand(self.initial.max_lead + 1)


@dataclass(frozen=True, eq=False)
class TunedPolicy:
    """Policy whose parameters were chosen on the weeks of a `TuningProblem`."""

    name: str  # for tables
    policy: Policy  # with the best parameters
    value: Float[np.ndarray, " agent"]  # of each agent on those weeks, in sample [money]
    parameters: Mapping[str, Float[np.ndarray, " agent"]]  # name -> value per agent
    seconds: float = 0.0  # that tuning took
    tried: int = 0  # candidates that were simulated

    def __str__(self) -> str:
        """Show candidates, time, and the median of each parameter."""
        medians = ", ".join(f"{name} {np.median(values):.4g}" for name, values in self.parameters.items())
        return f"{self.name}: {self.tried} candidates in {self.seconds:.1f} s" + (
            f" (median {medians})" if medians else ""
        )


@eqx.filter_jit
def _block(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    prices: Float[Array, "*priced week resource"],
    start: Array,
    span: Int[Array, "2"],
    order_cost: Float[Array, ""],
    size: int,
    backlog: bool,
) -> tuple[Array, ...]:
    """Simulate `size` agents from `start` on; traces that are not summed are not stored either."""
    agents, paths, own, state = cut_agents(population, exogenous, policy, initial, start, size)
    rollout = simulate(
        agents, paths, own, initial=state, shadow_prices=prices, record=Record.traces(), backlog=backlog, throw=False
    )
    traces = rollout.agents
    assert traces is not None  # recorded
    weeks, (first, stop) = jnp.arange(paths.n_weeks)[:, None], span
    sums = _sums(traces, prices, (weeks >= first) & (weeks < stop))
    earned = sums["reward"] - sums["payments"] - order_cost * sums["order_weeks"]
    grown = traces.orders - traces.sales
    before, within = (jnp.where(weeks < end, grown, 0.0).sum(-2) for end in (first, stop))
    left = jnp.broadcast_to(state.stock_end + state.pipeline.sum(-2), within.shape) + within
    value = earned + _cost_of_week(paths, stop - 1, left) - _cost_of_week(paths, first, before)
    names = ("payments", "demand", "sales", "orders", "stock", "order_weeks")
    rows = [value, *(sums[name] / ((stop - first) if name == "stock" else 1.0) for name in names)]
    return tuple(row if row.ndim == 1 else row.mean(0) for row in rows)


def _sums(
    traces: WeekRecord, prices: Float[Array, "*priced week resource"], counts: Array
) -> dict[str, Float[Array, "*scenario agent"]]:
    """Sum over the weeks that count."""
    shared = prices if prices.ndim == traces.reward.ndim else prices[None]
    weekly = {
        "reward": traces.reward,
        "payments": jnp.einsum("...war,...wr->...wa", traces.utilization, shared),
        "demand": traces.demand,
        "sales": traces.sales,
        "orders": traces.orders,
        "stock": traces.stock_end,
        "order_weeks": (traces.orders > 0).astype(jnp.float32),
    }
    return {name: jnp.where(jnp.broadcast_to(counts, leaf.shape), leaf, 0.0).sum(-2) for name, leaf in weekly.items()}


def _cost_of_week(
    paths: ExogenousPaths, week: Int[Array, ""], units: Float[Array, "*scenario agent"]
) -> Float[Array, "*scenario agent"]:
    """Return the cost of units in a week; one row of costs holds for all weeks."""
    cost = jnp.take(paths.unit_cost, week, axis=0, mode="clip")
    return jnp.broadcast_to(cost, units.shape) * units
