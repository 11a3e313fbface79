"""Own the policies of order fulfilment that come with the package.

OPEN: a policy is a rule that scores options; put one beside the others.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.lax import clz
from jaxtyping import Array, Int
from numpy.typing import ArrayLike

from walras.domains.fulfilment.network import Network, random_network
from walras.domains.fulfilment.process import AbstractRule, Order
from walras.domains.fulfilment.world import LARGEST, UNIT, World
from walras.errors import InputError, SettingsError, shape_mismatch

NEVER = -(LARGEST)
"""Score of fulfilling nothing where anything else is better."""


class Greedy(AbstractRule):
    """Send every order to the centre with the highest reward that has it: the nearest."""

    def scores(self, inputs: tuple, reward: Int[Array, " centre"], order: Order) -> Int[Array, " option"]:
        """Score by the reward."""
        return jnp.append(reward, NEVER)


class Dual(AbstractRule):
    """Score by the reward minus what a unit of stock and of capacity is worth later; nobody where that is negative.

    Attributes:
        stock_price: by product and centre, or one row for all products [1/65,536 of money].
        capacity_price: by centre [1/65,536 of money].
    """

    stock_price: Int[Array, "product centre"]
    capacity_price: Int[Array, " centre"]

    def scores(self, inputs: tuple, reward: Int[Array, " centre"], order: Order) -> Int[Array, " option"]:
        """Take the prices off the reward."""
        row = jnp.minimum(order.product, self.stock_price.shape[0] - 1)
        return jnp.append(reward - self.stock_price[row] - self.capacity_price, 0)


class CapacityPriced(AbstractRule):
    """Charge on top of another rule a price of capacity that rises continuously as capacity is used up.

    A centre's price is `strength` times the share of all capacity granted to it that is used; build it by `priced`.

    Attributes:
        strength: price of a centre whose capacity is used up [1/1,024 of money].
    """

    base: AbstractRule
    strength: Int[Array, ""]

    def inputs(self, row: Int[Array, " centre"], order: Order) -> object:
        """Return what the other rule depends on."""
        return self.base.inputs(row, order)

    def scores(self, inputs: object, reward: Int[Array, " centre"], order: Order) -> Int[Array, " option"]:
        """Score as the other rule does."""
        return self.base.scores(inputs, reward, order)

    def sees(self, capacity: Int[Array, " centre"], granted: Int[Array, " centre"]) -> Int[Array, " some"]:
        """Return the prices themselves, in whole arithmetic: a division of floats may differ between two programs."""
        return (self.strength * shares(granted - capacity, granted)) >> 10

    def prices(self, seen: Int[Array, " some"]) -> Int[Array, " centre"]:
        """Return the prices."""
        return seen


class Neural(AbstractRule):
    """Add to the reward what a network says about the product's stock row."""

    network: Network

    def inputs(self, row: Int[Array, " centre"], order: Order) -> Int[Array, " centre"]:
        """Return the stock in levels: single units up to seven, then steps of an eighth of a power of two."""
        return levels(row)

    def scores(
        self, inputs: Int[Array, " centre"], reward: Int[Array, " centre"], order: Order
    ) -> Int[Array, " option"]:
        """Run the network."""
        return jnp.append(reward, 0) + self.network(inputs)


def levels(row: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Return the level of every stock: whole arithmetic, about its logarithm beyond seven units."""
    stock = jnp.maximum(row, 0).astype(jnp.int32)
    power = 31 - jnp.clip(clz(stock), 0, 31)
    high = (power - 2) * 8 + ((stock >> jnp.maximum(power - 3, 0)) & 7)
    return jnp.where(stock < 8, stock, high).astype(jnp.int32)


def shares(part: Int[Array, " centre"], whole: Int[Array, " centre"]) -> Int[Array, " centre"]:
    """Return the share that a part is of a whole, rounded down [1/65,536]; beyond 2^23 both are rounded first.

    Long division with two digits of eight bits, which 32-bit numbers hold.
    """
    spare = jnp.maximum(32 - clz(jnp.maximum(whole, 1)) - 23, 0)
    over = jnp.maximum(whole >> spare, 1)
    left = jnp.clip(part >> spare, 0, over) * 256
    high = left // over
    return high * 256 + ((left - high * over) * 256) // over


def priced(base: AbstractRule, strength: float) -> CapacityPriced:
    """Charge a price of capacity on top of a rule.

    Args:
        base: the rule.
        strength: price of a centre whose capacity is used up [money].

    Raises:
        SettingsError: the strength is not within 0 and 16.
    """
    if not 0 <= strength <= 16:
        raise SettingsError(f"`strength` is {strength!r} but needs to be within 0 and 16; give e.g. 0.5")
    return CapacityPriced(base, jnp.asarray(round(strength * 1024), jnp.int32))


def dual(world: World, stock_price: ArrayLike, capacity_price: ArrayLike) -> Dual:
    """Build the dual policy from prices in money, [product, centre] and [centre].

    Raises:
        ShapeError: prices that do not meet the world; `stock_price` may have one row for all products.
        InputError: a price that is no number, or beyond 1,024.
    """
    stock_price, capacity_price = np.asarray(stock_price), np.asarray(capacity_price)
    rows = (1, len(world.stock))
    if stock_price.ndim != 2 or stock_price.shape[0] not in rows or stock_price.shape[1] != world.n_centres:
        needed = f"{world.stock.shape} or (1, {world.n_centres}) [product, centre]"
        raise shape_mismatch("stock_price", stock_price.shape, needed, "give a price for each")
    if capacity_price.shape != (world.n_centres,):
        raise shape_mismatch("capacity_price", capacity_price.shape, f"({world.n_centres},) [centre]", "give one each")
    for name, prices in (("stock_price", stock_price), ("capacity_price", capacity_price)):
        if not np.all(np.abs(prices) <= 1024):
            raise InputError(f"`{name}` has a value that is no number within -1,024 and 1,024; rescale it")
    return Dual(*(jnp.asarray(np.rint(part * UNIT), jnp.int32) for part in (stock_price, capacity_price)))


def scarcity_prices(world: World, level: float = 0.3) -> Dual:
    """Price capacity by how scarce it is: what of an even demand the nearest centre cannot serve.

    A rule of thumb to begin with; `optimise` learns better prices.
    """
    nearest = np.bincount(world.reward[world.destination].argmax(1), world.quantity, world.n_centres)
    scarce = np.maximum(nearest - world.granted()[-1], 0) / np.maximum(nearest, 1)
    return dual(world, np.zeros((1, world.n_centres)), level * scarce)


def neural(world: World, width: int, seed: int = 0, strength: float = 0.5) -> Neural:
    """Draw a network that really decides: centres' scores differ by about `strength` rewards.

    Raises:
        SettingsError: the width is no positive number.
    """
    if width < 1:
        raise SettingsError(f"`width` is {width} but a layer needs at least one unit; give e.g. 64")
    rows = world.stock[np.random.default_rng(seed).integers(len(world.stock), size=256)]
    return Neural(random_network(np.asarray(levels(jnp.asarray(rows))), world.n_centres + 1, width, seed, strength))


def named(world: World, name: str, width: int = 64, gamma: float = 0.5, seed: int = 0) -> AbstractRule:
    """Build one of the policies that commands and benchmarks know by name.

    Raises:
        SettingsError: there is no such policy.
    """
    makers: dict[str, Callable[[], AbstractRule]] = {
        "greedy": Greedy,
        "mlp": lambda: neural(world, width, seed),
        "dual": lambda: scarcity_prices(world),
        "capacity": lambda: priced(neural(world, width, seed), gamma),
    }
    if name not in makers:
        raise SettingsError(f"there is no policy `{name}`; there are {', '.join(makers)}")
    return makers[name]()
