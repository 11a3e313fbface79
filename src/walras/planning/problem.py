"""What a plan is made from: population, demand, start and scenarios, drawn here from a panel and only read later."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool
from scipy.special import ndtri

from walras.config import PlanSettings
from walras.data.imputation import complete_panel
from walras.data.panel import Panel, active_agents
from walras.data.plausible import lacks_margin
from walras.errors import InputError
from walras.exogenous.arrivals import ORDER_LOG_SD, longest_run, next_open
from walras.exogenous.calendar import holiday_distance
from walras.exogenous.demand.model import DemandModel
from walras.exogenous.paths import ExogenousPaths
from walras.exogenous.scenarios import Demand, coming_paths, mixed_path, past_paths, pipeline_length
from walras.maps.features import HORIZON, LOOK_BACK, AgentHistory, KnownFuture, stock_use
from walras.maps.history import History
from walras.planning.prices.simulated_view import COPIED_AGENTS, SimulatedView
from walras.policies.base import Policy
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.buyer import Buyer
from walras.population.population import Population, population_from_panel
from walras.progress import Progress
from walras.simulation.record import Record
from walras.simulation.run import Rollout, simulate, week_of, window_length
from walras.simulation.week import State, empty_state

UNSEEN = 104_729  # added to the seed for the paths that the finished plan is verified on; the planner never draws them


def choose_policy(settings: PlanSettings) -> tuple[Policy, str, dict[str, str]]:
    """Return the policy that the products follow, a sentence, and `name` with, for a trained buyer, its `file`.

    Raises:
        InputError: no such file, or one that holds no buyer.
    """
    file = settings.buyer or (None if settings.policy in ("newsvendor", "buyer") else settings.policy)
    if file is None and settings.policy == "newsvendor":
        policy = PricedNewsvendor(discount=settings.economics.discount)
        return policy, "Products are taken to follow the priced newsvendor.", {"name": "newsvendor"}
    if file is not None and not Path(file).exists():
        raise InputError(f"`policy` is {file}, but there is no such file; give newsvendor, buyer, or a buyer's file")
    from walras.train.buyer_training import load_buyer

    words = "Products are taken to follow the trained buyer" + (f" in {file}." if file else ".")
    return load_buyer(file).buyer, words, {"name": "buyer"} | ({"file": str(file)} if file else {})


WARM_UP_WEEKS = 30  # weeks of history replayed to find a plausible state; several times the longest lead time
REPLAYED_WEEKS = LOOK_BACK + WARM_UP_WEEKS  # for maps: all weeks that they read, after those that fill empty shelves


@dataclass(frozen=True, eq=False)
class WarmUp:
    """The last weeks of the history, replayed with the policy from the state `initial`; one path."""

    exogenous: ExogenousPaths
    initial: State
    rollout: Rollout


@dataclass(frozen=True, eq=False)
class SimulationProblem:
    """A population at the first planned week, and futures to simulate it on.

    Attributes:
        whole: the panel as read, inactive agents included; `panel` is the completed one of the active agents, with the
            last week's price and unit cost in all weeks.
        unseen: futures that no plan is made on.
        counts, notes: what was kept, dropped and estimated, in numbers and in words.
        chosen: name of the policy, and the file of a trained one.
    """

    whole: Panel
    panel: Panel
    population: Population
    policy: Policy
    initial: State
    unseen: ExogenousPaths
    counts: dict[str, int]
    notes: tuple[str, ...]
    chosen: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class PlanningProblem(SimulationProblem):
    """What a plan is made from; `unseen` verifies it.

    Attributes:
        view: by simulation, on the planning scenarios.
        expected: one path of the expected future, longer than the plan, for re-issuing prices; copies of few agents.
        history: what learned maps read at the first planned week; None where `interface` is not learned.
    """

    view: SimulatedView
    expected: ExogenousPaths
    history: History | None = None


def build_simulation(panel: Panel, settings: PlanSettings, *, progress: Progress | None = None) -> SimulationProblem:
    """Complete the panel, fit the demand, find the start and draw futures.

    Raises:
        InputError: no product sold in the last `active_weeks`, or hardly any has a margin.
    """
    return _at_origin(panel, settings, progress or Progress())[0]


def build_problem(
    panel: Panel,
    settings: PlanSettings,
    *,
    closed: Bool[np.ndarray, " week"] | None = None,
    progress: Progress | None = None,
) -> PlanningProblem:
    """Build a simulation problem with planning scenarios, a view on them and, for learned maps, the history.

    Orders that would arrive in `closed` weeks arrive in the next open one.
    """
    origin, past, demand = _at_origin(panel, settings, progress or Progress(), closed)
    population, policy, initial = origin.population, origin.policy, origin.initial
    longer = settings.weeks + window_length(policy, initial.max_lead)
    drawn = _futures(origin.panel, population, demand, settings.scenarios, longer, settings.seed, closed)
    copies = int(np.clip(COPIED_AGENTS // population.n_agents, 1, settings.scenarios))
    expected = mixed_path(drawn, settings.seed, copies)
    reserve = float(ndtri(settings.service_level)) if settings.scenarios > 1 else 0.0
    learned = settings.interface == "learned"
    parts = origin.panel, population, past, initial
    history = map_history(*parts, mixed_path(drawn, settings.seed), demand) if learned else None
    scenarios = week_of(drawn, jnp.asarray(0), settings.weeks)
    del drawn, demand, past  # of a large population, memory is needed for the simulations
    weeks = None if closed is None else np.minimum(next_open(closed, settings.weeks), settings.weeks - 1)
    kept: dict[str, Any] = {"reserve": reserve, "seed": settings.seed, "price_week": weeks}
    view = SimulatedView(population, scenarios, policy, initial, **kept)
    return PlanningProblem(**vars(origin), view=view, expected=expected, history=history)


def _at_origin(
    panel: Panel, settings: PlanSettings, progress: Progress, closed: Bool[np.ndarray, " week"] | None = None
) -> tuple[SimulationProblem, WarmUp, DemandModel]:
    policy, policy_words, chosen = choose_policy(settings)
    active: Panel | None
    active, counts, dropped = active_panel(panel, settings)
    progress.stage("Fitting the demand")
    completed = complete_panel(active, seed=settings.seed)
    if wrong := lacks_margin(completed):
        raise InputError(wrong)
    demand = DemandModel.fit(completed)
    economics = settings.economics
    rates = {"annual_holding_rate": economics.holding_rate, "lost_sale_penalty_share": economics.lost_sale_penalty}
    population = population_from_panel(completed, resources=settings.resources, **rates)
    price, cost = _latest_only(np.asarray(completed.price)), _latest_only(np.asarray(completed.unit_cost))
    completed, active = replace(completed, price=price, unit_cost=cost), None
    if isinstance(policy, Buyer):
        policy = policy.with_history(np.asarray(completed.units), np.asarray(population.lead_time))
    replay: dict[str, Any] = {"log_sd": ORDER_LOG_SD, "seed": settings.seed}
    if settings.interface == "learned":  # maps read more weeks, with traces
        replay |= {"weeks": REPLAYED_WEEKS, "record": Record.traces()}
    past = replay_history(completed, population, policy, demand, **replay)
    initial, start_words = state_after(past, completed, population)
    if closed is not None and closed.any():  # room for orders that wait
        wait = jnp.zeros((longest_run(closed), completed.n_agents), jnp.float32)
        initial = State(initial.stock_end, jnp.concatenate([initial.pipeline, wait]), initial.memory)
    progress.stage("Drawing scenarios")
    unseen = _futures(completed, population, demand, settings.paths, settings.weeks, settings.seed + UNSEEN, closed)
    more = *demand.limits, *_forecast_note(completed, settings.weeks)
    notes = *panel.notes, *dropped, policy_words, *start_words, *more
    parts = population, policy, initial, unseen
    completed = replace(completed, provenance={**completed.provenance, **_assumed_start(panel)})
    return SimulationProblem(panel, completed, *parts, counts, notes, chosen), past, demand


def _latest_only(values: np.ndarray) -> np.ndarray:
    """Return the last week in place of all weeks, without their memory: nothing reads earlier prices and costs."""
    return np.broadcast_to(values[-1].copy(), values.shape)


def _assumed_start(panel: Panel) -> dict[str, str]:
    """Name what the start assumes because the table does not have it, as in a panel's provenance."""
    replayed = "assumed: those of the policy replayed over the last weeks"
    missing = [name for name in ("on_hand", "orders") if getattr(panel, name) is None]
    spread = f"assumed: lead times vary between orders with a log spread of {ORDER_LOG_SD}"
    return dict.fromkeys(missing, replayed) | {"lead_time_spread": spread}


def _futures(
    panel: Panel,
    population: Population,
    demand: DemandModel,
    scenarios: int,
    weeks: int,
    seed: int,
    closed: Bool[np.ndarray, " week"] | None,
) -> ExogenousPaths:
    drawn: dict[str, Any] = {"scenarios": scenarios, "weeks": weeks, "seed": seed, "closed": closed}
    return coming_paths(panel, np.asarray(population.lead_time), demand, log_sd=ORDER_LOG_SD, **drawn)


def active_panel(panel: Panel, settings: PlanSettings) -> tuple[Panel, dict[str, int], tuple[str, ...]]:
    """Keep the agents that sold in the last `active_weeks`; return counts, and a note that names the rest."""
    mask = active_agents(panel, settings.active_weeks)
    if not mask.any():
        none = f"none of the {panel.n_agents} products sold in the last {settings.active_weeks} weeks"
        raise InputError(f"{none}; raise `active_weeks` or give a later table")
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
    note = f"{len(dropped)} products sold nothing in the last {settings.active_weeks} weeks and are not planned"
    return panel.take(mask), counts, (f"{note}: {named}.",)


def _forecast_note(panel: Panel, weeks: int) -> tuple[str, ...]:
    """Say for how many planned weeks, and of how many products, the table's own forecast was used."""
    if panel.forecast is None:
        return ()
    given = np.isfinite(np.asarray(panel.forecast)[:weeks])
    used, products = int(given.any(1).sum()), int(given.any(0).sum())
    of = "" if products == panel.n_agents else f" of {products} of {panel.n_agents} products"
    rest = "" if given.all() and used == weeks else "; the demand model forecasts the rest"
    return (f"The forecast in the table is the expected demand{of} in {used} of {weeks} planned weeks{rest}.",)


def replay_history(
    panel: Panel,
    population: Population,
    policy: Policy,
    demand: Demand,
    *,
    log_sd: float,
    seed: int,
    weeks: int = WARM_UP_WEEKS,
    record: Record | None = None,
) -> WarmUp:
    """Simulate the policy over the last `weeks` of the completed panel, without prices and from empty shelves.

    `log_sd` is the spread of the log lead time between orders; by default only totals are recorded.
    """
    lead = np.asarray(population.lead_time)
    weeks = min(weeks, panel.n_weeks)
    paths = past_paths(panel, lead, demand, weeks=weeks, seed=seed + 1, log_sd=log_sd)
    empty = empty_state(population.n_agents, pipeline_length(lead, log_sd), paths.lead_demand_mean[0])
    return WarmUp(paths, empty, simulate(population, paths, policy, initial=empty, record=record or Record.totals()))


def state_after(past: WarmUp, panel: Panel, population: Population) -> tuple[State, tuple[str, ...]]:
    """Return the state after a replay, with recorded stock and open orders where there are any, and notes."""
    replayed = past.rollout.final
    stock = np.asarray(replayed.stock_end)
    stock_words = "The table has no stock on hand: the policy was replayed over the last weeks of demand instead."
    if panel.on_hand is not None:
        last = np.asarray(panel.on_hand)[-1]
        known = np.isfinite(last)
        stock = np.where(known, last, stock).astype(np.float32)
        stock_words = f"Stock on hand at the start is as recorded for {_share_recorded(known)}"
    pipeline, order_words = _open_orders(panel, np.asarray(population.lead_time), np.asarray(replayed.pipeline))
    return State(jnp.asarray(stock), jnp.asarray(pipeline), replayed.memory), (stock_words, order_words)


def _share_recorded(known: np.ndarray) -> str:
    return f"{int(known.sum())} of {len(known)} products" + ("." if known.all() else ", replayed for the rest.")


def _open_orders(panel: Panel, lead: np.ndarray, replayed: np.ndarray) -> tuple[np.ndarray, str]:
    """Put recorded orders that are not yet due into the week in which they are."""
    if panel.orders is None:
        return replayed, "The table has no replenishment orders: open orders are those of the replayed policy."
    orders = np.asarray(panel.orders)
    pipeline = np.zeros_like(replayed)
    recorded = np.isfinite(orders).any(0)
    for age in range(min(len(orders), int(lead.max(initial=0)))):
        due = lead - age - 1  # weeks beyond the first coming one
        placed = np.nan_to_num(orders[-1 - age])
        rows = np.flatnonzero((due >= 0) & (placed > 0))
        pipeline[due[rows], rows] += placed[rows]
    words = f"Open orders are as recorded for {_share_recorded(recorded)}"
    return np.where(recorded[None], pipeline, replayed), words


def map_history(
    panel: Panel, population: Population, past: WarmUp, initial: State, coming: ExogenousPaths, demand: Demand
) -> History:
    """Return what maps read: the replay, with traces, the first coming week before its orders, and what is known then.

    Of the coming weeks, prices, costs and forecasts of the first are read.
    """
    traces = past.rollout.agents
    if traces is None:
        raise InputError("the replay kept no traces but maps read them; replay with Record.traces()")
    weeks = past.exogenous.n_weeks
    # A product was for sale in the planned weeks, or it would not be planned.
    valid = jnp.asarray(panel.on_sale[-weeks:], jnp.float32)
    before = AgentHistory.from_traces(past.exogenous, traces, past.initial, valid)
    on_sale = jnp.ones_like(initial.pipeline[0])
    now = AgentHistory.of_week(coming, initial, 0, traces.demand[-1], traces.orders[-1], on_sale)
    ledger: AgentHistory = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), before, now)
    per_unit = np.asarray(population.weight)[:, None] * np.asarray(population.use)
    due = (np.asarray(initial.pipeline) @ per_unit)[: HORIZON + 1]
    committed = np.zeros((HORIZON + 1, due.shape[1]))  # by open orders; none beyond the longest lead time
    committed[: len(due)] = due
    known = KnownFuture(
        expected=jnp.asarray(demand.mean(HORIZON + 1) @ per_unit, jnp.float32),
        committed=jnp.asarray(committed, jnp.float32),
        stock=stock_use(population, ledger)[-1],
        holidays=jnp.asarray(holiday_distance(panel.next_weeks(1)[0], HORIZON + 1)[1:]),
    )
    return History(ledger, known, initial.pipeline)
