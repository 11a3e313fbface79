"""What a plan does to service: lost sales with and without it by week, product and group, and which products give way.

All numbers are means over the unseen futures, from the simulations that verify a plan. "Without" is without prices,
which needs more capacity than there is where it binds; "planned" is under the plan's prices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from walras.planning.protocols import Grid
from walras.population.population import Population
from walras.simulation.record import AgentMeans

MOST_NAMED = 3  # products and groups named as those that give way most in a week
LITTLE = 0.02  # share of its own use by which a product may change and still count as hardly affected

ByWeek = Float[np.ndarray, " week"]


@dataclass(frozen=True, eq=False)
class Service:
    """Demand that met no stock, without prices and under the plan.

    Attributes:
        demand, lost_without, lost_planned: [units; week].
        margin, margin_without, margin_planned: margin (price less unit cost, where above 0) of all demand and of the
            lost units [money; week].
    """

    demand: ByWeek
    lost_without: ByWeek
    lost_planned: ByWeek
    margin: ByWeek
    margin_without: ByWeek
    margin_planned: ByWeek

    def columns(self) -> dict[str, ByWeek]:
        """Return the columns of plan.csv."""
        return {
            "demand": self.demand,
            "lost_without": self.lost_without,
            "lost_planned": self.lost_planned,
            "margin_lost_without": self.margin_without,
            "margin_lost_planned": self.margin_planned,
        }

    def total(self, name: str) -> float:
        """Add up one of the fields over the weeks."""
        return float(getattr(self, name).sum())

    def fill_rate(self, which: str = "planned") -> float:
        """Return the share of demand that is served, "planned" or "without" prices; 1 where there is no demand."""
        return 1.0 - self.total(f"lost_{which}") / max(self.total("demand"), 1e-9)

    def fill_rates(self, which: str = "planned") -> ByWeek:
        """Return the same by week."""
        return 1.0 - getattr(self, f"lost_{which}") / np.maximum(self.demand, 1e-9)


@dataclass(frozen=True, eq=False)
class GroupUse:
    """Use of the first resource and lost sales by groups of products over the horizon, as in `Service`.

    Attributes:
        title: what the groups are ("demand bucket", "category").
        labels: one name per group.
        unconstrained, planned: use without prices and under the plan [group].
        demand, lost_without, lost_planned: [units; group]; `margin_without`, `margin_planned` [money; group].
    """

    title: str
    labels: tuple[str, ...]
    unconstrained: Float[np.ndarray, " group"]
    planned: Float[np.ndarray, " group"]
    demand: Float[np.ndarray, " group"]
    lost_without: Float[np.ndarray, " group"]
    lost_planned: Float[np.ndarray, " group"]
    margin_without: Float[np.ndarray, " group"]
    margin_planned: Float[np.ndarray, " group"]


@dataclass(frozen=True)
class GaveWay:
    """Who uses less of a resource in a week that binds: names and change of use [units], largest reduction first."""

    week: str
    resource: str
    change: float
    products: tuple[tuple[str, float], ...]
    groups: tuple[tuple[str, float], ...]


@dataclass(frozen=True, eq=False)
class ProductOutcomes:
    """What happens to every product without prices and under the plan, means over futures.

    Attributes:
        demand: [units; week, agent].
        without, planned: lost sales and utilization.
        prices: charged, mean over futures [money/unit].
    """

    names: np.ndarray
    population: Population
    demand: Float[np.ndarray, "week agent"]
    without: AgentMeans
    planned: AgentMeans
    prices: Grid

    def _weighted(self, values: Any) -> np.ndarray:
        return np.asarray(values, np.float64) * np.asarray(self.population.weight, np.float64)

    @property
    def _margin(self) -> np.ndarray:
        """Give the margin of a lost sale: one that would have lost money is no loss [money/unit]."""
        return np.maximum(np.asarray(self.population.unit_margin, np.float64), 0.0)

    @property
    def lost(self) -> tuple[np.ndarray, np.ndarray]:
        """Give lost sales without prices and under the plan [units; week, agent]."""
        return self._weighted(self.without.lost_sales), self._weighted(self.planned.lost_sales)

    def use(self, resource: int) -> tuple[np.ndarray, np.ndarray]:
        """Return use without prices and under the plan [units of resource; week, agent]."""
        parts = (self.without.utilization, self.planned.utilization)
        without, planned = (self._weighted(np.asarray(part)[..., resource]) for part in parts)
        return without, planned

    def service(self) -> Service:
        """Add up all products."""
        margin = self._margin
        demand = self._weighted(self.demand)
        parts = (demand, *self.lost)
        return Service(*(part.sum(1) for part in parts), *(part @ margin for part in parts))

    def table(self, category: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return one row per product, those that lose most margin by the plan first.

        Columns: `product`, `category` (where known), `demand`, `use_without`, `use_planned`, `change`, `moved` (units
        used in other weeks than without prices), `lost_without`, `lost_planned` [units], `margin_lost_without`,
        `margin_lost_planned` [money], `price_met` (mean price of a unit used), `margin_per_unit` [money per unit of
        the first resource], and `why` in words.
        """
        margin = np.asarray(self.population.unit_margin, np.float64)
        without, planned = self.use(0)
        lost_without, lost_planned = (part.sum(0) for part in self.lost)
        use_without, use_planned = without.sum(0), planned.sum(0)
        moved = np.minimum(np.maximum(planned - without, 0).sum(0), np.maximum(without - planned, 0).sum(0))
        paid = sum(self.prices[:, index] @ self.use(index)[1] for index in range(self.prices.shape[1]))
        met = np.divide(paid, use_planned, out=np.zeros_like(use_planned), where=use_planned > 0)
        per_unit = margin / np.maximum(np.asarray(self.population.use, np.float64)[:, 0], 1e-12)
        columns = {
            "product": np.asarray(self.names, str),
            **({} if category is None else {"category": np.asarray(category, str)}),
            "demand": self._weighted(self.demand).sum(0),
            "use_without": use_without,
            "use_planned": use_planned,
            "change": use_planned - use_without,
            "moved": moved,
            "lost_without": lost_without,
            "lost_planned": lost_planned,
            "margin_lost_without": lost_without * self._margin,
            "margin_lost_planned": lost_planned * self._margin,
            "price_met": met,
            "margin_per_unit": per_unit,
            "why": _reasons(use_without, use_planned, moved, per_unit, float(np.max(self.prices, initial=0.0))),
        }
        order = np.argsort(-(columns["margin_lost_planned"] - columns["margin_lost_without"]), kind="stable")
        return {name: values[order] for name, values in columns.items()}

    def group(self, title: str, code: Int[np.ndarray, " agent"], labels: Sequence[str]) -> GroupUse:
        """Add up groups of products."""
        margin = self._margin
        lost = [part.sum(0) for part in self.lost]
        use = [part.sum(0) for part in self.use(0)]
        columns = (*use, self._weighted(self.demand).sum(0), *lost, *(part * margin for part in lost))
        return GroupUse(title, tuple(labels), *(np.bincount(code, part, len(labels)) for part in columns))

    def gave_way(
        self, weeks: np.ndarray, code: Int[np.ndarray, " agent"], labels: Sequence[str]
    ) -> tuple[GaveWay, ...]:
        """Name who uses less in every week with a price, the largest reductions first."""
        found = []
        for resource, name in enumerate(self.population.resources):
            without, planned = self.use(resource)
            for week in np.flatnonzero(self.prices[:, resource] > 0):
                change = planned[week] - without[week]
                groups = np.bincount(code, change, len(labels))
                products = _largest_drops(self.names, change), _largest_drops(np.asarray(labels), groups)
                found.append(GaveWay(str(weeks[week]), name, float(change.sum()), *products))
        return tuple(found)


def _largest_drops(names: np.ndarray, change: np.ndarray) -> tuple[tuple[str, float], ...]:
    count = min(MOST_NAMED, len(change))
    most = np.argpartition(change, count - 1)[:count] if count else np.zeros(0, int)
    most = most[np.argsort(change[most], kind="stable")]
    return tuple((str(names[index]), float(change[index])) for index in most if change[index] < 0)


def _reasons(
    without: np.ndarray, planned: np.ndarray, moved: np.ndarray, per_unit: np.ndarray, highest: float
) -> np.ndarray:
    """Say for every product why it gave up what it did, from its margin per unit and the highest price."""
    base = np.maximum(without, 1e-9)
    conditions = (
        without <= 0,
        (planned < (1 - LITTLE) * without) & (per_unit < highest),
        planned < (1 - LITTLE) * without,
        moved > LITTLE * base,
    )
    words = (
        "no use in these weeks",
        "gives way: a unit earns less than the highest price",
        "orders less: prices raise the cost of safety stock",
        "orders in cheaper weeks",
    )
    return np.select(conditions, words, "hardly affected")
