"""Finished plans on which reports are tested; the page with charts is rendered once."""

import pytest
import report_example

from walras.report.page import write_report


@pytest.fixture(scope="session")
def result():
    """A plan of one resource with two weeks that exceed capacity."""
    return report_example.plan()


@pytest.fixture(scope="session")
def wide_result():
    """A plan of three resources, with names that need escaping."""
    return report_example.plan(("inbound units", "inbound <m3> & pallets", "storage units"))


@pytest.fixture(scope="session")
def easy_result():
    """A plan whose capacity never binds, so that most measures are not defined."""
    return report_example.plan(
        verified=report_example.empty_measures(),
        verified_fixed={},
        intervals={},
        groups=(),
        week_verdicts=("fits",) * 26,
    )


@pytest.fixture(scope="session")
def written(wide_result, tmp_path_factory):
    """The files of the plan of three resources."""
    folder = tmp_path_factory.mktemp("report") / "new" / "report"
    return {path.name: path for path in write_report(wide_result, folder)}
