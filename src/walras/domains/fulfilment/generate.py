"""Generated instances of order fulfilment, and the settings of the commands.

Popularity of products is a power of their rank, stock and capacity follow population, rewards fall with distance.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import Field

from walras.config import Settings
from walras.domains.fulfilment.instance import Instance, make_instance
from walras.errors import SettingsError

PLACES = (
    ("New York", 40.7, -74.0, 8.80), ("Los Angeles", 34.1, -118.2, 3.90), ("Chicago", 41.9, -87.6, 2.75),
    ("Houston", 29.8, -95.4, 2.30), ("Phoenix", 33.4, -112.1, 1.61), ("Philadelphia", 40.0, -75.2, 1.60),
    ("San Antonio", 29.4, -98.5, 1.43), ("San Diego", 32.7, -117.2, 1.39), ("Dallas", 32.8, -96.8, 1.30),
    ("San Jose", 37.3, -121.9, 1.01), ("Austin", 30.3, -97.7, 0.96), ("Jacksonville", 30.3, -81.7, 0.95),
    ("Fort Worth", 32.8, -97.3, 0.92), ("Columbus", 40.0, -83.0, 0.91), ("Indianapolis", 39.8, -86.2, 0.89),
    ("Charlotte", 35.2, -80.8, 0.87), ("San Francisco", 37.8, -122.4, 0.87), ("Seattle", 47.6, -122.3, 0.74),
    ("Denver", 39.7, -105.0, 0.72), ("Washington", 38.9, -77.0, 0.69), ("Nashville", 36.2, -86.8, 0.69),
    ("Oklahoma City", 35.5, -97.5, 0.68), ("El Paso", 31.8, -106.5, 0.68), ("Boston", 42.4, -71.1, 0.68),
    ("Portland", 45.5, -122.7, 0.65), ("Las Vegas", 36.2, -115.1, 0.64), ("Detroit", 42.3, -83.0, 0.64),
    ("Memphis", 35.1, -90.0, 0.63), ("Louisville", 38.3, -85.8, 0.63), ("Baltimore", 39.3, -76.6, 0.59),
)  # fmt: skip
"""The most populous cities of the United States in 2020: name, latitude, longitude, million people."""

DESTINATIONS = 300
EARTH_KM = 6371.0
FARTHEST_KM = 5000.0
"""Distance from which on the reward is zero."""

MOST_CELLS = 1 << 31
"""Limit of orders or products times centres, which fit an ordinary memory."""


def generate_instance(
    orders: int,
    products: int,
    centres: int = 30,
    beta: float = 0.0,
    stock_share: float = 0.8,
    capacity_share: float = 0.8,
    most_units: int = 1,
    refills: int = 0,
    seed: int = 0,
    draw: int = 0,
) -> Instance:
    """Draw an instance.

    Args:
        orders, products: their numbers.
        centres: the 30 largest cities, and smaller random places beyond them.
        beta: weight of a product is its rank to this power; 0 is flat, real catalogues have -0.6 to -0.8.
        stock_share: units in stock of a product over the units ordered of it.
        capacity_share: units that all centres can send over all units ordered; below `stock_share` it is tight.
        most_units: units of an order are drawn from 1 to this.
        refills: times at which as much capacity as at the start is added; the total stays the same.
        seed: of all random numbers.
        draw: 0 has the orders that stock was bought for; 1, 2, ... draw other orders for the same stock and capacity.

    Raises:
        SettingsError: a number out of range.
    """
    _check(
        counts={"orders": orders, "products": products, "centres": centres, "most_units": most_units},
        shares={"stock_share": stock_share, "capacity_share": capacity_share},
        others={"refills": refills, "seed": seed, "draw": draw},
        beta=beta,
    )
    random = np.random.default_rng(seed)
    spots, people = _places(centres)
    weights = np.arange(1, products + 1, dtype=np.float64) ** beta
    weights /= weights.sum()
    product = random.choice(products, size=orders, p=weights)
    quantity = random.integers(1, most_units + 1, size=orders)
    stock = split(np.bincount(product, quantity, products) * stock_share, people, random)
    granted = allocate(float(capacity_share * quantity.sum()), people, refills, orders, random)
    homes = random.choice(centres, size=DESTINATIONS, p=people)
    targets = spots[homes] + random.normal(0, 1.5, size=(DESTINATIONS, 2))
    destination = random.integers(DESTINATIONS, size=orders)
    if draw:
        random = np.random.default_rng((seed, draw))
        product = random.choice(products, size=orders, p=weights)
        quantity = random.integers(1, most_units + 1, size=orders)
        destination = random.integers(DESTINATIONS, size=orders)
    return make_instance(
        product=product,
        destination=destination,
        reward=distance_reward(targets, spots),
        stock=stock,
        quantity=quantity,
        **granted,
        names=tuple(PLACES[i][0] if i < len(PLACES) else f"place {i + 1}" for i in range(centres)),
    )


def _check(counts: dict[str, int], shares: dict[str, float], others: dict[str, int], beta: float) -> None:
    """Refuse numbers out of range, and instances that do not fit in memory."""
    for name, value in counts.items():
        if value < 1:
            raise SettingsError(f"`{name}` is {value} but at least 1 is needed; give e.g. 1000")
    for name, share in {**shares, **others}.items():
        if not 0 <= share < np.inf:
            raise SettingsError(f"`{name}` is {share:g} but cannot be negative or infinite; give 0 or more")
    if not -20 <= beta <= 20:
        raise SettingsError(f"`beta` is {beta:g} but needs to be within -20 and 20; real catalogues have -0.6 to -0.8")
    rows = max(counts["orders"], counts["products"])
    if rows * counts["centres"] > MOST_CELLS:
        raise SettingsError(
            f"{rows:,} orders or products times {counts['centres']:,} centres do not fit in memory; make `orders`, "
            "`products` or `centres` smaller"
        )


def allocate(
    total: float, shares: Float[ndarray, " centre"], refills: int, orders: int, random: np.random.Generator
) -> dict[str, Int[ndarray, "..."]]:
    """Split total capacity [units] over centres, and evenly over the start and evenly spaced refills.

    Returns:
        `capacity`, `refill_before` and `refill` of an instance.
    """
    capacity = split(np.array([total / (refills + 1)]), shares, random)[0]
    before = (np.arange(1, refills + 1) * orders) // (refills + 1)
    return {"capacity": capacity, "refill_before": before, "refill": np.repeat(capacity[None], refills, axis=0)}


def _places(centres: int) -> tuple[Float[ndarray, "centre two"], Float[ndarray, " centre"]]:
    """Return latitude and longitude of the centres, and their share of the population."""
    spots = np.array([place[1:3] for place in PLACES])
    people = np.array([place[3] for place in PLACES])
    beyond = max(centres - len(PLACES), 0)
    random = np.random.default_rng(30)  # the same places whatever the instance's seed
    others = np.stack([random.uniform(28, 48, beyond), random.uniform(-122, -72, beyond)], axis=1)
    smaller = people[-1] * len(PLACES) / np.arange(len(PLACES) + 1, len(PLACES) + 1 + beyond)
    spots, people = np.concatenate([spots, others])[:centres], np.concatenate([people, smaller])[:centres]
    return spots, people / people.sum()


def split(
    totals: Float[ndarray, " row"], shares: Float[ndarray, " centre"], random: np.random.Generator
) -> Int[ndarray, "row centre"]:
    """Split totals by shares, with stochastic rounding."""
    parts = totals[:, None] * shares[None]
    whole = np.floor(parts)
    return (whole + (random.random(parts.shape) < parts - whole)).astype(np.int64)


def distance_reward(
    targets: Float[ndarray, "destination two"], spots: Float[ndarray, "centre two"]
) -> Float[ndarray, "destination centre"]:
    """Return the reward of a unit: 1 next door, falling linearly to 0 with the great-circle distance (haversine)."""
    lat1, lon1 = np.radians(targets).T[:, :, None]
    lat2, lon2 = np.radians(spots).T[:, None, :]
    half = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    return np.maximum(1 - 2 * EARTH_KM * np.arcsin(np.sqrt(half)) / FARTHEST_KM, 0)


PolicyName = Literal["greedy", "mlp", "dual", "capacity"]


class InstanceSettings(Settings):
    """A generated instance, or shares of stock and capacity beside a table of orders."""

    orders: int = Field(20_000, ge=1, le=100_000_000, description="orders of the generated instance")
    products: int = Field(6_600, ge=1, le=100_000_000, description="its products")
    centres: int = Field(30, ge=1, le=10_000, description="its centres")
    beta: float = Field(
        -0.8, ge=-20, le=20, description="popularity is the rank to this power; real catalogues have -0.6 to -0.8"
    )
    most_units: int = Field(1, ge=1, le=1000, description="units of an order are drawn from 1 to this")
    stock: float = Field(0.8, ge=0, le=1000, description="units in stock over units ordered, where no file gives stock")
    capacity: float = Field(0.8, ge=0, le=1000, description="units centres can send, over units ordered; 0.6 is tight")
    refills: int = Field(0, ge=0, le=10_000, description="times at which capacity is granted again, evenly spaced")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of all random numbers")


GENERATED_FIELDS = ("orders", "products", "centres", "beta", "most_units")
"""Fields without meaning for orders that come from a table."""


class DecisionSettings(InstanceSettings):
    """An instance and the policy that decides it."""

    policy: PolicyName = Field("greedy", description="policy that decides")
    width: int = Field(64, ge=1, le=16_384, description="units of a hidden layer of `mlp` and `capacity`")
    gamma: float = Field(0.5, ge=0, le=16, description="price of a centre without capacity, for `capacity` [reward]")
    window: int | None = Field(
        None,
        ge=1,
        description="orders iterated on together (default: all if there are few, else as many as is fastest)",
    )


class LearningSettings(InstanceSettings):
    """An instance and how prices are learned on it."""

    capacity: float = Field(0.6, ge=0, le=1000, description="units that all centres can send, over units ordered")
    steps: int = Field(40, ge=1, le=100_000, description="steps of the prices, with a trajectory of every sample each")
    rate: float = Field(0.3, gt=0, le=100, description="of the first step of capacity prices")
    samples: int = Field(
        4, ge=0, le=1000, description="samples of the orders to learn from, with replacement; 0: the orders themselves"
    )
