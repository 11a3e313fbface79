"""Own what a finished plan is: the record of the loop and everything a report or a program reads of it.

CONTRACT: the planner fills these; reports, commands and studies read them. Arrays are numpy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from walras.planning.protocols import Grid

QUANTILES = (0.05, 0.5, 0.95)
"""Levels of every fan, along the `quantile` axis."""


@dataclass(frozen=True, eq=False)
class PlanRecord:
    """Say what the planning loop found and why it stopped.

    Attributes:
        capacity: planned capacity K [week, resource].
        shadow_prices: prices that make the agents fit it, lambda [money per unit of resource; week, resource].
        utilization: expected utilization F(lambda) on the planning scenarios [week, resource].
        feasible: utilization is within capacity on the planning scenarios; `plan` itself leaves out weeks in which
            nothing can be done, a finished plan counts them and names them in `stop_reason`.
        converged: the loop met its stopping rule.
        stop_reason: why it stopped, one sentence.
        iterations: revisions made; `queries` counts the simulated primal queries.
        trace: one mapping per iteration (residuals, cost), for the log and the report.
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
    """Say what was asked while a plan was searched.

    Attributes:
        interface: "simulated" where everybody was simulated at every step, "learned" where learned maps were asked.
        maps: name or folder of the maps; empty without.
        queries: candidate plans whose utilization was asked.
        simulations: made for them, those of a cohort and Jacobians of a sample among them.
        everybody: simulations of everybody among them.
        cohort: agents that were simulated for all in the others; 0 where none were.
        errors: by how much the maps' use differed from simulated use at the plan of each round, summed over weeks
            regardless of sign, relative.
        outside_training: what of the population and of the questions the maps' training had not seen, in sentences.
    """

    interface: str = "simulated"
    maps: str = ""
    queries: int = 0
    simulations: int = 0
    everybody: int = 0
    cohort: int = 0
    errors: tuple[float, ...] = ()
    outside_training: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class GroupUse:
    """Compare what groups of agents use without prices and under the plan (who gave way).

    Attributes:
        title: what the groups are ("demand bucket", "category").
        labels: one name per group.
        unconstrained, planned: mean total use of the first resource over the horizon [group].
    """

    title: str
    labels: tuple[str, ...]
    unconstrained: Float[np.ndarray, " group"]
    planned: Float[np.ndarray, " group"]


@dataclass(frozen=True, eq=False)
class PlanResult:
    """Collect a plan, its verification on unseen paths and what a planner needs to judge it.

    Attributes:
        record: what the loop found.
        weeks: first days of the planned weeks (`datetime64[D]`) [week].
        resources: names along the resource axis.
        regular_capacity: K0, what is granted at the regular rate [week, resource].
        unconstrained: utilization with prices 0 on the unseen paths [quantile, week, resource].
        verified_utilization: utilization with prices re-issued weekly, unseen paths [quantile, week, resource].
        fixed_utilization: utilization with the planned prices fixed, unseen paths [quantile, week, resource].
        committed: mean utilization if nobody ordered after the origin [week, resource].
        reissued_prices: shadow prices charged when re-issued weekly, mean over paths [week, resource].
        history_weeks, history_demand: past weeks and their total demand [units/week].
        demand: total demand on the unseen paths [quantile, week].
        receipts: total units received on the unseen paths, prices re-issued [quantile, week].
        groups: who gave way.
        money: sentences' numbers [money over the horizon]: keys `reward_unconstrained`, `reward_plan`,
            `acquisition_cost`, `total_cost` (acquisition minus reward), `price_payments`, `price_scale`.
        verified: measures with prices re-issued weekly: `mean_violation`, `near_limit_mean_violation`,
            `near_limit_share`, `irreducible_violation`, `avoidable_violation`, `reward_kept`, `regret_ratio`,
            `idle_capacity`, `slackness`, `share_weeks_over_10_percent`, `near_limit_share_over_10_percent`.
        verified_fixed: the same measures with the planned prices fixed.
        intervals: measure -> (low, high), 95 % over paths, for `verified`.
        forecast_score: held-out score of the demand scenarios (see `exogenous.backtest`), or a reason why not.
        week_verdicts: one word or phrase per week: "fits", "already committed", "over at the highest price", ...
        verdict: the answer in words, a few sentences.
        provenance: field -> where its numbers come from, in words.
        notes: what was dropped, filled or could not be estimated.
        counts: `agents`, `active`, `inactive`, `history_weeks`, `scenarios`, `paths`.
        policy: `name` of what agents follow; where it was compared, `reward_ratio`, `low`, `high`, `against`.
        settings: the settings the plan was made with.
        seconds: wall time in all and by stage.
        search: what was asked while the plan was searched: simulation or learned maps.
        moved: by how much capacity differs from the last plan's in the weeks of both, a share of it; None without one.
    """

    record: PlanRecord
    weeks: np.ndarray
    resources: tuple[str, ...]
    regular_capacity: Grid
    unconstrained: Float[np.ndarray, "quantile week resource"]
    verified_utilization: Float[np.ndarray, "quantile week resource"]
    fixed_utilization: Float[np.ndarray, "quantile week resource"]
    committed: Grid
    reissued_prices: Grid
    history_weeks: np.ndarray
    history_demand: Float[np.ndarray, " past"]
    demand: Float[np.ndarray, "quantile week"]
    receipts: Float[np.ndarray, "quantile week"]
    groups: tuple[GroupUse, ...]
    money: Mapping[str, float]
    verified: Mapping[str, float | None]
    verified_fixed: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    forecast_score: Mapping[str, Any] = field(default_factory=dict)
    week_verdicts: tuple[str, ...] = ()
    verdict: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    search: Search = Search()
    moved: float | None = None


def quantile_names() -> tuple[str, ...]:
    """Name the levels of a fan: p5, p50, p95."""
    return tuple(f"p{100 * level:.0f}" for level in QUANTILES)
