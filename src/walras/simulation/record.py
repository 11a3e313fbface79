"""What a simulation keeps: totals by default, on request totals by group and per-agent traces."""

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from walras.distribute.blocks import TILE, blocked_sums
from walras.errors import SettingsError
from walras.simulation.week import WeekRecord


class Totals(eqx.Module):
    """Weighted sums over agents, per week (and scenario); units and money as in `WeekRecord`.

    Attributes:
        utilization: use of each resource [*scenario, week, resource]; all others are [*scenario, week].
        reward: as in `WeekRecord`; these two are always kept, the others where the record asks for them.
    """

    utilization: Float[Array, "*steps resource"]
    reward: Float[Array, "*steps"]
    demand: Float[Array, "*steps"] | None = None
    sales: Float[Array, "*steps"] | None = None
    lost_sales: Float[Array, "*steps"] | None = None
    receipts: Float[Array, "*steps"] | None = None
    orders: Float[Array, "*steps"] | None = None
    refused: Float[Array, "*steps"] | None = None
    stock_end: Float[Array, "*steps"] | None = None


FLOWS = ("demand", "sales", "lost_sales", "receipts", "orders", "refused", "stock_end")
"""Fields of `WeekRecord` that can be summed besides utilization and reward, in the order of the rows."""


class AgentMeans(eqx.Module):
    """What happened to every agent, averaged over scenarios: small enough to keep for a large population.

    Attributes:
        lost_sales: demand that met no stock [units; week, agent].
        utilization: use of each resource [week, agent, resource].
    """

    lost_sales: Float[Array, "*steps agent"]
    utilization: Float[Array, "..."]


Kept = TypeVar("Kept", WeekRecord, AgentMeans)


class Record(eqx.Module):
    """What to keep beyond totals.

    Attributes:
        group: number of each agent's group, of `n_groups`, to keep utilization by group; None for no groups.
        agents: also keep every agent's `WeekRecord` (memory: scenario x week x agent per quantity).
        means: keep `AgentMeans` instead.
        flows: which totals to keep besides utilization and reward; each costs time.
    """

    group: Int[Array, " agent"] | None = None
    n_groups: int = eqx.field(static=True, default=0)
    agents: bool = eqx.field(static=True, default=False)
    means: bool = eqx.field(static=True, default=False)
    flows: tuple[str, ...] = eqx.field(static=True, default=FLOWS)

    def __check_init__(self) -> None:
        unknown = [name for name in self.flows if name not in FLOWS]
        if unknown:
            raise SettingsError(f"total `{unknown[0]}` is not known; choose from {', '.join(FLOWS)}")

    @staticmethod
    def totals() -> "Record":
        """Keep totals only."""
        return Record()

    @staticmethod
    def use_and_reward() -> "Record":
        """Keep totals of utilization and reward only, all that a search for prices needs."""
        return Record(flows=())

    @staticmethod
    def by_group(group: Int[Array, " agent"], n_groups: int) -> "Record":
        """Keep totals, and utilization by group."""
        return Record(group=group, n_groups=n_groups)

    @staticmethod
    def traces() -> "Record":
        """Keep totals, and what happened to every agent in every week."""
        return Record(agents=True)

    def of_agents(self, week: WeekRecord) -> WeekRecord | AgentMeans | None:
        """Return what is kept of every agent in one week."""
        if self.means:
            return swap_agents_resources(AgentMeans(week.lost_sales, week.utilization))
        return swap_agents_resources(week) if self.agents else None

    def sums(
        self, week: WeekRecord, weight: Float[Array, " agent"]
    ) -> tuple[Float[Array, "tile row"], Float[Array, "tile cell"] | None]:
        """Return the sums of one week by tile: totals in rows, utilization in cells of group and resource."""
        used = [week.utilization[:, index] for index in range(week.utilization.shape[1])]
        rows = blocked_sums([*used, week.reward, *(getattr(week, name) for name in self.flows)], weight)
        use = week.utilization * weight[:, None]
        return rows, None if self.group is None else _by_group(use, self.group, self.n_groups)


def swap_agents_resources(record: Kept) -> Kept:
    """Exchange the last two axes of utilization: agents last, as in all other traces, or back again."""
    return eqx.tree_at(lambda r: r.utilization, record, jnp.moveaxis(record.utilization, -1, -2))


def _by_group(
    use: Float[Array, "agent resource"], group: Int[Array, " agent"], n_groups: int
) -> Float[Array, "tile cell"]:
    """Sum by group within each tile of agents, in the order of the totals."""
    missing = -use.shape[0] % TILE
    tiles = jnp.pad(use, ((0, missing), (0, 0))).reshape(-1, TILE, use.shape[1])
    groups = jnp.pad(group, (0, missing)).reshape(-1, TILE)
    summed = jax.vmap(lambda u, g: jax.ops.segment_sum(u, g, n_groups))(tiles, groups)
    return summed.reshape(len(tiles), -1)


def as_totals(rows: Float[Array, "*steps row"], flows: tuple[str, ...]) -> Totals:
    """Name the rows of `Record.sums`."""
    resources = rows.shape[-1] - len(flows) - 1
    named = {name: rows[..., resources + index] for index, name in enumerate(("reward", *flows))}
    return Totals(utilization=rows[..., :resources], **named)
