"""What a finished plan is: the record of the loop, its verification, and the numbers that reports read. All numpy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from walras.errors import SettingsError
from walras.planning.capacity_response import CapacityResponse, PriceRange
from walras.planning.exceptions import PlanException, find_exceptions
from walras.planning.protocols import Grid
from walras.planning.service import GaveWay, GroupUse, Service

QUANTILES = (0.05, 0.5, 0.95)  # levels of every fan, along the `quantile` axis

Fan = Float[np.ndarray, "quantile week resource"]


@dataclass(frozen=True, eq=False)
class PlanRecord:
    """What the planning loop found, and why it stopped.

    Attributes:
        capacity: planned capacity K.
        shadow_prices: prices that make the agents fit it, lambda [money per unit of resource].
        utilization: expected utilization F(lambda) on the planning scenarios.
        feasible: utilization is within capacity on the planning scenarios. The loop itself leaves out weeks that no
            price can change; a verified plan counts them and names them in `stop_reason`.
        converged: the loop met its stopping rule; `stop_reason` says in one sentence why it stopped.
        iterations: revisions made; `queries` counts candidate plans.
        trace: one mapping per iteration (residuals, cost).
    """

    capacity: Grid
    shadow_prices: Grid
    utilization: Grid
    feasible: bool
    converged: bool
    stop_reason: str
    iterations: int
    queries: int
    trace: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True)
class Search:
    """What a search for a plan evaluated.

    Attributes:
        interface: "simulated" or "learned"; `maps` is then the name or folder of the maps.
        queries: candidate plans evaluated.
        simulations: of all agents (`full_simulations`), of a cohort, and Jacobians of a sample.
        cohort: agents of the cohort; 0 without.
        errors: relative absolute error of the maps' use at the plan of each round.
        outside_training: how population and queries differ from what the maps were trained on, in sentences.
    """

    interface: str = "simulated"
    maps: str = ""
    queries: int = 0
    simulations: int = 0
    full_simulations: int = 0
    cohort: int = 0
    errors: tuple[float, ...] = ()
    outside_training: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PlanResult:
    """A plan, its verification on unseen paths and what a planner needs to judge it. Prints as a table.

    Attributes:
        record: what the loop found; `search` is what it evaluated.
        weeks: first days of the planned weeks (`datetime64[D]`); `history_weeks` those of the past.
        regular_capacity: K0, granted at the regular rate.
        unconstrained, verified_utilization, fixed_utilization: on the unseen paths, with prices 0, with prices
            re-issued weekly, and with the planned ones fixed.
        committed: mean utilization without orders after the origin.
        reissued_prices: charged when re-issued weekly, mean over paths.
        history_demand, demand, receipts: total demand of the past and, on the unseen paths, total demand and units
            received under re-issued prices [units/week].
        service: demand and lost sales with and without the plan; `groups` have the same by group of products.
        products: columns of products.csv (`ProductOutcomes.table`); `gave_way` names who uses less in weeks that bind.
        price_ranges: what the price of each week that binds is good for; `response` holds the simulations behind it.
        money: over the horizon [money]: `reward_unconstrained`, `reward_plan`, `reward_fixed_prices`,
            `acquisition_cost`, `total_cost` (acquisition minus reward), `price_payments`; `margin_lost` (by the plan,
            beyond what is lost without prices), `plan_cost` (acquisition plus that); and `price_scale`.
        verified, verified_fixed: `evaluation.control_metrics` with prices re-issued and fixed, and rewards relative to
            the clairvoyant oracle; `intervals` are (low, high), 95 % over paths, for `verified`.
        forecast_score: held-out score of the demand scenarios, or a reason why not (`exogenous.demand.backtest`).
        week_verdicts: one phrase per week ("fits", "already committed"), that of its worst resource; `row_verdicts` are
            the phrases of each week and resource, in the order of plan.csv; `verdict` is a few sentences.
        provenance: field -> where its numbers come from; `notes` say what was dropped, filled or not estimated.
        counts: `agents`, `active`, `inactive`, `history_weeks`, `scenarios`, `paths`.
        policy: `PolicyChoice.facts`.
        seconds: wall time in all and by stage.
        moved: mean difference of capacity from the previous plan's, as a share of it; None without one.
    """

    record: PlanRecord
    weeks: np.ndarray
    resources: tuple[str, ...]
    regular_capacity: Grid
    unconstrained: Fan
    verified_utilization: Fan
    fixed_utilization: Fan
    committed: Grid
    reissued_prices: Grid
    history_weeks: np.ndarray
    history_demand: Float[np.ndarray, " past"]
    demand: Float[np.ndarray, "quantile week"]
    receipts: Float[np.ndarray, "quantile week"]
    service: Service
    groups: tuple[GroupUse, ...]
    money: Mapping[str, float]
    verified: Mapping[str, float | None]
    verified_fixed: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    forecast_score: Mapping[str, Any] = field(default_factory=dict)
    week_verdicts: tuple[str, ...] = ()
    row_verdicts: tuple[str, ...] = ()
    verdict: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    search: Search = Search()
    moved: float | None = None
    products: Mapping[str, np.ndarray] = field(default_factory=dict)
    gave_way: tuple[GaveWay, ...] = ()
    price_ranges: tuple[PriceRange, ...] = ()
    response: CapacityResponse | None = None

    @property
    def exceptions(self) -> tuple[PlanException, ...]:
        """Give what needs a decision: at most ten, by the money at stake, each with an action."""
        return find_exceptions(self)

    @property
    def verdict_grid(self) -> np.ndarray:
        """Give the verdict of every week and resource, "not judged" where there is none [week, resource]."""
        shape = len(self.weeks), len(self.resources)
        judged = self.row_verdicts or tuple(np.repeat(np.asarray(self.week_verdicts, dtype=str), shape[1]))
        return np.asarray([*judged, *["not judged"] * (shape[0] * shape[1])][: shape[0] * shape[1]], str).reshape(shape)

    def columns(self) -> dict[str, np.ndarray]:
        """Return the columns of plan.csv, one row per week and resource: `datetime64[D]`, `str` and floats."""
        numbers = {
            "regular_capacity": self.regular_capacity,
            "capacity": self.record.capacity,
            "utilization": self.record.utilization,
            "unconstrained": self.unconstrained[1],
            "committed": self.committed,
            "shadow_price": self.record.shadow_prices,
            "reissued_price": self.reissued_prices,
            **fan_columns("verified", self.verified_utilization),
            **fan_columns("fixed", self.fixed_utilization),
        }
        columns = week_columns(self.weeks, self.resources, numbers)
        columns["verdict"] = self.verdict_grid.reshape(-1)
        weekly = self.service.columns().items()
        return {**columns, **{name: np.repeat(values, len(self.resources)) for name, values in weekly}}

    def to_frame(self) -> Any:
        """Return `columns()` as a pandas data frame."""
        try:
            import pandas
        except ImportError as error:
            remedy = "install it, or use `columns()`, which needs numpy only"
            raise SettingsError(f"`to_frame` needs pandas; {remedy}") from error
        return pandas.DataFrame(self.columns())

    def __str__(self) -> str:
        """Return the verdict, service, and a table of weeks."""
        planned, without = self.service.fill_rate(), self.service.fill_rate("without")
        served = f"Served: {planned:.1%} of demand, {without:.1%} without prices."
        columns, resource = self.columns(), ["resource"] if len(self.resources) > 1 else []
        table = []
        for name in ("week", *resource, "capacity", "utilization", "shadow_price", "verdict"):
            values = columns[name].tolist()
            cells = [name, *(f"{value:,.4g}" if isinstance(value, float) else str(value) for value in values)]
            table.append([cell.rjust(max(map(len, cells))) for cell in cells])
        return "\n".join([*self.verdict, served, *("  ".join(row) for row in zip(*table, strict=True))])


@dataclass(frozen=True, eq=False)
class PriceComparison:
    """The same futures with and without shadow prices (`walras simulate`).

    Attributes:
        weeks: first days of the simulated weeks.
        shadow_prices: prices charged [money per unit of resource].
        utilization, unconstrained: use with the prices and without.
        flows: name -> mean over futures [units; week].
        reward, free_reward: mean reward over the horizon with the prices and without [money].
        payments: mean of prices times use [money].
        counts, provenance, notes: how the problem was built.
    """

    weeks: np.ndarray
    resources: tuple[str, ...]
    shadow_prices: Grid
    utilization: Fan
    unconstrained: Fan
    flows: dict[str, np.ndarray]
    reward: float
    free_reward: float
    payments: float
    counts: dict[str, int]
    provenance: dict[str, str]
    notes: tuple[str, ...]

    @property
    def reward_kept(self) -> float | None:
        """Reward with prices as a share of the reward without; None where the latter is not positive."""
        return self.reward / self.free_reward if self.free_reward > 0 else None

    def columns(self) -> dict[str, np.ndarray]:
        """Return one row per week and resource, weeks outermost."""
        numbers = {
            "shadow_price": self.shadow_prices,
            **fan_columns("utilization", self.utilization),
            **fan_columns("unconstrained", self.unconstrained),
        }
        flows = {name: np.repeat(values, len(self.resources)) for name, values in self.flows.items()}
        return week_columns(self.weeks, self.resources, numbers) | flows

    def as_dict(self) -> dict[str, Any]:
        """Return nested mappings for JSON; per-week values are in the order of `weeks`."""

        def by_resource(values: np.ndarray) -> dict[str, np.ndarray]:
            return {name: values[:, index] for index, name in enumerate(self.resources)}

        def by_level(values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
            return {level: by_resource(part) for level, part in zip(quantile_names(), values, strict=True)}

        return {
            "weeks": self.weeks,
            "resources": self.resources,
            "shadow_prices": by_resource(self.shadow_prices),
            "utilization": by_level(self.utilization),
            "unconstrained": by_level(self.unconstrained),
            "flows": self.flows,
            "reward": self.reward,
            "reward_unconstrained": self.free_reward,
            "reward_kept": self.reward_kept,
            "price_payments": self.payments,
            "assumed_columns": sorted(name for name, why in self.provenance.items() if why.startswith("assumed")),
            "provenance": self.provenance,
            "counts": self.counts,
            "notes": self.notes,
        }


def quantile_names() -> tuple[str, ...]:
    """Name the levels of a fan: p5, p50, p95."""
    return tuple(f"p{100 * level:.0f}" for level in QUANTILES)


def fan(values: Float[np.ndarray, "path *rest"]) -> Float[np.ndarray, "quantile *rest"]:
    """Return the quantiles over paths at `QUANTILES`."""
    return np.quantile(np.asarray(values, float), QUANTILES, axis=0)


def fan_columns(name: str, values: Fan) -> dict[str, Grid]:
    """Split a fan into `name_p5`, `name_p50` and `name_p95`."""
    return {f"{name}_{level}": part for level, part in zip(quantile_names(), values, strict=True)}


def week_columns(weeks: np.ndarray, resources: tuple[str, ...], numbers: Mapping[str, Grid]) -> dict[str, np.ndarray]:
    """Return columns with one row per week and resource, weeks outermost, after `week` and `resource`."""
    return {
        "week": np.repeat(weeks.astype("datetime64[D]"), len(resources)),
        "resource": np.tile(np.asarray(resources, dtype=str), len(weeks)),
        **{name: np.asarray(values, dtype=float).reshape(-1) for name, values in numbers.items()},
    }
