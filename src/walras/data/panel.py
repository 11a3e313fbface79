"""The Panel: one checked, time-major product table.

CONTRACT: readers and adapters build it, everything after reads it; fields are numpy, never changed in place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float

from walras.errors import SettingsError

DAYS_PER_WEEK = 7
WEEKLY = ("units", "on_sale", "price", "unit_cost", "on_hand", "orders", "receipts")
"""Fields with a week axis of the history and an agent axis."""


@dataclass(frozen=True, eq=False)
class Panel:
    """Weekly product data as dense arrays; `None` means that the table lacks the column.

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
        provenance: for each field, the source of its numbers in words ("given", "assumed: ...").
        notes: sentences about what was dropped, summed or filled while reading.
        read_as: how the file was understood, e.g. decimal mark, dates, week start; empty for frames and adapters.
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
    read_as: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_weeks(self) -> int:
        """Count the weeks of history."""
        return int(self.units.shape[0])

    @property
    def n_agents(self) -> int:
        """Count the products."""
        return int(self.units.shape[1])

    def __str__(self) -> str:
        """Return a small table: size, dates, and where each field comes from."""
        rows = [
            ("products", f"{self.n_agents:,}"),
            ("weeks", f"{self.n_weeks:,}, {self.weeks[0]} to {self.weeks[-1]}" if self.n_weeks else "0"),
            ("total units", f"{self.units.sum():,.0f}"),
            *((name, origin) for name, origin in self.provenance.items()),
            *(("note", note) for note in self.notes),
        ]
        return "\n".join(["Panel", *(f"  {name:<12}{value}" for name, value in rows)])

    @property
    def out_of_stock(self) -> Bool[np.ndarray, "week agent"]:
        """Mark weeks whose demand is unknown: no sales and no stock, of products that otherwise keep stock."""
        if self.on_hand is None:
            return np.zeros(self.units.shape, bool)
        sold, empty = self.units > 0, self.on_hand == 0
        stocked = 2 * (sold & ~empty).sum(0) > sold.sum(0)  # what is made to order has no stock to run out of
        return self.on_sale & empty & ~sold & stocked

    @property
    def assumed_columns(self) -> tuple[str, ...]:
        """Name the fields whose numbers were assumed, not given."""
        return tuple(sorted(name for name, origin in self.provenance.items() if origin.startswith("assumed")))

    def next_weeks(self, count: int) -> np.ndarray:
        """Date the `count` weeks that follow the history (`datetime64[D]`) [count]."""
        return self.weeks[-1] + DAYS_PER_WEEK * np.arange(1, count + 1)

    def take(self, index: np.ndarray) -> "Panel":
        """Keep the agents that `index` (mask or numbers) selects, in that order."""
        selected = {
            name: getattr(self, name)[..., index]
            for name in (*WEEKLY, "forecast", "agents", "lead_time", "volume", "fill_rate", "vendor", "category")
            if getattr(self, name) is not None
        }
        return replace(self, **selected)

    def before(self, week: int) -> "Panel":
        """Keep the first `week` weeks of history; a forecast is dropped, since its weeks no longer follow."""
        return replace(self._cut(slice(week)), forecast=None)

    def since(self, week: int) -> "Panel":
        """Keep the weeks from number `week` on."""
        return self._cut(slice(week, None))

    def _cut(self, weeks: slice) -> "Panel":
        names = ("weeks", *WEEKLY)
        return replace(self, **{name: getattr(self, name)[weeks] for name in names if getattr(self, name) is not None})


def active_agents(panel: Panel, weeks: int = 26) -> Bool[np.ndarray, " agent"]:
    """Mark the agents that sold at least one unit in the last `weeks` weeks, or are new and have a forecast.

    Args:
        panel: the history.
        weeks: how far back a sale counts [weeks]; a longer window than the history counts all of it.
    """
    if weeks < 1:
        raise SettingsError(f"the window for active products is {weeks} weeks but needs at least 1; give e.g. 26")
    sold = np.asarray((panel.units[-weeks:] > 0).any(axis=0))
    if panel.forecast is None:
        return sold
    return sold | (~(panel.units > 0).any(axis=0) & (np.nan_to_num(panel.forecast) > 0).any(axis=0))
