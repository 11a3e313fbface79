"""Instances of order fulfilment: orders that come one after the other, and centres with stock and capacity.

LAW: each order is sent from one centre that has its units in stock and the capacity, or not at all.

In generated instances the popularity of products is a power of their rank, stock and capacity follow population, and
rewards fall with distance.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.typing import ArrayLike
from pydantic import Field

from walras.config import Settings
from walras.errors import InputError, SettingsError, shape_mismatch
from walras.parallel.process import AdditiveState

NONE = -1
"""Action of an order that no centre fulfils."""

UNIT = 1 << 16
"""A reward of 1 as a whole number: integer comparisons give the same decision in every batch shape."""

LARGEST = 1 << 30
"""Upper limit of all numbers, so that sums of two fit 32 bits."""

_INTEGERS = ("product", "destination", "quantity", "stock", "capacity", "refill_before", "refill")


@dataclass(frozen=True)
class Instance:
    """Orders and centres; all numbers are integers.

    Attributes:
        product: of each order [order].
        destination: of each order, a row of `reward` [order].
        quantity: units of each order [order].
        reward: of one unit sent from a centre to a destination [1/65,536 of money].
        stock: units of each product in each centre at the start.
        capacity: units that each centre can send in all, before refills.
        refill_before: numbers of the orders before which capacity is refilled, rising.
        refill: units of capacity that are added.
        names: of the centres.
        products, destinations: their names, if known.
        times: of the orders, if known [order].
    """

    product: Int[ndarray, " order"]
    destination: Int[ndarray, " order"]
    quantity: Int[ndarray, " order"]
    reward: Int[ndarray, "destination centre"]
    stock: Int[ndarray, "product centre"]
    capacity: Int[ndarray, " centre"]
    refill_before: Int[ndarray, " refill"]
    refill: Int[ndarray, "refill centre"]
    names: tuple[str, ...] = ()
    products: ndarray | None = None
    destinations: ndarray | None = None
    times: ndarray | None = None

    @property
    def n_orders(self) -> int:
        """Return the number of orders."""
        return len(self.product)

    @property
    def n_centres(self) -> int:
        """Return the number of centres."""
        return len(self.capacity)

    def cumulative_capacity(self) -> Int[ndarray, "refills centre"]:
        """Return the capacity granted so far after 0, 1, ... refills [units]."""
        return np.concatenate([self.capacity[None], self.capacity + np.cumsum(self.refill, axis=0)]).astype(np.int32)

    def refill_count(self) -> Int[ndarray, " order"]:
        """Return the number of refills before each order."""
        return np.searchsorted(self.refill_before, np.arange(self.n_orders), side="right").astype(np.int32)

    def initial_state(self) -> AdditiveState:
        """Return the state before the first order: stock by product, and units sent by every centre."""
        return AdditiveState(jnp.asarray(self.stock, jnp.int32), jnp.zeros(self.n_centres, jnp.int32))

    def first_orders(self, count: int) -> "Instance":
        """Return the first orders, with all stock and capacity."""
        return self._between(0, count)

    def halves(self) -> tuple["Instance", "Instance"]:
        """Return the earlier and the later half of the orders, each with half of the stock and of the capacity.

        Raises:
            InputError: there is only one order.
        """
        if self.n_orders < 2:
            raise InputError("there is 1 order but two halves need at least 2; give more orders")
        half = replace(self, stock=self.stock // 2, capacity=self.capacity // 2, refill=self.refill // 2)
        return half._between(0, self.n_orders // 2), half._between(self.n_orders // 2, self.n_orders)

    def resampled(self, seed: int) -> "Instance":
        """Return a bootstrap sample of the orders, as many as there are, without times."""
        rows = np.random.default_rng((seed, self.n_orders)).integers(self.n_orders, size=self.n_orders)
        return replace(self._take(rows), times=None)

    def _between(self, first: int, last: int) -> "Instance":
        """Return consecutive orders with the refills among them."""
        inside = (self.refill_before >= first) & (self.refill_before < last)
        before, refill = self.refill_before[inside] - first, self.refill[inside]
        return replace(self._take(slice(first, last)), refill_before=before, refill=refill)

    def _take(self, rows: slice | ndarray) -> "Instance":
        orders: dict[str, Any] = {name: getattr(self, name)[rows] for name in ("product", "destination", "quantity")}
        return replace(self, **orders, times=None if self.times is None else self.times[rows])


def make_instance(
    product: ArrayLike,
    destination: ArrayLike,
    reward: ArrayLike,
    stock: ArrayLike,
    capacity: ArrayLike,
    quantity: ArrayLike | None = None,
    refill_before: ArrayLike | None = None,
    refill: ArrayLike | None = None,
    names: tuple[str, ...] = (),
) -> Instance:
    """Build an instance from arrays of the shapes of its fields and check it.

    Args:
        product, destination, stock, capacity, refill_before, refill, names: fields of the instance.
        reward: of one unit [money, destination, centre]; rounded to 1/65,536.
        quantity: [order]; one unit each where not given.

    Raises:
        InputError: a value out of range; which one, and what is needed.
        ShapeError: shapes that do not agree.
    """
    arrays = {
        "product": product,
        "destination": destination,
        "quantity": np.ones(np.shape(product)[:1], np.int32) if quantity is None else quantity,
        "reward": reward,
        "stock": stock,
        "capacity": capacity,
        "refill_before": np.zeros(0, np.int32) if refill_before is None else refill_before,
        "refill": np.zeros((0, *np.shape(capacity)[:1]), np.int32) if refill is None else refill,
    }
    given = {name: np.asarray(values) for name, values in arrays.items()}
    _check_shapes(given, names)
    _check_values(given)
    integers = {name: given[name].astype(np.int32) for name in _INTEGERS}
    return Instance(**integers, reward=np.rint(given["reward"].astype(np.float64) * UNIT).astype(np.int32), names=names)


def _check_shapes(given: Mapping[str, ndarray], names: tuple[str, ...]) -> None:
    """Check that every array has the axes of its field, and that they agree."""
    if not given["product"].size:
        raise InputError("there are 0 orders but a trajectory needs at least one; give orders")
    if not given["capacity"].size:
        raise InputError("there are 0 centres but at least one is needed; give `capacity` a number for each")
    sizes: dict[str, int] = {}
    for name in ("product", "capacity", "refill_before", "destination", "quantity", "reward", "stock", "refill"):
        axes, shape = Instance.__annotations__[name].dim_str.split(), given[name].shape
        if len(shape) != len(axes) or any(sizes.setdefault(axis, n) != n for axis, n in zip(axes, shape, strict=True)):
            needed = ", ".join(str(sizes.get(axis, "any")) for axis in axes)
            raise shape_mismatch(name, shape, f"({needed}) [{', '.join(axes)}]", "give one value for each of them")
    if names and len(names) != sizes["centre"]:
        needed = f"({sizes['centre']},) [centre]"
        raise shape_mismatch("names", (len(names),), needed, "name every centre, or none")


def _check_values(given: Mapping[str, ndarray]) -> None:
    """Check types and ranges."""
    for name in _INTEGERS:
        if not np.issubdtype(given[name].dtype, np.integer):
            raise InputError(f"`{name}` is {given[name].dtype} but needs whole numbers; round it first")
    orders, reward = len(given["product"]), given["reward"]
    for name, least, beyond, what, needed in (
        ("product", 0, len(given["stock"]), "order {0} is for product {value}", "there are {beyond} products"),
        ("destination", 0, len(reward), "order {0} goes to destination {value}", "there are {beyond}"),
        ("quantity", 1, LARGEST, "order {0} is for {value} units", "it must be within 1 and {beyond}"),
        ("capacity", 0, LARGEST, "centre {0} has capacity {value}", "it must be within 0 and {beyond}"),
        ("stock", 0, LARGEST, "product {0} has stock {value} in centre {1}", "it must be within 0 and {beyond}"),
        ("refill", 0, LARGEST, "refill {0} adds {value} in centre {1}", "it must be within 0 and {beyond}"),
        ("refill_before", 0, orders, "refill {0} comes before order {value}", "there are {beyond} orders"),
    ):
        wrong = np.argwhere((given[name] < least) | (given[name] >= beyond))
        if len(wrong):
            first = tuple(wrong[0])
            texts = (text.format(*first, value=given[name][first], beyond=beyond) for text in (what, needed))
            raise InputError(f"{' but '.join(texts)}; correct `{name}`")
    if np.diff(given["refill_before"]).min(initial=0) < 0:
        raise InputError("`refill_before` falls but needs the numbers of orders in rising order; sort it")
    if given["capacity"].sum(dtype=np.int64) + given["refill"].sum(dtype=np.int64) >= LARGEST:
        raise InputError(f"capacity and refills add up to more than {LARGEST}; count in larger units")
    if reward.dtype.kind not in "iuf" or not np.isfinite(reward).all() or np.abs(reward).max(initial=0) > 1024:
        raise InputError("`reward` has a value that is no number within -1,024 and 1,024; rescale it")


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
    counts = {"orders": orders, "products": products, "centres": centres, "most_units": most_units}
    shares = {"stock_share": stock_share, "capacity_share": capacity_share}
    _check_generated(counts, {**shares, "refills": refills, "seed": seed, "draw": draw}, beta)
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


def _check_generated(counts: dict[str, int], others: dict[str, float], beta: float) -> None:
    """Refuse numbers out of range, and instances that do not fit in memory."""
    for name, value in (counts | others).items():
        least = 1 if name in counts else 0
        if not least <= value < np.inf:
            raise SettingsError(f"`{name}` is {value:g} but needs to be finite and at least {least}; give e.g. 1000")
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
