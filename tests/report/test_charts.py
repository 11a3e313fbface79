"""What charts select: the largest groups, the residuals of the loop."""

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


def test_trace_without_residuals_draws_nothing():
    assert charts.residuals(()) == {}
    assert charts.residuals(({"cost": 1.0}, {"cost": 2.0})) == {}
    assert list(charts.residuals(({"residual": 0.1, "cost": 1.0}, {"residual": 0.01, "cost": 1.0}))) == ["residual"]
