"""What in a plan needs a decision: at most ten exceptions, by money, each with an action."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from walras.planning.result import PlanResult

MOST = 10  # exceptions of a plan
MOST_PRODUCTS = 3  # of them of one kind that are about single products
OVER = 0.01  # share of capacity above which median use exceeds it
IDLE = 0.1  # share of capacity that is idle in nearly every future
UNSERVED = 0.1  # share of a product's demand that is lost without any prices


@dataclass(frozen=True)
class PlanException:
    """One thing to decide: its kind, where it is (empty where that does not apply), the money at stake and an action.

    Kinds: "committed" (earlier orders exceed capacity), "over" (use exceeds capacity), "more capacity" (is worth more
    than it costs, or more than nothing where none can be bought), "idle" (capacity that nearly no future uses), "gives
    way" (a product that loses sales by the plan), "short" (a product that loses them anyway).
    """

    kind: str
    money: float
    words: str
    action: str
    week: str = ""
    resource: str = ""
    product: str = ""


def find_exceptions(result: "PlanResult") -> tuple[PlanException, ...]:
    """Return the exceptions with the most money at stake, largest first."""
    found = [*_overruns(result), *_more_capacity(result), *_idle(result), *_products(result)]
    return tuple(sorted(found, key=lambda exception: -exception.money)[:MOST])


def _overruns(result: "PlanResult") -> Iterator[PlanException]:
    """Value units above capacity, in the median future, at the median margin."""
    capacity, use, margin = result.record.capacity, result.verified_utilization[1], result.money.get("price_scale", 0.0)
    for week, resource in np.argwhere(use > (1 + OVER) * capacity):
        limit, fixed = float(capacity[week, resource]), float(result.committed[week, resource])
        over = float(use[week, resource]) - limit
        name = result.resources[resource].replace("_", " ")
        place: dict[str, Any] = {"week": str(result.weeks[week]), "resource": result.resources[resource]}
        if fixed > (1 + OVER) * limit:
            words = f"orders already placed need {_n(fixed)} {name}, capacity is {_n(limit)}; no price helps"
            action = f"postpone or cancel orders of {_n(fixed - limit)}, or arrange as much more capacity"
            yield PlanException("committed", margin * over, words, action, **place)
        else:
            words = f"half of the futures need {_n(over)} {name} or more beyond the capacity of {_n(limit)}"
            yield PlanException("over", margin * over, words, f"arrange {_n(over)} more, or let orders slip", **place)


def _more_capacity(result: "PlanResult") -> Iterator[PlanException]:
    for known in result.price_ranges:
        paid = {label: cost for label, cost in (known.cost or {}).items() if cost is not None}
        gains = {label: (known.worth or {})[label] - cost for label, cost in paid.items()}
        place: dict[str, Any] = {"week": known.week, "resource": known.resource}
        name = known.resource.replace("_", " ")
        if gains and (net := max(gains.values())) > 0:
            label = max(gains, key=lambda size: gains[size])
            words = f"{label} {name} costs {_n(paid[label])} and is worth {_n(net + paid[label])} by simulation"
            yield PlanException("more capacity", net, words, f"plan {label} in this week", **place)
        elif known.worth and not gains and known.per_unit and known.per_unit > 0:
            units, worth = 0.1 * known.capacity, known.worth["+10 %"]
            words = f"no more {name} can be bought; {_n(units)} more would be worth {_n(worth)} by simulation"
            action = f"find {_n(units)} more if a unit costs less than {_n(known.per_unit)}"
            yield PlanException("more capacity", worth, words, action, **place)


def _idle(result: "PlanResult") -> Iterator[PlanException]:
    """Value regular capacity that even the 95 % quantile of use leaves idle at its rate."""
    costs = result.settings.get("costs", {})
    for index, name in enumerate(result.resources):
        own = {**costs, **costs.get("resource", {}).get(name, {})}
        unit = result.money.get("price_scale", 0.0) if own.get("rates") == "margin" else 1.0
        rate = unit * own.get("regular_rate", 0.0)
        capacity, use = result.record.capacity[:, index], result.verified_utilization[2, :, index]
        idle = np.where(capacity - use > IDLE * capacity, capacity - use, 0.0)
        weeks = int((idle > 0).sum())
        if weeks and rate > 0:
            words = f"{_n(float(idle.sum()))} {name.replace('_', ' ')} in {weeks} weeks stay idle in 19 of 20 futures"
            action = "use it elsewhere, or give it back (lower_bound below 1) if the contract allows"
            yield PlanException("idle", rate * float(idle.sum()), words, action, resource=name)


def _products(result: "PlanResult") -> Iterator[PlanException]:
    """Name the products that lose most margin by the plan, and those that lose it anyway."""
    table = result.products
    if not table:
        return
    lost, anyway = table["margin_lost_planned"] - table["margin_lost_without"], table["margin_lost_without"]
    for row in _largest(lost):
        units = table["lost_planned"][row] - table["lost_without"][row]
        why = str(table["why"][row]).removeprefix("gives way: ")
        words = f"loses {_n(units)} of {_n(table['demand'][row])} units by the plan ({why})"
        action = f"keep it in stock by ordering {_n(units)} in weeks without a price, or accept the loss"
        yield PlanException("gives way", float(lost[row]), words, action, product=str(table["product"][row]))
    short = np.where(table["lost_without"] > UNSERVED * table["demand"], anyway, 0.0)
    for row in _largest(short):
        part, of = table["lost_without"][row], table["demand"][row]
        words = f"loses {_n(part)} of {_n(of)} units even without prices: stock and open orders come too late"
        action = "expedite or raise its orders now; no plan of capacity changes this"
        yield PlanException("short", float(short[row]), words, action, product=str(table["product"][row]))


def _largest(values: np.ndarray) -> list[int]:
    rows = np.argsort(-values, kind="stable")[:MOST_PRODUCTS]
    return [int(row) for row in rows if values[row] > 0]


def _n(value: float) -> str:
    """Write a number with about three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
