"""Own what could have come instead: demand, forecasts and lead times of the coming weeks drawn anew from an origin on.

OPEN: what is redrawn decides how much of a forecast's error counts as irreducible.

Agents never meet but in the prices, so expected utilization needs the law of each agent alone. An agent's coming weeks
are taken from another time of its own life, demand and forecasts together, scaled from what was expected of it then to
what is expected now; who has no such time gets what is expected. Sale prices and costs stay as they came.
"""

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from walras.exogenous.arrivals import IntegerLeadTimes, draw_lead_times
from walras.exogenous.paths import ExogenousPaths
from walras.maps.features import HORIZON
from walras.train.agent_pool import AgentPool

SPAN = HORIZON + 1
"""Weeks redrawn: that of the origin, whose demand is not known in it, and the horizon."""

MOST_SCALED = 4.0
"""What another time brought is scaled up and down by at most this factor, for level and for season."""

YEAR, RARELY = 52, 1e-3
"""Forecasts of the first year knew no season, so that futures are taken from it only where there are no others."""

TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class ScenarioBootstrap:
    """Hold what a redraw of a population's coming weeks starts from.

    Attributes:
        world: the pool.
        agents: who of it is in each slot.
        now: week of the world that is the origin.
    """

    world: AgentPool
    agents: Int[np.ndarray, " slot"]
    now: int

    def drawn(self, random: np.random.Generator) -> ExogenousPaths:
        """Draw the weeks from the origin on once [week, slot]."""
        world, paths, rows = self.world, self.world.exogenous, self._priced
        then = self._donors(random)
        there = then >= 0
        expected, earlier = self._expected(np.full(len(self.agents), self.now)), self._expected(np.maximum(then, 0))
        level = _scaled(expected.mean(0), earlier.mean(0))
        season = _scaled(expected * earlier.mean(0), earlier * expected.mean(0))
        told = there & (earlier > 0)
        demand = np.where(told, level * np.where(expected > 0, season, 0.0) * self._at(paths.demand, then), expected)
        lead = np.asarray(world.population.lead_time)[self.agents]
        mean, sd = self._forecasts(then, _summed(expected, lead), _summed(earlier, lead))
        times = draw_lead_times(lead, (1, SPAN), seed=int(random.integers(2**31)))[0]
        return ExogenousPaths(
            demand=_single(demand),
            sale_price=_single(np.asarray(paths.sale_price)[rows].take(self.agents, axis=1)),
            unit_cost=_single(np.asarray(paths.unit_cost)[rows].take(self.agents, axis=1)),
            lead_demand_mean=_single(mean),
            lead_demand_sd=_single(sd),
            arrivals=IntegerLeadTimes(jnp.asarray(np.minimum(times, world.max_lead))),
        )

    @cached_property
    def _chances(self) -> Float[np.ndarray, "fit slot"]:
        """Return the summed chances of each fit's weeks to be where a future is taken from.

        In proportion to what was expected then: the mean of what came over what was expected is that of their sums,
        not that of ratios, which forecasts near 0 would inflate.
        """
        weeks = self.world.fit_week
        kept = np.flatnonzero(self._free(weeks))
        level = np.zeros((len(weeks), len(self.agents)))
        for fit in kept:  # none in a table of hardly two years
            expected = self.world.expected[fit, :SPAN].take(self.agents, axis=1).mean(0)
            level[fit] = expected * self.world.active[weeks[fit], self.agents]
        level[weeks < YEAR] *= RARELY
        return np.cumsum(level, axis=0)

    @property
    def _priced(self) -> Int[np.ndarray, " ahead"]:
        """Return the weeks whose sale prices and costs the coming ones have: their own."""
        return self.now + np.arange(SPAN)

    def _free(self, weeks: Int[np.ndarray, " fit"]) -> Bool[np.ndarray, " fit"]:
        """Mark the weeks that futures may be taken from: their spans are apart from the origin's."""
        return (np.abs(weeks - self.now) >= SPAN) & (weeks + SPAN <= self.world.n_weeks)

    def _donors(self, random: np.random.Generator) -> Int[np.ndarray, " slot"]:
        """Return another week in which each agent was active, its span apart from the origin's; -1 for none."""
        total = self._chances[-1]
        fit = (self._chances <= random.uniform(size=len(total)) * total).sum(0)
        return np.where(total > 0, self.world.fit_week[np.minimum(fit, len(self._chances) - 1)], -1)

    def _expected(self, week: Int[np.ndarray, " slot"]) -> Float[np.ndarray, "ahead slot"]:
        """Return mean demand expected in a week of each agent's own, of it and the coming ones."""
        fit = np.maximum(np.searchsorted(self.world.fit_week, week, side="right") - 1, 0)
        ahead = week - self.world.fit_week[fit] + np.arange(SPAN)[:, None]
        return self.world.expected[fit[None, :], ahead, self.agents[None, :]].astype(float)

    def _at(self, values: Array, week: Int[np.ndarray, " slot"]) -> Float[np.ndarray, "ahead slot"]:
        return np.asarray(values)[np.maximum(week, 0) + np.arange(SPAN)[:, None], self.agents[None, :]].astype(float)

    def _forecasts(
        self,
        then: Int[np.ndarray, " slot"],
        expected: Float[np.ndarray, "ahead slot"],
        earlier: Float[np.ndarray, "ahead slot"],
    ) -> tuple[Float[np.ndarray, "ahead slot"], Float[np.ndarray, "ahead slot"]]:
        """Return the agents' own forecasts: what is expected now of each lead time, revised as it was revised then.

        Args:
            then: donor weeks.
            expected, earlier: demand of each week's lead time as expected in the origin, and in the donor week.
        """
        paths = self.world.exogenous
        now, spread = (
            np.asarray(part)[self.now, self.agents] for part in (paths.lead_demand_mean, paths.lead_demand_sd)
        )
        revised = np.where(then >= 0, _scaled(self._at(paths.lead_demand_mean, then), earlier), 1.0)
        mean = expected * revised
        mean[0] = now  # known in the origin
        return mean, np.where(now > 0, mean / np.maximum(now, TINY), 1.0) * spread


class PastBootstrap(ScenarioBootstrap):
    """Redraw from what is known in the origin alone, for those who decide in it.

    Only weeks that were over by then are taken, and sale prices and costs stay at those of the origin.
    """

    @property
    def _priced(self) -> Int[np.ndarray, " ahead"]:
        return np.full(SPAN, self.now)

    def _free(self, weeks: Int[np.ndarray, " fit"]) -> Bool[np.ndarray, " fit"]:
        return weeks + SPAN <= self.now


@dataclass(frozen=True, eq=False)
class RealisedPath:
    """Hold the weeks that really came, for bounds of those who know them.

    Attributes:
        world, agents, now: as in `ScenarioBootstrap`.
    """

    world: AgentPool
    agents: Int[np.ndarray, " slot"]
    now: int

    def path(self) -> ExogenousPaths:
        """Return the weeks from the origin on [week, slot]; after the world's last week that holds."""
        rows = np.minimum(self.now + np.arange(SPAN), self.world.n_weeks - 1)

        def cut(leaf: Array) -> Array:
            return jnp.asarray(np.asarray(leaf)[rows].take(self.agents, axis=1))

        return jax.tree.map(cut, self.world.exogenous)


def _summed(
    expected: Float[np.ndarray, "ahead slot"], lead: Int[np.ndarray, " slot"]
) -> Float[np.ndarray, "ahead slot"]:
    """Add each week's demand up to that of the week that an order of the week arrives in; the last week holds on."""
    last = np.repeat(expected[-1:], int(lead.max(initial=0)) + 1, axis=0)
    sums = np.pad(np.cumsum(np.concatenate([expected, last]), axis=0), ((1, 0), (0, 0)))
    first = np.arange(len(expected))[:, None]
    slot = np.arange(len(lead))[None, :]
    return sums[first + lead[None, :] + 1, slot] - sums[first, slot]


def _scaled(now: Float[np.ndarray, "*axes"], then: Float[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
    """Return the factor from what was expected then to what is expected now, within bounds."""
    return np.clip((now + TINY) / (then + TINY), 1 / MOST_SCALED, MOST_SCALED)


def _single(values: np.ndarray) -> Float[Array, "week slot"]:
    return jnp.asarray(values, jnp.float32)
