"""Episodes of textbook stores with stationary demand, for training buyers on problems with known optima."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lab.textbook import identical_agents
from walras.exogenous.arrivals import ConstantLeadTime
from walras.exogenous.paths import ExogenousPaths, constant_paths
from walras.population.population import Population
from walras.simulation.week import State
from walras.train.buyer_episodes import Episode, EpisodeSource


@dataclass(frozen=True)
class DemandLaw:
    """A demand distribution, the same in all weeks and independent between them.

    Attributes:
        kind: "poisson", "geometric" (of 0, 1, 2, ...), or "normal" (cut at 0).
        mean: units per week.
        sd: of the normal law [units/week]; the others follow from the mean.
    """

    kind: str
    mean: float
    sd: float = 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation [units/week]."""
        return {"poisson": self.mean**0.5, "geometric": (self.mean * (1 + self.mean)) ** 0.5}.get(self.kind, self.sd)

    @property
    def whole(self) -> bool:
        """Whether demand comes in whole units."""
        return self.kind != "normal"

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
        """Draw units per week."""
        if self.kind == "poisson":
            drawn = random.poisson(self.mean, shape)
        elif self.kind == "geometric":
            drawn = random.geometric(1.0 / (1.0 + self.mean), shape) - 1
        else:
            drawn = np.maximum(random.normal(self.mean, self.sd, shape), 0.0)
        return drawn.astype(np.float32)


@dataclass(frozen=True)
class StationaryEpisodes(EpisodeSource):
    """Episodes of textbook stores: one lead time, holding cost, and a penalty for every unit short.

    Attributes:
        law: of weekly demand.
        penalty: for a unit short [money/unit]; under backlog, per week that it waits.
        lead_time: weeks from order to receipt, at least 1.
        holding: cost of a unit of stock at the end of a week [money/unit/week].
        backlog: unmet demand waits instead of being lost.
        stores: in an episode.
        weeks: that count for the loss.
        warm_up: weeks before them, in which the start wears off.
        free_weeks: weeks at the end whose orders are not learned from.
    """

    law: DemandLaw
    penalty: float
    lead_time: int
    holding: float = 1.0
    backlog: bool = False
    stores: int = 512
    weeks: int = 65
    warm_up: int = 15
    free_weeks: int = 20

    def identity(self) -> Mapping[str, Any]:
        """Return all settings."""
        return {name: repr(value) for name, value in vars(self).items()}

    def agents(self, stores: int) -> Population:
        """Return identical stores."""
        more = {"demand": self.law.mean, "margin": 1.0, "holding": self.holding, "penalty": self.penalty}
        return identical_agents(stores, lead=self.lead_time, **more)

    def paths(self, random: np.random.Generator, stores: int, weeks: int) -> ExogenousPaths:
        """Draw demand; what agents expect of lead-time demand is the law's own."""
        span = self.lead_time + 1
        return constant_paths(
            self.law.draw(random, (weeks, stores)),
            ConstantLeadTime(self.lead_time),
            lead_demand_mean=self.law.mean * span,
            lead_demand_sd=self.law.deviation * span**0.5,
        )

    def start(self, random: np.random.Generator, stores: int) -> State:
        """Draw stock of up to three weeks of demand, and orders of up to two weeks' each."""
        stock = random.uniform(0.0, 3.0 * self.law.mean, stores)
        placed = random.uniform(0.0, 2.0 * self.law.mean, (self.lead_time, stores))
        return State(jnp.asarray(stock, jnp.float32), jnp.asarray(placed, jnp.float32))

    def draw(self, seed: int, number: int) -> Episode:
        """Draw demand and a start."""
        return self._episode(np.random.default_rng([seed, number, 0x57A]))

    def validation(self) -> tuple[Episode, ...]:
        """Return one episode of four times as many stores and weeks."""
        return (self._episode(np.random.default_rng(0x57A), 4),)

    def _episode(self, random: np.random.Generator, times: int = 1) -> Episode:
        stores, weeks = times * self.stores, self.warm_up + times * self.weeks
        counts = (np.arange(weeks) >= self.warm_up).astype(np.float32)
        return Episode(
            population=self.agents(stores),
            exogenous=self.paths(random, stores, weeks),
            initial=self.start(random, stores),
            shadow_prices=jnp.zeros((weeks, 1)),
            notice=jnp.zeros((weeks, 1), jnp.int32),
            week_weight=jnp.asarray(counts),
            stake=jnp.asarray(stores * self.law.mean * self.penalty, jnp.float32),
        )
