"""Plans by learned maps: refused before any work where they must fail, calibrated and verified by simulation."""

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from small_maps import TWO, interface, untrained

import walras.planning.search as module
from walras.cli import app
from walras.config import CostSettings, PlanSettings
from walras.errors import InputError, SettingsError
from walras.maps.file import DUAL
from walras.maps.interface import Interface
from walras.maps.support import TrainingSupport
from walras.planning.plan import acquisition_cost
from walras.planning.prices.dual_ascent import ROUGH_SOLVER, solve_prices
from walras.planning.problem import PlanningProblem, build_problem
from walras.planning.search import MAX_FACTOR, CalibratedView, encode_population, load_maps, plan_by_maps, search_plan
from walras.policies.base_stock import PricedNewsvendor
from walras.population.generate import generate_panel
from walras.progress import Progress

WEEKS = 8
SETTINGS = PlanSettings(interface="learned", weeks=WEEKS, scenarios=2, paths=2, max_iterations=5)


@lru_cache
def case() -> PlanningProblem:
    return build_problem(generate_panel(agents=60, weeks=110, seed=0), SETTINGS)


def cost():
    return acquisition_cost(case().view, SETTINGS, CostSettings())


def test_a_corrected_view_is_right_where_it_was_simulated():
    view = CalibratedView.of(encode_population(case(), interface(), SETTINGS))
    prices = np.full((WEEKS, 1), 0.2 * view.price_scale)
    simulated = case().view.utilization(prices)
    plain = view.utilization(prices)
    corrected = view.calibrated_at(prices, np.clip(simulated, plain / 2, 2 * plain))
    np.testing.assert_allclose(corrected.utilization(prices), np.clip(simulated, plain / 2, 2 * plain), rtol=1e-6)
    np.testing.assert_allclose(
        corrected.jacobian(prices), view.jacobian(prices) * corrected.factor.reshape(-1, 1), rtol=1e-6
    )
    assert view.calibrated_at(prices, 100 * plain).factor.max() == MAX_FACTOR
    np.testing.assert_allclose(view.damped(corrected).factor ** 2, corrected.factor)
    # Where it is off by a factor, the capacity that fits is off by the same.
    room = 0.8 * corrected.utilization(prices)
    np.testing.assert_allclose(corrected.shadow_prices(room), view.shadow_prices(room / corrected.factor))


def test_without_a_dual_map_prices_are_searched_with_the_primal_one():
    view = CalibratedView.of(encode_population(case(), Interface(untrained(), None), SETTINGS))
    free = view.utilization(np.zeros((WEEKS, 1)))
    found = view.shadow_prices(np.stack([1.1 * free, 0.9 * free]))
    assert found.shape == (2, WEEKS, 1) and not found[0].any()
    np.testing.assert_array_equal(found[1], solve_prices(view, 0.9 * free, None, ROUGH_SOLVER).prices.reshape(WEEKS, 1))


def test_rounds_correct_and_simulation_judges():
    known, view, charged = case(), encode_population(case(), interface(), SETTINGS), cost()
    before = known.view.simulations
    record, found = plan_by_maps(known, view, charged, SETTINGS, Progress(), rounds=2)
    assert known.view.simulations - before == found.simulations > 4  # two rounds do not make untrained maps right
    assert len(found.errors) == 2 and found.interface == "learned"
    assert found.queries == view.queries == record.queries
    np.testing.assert_allclose(record.utilization, known.view.expected(record.shadow_prices))
    over = (record.utilization > 1.01 * record.capacity + 1e-6).any()
    assert record.feasible == (not over)


def test_what_does_not_settle_is_planned_as_without_maps(monkeypatch):
    known, charged = case(), cost()
    monkeypatch.setattr(module, "refine_by_simulation", lambda view, cost, record, *_: replace(record, converged=False))
    view = encode_population(known, interface(), SETTINGS)
    record, found = plan_by_maps(known, view, charged, SETTINGS, Progress(), rounds=1)
    alone = search_plan(known.view, charged, SETTINGS, Progress())
    np.testing.assert_array_equal(record.shadow_prices, alone.shadow_prices)
    np.testing.assert_array_equal(record.capacity, alone.capacity)
    assert "searched by simulation" in record.stop_reason and found.simulations > alone.queries / 2


def folder(tmp_path: Path, maps: Interface, name: str = "maps") -> str:
    maps.save(tmp_path / name)
    return str(tmp_path / name)


def test_no_round_at_all_is_refused():
    with pytest.raises(SettingsError, match="`rounds` is 0 but at least 1 is needed"):
        plan_by_maps(case(), encode_population(case(), interface(), SETTINGS), cost(), SETTINGS, Progress(), rounds=0)


def test_another_policy_than_that_of_training_is_kept_and_named(tmp_path):
    coverage = TrainingSupport.fit([None], [[0.0, 100.0]], PricedNewsvendor(), weeks=3)
    known = replace(case(), policy=PricedNewsvendor(discount=0.95))
    view = encode_population(known, replace(interface(), support=coverage), SETTINGS)
    assert "not the one with which the maps were trained" in " ".join(view.out_of_distribution)
    assert not encode_population(case(), replace(interface(), support=coverage), SETTINGS).out_of_distribution


@pytest.mark.parametrize(
    ("maps", "change", "words"),
    [
        (lambda: Interface(None, untrained(DUAL)), {}, "holds no primal map but a plan needs one"),
        (
            lambda: interface(resources=TWO),
            {},
            "`resources` is inbound_units but the maps of .* know inbound_units, storage;",
        ),
        (interface, {"weeks": 28}, "`weeks` is 28 but learned maps answer for 2 to 27"),
        (interface, {"resources": ("storage",)}, "`resources` is storage but the maps of"),
    ],
)
def test_maps_that_cannot_make_the_plan_are_refused_before_any_work(tmp_path, maps, change, words):
    place = folder(tmp_path, maps())
    with pytest.raises((InputError, SettingsError), match=words):
        load_maps(SETTINGS.model_copy(update={"maps": place, **change}))


def test_a_case_without_a_history_is_refused():
    with pytest.raises(InputError, match="build it with `interface` set to learned"):
        encode_population(replace(case(), history=None), interface(), SETTINGS)


def test_unknown_and_damaged_folders_end_in_one_sentence(tmp_path, capsys):
    place = Path(folder(tmp_path, interface()))
    (tmp_path / "empty").mkdir()
    file = place / "primal.walras"
    file.write_bytes(file.read_bytes()[:-7])
    words = "demo --agents 40 --history 60 --interface learned --out".split()
    missing = "holds neither primal.walras nor dual.walras; train maps into it with `walras train dual --out"
    bad = {"nowhere": "is no folder of trained maps", "empty": missing, place.name: "primal.walras"}
    for maps, said in ((str(tmp_path / name), said) for name, said in bad.items()):
        assert app.main([*words, str(tmp_path / "out"), "--maps", maps]) == 2
        err = capsys.readouterr().err
        assert said in err and len(err.strip().splitlines()) == 1
    assert app.main(["demo", "--maps", str(place)]) == 2
    assert "`maps` is given but `interface` is simulated" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_prints_and_writes_what_was_asked(tmp_path, capsys):
    coverage = TrainingSupport.fit([None], [[0.0, 1e-6]], PricedNewsvendor(), weeks=200)
    place = folder(tmp_path, replace(interface(), support=coverage))
    words = "demo --agents 60 --history 110 --weeks 8 --scenarios 2 --paths 2 --max-iterations 5 --no-reissue --json"
    words += " --cohort 30"
    out = tmp_path / "out"
    assert app.main([*words.split(), "--interface", "learned", "--maps", place, "--out", str(out)]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["interface"] == "learned" and answer["maps"] == place and answer["outside_training"] is True
    weeks, prices = reasons = answer["outside_training_reasons"]
    assert weeks == "the history has 95 weeks but training saw no fewer than 200" and prices.startswith("prices up to")
    assert answer["queries"] > 1 and answer["simulations"] > 5 and len(answer["map_errors"]) == 3
    assert answer["cohort"] == 30 and 0 < answer["simulations_of_everybody"] < answer["simulations"]
    assert {"Encoding the population", "Planning by learned maps"} <= set(answer["stages"])
    assert json.loads((out / "report.json").read_text())["outside_training_reasons"] == reasons
    page = (out / "report.html").read_text()
    # In the answer on top and in the table of what is real.
    assert page.count(weeks) == 2 and "used outside of their training" in page and "corrected and checked" in page
    assert "a cohort of 30 products" in page


def test_names_of_maps_that_do_not_come_with_walras_are_refused():
    with pytest.raises(InputError, match="is no folder of trained maps"):
        load_maps(SETTINGS.model_copy(update={"maps": "fancy"}))
