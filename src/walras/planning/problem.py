"""Own what a plan is made from: population, demand, scenarios and the state at the start, built from a panel.

CONTRACT: `build_problem` draws everything that is random; plan and verification only read the case.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from walras.config import PlanSettings
from walras.data.imputation import complete_panel
from walras.data.panel import Panel, active_agents
from walras.errors import InputError
from walras.exogenous.arrivals import ORDER_LOG_SD
from walras.exogenous.demand.model import DemandModel
from walras.exogenous.paths import ExogenousPaths
from walras.exogenous.scenarios import coming_paths, mixed_path
from walras.maps.history import History
from walras.planning.policy_selection import select_policy
from walras.planning.prices.simulated_view import SimulatedView
from walras.planning.warm_up import REPLAYED_WEEKS, WarmUp, map_history, replay_history, state_after
from walras.policies.base import Policy
from walras.population.from_panel import latest_prices, population_from_panel
from walras.population.population import Population
from walras.progress import Progress
from walras.simulation.record import Record
from walras.simulation.run import week_of, window_length
from walras.simulation.state import State

UNSEEN = 104_729
"""Added to the seed for the paths that the finished plan is verified on; the planner never draws them."""


@dataclass(frozen=True, eq=False)
class PlanningProblem:
    """Hold everything a plan is made from.

    Attributes:
        whole: the panel as read, inactive agents included.
        panel: completed panel of the active agents.
        population, policy, initial: who answers, how, and from what state.
        view: the planner's view by simulation, on the planning scenarios.
        expected: one path of the expected future, longer than the plan, for re-issuing prices.
        unseen: the paths that the plan is verified on.
        demand: the demand model.
        counts, notes: what was kept and dropped, in numbers and in words.
        chosen: which policy it is, and how it did on the last weeks of the history.
        history: what learned maps read at the first planned week; None where they are not asked.
    """

    whole: Panel
    panel: Panel
    population: Population
    policy: Policy
    initial: State
    view: SimulatedView
    expected: ExogenousPaths
    unseen: ExogenousPaths
    demand: DemandModel
    counts: dict[str, int]
    notes: tuple[str, ...]
    chosen: Mapping[str, Any]
    history: History | None = None


def build_problem(panel: Panel, settings: PlanSettings, *, progress: Progress | None = None) -> PlanningProblem:
    """Complete the panel, fit the demand, find the start and draw the scenarios.

    Args:
        panel: as read.
        settings: what to plan.
        progress: told about stages.

    Raises:
        InputError: no product sold in the last `active_weeks`.
    """
    progress = Progress() if progress is None else progress
    active, counts, notes = _active(panel, settings)
    progress.stage("Fitting the demand")
    completed = complete_panel(active, seed=settings.seed)
    _refuse_no_margin(completed)
    demand = DemandModel.fit(completed)
    economics = settings.economics
    population = population_from_panel(
        completed,
        resources=settings.resources,
        annual_holding_rate=economics.holding_rate,
        lost_sale_penalty_share=economics.lost_sale_penalty,
    )
    choice = select_policy(active, completed, population, settings, progress)
    policy = choice.policy
    spread = ORDER_LOG_SD
    past = _replayed((completed, population, policy, demand), settings)
    initial, words = state_after(past, completed, population)
    progress.stage("Drawing scenarios")
    lead = np.asarray(population.lead_time)
    longer = settings.weeks + window_length(policy, initial.max_lead)
    drawn = coming_paths(
        completed, lead, demand, scenarios=settings.scenarios, weeks=longer, seed=settings.seed, log_sd=spread
    )
    unseen = coming_paths(
        completed,
        lead,
        demand,
        scenarios=settings.paths,
        weeks=settings.weeks,
        seed=settings.seed + UNSEEN,
        log_sd=spread,
    )
    expected = mixed_path(drawn, settings.seed)
    scenarios = week_of(drawn, jnp.asarray(0), settings.weeks)
    reserve = float(ndtri(settings.service_level)) if settings.scenarios > 1 else 0.0
    view = SimulatedView(population, scenarios, policy, initial, reserve=reserve, seed=settings.seed)
    notes = (
        *notes,
        choice.words,
        *words,
        *demand.limits,
        f"Lead times vary between orders of a product with a log spread of {spread}.",
    )
    return PlanningProblem(
        panel,
        completed,
        population,
        policy,
        initial,
        view,
        expected,
        unseen,
        demand,
        counts,
        (*panel.notes, *notes),
        choice.facts,
        map_history(completed, population, past, initial, expected, demand)
        if settings.interface == "learned"
        else None,
    )


def _replayed(known: tuple[Panel, Population, Policy, DemandModel], settings: PlanSettings) -> WarmUp:
    """Replay the last weeks; for learned maps all that they read, with traces."""
    common: dict[str, Any] = {"log_sd": ORDER_LOG_SD, "seed": settings.seed}
    if settings.interface == "learned":
        return replay_history(*known, **common, weeks=REPLAYED_WEEKS, record=Record.traces())
    return replay_history(*known, **common)


def _forecast_note(panel: Panel, weeks: int) -> tuple[str, ...]:
    """Say how far the user's own forecast was used."""
    if panel.forecast is None:
        return ()
    given = min(len(panel.forecast), weeks)
    rest = "" if given == weeks else f"; the {weeks - given} weeks after it are the demand model's"
    return (f"The forecast in the table is the expected demand of the first {given} planned weeks{rest}.",)


def _refuse_no_margin(panel: Panel) -> None:
    """Refuse a population of which hardly any product earns money: no price of capacity means anything to it."""
    price, cost = latest_prices(panel)
    if np.median(price - cost) > 0:
        return
    worst = int(np.argmin(price - cost))
    raise InputError(
        f"at least half of the products cost as much as they sell for (`{panel.agents[worst]}`: price "
        f"{price[worst]:g}, unit_cost {cost[worst]:g}); correct the columns price and unit_cost"
    )


def _active(panel: Panel, settings: PlanSettings) -> tuple[Panel, dict[str, int], tuple[str, ...]]:
    """Keep the agents that sold lately; count and name the rest."""
    mask = active_agents(panel, settings.active_weeks)
    if not mask.any():
        raise InputError(
            f"none of the {panel.n_agents} products sold in the last {settings.active_weeks} weeks; "
            "raise `active_weeks` or give a later table"
        )
    dropped = [str(name) for name in panel.agents[~mask]]
    counts = {
        "agents": panel.n_agents,
        "active": int(mask.sum()),
        "inactive": len(dropped),
        "history_weeks": panel.n_weeks,
        "scenarios": settings.scenarios,
        "paths": settings.paths,
    }
    if not dropped:
        return panel, counts, ()
    named = ", ".join(dropped[:5]) + (f" and {len(dropped) - 5} more" if len(dropped) > 5 else "")
    note = (
        f"{len(dropped)} products sold nothing in the last {settings.active_weeks} weeks and are not planned: {named}."
    )
    return panel.take(mask), counts, (note,)
