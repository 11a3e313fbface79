"""Controllers, which issue shadow prices week by week, and the loop that runs one.

CONTRACT: every week, with that week's receipts known, a controller issues prices for the weeks after it; the first of
them is charged in the next week (docs/decisions/0017-one-controller.md).
"""

import abc
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.simulation.week import State

Prices = Float[Array, "*scenario ahead resource"] | Float[np.ndarray, "*scenario ahead resource"]
"""Prices of the weeks after the present one."""


class ControlObservation(eqx.Module):
    """What a controller knows in a week before it issues prices.

    Prices are money per unit of resource, except in the loop over a map, which states prices and capacity relative to
    the population (`walras.maps.features.Units`).

    Attributes:
        week: index of the week in the run.
        state: at the end of the previous week, so that this week's receipts are `state.pipeline[0]`.
        charged: prices of this week, as issued in the previous one.
        announced: what was issued in the previous week: prices of this week and those after it; None in the first week
            and in compiled loops.
        memory: what the controller handed on in the previous week, or its `begin`.
        capacity: of the weeks after this one, where the loop knows a target.
        encoded: the population as a map has encoded it, where the loop runs a map.
    """

    week: Int[Array, ""] | int
    state: State
    charged: Float[Array, "*scenario resource"]
    announced: Prices | None = None
    memory: Any = None
    capacity: Float[Array, "ahead resource"] | None = None
    encoded: Any = None


class Issued(eqx.Module):
    """What a controller hands back in a week.

    Attributes:
        prices: of the weeks after this one; the last row holds for later weeks.
        memory: passed to the same controller next week.
        queries: how often the controller evaluated its model, where it counts.
    """

    prices: Prices
    memory: Any = None
    queries: Int[Array, ""] | int | None = None


class Controller(abc.ABC):
    """Issues shadow prices week by week. Implement `issue`; with a memory or a count of queries also `step`."""

    @abc.abstractmethod
    def issue(self, observation: ControlObservation) -> Prices:
        """Return the prices of the weeks after this one; the first row is charged next week, the last row holds."""

    def step(self, observation: ControlObservation) -> Issued:
        """Return prices, and what goes on to the next week; by default `issue`, without a memory."""
        return Issued(self.issue(observation), observation.memory)

    def begin(self, n_resources: int) -> Any:
        """Return the memory of the first week."""
        return None

    def opening_prices(self, n_resources: int) -> Float[Array, "*scenario resource"]:
        """Return the prices of the first week, before which nothing was issued; by default 0."""
        return jnp.zeros(n_resources)


class FixedPrices(Controller):
    """Charge given prices; week by week, the program of other controllers serves without another compilation."""

    def __init__(self, shadow_prices: Float[np.ndarray, "week resource"]) -> None:
        self.shadow_prices = np.asarray(shadow_prices, np.float32)

    def opening_prices(self, n_resources: int) -> Float[Array, " resource"]:
        """Return the prices of the first week."""
        return jnp.asarray(self.shadow_prices[0])

    def issue(self, observation: ControlObservation) -> Float[np.ndarray, "ahead resource"]:
        """Return the prices of all weeks after this one; the last ones hold."""
        last = len(self.shadow_prices) - 1
        week = int(observation.week) + 1 + np.arange(len(self.shadow_prices))
        return self.shadow_prices[np.minimum(week, last)]


Week = TypeVar("Week")


def closed_loop(
    controller: Controller,
    run_week: Callable[[int, State, Float[Array, "*scenario resource"], Prices], tuple[State, Week]],
    state: State,
    n_weeks: int,
    n_resources: int,
) -> list[Week]:
    """Run a controller that may do anything in between, hence week by week in Python; return the results of all weeks.

    `run_week` makes the next state and a result of a week, its state, and the prices charged and issued in it.
    """
    charged, memory = controller.opening_prices(n_resources), controller.begin(n_resources)
    announced, results = None, []
    for week in range(n_weeks):
        issued = controller.step(ControlObservation(week, state, charged, announced, memory))
        state, result = run_week(week, state, charged, issued.prices)
        results.append(result)
        announced, memory = issued.prices, issued.memory
        charged = jnp.asarray(announced[..., 0, :], jnp.float32)
    return results
