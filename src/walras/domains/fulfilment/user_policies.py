"""Own policies that are a plain function of one order, whatever it does.

OPEN: a function that scores is masked by what there is; one that names a centre is taken at its word and checked.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from walras.domains.fulfilment.instance import Instance
from walras.domains.fulfilment.policies import Greedy
from walras.domains.fulfilment.process import AbstractFulfilmentRule, FulfilmentProcess, Order
from walras.errors import InputError
from walras.parallel.process import trees_equal


class ScoreRule(AbstractFulfilmentRule):
    """Score by a function `(stock row, reward, parameters) -> score of every centre and, last, of none`.

    Scores are rounded to 1/65,536 of the reward's unit by the function itself: it returns whole numbers.
    """

    function: Callable[[Array, Array, PyTree], Int[Array, " option"]] = eqx.field(static=True)
    parameters: PyTree = None

    def inputs(self, row: Int[Array, " centre"], order: Order) -> Int[Array, " centre"]:
        """Return the stock row."""
        return row

    def scores(
        self, inputs: Int[Array, " centre"], reward: Int[Array, " centre"], order: Order
    ) -> Int[Array, " option"]:
        """Ask the function."""
        return self.function(inputs, reward, self.parameters)


def from_score(
    world: Instance, function: Callable[[Array, Array, PyTree], Int[Array, " option"]], parameters: PyTree = None
) -> ScoreRule:
    """Make a rule of a function `(stock row, reward, parameters) -> score of every centre and, last, of none`.

    Raises:
        InputError: it does not return whole numbers, one for every centre and one more.
    """
    row = jnp.zeros(world.n_centres, jnp.int32)
    options = f"{world.n_centres + 1} whole numbers, one for every centre and last one for none"
    _insist(function, (row, row, parameters), (world.n_centres + 1,), options)
    return ScoreRule(function, parameters)


def _insist(function: Callable[..., Any], arguments: tuple, shape: tuple[int, ...], needed: str) -> None:
    """Refuse a function that returns something else than is needed."""
    found = eqx.filter_eval_shape(function, *arguments)
    if getattr(found, "shape", None) != shape or not jnp.issubdtype(found.dtype, jnp.integer):
        given = f"{found.dtype}{list(found.shape)}" if hasattr(found, "dtype") else type(found).__name__
        raise InputError(f"the policy returns {given} but needs {needed}; round with `.astype(int)` or mend its shape")


class ChoiceRule(FulfilmentProcess):
    """Decide by a function `(stock row, capacity left, reward) -> centre or -1`, which has to name one that can send.

    Nothing masks what it says: `check_actions` refuses a centre without the stock or the capacity.
    """

    function: Callable[[Array, Array, Array], Int[Array, ""]] = eqx.field(static=True, kw_only=True)

    def encoder_inputs(self, own: Int[Array, " centre"], event: Order) -> tuple:
        """Return nothing: all is decided at once."""
        return ()

    def encode(self, inputs: tuple, event: Order) -> Int[Array, " centre"]:
        """Look up the reward."""
        return self.reward[event.destination]

    def decision_inputs(self, own: Array, shared: Array, event: Order) -> tuple[Array, Array]:
        """Return the stock row and the capacity left."""
        return own, self.granted[event.refills] - shared

    def decide(self, code: Array, reads: tuple[Array, Array], event: Order) -> Int[Array, ""]:
        """Ask the function."""
        return self.function(*reads, code).astype(jnp.int32)

    def still_valid(self, action: Int[Array, ""], before: PyTree, now: PyTree) -> Bool[Array, ""]:
        """Certify only where nothing changed: the function may look at anything."""
        return trees_equal(before, now)

    def allowed(self, state: PyTree, event: Order, action: Int[Array, ""]) -> Bool[Array, ""]:
        """Take anything: what is wrong is found afterwards."""
        return jnp.asarray(True)


def from_choice(world: Instance, function: Callable[[Array, Array, Array], Int[Array, ""]]) -> ChoiceRule:
    """Put a function `(stock row, capacity left, reward) -> centre or -1` into a world.

    Raises:
        InputError: it does not return one whole number.
    """
    row = jnp.zeros(world.n_centres, jnp.int32)
    _insist(function, (row, row, row), (), "one whole number, the centre or -1")
    return ChoiceRule(Greedy(), jnp.asarray(world.reward), jnp.asarray(world.granted()), function=function)
