"""Own the World: a pool of agents over many weeks, out of which populations to train and judge maps on are cut.

CONTRACT: no forecast of a week knows that week's demand or later's. A stored world is one file of `data.store`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from walras.config import EconomicsSettings
from walras.data.array_file import Stored, read_arrays, write_arrays
from walras.data.imputation import complete_panel
from walras.data.panel import DAYS_PER_WEEK, Panel
from walras.errors import InputError, SettingsError, shape_mismatch
from walras.exogenous.arrivals import ORDER_LOG_SD, IntegerLeadTimes, draw_lead_times, longest_lead_time
from walras.exogenous.calendar import holiday_distance
from walras.exogenous.paths import ExogenousPaths
from walras.maps.features import HORIZON
from walras.maps.rollout import PopulationWindow
from walras.population.agent_axis import map_per_agent
from walras.population.generate import generate_panel
from walras.population.population import AgentNames, Population, population_from_panel
from walras.progress import Progress
from walras.simulation.state import empty_state
from walras.train.history import FIRST_FORECAST, rolling_fits
from walras.train.shocks import lagged_forecast

REFIT_WEEKS = 4
"""Weeks between two fits of the forecast: 6,000 agents over 300 weeks are prepared in well under a minute."""

ACTIVE_WEEKS = 26
"""A product that sold in so many weeks before a week is active in it."""

KIND, LAYOUT = "world", 1
"""What a stored world is called, and the version of its fields."""

PATHS = ("demand", "sale_price", "unit_cost", "lead_demand_mean", "lead_demand_sd")
TRAITS = ("holding_cost", "lost_sale_penalty", "lead_time", "demand_scale", "unit_margin", "use", "weight")
ARRAYS = ("expected", "fit_week", "on_sale", "active", "holidays")


@dataclass(frozen=True, eq=False)
class AgentPool:
    """Hold a pool of agents over many weeks: who they are, what happens to them, what was expected of them.

    Attributes:
        population: the pool; attributes are read off all weeks, or off the first `known_weeks` of the table alone.
        exogenous: what happened, every field with a row for every week; an integer lead time drawn for every order.
        expected: mean demand forecast at each fit for the weeks from `fit_week` on [units/week].
        fit_week: first week forecast at each fit; a fit knows the weeks before it alone.
        weeks: first day of each week (`datetime64[D]`) [week]; the first one has a forecast.
        on_sale: the agent is on the market in that week (from its first record on).
        active: the agent sold shortly before that week.
        holidays: weeks since the last holiday and to the next, 0..1, of all weeks and of those `expected` looks ahead.
        max_lead: longest lead time that an order can take [weeks]; `dataclasses.replace` may raise it, so that several
            worlds share compiled code.
        notes: sentences on how the world was made.
    """

    population: Population
    exogenous: ExogenousPaths
    expected: Float32[np.ndarray, "fit ahead agent"]
    fit_week: Int[np.ndarray, " fit"]
    weeks: np.ndarray
    on_sale: Bool[np.ndarray, "week agent"]
    active: Bool[np.ndarray, "week agent"]
    holidays: Float32[np.ndarray, "reach 2"]
    max_lead: int
    notes: tuple[str, ...] = ()

    @property
    def n_agents(self) -> int:
        """Count the agents of the pool."""
        return self.population.n_agents

    @property
    def n_weeks(self) -> int:
        """Count the weeks."""
        return len(self.weeks)

    @staticmethod
    def from_panel(
        panel: Panel,
        *,
        resources: Sequence[str] = ("inbound_units",),
        economics: EconomicsSettings | None = None,
        refit_weeks: int = REFIT_WEEKS,
        known_weeks: int | None = None,
        active_weeks: int = ACTIVE_WEEKS,
        log_sd: float = ORDER_LOG_SD,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> "AgentPool":
        """Forecast every week of a table from the weeks before, and draw the lead times of its orders.

        Args:
            panel: as read; its own forecast is not used, since it is about other weeks.
            resources: which shared resources are used, in the order of the resource axis.
            economics: costs that the table does not give.
            refit_weeks: weeks between two fits of the forecast.
            known_weeks: first weeks of the table that agents and their attributes are read off; None reads all.
            active_weeks: weeks in which a sale makes an agent active afterwards.
            log_sd: spread of the log lead time between orders of an agent.
            seed: of the lead times, and of what the table lacks.
            progress: told about stages and steps.

        Raises:
            InputError: too few weeks, or nothing sold.
        """
        progress = Progress() if progress is None else progress
        known_weeks = panel.n_weeks if known_weeks is None else known_weeks
        _check(panel, known_weeks, refit_weeks)
        kept, notes = _sold(panel, known_weeks)
        panel = complete_panel(replace(kept, forecast=None), seed=seed)
        population = _population(panel.before(known_weeks), resources, economics or EconomicsSettings())
        progress.stage("Forecasting every week from the weeks before")
        lead, ahead = np.asarray(population.lead_time), HORIZON + refit_weeks + 1
        fits = list(rolling_fits(panel, lead, log_sd=log_sd, refit_weeks=refit_weeks, ahead=ahead, progress=progress))
        first, weeks = FIRST_FORECAST, panel.n_weeks - FIRST_FORECAST
        lead_times = draw_lead_times(lead, (1, weeks), log_sd=log_sd, seed=seed)[0]
        forecast = (np.concatenate([getattr(fit, name) for fit in fits]) for name in ("lead_mean", "lead_sd"))
        history = (np.asarray(part)[first:] for part in (panel.units, panel.price, panel.unit_cost))
        return AgentPool(
            population=population,
            exogenous=_paths((*history, *forecast), lead_times),
            expected=np.stack([fit.weekly[:ahead] for fit in fits]),
            fit_week=np.array([fit.week - first for fit in fits], np.int32),
            weeks=panel.weeks[first:],
            on_sale=panel.on_sale[first:],
            active=_active(panel, active_weeks)[first:],
            holidays=holiday_distance(panel.weeks[first], weeks + ahead),
            max_lead=longest_lead_time(lead, log_sd),
            notes=(*panel.notes, *notes),
        )

    def stretch(
        self,
        agents: Int[np.ndarray, " slot"],
        start: int,
        weeks: int,
        *,
        weight: Float[np.ndarray, " slot"] | None = None,
        common: Float[np.ndarray, " week"] | None = None,
    ) -> PopulationWindow:
        """Cut some agents and weeks out.

        Args:
            agents: which agent of the pool is in each slot; -1 leaves the slot empty.
            start: first week.
            weeks: number of weeks.
            weight: agents that the one in each slot stands for; default 1. Empty slots have weight 0 in any case.
            common: factor on everybody's demand in each week (`draw_common`); forecasts follow it late.

        Raises:
            InputError: weeks or agents that the world does not have, or arrays of other lengths than needed.
        """
        agents = np.asarray(agents)
        self._check_cut(agents, start, weeks)
        there = agents >= 0
        index = np.where(there, agents, agents[np.argmax(there)] if there.any() else 0)
        worth = np.where(there, _given("weight", weight, len(agents)), 0.0).astype(np.float32)
        factor = _given("common", common, weeks)
        level = lagged_forecast(factor).astype(np.float32)
        exogenous = self._cut_paths(index, slice(start, start + weeks), factor.astype(np.float32), level)
        population = _taken(self.population, index, worth)
        per_unit = np.asarray(population.use) * worth[:, None]
        expected_use = self._expected_use(index, per_unit, np.arange(start, start + weeks)) * level[:, None, None]
        return PopulationWindow(
            population=population,
            exogenous=exogenous,
            initial=empty_state(len(agents), self.max_lead, exogenous.lead_demand_mean[0]),
            valid=jnp.asarray(self.on_sale[start : start + weeks, index] & there),
            expected_use=jnp.asarray(expected_use),
            holidays=jnp.asarray(self.holidays[start : start + weeks + HORIZON]),
        )

    def take(self, index: Int[np.ndarray, " kept"]) -> "AgentPool":
        """Keep some agents of the pool."""
        index = np.asarray(index)
        return replace(
            self,
            population=_taken(self.population, index, np.asarray(self.population.weight)[index]),
            exogenous=map_per_agent(
                lambda leaf: jnp.asarray(np.asarray(leaf)[..., index]), self.exogenous, self.n_agents
            ),
            expected=self.expected[..., index],
            on_sale=self.on_sale[:, index],
            active=self.active[:, index],
        )

    def save(self, path: str | Path) -> None:
        """Write the world to one file, aside and then renamed, under a checksum.

        Args:
            path: where the file shall be; its folder must exist.
        """
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ARRAYS}
        arrays |= {f"population.{name}": getattr(self.population, name) for name in TRAITS}
        arrays |= {f"exogenous.{name}": getattr(self.exogenous, name) for name in PATHS}
        arrays["exogenous.lead_times"] = self._lead_times
        labels = self.population.names.labels
        header = {
            "layout": LAYOUT,
            "resources": list(self.population.resources),
            "names": None if labels is None else labels.tolist(),
            "first_week": str(self.weeks[0]),
            "max_lead": self.max_lead,
            "notes": list(self.notes),
        }
        write_arrays(path, KIND, arrays, header)

    @staticmethod
    def load(path: str | Path) -> "AgentPool":
        """Read a world that `save` wrote.

        Raises:
            InputError: no such file, a damaged one, or one of another kind or layout.
        """
        stored = read_arrays(path, KIND)
        header, arrays = stored.header, stored.arrays
        _refuse_layout(stored)
        demand = arrays["exogenous.demand"]
        traits = {name: jnp.asarray(arrays[f"population.{name}"]) for name in TRAITS}
        names = AgentNames(header["names"])
        return AgentPool(
            population=Population(**traits, resources=tuple(header["resources"]), names=names),
            exogenous=_paths([arrays[f"exogenous.{name}"] for name in PATHS], arrays["exogenous.lead_times"]),
            weeks=np.datetime64(header["first_week"], "D") + DAYS_PER_WEEK * np.arange(len(demand)),
            max_lead=header["max_lead"],
            notes=tuple(header["notes"]),
            **{name: arrays[name] for name in ARRAYS},
        )

    @property
    def _lead_times(self) -> Array:
        return self.exogenous.arrivals.weeks  # type: ignore[attr-defined]

    def _check_cut(self, agents: np.ndarray, start: int, weeks: int) -> None:
        if start < 0 or weeks < 1 or start + weeks > self.n_weeks:
            raise InputError(
                f"{weeks} weeks from week {start} on are asked for but the world has weeks 0 to {self.n_weeks - 1}; "
                "ask for weeks among these"
            )
        if len(agents) and (agents.min() < -1 or agents.max() >= self.n_agents):
            raise InputError(
                f"agents from {agents.min()} to {agents.max()} are asked for but the world has agents 0 to "
                f"{self.n_agents - 1}; give these, or -1 for an empty slot"
            )

    def _cut_paths(
        self, index: np.ndarray, rows: slice, factor: Float32[np.ndarray, " week"], level: Float32[np.ndarray, " week"]
    ) -> ExogenousPaths:
        """Cut out what happens; demand follows the common surprise at once, forecasts late."""
        times = dict(demand=factor, lead_demand_mean=level, lead_demand_sd=level)
        cut = []
        for name in PATHS:
            part = np.asarray(getattr(self.exogenous, name))[rows].take(index, axis=1)
            cut.append(part * times[name][:, None] if name in times else part)
        return _paths(cut, np.asarray(self._lead_times)[rows].take(index, axis=1))

    def _expected_use(
        self, index: np.ndarray, per_unit: Float[np.ndarray, "slot resource"], weeks: Int[np.ndarray, " week"]
    ) -> Float[np.ndarray, "week ahead resource"]:
        """Add up what the latest fit at or before each week expects of the coming weeks."""
        fit = np.searchsorted(self.fit_week, weeks, side="right") - 1
        fits = self.expected[fit[0] : fit[-1] + 1]
        total = fits.take(index, axis=2) @ per_unit
        ahead = (weeks - self.fit_week[fit])[:, None] + np.arange(HORIZON + 1)
        return total[(fit - fit[0])[:, None], ahead]


def pools_from_generator(
    count: int, agents: int, weeks: int, seed: int, *, progress: Progress | None = None, **given: Any
) -> Iterator[AgentPool]:
    """Make up worlds one after the other, each when it is asked for; another seed gives other worlds.

    Args:
        count: number of worlds.
        agents: products of each, before those that never sell are dropped.
        weeks: history of each [weeks], the first few of which are there for the first forecast alone.
        seed: of all that is drawn.
        progress: told about stages and steps.
        given: passed on to `AgentPool.from_panel`.
    """
    for number in range(count):
        drawn = int(np.random.default_rng([seed, number, 0x30BD]).integers(2**31))
        yield AgentPool.from_panel(generate_panel(agents, weeks, drawn), seed=drawn, progress=progress, **given)


def _check(panel: Panel, known_weeks: int, refit_weeks: int) -> None:
    if panel.n_weeks <= FIRST_FORECAST:
        raise InputError(
            f"the table has {panel.n_weeks} weeks but more than {FIRST_FORECAST} are needed, since the first forecast "
            "is made from so many; give a longer history"
        )
    if refit_weeks < 1:
        raise SettingsError(f"`refit_weeks` is {refit_weeks} but needs to be at least 1; give e.g. {REFIT_WEEKS}")
    if not 1 <= known_weeks <= panel.n_weeks:
        raise SettingsError(
            f"`known_weeks` is {known_weeks} of a table of {panel.n_weeks} weeks; give a number from 1 to "
            f"{panel.n_weeks}"
        )


def _sold(panel: Panel, known_weeks: int) -> tuple[Panel, tuple[str, ...]]:
    """Keep the agents that ever sold in the known weeks."""
    mask = np.asarray((panel.units[:known_weeks] > 0).any(axis=0))
    if not mask.any():
        raise InputError(
            f"none of the {panel.n_agents} products sold in {known_weeks} weeks; give a table with demand in them"
        )
    dropped = int((~mask).sum())
    words = f"{dropped} products sold nothing in {known_weeks} weeks and are left out."
    return panel.take(mask), (words,) if dropped else ()


def _population(panel: Panel, resources: Sequence[str], economics: EconomicsSettings) -> Population:
    return population_from_panel(
        panel,
        resources=resources,
        annual_holding_rate=economics.holding_rate,
        lost_sale_penalty_share=economics.lost_sale_penalty,
    )


def _active(panel: Panel, weeks: int) -> Bool[np.ndarray, "week agent"]:
    """Mark who sold in the `weeks` weeks before each week."""
    if weeks < 1:
        raise SettingsError(f"`active_weeks` is {weeks} but needs to be at least 1; give e.g. {ACTIVE_WEEKS}")
    sales = np.cumsum(np.pad(panel.units > 0, ((1, 0), (0, 0))), axis=0, dtype=np.int32)[:-1]
    earlier = np.pad(sales, ((weeks, 0), (0, 0)))[: panel.n_weeks]
    return sales > earlier


def _given(name: str, values: np.ndarray | None, length: int) -> Float[np.ndarray, " length"]:
    """Return what was given, or ones."""
    given = np.ones(length) if values is None else np.asarray(values, float)
    if given.shape != (length,):
        raise shape_mismatch(name, given.shape, (length,), "give one number for each")
    return given


def _paths(numbers: Sequence[np.ndarray], lead_times: np.ndarray) -> ExogenousPaths:
    """Put the fields named in `PATHS` and the lead times of orders together."""
    fields: dict[str, Any] = {name: jnp.asarray(part, jnp.float32) for name, part in zip(PATHS, numbers, strict=True)}
    return ExogenousPaths(arrivals=IntegerLeadTimes(jnp.asarray(lead_times)), **fields)


def _taken(population: Population, index: np.ndarray, weight: Float32[np.ndarray, " slot"]) -> Population:
    """Take agents on the host: sizes change from call to call, and on a device each would be compiled."""
    taken = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[index]), population)
    return replace(taken, weight=jnp.asarray(weight), names=population.names.take(index))


def _refuse_layout(stored: Stored) -> None:
    layout = stored.header.get("layout")
    if layout != LAYOUT:
        raise InputError(
            f"{stored.source} has fields of layout {layout} but this walras reads layout {LAYOUT}; make the world again"
        )
