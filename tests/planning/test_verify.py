"""The phrase for a week is true of it: one case for each phrase."""

import numpy as np
import pytest

from walras.planning.prices.oracle import PathOutcome
from walras.planning.result import PlanRecord
from walras.planning.verify import AT_THE_TOP, week_verdicts

TOP = 5.0


def word(use, committed, price, capacity=100.0) -> str:
    """Judge one week."""
    count = len(use)

    def week(values) -> np.ndarray:
        return np.broadcast_to(np.asarray(values, float), (count,)).reshape(count, 1, 1).copy()

    one = np.ones((1, 1))
    record = PlanRecord(capacity * one, one, one, True, True, "", 1, 1)
    [found], _ = week_verdicts(record, PathOutcome(week(use), np.zeros(count), week(price)), week(committed), TOP)
    return found


@pytest.mark.parametrize(
    ("use", "committed", "price", "said"),
    [
        ([99, 100, 101, 100], 0, TOP, "fits"),
        ([110, 110, 110, 110], 105, TOP, "already committed"),
        ([110, 110, 110, 110], 50, AT_THE_TOP * TOP, "over at the highest price"),
        ([110, 110, 110, 110], 50, 0.5 * TOP, "over on 100 % of paths"),
        # The price is as high as any, but on average there is room.
        ([140, 60, 60, 60], 50, TOP, "over on 25 % of paths"),
        # The price is as high as any, but on the one path that is over nobody orders any more.
        ([140, 80, 80, 80], [140, 80, 80, 75], TOP, "already committed on 25 % of paths"),
        ([140, 90, 90, 90], [100, 90, 90, 85], TOP, "over at the highest price"),
    ],
)
def test_a_week_is_called_what_it_is(use, committed, price, said):
    assert word(use, committed, price) == said


def test_a_week_without_capacity_is_closed_if_only_committed_orders_use_it():
    assert word([27, 27], 27, 0.0, capacity=0.0) == "closed"
    assert word([477, 27], 27, TOP, capacity=0.0).startswith("closed, but used on")


def test_the_worst_resource_speaks_for_the_week():
    record = PlanRecord(np.full((2, 2), 100.0), np.ones((2, 2)), np.ones((2, 2)), True, True, "", 1, 1)
    use = np.asarray([[[102.0, 130.0], [130.0, 102.0]]])
    committed = np.asarray([[[102.0, 0.0], [0.0, 102.0]]])
    seen = PathOutcome(use, np.zeros(1), np.asarray([[[0.0, TOP], [0.0, TOP]]]))
    by_week, by_row = week_verdicts(record, seen, committed, TOP)
    assert by_week == ("over at the highest price", "over on 100 % of paths")
    assert by_row == ("already committed", *by_week, "already committed")
