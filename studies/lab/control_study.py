"""Own what is measured of control: a fixed plan kept to by populations of low, baseline and high demand.

FREE: cases are `control.fixed_plan`, methods `control.keepers`, the bound `control.foresight`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from lab.capacity_benchmark import COMPOSITIONS, QUICK, BenchmarkSizes, CapacityBenchmark
from lab.clairvoyant_bound import ClairvoyantBound
from lab.controllers import AbstractController, DualMapController, NoControl, ProportionalRationing
from lab.evaluate_control import CLAIRVOYANT, MethodMetrics, evaluate
from lab.forecast_study import BASELINE
from lab.map_diagnostics import cycle_error, cycle_values, loss_terms
from lab.results import path_interval
from lab.runner import Part, parts_under
from walras.exogenous.capacity import unseen_families
from walras.maps.file import LearnedMap
from walras.maps.representations import REPRESENTATIONS
from walras.planning.prices.dual_ascent import ProjectedDual
from walras.policies.base import Policy
from walras.policies.base_stock import PricedNewsvendor
from walras.train.agent_pool import AgentPool

QUICK_FORESIGHT = ClairvoyantBound(ceilings=(2.0,), ascent_steps=15, solver=ProjectedDual(max_queries=150))
"""One start, fewer steps: a tenth of the time."""

UNSEEN_PATHS, UNSEEN_PATHS_QUICK = 20, 2
"""Paths of each capacity family that training never sees."""

TERM_PATHS = 6
"""Paths on which the three terms of the dual loss are told apart."""


def fitting_plans(sizes: BenchmarkSizes, world: AgentPool) -> BenchmarkSizes:
    """Shorten plans to the weeks and agents of a short table: half of it is history."""
    spare = world.n_weeks - 1
    if sizes.history + sizes.weeks <= spare:
        return replace(sizes, agents=min(sizes.agents, world.n_agents))
    history = spare // 2
    return replace(sizes, agents=min(sizes.agents, world.n_agents), history=history, weeks=spare - history)


def control_parts(
    world: AgentPool,
    duals: Mapping[str, LearnedMap],
    primal: LearnedMap | None = None,
    *,
    quick: bool = False,
    policy: Policy | None = None,
    sizes: BenchmarkSizes | None = None,
    unseen: bool = True,
) -> dict[str, Part]:
    """Return what is to be measured of the control side, part by part.

    Args:
        world: held out.
        duals: name -> dual map.
        primal: for the cycle check; None leaves it out.
        quick: few paths of small populations, one start of the oracle.
        policy: what agents follow; default the priced newsvendor.
        sizes: of the cases, other than those of `quick`.
        unseen: keep to families of capacity paths that training never sees, too.
    """
    policy = policy or PricedNewsvendor()
    sizes = sizes or (QUICK if quick else BenchmarkSizes())
    methods: list[AbstractController] = [NoControl(), ProportionalRationing()]
    methods += [DualMapController(name, dual) for name, dual in duals.items()]
    foresight = QUICK_FORESIGHT if quick else ClairvoyantBound()
    plans = {name: CapacityBenchmark(world, policy, alpha, sizes) for name, alpha in COMPOSITIONS.items()}
    few = min(sizes.paths, UNSEEN_PATHS_QUICK if quick else UNSEEN_PATHS)
    base = plans["baseline"]

    def population(each: CapacityBenchmark) -> dict[str, Any]:
        return {"mean_demand_ratio": each.demand_ratio, **method_figures(each, methods, foresight)}

    parts: dict[str, Part] = {f"control:{name}": partial(population, each) for name, each in plans.items()}
    for name, family in unseen_families().items() if unseen else ():
        parts[f"unseen:{name}"] = partial(method_figures, base.under(family, few), methods, foresight)
    if duals:
        parts["terms"] = lambda: terms_table(base, duals)
    if primal is not None:
        short = base.under(base.family, min(sizes.paths, UNSEEN_PATHS))
        parts["cycle"] = lambda: {name: cycle_figures(short, primal, dual) for name, dual in duals.items()}
    return parts


def control_figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """Put measured parts together."""
    return {
        "populations": parts_under(found, "control"),
        "unseen_families": parts_under(found, "unseen"),
        "loss_terms": found.get("terms", {}),
        "cycle": found.get("cycle", {}),
    }


def method_figures(
    plans: CapacityBenchmark, methods: Sequence[AbstractController], foresight: ClairvoyantBound
) -> dict[str, Any]:
    """Let methods keep to plans; return all measures by method, and how maps differ from `BASELINE` path by path."""
    judged = evaluate(plans.cases(), methods, foresight)
    names = [*(method.name for method in methods), CLAIRVOYANT]
    figures = {name: MethodMetrics.of(judged, name, plans.sizes.burn_in) for name in names}
    found: dict[str, Any] = {"methods": {name: each.summary for name, each in figures.items()}}
    if BASELINE in figures:
        mine = [name for name in figures if name.partition("+")[0] in REPRESENTATIONS and name != BASELINE]
        found["less_global"] = {name: figures[name].less(figures[BASELINE]) for name in mine}
    return found


def terms_table(plans: CapacityBenchmark, duals: Mapping[str, LearnedMap]) -> dict[str, Any]:
    """Return the three terms of the dual loss by map, with intervals, on the first six cases at most."""
    few = plans.under(plans.family, min(plans.sizes.paths, TERM_PATHS))
    terms = loss_terms(few.cases(), duals, plans.sizes.burn_in)
    return {name: {term: path_interval(values) for term, values in row.items()} for name, row in terms.items()}


def cycle_figures(plans: CapacityBenchmark, primal: LearnedMap, dual: LearnedMap) -> dict[str, Any]:
    """Return how far the use that is forecast at the prices of a plan is from what comes about, over paths."""
    values = cycle_values([cycle_error(case, primal, dual) for case in plans.cases()])
    return {name: path_interval(each) for name, each in values.items()}
