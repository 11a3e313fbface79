"""Presets say everything once, and what is named later wins."""

import tomllib
from importlib.resources import files

import pytest

from walras.errors import SettingsError
from walras.maps.file import KINDS
from walras.train.dual_task import check_dual
from walras.train.primal_task import check_primal
from walras.train.settings import PRESETS, MapTraining, preset_values, read_map_training

FIELDS = set(MapTraining.model_fields)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_field_is_said_once_or_for_both_maps(preset):
    content = tomllib.loads((files("walras.train") / f"{preset}.toml").read_text())
    primal, dual = content.pop("primal"), content.pop("dual")
    assert set(primal) == set(dual)
    assert not set(content) & set(primal) and set(content) | set(primal) == FIELDS


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", KINDS)
def test_presets_are_valid_and_can_be_trained(preset, kind):
    settings, _ = read_map_training(kind, preset)
    assert settings.model_fields_set == FIELDS
    (check_dual if kind == "dual map" else check_primal)(settings)
    assert (
        settings.weeks <= settings.world_weeks - 8
        and settings.agents <= settings.population_size <= settings.world_agents
    )


def test_the_paper_preset_has_the_published_values():
    primal, dual = (read_map_training(kind, "paper")[0] for kind in ("primal map", "dual map"))
    for each in (primal, dual):
        assert (each.steps, each.agents, each.population_size, each.buckets) == (2000, 3000, 3000, 10)
        assert (each.history_width, each.future_width, each.decoder_width, each.attention_dim) == (32, 16, 32, 20)
        assert (each.first_origin, each.weeks - each.first_origin, each.burn_in) == (64, 156, 6)
        assert (each.clip_norm, each.last_rate, each.learning_rate) == (0.01, 1.0, 1e-3)
        assert each.representation == "bucketized"
    weights = (dual.violation_weight, dual.price_weight, dual.consistency_weight, dual.slackness_weight)
    assert weights == (100.0, 1.0, 100.0, 0.0)


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("steps = 7\nseed = 5\n")
    preset = preset_values("primal map", "small")
    chosen, _ = read_map_training("primal map", "small", path, MapTraining(seed=9))
    assert (chosen.steps, chosen.seed, chosen.weeks) == (7, 9, preset["weeks"])
    # A flag that says what the default would be is a choice all the same.
    default = MapTraining().steps
    assert default != 7
    assert read_map_training("primal map", "small", path, MapTraining(steps=default))[0].steps == default
    assert (
        read_map_training("dual map", "small")[0].steps
        == preset_values("dual map", "small")["steps"]
        != preset["steps"]
    )


def test_mistakes_are_one_sentence(tmp_path):
    with pytest.raises(SettingsError, match="preset `large` is not known; choose from small, paper"):
        preset_values("primal map", "large")
    path = tmp_path / "settings.toml"
    path.write_text("stepps = 7\n")
    with pytest.raises(SettingsError, match="stepps") as caught:
        read_map_training("primal map", "small", path)
    assert "\n" not in str(caught.value)
    path.write_text("spacing = 3\n")
    with pytest.raises(SettingsError, match="spacing"):
        read_map_training("primal map", "small", path)


def test_lengths_that_leave_nothing_to_learn_are_refused():
    check_primal(MapTraining(weeks=91, first_origin=64))
    with pytest.raises(SettingsError, match="leaves no origin with 26 weeks after it; raise `weeks` to 91"):
        check_primal(MapTraining(weeks=90, first_origin=64))
    check_dual(MapTraining(weeks=92, first_origin=64))
    with pytest.raises(SettingsError, match="leaves 27 weeks to coordinate, but 28 are needed"):
        check_dual(MapTraining(weeks=91, first_origin=64))
    with pytest.raises(SettingsError, match="`representation` is bottom-up but its outputs are sums over agents"):
        check_dual(MapTraining(representation="bottom-up"))


def test_former_names_still_work(tmp_path):
    with pytest.warns(FutureWarning, match="`target` is now called `population_size`"):
        assert MapTraining(target=48, rounds=1).model_fields_set == {"population_size", "warm_rounds"}
    path = tmp_path / "settings.toml"
    path.write_text("attention = 7\n")
    with pytest.warns(FutureWarning, match="`attention_dim`"):
        assert read_map_training("primal map", "small", path)[0].attention_dim == 7
    path.write_text("attention = 7\nattention_dim = 8\n")
    with pytest.raises(SettingsError, match="`attention` is the former name of `attention_dim`"):
        read_map_training("primal map", "small", path)
