"""Own how a table's history becomes cases: weeks that policies may learn from, and later weeks that judge them.

CONTRACT: tuning, training and comparisons use these cases; no forecast of a week knows that week's demand or later's.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int8

from walras.config import HistorySettings
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
from walras.simulation.state import State, empty_state

FIRST_FORECAST = 8
"""Weeks of history before the first forecast: the first training week comes after so many weeks of the table."""

FEWEST_WEEKS = 8
"""Fewest training weeks: less says nothing about any policy."""

HELD_OUT = 15_485_863
"""Added to the seed for the lead times of the held-out weeks, which training never draws."""

Tree = TypeVar("Tree")


@dataclass(frozen=True, eq=False)
class HistoryWeeks:
    """Hold a stretch of history as it is replayed.

    Attributes:
        weeks: first day of each week (`datetime64[D]`) [week].
        exogenous: recorded demand beside each draw of the lead times [draw, week, agent], and rolling forecasts.
        initial: stock and open orders that every policy starts with.
    """

    weeks: np.ndarray
    exogenous: ExogenousPaths
    initial: State

    def take(self, index: Any) -> "HistoryWeeks":
        """Keep the agents that `index` selects, in that order."""
        count = self.exogenous.n_agents
        return HistoryWeeks(self.weeks, _take(self.exogenous, index, count), _take(self.initial, index, count))


@dataclass(frozen=True, eq=False)
class HistorySplit:
    """Hold what policies are tuned and trained on, and what judges them.

    Attributes:
        panel: completed panel of the agents, held-out weeks included.
        population: who the agents are, read off the training weeks alone.
        training: weeks to learn from; the first weeks of the table are only there for the first forecast.
        holdout: later weeks; `initial` is what the newsvendor left at the end of training.
        discount: worth next week of one unit of money now.
        log_sd: spread of the log lead time between orders of a product.
        notes: sentences on how the case was made.
    """

    panel: Panel
    population: Population
    training: HistoryWeeks
    holdout: HistoryWeeks
    discount: float
    log_sd: float
    notes: tuple[str, ...]

    @property
    def n_agents(self) -> int:
        """Count the agents."""
        return self.population.n_agents

    @property
    def whole(self) -> HistoryWeeks:
        """Give training and held-out weeks in one stretch, from the start of training on."""
        first, later = self.training, self.holdout
        exogenous = _joined(first.exogenous, later.exogenous)
        return HistoryWeeks(np.concatenate([first.weeks, later.weeks]), exogenous, first.initial)

    def take(self, index: Any) -> "HistorySplit":
        """Keep the agents that `index` (mask or indices) selects, in that order: to train on some, judge on others."""
        index = np.asarray(index)
        kept = {name: getattr(self, name).take(index) for name in ("panel", "population", "training", "holdout")}
        return replace(self, **kept)


def train_test_split(
    panel: Panel, settings: HistorySettings | None = None, *, progress: Progress | None = None
) -> HistorySplit:
    """Cut a table's history into training weeks and held-out weeks.

    Agents, prices, costs and attributes are chosen and read on the training weeks alone. The forecast of every week,
    training and held-out alike, comes from a model fitted on the weeks before it, so that a policy sees forecasts of
    the same quality in both.

    Args:
        panel: as read; a forecast in it is not used, since it is about other weeks.
        settings: how many weeks to hold out, which lead times and prices to replay.
        progress: told about stages and steps.

    Raises:
        InputError: fewer weeks than needed, no product that sold, a product without a lead time that can be planned.
    """
    settings = HistorySettings() if settings is None else settings
    progress = Progress() if progress is None else progress
    split = _split_week(panel, settings.holdout)
    kept, notes = _active(panel, split, settings.active_weeks)
    completed = complete_panel(replace(kept, forecast=None), seed=settings.seed)
    population = population_from_panel(
        completed.before(split),
        resources=settings.resources,
        annual_holding_rate=settings.economics.holding_rate,
        lost_sale_penalty_share=settings.economics.lost_sale_penalty,
    )
    lead, log_sd = np.asarray(population.lead_time), _log_sd(settings)
    progress.stage("Forecasting every week from the weeks before")
    forecast = rolling_forecasts(
        completed, lead, first=FIRST_FORECAST, log_sd=log_sd, refit_weeks=settings.refit_weeks, progress=progress
    )
    spans = (FIRST_FORECAST, split), (split, panel.n_weeks)
    past, later = (_replayed(completed, lead, forecast, span, split, settings) for span in spans)
    progress.stage("Finding the state at the end of training")
    start = empty_state(population.n_agents, longest_lead_time(lead, log_sd), past.lead_demand_mean[0])
    policy = PricedNewsvendor(discount=settings.economics.discount)
    left = simulate(population, _first_draw(past), policy, initial=start).final
    return HistorySplit(
        panel=completed,
        population=population,
        training=HistoryWeeks(panel.weeks[FIRST_FORECAST:split], past, start),
        holdout=HistoryWeeks(panel.weeks[split:], later, left),
        discount=settings.economics.discount,
        log_sd=log_sd,
        notes=(*panel.notes, *notes, _lead_time_note(settings)),
    )


@dataclass(frozen=True, eq=False)
class RollingForecast:
    """Hold what one fit of the forecast says; it knows the weeks before `week` alone.

    Attributes:
        week: first week that is forecast, counted from the first week of the history.
        weekly: mean demand of `week` and the weeks after it [units/week].
        lead_mean: mean of the demand of weeks t .. t + L, in the weeks t until the next fit [units].
        lead_sd: standard deviation of that [units].
    """

    week: int
    weekly: Float32[np.ndarray, "ahead agent"]
    lead_mean: Float32[np.ndarray, "week agent"]
    lead_sd: Float32[np.ndarray, "week agent"]


def rolling_fits(
    panel: Panel,
    lead_time: np.ndarray,
    *,
    first: int = FIRST_FORECAST,
    log_sd: float = ORDER_LOG_SD,
    refit_weeks: int = 1,
    ahead: int = 0,
    progress: Progress | None = None,
) -> Iterator[RollingForecast]:
    """Fit the forecast in every `refit_weeks`-th week from `first` on, each time on the weeks before that week alone.

    The weeks between two fits are forecast from the last one, some weeks further ahead. A product that was not on sale
    before a fit is expected to sell nothing until the next: nobody knows that it will be there.

    Args:
        panel: the history; its own forecast is not used.
        lead_time: planned lead time L [weeks] [agent].
        first: first week that is forecast, at least 1.
        log_sd: spread of the log lead time between orders, for the standard deviation.
        refit_weeks: weeks between two fits.
        ahead: fewest weeks of weekly demand to forecast at each fit.
        progress: told about steps.
    """
    vary, reach = lead_time_sd(lead_time, log_sd), int(lead_time.max(initial=0)) + 1
    for origin in range(first, panel.n_weeks, refit_weeks):
        weeks = min(refit_weeks, panel.n_weeks - origin)
        known = panel.before(origin)
        model, launched = DemandModel.fit(known), known.on_sale.any(0)
        weekly = np.where(launched, model.mean(max(weeks + reach, ahead)), np.float32(0.0))
        spread = np.where(launched, model.sd(weeks + reach), np.float32(0.0))
        yield RollingForecast(
            origin, weekly, *lead_time_demand(weekly[: weeks + reach], spread, lead_time, vary, weeks)
        )
        if progress is not None:
            progress.step(origin + weeks - first, panel.n_weeks - first)


def rolling_forecasts(
    panel: Panel,
    lead_time: np.ndarray,
    *,
    first: int = FIRST_FORECAST,
    log_sd: float = ORDER_LOG_SD,
    refit_weeks: int = 1,
    progress: Progress | None = None,
) -> tuple[Float32[np.ndarray, "week agent"], Float32[np.ndarray, "week agent"]]:
    """Forecast the demand of weeks t .. t + L for every week t from `first` on, each from the weeks before t alone.

    Args:
        panel, lead_time, first, log_sd, refit_weeks, progress: as in `rolling_fits`.

    Returns:
        Mean and standard deviation of lead-time demand [units], one row per week from `first` on.
    """
    fits = list(rolling_fits(panel, lead_time, first=first, log_sd=log_sd, refit_weeks=refit_weeks, progress=progress))
    return np.concatenate([fit.lead_mean for fit in fits]), np.concatenate([fit.lead_sd for fit in fits])


def _split_week(panel: Panel, holdout: int) -> int:
    """Return the first held-out week, or say what is missing."""
    split, needed = panel.n_weeks - holdout, FIRST_FORECAST + FEWEST_WEEKS
    if split >= needed:
        return split
    if panel.n_weeks <= needed:
        raise InputError(
            f"the table has {panel.n_weeks} weeks but more than {needed} are needed to learn from some and be judged "
            "on others; give a longer history"
        )
    raise InputError(
        f"`holdout` is {holdout} weeks of a table of {panel.n_weeks}, which leaves {max(split, 0)} but at least "
        f"{needed} are needed to learn from; make it at most {panel.n_weeks - needed}"
    )


def _active(panel: Panel, split: int, active_weeks: int) -> tuple[Panel, tuple[str, ...]]:
    """Keep the agents that sold shortly before the held-out weeks, which alone may choose."""
    mask = active_agents(panel.before(split), active_weeks)
    if not mask.any():
        raise InputError(
            f"none of the {panel.n_agents} products sold in the {active_weeks} weeks before the held-out ones; raise "
            "`active_weeks`, or hold out fewer weeks"
        )
    dropped = int((~mask).sum())
    words = f"{dropped} products sold nothing in the {active_weeks} weeks before the held-out ones and are left out."
    return panel.take(mask), (words,) if dropped else ()


def _log_sd(settings: HistorySettings) -> float:
    return ORDER_LOG_SD if settings.lead_times == "drawn" else 0.0


def _replayed(
    panel: Panel,
    lead_time: np.ndarray,
    forecast: tuple[np.ndarray, np.ndarray],
    span: tuple[int, int],
    split: int,
    settings: HistorySettings,
) -> ExogenousPaths:
    """Put recorded demand beside draws of the lead times; `forecast` begins with the first training week."""
    first, last = span
    seed = settings.seed + (HELD_OUT if first >= split else 0)
    shape = (settings.draws, last - first)
    lead_times: Int8[np.ndarray, "draw week agent"] = draw_lead_times(
        lead_time, shape, log_sd=_log_sd(settings), seed=seed
    )
    demand = np.broadcast_to(panel.units[first:last].astype(np.float32), lead_times.shape)
    mean, deviation = (part[first - FIRST_FORECAST : last - FIRST_FORECAST] for part in forecast)
    price, cost = _money(panel, first, last, split, settings)
    return ExogenousPaths(
        demand=jnp.asarray(demand),
        sale_price=jnp.asarray(price),
        unit_cost=jnp.asarray(cost),
        arrivals=IntegerLeadTimes(jnp.asarray(lead_times)),
        lead_demand_mean=jnp.asarray(mean),
        lead_demand_sd=jnp.asarray(deviation),
    )


def _money(
    panel: Panel, first: int, last: int, split: int, settings: HistorySettings
) -> tuple[Float[np.ndarray, "#week agent"], Float[np.ndarray, "#week agent"]]:
    """Return sale price and unit cost [money/unit]: one row for all weeks, or as recorded."""
    if settings.prices == "latest":
        price, cost = latest_prices(panel.before(split))
        return price[None], cost[None]
    return tuple(np.asarray(part)[first:last].astype(np.float32) for part in (panel.price, panel.unit_cost))  # type: ignore[return-value]


def _joined(first: ExogenousPaths, later: ExogenousPaths) -> ExogenousPaths:
    """Put two stretches of weeks one after the other; what has one row for all weeks of both keeps it."""
    axis = {"demand": 1, "arrivals": 1}

    def join(name: str) -> Any:
        parts = [getattr(paths, name) for paths in (first, later)]
        if name not in axis and all(len(part) == 1 for part in parts):
            return parts[0]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis.get(name, 0)), *parts)

    names = ("demand", "sale_price", "unit_cost", "arrivals", "lead_demand_mean", "lead_demand_sd")
    return ExogenousPaths(**{name: join(name) for name in names})


def _first_draw(paths: ExogenousPaths) -> ExogenousPaths:
    """Drop the scenario axis, keeping the first draw."""
    arrivals = IntegerLeadTimes(paths.arrivals.weeks[0])  # type: ignore[attr-defined]
    return replace(paths, demand=paths.demand[0], arrivals=arrivals)


def _take(tree: Tree, index: np.ndarray, n_agents: int) -> Tree:
    return map_per_agent(lambda leaf: leaf[..., index], tree, n_agents)


def _lead_time_note(settings: HistorySettings) -> str:
    if settings.lead_times == "planned":
        return "Every order takes exactly its product's typical lead time."
    return f"Lead times vary between orders of a product with a log spread of {ORDER_LOG_SD}."
