"""Episodes that buyers are trained on: replayed history under prices, lead times and common shocks drawn anew."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import equinox as eqx
import jax
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
from walras.simulation.week import State
from walras.train.history import FIRST_FORECAST, HistorySplit
from walras.train.settings import BuyerTraining
from walras.train.shocks import LONGEST_BLOCK, common_factors, lagged_forecast, mixed_prices, typical_prices

SMALLEST_DEMAND = 0.02  # demand scale of a product that is known to have sold nothing [units/week]
RECENT_WEEKS = 26  # products without a sale in this many weeks before those that count have weight 0
SHOCKS = (0.4, 2.5)  # bounds of measured common shocks: closures and the like stay in part what they were
SMALLEST_MONEY = 1e-6  # least money an agent has at stake [money/week]
MOST_STOCK = 3.0  # initial stock is drawn up to this many times the expected demand of a lead time
VALIDATION_PRICES = 11  # seed of the prices of validation
N_VALIDATION = 3  # validation episodes without prices, and as many with them, each under its own shocks
FEWEST_AGENTS = 8  # fewest products to learn from, and for validation


class Episode(eqx.Module):
    """One rollout to learn from."""

    population: Population  # its agents; `weight` is what each counts for in the loss
    exogenous: ExogenousPaths
    initial: State
    shadow_prices: Float[Array, "week resource"]  # charged in each week [money per unit of resource]
    notice: Int[Array, "week resource"]  # weeks ahead of which each is announced
    week_weight: Float[Array, " week"]  # what each week counts for; 0 while the effect of the start wears off
    # unit of money: the sum over agents of weight x demand scale x cost of a lost sale [money/week]
    stake: Float[Array, ""]
    profile: Float[Array, "feature agent"] | None = None  # of each agent's history before the weeks that count


class EpisodeSource(abc.ABC):
    """Draw training episodes, all of the same shapes, and hold those for validation."""

    backlog: bool = False  # unmet demand waits
    free_weeks: int = 0  # last weeks whose orders are not learned from: the episode ends before what they cost shows

    @abc.abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return what the episodes depend on beside seed and number, as JSON values."""

    @abc.abstractmethod
    def draw(self, seed: int, number: int) -> Episode:
        """Draw an episode; the same seed and number give the same one."""

    @abc.abstractmethod
    def validation(self) -> tuple[Episode, ...]:
        """Return the validation episodes, always the same, which training never sees."""


@dataclass(frozen=True, eq=False)
class ObservedHistory:
    """Recorded demand and forecasts of some products, without lead times; prices may have one row for all weeks."""

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
        """Number of weeks."""
        return len(self.demand)

    def take(self, agents: Int[np.ndarray, " drawn"]) -> "ObservedHistory":
        """Keep some products."""
        return ObservedHistory(*(getattr(self, field.name)[:, agents] for field in fields(self)))

    def then(self, later: "ObservedHistory") -> "ObservedHistory":
        """Append later weeks of the same products."""

        def whole(name: str) -> np.ndarray:
            parts = ((getattr(part, name), part.weeks) for part in (self, later))
            return np.concatenate([np.broadcast_to(rows, (weeks, rows.shape[1])) for rows, weeks in parts])

        return ObservedHistory(*(whole(field.name) for field in fields(self)))

    def paths(self, lead_times: Int8[np.ndarray, "week agent"]) -> ExogenousPaths:
        """Return paths with these lead times of orders [weeks]."""
        arrays = {field.name: jnp.asarray(getattr(self, field.name), jnp.float32) for field in fields(self)}
        return ExogenousPaths(arrivals=IntegerLeadTimes(jnp.asarray(lead_times)), supply=None, **arrays)


class HistoryEpisodes(EpisodeSource):
    """Replay training weeks of drawn products; other products, on these weeks and the later ones, are for validation.

    Only one past was observed: what all products had in common in it (a season, a strike) would be learned by heart. So
    each week's common shock is replaced by a drawn one, which forecasts follow with a lag.
    """

    def __init__(self, split: HistorySplit, settings: BuyerTraining) -> None:
        """Divide the products (`InputError` where they are too few), and estimate each week's common shock."""
        self.split, self.settings = split, settings
        self.recorded = ObservedHistory.of(split.training.exogenous)
        random = np.random.default_rng([settings.seed, 0x1EA])
        order = random.permutation(split.n_agents)
        n_validation = max(round(settings.held_out_agents * split.n_agents), FEWEST_AGENTS)
        self.validation_agents, self.learners = np.sort(order[:n_validation]), np.sort(order[n_validation:])
        _check_enough(split.n_agents, len(self.learners), settings)
        self.whole_units = bool((self.recorded.demand == np.rint(self.recorded.demand)).all())
        self.lead = np.asarray(split.population.lead_time)
        self.money = _money_at_stake(split.population, self.recorded)
        self.prices = typical_prices(split.population)
        log_demand = np.log(np.maximum(np.asarray(split.population.demand_scale, float), 1e-3))
        self.log_demand = (log_demand - log_demand.mean()) / max(log_demand.std(), 1e-6)
        later = ObservedHistory.of(split.holdout.exogenous)
        # Shocks of training weeks are measured on learners alone, so that no validation product is learned from.
        both = (self.recorded, self.learners), (later, self.validation_agents)
        self.shock = np.concatenate([_common_shock(part, self.lead, self.money, agents) for part, agents in both])

    def identity(self) -> Mapping[str, Any]:
        """Return a digest of the data."""
        return {"table": digest((self.split.population, self.recorded, self.split.holdout.exogenous))}

    def draw(self, seed: int, number: int) -> Episode:
        """Draw products, the week from which weeks count, prices, lead times, a start and common shocks."""
        random = np.random.default_rng([seed, number, 0xE91])
        agents, weeks = self._draw_agents(random), self.recorded.weeks
        counted = int(random.integers(weeks // 3, 2 * weeks // 3 + 1))
        replayed = self._with_drawn_shocks(self.recorded.take(agents), random)
        announced = mixed_prices(int(random.integers(2**31)), replayed.weeks, self.prices)
        weight = 1.0 / self.money[agents] ** 0.5
        return self._episode(agents, replayed, counted, announced, random, weight)

    def validation(self) -> tuple[Episode, ...]:
        """Return the validation products over all weeks, held-out ones included, without prices and with them."""
        agents = self.validation_agents
        whole = self.recorded.then(ObservedHistory.of(self.split.holdout.exogenous)).take(agents)
        priced = mixed_prices(VALIDATION_PRICES, whole.weeks, self.prices)
        free = AnnouncedPrices(np.zeros_like(priced.prices), priced.notice)
        # Money counts as money, as in training; weighted by its root, the best policy would be another.
        weight, half = np.ones(len(agents)), self.recorded.weeks // 2
        episodes = []
        for announced, number in product((free, priced), range(N_VALIDATION)):
            random = np.random.default_rng([number, 0x0DD])
            replayed = self._with_drawn_shocks(whole, random)
            episodes.append(self._episode(agents, replayed, half, announced, random, weight))
        return tuple(episodes)

    def _episode(
        self,
        agents: Int[np.ndarray, " drawn"],
        replayed: ObservedHistory,
        counted: int,
        announced: AnnouncedPrices,
        random: np.random.Generator,
        weight: Float[np.ndarray, " drawn"],
    ) -> Episode:
        """Add lead times and a start; weeks count from `counted` on, and attributes are known before it."""
        panel, lead = self.split.panel, self.lead[agents]
        units, on_sale = (part[:FIRST_FORECAST, agents] for part in (panel.units, panel.on_sale))
        known = np.concatenate([units, replayed.demand[:counted]])
        present = np.concatenate([on_sale, panel.on_sale[FIRST_FORECAST:][:counted, agents]])
        scale = np.maximum((known * present).sum(0) / np.maximum(present.sum(0), 1), SMALLEST_DEMAND)
        # Products without a recent sale would not be planned.
        weight = weight / weight.mean() * (known[-RECENT_WEEKS:].sum(0) > 0)
        own: dict[str, Any] = {"demand_scale": scale.astype(np.float32), "weight": weight.astype(np.float32)}
        seed, longest = int(random.integers(2**31)), self.split.training.initial.max_lead
        lead_times = draw_lead_times(lead, (1, replayed.weeks), log_sd=self.split.log_sd, seed=seed)[0]
        weeks = np.arange(replayed.weeks)
        return Episode(
            population=replace(self.split.population.take(agents), **jax.tree.map(jnp.asarray, own)),
            exogenous=replayed.paths(np.minimum(lead_times, longest).astype(np.int8)),
            initial=self._initial(replayed, random),
            shadow_prices=jnp.asarray(announced.prices, jnp.float32),
            notice=jnp.asarray(announced.notice, jnp.int32),
            week_weight=jnp.asarray(np.where(weeks >= counted, self.settings.discount**weeks, 0.0), jnp.float32),
            stake=jnp.asarray((weight * self.money[agents]).sum(), jnp.float32),
            profile=jnp.asarray(demand_profile(known, lead)),
        )

    def _draw_agents(self, random: np.random.Generator) -> Int[np.ndarray, " drawn"]:
        """Draw products in proportion to the root of what they have at stake, shifted towards large or small ones.

        Weighted by the inverse root, money counts as money in the mean of the loss; no product dominates a step.
        """
        shift = random.uniform(-1, 1) * self.settings.composition_shift
        chance = self.money[self.learners] ** 0.5 * np.exp(shift * np.clip(self.log_demand[self.learners], -2, 2) / 2)
        return random.choice(self.learners, self.settings.agents, p=chance / chance.sum())

    def _with_drawn_shocks(self, recorded: ObservedHistory, random: np.random.Generator) -> ObservedHistory:
        """Replace each week's common shock by a drawn one, which forecasts follow with a lag."""
        spread, block = random.uniform(0.0, self.settings.common_surprise), int(random.integers(2, LONGEST_BLOCK + 1))
        drawn = common_factors(random, recorded.weeks, spread, block)
        demand = recorded.demand * (drawn / self.shock[: recorded.weeks])[:, None]
        if self.whole_units:
            demand = np.floor(demand + random.random(demand.shape))
        level = lagged_forecast(drawn, drawn[0])[:, None]
        mean, sd = recorded.lead_demand_mean * level, recorded.lead_demand_sd * level
        return replace(recorded, demand=demand, lead_demand_mean=mean, lead_demand_sd=sd)

    def _initial(self, recorded: ObservedHistory, random: np.random.Generator) -> State:
        """Draw stock, and open orders that add up to about the expected demand of a lead time."""
        expected, longest = recorded.lead_demand_mean[0], self.split.training.initial.max_lead
        stock = expected * random.uniform(0.0, MOST_STOCK, expected.shape)
        placed = expected * random.uniform(0.0, 2.0 / (longest + 1), (longest, *expected.shape))
        return State(jnp.asarray(stock, jnp.float32), jnp.asarray(placed, jnp.float32))


def _check_enough(products: int, learners: int, settings: BuyerTraining) -> None:
    if products < 2 * FEWEST_AGENTS:
        raise InputError(
            f"the table has {products} products that sell but a buyer needs at least {2 * FEWEST_AGENTS} for training "
            "and validation; give a larger table"
        )
    if learners < FEWEST_AGENTS:
        raise InputError(
            f"`held_out_agents` is {settings.held_out_agents:g} of {products} products, which leaves {learners} but "
            f"at least {FEWEST_AGENTS} are needed to learn from; lower it"
        )


def _money_at_stake(population: Population, recorded: ObservedHistory) -> Float[np.ndarray, " agent"]:
    """Return mean demand x cost of a lost sale [money/week]."""
    lost = recorded.sale_price[0] + np.asarray(population.lost_sale_penalty) - recorded.unit_cost[0]
    return np.maximum(np.maximum(lost, 0.0) * np.asarray(population.demand_scale, float), SMALLEST_MONEY)


def _common_shock(
    recorded: ObservedHistory, lead: np.ndarray, money: np.ndarray, agents: np.ndarray
) -> Float[np.ndarray, " week"]:
    """Return demand over its forecast in each week, weighted by money; 1 in a week without demand or forecast."""
    per_unit = (money / np.maximum(recorded.demand.mean(0), 1e-3))[agents]
    demand = recorded.demand[:, agents] @ per_unit
    expected = (recorded.lead_demand_mean / (1.0 + lead))[:, agents] @ per_unit
    known = (demand > 0) & (expected > 0)
    return np.where(known, np.clip(demand / np.where(expected > 0, expected, 1.0), *SHOCKS), 1.0)
