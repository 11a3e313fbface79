"""One call for a whole trajectory of order fulfilment.

CONTRACT: the trajectory is that of one order after the other, whatever engine runs it, and is checked.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from walras.domains.fulfilment.audit import check_actions, exhausted, total_reward
from walras.domains.fulfilment.instance import NONE, Instance
from walras.domains.fulfilment.process import AbstractFulfilmentRule, FulfilmentProcess, orders_of, process_of
from walras.errors import InputError, SettingsError
from walras.parallel.autotune import default_engine
from walras.parallel.picard import PicardInfo
from walras.parallel.process import AbstractEngine, EngineInfo


@dataclass(frozen=True)
class FulfilmentResult:
    """A trajectory; of one that has not converged only the orders that are final.

    Attributes:
        instance: what was decided.
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
    """Decide all orders of an instance by a rule.

    Args:
        instance: orders and centres.
        rule: a rule, or a whole process made by `from_choice`.
        engine: the parallel one where not given.

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
