"""Own how a policy decides orders, as a process that any engine runs.

CONTRACT: policies are `AbstractFulfilmentRule`s; stock and capacity mask the options, ties go to the lowest centre.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from walras.domains.fulfilment.instance import NONE, Instance
from walras.parallel.process import AdditiveProcess

LEAST = -(1 << 31)
"""Score of an option that is not there."""


class Order(eqx.Module):
    """Hold orders, one or many."""

    product: Int[Array, "*order"]
    destination: Int[Array, "*order"]
    quantity: Int[Array, "*order"]
    refills: Int[Array, "*order"]


class AbstractFulfilmentRule(eqx.Module):
    """Score the options of an order: every centre, and last that nobody fulfils it. The best that there is, is taken.

    Scores are whole numbers in the unit of the rewards (1/65,536), so that every batch shape gives the same decision.
    """

    def inputs(self, row: Int[Array, " centre"], order: Order) -> PyTree:
        """Return all that `scores` reads of the product's stock row; nothing by default."""
        return ()

    @abc.abstractmethod
    def scores(self, inputs: PyTree, reward: Int[Array, " centre"], order: Order) -> Int[Array, " option"]:
        """Score every centre and, last, no centre, without knowing what capacity is left: the expensive part."""

    def sees(self, capacity: Int[Array, " centre"], granted: Int[Array, " centre"]) -> Int[Array, " some"]:
        """Return what of the capacity left the prices depend on; nothing by default."""
        return capacity[:0]

    def prices(self, seen: Int[Array, " some"]) -> Int[Array, " centre"] | int:
        """Return what a unit of capacity costs now, taken off the scores of the centres; nothing by default."""
        return 0


class FulfilmentProcess(AdditiveProcess):
    """Send every order to the centre that the rule likes best of those that have its units and the capacity."""

    rule: AbstractFulfilmentRule
    reward: Int[Array, "destination centre"]
    granted: Int[Array, "refills centre"]

    def key(self, event: Order) -> Int[Array, ""]:
        """Return the product."""
        return event.product

    def encoder_inputs(self, own: Int[Array, " centre"], event: Order) -> PyTree:
        """Return what the rule's scores depend on."""
        return self.rule.inputs(own, event)

    def encode(self, inputs: PyTree, event: Order) -> Int[Array, " option"]:
        """Score the options."""
        return self.rule.scores(inputs, self.reward[event.destination], event)

    def decision_inputs(
        self, own: Int[Array, " centre"], shared: Int[Array, " centre"], event: Order
    ) -> tuple[Bool[Array, " centre"], Int[Array, " some"]]:
        """Return which centres have the units and the capacity, and what the prices depend on."""
        granted = self.granted[event.refills]
        left = granted - shared
        return (own >= event.quantity) & (left >= event.quantity), self.rule.sees(left, granted)

    def decide(
        self, code: Int[Array, " option"], reads: tuple[Bool[Array, " centre"], Int[Array, " some"]], event: Order
    ) -> Int[Array, ""]:
        """Take the best option that there is; none wins only where it is better than all centres."""
        there, seen = reads
        scores = jnp.where(there, code[:-1] - self.rule.prices(seen), LEAST)
        best = jnp.argmax(scores).astype(jnp.int32)
        return jnp.where(there.any() & (scores.max() >= code[-1]), best, NONE)

    def still_valid(
        self,
        action: Int[Array, ""],
        before: tuple[Bool[Array, " centre"], Int[Array, " some"]],
        now: tuple[Bool[Array, " centre"], Int[Array, " some"]],
    ) -> Bool[Array, ""]:
        """Certify: prices are the same, nothing came back, and what was chosen is still there.

        A best option stays the best when others disappear.
        """
        chosen = (action == NONE) | now[0][jnp.maximum(action, 0)]
        return chosen & ~jnp.any(now[0] & ~before[0]) & jnp.all(now[1] == before[1])

    def change(self, event: Order, action: Int[Array, ""]) -> tuple[Int[Array, " centre"], Int[Array, " centre"]]:
        """Take the units from the stock and count them as sent."""
        sent = jnp.where(jnp.arange(self.reward.shape[1]) == action, event.quantity, 0)
        return -sent, sent

    def noop(self, event: Order) -> Int[Array, ""]:
        """Do not fulfil."""
        return jnp.asarray(NONE, jnp.int32)

    def allowed(self, state: PyTree, event: Order, action: Int[Array, ""]) -> Bool[Array, ""]:
        """Say whether the centre has the units and the capacity."""
        own, shared = self.observe(state, event)
        return (action == NONE) | self.decision_inputs(own, shared, event)[0][jnp.maximum(action, 0)]


def orders_of(world: Instance) -> Order:
    """Return the orders of a world as events, in time."""
    parts = (world.product, world.destination, world.quantity, world.refills())
    return Order(*(jnp.asarray(part, jnp.int32) for part in parts))


def process_of(world: Instance, rule: AbstractFulfilmentRule) -> FulfilmentProcess:
    """Put a rule into a world."""
    return FulfilmentProcess(rule, jnp.asarray(world.reward), jnp.asarray(world.granted()))
