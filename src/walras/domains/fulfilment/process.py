"""Order fulfilment as a decision process (a rule scores the options, the best available one is taken), and its run.

CONTRACT: policies are `AbstractFulfilmentRule`s; stock and capacity mask the options, ties go to the lowest centre; the
trajectory is that of one order after the other, whatever engine runs it, and is checked.
"""

import abc
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree
from numpy import ndarray

from walras.domains.fulfilment.audit import check_actions, exhausted, total_reward
from walras.domains.fulfilment.instance import NONE, Instance
from walras.errors import InputError, SettingsError
from walras.parallel.autotune import default_engine
from walras.parallel.picard import PicardInfo
from walras.parallel.process import AbstractEngine, AdditiveProcess, EngineInfo

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

    def still_valid(self, action: Action, before: DecisionInputs, now: DecisionInputs) -> Bool[Array, ""]:
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


@dataclass(frozen=True)
class FulfilmentResult:
    """A trajectory; of one that has not converged only the orders that are final.

    Attributes:
        actions: the centre that sends each order, -1 for none and for what is not final [order].
        reward: of all orders [money].
        info: how much work it was.
        exhausted: centres that sent their last unit of capacity.
    """

    instance: Instance
    actions: Int[ndarray, " order"]
    reward: float
    info: EngineInfo
    exhausted: Int[ndarray, " centre"]

    @property
    def fill_rate(self) -> float:
        """Return the share of orders that were fulfilled."""
        return float(np.mean(self.actions != NONE))

    @property
    def converged(self) -> bool:
        """Say whether all actions are final."""
        return not isinstance(self.info, PicardInfo) or bool(self.info.converged)

    def __str__(self) -> str:
        """Print a small table."""
        return (
            f"{'orders':24}{self.instance.n_orders:,}\n{'fulfilled':24}{self.fill_rate:.1%}\n"
            f"{'reward':24}{self.reward:,.1f}\n"
            f"{'centres exhausted':24}{len(self.exhausted)} of {self.instance.n_centres}\n{self.info}"
        )


def fulfil(
    instance: Instance, rule: AbstractFulfilmentRule | FulfilmentProcess, engine: AbstractEngine | None = None
) -> FulfilmentResult:
    """Decide all orders of an instance by a rule, or by a whole process made by `from_choice`.

    The engine is the parallel one where not given.

    Raises:
        InputError: `rule` is no rule, or a user's rule sent an order from a centre that cannot send it.
        SettingsError: `engine` is no engine.
    """
    if not isinstance(rule, AbstractFulfilmentRule | FulfilmentProcess):
        raise InputError(
            f"the rule is a {type(rule).__name__} but needs to be a rule, e.g. `Greedy()`; make one of a function with "
            "`from_score` or `from_choice`"
        )
    if not isinstance(engine, AbstractEngine | None):
        raise SettingsError(
            f"`engine` is {engine!r} but needs to be an engine, e.g. `Picard()` or `Sequential()`; leave it out for "
            "the default one"
        )
    engine = default_engine(instance.n_orders) if engine is None else engine
    process = rule if isinstance(rule, FulfilmentProcess) else process_of(instance, rule)
    trajectory, info = engine.run(process, instance.initial_state(), orders_of(instance))
    final = int(info.committed) if isinstance(info, PicardInfo) else instance.n_orders
    # Guesses that are not final may be infeasible and are not reported.
    actions = np.where(np.arange(instance.n_orders) < final, np.asarray(trajectory.records), NONE)
    check_actions(instance, actions)
    return FulfilmentResult(instance, actions, total_reward(instance, actions), info, exhausted(instance, actions))
