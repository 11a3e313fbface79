"""Policies of order fulfilment: rules that come with the package, and rules made of a user's function."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.lax import clz
from jaxtyping import Array, Bool, Float, Int, PyTree
from numpy.typing import ArrayLike

from walras.domains.fulfilment.instance import LARGEST, UNIT, Instance
from walras.domains.fulfilment.process import (
    AbstractFulfilmentRule,
    Action,
    FulfilmentProcess,
    Order,
    PerCentre,
    PriceInputs,
    Scores,
)
from walras.errors import InputError, SettingsError, shape_mismatch
from walras.parallel.process import trees_equal

EXACT = 1 << 24
"""Integers up to here are 32-bit floats without rounding."""

MOST_INPUT, MOST_ACTIVE = 255, 63
"""Largest input and largest activation of a hidden layer; the least is 0."""


class Greedy(AbstractFulfilmentRule):
    """Send every order from the available centre with the highest reward: the nearest."""

    def scores(self, inputs: tuple, reward: PerCentre, order: Order) -> Scores:
        """Score by the reward; reject only where no centre is available."""
        return jnp.append(reward, -LARGEST)


class Dual(AbstractFulfilmentRule):
    """Score by the reward minus the shadow prices of stock and capacity [1/65,536 of money]; reject where negative.

    `stock_price` may have one row for all products.
    """

    stock_price: Int[Array, "product centre"]
    capacity_price: PerCentre

    def scores(self, inputs: tuple, reward: PerCentre, order: Order) -> Scores:
        """Subtract the prices from the reward."""
        row = jnp.minimum(order.product, self.stock_price.shape[0] - 1)
        return jnp.append(reward - self.stock_price[row] - self.capacity_price, 0)


class CapacityPriced(AbstractFulfilmentRule):
    """Another rule with a price of capacity that rises linearly with the share of granted capacity that is used.

    Built by `priced`; `strength` is the price of a centre whose capacity is used up [1/1,024 of money].
    """

    base: AbstractFulfilmentRule
    strength: Int[Array, ""]

    def inputs(self, row: PerCentre, order: Order) -> object:
        """Return the inputs of the other rule."""
        return self.base.inputs(row, order)

    def scores(self, inputs: object, reward: PerCentre, order: Order) -> Scores:
        """Score as the other rule does."""
        return self.base.scores(inputs, reward, order)

    def price_inputs(self, left: PerCentre, granted: PerCentre) -> PriceInputs:
        """Return the prices, in integers: a division of floats may differ between two compiled programs."""
        return (self.strength * integer_share(granted - left, granted)) >> 10

    def prices(self, inputs: PriceInputs) -> PerCentre:
        """Return the prices."""
        return inputs


class Neural(AbstractFulfilmentRule):
    """Add to the reward the output of a network of the product's stock row, in integers.

    Layers are `h <- clip(floor((h W + b) shrink), 0, 63)`, the last one without clip; `shrink` of a hidden layer is a
    power of two. Outputs are in the unit of scores, 1/65,536.
    """

    weights: tuple[Float[Array, "_ _"], ...]
    biases: tuple[Float[Array, " _"], ...]
    shrinks: tuple[Float[Array, ""], ...]

    def inputs(self, row: PerCentre, order: Order) -> PerCentre:
        """Return the levels of the stock row."""
        return stock_levels(row)

    def scores(self, inputs: PerCentre, reward: PerCentre, order: Order) -> Scores:
        """Run the network."""
        active = jnp.minimum(inputs, MOST_INPUT).astype(jnp.float32)
        *hidden, last = zip(self.weights, self.biases, self.shrinks, strict=True)
        for weight, bias, shrink in hidden:
            active = jnp.clip(jnp.floor((active @ weight + bias) * shrink), 0, MOST_ACTIVE)
        return jnp.append(reward, 0) + jnp.floor((active @ last[0] + last[1]) * last[2]).astype(jnp.int32)


def stock_levels(row: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Return the level of every stock: single units up to seven, then steps of an eighth of a power of two."""
    stock = jnp.maximum(row, 0).astype(jnp.int32)
    power = 31 - jnp.clip(clz(stock), 0, 31)
    high = (power - 2) * 8 + ((stock >> jnp.maximum(power - 3, 0)) & 7)
    return jnp.where(stock < 8, stock, high).astype(jnp.int32)


def integer_share(part: PerCentre, whole: PerCentre) -> PerCentre:
    """Return the share that a part is of a whole, rounded down [1/65,536]; beyond 2^23 both are rounded first.

    Long division with two digits of eight bits, which 32-bit integers hold.
    """
    spare = jnp.maximum(32 - clz(jnp.maximum(whole, 1)) - 23, 0)
    over = jnp.maximum(whole >> spare, 1)
    left = jnp.clip(part >> spare, 0, over) * 256
    high = left // over
    return high * 256 + ((left - high * over) * 256) // over


def neural(instance: Instance, width: int, seed: int = 0, strength: float = 0.5) -> Neural:
    """Draw a network of two hidden layers of `width` units, with a score for every option.

    Its scores have a standard deviation of `strength` [rewards of 1] over a sample of stock rows.

    Raises:
        SettingsError: `width` is less than 1.
    """
    if width < 1:
        raise SettingsError(f"`width` is {width} but a layer needs at least one unit; give e.g. 64")
    rows = instance.stock[np.random.default_rng(seed).integers(len(instance.stock), size=256)]
    active = np.minimum(np.asarray(stock_levels(jnp.asarray(rows))), MOST_INPUT).astype(np.float32)
    random = np.random.default_rng((seed, width))
    largest = min(63, EXACT // (2 * MOST_ACTIVE * max(width, instance.n_centres)))
    sizes = (instance.n_centres, width, width, instance.n_centres + 1)
    weights = [
        random.integers(-largest, largest + 1, size=(n_in, n_out)).astype(np.float32) for n_in, n_out in pairwise(sizes)
    ]
    biases, shrinks = [], []
    for number, weight in enumerate(weights):
        raw = active @ weight
        spread = max(float(raw.std()), 1.0)
        biases.append(np.rint(random.normal(0, 0.5 * spread, size=weight.shape[1])).astype(np.float32))
        last = number == len(weights) - 1
        shrinks.append(2.0 ** np.floor(np.log2(strength * UNIT / spread if last else 24 / spread)))
        active = np.clip(np.floor((raw + biases[-1]) * shrinks[-1]), 0, MOST_ACTIVE)
    return Neural(*(tuple(jnp.asarray(part, jnp.float32) for part in layers) for layers in (weights, biases, shrinks)))


def priced(base: AbstractFulfilmentRule, strength: float) -> CapacityPriced:
    """Add a price of capacity to a rule: `strength`, within 0 and 16, where capacity is used up [money].

    Raises:
        SettingsError: `strength` is out of range.
    """
    if not 0 <= strength <= 16:
        raise SettingsError(f"`strength` is {strength!r} but needs to be within 0 and 16; give e.g. 0.5")
    return CapacityPriced(base, jnp.asarray(round(strength * 1024), jnp.int32))


def dual_policy(instance: Instance, stock_price: ArrayLike, capacity_price: ArrayLike) -> Dual:
    """Build the dual policy from prices in money, [product, centre] and [centre].

    Raises:
        ShapeError: prices of another shape; `stock_price` may have one row for all products.
        InputError: a price that is no number, or beyond 1,024.
    """
    stock_price, capacity_price = np.asarray(stock_price), np.asarray(capacity_price)
    centres = instance.n_centres
    if stock_price.shape not in (instance.stock.shape, (1, centres)):
        needed = f"{instance.stock.shape} or (1, {centres}) [product, centre]"
        raise shape_mismatch("stock_price", stock_price.shape, needed, "give a price for each")
    if capacity_price.shape != (centres,):
        raise shape_mismatch("capacity_price", capacity_price.shape, f"({centres},) [centre]", "give one each")
    for name, prices in (("stock_price", stock_price), ("capacity_price", capacity_price)):
        if not np.all(np.abs(prices) <= 1024):
            raise InputError(f"`{name}` has a value that is no number within -1,024 and 1,024; rescale it")
    return Dual(*(jnp.asarray(np.rint(part * UNIT), jnp.int32) for part in (stock_price, capacity_price)))


def scarcity_prices(instance: Instance, level: float = 0.3) -> Dual:
    """Price capacity by `level` times the share of nearby demand that the centre cannot serve: a rule of thumb."""
    nearest = np.bincount(instance.reward[instance.destination].argmax(1), instance.quantity, instance.n_centres)
    scarce = np.maximum(nearest - instance.cumulative_capacity()[-1], 0) / np.maximum(nearest, 1)
    return dual_policy(instance, np.zeros((1, instance.n_centres)), level * scarce)


def make_policy(
    instance: Instance, name: str, width: int = 64, gamma: float = 0.5, seed: int = 0
) -> AbstractFulfilmentRule:
    """Build a policy by the name that the commands use: greedy, mlp, dual or capacity.

    Raises:
        SettingsError: there is no policy `name`, or a number is out of range.
    """
    makers: dict[str, Callable[[], AbstractFulfilmentRule]] = {
        "greedy": Greedy,
        "mlp": lambda: neural(instance, width, seed),
        "dual": lambda: scarcity_prices(instance),
        "capacity": lambda: priced(neural(instance, width, seed), gamma),
    }
    if name not in makers:
        raise SettingsError(f"there is no policy `{name}`; there are {', '.join(makers)}")
    return makers[name]()


class ScoreRule(AbstractFulfilmentRule):
    """Scores of a user's function; see `from_score`."""

    function: Callable[[Array, Array, PyTree], Scores] = eqx.field(static=True)
    parameters: PyTree = None

    def inputs(self, row: PerCentre, order: Order) -> PerCentre:
        """Return the stock row."""
        return row

    def scores(self, inputs: PerCentre, reward: PerCentre, order: Order) -> Scores:
        """Call the function."""
        return self.function(inputs, reward, self.parameters)


class ChoiceRule(FulfilmentProcess):
    """Choices of a user's function, which are not masked but checked by `fulfil`; see `from_choice`."""

    function: Callable[[Array, Array, Array], Action] = eqx.field(static=True, kw_only=True)

    def decision_inputs(self, own: Array, shared: Array, event: Order) -> tuple[Array, Array]:
        """Return the stock row and the capacity left."""
        return own, self.granted[event.refills] - shared

    def decide(self, code: Scores, inputs: tuple[Array, Array], event: Order) -> Action:
        """Call the function with the rewards."""
        return self.function(*inputs, code[:-1]).astype(jnp.int32)

    def still_valid(self, action: Action, before: PyTree, now: PyTree) -> Bool[Array, ""]:
        """Certify only where nothing changed: the function may depend on anything."""
        return trees_equal(before, now)

    def allowed(self, state: PyTree, event: Order, action: Action) -> Bool[Array, ""]:
        """Allow anything; `fulfil` checks the result."""
        return jnp.asarray(True)


def from_score(
    instance: Instance, function: Callable[[Array, Array, PyTree], Scores], parameters: PyTree = None
) -> ScoreRule:
    """Make a rule of a function `(stock row, reward, parameters) -> score of every centre and, last, of none`.

    Scores are whole numbers in 1/65,536 of money; centres without the stock or the capacity are masked.

    Raises:
        InputError: `function` returns another shape or type.
    """
    row = jnp.zeros(instance.n_centres, jnp.int32)
    options = f"{instance.n_centres + 1} whole numbers, one for every centre and last one for none"
    _check_output(function, (row, row, parameters), (instance.n_centres + 1,), options)
    return ScoreRule(function, parameters)


def from_choice(instance: Instance, function: Callable[[Array, Array, Array], Action]) -> ChoiceRule:
    """Make a process of a function `(stock row, capacity left, reward) -> centre or -1`.

    Raises:
        InputError: `function` returns another shape or type.
    """
    row = jnp.zeros(instance.n_centres, jnp.int32)
    _check_output(function, (row, row, row), (), "one whole number, the centre or -1")
    granted = jnp.asarray(instance.cumulative_capacity())
    return ChoiceRule(Greedy(), jnp.asarray(instance.reward), granted, function=function)


def _check_output(function: Callable[..., Any], arguments: tuple, shape: tuple[int, ...], needed: str) -> None:
    """Refuse a function that returns another shape or type."""
    output = eqx.filter_eval_shape(function, *arguments)
    if getattr(output, "shape", None) != shape or not jnp.issubdtype(output.dtype, jnp.integer):
        given = f"{output.dtype}{list(output.shape)}" if hasattr(output, "dtype") else type(output).__name__
        raise InputError(
            f"the policy returns {given} but needs {needed}; round with `.astype(int)` or change its shape"
        )
