"""Own the Panel: one checked, time-major picture of a product table.

CONTRACT: readers and adapters build it, everything after reads it; fields are numpy, never changed in place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float

from walras.errors import SettingsError

DAYS_PER_WEEK = 7


@dataclass(frozen=True, eq=False)
class Panel:
    """Hold weekly product data as dense arrays; `None` means the table did not have the column.

    Attributes:
        agents: product identifiers (`str`, sorted) [agent].
        weeks: first day of each week, seven days apart, ascending (`datetime64[D]`) [week].
        units: demand, or sales standing for it [units per week]; 0 where nothing is recorded.
        on_sale: the product was on the market in that week (from its first record on).
        price: sale price [money per unit], forward- then back-filled within a product.
        unit_cost: purchase cost [money per unit], filled like `price`.
        on_hand: stock at the end of the week [units]; NaN where not recorded.
        orders: replenishment orders placed in the week [units]; NaN where not recorded.
        receipts: replenishment received in the week [units]; NaN where not recorded.
        forecast: the user's demand forecast for the weeks after `weeks[-1]` [units per week]; NaN where not given.
        lead_time: typical replenishment lead time [weeks].
        volume: volume of one unit [volume].
        fill_rate: share of an order the vendor usually delivers, 0..1.
        vendor, category: labels (`str`) [agent].
        provenance: for each field, in words, where its numbers come from ("given", "assumed: ...").
        notes: sentences about what was dropped, summed or filled while reading.
    """

    agents: np.ndarray
    weeks: np.ndarray
    units: Float[np.ndarray, "week agent"]
    on_sale: Bool[np.ndarray, "week agent"]
    price: Float[np.ndarray, "week agent"] | None = None
    unit_cost: Float[np.ndarray, "week agent"] | None = None
    on_hand: Float[np.ndarray, "week agent"] | None = None
    orders: Float[np.ndarray, "week agent"] | None = None
    receipts: Float[np.ndarray, "week agent"] | None = None
    forecast: Float[np.ndarray, "ahead agent"] | None = None
    lead_time: Float[np.ndarray, " agent"] | None = None
    volume: Float[np.ndarray, " agent"] | None = None
    fill_rate: Float[np.ndarray, " agent"] | None = None
    vendor: np.ndarray | None = None
    category: np.ndarray | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def n_weeks(self) -> int:
        """Count the weeks of history."""
        return int(self.units.shape[0])

    @property
    def n_agents(self) -> int:
        """Count the products."""
        return int(self.units.shape[1])

    @property
    def assumed_columns(self) -> tuple[str, ...]:
        """Name the fields whose numbers were assumed, not given."""
        return tuple(sorted(name for name, origin in self.provenance.items() if origin.startswith("assumed")))

    def next_weeks(self, count: int) -> np.ndarray:
        """Date the `count` weeks that follow the history (`datetime64[D]`) [count]."""
        return self.weeks[-1] + DAYS_PER_WEEK * np.arange(1, count + 1)

    def take(self, keep: np.ndarray) -> "Panel":
        """Keep the agents that `keep` (mask or index) selects, in that order."""
        per_week = ("units", "on_sale", "price", "unit_cost", "on_hand", "orders", "receipts", "forecast")
        per_agent = ("agents", "lead_time", "volume", "fill_rate", "vendor", "category")
        change: dict[str, np.ndarray] = {}
        for name in per_week:
            value = getattr(self, name)
            if value is not None:
                change[name] = value[:, keep]
        for name in per_agent:
            value = getattr(self, name)
            if value is not None:
                change[name] = value[keep]
        return replace(self, **change)  # type: ignore[arg-type]

    def before(self, week: int) -> "Panel":
        """Keep the first `week` weeks of history; a forecast is dropped, since its weeks no longer follow."""
        return replace(self._cut(slice(week)), forecast=None)

    def since(self, week: int) -> "Panel":
        """Keep the weeks from number `week` on."""
        return self._cut(slice(week, None))

    def _cut(self, weeks: slice) -> "Panel":
        names = ("weeks", "units", "on_sale", "price", "unit_cost", "on_hand", "orders", "receipts")
        change = {name: getattr(self, name)[weeks] for name in names if getattr(self, name) is not None}
        return replace(self, **change)


def active_agents(panel: Panel, weeks: int = 26) -> Bool[np.ndarray, " agent"]:
    """Mark the agents that sold at least one unit in the last `weeks` weeks.

    Args:
        panel: the history.
        weeks: how far back a sale counts [weeks]; a longer window than the history counts all of it.
    """
    if weeks < 1:
        raise SettingsError(f"the window for active products is {weeks} weeks but needs at least 1; give e.g. 26")
    return np.asarray((panel.units[-weeks:] > 0).any(axis=0))
