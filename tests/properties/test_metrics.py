"""Measures keep what holds for every study (hypothesis)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from walras.evaluation.metrics import ControlMetrics, control_tally


def control_metrics(**study: np.ndarray) -> ControlMetrics:
    return control_tally(**study).metrics()


# Whole numbers, so that comparisons with 0.9 K and 1.1 K do not hang on the last bit when units change.
amounts = st.integers(0, 300).map(float)


@st.composite
def studies(draw) -> dict[str, np.ndarray]:
    shape = tuple(draw(st.integers(1, 4)) for _ in range(3))
    used, free, capacity, share = (draw(arrays(float, shape, elements=amounts)) for _ in range(4))
    # What is in the pipeline arrives whatever is ordered later, so that utilization is at least that.
    return {"utilization": used, "unconstrained": free, "capacity": capacity, "committed": used * share / 300.0}


@given(studies())
@settings(max_examples=60)
def test_bounds(study):
    got = control_metrics(**study)
    shares = (got.near_limit_share, got.share_weeks_over_10_percent, got.near_limit_share_over_10_percent)
    assert all(share is None or 0 <= share <= 1 for share in shares)
    assert got.idle_capacity is None or 0 <= got.idle_capacity <= 1
    assert all(value is None or np.isfinite(value) for value in got.as_dict().values())
    if got.mean_violation is not None:
        assert got.mean_violation >= 0
        assert -1e-12 <= got.avoidable_violation <= got.mean_violation
        assert got.irreducible_violation + got.avoidable_violation == pytest.approx(got.mean_violation)


@given(studies(), st.integers(-8, 8))
@settings(max_examples=40)
def test_units_of_the_resource_change_no_ratio(study, power):
    scaled = {name: values * 2.0**power for name, values in study.items()}
    assert control_metrics(**scaled).as_dict() == pytest.approx(control_metrics(**study).as_dict())


@given(studies(), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_order_of_paths_and_resources_changes_nothing(study, random):
    paths, _, resources = study["utilization"].shape
    order = random.sample(range(paths), paths), random.sample(range(resources), resources)
    shuffled = {name: values[order[0]][:, :, order[1]] for name, values in study.items()}
    assert control_metrics(**shuffled).as_dict() == pytest.approx(control_metrics(**study).as_dict())


@given(studies(), st.data())
@settings(max_examples=40)
def test_any_cut_in_weeks_adds_up(study, data):
    cut = data.draw(st.integers(1, study["utilization"].shape[1]))
    first = control_tally(**{name: values[:, :cut] for name, values in study.items()})
    rest = {name: values[:, cut:] for name, values in study.items()}
    merged = first + control_tally(**rest) if rest["utilization"].size else first
    assert merged.metrics().as_dict() == pytest.approx(control_metrics(**study).as_dict())


@given(studies())
@settings(max_examples=40)
def test_more_use_never_means_less_violation(study):
    more = {**study, "utilization": study["utilization"] + 10.0}
    less_violation, more_violation = control_metrics(**study).mean_violation, control_metrics(**more).mean_violation
    assert less_violation is None or more_violation >= less_violation
