"""Own what a simulation keeps: totals by default, totals by group and per-agent traces when asked.

CONTRACT: memory follows from the record; totals add over agents, so blocks of agents can be summed.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from walras.model.week import WeekRecord


class Totals(eqx.Module):
    """Sum over agents, per week (and scenario). Units and money as in `WeekRecord`, weights applied.

    Attributes:
        utilization: use of each resource [*scenario, week, resource]; all others are [*scenario, week]. While a week is
            being recorded there is no week axis yet.
    """

    utilization: Float[Array, "*steps resource"]
    reward: Float[Array, "*steps"]
    demand: Float[Array, "*steps"]
    sales: Float[Array, "*steps"]
    lost_sales: Float[Array, "*steps"]
    receipts: Float[Array, "*steps"]
    orders: Float[Array, "*steps"]
    refused: Float[Array, "*steps"]
    stock_end: Float[Array, "*steps"]


class Record(eqx.Module):
    """Say what to keep beyond totals.

    Attributes:
        group: group of each agent, to also keep utilization by group; None for no groups.
        n_groups: number of groups.
        agents: also keep every agent's `WeekRecord` (memory: week x agent per quantity).
    """

    group: Int[Array, " agent"] | None = None
    n_groups: int = eqx.field(static=True, default=0)
    agents: bool = eqx.field(static=True, default=False)

    @staticmethod
    def totals() -> "Record":
        """Keep totals only."""
        return Record()

    @staticmethod
    def by_group(group: Int[Array, " agent"], n_groups: int) -> "Record":
        """Keep totals, and utilization by group."""
        return Record(group=group, n_groups=n_groups)

    @staticmethod
    def traces() -> "Record":
        """Keep totals, and what happened to every agent in every week."""
        return Record(agents=True)

    def keep(
        self, week: WeekRecord, weight: Float[Array, " agent"]
    ) -> tuple[Totals, Float[Array, "group resource"] | None, WeekRecord | None]:
        """Reduce one week of a block of agents to what is kept of it."""

        def total(value: Float[Array, " agent"]) -> Float[Array, ""]:
            return jnp.sum(value * weight)

        use = week.utilization * weight[:, None]
        totals = Totals(
            utilization=use.sum(0),
            reward=total(week.reward),
            demand=total(week.demand),
            sales=total(week.sales),
            lost_sales=total(week.lost_sales),
            receipts=total(week.receipts),
            orders=total(week.orders),
            refused=total(week.refused),
            stock_end=total(week.stock_end),
        )
        groups = None if self.group is None else jax.ops.segment_sum(use, self.group, self.n_groups)
        return totals, groups, week if self.agents else None
