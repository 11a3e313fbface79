"""Own the finished plans on which reports are tested."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import report_example


@pytest.fixture
def result():
    """Give a plan of one resource with two weeks that do not fit."""
    return report_example.plan()


@pytest.fixture
def wide_result():
    """Give a plan of three resources, with names that need escaping."""
    return report_example.plan(("inbound units", "inbound <m3> & pallets", "storage units"))


@pytest.fixture
def easy_result():
    """Give a plan whose capacity never binds, so that most measures are not defined."""
    return report_example.plan(
        verified=report_example.empty_measures(),
        verified_fixed={},
        intervals={},
        groups=(),
        week_verdicts=("fits",) * 26,
    )
