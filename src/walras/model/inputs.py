"""Own what one week is given: the happenings of the paths, the announced prices, what the policy said beforehand.

FREE: how they are stacked for an engine; what they mean is said in `exogenous.paths`.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from walras.exogenous.arrivals import AbstractArrivals
from walras.exogenous.paths import ExogenousPaths
from walras.exogenous.supply import AbstractSupply
from walras.policies.base import AbstractPolicy, Outlook
from walras.population.population import Population


class WeekInputs(eqx.Module):
    """Hold the happenings of one week and the shadow prices announced in it; engines get all weeks stacked.

    Attributes: as in `ExogenousPaths`; `week` counts from the start of the run, `shadow_prices` starts with this week's
    price, and `encoded` is what the policy said of this week beforehand. While inputs are put together some are None.
    """

    week: Int[Array, "*steps"] | None = None
    demand: Float[Array, "*steps agent"] | None = None
    sale_price: Float[Array, "*steps agent"] | None = None
    unit_cost: Float[Array, "*steps agent"] | None = None
    next_unit_cost: Float[Array, "*steps agent"] | None = None
    arrivals: AbstractArrivals | None = None
    lead_demand_mean: Float[Array, "*steps agent"] | None = None
    lead_demand_sd: Float[Array, "*steps agent"] | None = None
    supply: AbstractSupply | None = None
    shadow_prices: Float[Array, "*steps lead resource"] | None = None
    encoded: Any = None


def shared_inputs(
    exogenous: ExogenousPaths, following_cost: Float[Array, " agent"], weeks: Int[Array, " week"]
) -> WeekInputs:
    """Stack what all scenarios have in common; `following_cost` is the unit cost of the week after the last."""
    return WeekInputs(
        week=weeks,
        sale_price=exogenous.sale_price,
        unit_cost=exogenous.unit_cost,
        next_unit_cost=_next_week(exogenous.unit_cost, following_cost),
        lead_demand_mean=exogenous.lead_demand_mean,
        lead_demand_sd=exogenous.lead_demand_sd,
        supply=exogenous.supply,
    )


def _next_week(values: Float[Array, "#week agent"], following: Float[Array, " agent"]) -> Float[Array, "#week agent"]:
    """Give every week the next one's values, and the last week `following`.

    Copied row by row: a concatenation would be compiled into whatever reads it, which then runs several times slower.
    """
    last = values.shape[0] - 1
    if last == 0:
        return following[None]

    def row(week: Int[Array, ""]) -> Float[Array, " agent"]:
        return jnp.where(week < last, values[jnp.minimum(week + 1, last)], following)

    return jax.lax.map(row, jnp.arange(last + 1))


def steady_and_changing(inputs: WeekInputs) -> tuple[WeekInputs, WeekInputs]:
    """Part the fields that have one row for all weeks (returned as that row) from those that change."""
    weeks = inputs.week.shape[0]
    steady, changing = {}, {}
    for name, value in vars(inputs).items():
        lengths = {leaf.shape[0] for leaf in jax.tree.leaves(value)}
        if name != "week" and lengths == {1}:
            steady[name] = jax.tree.map(lambda leaf: leaf[0], value)
        else:
            changing[name] = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (weeks, *leaf.shape[1:])), value)
    return WeekInputs(**steady), WeekInputs(**changing)


def together(first: WeekInputs, second: WeekInputs) -> WeekInputs:
    """Take every field from where it is given."""
    own = vars(first)
    return WeekInputs(**{name: value if own[name] is None else own[name] for name, value in vars(second).items()})


def encode_weeks(
    population: Population,
    policy: AbstractPolicy,
    inputs: WeekInputs,
    windows: Float[Array, "*scenario week lead resource"],
) -> Any:
    """Let the policy say all it can before any stock is known, for all weeks at once."""
    weeks = inputs.week.shape[0]

    def row(values: Float[Array, "#week agent"]) -> Float[Array, "week agent"]:
        return jnp.broadcast_to(values, (weeks, values.shape[1]))

    def one(week: Array, window: Array, *known: Array) -> Any:
        return policy.encode(Outlook(week, population, *known), window)

    known = (inputs.lead_demand_mean, inputs.lead_demand_sd, inputs.sale_price, inputs.unit_cost, inputs.next_unit_cost)
    all_weeks = jax.vmap(one)
    rows = [row(values) for values in known]
    if windows.ndim == 4:
        return jax.vmap(lambda window: all_weeks(inputs.week, window, *rows))(windows)
    return all_weeks(inputs.week, windows, *rows)
