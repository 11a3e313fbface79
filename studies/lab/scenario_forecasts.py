"""Own the futures that a method plans on when it simulates: what will come, or scenarios drawn from what is known.

OPEN: add a future as a class with `paths`; only `PerfectForecast` may look at weeks that have not come yet.
"""

import abc
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from lab.resampling import PastBootstrap, RealisedPath
from walras.exogenous.paths import ExogenousPaths
from walras.train.agent_pool import AgentPool


class AbstractScenarioForecast(abc.ABC):
    """Say what the coming weeks may bring.

    Attributes:
        scenarios: how many futures are planned on.
    """

    scenarios: int

    @abc.abstractmethod
    def paths(
        self, world: AgentPool, agents: Int[np.ndarray, " slot"], now: int, random: np.random.Generator
    ) -> ExogenousPaths:
        """Return the week of the origin and the horizon after it; every array has a scenario axis in front.

        Args:
            world: the pool.
            agents: who of it is in each slot.
            now: week of the world that is the origin.
            random: draws what is drawn.
        """


@dataclass(frozen=True)
class PerfectForecast(AbstractScenarioForecast):
    """Know what will come."""

    scenarios: int = 1

    def paths(
        self, world: AgentPool, agents: Int[np.ndarray, " slot"], now: int, random: np.random.Generator
    ) -> ExogenousPaths:
        """Return the one that will come; nothing is drawn."""
        return _stacked([RealisedPath(world, agents, now).path()])


@dataclass(frozen=True)
class SampledScenarios(AbstractScenarioForecast):
    """Draw scenarios of demand, forecasts and lead times from what was over by the origin.

    Attributes:
        scenarios: how many.
    """

    scenarios: int = 1

    def paths(
        self, world: AgentPool, agents: Int[np.ndarray, " slot"], now: int, random: np.random.Generator
    ) -> ExogenousPaths:
        """Draw them one after the other: of the same numbers, more scenarios begin with those of fewer."""
        futures = PastBootstrap(world, agents, now)
        return _stacked([futures.drawn(random) for _ in range(self.scenarios)])


def _stacked(paths: list[ExogenousPaths]) -> ExogenousPaths:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *paths)
