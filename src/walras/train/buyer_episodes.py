"""Own episodes from a table's history: the recorded weeks of a few products, under prices and lead times drawn anew.

OPEN: what is drawn, and how widely, decides what a buyer can meet later without surprise.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8

from walras.data.resume_log import digest
from walras.errors import InputError
from walras.exogenous.arrivals import IntegerLeadTimes, draw_lead_times
from walras.exogenous.capacity import AnnouncedPrices
from walras.exogenous.paths import ExogenousPaths
from walras.policies.buyer import demand_profile
from walras.population.population import Population
from walras.simulation.state import State
from walras.train.history import FIRST_FORECAST, HistorySplit
from walras.train.settings import BuyerTraining
from walras.train.shocks import LONGEST_BLOCK, common_factors, lagged_forecast, mixed_prices, typical_prices


class Episode(eqx.Module):
    """Hold one rollout to learn from.

    Attributes:
        population: its agents; `weight` is what each counts for in the loss.
        exogenous, initial: as in `simulate`.
        shadow_prices: charged in each week [money per unit of resource].
        notice: weeks ahead of which each is announced.
        week_weight: what each week counts for; 0 for weeks in which only the start wears off.
        stake: what a unit is worth to the agents, by which money is measured: the sum over agents of weight x demand
            scale x cost of a lost sale [money/week].
        profile: of each agent's history before the weeks that count, where policies may know it.
    """

    population: Population
    exogenous: ExogenousPaths
    initial: State
    shadow_prices: Float[Array, "week resource"]
    notice: Int[Array, "week resource"]
    week_weight: Float[Array, " week"]
    stake: Float[Array, ""]
    profile: Float[Array, "feature agent"] | None = None


class EpisodeSource(abc.ABC):
    """Draw episodes, and hold those that judge.

    Attributes:
        backlog: unmet demand waits.
        free_weeks: last weeks whose orders are not learned from, since the episode ends before what they cost shows.
    """

    backlog: bool = False
    free_weeks: int = 0

    @abc.abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Say what the episodes follow from beside seed and number, in words and numbers."""

    @abc.abstractmethod
    def draw(self, seed: int, number: int) -> Episode:
        """Draw an episode; the same seed and number give the same one."""

    @abc.abstractmethod
    def held_out(self) -> tuple[Episode, ...]:
        """Return episodes that training never sees, always the same."""


SMALLEST_DEMAND = 0.02
"""Demand scale of a product that is known to have sold nothing [units/week]."""

RECENT_WEEKS = 26
"""Products without a sale in so many weeks before those that count are not learned from."""

SURPRISES = (0.4, 2.5)
"""Common surprises beyond are closures and the like, and stay in part what they were."""

SMALLEST_MONEY = 1e-6
"""What an agent has at stake is taken to be at least this [money/week]."""

MOST_STOCK = 3.0
"""An episode starts with stock of up to so many times the expected demand of a lead time, drawn for every agent."""

JUDGING_PRICES = 11
"""Seed of the prices under which the held-out products are judged."""

JUDGINGS = 3
"""Times that the held-out products are judged, without prices and with them, under surprises of their own."""

FEWEST_AGENTS = 8
"""Fewest products to learn from, and to judge."""


@dataclass(frozen=True, eq=False)
class ObservedHistory:
    """Hold what was recorded and forecast of some products, without lead times; prices may have one row for all weeks.

    Attributes: as in `ExogenousPaths`.
    """

    demand: Float[np.ndarray, "week agent"]
    sale_price: Float[np.ndarray, "#week agent"]
    unit_cost: Float[np.ndarray, "#week agent"]
    lead_demand_mean: Float[np.ndarray, "week agent"]
    lead_demand_sd: Float[np.ndarray, "week agent"]

    @staticmethod
    def of(paths: ExogenousPaths) -> "ObservedHistory":
        """Read replayed history, in which all draws of the lead times have the same demand."""
        rest = (paths.sale_price, paths.unit_cost, paths.lead_demand_mean, paths.lead_demand_sd)
        return ObservedHistory(np.asarray(paths.demand[0]), *(np.asarray(leaf) for leaf in rest))

    @property
    def weeks(self) -> int:
        """Count the weeks."""
        return len(self.demand)

    def take(self, agents: Int[np.ndarray, " drawn"]) -> "ObservedHistory":
        """Keep some products."""
        return ObservedHistory(*(getattr(self, each.name)[:, agents] for each in fields(self)))

    def then(self, later: "ObservedHistory") -> "ObservedHistory":
        """Put later weeks of the same products after these."""

        def whole(name: str) -> np.ndarray:
            parts = ((getattr(part, name), part.weeks) for part in (self, later))
            return np.concatenate([np.broadcast_to(rows, (weeks, rows.shape[1])) for rows, weeks in parts])

        return ObservedHistory(*(whole(each.name) for each in fields(self)))

    def paths(self, lead_times: Int8[np.ndarray, "week agent"]) -> ExogenousPaths:
        """Return paths with these lead times of orders [weeks]."""
        mine = {each.name: jnp.asarray(getattr(self, each.name), jnp.float32) for each in fields(self)}
        return ExogenousPaths(arrivals=IntegerLeadTimes(jnp.asarray(lead_times)), supply=None, **mine)


class HistoryEpisodes(EpisodeSource):
    """Draw products and replay their training weeks; other products judge, on these weeks and on those after them.

    Only one past has happened: what all products had in common in it (a season, a strike) would be learned by heart.
    So every episode takes each week's common surprise out of the recorded demand and puts in one that is drawn; the
    forecasts follow it with a lag, as they would have.
    """

    def __init__(self, case: HistorySplit, settings: BuyerTraining) -> None:
        """Part the products, and find what each week's common surprise was.

        Args:
            case: its held-out weeks judge; nothing is learned from them.
            settings: sizes and spreads.

        Raises:
            InputError: too few products.
        """
        self.case, self.settings = case, settings
        self.recorded = ObservedHistory.of(case.training.exogenous)
        random = np.random.default_rng([settings.seed, 0x1EA])
        order = random.permutation(case.n_agents)
        judges = max(round(settings.held_out_agents * case.n_agents), FEWEST_AGENTS)
        self.judges, self.learners = np.sort(order[:judges]), np.sort(order[judges:])
        _refuse_few(case.n_agents, len(self.learners), settings)
        self.whole_units = bool((self.recorded.demand == np.rint(self.recorded.demand)).all())
        self.lead = np.asarray(case.population.lead_time)
        self.money = _at_stake(case.population, self.recorded)
        self.prices = typical_prices(case.population)
        self.log_demand = np.log(np.maximum(np.asarray(case.population.demand_scale, float), 1e-3))
        self.log_demand = (self.log_demand - self.log_demand.mean()) / max(self.log_demand.std(), 1e-6)
        later = ObservedHistory.of(case.holdout.exogenous)
        both = (self.recorded, self.learners), (later, self.judges)  # nothing is learned from those who judge
        self.surprise = np.concatenate([_common_surprise(part, self.lead, self.money, who) for part, who in both])

    def identity(self) -> Mapping[str, Any]:
        """Return a digest of the case."""
        return {"table": digest((self.case.population, self.recorded, self.case.holdout.exogenous))}

    def draw(self, seed: int, number: int) -> Episode:
        """Draw products, the week from which weeks count, prices, lead times, a start and a common surprise."""
        random = np.random.default_rng([seed, number, 0xE91])
        agents, weeks = self._draw_agents(random), self.recorded.weeks
        counted = int(random.integers(weeks // 3, 2 * weeks // 3 + 1))
        happened = self._surprised(self.recorded.take(agents), random)
        announced = mixed_prices(int(random.integers(2**31)), happened.weeks, self.prices)
        weight = 1.0 / self.money[agents] ** 0.5
        return self._episode(agents, happened, counted, announced, random, weight)

    def held_out(self) -> tuple[Episode, ...]:
        """Return the judging products over all weeks, those held out among them, without prices and with them."""
        whole = self.recorded.then(ObservedHistory.of(self.case.holdout.exogenous)).take(self.judges)
        priced = mixed_prices(JUDGING_PRICES, whole.weeks, self.prices)
        free = AnnouncedPrices(np.zeros_like(priced.prices), priced.notice)
        # Money counts as money here as in training; by the root of it, policies were best that training did not seek.
        weight, half = np.ones(len(self.judges)), self.recorded.weeks // 2
        episodes = []
        for announced in (free, priced):
            for number in range(JUDGINGS):
                random = np.random.default_rng([number, 0x0DD])
                happened = self._surprised(whole, random)
                episodes.append(self._episode(self.judges, happened, half, announced, random, weight))
        return tuple(episodes)

    def _episode(
        self,
        agents: Int[np.ndarray, " drawn"],
        happened: ObservedHistory,
        counted: int,
        announced: AnnouncedPrices,
        random: np.random.Generator,
        weight: Float[np.ndarray, " drawn"],
    ) -> Episode:
        """Add lead times and a start; weeks count from `counted` on, and what agents are like is known before it."""
        case, lead = self.case, self.lead[agents]
        units, on_sale = (part[:FIRST_FORECAST, agents] for part in (case.panel.units, case.panel.on_sale))
        known = np.concatenate([units, happened.demand[:counted]])
        there = np.concatenate([on_sale, case.panel.on_sale[FIRST_FORECAST:][:counted, agents]])
        scale = (known * there).sum(0) / np.maximum(there.sum(0), 1)
        # Who sold nothing lately would not be planned.
        weight = weight / weight.mean() * (known[-RECENT_WEEKS:].sum(0) > 0)
        weeks = np.arange(happened.weeks)
        return Episode(
            population=_altered(case.population.take(agents), weight, scale),
            exogenous=happened.paths(self._lead_times(agents, happened.weeks, random)),
            initial=self._start(happened, random),
            shadow_prices=jnp.asarray(announced.prices, jnp.float32),
            notice=jnp.asarray(announced.notice, jnp.int32),
            week_weight=jnp.asarray(np.where(weeks >= counted, self.settings.discount**weeks, 0.0), jnp.float32),
            stake=jnp.asarray((weight * self.money[agents]).sum(), jnp.float32),
            profile=jnp.asarray(demand_profile(known, lead)),
        )

    def _draw_agents(self, random: np.random.Generator) -> Int[np.ndarray, " drawn"]:
        """Draw products in proportion to the root of what they have at stake, shifted towards large or small ones.

        Weighted by the root of the stake again, money counts as money in the mean of the loss, while no single product
        decides a step.
        """
        shift = random.uniform(-1, 1) * self.settings.composition_shift
        chance = self.money[self.learners] ** 0.5 * np.exp(shift * np.clip(self.log_demand[self.learners], -2, 2) / 2)
        return random.choice(self.learners, self.settings.agents, p=chance / chance.sum())

    def _lead_times(
        self, agents: Int[np.ndarray, " drawn"], weeks: int, random: np.random.Generator
    ) -> Int8[np.ndarray, "week drawn"]:
        """Draw lead times of orders around each product's typical one [weeks]."""
        longest = self.case.training.initial.max_lead
        seed = int(random.integers(2**31))
        drawn = draw_lead_times(self.lead[agents], (1, weeks), log_sd=self.case.log_sd, seed=seed)[0]
        return np.minimum(drawn, longest).astype(np.int8)

    def _surprised(self, recorded: ObservedHistory, random: np.random.Generator) -> ObservedHistory:
        """Replace what all products had in common in each week by something drawn, which forecasts follow late."""
        spread, block = random.uniform(0.0, self.settings.common_surprise), int(random.integers(2, LONGEST_BLOCK + 1))
        drawn = common_factors(random, recorded.weeks, spread, block)
        demand = recorded.demand * (drawn / self.surprise[: recorded.weeks])[:, None]
        if self.whole_units:
            demand = np.floor(demand + random.random(demand.shape))
        known = lagged_forecast(drawn, drawn[0])[:, None]
        return replace(
            recorded,
            demand=demand,
            lead_demand_mean=recorded.lead_demand_mean * known,
            lead_demand_sd=recorded.lead_demand_sd * known,
        )

    def _start(self, recorded: ObservedHistory, random: np.random.Generator) -> State:
        """Draw stock, and open orders that add up to about the expected demand of a lead time."""
        expected, longest = recorded.lead_demand_mean[0], self.case.training.initial.max_lead
        stock = expected * random.uniform(0.0, MOST_STOCK, expected.shape)
        placed = expected * random.uniform(0.0, 2.0 / (longest + 1), (longest, *expected.shape))
        return State(jnp.asarray(stock, jnp.float32), jnp.asarray(placed, jnp.float32))


def _refuse_few(products: int, learners: int, settings: BuyerTraining) -> None:
    """Refuse too few products to learn from: too few in all, or too many held out."""
    if products < 2 * FEWEST_AGENTS:
        raise InputError(
            f"the table has {products} products that sell but a buyer needs at least {2 * FEWEST_AGENTS} to learn "
            "from some and be judged by others; give a larger table"
        )
    if learners < FEWEST_AGENTS:
        raise InputError(
            f"`held_out_agents` is {settings.held_out_agents:g} of {products} products, which leaves {learners} but "
            f"at least {FEWEST_AGENTS} are needed to learn from; lower it"
        )


def _altered(
    population: Population, weight: Float[np.ndarray, " drawn"], scale: Float[np.ndarray, " drawn"]
) -> Population:
    scale = np.maximum(scale, SMALLEST_DEMAND)
    population = eqx.tree_at(lambda p: p.demand_scale, population, jnp.asarray(scale, jnp.float32))
    return eqx.tree_at(lambda p: p.weight, population, jnp.asarray(weight, jnp.float32))


def _at_stake(population: Population, recorded: ObservedHistory) -> Float[np.ndarray, " agent"]:
    """Return mean demand x what a lost sale costs [money/week]."""
    lost = recorded.sale_price[0] + np.asarray(population.lost_sale_penalty) - recorded.unit_cost[0]
    return np.maximum(np.maximum(lost, 0.0) * np.asarray(population.demand_scale, float), SMALLEST_MONEY)


def _common_surprise(
    recorded: ObservedHistory, lead: np.ndarray, money: np.ndarray, learners: np.ndarray
) -> Float[np.ndarray, " week"]:
    """Return demand over what was expected of it in each week, all learning products together, by money.

    A week without demand, or without a forecast, has no surprise that could be taken out.
    """
    per_unit = (money / np.maximum(recorded.demand.mean(0), 1e-3))[learners]
    asked = recorded.demand[:, learners] @ per_unit
    expected = (recorded.lead_demand_mean / (1.0 + lead))[:, learners] @ per_unit
    known = (asked > 0) & (expected > 0)
    return np.where(known, np.clip(asked / np.where(expected > 0, expected, 1.0), *SURPRISES), 1.0)
