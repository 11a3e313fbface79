"""Own what maps are trained on: populations of a drawn composition over some weeks, and cohorts read of them.

OPEN: what is drawn, and how widely, decides what a map can be asked later without surprise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from walras.data.resume_log import digest
from walras.exogenous.capacity import HaarCapacity, HaarPrices, PulsePrices
from walras.maps.features import HORIZON, units_of
from walras.maps.pooling import CohortIndex, cohort_index
from walras.maps.probes import draw_probes
from walras.maps.rollout import PopulationWindow
from walras.population.cohort import ProportionalSample, StratifiedSample, UniformSample
from walras.population.population import Population, bucket_edges
from walras.population.shift import CompositionShift
from walras.train.agent_pool import AgentPool
from walras.train.settings import MapTraining
from walras.train.shocks import draw_common, typical_prices

DESIGNS = (UniformSample(), StratifiedSample(), ProportionalSample())
"""How cohorts are drawn in training, each in turn with the same chance."""

ROOMY_SHARE, MOST_ROOM = 0.25, 2.5
"""Share of capacity paths with room to spare, and how much larger than others they are at most."""

LEAST_MARGIN = 1e-6
"""Margins below count as this [money/unit]."""

SHIFTED_BY = ("demand", "economics")
"""Attributes whose composition shifts in training, each in turn with the same chance."""


@dataclass(frozen=True, eq=False)
class SampledEpisode:
    """Hold a population over some weeks, and the cohort that is read of it.

    Attributes:
        stretch: everybody that is simulated.
        readers: the cohort.
        random: source of all that is drawn after.
    """

    stretch: PopulationWindow
    readers: CohortIndex
    random: np.random.Generator


class MapEpisodes:
    """Draw populations and weeks to train on, and those that judge.

    Attributes:
        worlds, judges: what is trained on, and what judges.
        edges: inner edges of the demand buckets, frozen from all agents of the training worlds.
    """

    def __init__(self, worlds: Sequence[AgentPool], settings: MapTraining, judges: Sequence[AgentPool] = ()) -> None:
        """Freeze the buckets.

        Args:
            worlds: what is trained on.
            settings: sizes and spreads.
            judges: what judges; where none is given, the training worlds with other draws.
        """
        self.worlds, self.settings = tuple(worlds), settings
        self.judges = tuple(judges) or self.worlds
        demand = np.concatenate([np.asarray(world.population.demand_scale) for world in self.worlds])
        self.edges = bucket_edges(demand, settings.buckets)
        longest = max(world.max_lead for world in (*self.worlds, *self.judges))
        self.worlds = tuple(replace(world, max_lead=longest) for world in self.worlds)
        self.judges = tuple(replace(world, max_lead=longest) for world in self.judges)

    def identity(self) -> Mapping[str, Any]:
        """Return digests of the worlds."""
        return {"worlds": [digest((each.population, each.exogenous)) for each in (*self.worlds, *self.judges)]}

    def draw(self, number: int) -> SampledEpisode:
        """Draw a stretch for a step."""
        return self._draw(self.worlds, np.random.default_rng([self.settings.seed, number, 0x3A5]))

    def held_out(self, count: int) -> list[SampledEpisode]:
        """Return stretches that judge, always the same."""
        return [self._draw(self.judges, np.random.default_rng([number, 0x7E57])) for number in range(count)]

    def _draw(self, worlds: Sequence[AgentPool], random: np.random.Generator) -> SampledEpisode:
        settings = self.settings
        world = worlds[int(random.integers(len(worlds)))]
        by = SHIFTED_BY[random.integers(len(SHIFTED_BY))]
        alpha = random.uniform(-1, 1) * settings.composition_shift
        values = attribute(world.population, by)
        shift = CompositionShift.fit(values, by, np.asarray(world.population.demand_scale))
        start = int(random.integers(world.n_weeks - settings.weeks + 1))
        able = self._tilted(world, start, random)
        chosen = shift.draw(values, alpha, settings.target, random, within=able)
        spread = random.uniform(0.0, settings.common_surprise)
        common = draw_common(random, settings.weeks, spread)
        stretch = world.stretch(chosen, start, settings.weeks, common=common)
        design = DESIGNS[random.integers(len(DESIGNS))]
        size = np.asarray(stretch.population.demand_scale)
        cohort = design.draw(size, settings.agents, random)
        delegates = None
        if settings.asks:
            luck = int(random.integers(2**31))
            delegates = draw_probes(stretch.population, settings.asks, HORIZON + 1, luck)
        return SampledEpisode(stretch, cohort_index(size, cohort, self.edges, settings.tile, delegates), random)

    def _tilted(self, world: AgentPool, start: int, random: np.random.Generator) -> Float[np.ndarray, " agent"]:
        """Say how often agents of a bucket are drawn: those who sold lately, tilted by their margin.

        Without the tilt margins would be spread over demand in much the same way in all populations, and nothing could
        be learned from how they are.
        """
        margin = np.maximum(np.asarray(world.population.unit_margin, float), LEAST_MARGIN)
        rank = np.argsort(np.argsort(margin)) / len(margin) - 0.5
        tilt = random.uniform(-1, 1) * self.settings.margin_tilt
        return world.active[start + self.settings.first_origin] * np.exp(tilt * 12.0**0.5 * rank)


def attribute(population: Population, by: str) -> Float[np.ndarray, " agent"]:
    """Return the attribute along which a composition shifts: mean demand [units/week], unit margin [money/unit]."""
    return np.asarray(population.demand_scale if by == "demand" else population.unit_margin)


MIXED = ("none", "haar", "haar", "pulses", "pulses")
DRAWN = {"mixed": MIXED, "drawn": MIXED, "haar": ("haar",)}
"""Kinds of prices that are drawn for each resource, all with the same chance, by the setting `prices`."""


def drawn_prices(
    random: np.random.Generator, stretch: PopulationWindow, weeks: int, among: Sequence[str] = MIXED
) -> Float[np.ndarray, "week resource"]:
    """Draw no prices, a Haar path or pulses for each resource [money per unit of resource].

    Args:
        random: source.
        stretch: whose prices they are.
        weeks: how many.
        among: kinds to draw from, as in `DRAWN`.
    """
    scale = price_units(stretch.population)
    prices = np.zeros((weeks, len(scale)))
    for resource, unit in enumerate(scale):
        kind, seed = among[int(random.integers(len(among)))], int(random.integers(2**31))
        if kind == "haar":
            prices[:, [resource]] = HaarPrices().sample(seed, weeks, [unit]).prices
        if kind == "pulses":
            prices[:, [resource]] = PulsePrices().sample(seed, weeks, [unit]).prices
    return prices


def price_units(population: Population) -> Float[np.ndarray, " resource"]:
    """Return the unit of each resource's drawn prices: the map's own, or what a storage price is compared with."""
    mine = np.asarray(units_of(population).price, float)
    return np.where(population.stock_resource, typical_prices(population), mine)


def drawn_capacity(
    random: np.random.Generator, free: Float[np.ndarray, "week resource"], first: int
) -> Float[np.ndarray, "week resource"]:
    """Draw a Haar capacity path at the scale of use without prices (spec section 4) [units of resource].

    Args:
        random: source.
        free: use without prices.
        first: first week whose use counts for the scale.
    """
    mean = np.maximum(free[first:].mean(0), 1e-6)
    # One path in four has room to spare: maps also have to learn where no price is needed.
    roomy = random.uniform(1.0, MOST_ROOM) if random.random() < ROOMY_SHARE else 1.0
    return roomy * HaarCapacity().sample(int(random.integers(2**31)), len(free), mean)
