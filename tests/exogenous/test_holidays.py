"""Own the proof that holidays fall on their days, and that distances count whole weeks.

FREE: dates looked up by hand.
"""

import numpy as np
import pytest

from walras.exogenous.calendar import FARTHEST, black_friday, easter, holiday_distance


@pytest.mark.parametrize("day", ["1961-04-02", "2000-04-23", "2008-03-23", "2011-04-24", "2019-04-21", "2024-03-31"])
def test_easter_is_on_its_sunday(day):
    assert easter(int(day[:4])) == np.datetime64(day)


@pytest.mark.parametrize("day", ["2018-11-23", "2019-11-29", "2022-11-25", "2023-11-24"])
def test_black_friday_follows_the_fourth_thursday(day):
    assert black_friday(int(day[:4])) == np.datetime64(day)


def test_distances_count_weeks_to_either_side():
    # Mondays; Christmas 2023 is a Monday, so that New Year's Day is the first day of the week after.
    weeks = FARTHEST * holiday_distance(np.datetime64("2023-11-20"), 9)
    np.testing.assert_array_equal(weeks[:, 0], [0, 1, 2, 3, 4, 0, 0, 1, 2])
    np.testing.assert_array_equal(weeks[:, 1], [0, 4, 3, 2, 1, 0, 0, FARTHEST, FARTHEST])


def test_distances_do_not_depend_on_where_the_weeks_begin():
    whole = holiday_distance(np.datetime64("2020-01-06"), 200)
    np.testing.assert_array_equal(holiday_distance(np.datetime64("2020-01-06") + 7 * 60, 140), whole[60:])
    assert whole.min() == 0 and whole.max() == 1
