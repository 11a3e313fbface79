"""Verification of a finished plan on paths that the planner did not see, and its result in numbers and sentences."""

from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from walras.config import CostSettings, PlanSettings
from walras.data.panel import Panel
from walras.evaluation.metrics import ControlTally, control_intervals, control_tally, reward_tally
from walras.exogenous.demand.backtest import backtest, scored_products
from walras.planning.costs import PiecewiseLinearCost
from walras.planning.price_ranges import capacity_response, price_ranges
from walras.planning.prices.mpc import MPCController
from walras.planning.prices.oracle import PathGrid, PathOutcome, committed_use, oracle, path_outcome
from walras.planning.prices.simulated_view import SimulatedView
from walras.planning.problem import PlanningProblem, SimulationProblem
from walras.planning.protocols import Grid
from walras.planning.result import PlanRecord, PlanResult, PriceComparison, fan
from walras.planning.service import ProductOutcomes, Service
from walras.population.population import bucket_edges, bucket_of, mean_demand
from walras.progress import Progress
from walras.simulation.controller import Controller, FixedPrices
from walras.simulation.record import AgentMeans, Record
from walras.simulation.run import Rollout, simulate, window_length

FITS_TO = 0.01  # A week whose mean violation over the paths is at most this fits
MUCH_CHANCE = 0.25  # half of the range from 5 to 95 % of futures, as a share of the median, that prices cannot steer
AT_THE_TOP = 0.98  # A price of at least this share of the highest one tried is at the top


def week_verdicts(
    record: PlanRecord, seen: PathOutcome, committed: PathGrid, max_price: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Say for every week and resource whether it fits on the unseen paths, and if not, why.

    `committed` is utilization on the same paths without orders after the origin. Without capacity, use by earlier
    orders alone is "closed".

    Returns:
        The verdict of each week, which is that of its worst resource, and one per week and resource, weeks outermost.
    """
    least = 1e-9 * max(float(seen.utilization.max(initial=0.0)), 1.0)
    capacity = np.maximum(record.capacity, least)
    over, bound = (np.maximum(use - capacity, 0) / capacity for use in (seen.utilization, committed))

    def verdict(week: int, resource: int) -> str:
        at = np.s_[:, week, resource]
        use, fixed = float(seen.utilization[at].mean()), float(committed[at].mean())
        share = f"{round(100 * (over[at] > FITS_TO).mean())} % of paths"
        if record.capacity[week, resource] <= least:
            return "closed" if use <= fixed + 1e-3 * max(fixed, 1.0) else f"closed, but used on {share}"
        if over[at].mean() <= FITS_TO:
            return "fits"
        if fixed / capacity[week, resource] - 1 > FITS_TO:
            return "already committed"
        if np.maximum(over[at] - bound[at], 0).mean() <= FITS_TO:
            return f"already committed on {share}"
        # Where use fits on average, the price is right for most paths; else no price would do more in time.
        at_the_top = float(seen.shadow_prices[at].mean() / max_price) >= AT_THE_TOP
        excess = use / capacity[week, resource] - 1
        return "over at the highest price" if excess > FITS_TO and at_the_top else f"over on {share}"

    weeks, resources = capacity.shape
    rows = [[verdict(week, resource) for resource in range(resources)] for week in range(weeks)]
    worst = over.mean(0).argmax(-1).tolist()
    return tuple(rows[week][at] for week, at in enumerate(worst)), tuple(text for row in rows for text in row)


def _feasibility_sentence(result: PlanResult) -> str:
    near = result.verified["near_limit_mean_violation"]
    fixed = result.verified_fixed["near_limit_mean_violation"]
    feasible = result.record.feasible
    if near is None or fixed is None:
        if feasible and not result.verified.get("near_limit_share"):
            return "Capacity is never short: utilization without any prices stays well below the plan."
        return "The plan is not feasible: in the weeks that are short there is no capacity to speak of."
    word = "Expected use fits the plan" if feasible else "The plan is not feasible in every week"
    reissued = result.settings.get("plan", {}).get("reissue", True)
    how = f" with prices re-issued weekly ({fixed:.1%} with the planned prices fixed)" if reissued else ""
    kept = result.verified.get("reward_kept")
    rest = "" if kept is None else f", keeping {kept:.1%} of the reward of the best prices with hindsight"
    futures = f"{result.counts.get('paths', 0)} futures it was not made on"
    return f"{word}: on {futures}, weeks near the limit exceed capacity by {near:.1%} on average{how}{rest}."


def _chance_sentence(result: PlanResult) -> str | None:
    """Say where use differs so much between futures that prices, which act on averages, cannot steer it."""
    priced = result.record.shadow_prices > 0
    low, middle, high = (level[priced] for level in result.fixed_utilization)
    if not priced.any() or (spread := float(((high - low) / 2).sum() / max(middle.sum(), 1e-9))) < MUCH_CHANCE:
        return None
    few = f"{result.counts.get('active', 0)} products are few or lumpy"
    return (
        f"Chance matters more than prices: {few}, so that use in weeks with a price ends up to {spread:.0%} above or "
        "below its median; prices steer averages only. Decide on the orders of the largest products one by one."
    )


def _capacity_sentence(result: PlanResult) -> str:
    extra = np.maximum(result.record.capacity - result.regular_capacity, 0)
    weeks = int((extra.sum(1) > 1e-6 * np.maximum(result.regular_capacity.sum(1), 1e-9)).sum())
    if weeks == 0:
        return "No capacity beyond the regular one is worth its cost."
    share = extra.sum() / max(float(result.regular_capacity.sum()), 1e-9)
    spread = "in one week" if weeks == 1 else f"spread over {weeks} weeks"
    text = f"Beyond regular capacity the plan buys {share:.1%} more, {spread}"
    use, capacity = (values[extra > 0].sum() for values in (result.record.utilization, result.record.capacity))
    if not 0 < use < 0.98 * capacity:
        return f"{text}."
    level = result.settings.get("plan", {}).get("service_level")
    why = "" if level is None else f" (`service_level` {level:g})"
    return f"{text}; capacity there is {capacity / use - 1:.0%} above expected use, as room for chance{why}."


def _first_verdict(record: PlanRecord, cost: PiecewiseLinearCost) -> str:
    """Say what is planned before it is verified."""
    bought = np.maximum(record.capacity - cost.regular, 0).sum() / max(float(cost.regular.sum()), 1e-9)
    fits = "expected use fits" if record.feasible else "expected use does not fit in every week"
    top = record.shadow_prices.max(initial=0.0)
    return f"Planned: {bought:.1%} beyond regular capacity, prices up to {top:.3g}, {fits}. Verification follows."


def _price_sentence(result: PlanResult) -> str:
    """Name the highest price that helps, and what more capacity is worth there; never a price as that worth."""
    priced = [known for known in result.price_ranges if known.price is not None and known.worth is not None]
    if not priced:
        if result.record.shadow_prices.max(initial=0.0) <= 0:
            return "No week needs a shadow price."
        return "No price says anything about more capacity: earlier orders fill the weeks, or prices do not settle."
    top = max(priced, key=lambda known: known.price or 0.0)
    day, worth = np.datetime64(top.week).astype("datetime64[D]").item(), (top.worth or {})["+10 %"]
    name = top.resource.replace("_", " ")
    text = f"The price is highest in the week of {day.day} {day:%b %Y}: {top.price:.3g} per unit of {name}"
    if worth <= 0:
        return f"{text}; 10 % more capacity in that week alone brings nothing by simulation."
    unit = f"{top.per_unit:.3g} a unit (the median product earns {result.money['price_scale']:.3g})"
    return f"{text}; 10 % more capacity there is worth {worth:,.3g} by simulation, {unit}."


ORACLE_CELLS = 1_000_000  # most agents x weeks x paths for the oracle: it needs many simulations of each path
LARGEST_GROUPS = 12  # categories shown by name; the rest is added up as "other"


@dataclass(frozen=True, eq=False)
class OutOfSample:
    """Outcomes on the unseen paths: with prices 0, the planned ones fixed, and re-issued weekly (unless that is off).

    Demand and receipts, under re-issued prices, in units; `committed` is utilization without further orders; `without`
    and `planned` are what happened to every product without prices, and under re-issued ones.
    """

    free: PathOutcome
    fixed: PathOutcome
    reissued: PathOutcome
    demand: Float[np.ndarray, "path week"]
    receipts: Float[np.ndarray, "path week"]
    committed: PathGrid
    without: AgentMeans
    planned: AgentMeans


def verify_plan(
    problem: PlanningProblem, record: PlanRecord, settings: PlanSettings, progress: Progress | None = None
) -> OutOfSample:
    """Simulate the unseen paths without prices, with the planned prices, and with prices re-issued every week."""
    parts = problem.population, problem.unseen, problem.policy, problem.initial
    fixed = path_outcome(*parts, record.shadow_prices)
    controller: Controller = FixedPrices(record.shadow_prices)
    if settings.reissue:
        window = window_length(problem.policy, problem.initial.max_lead)
        reserve = problem.view.reserve * problem.view.spread(record.shadow_prices)[:window]
        plan = record.capacity, record.shadow_prices
        controller = MPCController(problem.view, problem.expected, *plan, reserve=reserve, progress=progress)
    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (settings.paths, *leaf.shape)), problem.initial)
    without, rollout = (
        _without_states(simulate(*parts[:3], initial=start, controller=issued, record=Record(means=True)))
        for issued in (FixedPrices(np.zeros_like(record.shadow_prices)), controller)
    )
    flows = np.asarray(rollout.totals.demand), np.asarray(rollout.totals.receipts)
    committed = committed_use(problem.population, problem.unseen, problem.initial)
    assert without.means is not None and rollout.means is not None  # the record asks for them
    means = without.means, rollout.means
    return OutOfSample(_outcome(without), fixed, _outcome(rollout), *flows, committed, *means)


def _without_states(rollout: Rollout) -> Rollout:
    """Drop the states of all agents on all paths after the last week, the largest part of a rollout."""
    return eqx.tree_at(lambda done: done.final, rollout, None)


def _outcome(rollout: Rollout) -> PathOutcome:
    use = np.asarray(rollout.totals.utilization, float)
    charged = np.broadcast_to(np.asarray(rollout.shadow_prices, float), use.shape)
    return PathOutcome(use, np.asarray(rollout.reward, float), charged)


def verified_result(
    problem: PlanningProblem,
    record: PlanRecord,
    cost: PiecewiseLinearCost,
    settings: PlanSettings,
    costs: CostSettings,
    progress: Progress,
) -> PlanResult:
    """Verify a plan on the unseen paths, and collect what a report needs."""
    prices = problem.view.charged(record.shadow_prices)
    record = replace(record, utilization=problem.view.expected(prices), shadow_prices=prices)
    weeks = problem.panel.next_weeks(settings.weeks)
    progress.say(_first_verdict(record, cost))
    progress.stage("Verifying on unseen futures")
    seen = verify_plan(problem, record, settings, progress)
    if settings.bound:
        progress.stage("Comparing with the clairvoyant oracle")
    rewards = _reward_measures(problem, record, seen) if settings.bound else {"reissued": NO_BOUND, "fixed": NO_BOUND}
    progress.stage("Scoring the forecast")
    scored = scored_products(problem.whole)
    forecast = backtest(scored, seed=settings.seed).as_dict()
    worth = _worth_of_capacity(problem, record, cost, seen, progress)
    progress.stage("Adding up")
    facts = _product_facts(problem, seen, weeks)
    tally, fixed_tally = (_control(problem, record, seen, method) for method in (seen.reissued, seen.fixed))
    by_week, by_row = week_verdicts(record, seen.reissued, seen.committed, problem.view.max_price)
    result = PlanResult(
        record=record,
        weeks=weeks,
        resources=problem.population.resources,
        regular_capacity=cost.regular,
        unconstrained=fan(seen.free.utilization),
        verified_utilization=fan(seen.reissued.utilization),
        fixed_utilization=fan(seen.fixed.utilization),
        committed=seen.committed.mean(0),
        reissued_prices=seen.reissued.shadow_prices.mean(0),
        history_weeks=problem.panel.weeks,
        history_demand=problem.panel.units.sum(1, dtype=np.float64),
        demand=fan(seen.demand),
        receipts=fan(seen.receipts),
        **worth,
        **facts,
        money=_money(problem, record, cost, seen, facts["service"]),
        verified={**tally.metrics().as_dict(), **rewards["reissued"]},
        verified_fixed={**fixed_tally.metrics().as_dict(), **rewards["fixed"]},
        intervals=control_intervals(tally, seed=settings.seed),
        forecast_score=forecast,
        week_verdicts=by_week,
        row_verdicts=by_row,
        provenance=problem.panel.provenance,
        notes=problem.notes + _scored_note(scored, problem.whole),
        counts=problem.counts,
        policy=problem.chosen,
        settings={"plan": settings.model_dump(), "costs": costs.model_dump()},
    )
    progress.stage("Writing")
    chance = _chance_sentence(result)
    first = (chance,) if chance is not None else ()
    sentences = *first, _feasibility_sentence(result), _capacity_sentence(result), _price_sentence(result)
    return replace(result, verdict=sentences, seconds={**progress.seconds, "total": sum(progress.seconds.values())})


def _scored_note(scored: Panel, whole: Panel) -> tuple[str, ...]:
    """Say that the forecast is scored on a sample, whose total is harder to forecast than that of all."""
    if scored.n_agents == whole.n_agents:
        return ()
    sample = f"{scored.n_agents:,} of {whole.n_agents:,} products, evenly spread from the least to the most sold"
    return (f"The score of the forecast is of {sample}.",)


def _control(problem: PlanningProblem, record: PlanRecord, seen: OutOfSample, method: PathOutcome) -> ControlTally:
    plan = seen.free.utilization, record.capacity, seen.committed
    return control_tally(method.utilization, *plan, method.shadow_prices, price_scale=problem.view.price_scale)


def _worth_of_capacity(
    problem: PlanningProblem, record: PlanRecord, cost: PiecewiseLinearCost, seen: OutOfSample, progress: Progress
) -> dict[str, Any]:
    """Return the simulated response to other capacities, and what it says about prices."""
    progress.stage("Valuing more capacity")
    response = capacity_response(problem.view, record, cost, problem.panel.next_weeks(len(record.capacity)))
    ranges = price_ranges(response, record, cost, seen.committed.mean(0), problem.view.max_price)
    return {"response": response, "price_ranges": ranges}


def _product_facts(problem: PlanningProblem, seen: OutOfSample, weeks: np.ndarray) -> dict[str, Any]:
    """Return service, groups, the table of products, and who gives way in which week."""
    demand, prices = np.asarray(problem.unseen.demand).mean(0), seen.reissued.shadow_prices.mean(0)
    names = problem.panel.agents
    outcomes = ProductOutcomes(names, problem.population, demand, seen.without, seen.planned, prices)
    grouped = groupings(problem.panel)
    return {
        "service": outcomes.service(),
        "products": outcomes.table(problem.panel.category),
        "gave_way": outcomes.gave_way(weeks, *grouped[-1][1:]),
        "groups": tuple(outcomes.group(*parts) for parts in grouped),
    }


NO_BOUND = dict.fromkeys(("reward_kept", "regret_ratio", "pooled_regret_ratio", "oracle_paths"))


def _reward_measures(
    problem: PlanningProblem, record: PlanRecord, seen: OutOfSample
) -> dict[str, dict[str, float | int | None]]:
    """Compare with the oracle at equal violation, on as many unseen paths as `ORACLE_CELLS` allows."""
    cells = problem.population.n_agents * problem.unseen.n_weeks
    count = int(np.clip(ORACLE_CELLS // cells, 1, problem.unseen.n_scenarios or 1))
    few = problem.unseen.map_scenarios(lambda leaf: leaf[:count])
    view = SimulatedView(problem.population, few, problem.policy, problem.initial)
    rewards: dict[str, dict[str, float | int | None]] = {}
    for name, method in (("reissued", seen.reissued), ("fixed", seen.fixed)):
        limit = np.maximum(record.capacity[None], method.utilization[:count])
        best = oracle(view, limit, start=method.shadow_prices[:count])
        # The method's own outcome is within its own limit, so the best known reward is never below it.
        most = np.maximum(best.reward, method.reward[:count])
        tally = reward_tally(method.reward[:count], most, seen.free.reward[:count])
        measures: dict[str, Any] = tally.metrics().as_dict()
        rewards[name] = {key: measures[key] for key in ("reward_kept", "regret_ratio", "pooled_regret_ratio")}
        rewards[name]["oracle_paths"] = count
    return rewards


def _money(
    problem: PlanningProblem, record: PlanRecord, cost: PiecewiseLinearCost, seen: OutOfSample, service: Service
) -> dict[str, float]:
    lost = service.total("margin_planned") - service.total("margin_without")
    acquisition, reward = cost.bill(record.capacity), float(seen.reissued.reward.mean())
    charged = seen.reissued.shadow_prices * seen.reissued.utilization
    return {
        "reward_unconstrained": float(seen.free.reward.mean()),
        "reward_plan": reward,
        "reward_fixed_prices": float(seen.fixed.reward.mean()),
        "acquisition_cost": acquisition,
        "total_cost": acquisition - reward,
        "price_payments": float(charged.sum((1, 2)).mean()),
        "price_scale": problem.view.price_scale,
        "margin_lost": lost,
        "plan_cost": acquisition + lost,
    }


def groupings(panel: Panel) -> list[tuple[str, np.ndarray, tuple[str, ...]]]:
    """Return title, group of each product and labels of tenths by demand, and of categories where there are any."""
    volume = mean_demand(panel)
    buckets = bucket_of(volume, bucket_edges(volume))
    found = [("demand bucket", buckets, tuple(f"{10 * b}-{10 * (b + 1)} %" for b in range(10)))]
    if panel.category is not None and len(np.unique(panel.category)) > 1:
        labels, code, count = np.unique(panel.category.astype(str), return_inverse=True, return_counts=True)
        order = np.argsort(-count, kind="stable")  # the largest first, small ones together
        group = np.minimum(np.argsort(order)[code], LARGEST_GROUPS)
        names = tuple(str(labels[i]) for i in order[:LARGEST_GROUPS])
        names += ("other",) if len(labels) > LARGEST_GROUPS else ()
        found.append(("category", group, names))
    return found


FLOWS = ("demand", "sales", "lost_sales", "receipts", "orders", "stock_end")
"""Totals compared per week, as means over the futures [units]."""


def compare_prices(problem: SimulationProblem, shadow_prices: Grid) -> PriceComparison:
    """Simulate the unseen futures with these prices, announced in full at the start [money/unit], and without."""
    parts = (problem.population, problem.unseen, problem.policy)
    charged = jnp.asarray(shadow_prices, jnp.float32)
    priced = simulate(*parts, initial=problem.initial, shadow_prices=charged)
    free = simulate(*parts, initial=problem.initial)
    use = np.asarray(priced.totals.utilization, float)
    return PriceComparison(
        weeks=problem.panel.next_weeks(len(shadow_prices)),
        resources=problem.population.resources,
        shadow_prices=shadow_prices,
        utilization=fan(use),
        unconstrained=fan(np.asarray(free.totals.utilization, float)),
        flows={name: np.asarray(getattr(priced.totals, name), float).mean(0) for name in FLOWS},
        reward=float(np.mean(priced.reward)),
        free_reward=float(np.mean(free.reward)),
        payments=float((use * shadow_prices).sum((1, 2)).mean()),
        counts=problem.counts,
        provenance=dict(problem.panel.provenance),
        notes=problem.notes,
    )
