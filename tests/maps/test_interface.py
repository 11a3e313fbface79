"""An interface is read from the folder it was saved to, and refuses what does not belong together."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from small_maps import ONE, TWO, cut, interface, people, some_prices, story, untrained

import walras.maps.interface as module
from walras.data.array_file import DamagedFileError
from walras.errors import InputError, SettingsError, ShapeError
from walras.maps.file import DUAL, PRIMAL
from walras.maps.history import History
from walras.maps.interface import FILES, SUPPORT_FILE, Interface
from walras.maps.support import TrainingSupport
from walras.policies.base_stock import ConstantOrder, PricedNewsvendor
from walras.population.cohort import UniformSample

PEOPLE = people()
STORY = story(PEOPLE)


def covered(maps: Interface) -> Interface:
    """Say that training saw populations like the tests' own, and prices up to a median margin."""
    rows = []
    for seed in range(12):
        population = people(seed=seed)
        rows.append(np.asarray(maps.encode(population, story(population, seed=seed)).primal.summary))
    return replace(maps, support=TrainingSupport.fit(rows, [np.linspace(0, 1, 9)], PricedNewsvendor(), weeks=64))


@pytest.fixture(scope="module")
def maps() -> Interface:
    return covered(interface())


def test_what_is_saved_answers_bit_for_bit(maps, tmp_path):
    place = tmp_path / "maps"
    maps.save(place)
    assert sorted(each.name for each in place.iterdir()) == sorted([*FILES.values(), SUPPORT_FILE])
    found = Interface.load(place)
    prices = some_prices(PEOPLE)
    old, new = (each.encode(PEOPLE, STORY) for each in (maps, found))
    np.testing.assert_array_equal(old.utilization(prices), new.utilization(prices))
    np.testing.assert_array_equal(old.shadow_prices(prices * 100), new.shadow_prices(prices * 100))
    assert found.facts == maps.facts and old.out_of_distribution == new.out_of_distribution


def test_saving_replaces_what_was_there_and_leaves_nothing_beside_it(maps, tmp_path):
    place = tmp_path / "maps"
    maps.save(place)
    Interface(untrained(), None).save(place)
    assert [each.name for each in place.iterdir()] == [FILES[PRIMAL]]
    assert [each.name for each in tmp_path.iterdir()] == ["maps"]
    found = Interface.load(place)
    assert found.dual is None and found.support is None


def test_a_folder_of_other_things_is_not_replaced(maps, tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match="holds thesis.txt, which is no part of an interface"):
        maps.save(tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        maps.save(tmp_path / "no" / "where")
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]


def test_folders_that_are_none_are_refused(maps, tmp_path):
    with pytest.raises(InputError, match=r"is no folder of trained maps; give one, .* \(default, retail\)"):
        Interface.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds neither primal.walras nor dual.walras; train maps into it with"):
        Interface.load(tmp_path)
    with pytest.raises(InputError, match="holds no map but needs one"):
        Interface(None, None)
    maps.save(tmp_path / "maps")
    place = tmp_path / "maps" / FILES[DUAL]
    place.write_bytes(place.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match="dual.walras is damaged"):
        Interface.load(tmp_path / "maps")


def test_maps_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match="a dual map was given as primal map"):
        Interface(untrained(DUAL), None)
    with pytest.raises(InputError, match="knows inbound_units but the dual map knows inbound_units, storage"):
        Interface(untrained(), untrained(DUAL, resources=TWO))
    with pytest.raises(InputError, match="is bottom-up, which adds up agents, but prices of agents do not add up"):
        Interface(None, untrained(DUAL, "bottom-up"))


def test_a_view_without_a_primal_map_says_so():
    view = Interface(None, untrained(DUAL)).encode(PEOPLE, STORY)
    for ask in (view.utilization, view.jacobian):
        with pytest.raises(InputError, match="holds no primal map but utilization needs one"):
            ask(some_prices(PEOPLE))
    assert view.shadow_prices(np.full((26, 1), 500.0)).shape == (26, 1)


def test_populations_that_do_not_fit_are_refused(maps):
    with pytest.raises(InputError, match="uses inbound_units, storage but the maps of the interface know inb"):
        maps.encode(people(resources=TWO), story(people(resources=TWO)))
    with pytest.raises(ShapeError, match=r"`history` has shape \(40, 1\) \(agents, resources\) but needs \(30, 1\)"):
        maps.encode(people(30), STORY)
    with pytest.raises(SettingsError, match="`weeks` is 28 but a view has 2 to 27 weeks"):
        maps.encode(PEOPLE, STORY, weeks=28)
    with pytest.raises(SettingsError, match="`reserve` is -1"):
        maps.encode(PEOPLE, STORY, reserve=-1.0)
    cohort = UniformSample().draw(np.ones(90), 20, np.random.default_rng(0))
    with pytest.raises(ShapeError, match="20 agents drawn of 90 but needs 40 agents as the population"):
        maps.encode(PEOPLE, STORY, cohort=cohort)


def test_a_cohort_is_read_of_many(maps, monkeypatch):
    monkeypatch.setattr(module, "COHORT", 25)
    views = [maps.encode(PEOPLE, STORY, seed=seed) for seed in (0, 0, 1)]
    drawn = [np.unique(np.asarray(view.primal.reader.cohort_index.index)) for view in views]
    assert len(drawn[0]) == 25 and (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()
    whole = interface().encode(PEOPLE, STORY)
    assert views[0].scale == whole.scale and not views[0].scale_error.any()


def test_queries_outside_of_training_are_reported(maps):
    view = maps.encode(PEOPLE, STORY, PricedNewsvendor())
    assert view.out_of_distribution == ()
    view.utilization(np.full((3, 26, 1), 0.9 * float(view.units.price[0])))
    assert view.out_of_distribution == () and view.queries == 3
    high = np.full((26, 1), 2.5 * float(view.units.price[0]))
    sentence = "prices up to 2.5 median margins were asked but training saw up to 1"
    assert view.check_query(shadow_prices=high) == (sentence,) and view.out_of_distribution == ()
    view.utilization(jnp.asarray(high, jnp.float32))
    assert view.out_of_distribution == (sentence,)
    first_week_only = np.zeros((26, 1))
    first_week_only[0] = 99.0
    assert view.check_query(shadow_prices=first_week_only) == ()


def test_another_population_policy_or_history_is_reported(maps):
    far = people(seed=1)
    far = replace(far, demand_scale=far.demand_scale * 50, unit_margin=far.unit_margin * jnp.arange(1.0, 41.0) ** 2)
    short = History(cut(STORY.agent_history, slice(-5, None)), STORY.known)
    policy = ConstantOrder(jnp.zeros(()))
    said = maps.encode(PEOPLE, short, policy).out_of_distribution
    assert "agents follow `ConstantOrder` but the maps were trained with `PricedNewsvendor`" in said
    assert "the history has 5 weeks but training saw no fewer than 64" in said
    assert "times as far" in " ".join(maps.encode(far, story(far)).out_of_distribution)
    assert "is not known" in interface().encode(PEOPLE, STORY).out_of_distribution[0]


def test_the_names_of_resources_are_the_maps(maps):
    assert maps.resources == ONE and Interface(None, untrained(DUAL, resources=TWO)).resources == TWO
