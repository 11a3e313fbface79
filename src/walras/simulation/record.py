"""Own what a simulation keeps: totals by default, totals by group and per-agent traces when asked.

CONTRACT: memory follows from the record; totals add over agents, tile by tile (`engine.tiles`).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from walras.distribute.blocks import TILE, blocked_sums
from walras.errors import SettingsError
from walras.simulation.week import WeekRecord


class Totals(eqx.Module):
    """Sum over agents, per week (and scenario). Units and money as in `WeekRecord`, weights applied.

    Attributes:
        utilization: use of each resource [*scenario, week, resource]; all others are [*scenario, week].
        reward: as in `WeekRecord`; these two are always kept, the others where the record asked for them.
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
"""Fields of `WeekRecord` that can be summed beside utilization and reward, in the order of the rows."""


class Record(eqx.Module):
    """Say what to keep beyond totals.

    Attributes:
        group: group of each agent, to also keep utilization by group; None for no groups.
        n_groups: number of groups.
        agents: also keep every agent's `WeekRecord` (memory: week x agent per quantity).
        flows: which totals to keep beside utilization and reward; each costs time, most of all on few resources.
    """

    group: Int[Array, " agent"] | None = None
    n_groups: int = eqx.field(static=True, default=0)
    agents: bool = eqx.field(static=True, default=False)
    flows: tuple[str, ...] = eqx.field(static=True, default=FLOWS)

    def __check_init__(self) -> None:
        """Refuse totals that there are not."""
        unknown = [name for name in self.flows if name not in FLOWS]
        if unknown:
            raise SettingsError(f"total `{unknown[0]}` is not known; choose from {', '.join(FLOWS)}")

    @staticmethod
    def totals() -> "Record":
        """Keep totals only."""
        return Record()

    @staticmethod
    def use_and_reward() -> "Record":
        """Keep totals of utilization and reward only: all that a search for prices asks."""
        return Record(flows=())

    @staticmethod
    def by_group(group: Int[Array, " agent"], n_groups: int) -> "Record":
        """Keep totals, and utilization by group."""
        return Record(group=group, n_groups=n_groups)

    @staticmethod
    def traces() -> "Record":
        """Keep totals, and what happened to every agent in every week."""
        return Record(agents=True)

    def sums(
        self, week: WeekRecord, weight: Float[Array, " agent"]
    ) -> tuple[Float[Array, "tile row"], Float[Array, "tile cell"] | None]:
        """Sum one week by tile: all totals in rows, and utilization in cells of group and resource."""
        used = [week.utilization[:, index] for index in range(week.utilization.shape[1])]
        rows = blocked_sums([*used, week.reward, *(getattr(week, name) for name in self.flows)], weight)
        return rows, None if self.group is None else _by_group(
            week.utilization * weight[:, None], self.group, self.n_groups
        )


def _by_group(
    use: Float[Array, "agent resource"], group: Int[Array, " agent"], n_groups: int
) -> Float[Array, "tile cell"]:
    """Sum within each tile of agents by group, so that the order of the sum is that of the totals."""
    missing = -use.shape[0] % TILE
    tiles = jnp.pad(use, ((0, missing), (0, 0))).reshape(-1, TILE, use.shape[1])
    groups = jnp.pad(group, (0, missing)).reshape(-1, TILE)
    summed = jax.vmap(lambda u, g: jax.ops.segment_sum(u, g, n_groups))(tiles, groups)
    return summed.reshape(len(tiles), -1)


def as_totals(rows: Float[Array, "*steps row"], flows: tuple[str, ...]) -> Totals:
    """Name the rows that `Record.sums` summed."""
    resources = rows.shape[-1] - len(flows) - 1
    named = {name: rows[..., resources + index] for index, name in enumerate(("reward", *flows))}
    return Totals(utilization=rows[..., :resources], **named)
