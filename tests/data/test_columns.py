"""Hold the mapping of column names to its two ways in: options and a TOML file."""

import pytest

from walras.data.records import parse_options, read_mapping
from walras.errors import InputError, SettingsError


def test_options_become_a_mapping():
    assert parse_options(["units=qty", " ds = day "]) == {"units": "qty", "ds": "day"}


@pytest.mark.parametrize("option", ["units", "units=", "=qty", "amount=qty"])
def test_an_option_of_another_form_is_refused(option):
    with pytest.raises(SettingsError):
        parse_options([option])


def test_a_toml_file_becomes_a_mapping(tmp_path):
    path = tmp_path / "columns.toml"
    path.write_text('[columns]\nunits = "qty"\n')
    assert read_mapping(path) == {"units": "qty"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [("units = 'qty'\n", SettingsError), ("[columns\n", InputError), ("[columns]\nunits = 3\n", SettingsError)],
)
def test_a_bad_toml_file_is_refused(text, kind, tmp_path):
    path = tmp_path / "columns.toml"
    path.write_text(text)
    with pytest.raises(kind):
        read_mapping(path)
