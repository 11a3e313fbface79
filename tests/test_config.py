"""Settings are read as written, and every mistake in them is one sentence."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walras.config import (
    CompareSettings,
    CostSettings,
    PlanFields,
    PlanSettings,
    TableSettings,
    checked,
    read_costs,
    read_settings,
)
from walras.errors import SettingsError

FILE = """
weeks = 13
resources = ["inbound_units", "storage"]
static = "products.csv"

[economics]
holding_rate = 0.3

[columns]
units = "qty"
"""


def write(folder: Path, text: str, name: str = "plan.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_defaults_are_what_the_help_says():
    plan, table = read_settings(PlanSettings, None)
    assert plan == PlanSettings() and table == TableSettings()
    assert (plan.weeks, plan.resources, plan.regular_share) == (26, ("inbound_units",), 0.9)


def test_a_file_is_read(tmp_path):
    plan, table = read_settings(PlanSettings, write(tmp_path, FILE))
    assert plan.weeks == 13 and plan.resources == ("inbound_units", "storage")
    assert plan.economics.holding_rate == 0.3
    assert table.static == Path("products.csv") and table.columns == {"units": "qty"}


def test_flags_win_over_the_file_field_by_field(tmp_path):
    flags = PlanFields.model_validate({"weeks": 4, "economics": {"lost_sale_penalty": 0.1}})
    plan, table = read_settings(PlanSettings, write(tmp_path, FILE), flags, {"columns": {"price": "p"}})
    assert plan.weeks == 4 and plan.resources == ("inbound_units", "storage")
    assert (plan.economics.holding_rate, plan.economics.lost_sale_penalty) == (0.3, 0.1)
    assert table.columns == {"units": "qty", "price": "p"}


def test_fields_that_belong_together_are_checked_after_joining(tmp_path):
    flags = PlanFields.model_validate({"frozen_weeks": 20})
    with pytest.raises(SettingsError, match="`frozen_weeks` is 20, more than the 13 planned weeks"):
        read_settings(PlanSettings, write(tmp_path, FILE), flags)
    assert read_settings(PlanSettings, write(tmp_path, "weeks = 30"), flags)[0].frozen_weeks == 20


MISTAKES = [
    ({"weeks": 0}, "`weeks` is 0 in plan.toml; it must be greater than or equal to 1"),
    ({"weeks": "soon"}, "`weeks` is 'soon' in plan.toml; it must be a valid integer"),
    ({"weeks": True}, "`weeks` is true, which is no value for it; give it a value (in plan.toml)"),
    ({"weeks": 1.5}, "`weeks` is 1.5 in plan.toml; it must be a valid integer"),
    ({"weks": 26}, "`weks` in plan.toml is not a setting; did you mean `weeks`?"),
    ({"regular_share": float("nan")}, "`regular_share` is nan in plan.toml; it must be a finite number"),
    ({"resources": []}, "`resources` is [] in plan.toml; name at least one"),
    ({"resources": "storage"}, "`resources` is 'storage' in plan.toml; it must be a list"),
    ({"resources": ["storage", "storage"]}, "`resources` names a resource twice; name each once (in plan.toml)"),
    ({"rule": "luck"}, "`rule` is 'luck' in plan.toml; it must be 'consensus', 'marginal' or 'proximal'"),
    ({"economics": 3}, "`economics` is 3 in plan.toml; it must be a table of names and values"),
    ({"economics": {"holding_rat": 1}}, "`holding_rat` in plan.toml is not a setting; did you mean `holding_rate`?"),
    ({"economics": {"discount": 0}}, "`economics.discount` is 0 in plan.toml; it must be greater than 0.9"),
    ({"weeks": 0, "seed": -1}, "`weeks` is 0 in plan.toml; it must be greater than or equal to 1 (and 1 more)"),
]


@pytest.mark.parametrize("values, sentence", MISTAKES, ids=[str(values) for values, _ in MISTAKES])
def test_a_mistake_is_one_sentence(values, sentence):
    with pytest.raises(SettingsError) as caught:
        checked(PlanSettings, values, "plan.toml")
    assert str(caught.value) == sentence


def test_an_unknown_setting_far_from_all_lists_what_there_is(tmp_path):
    with pytest.raises(SettingsError, match=r"`zzz` in .*plan.toml is not a setting; there are weeks, resources"):
        read_settings(PlanSettings, write(tmp_path, "zzz = 1"))


@pytest.mark.parametrize(
    "text, fragment",
    [("weeks = ", "is not valid TOML: Invalid value"), ("weeks = 1\nweeks = 2", "not valid TOML"), ("= 3", "line 1")],
)
def test_bad_toml_names_the_file_and_the_line(tmp_path, text, fragment):
    with pytest.raises(SettingsError, match="plan.toml") as caught:
        read_settings(PlanSettings, write(tmp_path, text))
    assert fragment in str(caught.value)


def test_a_missing_file_and_a_binary_one(tmp_path):
    with pytest.raises(SettingsError, match="cannot read settings from .*none.toml"):
        read_settings(PlanSettings, tmp_path / "none.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00weeks")
    with pytest.raises(SettingsError, match="not valid TOML"):
        read_costs(binary)


RATES = "regular_rate = 0.1\novertime_rate = 0.2\nagency_rate = 0.3\n"


def test_costs_of_one_resource_stand_over_the_common_ones(tmp_path):
    costs = read_costs(
        write(tmp_path, f'rates = "money"\n{RATES}[resource.storage]\nregular_rate = 0.01\nramp_up = 0\n')
    )
    assert (costs.of("inbound_units").regular_rate, costs.of("storage").regular_rate) == (0.1, 0.01)
    assert costs.of("storage").overtime_rate == costs.of("inbound_units").overtime_rate == 0.2


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("regular_rate = 2\novertime_rate = 1", r"`overtime_rate` is 1, less than `regular_rate` \(2\)"),
        ("agency_limit = 1.1", r"`agency_limit` is 1.1, less than `overtime_limit` \(1.15\)"),
        ("lower_bound = 0.9\nupper_bound = 0.5", r"`upper_bound` is 0.5, less than `lower_bound` \(0.9\)"),
        ("regular_capacity = [10, -1]", "`regular_capacity` must be one number of at least 0"),
        ("regular_capacity = []", "`regular_capacity` must be one number of at least 0"),
        ("[resource.storage]\nregular_rat = 1", "`regular_rat` .* did you mean `regular_rate`"),
        ("[resource.storag]\nregular_rate = 1", "`resource.storag` .* it must be 'inbound_units', 'inbound_volume'"),
        (f"{RATES}[resource.storage]\nregular_rate = 1", r"`overtime_rate` is 0.2, less than `regular_rate` \(1\)"),
    ],
)
def test_costs_that_no_price_could_support_are_refused(tmp_path, text, sentence):
    with pytest.raises(SettingsError, match=sentence):
        read_costs(write(tmp_path, text))


def test_tiers_are_cut_at_the_upper_bound():
    assert CostSettings().tier_ends == CostSettings(upper_bound=2.0).tier_ends == (1.0, 1.15, 1.3)
    assert CostSettings(upper_bound=1.2).tier_ends == (1.0, 1.15, 1.2)
    assert CostSettings(upper_bound=1.0).tier_ends == (1.0, 1.0, 1.0)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.lists(st.one_of(st.integers(), st.text()), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


@given(
    kind=st.sampled_from([PlanSettings, CostSettings, TableSettings]),
    data=st.data(),
)
def test_any_value_is_taken_or_refused_in_one_sentence(kind, data):
    names = st.one_of(st.sampled_from(sorted(kind.model_fields)), st.text(max_size=8))
    values = data.draw(st.dictionaries(names, JUNK, max_size=3))
    try:
        assert isinstance(checked(kind, values, "plan.toml"), kind)
    except SettingsError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
        assert "plan.toml" in str(error) or "`" in str(error)


def test_flags_win_over_a_comparison_s_file_and_commas_part_names(tmp_path):
    file = write(
        tmp_path, 'holdout = 13\ndraws = 2\npolicies = "a, b"\nformat = "m5"\n[economics]\nholding_rate = 0.5\n'
    )
    chosen, table = read_settings(CompareSettings, file, CompareSettings(holdout=8, policies=("c,d", "e")))
    assert (chosen.holdout, chosen.draws, chosen.policies) == (8, 2, ("c", "d", "e"))
    assert chosen.economics.holding_rate == 0.5 and table.format == "m5"
    assert read_settings(CompareSettings, file)[0].policies == ("a", "b")
    with pytest.raises(SettingsError, match="`weeks` in .* is not a setting"):
        read_settings(CompareSettings, write(tmp_path, "weeks = 3\n"))
    with pytest.raises(SettingsError, match="`policies`"):
        read_settings(CompareSettings, write(tmp_path, "policies = 3\n"))
