"""Own one call for a whole trajectory of order fulfilment: actions, what they earned, and how much work it was.

CONTRACT: the trajectory is that of one order after the other, whatever engine runs it, and is checked.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from walras.domains.fulfilment.instance import NONE, Instance, check_actions, exhausted, total_reward
from walras.domains.fulfilment.process import AbstractFulfilmentRule, FulfilmentProcess, orders_of, process_of
from walras.errors import InputError, SettingsError
from walras.parallel.autotune import default_engine as engine_for
from walras.parallel.picard import Picard, PicardInfo
from walras.parallel.process import AbstractEngine, EngineInfo
from walras.parallel.strategies import AbstractWindow


@dataclass(frozen=True)
class Fulfilled:
    """Hold a trajectory of a world; of one that has not converged only the orders that are final.

    Attributes:
        actions: the centre that sends each order, -1 for none and for what is not final [order].
        reward: of all orders [money].
        info: how much work it was.
        exhausted: centres that sent their last unit of capacity.
    """

    world: Instance
    actions: Int[ndarray, " order"]
    reward: float
    info: EngineInfo
    exhausted: Int[ndarray, " centre"]

    @property
    def share(self) -> float:
        """Return the share of orders that were fulfilled."""
        return float(np.mean(self.actions != NONE))

    @property
    def converged(self) -> bool:
        """Say whether all actions are final."""
        return not isinstance(self.info, PicardInfo) or bool(self.info.converged)

    def __str__(self) -> str:
        """Print a small table."""
        return (
            f"{'orders':24}{self.world.n_orders:,}\n{'fulfilled':24}{self.share:.1%}\n{'reward':24}{self.reward:,.1f}\n"
            f"{'centres exhausted':24}{len(self.exhausted)} of {self.world.n_centres}\n{self.info}"
        )


def default_engine(world: Instance, window: AbstractWindow | None = None, *, verify: bool = False) -> Picard:
    """Return the parallel engine that suits a world.

    Args:
        world: few orders are worked on all together, of many as many as was measured to be quickest.
        window: one of your own.
        verify: also decide one by one, and compare.
    """
    return engine_for(world.n_orders, window, verify=verify)


def fulfil(
    world: Instance, rule: AbstractFulfilmentRule | FulfilmentProcess, engine: AbstractEngine | None = None
) -> Fulfilled:
    """Decide all orders of a world by a rule.

    Args:
        rule: a rule, or a whole process made of one (`named_by`).
        engine: the parallel one where not given.

    Raises:
        InputError: what decides is no rule, or a rule of one's own sent an order to a centre that cannot send it.
        SettingsError: the engine is none.
    """
    if not isinstance(rule, AbstractFulfilmentRule | FulfilmentProcess):
        raise InputError(
            f"the rule is a {type(rule).__name__} but needs to be a rule, e.g. `Greedy()`; make one of a function with "
            "`scored_by` or `named_by`"
        )
    if not isinstance(engine, AbstractEngine | None):
        raise SettingsError(
            f"`engine` is {engine!r} but needs to be an engine, e.g. `Picard()` or `Sequential()`; leave it out for "
            "the one that suits the world"
        )
    engine = default_engine(world) if engine is None else engine
    process = rule if isinstance(rule, FulfilmentProcess) else process_of(world, rule)
    trajectory, info = engine.run(process, world.state(), orders_of(world))
    final = int(info.committed) if isinstance(info, PicardInfo) else world.n_orders
    # What was only guessed may be impossible: nothing is said of it.
    actions = np.where(np.arange(world.n_orders) < final, np.asarray(trajectory.records), NONE)
    check_actions(world, actions)
    return Fulfilled(world, actions, total_reward(world, actions), info, exhausted(world, actions))
