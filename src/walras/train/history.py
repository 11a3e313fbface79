"""Replayed history: rolling forecasts from earlier weeks alone, and the split into training and held-out weeks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from walras.config import EconomicsSettings, HistorySettings
from walras.data.imputation import complete_panel
from walras.data.panel import Panel, active_agents
from walras.errors import InputError
from walras.exogenous.arrivals import ORDER_LOG_SD, IntegerLeadTimes, draw_lead_times, lead_time_sd, longest_lead_time
from walras.exogenous.demand.model import DemandModel
from walras.exogenous.paths import ExogenousPaths, lead_time_demand
from walras.policies.base_stock import PricedNewsvendor
from walras.population.agent_axis import map_per_agent
from walras.population.population import Population, latest_prices, population_from_panel
from walras.progress import Progress
from walras.simulation.run import simulate
from walras.simulation.week import State, empty_state

FIRST_FORECAST = 8  # weeks of history before the first forecast: the first training week comes after them
FEWEST_WEEKS = 8  # fewest training weeks
HELD_OUT = 15_485_863  # added to the seed for the lead times of the held-out weeks, which training never draws


@dataclass(frozen=True, eq=False)
class RollingForecast:
    """One fit of the forecast, made from the weeks before `week` alone."""

    week: int  # first week that is forecast, counted from the first week of the history
    weekly: Float32[np.ndarray, "ahead agent"]  # mean demand of `week` and the weeks after it [units/week]
    # mean of the demand of weeks t .. t + L, in the weeks t until the next fit [units]
    lead_mean: Float32[np.ndarray, "week agent"]
    lead_sd: Float32[np.ndarray, "week agent"]  # standard deviation of that [units]


@dataclass(frozen=True, eq=False)
class RollingHistory:
    """A table's history with a forecast of every week."""

    panel: Panel  # completed panel of the agents
    population: Population  # the agents, their attributes read off the known weeks alone
    fits: tuple[RollingForecast, ...]  # of the forecast, in the order of their weeks
    # mean and standard deviation of the demand of weeks t .. t + L, for every t from `FIRST_FORECAST` on [units]
    lead_mean: Float32[np.ndarray, "week agent"]
    lead_sd: Float32[np.ndarray, "week agent"]
    log_sd: float  # spread of the log lead time between orders of an agent
    notes: tuple[str, ...]  # a sentence on products that were left out

    @property
    def lead_time(self) -> np.ndarray:
        """Planned lead times [weeks] [agent]."""
        return np.asarray(self.population.lead_time)

    @property
    def max_lead(self) -> int:
        """Longest lead time that an order can take [weeks]."""
        return longest_lead_time(self.lead_time, self.log_sd)

    @staticmethod
    def from_panel(
        panel: Panel,
        known_weeks: int,
        sold: np.ndarray,
        dropped: str,
        *,
        resources: Sequence[str],
        economics: EconomicsSettings,
        log_sd: float,
        refit_weeks: int,
        ahead: int = 0,
        seed: int = 0,
        progress: Progress,
    ) -> "RollingHistory":
        """Complete a panel, read its population off the known weeks and forecast every week from the weeks before.

        Agents in the mask `sold` are kept; `dropped` is what the note says of the others: "... sold nothing in ...".
        `seed` fills what the table lacks; `log_sd`, `refit_weeks` and `ahead` are those of `rolling_fits`.
        """
        n_dropped = int((~sold).sum())
        notes = (f"{n_dropped} products {dropped} and are left out.",) if n_dropped else ()
        # A forecast in the table is about other weeks.
        completed = complete_panel(replace(panel.take(sold), forecast=None), seed=seed)
        population = population_from_panel(
            completed.before(known_weeks),
            resources=resources,
            annual_holding_rate=economics.holding_rate,
            lost_sale_penalty_share=economics.lost_sale_penalty,
        )
        progress.stage("Forecasting every week from the weeks before")
        rolling = rolling_fits(
            completed,
            np.asarray(population.lead_time),
            log_sd=log_sd,
            refit_weeks=refit_weeks,
            ahead=ahead,
            progress=progress,
        )
        fits = tuple(rolling)
        mean, deviation = (np.concatenate([getattr(fit, name) for fit in fits]) for name in ("lead_mean", "lead_sd"))
        return RollingHistory(completed, population, fits, mean, deviation, log_sd, notes)


def rolling_fits(
    panel: Panel,
    lead_time: np.ndarray,
    *,
    log_sd: float = ORDER_LOG_SD,
    refit_weeks: int = 1,
    ahead: int = 0,
    progress: Progress | None = None,
) -> Iterator[RollingForecast]:
    """Fit the forecast every `refit_weeks` weeks from `FIRST_FORECAST` on, each time on the weeks before alone.

    The weeks between two fits are forecast from the last one, some weeks further ahead. A product that was not on sale
    before a fit has a forecast of 0 until the next.

    Args:
        panel, lead_time: the history; planned lead time L [weeks] [agent].
        log_sd: spread of the log lead time between orders.
        refit_weeks, ahead: weeks between two fits, and fewest weeks of weekly demand to forecast at each.
    """
    first, reach = FIRST_FORECAST, int(lead_time.max(initial=0)) + 1
    vary = lead_time_sd(lead_time, log_sd)
    for origin in range(first, panel.n_weeks, refit_weeks):
        weeks = min(refit_weeks, panel.n_weeks - origin)
        known = panel.before(origin)
        model, launched = DemandModel.fit(known), known.on_sale.any(0)
        weekly = np.where(launched, model.mean(max(weeks + reach, ahead)), np.float32(0.0))
        spread = np.where(launched, model.sd(weeks + reach), np.float32(0.0))
        lead_demand = lead_time_demand(weekly[: weeks + reach], spread, lead_time, vary, weeks)
        yield RollingForecast(origin, weekly, *lead_demand)
        if progress is not None:
            progress.step(origin + weeks - first, panel.n_weeks - first)


@dataclass(frozen=True, eq=False)
class HistoryWeeks:
    """A span of history as it is replayed."""

    weeks: np.ndarray  # first day of each week (`datetime64[D]`) [week]
    # recorded demand with each draw of the lead times [draw, week, agent], and rolling forecasts
    exogenous: ExogenousPaths
    initial: State  # stock and open orders that every policy starts with

    def take(self, index: Any) -> "HistoryWeeks":
        """Keep the agents that `index` selects, in that order."""
        exogenous, initial = map_per_agent(
            lambda leaf: leaf[..., index], (self.exogenous, self.initial), self.exogenous.n_agents
        )
        return HistoryWeeks(self.weeks, exogenous, initial)


@dataclass(frozen=True, eq=False)
class HistorySplit:
    """A history split into weeks that policies are tuned or trained on, and later weeks that evaluate them."""

    panel: Panel  # completed panel of the agents, held-out weeks included
    population: Population  # the agents, read off the training weeks alone
    training: HistoryWeeks  # weeks to learn from; the first weeks of the table serve the first forecast only
    holdout: HistoryWeeks  # later weeks; `initial` is what the newsvendor left at the end of training
    discount: float  # worth next week of one unit of money now
    log_sd: float  # spread of the log lead time between orders of a product
    notes: tuple[str, ...]  # sentences on how it was made

    @property
    def n_agents(self) -> int:
        """Number of agents."""
        return self.population.n_agents

    @property
    def whole(self) -> HistoryWeeks:
        """Training and held-out weeks in one span."""
        first, later = self.training, self.holdout
        exogenous = _concatenated(first.exogenous, later.exogenous)
        return HistoryWeeks(np.concatenate([first.weeks, later.weeks]), exogenous, first.initial)

    def take(self, index: Any) -> "HistorySplit":
        """Keep the agents that `index` (mask or indices) selects, in that order."""
        index = np.asarray(index)
        parts = {name: getattr(self, name).take(index) for name in ("panel", "population", "training", "holdout")}
        return replace(self, **parts)


def train_test_split(
    panel: Panel, settings: HistorySettings | None = None, *, progress: Progress | None = None
) -> HistorySplit:
    """Split a table's history into training weeks and held-out weeks.

    Agents, prices, costs and attributes are read on the training weeks alone. The forecast of every week, training and
    held-out alike, comes from a model fitted on the weeks before it; one in the table is not used.

    Raises:
        InputError: fewer weeks than needed, no product that sold, a product without a lead time that can be planned.
    """
    settings = HistorySettings() if settings is None else settings
    progress = Progress() if progress is None else progress
    split = _split_week(panel, settings.holdout)
    history = RollingHistory.from_panel(
        panel,
        split,
        _sold_lately(panel, split, settings.active_weeks),
        f"sold nothing in the {settings.active_weeks} weeks before the held-out ones",
        resources=settings.resources,
        economics=settings.economics,
        log_sd=ORDER_LOG_SD if settings.lead_times == "drawn" else 0.0,
        refit_weeks=settings.refit_weeks,
        seed=settings.seed,
        progress=progress,
    )
    past, later = (
        _replayed(history, span, split, settings) for span in ((FIRST_FORECAST, split), (split, panel.n_weeks))
    )
    lead_times = f"Lead times vary between orders of a product with a log spread of {ORDER_LOG_SD}."
    if settings.lead_times == "planned":
        lead_times = "Every order takes exactly its product's typical lead time."
    progress.stage("Finding the state at the end of training")
    start = empty_state(history.population.n_agents, history.max_lead, past.lead_demand_mean[0])
    policy = PricedNewsvendor(discount=settings.economics.discount)
    arrivals = IntegerLeadTimes(past.arrivals.weeks[0])  # type: ignore[attr-defined]
    first_draw = replace(past, demand=past.demand[0], arrivals=arrivals)
    left = simulate(history.population, first_draw, policy, initial=start).final
    return HistorySplit(
        panel=history.panel,
        population=history.population,
        training=HistoryWeeks(panel.weeks[FIRST_FORECAST:split], past, start),
        holdout=HistoryWeeks(panel.weeks[split:], later, left),
        discount=settings.economics.discount,
        log_sd=history.log_sd,
        notes=(*panel.notes, *history.notes, lead_times),
    )


def _split_week(panel: Panel, holdout: int) -> int:
    split, needed = panel.n_weeks - holdout, FIRST_FORECAST + FEWEST_WEEKS
    if split >= needed:
        return split
    if panel.n_weeks <= needed:
        raise InputError(
            f"the table has {panel.n_weeks} weeks but more than {needed} are needed to learn from some and evaluate on "
            "others; give a longer history"
        )
    raise InputError(
        f"`holdout` is {holdout} weeks of a table of {panel.n_weeks}, which leaves {max(split, 0)} but at least "
        f"{needed} are needed to learn from; make it at most {panel.n_weeks - needed}"
    )


def _sold_lately(panel: Panel, split: int, active_weeks: int) -> np.ndarray:
    mask = active_agents(panel.before(split), active_weeks)
    if not mask.any():
        raise InputError(
            f"none of the {panel.n_agents} products sold in the {active_weeks} weeks before the held-out ones; raise "
            "`active_weeks`, or hold out fewer weeks"
        )
    return mask


def _replayed(history: RollingHistory, span: tuple[int, int], split: int, settings: HistorySettings) -> ExogenousPaths:
    """Combine the recorded demand of a span of weeks with draws of the lead times."""
    (first, last), panel = span, history.panel
    seed = settings.seed + (HELD_OUT if first >= split else 0)
    shape = (settings.draws, last - first)
    lead_times = draw_lead_times(history.lead_time, shape, log_sd=history.log_sd, seed=seed)
    demand = np.broadcast_to(panel.units[first:last].astype(np.float32), lead_times.shape)
    rows = slice(first - FIRST_FORECAST, last - FIRST_FORECAST)
    if settings.prices == "latest":  # one row for all weeks
        price, cost = (part[None] for part in latest_prices(panel.before(split)))
    else:
        price, cost = (np.asarray(part)[first:last].astype(np.float32) for part in (panel.price, panel.unit_cost))
    return ExogenousPaths(
        demand=jnp.asarray(demand),
        sale_price=jnp.asarray(price),
        unit_cost=jnp.asarray(cost),
        arrivals=IntegerLeadTimes(jnp.asarray(lead_times)),
        lead_demand_mean=jnp.asarray(history.lead_mean[rows]),
        lead_demand_sd=jnp.asarray(history.lead_sd[rows]),
    )


def _concatenated(first: ExogenousPaths, later: ExogenousPaths) -> ExogenousPaths:
    """Concatenate two spans of weeks; fields with one row for all weeks of both keep it."""
    axis = {"demand": 1, "arrivals": 1}

    def join(name: str) -> Any:
        parts = [getattr(paths, name) for paths in (first, later)]
        if name not in axis and all(len(part) == 1 for part in parts):
            return parts[0]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis.get(name, 0)), *parts)

    names = ("demand", "sale_price", "unit_cost", "arrivals", "lead_demand_mean", "lead_demand_sd")
    return ExogenousPaths(**{name: join(name) for name in names})
