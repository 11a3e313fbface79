"""Both maps are trained into one folder that can be loaded, and what does not fit is refused.

One tiny made-up world for all, with a policy that is quick to compile; two steps a map.
"""

import numpy as np
import pytest
from small_stretches import Shy

from walras.errors import InputError, SettingsError
from walras.maps.file import DUAL, PRIMAL, load_map
from walras.maps.interface import FILES, SUPPORT_FILE, Interface
from walras.population.generate import generate_panel
from walras.train import dual_task as dual
from walras.train import maps_training
from walras.train import primal_task as primal
from walras.train.maps_training import POOLS, _price_source, train_map
from walras.train.settings import MapTraining
from walras.train.shocks import DRAWN

SETTINGS = MapTraining(
    representation="global",
    delegates=0,
    steps=2,
    assess_every=1,
    checkpoint_every=1,
    population_size=32,
    agents=20,
    weeks=62,
    first_origin=30,
    rollouts_per_step=1,
    warm_rounds=1,
    worlds=1,
    world_agents=48,
    world_weeks=120,
    refit_weeks=52,
    history_width=3,
    future_width=3,
    decoder_width=3,
    attention_dim=3,
    buckets=2,
    tile=8,
)
POLICY = Shy()


def changed(**values) -> MapTraining:
    return SETTINGS.model_copy(update=values)


@pytest.fixture(scope="module", autouse=True)
def few():
    with pytest.MonkeyPatch.context() as patch:
        for module, examples in ((dual, 1), (primal, 1), (maps_training, 10)):
            patch.setattr(module, "EXAMPLES", examples)
        patch.setattr(dual, "VALIDATION", 1)
        patch.setattr(primal, "VALIDATION", 1)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "interface"
    return folder, [train_map(kind, None, SETTINGS, folder, policy=POLICY) for kind in (DUAL, PRIMAL)]


def test_both_maps_are_in_one_folder_that_can_be_loaded(trained):
    folder, fitted = trained
    assert [each.path for each in fitted] == [folder / FILES[kind] for kind in (DUAL, PRIMAL)]
    assert (folder / SUPPORT_FILE).is_file()
    found = Interface.load(folder)
    assert found.resources == ("inbound_units",) and found.support is not None
    assert found.primal.shape == found.dual.shape and found.primal.shape.history_width == 3
    np.testing.assert_array_equal(found.primal.edges, found.dual.edges)
    facts = found.facts[PRIMAL]
    assert facts["trained_on"] == "1 made-up worlds" and facts["steps"] == 2 and facts["settings"]["weeks"] == 62
    assert np.shape(facts["relative_error"]) == (26, 1) and set(found.facts[DUAL]["terms"]) >= {"violation", "price"}
    ours = np.asarray(fitted[1].parameters.basis.layers[0].weight)
    np.testing.assert_array_equal(found.primal.network.basis.layers[0].weight, ours)


def test_worlds_are_made_once(trained, monkeypatch):
    """Both maps read the same files, and a training that goes on gives the same file."""
    folder, fitted = trained
    assert len(list((folder / POOLS).iterdir())) == 2
    monkeypatch.setattr("walras.train.maps_training.pools_from_generator", None)
    before = (folder / FILES[PRIMAL]).read_bytes()
    again = train_map(PRIMAL, None, SETTINGS, folder, policy=POLICY)
    assert again.step == 2 and (folder / FILES[PRIMAL]).read_bytes() == before


@pytest.fixture
def lazy(monkeypatch):
    """Make worlds a mistake: what is refused is refused before."""
    monkeypatch.setattr("walras.train.maps_training.pools_from_generator", None)


@pytest.mark.parametrize(
    "kind, name, value", [(PRIMAL, "learning_rate", 0.5), (DUAL, "world_agents", 64), (PRIMAL, "steps", 1)]
)
def test_a_folder_of_other_settings_is_refused_before_worlds_are_made(trained, lazy, kind, name, value):
    with pytest.raises(SettingsError, match=f"`{name}` is {value} but .* holds a training") as caught:
        train_map(kind, None, changed(**{name: value}), trained[0], policy=POLICY)
    assert "\n" not in str(caught.value)


def test_maps_of_one_folder_price_the_same(trained, lazy):
    with pytest.raises(SettingsError, match="`resources` is storage but the dual map in .* prices inbound_units"):
        train_map(PRIMAL, None, changed(resources=("storage",)), trained[0], policy=POLICY)


@pytest.mark.parametrize(
    "kind, settings, sentence",
    [
        (DUAL, {"representation": "bottom-up"}, "`representation` is bottom-up but"),
        (DUAL, {"first_origin": 40}, "leaves 22 weeks to coordinate"),
        (PRIMAL, {"first_origin": 40}, "leaves no origin with 26 weeks after it"),
        (
            PRIMAL,
            {"masked_features": ("prices",)},
            "`masked_features` has prices but delegates and planners who propose prices know them",
        ),
        (DUAL, {"masked_features": ("prices",)}, "`masked_features` has prices but a dual map is what issues them"),
        (PRIMAL, {"weeks": 113}, "`weeks` is 113 but generated pools of `world_weeks` 120 have 112"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_once(lazy, tmp_path, kind, settings, sentence):
    with pytest.raises(SettingsError, match=sentence) as caught:
        train_map(kind, None, changed(**settings), tmp_path / "maps", policy=POLICY)
    assert "\n" not in str(caught.value) and not (tmp_path / "maps").exists()


def test_a_table_that_is_too_short_is_refused(tmp_path):
    panel = generate_panel(agents=40, weeks=100)
    with pytest.raises(InputError, match="the table has 100 weeks, 52 of them held out, but rollouts of `weeks` 62"):
        train_map(PRIMAL, panel, changed(world_weeks=60), tmp_path / "maps", policy=POLICY)
    assert not (tmp_path / "maps").exists()


@pytest.mark.slow
def test_a_map_to_compare_shares_pools_and_is_trained_without_its_support(trained, tmp_path):
    """What it does not see is in its file."""
    shared = trained[0] / POOLS
    before = {path.name: path.stat().st_mtime_ns for path in shared.iterdir()}
    settings = changed(
        representation="moments", delegates=0, steps=1, masked_features=("economics", "prices"), prices="haar"
    )
    again = load_map(train_map(PRIMAL, None, settings, tmp_path, pools=shared, support=False).path, PRIMAL)
    assert not (tmp_path / SUPPORT_FILE).exists()
    assert {path.name: path.stat().st_mtime_ns for path in shared.iterdir()} == before
    hidden = np.flatnonzero(np.asarray(again.scaling.attributes)[1] > 1e20)
    assert hidden.tolist() == [1, 2, 3] and again.facts["settings"]["prices"] == "haar"
    assert not again.shape.sees_prices and not again.network.sees_prices


@pytest.mark.parametrize(("prices", "proposed"), [("mixed", True), ("drawn", False), ("haar", False)])
def test_planners_propose_prices_only_where_asked(prices, proposed, tmp_path):
    assert (_price_source(changed(prices=prices), tmp_path) is not None) == proposed
    assert set(DRAWN[prices]) == ({"haar"} if prices == "haar" else {"none", "haar", "pulses"})
