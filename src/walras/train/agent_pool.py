"""Pool of agents over many weeks, out of which populations for training and evaluating maps are cut."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from walras.config import EconomicsSettings
from walras.data.array_file import read_arrays, write_arrays
from walras.data.panel import DAYS_PER_WEEK, Panel
from walras.errors import InputError, SettingsError, shape_mismatch
from walras.exogenous.arrivals import ORDER_LOG_SD, IntegerLeadTimes, draw_lead_times
from walras.exogenous.calendar import holiday_distance
from walras.exogenous.paths import ExogenousPaths
from walras.maps.features import HORIZON
from walras.maps.rollout import PopulationWindow
from walras.population.agent_axis import map_per_agent
from walras.population.generate import generate_panel
from walras.population.population import AgentNames, Population
from walras.progress import Progress
from walras.simulation.week import empty_state
from walras.train.history import FIRST_FORECAST, RollingHistory
from walras.train.shocks import lagged_forecast

REFIT_WEEKS = 4  # weeks between two fits of the forecast: 6,000 agents over 300 weeks take well under a minute
ACTIVE_WEEKS = 26  # an agent is active in a week if it sold in this many weeks before it
KIND, LAYOUT = "world", 1  # kind of a stored pool, and the version of its fields
PATHS = ("demand", "sale_price", "unit_cost", "lead_demand_mean", "lead_demand_sd")
ATTRIBUTES = ("holding_cost", "lost_sale_penalty", "lead_time", "demand_scale", "unit_margin", "use", "weight")
ARRAYS = ("expected", "fit_week", "on_sale", "active", "holidays")


@dataclass(frozen=True, eq=False)
class AgentPool:
    """Agents over many weeks; no forecast of a week depends on that week's demand or later's."""

    population: Population  # attributes are read off all weeks, or off the first `known_weeks` of the table alone
    exogenous: ExogenousPaths  # a row for every week in every field, an integer lead time drawn for every order
    # mean demand forecast at each fit for the weeks from `fit_week` on [units/week]
    expected: Float32[np.ndarray, "fit ahead agent"]
    fit_week: Int[np.ndarray, " fit"]  # first week forecast at each fit, which used the weeks before it alone
    weeks: np.ndarray  # first day of each week (`datetime64[D]`) [week]; the first one has a forecast
    on_sale: Bool[np.ndarray, "week agent"]  # the agent is on the market in that week (from its first record on)
    active: Bool[np.ndarray, "week agent"]  # the agent sold shortly before that week
    # weeks since the last holiday and to the next, 0..1, of all weeks and of those `expected` looks ahead
    holidays: Float32[np.ndarray, "reach 2"]
    max_lead: int  # longest lead time of an order [weeks]; `replace` may raise it, so that pools share compiled code
    notes: tuple[str, ...] = ()  # sentences on how the pool was made

    @property
    def n_agents(self) -> int:
        """Number of agents."""
        return self.population.n_agents

    @property
    def n_weeks(self) -> int:
        """Number of weeks."""
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
            resources, economics: in the order of the resource axis; costs that the table does not give.
            refit_weeks, known_weeks: between two fits of the forecast; weeks off which agents are read (None: all).
            active_weeks: weeks in which a sale makes an agent active afterwards.
            log_sd, seed: spread of the log lead time between an agent's orders; of lead times and of imputed fields.

        Raises:
            InputError: too few weeks, or nothing sold.
        """
        known_weeks = panel.n_weeks if known_weeks is None else known_weeks
        _check_lengths(panel, known_weeks, refit_weeks)
        sold = np.asarray((panel.units[:known_weeks] > 0).any(axis=0))
        if not sold.any():
            raise InputError(
                f"none of the {panel.n_agents} products sold in {known_weeks} weeks; give a table with demand in them"
            )
        ahead = HORIZON + refit_weeks + 1
        history = RollingHistory.from_panel(
            panel,
            known_weeks,
            sold,
            f"sold nothing in {known_weeks} weeks",
            resources=resources,
            economics=economics or EconomicsSettings(),
            log_sd=log_sd,
            refit_weeks=refit_weeks,
            ahead=ahead,
            seed=seed,
            progress=progress or Progress(),
        )
        panel, fits, first = history.panel, history.fits, FIRST_FORECAST
        weeks = panel.n_weeks - first
        lead_times = draw_lead_times(history.lead_time, (1, weeks), log_sd=log_sd, seed=seed)[0]
        recorded = (np.asarray(part)[first:] for part in (panel.units, panel.price, panel.unit_cost))
        return AgentPool(
            population=history.population,
            exogenous=_paths((*recorded, history.lead_mean, history.lead_sd), lead_times),
            expected=np.stack([fit.weekly[:ahead] for fit in fits]),
            fit_week=np.array([fit.week - first for fit in fits], np.int32),
            weeks=panel.weeks[first:],
            on_sale=panel.on_sale[first:],
            active=_sold_before(panel, active_weeks)[first:],
            holidays=holiday_distance(panel.weeks[first], weeks + ahead),
            max_lead=history.max_lead,
            notes=(*panel.notes, *history.notes),
        )

    def window(
        self,
        agents: Int[np.ndarray, " slot"],
        start: int,
        weeks: int,
        *,
        weight: Float[np.ndarray, " slot"] | None = None,
        common: Float[np.ndarray, " week"] | None = None,
    ) -> PopulationWindow:
        """Cut out some agents and weeks.

        Args:
            agents: which agent of the pool is in each slot; -1 leaves the slot empty.
            start, weeks: first week, and number of weeks.
            weight: agents that the one in each slot stands for; default 1. Empty slots have weight 0 in any case.
            common: factor on all demand in each week (`draw_common`), which forecasts follow with a lag.

        Raises:
            InputError: weeks or agents that the pool does not have, or arrays of other lengths than needed.
        """
        agents = np.asarray(agents)
        self._check_window(agents, start, weeks)
        filled = agents >= 0
        index = np.where(filled, agents, agents[np.argmax(filled)] if filled.any() else 0)
        weights = np.where(filled, _given_or_ones("weight", weight, len(agents)), 0.0).astype(np.float32)
        factor = _given_or_ones("common", common, weeks)
        level = lagged_forecast(factor).astype(np.float32)
        rows = slice(start, start + weeks)
        exogenous = self._cut_paths(index, rows, factor.astype(np.float32), level)
        population = _take_agents(self.population, index, weights)
        per_unit = np.asarray(population.use) * weights[:, None]
        expected_use = self._expected_use(index, per_unit, np.arange(start, start + weeks)) * level[:, None, None]
        return PopulationWindow(
            population=population,
            exogenous=exogenous,
            initial=empty_state(len(agents), self.max_lead, exogenous.lead_demand_mean[0]),
            valid=jnp.asarray(self.on_sale[rows, index] & filled),
            expected_use=jnp.asarray(expected_use),
            holidays=jnp.asarray(self.holidays[start : start + weeks + HORIZON]),
        )

    def take(self, index: Int[np.ndarray, " kept"]) -> "AgentPool":
        """Keep some agents of the pool."""
        index = np.asarray(index)
        return replace(
            self,
            population=_take_agents(self.population, index, np.asarray(self.population.weight)[index]),
            exogenous=map_per_agent(
                lambda leaf: jnp.asarray(np.asarray(leaf)[..., index]), self.exogenous, self.n_agents
            ),
            expected=self.expected[..., index],
            on_sale=self.on_sale[:, index],
            active=self.active[:, index],
        )

    def save(self, path: str | Path) -> None:
        """Write the pool to one file with a checksum; its folder must exist."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ARRAYS}
        arrays |= {f"population.{name}": getattr(self.population, name) for name in ATTRIBUTES}
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
        """Read a pool written by `save`.

        Raises:
            InputError: no such file, a damaged one, or one of another kind or layout.
        """
        stored = read_arrays(path, KIND)
        header, arrays = stored.header, stored.arrays
        if header.get("layout") != LAYOUT:
            raise InputError(
                f"{stored.source} has fields of layout {header.get('layout')} but this walras reads {LAYOUT}; make "
                "the pool again"
            )
        attributes = {name: jnp.asarray(arrays[f"population.{name}"]) for name in ATTRIBUTES}
        names, n_weeks = AgentNames(header["names"]), len(arrays["exogenous.demand"])
        return AgentPool(
            population=Population(**attributes, resources=tuple(header["resources"]), names=names),
            exogenous=_paths([arrays[f"exogenous.{name}"] for name in PATHS], arrays["exogenous.lead_times"]),
            weeks=np.datetime64(header["first_week"], "D") + DAYS_PER_WEEK * np.arange(n_weeks),
            max_lead=header["max_lead"],
            notes=tuple(header["notes"]),
            **{name: arrays[name] for name in ARRAYS},
        )

    @property
    def _lead_times(self) -> Array:
        return self.exogenous.arrivals.weeks  # type: ignore[attr-defined]

    def _check_window(self, agents: np.ndarray, start: int, weeks: int) -> None:
        if start < 0 or weeks < 1 or start + weeks > self.n_weeks:
            raise InputError(
                f"{weeks} weeks from week {start} on are not in the pool, which has weeks 0 to {self.n_weeks - 1}; "
                "choose weeks among these"
            )
        if len(agents) and (agents.min() < -1 or agents.max() >= self.n_agents):
            raise InputError(
                f"agents from {agents.min()} to {agents.max()} are not in the pool, which has agents 0 to "
                f"{self.n_agents - 1}; give these, or -1 for an empty slot"
            )

    def _cut_paths(
        self, index: np.ndarray, rows: slice, factor: Float32[np.ndarray, " week"], level: Float32[np.ndarray, " week"]
    ) -> ExogenousPaths:
        """Cut out exogenous paths; demand follows the common shock at once, forecasts with a lag."""
        factors = dict(demand=factor, lead_demand_mean=level, lead_demand_sd=level)
        cut = []
        for name in PATHS:
            part = np.asarray(getattr(self.exogenous, name))[rows].take(index, axis=1)
            cut.append(part * factors[name][:, None] if name in factors else part)
        return _paths(cut, np.asarray(self._lead_times)[rows].take(index, axis=1))

    def _expected_use(
        self, index: np.ndarray, per_unit: Float[np.ndarray, "slot resource"], weeks: Int[np.ndarray, " week"]
    ) -> Float[np.ndarray, "week ahead resource"]:
        """Add up the use of the coming weeks that the latest fit at or before each week expects."""
        fit = np.searchsorted(self.fit_week, weeks, side="right") - 1
        fits = self.expected[fit[0] : fit[-1] + 1]
        total = fits.take(index, axis=2) @ per_unit
        ahead = (weeks - self.fit_week[fit])[:, None] + np.arange(HORIZON + 1)
        return total[(fit - fit[0])[:, None], ahead]


def pools_from_generator(
    count: int, agents: int, weeks: int, seed: int, *, progress: Progress | None = None, **options: Any
) -> Iterator[AgentPool]:
    """Generate pools lazily, one after the other.

    `agents` and `weeks` count those of a generated table, before products without sales and the first `FIRST_FORECAST`
    weeks are dropped; `options` are those of `AgentPool.from_panel`.
    """
    for number in range(count):
        drawn = int(np.random.default_rng([seed, number, 0x30BD]).integers(2**31))
        yield AgentPool.from_panel(generate_panel(agents, weeks, drawn), seed=drawn, progress=progress, **options)


def _check_lengths(panel: Panel, known_weeks: int, refit_weeks: int) -> None:
    if panel.n_weeks <= FIRST_FORECAST:
        raise InputError(
            f"the table has {panel.n_weeks} weeks but more than {FIRST_FORECAST} are needed for the first forecast; "
            "give a longer history"
        )
    if refit_weeks < 1:
        raise SettingsError(f"`refit_weeks` is {refit_weeks} but needs to be at least 1; give e.g. {REFIT_WEEKS}")
    if not 1 <= known_weeks <= panel.n_weeks:
        raise SettingsError(
            f"`known_weeks` is {known_weeks} of a table of {panel.n_weeks} weeks; give a number from 1 to "
            f"{panel.n_weeks}"
        )


def _sold_before(panel: Panel, weeks: int) -> Bool[np.ndarray, "week agent"]:
    """Mark the agents that sold in the `weeks` weeks before each week."""
    if weeks < 1:
        raise SettingsError(f"`active_weeks` is {weeks} but needs to be at least 1; give e.g. {ACTIVE_WEEKS}")
    sales = np.cumsum(np.pad(panel.units > 0, ((1, 0), (0, 0))), axis=0, dtype=np.int32)[:-1]
    earlier = np.pad(sales, ((weeks, 0), (0, 0)))[: panel.n_weeks]
    return sales > earlier


def _given_or_ones(name: str, values: np.ndarray | None, length: int) -> Float[np.ndarray, " length"]:
    array = np.ones(length) if values is None else np.asarray(values, float)
    if array.shape != (length,):
        raise shape_mismatch(name, array.shape, (length,), "give one number for each")
    return array


def _paths(numbers: Sequence[np.ndarray], lead_times: np.ndarray) -> ExogenousPaths:
    fields: dict[str, Any] = {name: jnp.asarray(part, jnp.float32) for name, part in zip(PATHS, numbers, strict=True)}
    return ExogenousPaths(arrivals=IntegerLeadTimes(jnp.asarray(lead_times)), **fields)


def _take_agents(population: Population, index: np.ndarray, weight: Float32[np.ndarray, " slot"]) -> Population:
    """Take agents on the host: sizes change from call to call, and on a device each would be compiled."""
    taken = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[index]), population)
    return replace(taken, weight=jnp.asarray(weight), names=population.names.take(index))
