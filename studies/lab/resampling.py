"""Bootstrap of exogenous paths from an origin on: demand, forecasts and lead times of the coming weeks.

Agents interact only through prices, so scenarios can be bootstrapped per agent: each agent's coming weeks are those of
another time of its own history, demand and forecasts together, rescaled from its expectation then to that now; agents
without such a time get their expectation. Sale prices and costs stay as they are.
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
"""Resampled weeks: that of the origin, whose demand is not known in it, and the horizon."""

MOST_SCALED = 4.0
"""Largest factor, up and down, by which demand of another time is rescaled, for level and for season."""

YEAR, RARELY = 52, 1e-3
"""Forecasts of the first year know no season, so that its weeks are used only where there are no others."""

TINY = float(np.finfo(np.float32).tiny)

AheadSlot = Float[np.ndarray, "ahead slot"]


@dataclass(frozen=True, eq=False)
class ScenarioBootstrap:
    """Bootstrap of a population's coming weeks.

    Attributes:
        agent_pool: the pool.
        agents: index in the pool of each agent.
        now: week of the pool that is the origin.
    """

    agent_pool: AgentPool
    agents: Int[np.ndarray, " slot"]
    now: int

    def sample(self, random: np.random.Generator) -> ExogenousPaths:
        """Draw one scenario of the weeks from the origin on [week, slot]."""
        agent_pool, paths, rows = self.agent_pool, self.agent_pool.exogenous, self._priced_weeks
        then = self._donor_weeks(random)
        expected, earlier = self._expected(np.full(len(self.agents), self.now)), self._expected(np.maximum(then, 0))
        level = _factor(expected.mean(0), earlier.mean(0))
        season = _factor(expected * earlier.mean(0), earlier * expected.mean(0))
        usable = (then >= 0) & (earlier > 0)
        demand = np.where(usable, level * np.where(expected > 0, season, 0.0) * self._at(paths.demand, then), expected)
        lead = np.asarray(agent_pool.population.lead_time)[self.agents]
        mean, sd = self._forecasts(then, _lead_sums(expected, lead), _lead_sums(earlier, lead))
        times = draw_lead_times(lead, (1, SPAN), seed=int(random.integers(2**31)))[0]
        return ExogenousPaths(
            demand=_single(demand),
            sale_price=_single(np.asarray(paths.sale_price)[rows].take(self.agents, axis=1)),
            unit_cost=_single(np.asarray(paths.unit_cost)[rows].take(self.agents, axis=1)),
            lead_demand_mean=_single(mean),
            lead_demand_sd=_single(sd),
            arrivals=IntegerLeadTimes(jnp.asarray(np.minimum(times, agent_pool.max_lead))),
        )

    @cached_property
    def _cumulative_chances(self) -> Float[np.ndarray, "fit slot"]:
        """Cumulative weights of the weeks of each fit to be the donor.

        They are proportional to expected demand: the mean of realised over expected demand is that of their sums, not
        that of ratios, which forecasts near 0 would inflate.
        """
        weeks = self.agent_pool.fit_week
        level = np.zeros((len(weeks), len(self.agents)))
        for fit in np.flatnonzero(self._eligible(weeks)):  # none in a table of hardly two years
            expected = self.agent_pool.expected[fit, :SPAN].take(self.agents, axis=1).mean(0)
            level[fit] = expected * self.agent_pool.active[weeks[fit], self.agents]
        level[weeks < YEAR] *= RARELY
        return np.cumsum(level, axis=0)

    @property
    def _priced_weeks(self) -> Int[np.ndarray, " ahead"]:
        """Weeks from which the coming ones take sale prices and costs: their own."""
        return self.now + np.arange(SPAN)

    def _eligible(self, weeks: Int[np.ndarray, " fit"]) -> Bool[np.ndarray, " fit"]:
        """Mark donor weeks: their spans do not overlap the origin's."""
        return (np.abs(weeks - self.now) >= SPAN) & (weeks + SPAN <= self.agent_pool.n_weeks)

    def _donor_weeks(self, random: np.random.Generator) -> Int[np.ndarray, " slot"]:
        """Draw a donor week in which each agent was active; -1 for none."""
        total = self._cumulative_chances[-1]
        fit = (self._cumulative_chances <= random.uniform(size=len(total)) * total).sum(0)
        return np.where(total > 0, self.agent_pool.fit_week[np.minimum(fit, len(self._cumulative_chances) - 1)], -1)

    def _expected(self, week: Int[np.ndarray, " slot"]) -> AheadSlot:
        """Return expected demand of a week of each agent's own and the weeks after it."""
        fit = np.maximum(np.searchsorted(self.agent_pool.fit_week, week, side="right") - 1, 0)
        ahead = week - self.agent_pool.fit_week[fit] + np.arange(SPAN)[:, None]
        return self.agent_pool.expected[fit[None, :], ahead, self.agents[None, :]].astype(float)

    def _at(self, values: Array, week: Int[np.ndarray, " slot"]) -> AheadSlot:
        return np.asarray(values)[np.maximum(week, 0) + np.arange(SPAN)[:, None], self.agents[None, :]].astype(float)

    def _forecasts(
        self, then: Int[np.ndarray, " slot"], expected: AheadSlot, earlier: AheadSlot
    ) -> tuple[AheadSlot, AheadSlot]:
        """Return the agents' own forecasts: expected lead-time demand now, revised as it was revised then."""
        paths = self.agent_pool.exogenous
        now, spread = (
            np.asarray(part)[self.now, self.agents] for part in (paths.lead_demand_mean, paths.lead_demand_sd)
        )
        revised = np.where(then >= 0, _factor(self._at(paths.lead_demand_mean, then), earlier), 1.0)
        mean = expected * revised
        mean[0] = now  # known in the origin
        return mean, np.where(now > 0, mean / np.maximum(now, TINY), 1.0) * spread


class PastBootstrap(ScenarioBootstrap):
    """Bootstrap from what is known in the origin: past weeks alone, sale prices and costs those of the origin."""

    @property
    def _priced_weeks(self) -> Int[np.ndarray, " ahead"]:
        return np.full(SPAN, self.now)

    def _eligible(self, weeks: Int[np.ndarray, " fit"]) -> Bool[np.ndarray, " fit"]:
        return weeks + SPAN <= self.now


def realised_path(agent_pool: AgentPool, agents: Int[np.ndarray, " slot"], now: int) -> ExogenousPaths:
    """Return the weeks from the origin on as they happened [week, slot]; the pool's last week holds after it."""
    rows = np.minimum(now + np.arange(SPAN), agent_pool.n_weeks - 1)
    cut = lambda leaf: jnp.asarray(np.asarray(leaf)[rows].take(agents, axis=1))  # noqa: E731
    return jax.tree.map(cut, agent_pool.exogenous)


def _lead_sums(expected: AheadSlot, lead: Int[np.ndarray, " slot"]) -> AheadSlot:
    """Sum demand from each week to the arrival week of an order placed in it; the last week holds."""
    last = np.repeat(expected[-1:], int(lead.max(initial=0)) + 1, axis=0)
    sums = np.pad(np.cumsum(np.concatenate([expected, last]), axis=0), ((1, 0), (0, 0)))
    first, slot = np.arange(len(expected))[:, None], np.arange(len(lead))[None, :]
    return sums[first + lead[None, :] + 1, slot] - sums[first, slot]


def _factor(now: Float[np.ndarray, "*axes"], then: Float[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
    """Return the factor from the expectation then to that now, within bounds."""
    return np.clip((now + TINY) / (then + TINY), 1 / MOST_SCALED, MOST_SCALED)


def _single(values: np.ndarray) -> Float[Array, "week slot"]:
    return jnp.asarray(values, jnp.float32)
