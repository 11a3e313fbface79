"""Labels do not overlap."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from walras.report import style


@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=8))
def test_labels_never_overlap_and_stay_inside(wanted):
    heights = [0.1] * len(wanted)
    places = style.spread(wanted, heights)
    ordered = np.sort(places)
    assert np.all(np.diff(ordered) >= 0.1 - 1e-9)
    assert ordered[0] >= 0.05 - 1e-9 and ordered[-1] <= 0.95 + 1e-9


def test_labels_with_room_stay_where_they_are():
    assert style.spread([0.2, 0.8], [0.1, 0.1]) == [0.2, 0.8]
