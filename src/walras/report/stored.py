"""Questions to stored plans: what differs between two of them, and what another capacity would bring."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from walras.errors import InputError
from walras.planning.capacity_response import SIZES, CapacityResponse
from walras.report.formatting import flat, listing, number, percent, signed

SAME = 5e-3
"""Relative difference below which two numbers count as the same: about what a search leaves open."""

MOST_ROWS = 12
"""Weeks and products that are printed; `--json` has all."""

WEEKLY = ("capacity", "shadow_prices", "utilization", "committed")
MONEY = ("plan_cost", "acquisition_cost", "margin_lost", "reward_plan", "total_cost")
BY_PRODUCT = ("use_planned", "lost_planned", "margin_lost_planned")


@dataclass(frozen=True, eq=False)
class StoredPlan:
    """`report.json` and the products of a plan's folder."""

    folder: Path
    facts: Mapping[str, Any]
    products: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, folder: Path) -> "StoredPlan":
        """Read a folder that `walras plan` wrote.

        Raises:
            InputError: it has no `report.json` or `products.csv` of this version.
        """
        import pyarrow
        import pyarrow.csv

        folder = folder.parent if folder.is_file() else folder
        try:
            facts = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            options = pyarrow.csv.ConvertOptions(column_types={"product": pyarrow.string()})
            table = pyarrow.csv.read_csv(folder / "products.csv", convert_options=options)
            facts["lost_sales"], facts["weeks"], facts["money"]
        except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowInvalid) as error:
            needed = "the folder that `walras plan --out` wrote is needed; plan again, or name that folder"
            raise InputError(f"`{folder}` holds no plan that can be read ({error}); {needed}") from None
        return cls(folder, facts, {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names})

    def weekly(self, name: str) -> dict[tuple[str, str], float]:
        """Return a quantity by week and resource."""
        values = self.facts[name]
        return {
            (week, resource): float(values[resource][index] or 0.0)
            for index, week in enumerate(self.facts["weeks"])
            for resource in self.facts["resources"]
        }


def differs(first: float, second: float, scale: float = 0.0) -> bool:
    """Return whether two numbers differ by more than a search leaves open, relative to them or to `scale`."""
    return abs(first - second) > SAME * max(abs(first), abs(second), scale, 1e-12)


def compare_plans(first: StoredPlan, second: StoredPlan) -> dict[str, Any]:
    """Return what differs: `settings`, `money`, `service`, `weeks` and `products`, each with both values."""
    parts = [dict(flat(plan.facts.get("settings") or {}, absent="")) for plan in (first, second)]
    settings = {name: [part.get(name) for part in parts] for name in sorted({*parts[0], *parts[1]})}
    money = {name: [plan.facts["money"].get(name) for plan in (first, second)] for name in MONEY}
    lost = {
        f"lost_{unit}": [plan.facts["lost_sales"][unit]["planned"] for plan in (first, second)]
        for unit in ("units", "margin")
    }
    service = {"fill_rate": [plan.facts["service"]["fill_rate"]["planned"] for plan in (first, second)], **lost}
    return {
        "settings": {name: pair for name, pair in settings.items() if pair[0] != pair[1]},
        "money": {name: pair for name, pair in money.items() if None not in pair and differs(*pair)},
        "service": {name: pair for name, pair in service.items() if differs(*pair)},
        "weeks": _differing_weeks(first, second),
        "products": _differing_products(first, second),
    }


def _differing_weeks(first: StoredPlan, second: StoredPlan) -> list[dict[str, Any]]:
    """List weeks and resources with other numbers, or that only one plan has (None in the other)."""
    values = {name: (first.weekly(name), second.weekly(name)) for name in WEEKLY}
    # Prices and committed use near zero differ relatively without meaning: they are compared with the largest.
    scales = {name: max((*one.values(), *other.values()), default=0.0) for name, (one, other) in values.items()}
    rows = []
    for key in sorted({*values["capacity"][0], *values["capacity"][1]}):
        row: dict[str, Any] = {}
        for name, (one, other) in values.items():
            pair = [one.get(key), other.get(key)]
            if None in pair or differs(one[key], other[key], scales[name]):
                row[name] = pair
        if row:
            rows.append({"week": key[0], "resource": key[1], **row})
    return rows


def _differing_products(first: StoredPlan, second: StoredPlan) -> dict[str, Any]:
    """List products with other numbers, most margin first, and those that only one plan has."""
    names = [plan.products["product"].astype(str) for plan in (first, second)]
    both, left, right = np.intersect1d(names[0], names[1], return_indices=True)
    pairs = {name: (first.products[name][left], second.products[name][right]) for name in BY_PRODUCT}
    apart = np.zeros(len(both), bool)
    for one, other in pairs.values():
        apart |= np.abs(one - other) > SAME * np.maximum(np.maximum(np.abs(one), np.abs(other)), 1e-9)
    one, other = pairs["margin_lost_planned"]
    order = np.flatnonzero(apart)
    order = order[np.argsort(-np.abs(other - one)[order], kind="stable")]
    return {
        "differing": [
            {"product": both[row], **{name: [float(part[row]) for part in pair] for name, pair in pairs.items()}}
            for row in order
        ],
        "only_first": np.setdiff1d(names[0], names[1]).tolist(),
        "only_second": np.setdiff1d(names[1], names[0]).tolist(),
    }


def comparison_parts(found: Mapping[str, Any]) -> list[Any]:
    """Return sentences and tables that say what differs."""
    products = found["products"]
    parts: list[Any] = []
    for title, name in (("Settings", "settings"), ("Money", "money"), ("Service", "service")):
        if found[name]:
            rows = [(key.replace("_", " "), *_both(pair)) for key, pair in found[name].items()]
            parts.append(_table(title, ("", "first", "second", "difference"), rows))
    if found["weeks"]:
        rows = []
        for row in found["weeks"]:
            place = [row["week"], row["resource"]]
            rows += [(*place, name.replace("_", " "), *_both(row[name])) for name in WEEKLY if name in row]
        parts.append(_table("Weeks", ("week", "resource", "", "first", "second", "difference"), rows))
    if products["differing"]:
        rows = [(row["product"], *_both(row["margin_lost_planned"]), *map(number, row["use_planned"]))
                for row in products["differing"]]  # fmt: skip
        headings = ("product", "margin lost, first", "second", "difference", "use, first", "second")
        parts.append(_table("Products, most margin first", headings, rows))
    for name, which in (("only_first", "first"), ("only_second", "second")):
        if products[name]:
            parts.append(f"Only in the {which} plan: {len(products[name])} products, {listing(products[name])}.")
    same = "The plans agree in settings, money, service, weeks and products (to 0.5 %)."
    return parts or [same]


def _both(pair: list[Any]) -> tuple[str, str, str]:
    first, second = pair
    if isinstance(first, int | float) and isinstance(second, int | float):
        return number(first), number(second), signed(number(second - first))
    first, second = (number(part) if isinstance(part, int | float) else str(part or "") for part in pair)
    return first, second, ""


def _table(title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    left_out = f" ({len(rows) - MOST_ROWS} more: --json)" if len(rows) > MOST_ROWS else ""
    table = Table(title=title + left_out, title_justify="left", box=None, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows[:MOST_ROWS]:
        table.add_row(*row)
    return table


def other_capacity(response: CapacityResponse, changes: tuple[str, ...]) -> np.ndarray:
    """Read `[RESOURCE:]WEEK=UNITS` or `[RESOURCE:]WEEK=+10%` and return the capacity with these changes [entry].

    Raises:
        InputError: a change that cannot be read, or a week or resource that is not planned.
    """
    capacity, names = response.capacity.copy(), response.resources.astype(str).tolist()
    weeks = response.weeks.astype(str).tolist()
    for change in changes:
        place, _, value = change.partition("=")
        resource, _, week = place.rpartition(":")
        resource = resource or names[0]
        if week not in weeks or resource not in names:
            planned = f"weeks {weeks[0]} to {weeks[-1]}, seven days apart, and {listing(names)} are planned"
            raise InputError(f"`--capacity {change}` names a week or resource that is not planned; {planned}")
        entry = weeks.index(week) * len(names) + names.index(resource)
        try:
            amount = float(value.removesuffix("%").replace(",", ""))
        except ValueError:
            amount = np.nan
        new = response.capacity[entry] * (1 + amount / 100) if value.endswith("%") else amount
        if not (np.isfinite(new) and new >= 0):
            needed = "give units of at least 0, such as 2026-11-09=52000, or a change such as 2026-11-09=+10%"
            raise InputError(f"`--capacity {change}` is no capacity; {needed}")
        capacity[entry] = new
    return capacity


def what_if(response: CapacityResponse, capacity: np.ndarray) -> dict[str, Any]:
    """Estimate what a plan with another capacity gains and costs, and how far off such estimates were."""
    moved = np.flatnonzero(capacity != response.capacity)
    worth, cost = response.estimate(capacity), response.cost(capacity) - response.cost(response.capacity)
    tested = np.intersect1d(moved, response.simulated)
    share = capacity[tested] / np.maximum(response.capacity[tested], 1e-12) - 1
    unknown = moved[(capacity[moved] < response.use[moved]) & ~np.isin(moved, response.simulated)]
    rows = []
    for entry in moved:
        week, resource = divmod(int(entry), len(response.resources))
        rows.append({
            "week": str(response.weeks[week]),
            "resource": str(response.resources[resource]),
            "capacity": [float(response.capacity[entry]), float(capacity[entry])],
            "expected_use": float(response.use[entry]),
            "price": [float(response.prices[entry]), response.price(int(entry), float(capacity[entry]))],
        })  # fmt: skip
    return {
        "worth": worth,
        "cost": cost,
        "net": worth - cost,
        "weeks": rows,
        "not_simulated": sorted({str(response.weeks[entry // len(response.resources)]) for entry in unknown}),
        "beyond_simulated": bool((share < SIZES[0] - 1e-9).any() or (share > SIZES[-1] + 1e-9).any()),
        "beyond_purchase": bool((capacity > response.edges[:, -1] * (1 + 1e-9)).any()),
        "error": response.error,
    }


def what_if_parts(found: Mapping[str, Any]) -> list[Any]:
    """Return sentences and a table for the terminal."""
    if not found["weeks"]:
        return ["This is the capacity of the plan: nothing changes."]
    gain = "gains" if found["net"] >= 0 else "loses"
    parts: list[Any] = [
        f"This {gain} {number(abs(found['net']))}: products earn {signed(number(found['worth']))}, capacity costs "
        f"{signed(number(found['cost']))}."
    ]
    several = len({row["resource"] for row in found["weeks"]}) > 1
    rows = []
    for row in found["weeks"]:
        numbers = *_both(row["capacity"]), number(row["expected_use"]), *map(number, row["price"])
        rows.append((row["week"], *([row["resource"]] if several else []), *numbers))
    place = ("week", "resource") if several else ("week",)
    headings = (*place, "capacity", "then", "difference", "expected use", "price", "then")
    parts.append(_table("Weeks that change", headings, rows))
    off = (
        "it was not tested"
        if found["error"] is None
        else f"tested, it was off by {percent(found['error'], 0)} in the median"
    )
    parts.append(f"An estimate from capacities that were simulated for this plan; {off}. `walras plan` searches anew.")
    if found["not_simulated"]:
        days = listing(found["not_simulated"])
        parts.append(f"Less than the expected use was not simulated in {days}: what that costs is a guess; plan again.")
    if found["beyond_simulated"]:
        parts.append("A change is beyond the -10 % to +20 % that were simulated: a rough guess there.")
    if found["beyond_purchase"]:
        parts.append("More than the costs say can be bought: the last rate was used for the rest.")
    return parts
