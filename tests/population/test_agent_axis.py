"""Ask whether a bad number is named by its agent."""

import numpy as np
import pytest

from walras.errors import InputError, SettingsError, ShapeError
from walras.population.agent_axis import per_agent, whole_count


def test_good_numbers_pass_as_floats():
    found = per_agent("size", np.array([1, 0, 3]), 3, lowest=0.0)
    assert found.dtype == float and found.tolist() == [1.0, 0.0, 3.0]
    assert per_agent("margin", np.array([-1.5])).tolist() == [-1.5]
    assert whole_count("n", 1) == 1


@pytest.mark.parametrize(
    ("values", "needed", "kind", "sentence"),
    [
        (np.ones((2, 3)), None, ShapeError, r"`size` has shape \(2, 3\) but needs \(agent,\); give one number"),
        (np.ones(3), 4, ShapeError, r"`size` has shape \(3,\) but needs \(4,\); give one number"),
        (np.ones(0), None, InputError, "`size` is empty but needs at least one agent; give"),
        (np.array([1.0, np.inf]), 2, InputError, "`size` of agent 1 is inf but must be finite and at least 0; correct"),
        (np.array([-2, 1]), 2, InputError, "`size` of agent 0 is -2 but must be finite and at least 0; correct"),
    ],
)
def test_bad_numbers_end_in_a_sentence(values, needed, kind, sentence):
    with pytest.raises(kind, match=sentence):
        per_agent("size", values, needed, lowest=0.0)


def test_values_without_a_lowest_must_be_finite():
    with pytest.raises(InputError, match="`margin` of agent 0 is nan but must be a finite number; correct or leave it"):
        per_agent("margin", np.array([np.nan]))


def test_counts_below_the_lowest_end_in_a_sentence():
    with pytest.raises(SettingsError, match="`n` is 1 but must be at least 2; give a larger number"):
        whole_count("n", 1, 2)
