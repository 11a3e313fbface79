"""Instances read from tables of order lines, with stock and places from files or assumed."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from numpy import ndarray

from walras.data.column_checks import Column, numbers, one_array, repeated_rows, texts
from walras.data.records import match_columns
from walras.data.sources import open_source
from walras.domains.fulfilment.instance import LARGEST, Instance, allocate, distance_reward, make_instance, split
from walras.errors import FailFast, InputError

CENTRES = (
    ("London", 51.5, -0.1, 9.0), ("Birmingham", 52.5, -1.9, 2.9), ("Manchester", 53.5, -2.2, 2.8),
    ("Leeds", 53.8, -1.5, 1.9), ("Glasgow", 55.9, -4.3, 1.7), ("Bristol", 51.5, -2.6, 0.7), ("Dublin", 53.3, -6.3, 1.4),
    ("Rotterdam", 51.9, 4.5, 1.0), ("Frankfurt", 50.1, 8.7, 2.3), ("Lyon", 45.8, 4.8, 1.7),
)  # fmt: skip
"""Assumed centres where no file gives them: name, latitude, longitude, weight."""

COUNTRIES = {
    "United Kingdom": (52.5, -1.5), "EIRE": (53.3, -7.5), "Germany": (51.0, 10.0), "France": (46.6, 2.4),
    "Netherlands": (52.2, 5.3), "Spain": (40.3, -3.7), "Switzerland": (46.8, 8.2), "Belgium": (50.6, 4.7),
    "Portugal": (39.6, -8.0), "Channel Islands": (49.4, -2.4), "Sweden": (60.1, 15.0), "Italy": (42.8, 12.6),
    "Australia": (-25.3, 134.5), "Cyprus": (35.0, 33.2), "Austria": (47.6, 14.1), "Greece": (39.1, 22.9),
    "Denmark": (56.0, 10.0), "Norway": (61.0, 8.7), "Finland": (62.0, 26.0), "Japan": (36.5, 138.0),
    "Poland": (52.1, 19.4), "USA": (39.8, -98.6), "Singapore": (1.35, 103.8), "Malta": (35.9, 14.4),
    "Iceland": (65.0, -18.6), "Israel": (31.4, 35.0), "Lithuania": (55.3, 23.9), "Canada": (56.1, -106.3),
    "United Arab Emirates": (24.0, 54.0), "Hong Kong": (22.3, 114.2), "Bahrain": (26.0, 50.5), "RSA": (-29.0, 24.7),
    "Brazil": (-10.8, -52.9), "Thailand": (15.1, 101.0), "Lebanon": (33.9, 35.9), "West Indies": (17.5, -65.0),
    "Korea": (36.5, 127.8), "Bermuda": (32.3, -64.8), "Nigeria": (9.6, 8.1), "European Community": (50.1, 9.8),
    "Czech Republic": (49.7, 15.3), "Saudi Arabia": (24.1, 44.5), "Unspecified": (-80.0, 0.0),
}  # fmt: skip
"""Latitude and longitude of countries as the Online Retail II data set spells them; `Unspecified` earns nothing."""


@dataclass(frozen=True)
class Places:
    """Latitude and longitude of places; names, shares of stock and capacity, and given capacity [units] of centres."""

    spots: dict[str, tuple[float, float]]
    names: tuple[str, ...]
    weight: Float[ndarray, " centre"]
    capacity: Int[ndarray, " centre"] | None = None


ASSUMED = Places(
    COUNTRIES | {name: (latitude, longitude) for name, latitude, longitude, _ in CENTRES},
    tuple(name for name, *_ in CENTRES),
    np.array([weight for *_, weight in CENTRES]) / np.sum([weight for *_, weight in CENTRES]),
)


def read_orders(
    path: str | Path,
    stock_share: float = 0.8,
    capacity_share: float = 0.8,
    seed: int = 0,
    *,
    stock: str | Path | None = None,
    places: str | Path | None = None,
    refills: int = 0,
) -> Instance:
    """Read order lines; each line is one order for units of a product to a country or place.

    Args:
        path: file with `unique_id`, `country`, `qty` and, if known, `ts`, in the order of time.
        stock_share: units in stock of a product over the units ordered of it, where no file gives stock.
        capacity_share: units that all centres can send over all units ordered, where no file gives capacity.
        seed: of the rounding of stock and capacity.
        stock: file with `unique_id`, `centre`, `stock`.
        places: file with `place`, `latitude`, `longitude` and `capacity`, which is empty for places without a centre.
        refills: times at which as much capacity as at the start is added; where no file gives it the total stays.

    Raises:
        InputError: a file cannot be read, lacks a column, or has an invalid row: which one, and what is needed.
    """
    read = _read_columns(path, ("unique_id", "country", "qty"), ("unique_id", "country"), ("ts",))
    products, countries = (texts(read[name], needed=True) for name in ("unique_id", "country"))
    quantity = _integers(read["qty"], 1).astype(np.int64)
    times = _times(read["ts"]) if "ts" in read else None
    sites = ASSUMED if places is None else _read_places(places)
    random = np.random.default_rng(seed)
    labels, held = products.labels, None
    if stock is not None:
        labels, held = _read_stock(stock, sites.names)
        unknown = ~np.isin(products.labels, labels)[products.codes]
        needed = f"{Path(stock).name} does not have this product: give it a row there, with stock 0 if there is none"
        read["unique_id"].problem(unknown, needed)
    product = np.searchsorted(labels, products.labels)[products.codes]
    if held is None:
        held = split(np.bincount(product, quantity, len(labels)) * stock_share, sites.weight, random)
    granted = allocate(float(capacity_share * quantity.sum()), sites.weight, refills, len(product), random)
    if sites.capacity is not None:
        granted |= {"capacity": sites.capacity, "refill": np.repeat(sites.capacity[None], refills, axis=0)}
    unknown = ~np.isin(countries.labels, list(sites.spots))[countries.codes]
    read["country"].problem(unknown, "it has no coordinates: give it a latitude and longitude in a file of places")
    targets, spots = (np.array([sites.spots[str(name)] for name in names]) for names in (countries.labels, sites.names))
    instance = make_instance(
        product=product,
        destination=countries.codes.astype(np.int64),
        reward=distance_reward(targets, spots),
        stock=held,
        quantity=quantity,
        names=sites.names,
        **granted,
    )
    return replace(instance, products=labels, destinations=countries.labels, times=times)


def _read_columns(
    path: str | Path, needed: tuple[str, ...], text: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, Column]:
    """Read columns of a file by name."""
    findings, opened = FailFast(), open_source(path)
    wanted = match_columns(opened.names, {}, (*needed, *optional), needed, opened.name, findings)
    table = opened.read(list(wanted), text)
    if not table.num_rows:
        raise InputError(f"{opened.name} has a header but no rows; give at least one row")
    return {name: Column(opened.name, name, one_array(table[name]), findings) for name in wanted}


def _integers(column: Column, low: int, may_be_empty: bool = False) -> Float[ndarray, " row"]:
    """Read whole numbers; NaN where empty."""
    values = numbers(column, low=low, high=LARGEST - 1)
    if not may_be_empty:
        _require_values(column, np.isnan(values))
    column.problem(np.isfinite(values) & (values % 1 != 0), "it needs a whole number")
    return values


def _require_values(column: Column, empty: ndarray) -> None:
    column.problem(empty, "every row needs one", lambda row: None)


def _times(column: Column) -> ndarray:
    """Read times, which may not fall."""
    kind = column.values.type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise InputError(f"{column.title} holds {kind} values; it needs times such as 2024-01-31 12:00:00")
    times = column.values.to_numpy(zero_copy_only=False).astype("datetime64[s]")
    _require_values(column, np.isnat(times))
    column.problem(np.r_[False, np.diff(times) < np.timedelta64(0)], "it is before that of the row above; sort by time")
    return times


def _read_places(path: str | Path) -> Places:
    """Read places; those with a capacity are centres."""
    read = _read_columns(path, ("place", "latitude", "longitude"), ("place",), ("capacity",))
    place = texts(read["place"], needed=True)
    names = place.labels[place.codes]
    repeated = repeated_rows(place.codes, len(place.labels))[1]
    read["place"].problem(repeated, "a place needs one row; drop the repeated one")
    spots = []
    for name, most in (("latitude", 90), ("longitude", 180)):
        spots.append(numbers(read[name], low=-most, high=most))
        _require_values(read[name], np.isnan(spots[-1]))
    known = {str(name): (float(a), float(b)) for name, a, b in zip(names, *spots, strict=True)}
    capacity = _integers(read["capacity"], 0, True) if "capacity" in read else np.full(len(names), np.nan)
    centre = np.isfinite(capacity)
    if not centre.any():
        return replace(ASSUMED, spots=ASSUMED.spots | known)
    units = capacity[centre].astype(np.int64)
    weight = np.maximum(units, 1e-9) / np.maximum(units, 1e-9).sum()
    return Places(COUNTRIES | known, tuple(map(str, names[centre])), weight, units)


def _read_stock(path: str | Path, centres: tuple[str, ...]) -> tuple[ndarray, Int[ndarray, "product centre"]]:
    """Read stock by product and centre; return the names of the products and their stock."""
    read = _read_columns(path, ("unique_id", "centre", "stock"), ("unique_id", "centre"))
    product, centre = (texts(read[name], needed=True) for name in ("unique_id", "centre"))
    units = _integers(read["stock"], 0).astype(np.int64)
    place = np.array([centres.index(str(name)) if str(name) in centres else -1 for name in centre.labels])
    column = place[centre.codes]
    read["centre"].problem(column < 0, f"the centres are {', '.join(centres[:12])}")
    cell = product.codes.astype(np.int64) * len(centres) + column
    held = np.zeros((len(product.labels), len(centres)), np.int64)
    repeated = repeated_rows(cell, held.size)[1]
    read["unique_id"].problem(repeated, "its stock in this centre has a row already; keep one")
    held.reshape(-1)[cell] = units
    return product.labels, held
