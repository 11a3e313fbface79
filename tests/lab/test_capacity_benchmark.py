"""Capacity benchmark on a tiny generated population: cases, methods, measures, bound, diagnostics of maps."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from lab.capacity_benchmark import BenchmarkSizes, CapacityBenchmark, ControlOutcome
from lab.capacity_families import StepCapacity
from lab.control_study import TERMS, CycleError, cycle_error, cycle_values, loss_terms
from lab.controllers import ControlMethod, DualMapController, NoControl, ProportionalRationing
from lab.evaluate_control import CLAIRVOYANT, ClairvoyantBound, MethodMetrics, evaluate
from walras.errors import InputError, SettingsError
from walras.exogenous.capacity import HaarCapacity
from walras.maps.features import AHEAD, ATTRIBUTES, TOTALS, FeatureScaling
from walras.maps.file import LearnedMap
from walras.maps.network import MapNetwork
from walras.maps.representations import MapShape
from walras.planning.prices.dual_ascent import ProjectedDual
from walras.policies.base_stock import PricedNewsvendor
from walras.population.generate import generate_panel
from walras.train.agent_pool import AgentPool

pytestmark = pytest.mark.slow

SIZES = BenchmarkSizes(agents=40, cohort=24, paths=2, history=10, weeks=28, burn_in=3)
SHAPE = MapShape("global", history_width=2, future_width=2, decoder_width=2, attention=2, buckets=2, dilations=(1, 2))
EASY = ClairvoyantBound(ceilings=(), ascent_steps=2, solver=ProjectedDual(max_queries=30))


def random_map(kind: str, shift: float = 0.0, shape: MapShape = SHAPE) -> LearnedMap:
    widths = (0, ATTRIBUTES, TOTALS, AHEAD + 2)
    scaling = FeatureScaling(*(jnp.stack([jnp.full(w, shift), jnp.ones(w)]) for w in widths))
    return LearnedMap(kind, MapNetwork.draw(shape, 0), scaling, shape, np.array([5.0]))


@pytest.fixture(scope="module")
def agent_pool() -> AgentPool:
    return AgentPool.from_panel(generate_panel(60, 56, 3), refit_weeks=8)


@pytest.fixture(scope="module")
def plans(agent_pool) -> CapacityBenchmark:
    return CapacityBenchmark(agent_pool, PricedNewsvendor(), 0.5, SIZES)


@pytest.fixture(scope="module")
def cases(plans):
    return list(plans.cases())


@pytest.fixture(scope="module")
def judged(cases):
    return evaluate(
        cases, [NoControl(), ProportionalRationing(), DualMapController("dual", random_map("dual map"))], EASY
    )


def test_cases_are_drawn_again_as_they_were_and_paths_differ(plans, cases):
    again = list(plans.cases())
    for one, other in zip(cases, again, strict=True):
        np.testing.assert_array_equal(one.capacity, other.capacity)
        np.testing.assert_array_equal(one.episode.free.utilization, other.episode.free.utilization)
    assert not np.array_equal(cases[0].episode.free.utilization, cases[1].episode.free.utilization)
    assert cases[0].capacity.shape == (SIZES.weeks, 1)
    assert plans.demand_ratio > 1 > replace(plans, alpha=-0.5).demand_ratio


def test_another_family_meets_the_same_scene(plans, cases):
    other = next(plans.with_family(StepCapacity(), 1).cases())
    np.testing.assert_array_equal(other.episode.free.utilization, cases[0].episode.free.utilization)
    steps = np.unique(np.round(other.capacity / other.capacity.max(), 6))
    np.testing.assert_allclose(steps, [0.8, 1.0])


def test_the_family_is_tuned_on_the_weeks_that_count(plans, cases):
    free = np.stack([case.episode.free.utilization for case in cases])[:, SIZES.burn_in :]
    family = plans.calibrated_family(free)
    share = [
        np.mean(use / use.mean() > 0.9 * family.sample(seed, len(use), np.ones(1)))
        for seed in range(40)
        for use in free
    ]
    assert np.mean(share) == pytest.approx(0.55, abs=0.08)
    assert isinstance(family, HaarCapacity) and family.level != HaarCapacity().level


def test_a_short_world_is_refused(agent_pool):
    with pytest.raises(SettingsError, match="weeks but"):
        CapacityBenchmark(agent_pool, PricedNewsvendor(), sizes=replace(SIZES, weeks=500))


def test_a_dual_map_that_charges_nothing_lets_everybody_do_as_they_like(cases, monkeypatch):
    monkeypatch.setattr("walras.maps.layers.LOW_PRICE", -60.0)
    # Of a width of its own, since what is compiled is kept for other tests.
    quiet = random_map("dual map", shape=replace(SHAPE, decoder_width=3))
    kept = DualMapController("quiet", quiet).run(cases[0])
    free = cases[0].episode.free
    np.testing.assert_allclose(kept.utilization, free.utilization, rtol=1e-4, atol=1e-3)
    assert kept.reward == pytest.approx(free.reward, rel=1e-4)


def test_the_throttle_leaves_all_orders_where_there_is_room(cases):
    roomy = replace(cases[0], capacity=100 * cases[0].capacity)
    kept, free = ProportionalRationing().run(roomy), roomy.episode.free
    np.testing.assert_allclose(kept.utilization, free.utilization, rtol=1e-4, atol=1e-3)
    assert kept.reward == pytest.approx(free.reward, rel=1e-4)


def test_the_throttle_lets_nothing_through_where_there_is_no_room(cases):
    closed = replace(cases[0], capacity=0 * cases[0].capacity)
    kept = ProportionalRationing().run(closed)
    np.testing.assert_allclose(kept.utilization, closed.episode.committed, rtol=1e-4, atol=1e-3)


def test_the_throttle_lowers_violation(cases):
    for case in cases:
        over = [
            np.maximum(kept.utilization - case.capacity, 0)[3:].sum()
            for kept in (ProportionalRationing().run(case), case.episode.free)
        ]
        assert over[0] < 0.6 * over[1]


def test_every_method_is_measured_and_foresight_keeps_all(judged):
    figures = {name: MethodMetrics.of(judged, name, SIZES.burn_in) for name in judged[0].outcomes}
    assert set(figures) == {"none", "throttle", "dual", CLAIRVOYANT}
    free = figures["none"].summary
    assert free["reward_kept"]["estimate"] == pytest.approx(1.0) and free["mean_price"]["estimate"] == 0
    assert figures[CLAIRVOYANT].summary["price_slope"]["estimate"] == pytest.approx(1.0)
    assert figures[CLAIRVOYANT].summary["mean_violation"]["estimate"] < free["mean_violation"]["estimate"]
    for name, each in figures.items():
        low, estimate = (each.summary["mean_violation"][key] for key in ("low", "estimate"))
        assert low is not None and 0 <= low <= estimate, name
    assert figures["dual"].summary["mean_price"]["estimate"] > 0


def test_differences_are_paired(judged):
    dual, free = (MethodMetrics.of(judged, name, SIZES.burn_in) for name in ("dual", "none"))
    difference = dual.less(free)["mean_violation"]
    assert difference["estimate"] == pytest.approx(
        dual.summary["mean_violation"]["estimate"] - free.summary["mean_violation"]["estimate"]
    )
    assert dual.less(dual)["mean_violation"]["high"] == pytest.approx(0.0)


def test_one_path_has_no_interval(judged):
    summary = MethodMetrics.of(judged[:1], "none", SIZES.burn_in).summary["mean_violation"]
    assert summary["estimate"] >= 0 and summary["low"] is None


def test_equal_names_are_refused(cases):
    with pytest.raises(InputError, match="names must differ"):
        evaluate(cases, [NoControl(), NoControl()], EASY)


class Greedy(ControlMethod):
    """Return fixed numbers."""

    name = "greedy"

    def run(self, case) -> ControlOutcome:
        free = case.episode.free
        return ControlOutcome(2 * free.utilization, free.reward, free.shadow_prices)


def test_equal_violation_lets_the_oracle_use_what_the_method_used(cases):
    found = evaluate(cases[:1], [Greedy()], EASY)[0]
    # Twice what anybody wants is no limit, so that foresight gives up nothing.
    assert found.at_equal["greedy"] >= found.free.reward * (1 - 1e-5) and found.beyond["greedy"] == 0
    assert found.best.utilization.sum() < 0.99 * found.free.utilization.sum()


def test_loss_terms_are_those_of_each_map(cases):
    found = loss_terms(cases, {"all": random_map("dual map"), "other": random_map("dual map", 1.0)}, SIZES.burn_in)
    assert set(found) == {"all", "other"} and set(found["all"]) == set(TERMS)
    kept = DualMapController("all", random_map("dual map")).run(cases[0])
    over = np.maximum(kept.utilization - cases[0].capacity, 0) / cases[0].capacity
    assert found["all"]["violation"][0] == pytest.approx(over[SIZES.burn_in :].mean(), rel=1e-3)
    assert not np.allclose(found["all"]["price"], found["other"]["price"])


def test_short_cases_have_no_terms_and_no_cycle(cases):
    short = replace(cases[0], capacity=cases[0].capacity[:20])
    with pytest.raises(SettingsError, match="coordinated weeks"):
        loss_terms([short], {"all": random_map("dual map")}, 3)
    with pytest.raises(SettingsError, match="coordinated weeks"):
        cycle_error(short, random_map("primal map"), random_map("dual map"))


def test_a_cycle_simulates_the_prices_that_were_issued(cases):
    case = cases[0]
    found = cycle_error(case, random_map("primal map"), random_map("dual map"))
    prices = np.concatenate([[[0.0]], found.shadow_prices, found.shadow_prices[-1:]])
    np.testing.assert_allclose(case.episode.respond(prices).utilization[1:27], found.utilization, rtol=1e-5)
    np.testing.assert_array_equal(found.capacity, case.capacity[1:27])
    assert (found.forecast > 0).all() and (found.shadow_prices > 0).all()


def test_cycle_measures_by_hand():
    capacity, prices = np.full((2, 1), 10.0), np.array([[1.0], [0.0]])
    each = CycleError(capacity, prices, forecast=np.array([[12.0], [5.0]]), utilization=np.array([[10.0], [4.0]]))
    found = {name: float(values[0]) for name, values in cycle_values([each]).items()}
    wanted = {"cycle_mape": (0.2 + 0.25) / 2, "planned_excess": 0.1, "simulated_excess": 0.0, "priced_gap": 0.2}
    assert found == pytest.approx(wanted)
