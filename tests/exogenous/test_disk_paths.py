"""Ask whether paths on disk come back as they were, by any range, and whether broken folders are named."""

import dataclasses
import json
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shops import MAX_LEAD, WEEKS, assert_same, happenings, shop

from walras.errors import InputError, ShapeError
from walras.exogenous.arrivals import Chained, ConstantLeadTime, FillRate
from walras.exogenous.disk_paths import PathsWriter, StoredPaths

AGENTS, CUT = 23, 9


def cut(tree, start, stop, axis):
    """Take a range of agents out of arrays that are in memory."""
    return jax.tree.map(lambda leaf: jax.lax.slice_in_dim(leaf, start, stop, axis=axis % leaf.ndim), tree)


def stored(folder, population, exogenous, size=CUT, **options):
    """Write in ranges, and open."""
    agents = population.n_agents
    with PathsWriter(folder, agents, **options) as writer:
        for start in range(0, agents, size):
            stop = min(start + size, agents)
            writer.write(cut(population, start, stop, 0), cut(exogenous, start, stop, -1))
    return StoredPaths.open(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Store one shop; tests copy what they break."""
    folder = tmp_path_factory.mktemp("stored") / "paths"
    population = shop(AGENTS)
    exogenous = happenings(population, supply=True)
    return population, exogenous, stored(folder, population, exogenous)


@pytest.mark.parametrize("start, stop", [(0, AGENTS), (0, 1), (7, 12), (22, 23)])
def test_any_range_comes_back_to_the_bit(whole, start, stop):
    population, exogenous, folder = whole
    assert_same(folder.read(start, stop), cut(exogenous, start, stop, -1))
    assert_same(folder.population(start, stop), cut(population, start, stop, 0))
    assert folder.population(start, stop).resources == population.resources


def test_sizes_are_known(whole):
    folder = whole[2]
    assert (folder.n_agents, folder.n_weeks, folder.max_lead) == (AGENTS, WEEKS, MAX_LEAD)


@pytest.mark.parametrize("scenarios", [None, 2])
def test_shares_and_scenarios_come_back(tmp_path, scenarios):
    population = shop(AGENTS)
    exogenous = happenings(population, kind="shares", scenarios=scenarios)
    folder = stored(tmp_path / "paths", population, exogenous)
    assert_same(folder.read(4, 20), cut(exogenous, 4, 20, -1))
    assert folder.read(0, 1).supply is None
    assert folder.max_lead == MAX_LEAD


def test_one_lead_time_for_all_and_one_row_for_all_weeks_come_back(tmp_path, whole):
    exogenous = dataclasses.replace(whole[1], arrivals=ConstantLeadTime(2), unit_cost=whole[1].unit_cost[:1])
    folder = stored(tmp_path / "paths", whole[0], exogenous)
    assert_same(folder.read(4, 20), cut(exogenous, 4, 20, -1))
    assert folder.read(4, 20).arrivals == ConstantLeadTime(2) and folder.max_lead == 2


def test_a_law_of_supply_made_of_others_comes_back(tmp_path, whole):
    law = Chained(FillRate(whole[1].unit_cost / 8), whole[1].supply)
    exogenous = dataclasses.replace(whole[1], supply=law)
    folder = stored(tmp_path / "paths", whole[0], exogenous)
    assert_same(folder.read(4, 20), cut(exogenous, 4, 20, -1))
    assert isinstance(folder.read(4, 20).supply.first, FillRate)


def test_the_files_are_plain_arrays_in_narrow_types(whole):
    exogenous, folder = whole[1], whole[2].folder
    mapped = np.load(folder / "exogenous.demand.npy", mmap_mode="r")
    np.testing.assert_array_equal(mapped, np.asarray(exogenous.demand))
    assert mapped.dtype == np.dtype("<f4")
    weeks = eqx.tree_at(lambda e: e.arrivals.weeks, exogenous, exogenous.arrivals.weeks.astype(jnp.int32))
    wide = stored(folder.parent / "wide", whole[0], weeks)
    assert np.load(wide.folder / "exogenous.arrivals.weeks.npy").dtype == np.int8
    assert_same(wide.read(0, 5), cut(exogenous, 0, 5, -1))


@pytest.mark.parametrize("kind", ["uint8", "int16", "float16"])
def test_whole_demand_fits_narrower_types(tmp_path, whole, kind):
    folder = stored(tmp_path / "paths", *whole[:2], stored_as={"exogenous.demand": kind})
    assert np.load(folder.folder / "exogenous.demand.npy").dtype == kind
    assert_same(folder.read(3, 20), cut(whole[1], 3, 20, -1))


@pytest.mark.parametrize("value, kind", [(0.5, "uint16"), (70000.0, "uint16"), (2049.0, "float16"), (np.nan, "int8")])
def test_a_type_that_would_lose_something_is_refused(tmp_path, whole, value, kind):
    exogenous = eqx.tree_at(lambda e: e.demand, whole[1], whole[1].demand.at[2, 3].set(value))
    with pytest.raises(InputError, match="exogenous.demand.*cannot hold"):
        stored(tmp_path / "paths", whole[0], exogenous, stored_as={"exogenous.demand": kind})
    assert list(tmp_path.iterdir()) == []


def test_a_lead_time_beyond_a_byte_is_refused_and_can_be_widened(tmp_path, whole):
    weeks = whole[1].arrivals.weeks.astype(jnp.int32).at[0, 0].set(200)
    exogenous = eqx.tree_at(lambda e: e.arrivals.weeks, whole[1], weeks)
    with pytest.raises(InputError, match="arrivals.weeks.*int32"):
        stored(tmp_path / "paths", whole[0], exogenous)
    folder = stored(tmp_path / "paths", whole[0], exogenous, stored_as={"exogenous.arrivals.weeks": "uint8"})
    assert folder.max_lead == 200 and int(folder.read(0, 1).arrivals.weeks[0, 0]) == 200


def test_the_identity_follows_the_numbers(tmp_path, whole):
    other = eqx.tree_at(lambda e: e.sale_price, whole[1], whole[1].sale_price.at[0, -1].add(1.0))
    assert stored(tmp_path / "same", *whole[:2]).identity == whole[2].identity
    assert stored(tmp_path / "other", whole[0], other).identity != whole[2].identity


def test_an_interrupted_write_leaves_nothing(tmp_path, whole):
    with pytest.raises(KeyboardInterrupt), PathsWriter(tmp_path / "paths", AGENTS) as writer:
        writer.write(cut(whole[0], 0, CUT, 0), cut(whole[1], 0, CUT, -1))
        assert not (tmp_path / "paths").exists()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def write_once(folder, whole, agents=AGENTS, change=lambda e: e, **options):
    with PathsWriter(folder, agents, **options) as writer:
        writer.write(cut(whole[0], 0, CUT, 0), cut(whole[1], 0, CUT, -1))
        writer.write(cut(whole[0], CUT, AGENTS, 0), change(cut(whole[1], CUT, AGENTS, -1)))


MISWRITTEN = {
    "too few": (dict(agents=AGENTS + 1), InputError, "23 agents were written but 24 announced"),
    "too many": (dict(agents=AGENTS - 1), InputError, "23 agents were written but 22 announced"),
    "none": (dict(agents=0), InputError, "at least 1 agent"),
    "other fields": (dict(change=lambda e: dataclasses.replace(e, supply=None)), InputError, "other fields"),
    "other weeks": (dict(change=lambda e: cut(e, 0, 5, 0)), ShapeError, "exogenous.demand.*shape"),
    "no such type": (dict(stored_as={"exogenous.demand": "object"}), InputError, "types of files are"),
    "no such field": (dict(stored_as={"demand": "uint16"}), InputError, "names demand but"),
}


@pytest.mark.parametrize("options, error, sentence", MISWRITTEN.values(), ids=MISWRITTEN)
def test_a_wrong_write_is_one_sentence_and_leaves_nothing(tmp_path, whole, options, error, sentence):
    with pytest.raises(error, match=sentence):
        write_once(tmp_path / "paths", whole, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept(tmp_path, whole):
    (tmp_path / "paths").mkdir()
    with pytest.raises(InputError, match="exists already"):
        write_once(tmp_path / "paths", whole)
    with pytest.raises(InputError, match="cannot be written"):
        write_once(tmp_path / "nowhere" / "paths", whole)


def edited(**changes):
    """Change the manifest of a folder."""

    def apply(folder):
        place = folder / "manifest.json"
        place.write_text(json.dumps({**json.loads(place.read_text()), **changes}))

    return apply


def array_edited(name, **changes):
    """Change one array's entry in the manifest."""

    def apply(folder):
        arrays = json.loads((folder / "manifest.json").read_text())["arrays"]
        edited(arrays={**arrays, name: {**arrays["exogenous.demand"], **changes}})(folder)

    return apply


def cut_file(folder):
    place = folder / "exogenous.unit_cost.npy"
    place.write_bytes(place.read_bytes()[:-1])


def other_array(folder):
    np.save(folder / "exogenous.unit_cost.npy", np.zeros(3))


BROKEN = {
    "missing folder": (shutil.rmtree, "not a folder"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "holds no readable manifest.json"),
    "not json": (lambda f: (f / "manifest.json").write_bytes(b"\xff{"), "not JSON"),
    "a list": (lambda f: (f / "manifest.json").write_text("[1]"), "does not say that it is one"),
    "another kind": (edited(kind="something"), "does not say that it is one"),
    "newer": (edited(schema=2), "schema 2 but this version reads up to 1; upgrade"),
    "no arrays": (edited(arrays=None), "no manifest of stored paths"),
    "unknown class": (edited(classes={"exogenous.arrivals": "os.system"}), "names os.system"),
    "class of a wrong type": (edited(classes={"exogenous.arrivals": ["x"]}), "no manifest of stored paths"),
    "wrong number of agents": (edited(n_agents=5), "do not match its shapes"),
    "objects": (array_edited("exogenous.demand", stored="|O"), "none that is stored"),
    "huge": (array_edited("exogenous.demand", shape=[WEEKS, 10**12]), "do not match its shapes"),
    "elsewhere": (array_edited("exogenous./etc/x"), "no field"),
    "cut short": (cut_file, "unit_cost.npy has .* bytes but needs"),
    "other array": (other_array, "not the array of its manifest"),
    "text for an array": (lambda f: (f / "exogenous.demand.npy").write_text("units"), "not a readable array"),
    "lost file": (lambda f: (f / "exogenous.demand.npy").unlink(), "is missing"),
}


@pytest.mark.parametrize("harm, sentence", BROKEN.values(), ids=BROKEN)
def test_a_broken_folder_is_one_sentence(tmp_path, whole, harm, sentence):
    folder = tmp_path / "paths"
    shutil.copytree(whole[2].folder, folder)
    harm(folder)
    with pytest.raises(InputError, match=sentence) as caught:
        StoredPaths.open(folder)
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_after_opening_is_one_sentence(tmp_path, whole):
    folder = tmp_path / "paths"
    shutil.copytree(whole[2].folder, folder)
    opened = StoredPaths.open(folder)
    cut_file(folder)
    assert_same(opened.read(0, 5), cut(whole[1], 0, 5, -1))
    with pytest.raises(InputError, match="bytes but needs"):
        opened.read(5, AGENTS)


def test_a_lost_field_is_one_sentence(tmp_path, whole):
    folder = tmp_path / "paths"
    shutil.copytree(whole[2].folder, folder)
    arrays = json.loads((folder / "manifest.json").read_text())["arrays"]
    del arrays["exogenous.sale_price"]
    edited(arrays=arrays)(folder)
    with pytest.raises(InputError, match="sale_price"):
        StoredPaths.open(folder).read(0, 5)


@pytest.mark.parametrize("start, stop", [(-1, 3), (0, AGENTS + 1), (5, 5), (9, 3)])
def test_a_range_outside_is_one_sentence(whole, start, stop):
    with pytest.raises(InputError, match="holds 0 to 22"):
        whole[2].read(start, stop)
