"""Cohorts: probability samples of agents that stand for all, with estimated totals and standard errors.

Add a sampling design as a subclass of `AbstractDesign` that returns inclusion probabilities and strata.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Real

from walras.errors import InputError, SettingsError, shape_mismatch
from walras.population.agent_axis import map_per_agent, per_agent, whole_count
from walras.population.population import N_BUCKETS, Population, bucket_edges, bucket_of

FLOOR_SHARE = 0.1  # of the mean size, added to every size so that no agent has a vanishing chance of being drawn
FEWEST = 2  # least number of agents drawn from a stratum: the spread cannot be estimated from one
CERTAIN = 1.0 - 1e-9  # chances from here on count as 1, despite rounding
NO_SPREAD = 1e-9  # relative spread of a stratum without any, so that remaining draws can be allocated

Tree = TypeVar("Tree")
PerAgent = Float[np.ndarray, " agent"]
Strata = Int[np.ndarray, " agent"]  # the stratum of each agent


@dataclass(frozen=True, eq=False)
class Cohort:
    """The drawn agents, how many agents each stands for, and how they were drawn."""

    index: Int[np.ndarray, " drawn"]  # ascending
    weight: Float[np.ndarray, " drawn"]  # 1 / chance of being drawn [agents]
    stratum: Int[np.ndarray, " drawn"]  # in which each was drawn; all 0 for a design without strata
    n_agents: int  # of the target population
    design: str  # description of the sampling design

    @property
    def n_drawn(self) -> int:
        """Count the drawn agents."""
        return len(self.index)

    @property
    def is_complete(self) -> bool:
        """Tell whether all agents were drawn."""
        return self.n_drawn == self.n_agents

    def subset(self, population: Population) -> Population:
        """Return the drawn agents, with their names and weights."""
        if population.n_agents != self.n_agents:
            raise shape_mismatch("population", (population.n_agents,), (self.n_agents,), "give the one drawn from")
        if self.is_complete:
            return population
        drawn = population.take(self.index)
        return eqx.tree_at(lambda p: p.weight, drawn, drawn.weight * jnp.asarray(self.weight, jnp.float32))

    def select(self, tree: Tree) -> Tree:
        """Select the drawn agents in every array of paths, policy or state (agent axis last); other values pass."""
        return tree if self.is_complete else map_per_agent(lambda node: node[..., self.index], tree, self.n_agents)

    def total(self, values: Real[np.ndarray, "*axes drawn"]) -> np.ndarray | float:
        """Estimate the total over the target population: the Horvitz-Thompson sum of values / chance.

        Args:
            values: of the drawn agents [any unit]; cut those of all agents with `select` first.
        """
        return self._checked(values) @ self.weight

    def standard_error(self, values: Real[np.ndarray, "*axes drawn"]) -> np.ndarray | float:
        """Estimate the standard error of `total` from the drawn agents alone.

        Hajek's approximation within each stratum, sum of (1 - pi) (y / pi - B)^2 times n / (n - 1), with B the mean
        of y / pi weighted by 1 - pi; agents drawn surely add nothing. With equal chances it is the textbook formula
        with finite population correction.

        Raises:
            InputError: one agent alone was left to chance in a stratum, which says nothing about spread.
        """
        chance = 1.0 / self.weight
        free = chance < CERTAIN
        alone = np.flatnonzero(np.bincount(self.stratum[free], minlength=1) == 1)
        if len(alone):
            raise InputError(
                f"one agent alone was drawn by chance in stratum {alone[0]} of a cohort of {self.n_drawn} but a "
                "standard error needs two; draw more agents"
            )
        expanded = self._checked(values) * self.weight
        return np.sqrt(sampling_variance(expanded[..., free], (1.0 - chance)[free], self.stratum[free]))

    def _checked(self, values: Real[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        array = np.asarray(values, float)
        if array.shape[-1:] != (self.n_drawn,):
            remedy = "cut the drawn agents out with `select`"
            raise shape_mismatch("values", array.shape, f"(..., {self.n_drawn}), the drawn agents last", remedy)
        return array


class AbstractDesign(ABC):
    """Sampling design: inclusion probabilities from which drawing and errors follow."""

    @abstractmethod
    def chances(self, size: PerAgent, n: int) -> tuple[PerAgent, Strata]:
        """Return each agent's chance of being drawn and its stratum; chances in a stratum add up to a whole number.

        Args:
            size: size of each agent known before the draw, e.g. historical demand [units/week].
            n: agents to draw, fewer than there are.
        """

    def draw(self, size: Real[np.ndarray, " agent"], n: int, random: np.random.Generator) -> Cohort:
        """Draw exactly `n` agents, or all where there are no more.

        Args:
            size: size of each agent known before the draw, 0 or more, e.g. historical demand [units/week].
            n: agents to draw.
            random: the same generator state gives the same cohort.

        Raises:
            InputError, ShapeError: a size that is negative or no number.
            SettingsError: fewer agents than the design needs.
        """
        known, n = per_agent("size", size, lowest=0.0), whole_count("n", n)
        if n >= len(known):
            everyone = np.arange(len(known))
            return Cohort(everyone, np.ones(len(known)), np.zeros_like(everyone), len(known), str(self))
        chance, stratum = self.chances(known, n)
        chosen = np.flatnonzero(systematic_sample(chance, stratum, random))
        return Cohort(chosen, 1.0 / chance[chosen], stratum[chosen], len(known), str(self))


@dataclass(frozen=True)
class UniformSample(AbstractDesign):
    """Draw every agent with the same chance."""

    def chances(self, size: PerAgent, n: int) -> tuple[PerAgent, Strata]:
        """Return n / N for all, in one stratum."""
        return np.full(len(size), n / len(size)), np.zeros(len(size), int)

    def __str__(self) -> str:
        return "uniform"


@dataclass(frozen=True)
class StratifiedSample(AbstractDesign):
    """Draw uniformly within buckets of equally many agents by size, more where sizes differ more (Neyman).

    Sizes are of the past, and a small agent may have grown, so no stratum counts as without spread.
    """

    strata: int = N_BUCKETS  # agents of equal size share one, so there may be fewer
    floor_share: float = FLOOR_SHARE  # added to every stratum's spread, as a share of the mean size

    def chances(self, size: PerAgent, n: int) -> tuple[PerAgent, Strata]:
        """Return n_b / N_b for all agents of stratum b.

        Raises:
            SettingsError: fewer agents than two for every stratum, or a floor of 0 or less.
        """
        bucket = bucket_of(size, bucket_edges(size, whole_count("strata", self.strata)))
        stratum = np.unique(bucket, return_inverse=True)[1]
        members = np.bincount(stratum)
        away = size - (np.bincount(stratum, size) / members)[stratum]
        spread = np.sqrt(np.bincount(stratum, away**2) / np.maximum(members - 1, 1))
        spread = spread + _checked_floor(self.floor_share) * float(size.mean())
        return (neyman_allocation(members, spread, n) / members)[stratum], stratum

    def __str__(self) -> str:
        return f"stratified by size ({self.strata} strata, Neyman)"


@dataclass(frozen=True)
class ProportionalSample(AbstractDesign):
    """Draw with a chance in proportion to size, systematically in random order; the largest agents surely."""

    floor_share: float = FLOOR_SHARE  # every agent counts at least as much as this share of the mean agent

    def chances(self, size: PerAgent, n: int) -> tuple[PerAgent, Strata]:
        """Return min(1, t (size + floor)) with t such that they add up to n, in one stratum.

        Raises:
            SettingsError: a floor of 0 or less, under which agents of size 0 would never be drawn.
        """
        counted = size / max(float(size.mean()), np.finfo(float).tiny) + _checked_floor(self.floor_share)
        return clip_to_total(counted, np.zeros(len(size)), np.ones(len(size)), n), np.zeros(len(size), int)

    def __str__(self) -> str:
        return "in proportion to size"


def _checked_floor(share: float) -> float:
    if not share > 0.0:
        raise SettingsError(f"`floor_share` is {share:g} but must be above 0; give e.g. {FLOOR_SHARE}")
    return share


def demand_size(population: Population) -> PerAgent:
    """Return the size that cohorts are drawn by: historical demand of all that an agent stands for [units/week]."""
    return np.asarray(population.demand_scale * population.weight, float)


def neyman_allocation(
    members: Int[np.ndarray, " stratum"], spread: Float[np.ndarray, " stratum"], n: int
) -> Int[np.ndarray, " stratum"]:
    """Share `n` draws in proportion to members times spread, at least two and at most all of each stratum.

    Raises:
        SettingsError: fewer than two for every stratum.
    """
    lowest = np.minimum(FEWEST, members)
    if n < lowest.sum():
        raise SettingsError(
            f"`n` is {n} but {len(members)} strata need at least {lowest.sum()} agents; draw more or cut fewer strata"
        )
    even = NO_SPREAD * float(spread.max()) if spread.any() else 1.0
    share = clip_to_total(members * (spread + even), lowest.astype(float), members.astype(float), n)
    whole = np.floor(share + NO_SPREAD).astype(int)
    whole[np.argsort(whole - share, kind="stable")[: n - whole.sum()]] += 1
    return whole


def clip_to_total(
    share: Float[np.ndarray, " part"], lowest: Float[np.ndarray, " part"], highest: Float[np.ndarray, " part"], n: float
) -> Float[np.ndarray, " part"]:
    """Return clip(t share, lowest, highest) with the t for which they add up to `n`.

    The sum is piecewise linear in t with known corners, so t is read off exactly. Shares are above 0, and `n` lies
    between the sums of the bounds.
    """
    corners = np.concatenate([lowest / share, highest / share])
    order = np.argsort(corners)
    slope = np.cumsum(np.concatenate([share, -share])[order])
    at = corners[order]
    sums = lowest.sum() + np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(at))])
    parts = np.clip(np.interp(n, sums, at) * share, lowest, highest)
    free = (parts > lowest) & (parts < highest)
    # Parts that are not at a bound absorb the rounding of the sums.
    return np.where(free, parts * ((n - parts[~free].sum()) / max(parts[free].sum(), 1e-300)), parts)


def systematic_sample(chance: PerAgent, stratum: Strata, random: np.random.Generator) -> Bool[np.ndarray, " agent"]:
    """Mark the agents of a systematic sample in random order; with equal chances it is simple random sampling.

    Chances in a stratum add up to a whole number.
    """
    drawn = chance >= CERTAIN
    free = random.permutation(np.flatnonzero(~drawn))
    for number in np.unique(stratum[free]):
        mine = free[stratum[free] == number]
        steps = np.cumsum(chance[mine])
        steps[-1] = np.rint(steps[-1])
        drawn[mine] = np.diff(np.floor(steps + random.uniform()), prepend=0.0) > 0
    return drawn


def sampling_variance(
    expanded: Float[np.ndarray, "*axes agent"], weight: PerAgent, stratum: Strata
) -> np.ndarray | float:
    """Add up weighted squared distances from each stratum's weighted mean, times k / (k - 1) for its k agents.

    With `expanded` values / chance and `weight` 1 - chance, it is Hajek's variance of their total.
    """
    total = np.zeros(expanded.shape[:-1])
    for number in np.unique(stratum):
        mine = stratum == number
        part, by = expanded[..., mine], weight[mine]
        middle = (part @ by) / by.sum()
        total = total + ((part - middle[..., None]) ** 2 @ by) * (len(by) / max(len(by) - 1, 1))
    return total
