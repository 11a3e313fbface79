"""What a plan is made from: population, demand, start and scenarios, built from a panel.

Everything random is drawn here; the planner and the verification only read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
from walras.planning.prices.simulated_view import SimulatedView
from walras.planning.warm_up import REPLAYED_WEEKS, WarmUp, map_history, replay_history, state_after
from walras.policies.base import Policy
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.buyer import Buyer
from walras.population.population import Population, latest_prices, population_from_panel
from walras.progress import Progress
from walras.simulation.record import Record
from walras.simulation.run import week_of, window_length
from walras.simulation.week import State

UNSEEN = 104_729
"""Added to the seed for the paths that the finished plan is verified on; the planner never draws them."""


@dataclass(frozen=True)
class PolicyChoice:
    """The policy that agents are expected to follow, and why.

    Attributes:
        policy: a trained buyer gets the agents' profile when the problem is built.
        words: one sentence for the report.
        facts: `name`; where policies were compared also `reward_ratio` with `low` and `high`, `against`, `products`.
    """

    policy: Policy
    words: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def priced_newsvendor(settings: PlanSettings, words: str = "") -> PolicyChoice:
    """Return the choice of the closed form, the default."""
    words = words or "Agents are taken to follow the priced newsvendor."
    return PolicyChoice(PricedNewsvendor(discount=settings.economics.discount), words, {"name": "newsvendor"})


@dataclass(frozen=True, eq=False)
class SimulationProblem:
    """A population at the first planned week, and futures to simulate it on.

    Attributes:
        whole: the panel as read, inactive agents included.
        panel: completed panel of the active agents.
        population, policy, initial: who answers, how, and from what state.
        unseen: futures that no plan is made on.
        demand: the demand model.
        counts, notes: what was kept, dropped and estimated, in numbers and in words.
        chosen: `PolicyChoice.facts`.
    """

    whole: Panel
    panel: Panel
    population: Population
    policy: Policy
    initial: State
    unseen: ExogenousPaths
    demand: DemandModel
    counts: dict[str, int]
    notes: tuple[str, ...]
    chosen: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class PlanningProblem(SimulationProblem):
    """What a plan is made from; `unseen` verifies it.

    Attributes:
        view: the planner's view by simulation, on the planning scenarios.
        expected: one path of the expected future, longer than the plan, for re-issuing prices.
        history: what learned maps read at the first planned week; None where `interface` is not learned.
    """

    view: SimulatedView
    expected: ExogenousPaths
    history: History | None = None


def build_simulation(
    panel: Panel, settings: PlanSettings, choice: PolicyChoice | None = None, *, progress: Progress | None = None
) -> SimulationProblem:
    """Complete the panel, fit the demand, find the start and draw futures.

    Args:
        panel, settings: as read; what is simulated.
        choice: of the policy (`policy_selection.select_policy`); the priced newsvendor unless given.
        progress: notified of stages.

    Raises:
        InputError: no product sold in the last `active_weeks`, or hardly any has a margin.
    """
    return _at_origin(panel, settings, choice, progress or Progress())[0]


def build_problem(
    panel: Panel, settings: PlanSettings, choice: PolicyChoice | None = None, *, progress: Progress | None = None
) -> PlanningProblem:
    """Build a simulation problem with planning scenarios, a view on them and, for learned maps, the history.

    Args, Raises: see `build_simulation`.
    """
    origin, past = _at_origin(panel, settings, choice, progress or Progress())
    population, policy, initial, demand = origin.population, origin.policy, origin.initial, origin.demand
    longer = settings.weeks + window_length(policy, initial.max_lead)
    drawn = _futures(origin.panel, population, demand, settings.scenarios, longer, settings.seed)
    expected = mixed_path(drawn, settings.seed)
    reserve = float(ndtri(settings.service_level)) if settings.scenarios > 1 else 0.0
    scenarios = week_of(drawn, jnp.asarray(0), settings.weeks)
    view = SimulatedView(population, scenarios, policy, initial, reserve=reserve, seed=settings.seed)
    history = None
    if settings.interface == "learned":
        history = map_history(origin.panel, population, past, initial, expected, demand)
    return PlanningProblem(**vars(origin), view=view, expected=expected, history=history)


def _at_origin(
    panel: Panel, settings: PlanSettings, choice: PolicyChoice | None, progress: Progress
) -> tuple[SimulationProblem, WarmUp]:
    active, counts, dropped = active_panel(panel, settings)
    choice = choice or priced_newsvendor(settings)
    progress.stage("Fitting the demand")
    completed = complete_panel(active, seed=settings.seed)
    _require_margin(completed)
    demand = DemandModel.fit(completed)
    population = population_from_panel(
        completed,
        resources=settings.resources,
        annual_holding_rate=settings.economics.holding_rate,
        lost_sale_penalty_share=settings.economics.lost_sale_penalty,
    )
    policy = choice.policy
    if isinstance(policy, Buyer):
        policy = policy.with_history(np.asarray(completed.units), np.asarray(population.lead_time))
    replay: dict[str, Any] = {"log_sd": ORDER_LOG_SD, "seed": settings.seed}
    if settings.interface == "learned":  # maps read more weeks, with traces
        replay |= {"weeks": REPLAYED_WEEKS, "record": Record.traces()}
    past = replay_history(completed, population, policy, demand, **replay)
    initial, start_words = state_after(past, completed, population)
    progress.stage("Drawing scenarios")
    unseen = _futures(completed, population, demand, settings.paths, settings.weeks, settings.seed + UNSEEN)
    notes = (
        *panel.notes,
        *dropped,
        choice.words,
        *start_words,
        *demand.limits,
        *_forecast_note(completed, settings.weeks),
        f"Lead times vary between orders of a product with a log spread of {ORDER_LOG_SD}.",
    )
    origin = SimulationProblem(
        whole=panel,
        panel=completed,
        population=population,
        policy=policy,
        initial=initial,
        unseen=unseen,
        demand=demand,
        counts=counts,
        notes=notes,
        chosen=choice.facts,
    )
    return origin, past


def _futures(
    panel: Panel, population: Population, demand: DemandModel, scenarios: int, weeks: int, seed: int
) -> ExogenousPaths:
    lead = np.asarray(population.lead_time)
    return coming_paths(panel, lead, demand, scenarios=scenarios, weeks=weeks, seed=seed, log_sd=ORDER_LOG_SD)


def active_panel(panel: Panel, settings: PlanSettings) -> tuple[Panel, dict[str, int], tuple[str, ...]]:
    """Keep the agents that sold in the last `active_weeks`; return counts, and a note that names the rest."""
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


def _forecast_note(panel: Panel, weeks: int) -> tuple[str, ...]:
    """Say for how many planned weeks, and of how many products, the table's own forecast was used."""
    if panel.forecast is None:
        return ()
    given = np.isfinite(np.asarray(panel.forecast)[:weeks])
    used, products = int(given.any(1).sum()), int(given.any(0).sum())
    of = "" if products == panel.n_agents else f" of {products} of {panel.n_agents} products"
    rest = "" if given.all() and used == weeks else "; the demand model forecasts the rest"
    return (f"The forecast in the table is the expected demand{of} in {used} of {weeks} planned weeks{rest}.",)


def _require_margin(panel: Panel) -> None:
    """Refuse a population whose median margin is not positive: no price of capacity means anything to it."""
    price, cost = latest_prices(panel)
    if np.median(price - cost) > 0:
        return
    worst = int(np.argmin(price - cost))
    raise InputError(
        f"at least half of the products cost as much as they sell for (`{panel.agents[worst]}`: price "
        f"{price[worst]:g}, unit_cost {cost[worst]:g}); correct the columns price and unit_cost"
    )
