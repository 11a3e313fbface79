"""What charts select: the largest groups."""

import numpy as np
import pytest
import report_example

from walras.report import charts


def test_small_groups_are_summed_and_nothing_is_lost():
    without = np.linspace(1.0, 40.0, 40)
    labels, before, after = charts.largest_groups(
        report_example.group("category", tuple(map(str, range(40))), without, 0.9 * without)
    )
    assert len(labels) == len(before) == charts.MOST_GROUPS and labels[-1] == "29 others"
    assert before.sum() == pytest.approx(without.sum()) and after.sum() == pytest.approx(0.9 * without.sum())
