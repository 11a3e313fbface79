"""State of the agents between two weeks, and the inputs of each week.

LAW: the pipeline conserves units: what is ordered and accepted is in it until it arrives.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from walras.exogenous.arrivals import AbstractArrivals, AbstractSupply
from walras.exogenous.paths import ExogenousPaths
from walras.policies.base import Policy, PolicyMemory, PublicObservation
from walras.population.population import Population


class State(eqx.Module):
    """Stock and open orders at the end of a week.

    Attributes:
        stock_end: stock on hand; negative is backlog where backlogging is on [units].
        pipeline: units that arrive 1, 2, ..., max_lead weeks from now [units].
        memory: what the policy remembers of the past; None where it has no memory.
    """

    stock_end: Float[Array, "*scenario agent"]
    pipeline: Float[Array, "*scenario lead agent"]
    memory: PolicyMemory | None = None

    @property
    def max_lead(self) -> int:
        """Return the longest lead time the pipeline can hold [weeks]."""
        return self.pipeline.shape[-2]


def empty_state(n_agents: int, max_lead: int, stock: float | Float[Array, " agent"] = 0.0) -> State:
    """Return a state with stock on hand, one number or one per agent [units], and nothing on order."""
    on_hand = jnp.broadcast_to(jnp.asarray(stock, jnp.float32), (n_agents,))
    return State(stock_end=on_hand, pipeline=jnp.zeros((max_lead, n_agents), jnp.float32))


class WeekInputs(eqx.Module):
    """What happens in one week and the shadow prices announced in it; engines get all weeks stacked.

    Attributes: as in `ExogenousPaths`; `week` counts from the start of the run, `shadow_prices` starts with this week's
    price, and `encoded` is what the policy computed for this week before the run.
    """

    week: Int[Array, "*steps"]
    demand: Float[Array, "*steps agent"]
    sale_price: Float[Array, "*steps agent"]
    unit_cost: Float[Array, "*steps agent"]
    next_unit_cost: Float[Array, "*steps agent"]
    arrivals: AbstractArrivals
    lead_demand_mean: Float[Array, "*steps agent"]
    lead_demand_sd: Float[Array, "*steps agent"]
    supply: AbstractSupply | None
    shadow_prices: Float[Array, "*steps lead resource"]
    encoded: Any


KNOWN = ("lead_demand_mean", "lead_demand_sd", "sale_price", "unit_cost", "next_unit_cost")
"""Fields that a policy knows independently of its stock, in the order of `PublicObservation`."""


def shared_inputs(exogenous: ExogenousPaths, following_cost: Float[Array, " agent"] | None) -> dict[str, Any]:
    """Return the fields that all scenarios share, each with one row per week or one row for all weeks.

    `following_cost` is the unit cost of the week after the last one; None for that of the last week.
    """
    following = exogenous.unit_cost[-1] if following_cost is None else following_cost
    return {
        "sale_price": exogenous.sale_price,
        "unit_cost": exogenous.unit_cost,
        "next_unit_cost": _next_week(exogenous.unit_cost, following),
        "lead_demand_mean": exogenous.lead_demand_mean,
        "lead_demand_sd": exogenous.lead_demand_sd,
        "supply": exogenous.supply,
    }


def _next_week(values: Float[Array, "#week agent"], following: Float[Array, " agent"]) -> Float[Array, "#week agent"]:
    """Return for every week the values of the next one, and `following` for the last week.

    Copied row by row: a concatenation would be fused into its consumers, which then run several times slower.
    """
    last = values.shape[0] - 1
    if last == 0:
        return following[None]

    def row(week: Int[Array, ""]) -> Float[Array, " agent"]:
        return jnp.where(week < last, values[jnp.minimum(week + 1, last)], following)

    return jax.lax.map(row, jnp.arange(last + 1))


def split_static(fields: dict[str, Any], weeks: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split fields into those with one row for all weeks (returned as that row) and those that change."""
    static, changing = {}, {}
    for name, field in fields.items():
        if {leaf.shape[0] for leaf in jax.tree.leaves(field)} <= {1}:
            static[name] = jax.tree.map(lambda leaf: leaf[0], field)
        else:
            changing[name] = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (weeks, *leaf.shape[1:])), field)
    return static, changing


def encode_weeks(
    population: Population,
    policy: Policy,
    fields: dict[str, Any],
    weeks: Int[Array, " week"],
    windows: Float[Array, "*scenario week lead resource"],
    read: Any = None,
) -> Any:
    """Let the policy compute what does not depend on stock, for all weeks at once.

    `read` is what it has read of the past, by week; where it reads, windows are those of one scenario.
    """

    def one(week: Array, window: Array, read: Any, *known: Array) -> Any:
        return policy.encode(PublicObservation(week, population, *known, read=read), window)

    all_weeks = jax.vmap(one)
    known = _known(fields, weeks)
    if windows.ndim == 4:
        return jax.vmap(lambda window: all_weeks(weeks, window, read, *known))(windows)
    return all_weeks(weeks, windows, read, *known)


def read_weeks(
    population: Population,
    policy: Policy,
    fields: dict[str, Any],
    weeks: Int[Array, " week"],
    demand: Float[Array, "week agent"],
    memory: PolicyMemory,
) -> tuple[Any, PolicyMemory]:
    """Let the policy read all weeks of a run in one pass, each with what was known in it."""
    outlooks = PublicObservation(weeks, population, *_known(fields, weeks))
    read, after = policy.read(memory.exogenous_state, outlooks, demand)
    return read, PolicyMemory(after, memory.own_state)


def _known(fields: dict[str, Any], weeks: Int[Array, " week"]) -> list[Float[Array, "week agent"]]:
    """Return the fields that a policy knows independently of its stock, a row per week."""
    return [jnp.broadcast_to(fields[name], (len(weeks), fields[name].shape[1])) for name in KNOWN]
