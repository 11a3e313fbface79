"""Order fulfilment as a decision process: a rule scores the options, the best available one is taken.

CONTRACT: policies are `AbstractFulfilmentRule`s; stock and capacity mask the options, ties go to the lowest centre.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from walras.domains.fulfilment.instance import NONE, Instance
from walras.parallel.process import AdditiveProcess

PerCentre = Int[Array, " centre"]
Scores = Int[Array, " option"]
PriceInputs = Int[Array, " some"]
DecisionInputs = tuple[Bool[Array, " centre"], PriceInputs]
Action = Int[Array, ""]

LEAST = -(1 << 31)
"""Score of an option that is not available."""


class Order(eqx.Module):
    """Orders, one or many, as events; `refills` counts the refills of capacity before each."""

    product: Int[Array, "*order"]
    destination: Int[Array, "*order"]
    quantity: Int[Array, "*order"]
    refills: Int[Array, "*order"]


class AbstractFulfilmentRule(eqx.Module):
    """Scores the options of an order: every centre and, last, rejecting it.

    Scores are integers in the unit of the rewards (1/65,536), so that every batch shape gives the same decision.
    """

    def inputs(self, row: PerCentre, order: Order) -> PyTree:
        """Return all that `scores` reads of the product's stock row; nothing by default."""
        return ()

    @abc.abstractmethod
    def scores(self, inputs: PyTree, reward: PerCentre, order: Order) -> Scores:
        """Score every centre and, last, no centre, without the capacity left: the expensive part."""

    def price_inputs(self, left: PerCentre, granted: PerCentre) -> PriceInputs:
        """Return what of the capacity left and granted the prices depend on; nothing by default."""
        return left[:0]

    def prices(self, inputs: PriceInputs) -> PerCentre | int:
        """Return the current price of a unit of capacity, taken off the scores of the centres; 0 by default."""
        return 0


class FulfilmentProcess(AdditiveProcess):
    """Send every order from the centre with the best score of those that have its units and the capacity."""

    rule: AbstractFulfilmentRule
    reward: Int[Array, "destination centre"]
    granted: Int[Array, "refills centre"]

    def key(self, event: Order) -> Action:
        """Return the product, whose stock is a row of the table."""
        return event.product

    def encoder_inputs(self, own: PerCentre, event: Order) -> PyTree:
        """Return what the scores depend on."""
        return self.rule.inputs(own, event)

    def encode(self, inputs: PyTree, event: Order) -> Scores:
        """Score the options."""
        return self.rule.scores(inputs, self.reward[event.destination], event)

    def decision_inputs(self, own: PerCentre, shared: PerCentre, event: Order) -> DecisionInputs:
        """Return which centres have the units and the capacity, and what the prices depend on."""
        granted = self.granted[event.refills]
        left = granted - shared
        return (own >= event.quantity) & (left >= event.quantity), self.rule.price_inputs(left, granted)

    def decide(self, code: Scores, inputs: DecisionInputs, event: Order) -> Action:
        """Take the best available option; an order is rejected only where that is better than all centres."""
        available, price_inputs = inputs
        scores = jnp.where(available, code[:-1] - self.rule.prices(price_inputs), LEAST)
        best = jnp.argmax(scores).astype(jnp.int32)
        return jnp.where(available.any() & (scores.max() >= code[-1]), best, NONE)

    def still_valid(
        self,
        action: Action,
        before: DecisionInputs,
        now: DecisionInputs,
    ) -> Bool[Array, ""]:
        """Certify where prices are the same, no option came back and the chosen one is still available.

        The best option remains the best when others disappear.
        """
        chosen = (action == NONE) | now[0][jnp.maximum(action, 0)]
        return chosen & ~jnp.any(now[0] & ~before[0]) & jnp.all(now[1] == before[1])

    def change(self, event: Order, action: Action) -> tuple[PerCentre, PerCentre]:
        """Take the units from the stock and count them as sent."""
        sent = jnp.where(jnp.arange(self.reward.shape[1]) == action, event.quantity, 0)
        return -sent, sent

    def noop(self, event: Order) -> Action:
        """Reject the order."""
        return jnp.asarray(NONE, jnp.int32)

    def allowed(self, state: PyTree, event: Order, action: Action) -> Bool[Array, ""]:
        """Say whether the centre has the units and the capacity."""
        own, shared = self.observe(state, event)
        return (action == NONE) | self.decision_inputs(own, shared, event)[0][jnp.maximum(action, 0)]


def orders_of(instance: Instance) -> Order:
    """Return the orders of an instance as events."""
    parts = (instance.product, instance.destination, instance.quantity, instance.refill_count())
    return Order(*(jnp.asarray(part, jnp.int32) for part in parts))


def process_of(instance: Instance, rule: AbstractFulfilmentRule) -> FulfilmentProcess:
    """Return the process of an instance under a rule."""
    return FulfilmentProcess(rule, jnp.asarray(instance.reward), jnp.asarray(instance.cumulative_capacity()))
