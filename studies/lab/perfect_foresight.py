"""Own the best response of an agent that knows its whole demand: the reference that exact shadow prices are tested on.

LAW: every unit of demand is served by the cheapest purchase up to its week, or lost if that is cheaper.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.clipping import positive_part
from walras.policies.base import Observation, Policy


class PerfectForesight(Policy):
    """Buy now what is cheapest bought now, knowing all demand to come and the announced prices.

    A unit bought in week s for week u costs C_s + H_u - H_s, with C_s = unit cost + use x flow prices of week s, and
    H_u the holding cost and storage prices of the weeks before u; losing the sale costs sale price + penalty. What a
    week's demand costs at best rises by at most the holding cost from one week to the next, so stock serves the
    earliest demand first, as the laws of the week do anyway, and the rest of the demand decides unit by unit.

    Exact with lead time 0, lost sales, nothing on order at the start, a pipeline with room for the whole horizon (so
    that the announced window shows every price to come), and costs and sale price that stay as they are this week.
    Each response is bang-bang: use jumps with the prices, see `control.nonsmooth`.

    Attributes:
        demand: what each agent will be asked for in every week of the run [units/week].
    """

    demand: Float[Array, "week agent"]

    def orders(self, observation: Observation, shadow_prices: Float[Array, "lead resource"]) -> Float[Array, " agent"]:
        """Return the demand of this and coming weeks that stock does not cover and that is best bought now."""
        ahead = jnp.arange(shadow_prices.shape[0])
        asked = jnp.take(self.demand, observation.week + ahead, axis=0, mode="fill", fill_value=0.0)
        before = jnp.cumsum(asked, axis=0) - asked
        uncovered = asked - jnp.clip(observation.position[None, :] - before, 0.0, asked)
        bought, held = _costs(observation, shadow_prices)
        relative = bought - held  # what differs between the weeks in which a unit can be bought
        cheapest_now = relative[:1] <= jax.lax.cummin(relative, axis=0)
        worthwhile = relative[:1] + held < (observation.sale_price + observation.population.lost_sale_penalty)[None, :]
        return positive_part(jnp.sum(jnp.where(cheapest_now & worthwhile, uncovered, 0.0), axis=0))


def _costs(
    observation: Observation, shadow_prices: Float[Array, "lead resource"]
) -> tuple[Float[Array, "lead agent"], Float[Array, "lead agent"]]:
    """Return what a unit bought in each coming week costs, and what holding one from now until that week costs."""
    population = observation.population
    is_stock = jnp.asarray(population.stock_resource, shadow_prices.dtype)
    flow = shadow_prices @ (population.use * (1.0 - is_stock)[None, :]).T
    storage = shadow_prices @ (population.use * is_stock[None, :]).T
    weekly = population.holding_cost[None, :] + storage
    return observation.unit_cost[None, :] + flow, jnp.cumsum(weekly, axis=0) - weekly
