"""Hold the mapping of column names as given by options."""

import pytest

from walras.data.records import parse_options
from walras.errors import SettingsError


def test_options_become_a_mapping():
    assert parse_options(["units=qty", " ds = day "]) == {"units": "qty", "ds": "day"}


@pytest.mark.parametrize("option", ["units", "units=", "=qty", "amount=qty"])
def test_an_option_of_another_form_is_refused(option):
    with pytest.raises(SettingsError):
        parse_options([option])
