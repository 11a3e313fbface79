"""Own worlds made of real order lines: products and countries from a table, stock and capacity by assumption.

EDGE: reads a Parquet file with `unique_id`, `country` and `qty`, in the order of time.
"""

from pathlib import Path

import numpy as np

from walras.domains.fulfilment.generate import FARTHEST_KM, kilometres, split
from walras.domains.fulfilment.world import World, make_world
from walras.errors import InputError

CENTRES = (
    ("London", 51.5, -0.1, 9.0), ("Birmingham", 52.5, -1.9, 2.9), ("Manchester", 53.5, -2.2, 2.8),
    ("Leeds", 53.8, -1.5, 1.9), ("Glasgow", 55.9, -4.3, 1.7), ("Bristol", 51.5, -2.6, 0.7), ("Dublin", 53.3, -6.3, 1.4),
    ("Rotterdam", 51.9, 4.5, 1.0), ("Frankfurt", 50.1, 8.7, 2.3), ("Lyon", 45.8, 4.8, 1.7),
)  # fmt: skip
"""Assumed centres: name, latitude, longitude, weight."""

COUNTRIES = {
    "United Kingdom": (52.5, -1.5), "EIRE": (53.3, -7.5), "Germany": (51.0, 10.0), "France": (46.6, 2.4),
    "Netherlands": (52.2, 5.3), "Spain": (40.3, -3.7), "Switzerland": (46.8, 8.2), "Belgium": (50.6, 4.7),
    "Portugal": (39.6, -8.0), "Channel Islands": (49.4, -2.4), "Sweden": (60.1, 15.0), "Italy": (42.8, 12.6),
    "Australia": (-25.3, 134.5), "Cyprus": (35.0, 33.2), "Austria": (47.6, 14.1), "Greece": (39.1, 22.9),
    "Denmark": (56.0, 10.0), "Norway": (61.0, 8.7), "Finland": (62.0, 26.0), "Japan": (36.5, 138.0),
    "Poland": (52.1, 19.4), "USA": (39.8, -98.6), "Singapore": (1.35, 103.8), "Malta": (35.9, 14.4),
    "Iceland": (65.0, -18.6), "Israel": (31.4, 35.0), "Lithuania": (55.3, 23.9), "Canada": (56.1, -106.3),
}  # fmt: skip
"""Latitude and longitude; other countries are taken to be as far as a reward reaches."""


def read_orders(path: str | Path, stock_share: float = 0.8, capacity_share: float = 0.8, seed: int = 0) -> World:
    """Read order lines; each line is an order for so many units of a product to a country.

    Args:
        path: a Parquet file.
        stock_share: units in stock of a product over the units ordered of it.
        capacity_share: units that all centres can send over all units ordered.
        seed: of the rounding of stock and capacity.

    Raises:
        InputError: the file cannot be read or lacks a column, or a line has no positive quantity.
    """
    product, country, quantity = _columns(Path(path))
    wrong = np.flatnonzero(quantity < 1)
    if len(wrong):
        raise InputError(
            f"line {int(wrong[0])} of {Path(path).name} has quantity {quantity[wrong[0]]} but needs 1 or more; "
            "leave returns out"
        )
    names, destination = np.unique(country, return_inverse=True)
    products, number = np.unique(product, return_inverse=True)
    random = np.random.default_rng(seed)
    spots = np.array([centre[1:3] for centre in CENTRES])
    weight = np.array([centre[3] for centre in CENTRES])
    shares = weight / weight.sum()
    targets = np.array([COUNTRIES.get(name, (-80.0, 0.0)) for name in names])
    asked = np.bincount(number, quantity, len(products))
    return make_world(
        product=number,
        destination=destination,
        reward=np.maximum(1 - kilometres(targets, spots) / FARTHEST_KM, 0),
        stock=split(asked * stock_share, shares, random),
        capacity=split(np.array([capacity_share * quantity.sum()]), shares, random)[0],
        quantity=quantity,
        names=tuple(centre[0] for centre in CENTRES),
    )


def _columns(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read three columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["unique_id", "country", "qty"])
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
        said = str(error).splitlines()[0]
        raise InputError(f"`{path}` cannot be read as orders ({said}); give a Parquet file of order lines") from None
    lacking = {"unique_id", "country", "qty"} - set(table.column_names)
    if lacking:
        raise InputError(f"`{path}` has no column `{min(lacking)}`; order lines need unique_id, country and qty")
    product, country = (table[name].cast(pa.string()).to_numpy() for name in ("unique_id", "country"))
    return product, country, table["qty"].to_numpy().astype(np.int64)
