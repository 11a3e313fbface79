"""Compute the numbers that golden tests hold: one function per case, each a mapping of numbers, words and digests.

CONTRACT: inputs are tiny and fixed. Leaves of networks are listed by their content, never by class or attribute names.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from small_episodes import FewEpisodes, tiny
from small_stretches import Shy

from lab.capacity_benchmark import QUICK, CapacityBenchmark
from lab.eval_cohorts import resample_world
from lab.shift_cases import ShiftCases, ShiftSizes
from lab.stationary_episodes import DemandLaw, StationaryEpisodes
from lab.textbook import lost_sales, simulate_store
from walras.cli.app import build_app, main
from walras.config import CostSettings, HistorySettings, PlanSettings
from walras.data.imputation import complete_panel, gross_margins, keyed_normal, keyed_uniform, lead_times, vendor_labels
from walras.domains.fulfilment.instance import generate_instance
from walras.domains.fulfilment.optimise import learn_prices
from walras.domains.fulfilment.policies import make_policy
from walras.domains.fulfilment.process import fulfil
from walras.evaluation.inference import mean_interval
from walras.exogenous.arrivals import ArrivalShares, IntegerLeadTimes, SupplyLimit, draw_lead_times
from walras.exogenous.capacity import HaarCapacity, HaarPrices, PulsePrices
from walras.exogenous.demand.model import DemandModel
from walras.exogenous.paths import ExogenousPaths
from walras.exogenous.scenarios import coming_paths, mixed_path
from walras.maps.interface import Interface
from walras.maps.network import MapNetwork
from walras.maps.probes import draw_probes
from walras.maps.representations import MapShape
from walras.maps.support import policy_hash
from walras.parallel.picard import Picard
from walras.parallel.strategies import FixedWindows, RandomAssignment, SlidingWindow
from walras.planning.costs import PreviousPlan
from walras.planning.plan import acquisition_cost
from walras.planning.prices.simulated_view import SimulatedView
from walras.planning.problem import PlanningProblem, build_problem
from walras.planning.result import PlanRecord, Search
from walras.planning.search import encode_population, load_maps, plan_by_maps, plan_by_simulation, sample_cohort
from walras.policies.base_stock import OrderUpTo, PricedBaseStock, PricedNewsvendor
from walras.policies.buyer import BuyerNetwork, BuyerShape
from walras.population.cohort import ProportionalSample, StratifiedSample, UniformSample, demand_size
from walras.population.generate import generate_panel
from walras.population.population import Population
from walras.progress import Progress
from walras.simulation.record import Record
from walras.simulation.run import simulate
from walras.simulation.week import State
from walras.train.agent_pool import AgentPool, pools_from_generator
from walras.train.buyer_episodes import HistoryEpisodes
from walras.train.buyer_training import BuyerTask
from walras.train.dual_task import DualTask
from walras.train.history import train_test_split
from walras.train.map_task import MapEpisodes
from walras.train.policy_comparison import price_path
from walras.train.policy_families import (
    BestBaseStock,
    CappedBaseStockFamily,
    ConstantOrderFamily,
    ForecastBaseStockFamily,
    Newsvendor,
    SsPolicy,
    TunedNewsvendor,
)
from walras.train.policy_value import Objective, TuningProblem
from walras.train.primal_task import PrimalTask
from walras.train.settings import BuyerTraining, MapTraining
from walras.train.shocks import mixed_prices, typical_prices

Values = dict[str, Any]
CASES: dict[str, Callable[[], Values]] = {}


def case(name: str) -> Callable[[Callable[[], Values]], Callable[[], Values]]:
    """Register a function under the name that its values are stored under."""

    def register(function: Callable[[], Values]) -> Callable[[], Values]:
        CASES[name] = function
        return function

    return register


# --- summaries --------------------------------------------------------------------------------------------------------


def listed(values: Any) -> list:
    """Return all numbers of an array, as nested lists."""
    return np.asarray(values).tolist()


def summary(values: Any) -> Values:
    """Sum an array up: shape, norm, sum of sizes, a sum whose weights tell places apart, and the first numbers."""
    given = np.asarray(values)
    flat = given.astype(float).ravel()
    weights = 1.0 + np.modf(np.arange(flat.size) * 0.6180339887498949)[0]
    return {
        "shape": list(given.shape),
        "norm": float(np.sqrt((flat**2).sum())),
        "sums": [float(np.abs(flat).sum()), float((weights * flat).sum())],
        "first": flat[:4].tolist(),
    }


def sha(values: Any) -> str:
    """Digest whole numbers or text exactly."""
    given = np.asarray(values)
    plain = str(given.tolist()) if given.dtype.kind in "US" else str(given.astype(np.int64).tolist())
    return hashlib.sha256(f"{given.shape} {plain}".encode()).hexdigest()[:16]


def bits(tree: Any) -> str:
    """Digest the bytes of all arrays of a tree, for comparisons within one process."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def norms(tree: Any) -> list[list[float]]:
    """Return size, norm and mean of all arrays of floats, sorted: no order of fields matters."""
    leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return sorted([float(leaf.size), float(np.sqrt((leaf**2).sum())), float(np.abs(leaf).sum())] for leaf in leaves)


# --- the simulator ----------------------------------------------------------------------------------------------------

AGENTS, WEEKS, MAX_LEAD = 20, 12, 3
TOTALS = ("reward", "demand", "sales", "lost_sales", "receipts", "orders", "refused", "stock_end")


def spread(count: int, low: float, high: float, step: int, *shape: int) -> np.ndarray:
    """Fill a shape with `count` levels between low and high, in an order that looks drawn but is counted off."""
    places = np.arange(int(np.prod(shape))).reshape(shape)
    return low + (high - low) * ((places * places * step + 7 * places) % count) / (count - 1)


def population(resources: tuple[str, ...], agents: int = AGENTS) -> Population:
    """Make agents of different lead times, margins and use."""
    return Population(
        holding_cost=jnp.asarray(spread(11, 0.05, 0.3, 3, agents), jnp.float32),
        lost_sale_penalty=jnp.asarray(spread(7, 0.5, 2.0, 5, agents), jnp.float32),
        lead_time=jnp.asarray(spread(3, 1, 3, 1, agents), jnp.int32),
        demand_scale=jnp.asarray(spread(13, 4.0, 12.0, 3, agents), jnp.float32),
        unit_margin=jnp.asarray(spread(9, 2.0, 8.0, 2, agents), jnp.float32),
        use=jnp.asarray(spread(17, 0.5, 2.0, 3, agents, len(resources)), jnp.float32),
        weight=jnp.asarray(spread(5, 1.0, 1.4, 2, agents), jnp.float32),
        resources=resources,
    )


def paths(shares: bool, agents: int = AGENTS) -> ExogenousPaths:
    """Make whole demand, moving prices and costs, and arrivals of either kind."""
    full = (WEEKS, agents)
    whole = np.asarray(spread(3, 1, 3, 5, *full), np.int8)
    marks = np.stack(
        [np.zeros(full), spread(5, 0, 0.5, 3, *full), spread(5, 0.5, 1.0, 2, *full), np.ones(full)], axis=1
    )
    return ExogenousPaths(
        demand=jnp.asarray(np.floor(spread(19, 0, 18, 3, *full)), jnp.float32),
        sale_price=jnp.asarray(spread(7, 11.0, 13.0, 3, *full), jnp.float32),
        unit_cost=jnp.asarray(spread(5, 4.0, 5.0, 2, *full), jnp.float32),
        arrivals=ArrivalShares(jnp.asarray(np.diff(marks, axis=1), jnp.float32))
        if shares
        else IntegerLeadTimes(jnp.asarray(whole)),
        lead_demand_mean=jnp.asarray(spread(11, 15.0, 40.0, 4, *full), jnp.float32),
        lead_demand_sd=jnp.asarray(spread(7, 4.0, 12.0, 2, *full), jnp.float32),
        supply=SupplyLimit(jnp.asarray(spread(5, 6.0, 40.0, 3, *full), jnp.float32)) if shares else None,
    )


def start(agents: int = AGENTS) -> State:
    """Make stock and open orders."""
    return State(
        stock_end=jnp.asarray(spread(9, 0.0, 16.0, 2, agents), jnp.float32),
        pipeline=jnp.asarray(spread(7, 0.0, 9.0, 3, MAX_LEAD, agents), jnp.float32),
    )


LOST, BACKLOG = "lost sales, one resource", "backlog, volume and storage, shares"


def configuration(name: str, agents: int = AGENTS) -> dict[str, Any]:
    """Return all that `simulate` is given in one of the two runs."""
    if name == LOST:
        return {
            "population": population(("inbound_units",), agents),
            "exogenous": paths(shares=False, agents=agents),
            "policy": PricedNewsvendor(),
            "initial": start(agents),
            "shadow_prices": jnp.asarray(spread(5, 0.0, 2.0, 3, WEEKS, 1), jnp.float32),
        }
    return {
        "population": population(("inbound_volume", "storage"), agents),
        "exogenous": paths(shares=True, agents=agents),
        "policy": PricedBaseStock(discount=0.99),
        "initial": start(agents),
        "shadow_prices": jnp.asarray(spread(5, 0.0, 0.4, 3, WEEKS, 2), jnp.float32),
        "backlog": True,
    }


def totals_of(given: Mapping[str, Any]) -> Values:
    """Run one configuration; return its totals by week, its use by week and resource, and the total reward."""
    rollout = simulate(**given)
    totals = {name: listed(getattr(rollout.totals, name)) for name in TOTALS}
    return {**totals, "utilization": listed(rollout.totals.utilization), "total reward": [float(rollout.reward)]}


@case("run, " + LOST)
def run_of_lost_sales() -> Values:
    """Hold totals of the first run."""
    return totals_of(configuration(LOST))


@case("run, " + BACKLOG)
def run_of_backlog() -> Values:
    """Hold totals of the second run."""
    return totals_of(configuration(BACKLOG))


BLOCKS = (256, 512, None)
MANY = 600


@lru_cache
def run_in_blocks(name: str, block: int | None) -> tuple[str, Values]:
    """Run 600 agents in blocks of a size; return the bits of all that came out, and a summary."""
    rollout = simulate(**configuration(name, MANY), record=Record.traces(), block_agents=block)
    kept = (rollout.totals, rollout.agents, rollout.final, rollout.end_value)
    return bits(kept), {
        "utilization": summary(rollout.totals.utilization),
        "reward": summary(rollout.totals.reward),
        "orders": summary(rollout.agents.orders),
        "stock": summary(rollout.final.stock_end),
        "pipeline": summary(rollout.final.pipeline),
        "end value": float(rollout.end_value),
    }


@case("run, 600 agents in blocks")
def runs_of_many() -> Values:
    """Hold traces of both runs with more agents than a block has."""
    return {name: run_in_blocks(name, 256)[1] for name in (LOST, BACKLOG)}


@case("derivatives at ties")
def derivatives_at_ties() -> Values:
    """Hold the reward's gradient and the Jacobian of use where whole demand meets whole stock."""
    given = configuration(LOST)
    whole = {**given, "initial": jax.tree.map(jnp.floor, given["initial"]), "throw": False}
    levels = jnp.asarray(spread(9, 8, 24, 2, AGENTS).round(), jnp.float32)

    def reward(levels: jax.Array, backlog: bool) -> jax.Array:
        return simulate(**{**whole, "policy": OrderUpTo(levels), "backlog": backlog}).reward

    def reward_at(prices: jax.Array) -> jax.Array:
        return simulate(**{**whole, "shadow_prices": prices}).reward

    def use_at(prices: jax.Array) -> jax.Array:
        return simulate(**{**whole, "shadow_prices": prices}).totals.utilization

    prices = given["shadow_prices"]
    jacobian = jax.jit(jax.jacfwd(use_at))(prices)
    return {
        "reward by level, lost": listed(jax.jit(lambda x: jax.grad(reward)(x, False))(levels)),
        "reward by level, backlog": listed(jax.jit(lambda x: jax.grad(reward)(x, True))(levels)),
        "reward by price": listed(jax.jit(jax.grad(reward_at))(prices)),
        "use by price": listed(jacobian[:, 0, :, 0].sum(0)),
        "use by price, all": summary(jacobian),
    }


# --- plans ------------------------------------------------------------------------------------------------------------

ONE, TWO = ("inbound_units",), ("inbound_units", "storage")
SMALL = {"weeks": 8, "scenarios": 2, "paths": 2, "max_iterations": 12, "policy": "newsvendor", "active_weeks": 110}
STEADY = 2
"""Seed whose plans hold with other compiler flags: where use is lumpy, last bits may lead a search elsewhere."""
COSTS = CostSettings()


@lru_cache
def panel(seed: int):
    """Make up 60 products."""
    return generate_panel(agents=60, weeks=110, seed=seed)


@lru_cache
def planning(seed: int, resources: tuple[str, ...], **more: Any) -> tuple[PlanningProblem, PlanSettings]:
    """Set up a plan."""
    settings = PlanSettings(seed=seed, resources=resources, **{**SMALL, **more})
    return build_problem(panel(seed), settings), settings


def planned(record: PlanRecord, search: Search) -> Values:
    """Return what a plan says."""
    return {
        "capacity": listed(record.capacity),
        "prices": listed(record.shadow_prices),
        "use": listed(record.utilization),
        "status": [record.feasible, record.converged, re.split("[0-9:]", record.stop_reason)[0].strip()],
        "counts": [record.iterations, record.queries, search.queries, search.simulations, search.full_simulations],
        "searched": [search.interface, search.maps, search.cohort, list(search.outside_training)],
    }


def by_simulation(seed: int, resources: tuple[str, ...], last: PreviousPlan | None = None, **more: Any) -> Values:
    """Plan by simulation."""
    known, settings = planning(seed, resources, **more)
    cost = acquisition_cost(known.view, settings, COSTS, last)
    return planned(*plan_by_simulation(fresh(known, settings), cost, settings, Progress()))


def fresh(known: PlanningProblem, settings: PlanSettings) -> PlanningProblem:
    """Return a case whose view has not counted any simulation yet."""
    view = known.view
    parts = (view.population, view.exogenous, view.policy, view.initial)
    return replace(known, view=SimulatedView(*parts, reserve=view.reserve, seed=settings.seed))


@case("plan, one resource")
def plans_of_one() -> Values:
    """Hold plans of three seeds by simulation."""
    return {f"seed {seed}": by_simulation(seed, ONE) for seed in range(3)}


@case("plan, two resources")
def plans_of_two() -> Values:
    """Hold plans of two resources and three seeds by simulation."""
    found = {f"seed {STEADY}": by_simulation(STEADY, TWO)}
    return found | {f"seed {seed}, two revisions": by_simulation(seed, TWO, max_iterations=2) for seed in (5, 6)}


@case("plan, other rules")
def plans_of_other_rules() -> Values:
    """Hold plans by the other two rules."""
    return {rule: by_simulation(STEADY, ONE, rule=rule) for rule in ("consensus", "marginal")}


@case("plan, cohort")
def plan_of_cohort() -> Values:
    """Hold plans searched on 30 of the products."""
    return {f"seed {seed}": by_simulation(seed, ONE, cohort=30) for seed in (STEADY, 4)}


@case("plan, revised")
def plan_revised() -> Values:
    """Hold a plan that revises an earlier one which planned all weeks but the last two."""
    grid = 90.0 + 10.0 * spread(5, 0.0, 1.0, 2, SMALL["weeks"], 1)
    known, _ = planning(STEADY, ONE)
    size = np.asarray(known.view.expected(np.zeros((SMALL["weeks"], 1)))).mean() / 100.0
    grid[-2:] = np.nan
    last = PreviousPlan(size * grid, np.where(np.isnan(grid), np.nan, 90.0 * size), 0.01 * grid)
    return {**by_simulation(STEADY, ONE, last), "granted": listed(np.nan_to_num(last.regular(np.zeros_like(grid))))}


def learned(seed: int) -> tuple[PlanningProblem, PlanSettings]:
    """Set up a plan by learned maps."""
    return planning(seed, ONE, interface="learned")


@case("plan, learned maps")
def plan_by_default_maps() -> Values:
    """Hold a plan by the maps that come with the package."""
    known, settings = learned(STEADY)
    known = fresh(known, settings)
    view = encode_population(known, load_maps(settings), settings)
    cost = acquisition_cost(known.view, settings, COSTS)
    record, search = plan_by_maps(known, view, cost, settings, Progress())
    return {**planned(record, search), "errors": list(search.errors)}


# --- maps -------------------------------------------------------------------------------------------------------------


def answers(name: str) -> Values:
    """Ask a shipped map about a fixed population and history."""
    known, _ = learned(STEADY)
    view = Interface.load(name).encode(known.population, known.history, known.policy, weeks=27)
    unit = float(view.units.price[0])
    prices = unit * spread(7, 0.0, 1.0, 3, 2, 27, 1)
    free = np.asarray(view.utilization(np.zeros((27, 1))))
    return {
        "scale": unit,
        "free": listed(free[:, 0]),
        "use": listed(np.asarray(view.utilization(prices))[..., 0]),
        "prices": listed(np.asarray(view.shadow_prices(np.stack([0.7 * free, 0.95 * free])))[..., 0]),
        "jacobian": summary(view.jacobian(prices[0])),
        "outside": list(view.out_of_distribution),
        "outside of high prices": list(view.check_query(shadow_prices=9.0 * unit + np.zeros((27, 1)))),
    }


@case("maps, default")
def default_maps() -> Values:
    """Hold answers of the default maps."""
    return answers("default")


@case("maps, retail")
def retail_maps() -> Values:
    """Hold answers of the maps of a retailer."""
    return answers("retail")


@case("maps, policies of training")
def policies_of_training() -> Values:
    """Hold that both shipped maps know PricedNewsvendor as what they were trained with, and no other policy."""
    known, _ = learned(STEADY)
    said = {}
    for name in ("default", "retail"):
        interface = Interface.load(name)
        for label, policy in {
            "same": PricedNewsvendor(),
            "other discount": PricedNewsvendor(discount=0.9),
            "other class": PricedBaseStock(),
        }.items():
            view = interface.encode(known.population, known.history, policy)
            said[f"{name}, {label}"] = [each for each in view.out_of_distribution if "trained" in each]
    return {**said, "fingerprint": policy_hash(PricedNewsvendor(), known.population.n_agents)}


# --- training ---------------------------------------------------------------------------------------------------------


def trained(task: Any, carry: Any, watched: Callable[[Any], Any]) -> Values:
    """Take three steps; return their losses, the weights after each as norms, and what judges."""
    steps = []
    for number in (1, 2, 3):
        carry, seen = task.step(carry, number)
        steps.append(sorted(float(np.asarray(value)) for value in seen.values()))
    return {
        "steps": steps,
        "weights": norms(watched(carry)),
        "judged": sorted(float(value) for value in task.validate(carry).values()),
    }


@case("training, buyer")
def training_of_a_buyer() -> Values:
    """Hold three steps of a buyer."""
    episodes = StationaryEpisodes(DemandLaw("geometric", 4.0), 9.0, 2, stores=6, weeks=7, warm_up=2, free_weeks=2)
    shape = BuyerShape(history=2, dilations=(1, 2), hidden=(6,), open_orders=2, before=0, after=1, profile=False)
    task = BuyerTask(BuyerTraining(steps=10, learning_rate=0.01), episodes, shape, PricedNewsvendor())
    begun = task.begin(0)
    return {"begun": norms(task.parameters(begun)), **trained(task, begun, task.parameters)}


@case("training, primal map")
def training_of_a_primal_map() -> Values:
    """Hold three steps of a primal map that reads agents."""
    settings = tiny(representation="deep-sets", rollouts_per_step=1, warm_rounds=1, steps=8)
    task = PrimalTask(settings, FewEpisodes(), Shy())
    begun = task.begin(0)
    return {"begun": norms(begun.network), **trained(task, begun, lambda carry: carry.average)}


@case("training, dual map")
def training_of_a_dual_map() -> Values:
    """Hold three steps of a dual map of totals."""
    task = DualTask(tiny(representation="global", steps=8, burn_in=2, learning_rate=0.05), FewEpisodes(), Shy())
    begun = task.begin(0)
    return {"begun": norms(begun.network), **trained(task, begun, lambda carry: carry.average)}


@case("tuning, classical families")
def tuning_of_families() -> Values:
    """Hold parameters that tuning chooses for 20 agents, with levels of their own and shared ones."""
    given = configuration(LOST)
    given = {name: given[name] for name in ("population", "exogenous", "initial", "shadow_prices")}
    families = {
        "base-stock, own": BestBaseStock(),
        "base-stock, two groups": BestBaseStock(groups=2),
        "capped": CappedBaseStockFamily(groups=1),
        "constant": ConstantOrderFamily(groups=1),
        "of the forecast": ForecastBaseStockFamily(groups=1),
        "reorder point": SsPolicy(groups=1),
        "newsvendor": Newsvendor(),
        "tuned newsvendor": TunedNewsvendor(groups=1),
    }
    found = {}
    for name, family in families.items():
        objective = Objective(2, order_cost=4.0 if name == "reorder point" else 0.0)
        tuned = family.tune(TuningProblem(**given, objective=objective))
        numbers = sorted(listed(np.unique(values)) for values in tuned.parameters.values())
        found[name] = {"parameters": numbers, "value": float(tuned.value.sum()), "tried": tuned.tried}
    return found


# --- fulfilment -------------------------------------------------------------------------------------------------------

WINDOWS = {"all": None, "frontier": SlidingWindow(40), "all or nothing": FixedWindows(100)}


@lru_cache
def orders():
    """Make up 400 orders of several units, with refills."""
    return generate_instance(400, 60, 6, beta=-0.5, capacity_share=0.5, most_units=3, refills=2)


@case("fulfilment, actions")
def fulfilment_actions() -> Values:
    """Hold where every order is sent, by four policies and three windows."""
    found = {}
    for policy in ("greedy", "mlp", "dual", "capacity"):
        rule = make_policy(orders(), policy, width=8, seed=0)
        for name, window in WINDOWS.items():
            run = fulfil(orders(), rule, Picard() if window is None else Picard(window=window))
            info = run.info
            found[f"{policy}, {name}"] = {
                "actions": hashlib.sha256(np.asarray(run.actions, np.int64).tobytes()).hexdigest(),
                "counts": [int(info.rounds), int(info.encode_calls), int(info.committed)],
                "sent": int((np.asarray(run.actions) >= 0).sum()),
                "exhausted": listed(run.exhausted),
            }
    return found


@case("fulfilment, learned prices")
def fulfilment_prices() -> Values:
    """Hold what three steps of the prices of stock and capacity earn."""
    learned_prices = learn_prices(orders(), steps=3)
    return {"reward": float(learned_prices.reward), "actions": sha(fulfil(orders(), learned_prices.rule).actions)}


# --- draws ------------------------------------------------------------------------------------------------------------

NAMES = np.array(["a", "b", "ab", "7", "größe", "a"])


@case("draws, keyed")
def keyed_draws() -> Values:
    """Hold numbers that belong to names."""
    return {
        "uniform": [listed(keyed_uniform(NAMES, purpose, seed)) for purpose in ("margin", "x") for seed in (0, 9)],
        "normal": listed(keyed_normal(NAMES, "lead", 3)),
        "margins": listed(gross_margins(NAMES, 1)),
        "vendors": listed(vendor_labels(NAMES, 1)),
        "lead times": listed(lead_times(NAMES, vendor_labels(NAMES, 1), 1)),
    }


@case("draws, made-up table")
def table_draws() -> Values:
    """Hold a made-up table, and what is filled in where a table lacks it."""
    made = panel(1)
    bare = replace(made, price=None, unit_cost=None, lead_time=None, volume=None, fill_rate=None)
    both = {"made": made, "completed": complete_panel(replace(bare, vendor=None, category=None), seed=5)}
    found: Values = {}
    for label, table in both.items():
        numbers = {name: getattr(table, name) for name in ("units", "price", "unit_cost", "lead_time", "volume")}
        found[label] = {name: summary(values) for name, values in numbers.items()}
        found[label]["vendors"] = sha(table.vendor)
        found[label]["categories"] = sha(table.category)
    return found


@case("draws, futures")
def future_draws() -> Values:
    """Hold demand, lead times and mixed scenarios of the coming weeks."""
    known, _ = planning(0, ONE)
    model = DemandModel.fit(known.panel)
    lead = np.asarray(known.population.lead_time)
    drawn = coming_paths(known.panel, lead, model, scenarios=3, weeks=6, seed=4)
    mixed = mixed_path(drawn, 2)
    return {
        "demand": summary(model.sample(2, 6, seed=7)),
        "lead times": sha(draw_lead_times(np.array([1, 2, 4, 4]), (2, 30), seed=3)),
        "coming demand": summary(drawn.demand),
        "coming lead times": sha(drawn.arrivals.weeks),
        "forecast": [summary(drawn.lead_demand_mean), summary(drawn.lead_demand_sd)],
        "mixed demand": summary(mixed.demand),
        "mixed lead times": sha(mixed.arrivals.weeks),
        "start": [summary(known.initial.stock_end), summary(known.initial.pipeline)],
    }


@case("draws, capacity and prices")
def price_draws() -> Values:
    """Hold paths of capacity and of announced prices."""
    scale = np.array([2.0, 3.0])
    pulses, mixed = PulsePrices().sample(5, 40, scale), mixed_prices(5, 40, scale)
    people = population(TWO)
    return {
        "capacity": summary(HaarCapacity().sample(3, 40, scale)),
        "haar": summary(HaarPrices().sample(4, 40, scale).prices),
        "pulses": [summary(pulses.prices), sha(pulses.notice)],
        "mixed": [summary(mixed.prices), sha(mixed.notice)],
        "contest": [summary(price_path(kind, people, 40, 2)) for kind in ("haar", "pulse")],
        "typical": listed(typical_prices(people)),
    }


@case("draws, cohorts and networks")
def cohort_draws() -> Values:
    """Hold who is drawn to stand for others, and weights of new networks."""
    people = planning(0, ONE)[0].population
    size = demand_size(people)
    designs = {"uniform": UniformSample(), "proportional": ProportionalSample(), "strata": StratifiedSample()}
    drawn = {name: design.draw(size, 24, np.random.default_rng(6)) for name, design in designs.items()}
    chosen = sample_cohort(people, PlanSettings(cohort=30, seed=3))
    asked = draw_probes(people, 8, 5, 11)
    shape = MapShape("bucketized", 1, 8, 4, 8, 6, 3, (1, 2), (1, 2), 0)
    return {
        "cohorts": {name: [sha(one.index), summary(one.weight)] for name, one in drawn.items()},
        "planned": [sha(chosen.index), summary(chosen.weight)],
        "delegates": [sha(asked.index), summary(asked.weight), summary(asked.noise), sha(asked.lead_times)],
        "map": norms(MapNetwork.draw(shape, 5)),
        "buyer": norms(BuyerNetwork.draw(BuyerShape(history=4, dilations=(1, 2), hidden=(6,)), 5)),
        "scattered": sha(RandomAssignment(5, seed=2).processes(np.arange(40) % 7, 10)),
        "interval": [float(each) for each in ends(mean_interval(spread(11, 0.0, 3.0, 3, 14) ** 2, seed=3))],
    }


def ends(interval: Any) -> tuple[float, float]:
    """Return the two ends of an interval."""
    return interval.low, interval.high


@case("draws, orders")
def order_draws() -> Values:
    """Hold made-up orders, orders drawn again, and a new network that decides them."""
    agent_pools = {
        "first": orders(),
        "resampled": orders().resampled(3),
        "other draw": generate_instance(90, 9, 4, draw=2),
    }
    found: Values = {
        name: [sha(one.product), sha(one.destination), sha(one.quantity), sha(one.stock), sha(one.capacity)]
        for name, one in agent_pools.items()
    }
    network = make_policy(orders(), "mlp", width=8, seed=4)
    found["network"] = [sha(leaf) for leaf in jax.tree.leaves(network)]
    return found


@lru_cache
def agent_pool() -> AgentPool:
    """Make up a pool of 80 products."""
    return AgentPool.from_panel(panel_of(80, 150, 5), seed=5, refit_weeks=13)


@lru_cache
def panel_of(agents: int, weeks: int, seed: int):
    """Make up a table."""
    return generate_panel(agents, weeks, seed)


def stretch_sums(pop_window: Any) -> list:
    """Sum up who lives through what."""
    demand = summary(pop_window.exogenous.demand)
    return [demand, summary(pop_window.initial.pipeline), sha(pop_window.exogenous.arrivals.weeks)]


@case("draws, worlds")
def world_draws() -> Values:
    """Hold what training and judging draw from a pool."""
    (other,) = pools_from_generator(1, 40, 60, 7, refit_weeks=13)
    settings = MapTraining(population_size=48, agents=24, weeks=80, first_origin=30, buckets=3, delegates=0)
    episodes = MapEpisodes([agent_pool()], settings)
    cases = ShiftCases(
        agent_pool(), Shy(), ShiftSizes(target=48, sample=24, weeks=98, origins=2, spacing=4, priced=10, steps=6)
    )
    judged = {f"{by} {number}": cases.draw(by, 1.0, number) for by, number in (("demand", 0), ("economics", 1))}
    repeated = resample_world(agent_pool(), 1, 0)
    plans = CapacityBenchmark(
        agent_pool(), Shy(), sizes=replace(QUICK, agents=40, cohort=24, paths=2, history=10, weeks=28, burn_in=3)
    )
    episode = plans.episode(1)
    return {
        "generated": [summary(other.exogenous.demand), summary(other.expected)],
        "repeated": [summary(repeated.exogenous.demand), sha(repeated.exogenous.arrivals.weeks)],
        "training": stretch_sums(episodes.draw(3).window),
        "held out": stretch_sums(episodes.validation(1)[0].window),
        "judged": {
            name: [sha(one.agents), one.start, one.kind, summary(one.prices), *stretch_sums(one.pop_window)]
            for name, one in judged.items()
        },
        "fixed plans": [*stretch_sums(episode.pop_window), summary(episode.free.utilization)],
    }


@case("draws, history episodes")
def history_draws() -> Values:
    """Hold episodes that replay the history of a table, and stationary ones."""
    fields = {"holdout": 8, "draws": 1, "refit_weeks": 13, "resources": TWO}
    known = train_test_split(panel_of(60, 60, 0), HistorySettings(**fields))
    episodes = HistoryEpisodes(known, BuyerTraining(agents=12, common_surprise=0.3))
    stationary = StationaryEpisodes(DemandLaw("poisson", 4.0), 9.0, 2, stores=6, weeks=7, warm_up=2, free_weeks=2)
    drawn = {
        "replayed": episodes.draw(0, 3),
        "judging": episodes.validation()[-1],
        "stationary": stationary.draw(0, 3),
        "stationary, judging": stationary.validation()[0],
    }
    return {
        name: [summary(one.exogenous.demand), summary(one.shadow_prices), sha(one.notice), summary(one.week_weight)]
        for name, one in drawn.items()
    }


@case("textbook stores")
def textbook_stores() -> Values:
    """Hold costs of equal stores that a study simulates."""
    return {instance.name: float(simulate_store(instance, 20, 3, 60)["cost"]) for instance in lost_sales()[:2]}


# --- the edge ---------------------------------------------------------------------------------------------------------

PLAN_WORDS = (
    "--seed 2 --weeks 8 --scenarios 2 --paths 2 --max-iterations 12 --policy newsvendor --active-weeks 110".split()
)


def run_command(*words: str) -> tuple[int, str]:
    """Run a command in this process; return its exit code and what it printed."""
    out = StringIO()
    with redirect_stdout(out), redirect_stderr(StringIO()):
        code = main([str(word) for word in words])
    return code, out.getvalue()


def key_paths(given: Any, path: str = "") -> set[str]:
    """List the keys of JSON with the way to them; items of lists share one."""
    if isinstance(given, dict):
        return set().union({path}, *(key_paths(value, f"{path}.{key}") for key, value in given.items()))
    if isinstance(given, list):
        return set().union({path}, *(key_paths(value, f"{path}[]") for value in given))
    return {path}


@lru_cache
def demo() -> dict[str, str]:
    """Run the demo twice, the second time with two resources and prices re-issued; return the text of its files."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for label, more in {
            "one": ("--no-reissue",),
            "two": ("--resources", "inbound_units", "--resources", "storage"),
        }.items():
            out = Path(folder) / label
            code, said = run_command(
                "demo", "--agents", 60, "--history", 110, *PLAN_WORDS, *more, "--json", "--out", out
            )
            found[f"{label}, code"] = str(code)
            found[f"{label}, printed"] = said.strip().splitlines()[-1]
            for each in out.iterdir():
                readable = each.suffix in (".csv", ".json")
                found[f"{label}, {each.name}"] = each.read_text() if readable else ""
    return found


@case("edge, keys and columns")
def keys_and_columns() -> Values:
    """Hold which files the demo writes, which keys its JSON has and which columns its tables have."""
    found: Values = {"files": sorted(demo())}
    for name, text in sorted(demo().items()):
        if name.endswith(".csv"):
            found[name] = text.splitlines()[0].split(",")
        if name.endswith((".json", "printed")):
            found[name] = sorted(key_paths(json.loads(text)))
    return found


TIMED = ("seconds", "stages", "files", "version", "settings", "notes", "provenance")
FRAGILE = ("regret_ratio", "pooled_regret_ratio", "price_range_error")
"""Ratios of small differences of rewards: last bits of these become percents."""


def numbers_of(given: Any, path: str = "") -> dict[str, float]:
    """List the numbers of JSON by the way to them, without those of time and place."""
    if isinstance(given, dict):
        parts = [numbers_of(value, f"{path}.{key}") for key, value in given.items() if key not in TIMED + FRAGILE]
        return {name: value for part in parts for name, value in part.items()}
    if isinstance(given, list) and all(isinstance(value, int | float) for value in given):
        return {path: [float(value) for value in given]} if given else {}
    if isinstance(given, int | float) and not isinstance(given, bool):
        return {path: float(given)}
    return {}


@case("edge, numbers of the demo")
def numbers_of_the_demo() -> Values:
    """Hold all numbers of the demo's answer: the plan, its verification with re-issued prices and the groups."""
    found: Values = {}
    for label in ("one", "two"):
        found[label] = numbers_of(json.loads(demo()[f"{label}, printed"]))
        for table in ("plan.csv", "groups.csv"):
            rows = [line.split(",") for line in demo()[f"{label}, {table}"].splitlines()[1:]]
            found[f"{label}, {table}"] = [[number_or_word(cell) for cell in row] for row in rows]
    return found


def number_or_word(cell: str) -> float | str:
    """Read a cell of a table."""
    try:
        return float(cell)
    except ValueError:
        return cell


@case("edge, flags")
def flags() -> Values:
    """Hold all commands and their flags, and which of them are required."""
    found: Values = {}

    def walk(app: Any, words: tuple[str, ...]) -> None:
        if app.default_command is not None:
            arguments = app.assemble_argument_collection()
            named_flags = [sorted(each.names) for each in arguments if each.show]
            found[" ".join(words)] = sorted(named_flags)
        for name in sorted(name for name in app if not name.startswith("-")):
            walk(app[name], (*words, name))

    walk(build_app(), ())
    return found


@case("edge, exit codes")
def exit_codes() -> Values:
    """Hold exit codes of help, of a table that is fine or is not, and of mistakes."""
    with tempfile.TemporaryDirectory() as folder:
        good, bad = Path(folder) / "good.csv", Path(folder) / "bad.csv"
        weeks = np.datetime64("2024-01-01") + 7 * np.arange(30)
        rows = [f"{name},{week},{5 + place % 3}" for name in ("a", "b") for place, week in enumerate(weeks)]
        good.write_text("unique_id,ds,units\n" + "\n".join(rows) + "\n")
        bad.write_text("unique_id,ds,units\na,2024-01-01,-5\nb,never,1\n")
        commands = {
            "help": ["--help"],
            "nothing": [],
            "version": ["--version"],
            "good table": ["data", "check", good],
            "bad table": ["data", "check", bad],
            "plan of a bad table": ["plan", bad, "--out", Path(folder) / "out"],
            "no table": ["plan", Path(folder) / "none.csv"],
            "unknown flag": ["plan", good, "--weks", "3"],
            "unknown command": ["plna"],
            "unknown command of a group": ["data", "chek"],
            "value out of range": ["plan", good, "--weeks", "0"],
        }
        return {name: run_command(*words)[0] for name, words in commands.items()}
