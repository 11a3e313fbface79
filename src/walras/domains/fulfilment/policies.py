"""Own the policies of order fulfilment that come with the package.

OPEN: a policy is a rule that scores options; put one beside the others.
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.lax import clz
from jaxtyping import Array, Float, Int
from numpy import ndarray
from numpy.typing import ArrayLike

from walras.domains.fulfilment.instance import LARGEST, UNIT, Instance
from walras.domains.fulfilment.process import AbstractFulfilmentRule, Order
from walras.errors import InputError, SettingsError, shape_mismatch

EXACT = 1 << 24
"""Whole numbers up to here are 32-bit floats without rounding."""

MOST_ACTIVE = 63
"""Activations of hidden layers are 0 ... 63."""

MOST_INPUT = 255
"""Inputs are 0 ... 255."""


class PolicyNetwork(eqx.Module):
    """Run layers of whole numbers: `h <- clip(floor((h W + b) shrink), 0, 63)`, the last one without clip.

    `shrink` of a hidden layer is a power of two. What comes out is in the unit of scores, 1/65,536.
    """

    weights: tuple[Float[Array, "_ _"], ...]
    biases: tuple[Float[Array, " _"], ...]
    shrinks: tuple[Float[Array, ""], ...]

    def __call__(self, levels: Int[Array, " centre"]) -> Int[Array, " option"]:
        """Score the options of one stock row."""
        active = jnp.minimum(levels, MOST_INPUT).astype(jnp.float32)
        *hidden, last = zip(self.weights, self.biases, self.shrinks, strict=True)
        for weight, bias, shrink in hidden:
            active = jnp.clip(jnp.floor((active @ weight + bias) * shrink), 0, MOST_ACTIVE)
        return jnp.floor((active @ last[0] + last[1]) * last[2]).astype(jnp.int32)


def random_network(
    samples: Int[ndarray, "row centre"], options: int, width: int, seed: int, strength: float
) -> PolicyNetwork:
    """Draw a network with two hidden layers whose scores spread by `strength` over the samples.

    Args:
        samples: levels of stock rows, on which the powers of two are chosen.
        options: what comes out.
        width: units of a hidden layer.
        strength: standard deviation of the scores [rewards of 1].
    """
    random = np.random.default_rng((seed, width))
    largest = min(63, EXACT // (2 * MOST_ACTIVE * max(width, samples.shape[1])))
    sizes = (samples.shape[1], width, width, options)
    weights = [
        random.integers(-largest, largest + 1, size=(n_in, n_out)).astype(np.float32)
        for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    active, biases, shrinks = np.minimum(samples, MOST_INPUT).astype(np.float32), [], []
    for number, weight in enumerate(weights):
        raw = active @ weight
        spread = max(float(raw.std()), 1.0)
        biases.append(np.rint(random.normal(0, 0.5 * spread, size=weight.shape[1])).astype(np.float32))
        last = number == len(weights) - 1
        shrinks.append(2.0 ** np.floor(np.log2(strength * UNIT / spread if last else 24 / spread)))
        active = np.clip(np.floor((raw + biases[-1]) * shrinks[-1]), 0, MOST_ACTIVE)
    parts = [tuple(jnp.asarray(part, jnp.float32) for part in each) for each in (weights, biases, shrinks)]
    return PolicyNetwork(*parts)


NEVER = -(LARGEST)
"""Score of fulfilling nothing where anything else is better."""


class Greedy(AbstractFulfilmentRule):
    """Send every order to the centre with the highest reward that has it: the nearest."""

    def scores(self, inputs: tuple, reward: Int[Array, " centre"], order: Order) -> Int[Array, " option"]:
        """Score by the reward."""
        return jnp.append(reward, NEVER)


class Dual(AbstractFulfilmentRule):
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


class CapacityPriced(AbstractFulfilmentRule):
    """Charge on top of another rule a price of capacity that rises continuously as capacity is used up.

    A centre's price is `strength` times the share of all capacity granted to it that is used; build it by `priced`.

    Attributes:
        strength: price of a centre whose capacity is used up [1/1,024 of money].
    """

    base: AbstractFulfilmentRule
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


class Neural(AbstractFulfilmentRule):
    """Add to the reward what a network says about the product's stock row."""

    network: PolicyNetwork

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


def priced(base: AbstractFulfilmentRule, strength: float) -> CapacityPriced:
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


def dual(world: Instance, stock_price: ArrayLike, capacity_price: ArrayLike) -> Dual:
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


def scarcity_prices(world: Instance, level: float = 0.3) -> Dual:
    """Price capacity by how scarce it is: what of an even demand the nearest centre cannot serve.

    A rule of thumb to begin with; `optimise` learns better prices.
    """
    nearest = np.bincount(world.reward[world.destination].argmax(1), world.quantity, world.n_centres)
    scarce = np.maximum(nearest - world.granted()[-1], 0) / np.maximum(nearest, 1)
    return dual(world, np.zeros((1, world.n_centres)), level * scarce)


def neural(world: Instance, width: int, seed: int = 0, strength: float = 0.5) -> Neural:
    """Draw a network that really decides: centres' scores differ by about `strength` rewards.

    Raises:
        SettingsError: the width is no positive number.
    """
    if width < 1:
        raise SettingsError(f"`width` is {width} but a layer needs at least one unit; give e.g. 64")
    rows = world.stock[np.random.default_rng(seed).integers(len(world.stock), size=256)]
    return Neural(random_network(np.asarray(levels(jnp.asarray(rows))), world.n_centres + 1, width, seed, strength))


def make_policy(
    world: Instance, name: str, width: int = 64, gamma: float = 0.5, seed: int = 0
) -> AbstractFulfilmentRule:
    """Build one of the policies that commands and benchmarks know by name.

    Raises:
        SettingsError: there is no such policy.
    """
    makers: dict[str, Callable[[], AbstractFulfilmentRule]] = {
        "greedy": Greedy,
        "mlp": lambda: neural(world, width, seed),
        "dual": lambda: scarcity_prices(world),
        "capacity": lambda: priced(neural(world, width, seed), gamma),
    }
    if name not in makers:
        raise SettingsError(f"there is no policy `{name}`; there are {', '.join(makers)}")
    return makers[name]()
