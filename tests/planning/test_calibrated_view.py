"""A cohort stands for all agents: drawn where asked for, exact for duplicates, right where it was calibrated."""

from functools import lru_cache

import jax
import numpy as np
import pytest

from walras.cli import app
from walras.config import CostSettings, PlanFields, PlanSettings, checked, read_settings
from walras.errors import SettingsError
from walras.planning import search as checking
from walras.planning.plan import acquisition_cost
from walras.planning.prices.simulated_view import SimulatedView
from walras.planning.problem import PlanningProblem, build_problem
from walras.planning.search import CalibratedView, plan_by_simulation, sample_cohort, search_plan, search_view
from walras.population.agent_axis import map_per_agent
from walras.population.cohort import Cohort
from walras.population.generate import generate_panel
from walras.progress import Progress

WEEKS, HALF = 8, 30
SETTINGS = PlanSettings(weeks=WEEKS, scenarios=2, paths=2, max_iterations=5, cohort=30)


@lru_cache
def case() -> PlanningProblem:
    return build_problem(generate_panel(agents=60, weeks=110, seed=0), SETTINGS)


def twice() -> SimulatedView:
    """Simulate some agents twice over."""
    view, chosen = case().view, np.tile(np.arange(HALF), 2)
    count = view.population.n_agents
    cut = (map_per_agent(lambda a: a[..., chosen], each, count) for each in (view.exogenous, view.policy, view.initial))
    return SimulatedView(view.population.take(chosen), *cut, reserve=view.reserve)


def test_a_cohort_of_one_of_each_gives_the_plan_of_all_duplicates():
    many = twice()
    one = Cohort(np.arange(HALF), np.full(HALF, 2.0), np.zeros(HALF, int), 2 * HALF, "by hand")
    stand_in = CalibratedView.of_cohort(many, one)
    assert stand_in.view.population.n_agents == HALF
    np.testing.assert_allclose(stand_in.view.free, many.free, rtol=1e-5)
    np.testing.assert_allclose(stand_in.factor, 1.0, rtol=1e-5)
    np.testing.assert_allclose(stand_in.view.committed, many.committed, rtol=1e-5)
    cost = acquisition_cost(many, SETTINGS, CostSettings())
    # Lumpy as so few agents are, rounding leads astray after a while: few revisions show the same road.
    few = SETTINGS.model_copy(update={"max_iterations": 1})
    ours, theirs = (search_plan(view, cost, few, Progress()) for view in (stand_in, many))
    np.testing.assert_allclose(ours.capacity, theirs.capacity, rtol=1e-4)
    np.testing.assert_allclose(ours.shadow_prices, theirs.shadow_prices, atol=1e-4 * many.price_scale)
    assert ours.shadow_prices.any()


def test_a_cohort_is_right_where_everybody_was_simulated():
    view = case().view
    stand_in = search_view(view, SETTINGS)
    assert isinstance(stand_in, CalibratedView) and stand_in.view.population.n_agents == 30
    free = np.zeros((WEEKS, 1))
    assert not np.allclose(stand_in.view.free, view.free, rtol=1e-3)
    np.testing.assert_allclose(stand_in.utilization(free), view.free, rtol=1e-6)
    prices = np.full((WEEKS, 1), 0.2 * view.price_scale)
    simulated, expected = view.planned_and_expected(prices)
    np.testing.assert_allclose(simulated, view.utilization(prices), rtol=1e-5)
    np.testing.assert_allclose(expected, view.expected(prices), rtol=1e-5)
    there = stand_in.calibrated_at(prices, simulated)
    np.testing.assert_allclose(there.utilization(prices), simulated, rtol=1e-6)
    np.testing.assert_allclose(there.jacobian(prices), there.view.jacobian(prices) * there.factor.reshape(-1, 1))
    assert (there.price_scale, there.max_price) == (view.price_scale, view.max_price)


@pytest.mark.parametrize(
    ("given", "drawn"),
    [
        ({"cohort": 0}, None),
        ({"cohort": 5000}, None),
        ({"cohort": None}, None),
        ({"cohort": 25}, 25),
        ({"cohort": None, "interface": "learned"}, None),
    ],
)
def test_a_cohort_is_drawn_of_more_agents_than_it_has(given, drawn):
    cohort = sample_cohort(case().population, SETTINGS.model_copy(update=given))
    assert (cohort and cohort.n_drawn) == drawn


def test_without_a_word_maps_plan_large_populations_on_a_cohort(monkeypatch):
    monkeypatch.setattr("walras.planning.search.COHORT", 40)
    unsaid = SETTINGS.model_copy(update={"cohort": None})
    assert sample_cohort(case().population, unsaid) is None
    cohort = sample_cohort(case().population, unsaid.model_copy(update={"interface": "learned"}))
    assert cohort is not None and cohort.n_drawn == 40


def test_a_plan_of_a_cohort_is_judged_by_everybody():
    known = case()
    cost = acquisition_cost(known.view, SETTINGS, CostSettings())
    before, progress = known.view.queries, Progress()
    record, search = plan_by_simulation(known, cost, SETTINGS, progress)
    asked = known.view.queries - before
    assert search.cohort == 30 and 1 <= asked <= checking.VERIFICATIONS < search.simulations - search.full_simulations
    np.testing.assert_allclose(record.utilization, known.view.expected(record.shadow_prices), rtol=1e-5)
    assert record.feasible == (not (record.utilization > 1.01 * record.capacity + 1e-6).any())
    assert "searched on a cohort of 30 agents" in record.stop_reason
    assert {checking.SEARCHING} <= set(progress.seconds)


def test_what_cannot_be_mended_is_said_and_the_best_is_kept(monkeypatch):
    known = case()
    cost = acquisition_cost(known.view, SETTINGS, CostSettings())
    searched = search_view(known.view, SETTINGS)
    record = search_plan(searched, cost, SETTINGS, Progress())
    worse = [jax.tree.map(lambda a, share=share: share * a, record.capacity) for share in (0.5, 0.4, 0.3)]
    mended = iter([checking.replace(record, capacity=each, converged=True) for each in worse])
    monkeypatch.setattr(checking, "refine_by_simulation", lambda *_: next(mended))
    before = known.view.queries
    first = checking.replace(record, capacity=0.6 * record.capacity, converged=True)
    told = checking.verify_on_population(known.view, searched, cost, first, Progress())
    assert known.view.queries - before == checking.VERIFICATIONS and not told.converged
    np.testing.assert_array_equal(told.capacity, first.capacity)
    assert "after which the worst week is" in told.stop_reason


def test_a_cohort_that_is_none_is_refused_in_one_sentence(tmp_path, capsys):
    with pytest.raises(SettingsError, match="`cohort` is 5 but a cohort has 20 agents at least; give more, or 0 to"):
        checked(PlanSettings, {"cohort": 5}, "the flags")
    with pytest.raises(SettingsError, match="`cohort` is -1 in the flags; it must be greater than or equal to 0"):
        checked(PlanFields, {"cohort": -1}, "the flags")
    with pytest.raises(SettingsError, match="`cohort`"):
        checked(PlanSettings, {"cohort": True}, "the flags")
    (tmp_path / "plan.toml").write_text("cohort = 7\n")
    with pytest.raises(SettingsError, match="`cohort` is 7"):
        read_settings(PlanSettings, tmp_path / "plan.toml")
    for given in ("5", "-3", "half"):
        assert app.main(["demo", "--agents", "40", "--cohort", given, "--out", str(tmp_path / "out")]) == 2
        err = capsys.readouterr().err
        assert "cohort" in err and len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "out").exists()
