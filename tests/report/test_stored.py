"""Stored plans: only what differs is said, and another capacity is estimated from what was simulated."""

from dataclasses import replace

import numpy as np
import pytest
import report_example

from walras.cli.app import main
from walras.errors import InputError
from walras.planning.capacity_response import JOINT, SIZES, CapacityResponse
from walras.report import page
from walras.report.stored import StoredPlan, compare_plans, comparison_parts, differs, other_capacity, what_if


def response() -> CapacityResponse:
    """A response of 26 weeks of which the tenth was simulated."""
    count, worth = 26, np.asarray([[-2000.0, 900.0, 1500.0, 1900.0]])
    capacity = np.full(count, 1e5)
    return CapacityResponse(
        weeks=report_example.START + 7 * np.arange(count),
        resources=np.asarray(["inbound units"]),
        capacity=capacity,
        use=0.9 * capacity,
        prices=np.where(np.arange(count) == 9, 0.4, 0.0),
        simulated=np.asarray([9]),
        worth=worth,
        repriced=np.tile(np.where(np.arange(count) == 9, 0.2, 0.0), (1, len(SIZES), 1)),
        joint=worth[0, : len(JOINT)],
        edges=np.tile([0.0, 1e5, 1.3e5], (count, 1)),
        rates=np.tile([0.01, 0.05], (count, 1)),
        ramps=np.full((2, count), 0.001),
        least=np.full(count, 9e4),
        errors=np.asarray([0.04]),
    )


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two stored plans: in the second one week has more capacity and one product is gone."""
    monkeypatch.setattr(page, "picture", lambda *_: ())
    first = report_example.plan(response=response())
    record = first.record
    capacity = record.capacity.copy()
    capacity[4] *= 1.2
    second = replace(
        first,
        record=replace(record, capacity=capacity),
        products={name: values[1:] for name, values in first.products.items()},
        money={**first.money, "plan_cost": 5e5},
    )
    for name, result in (("a", first), ("b", second)):
        page.write_report(result, tmp_path / name)
    return tmp_path / "a", tmp_path / "b"


def test_only_what_differs_is_compared(folders, capsys):
    first, second = map(StoredPlan.read, folders)
    found = compare_plans(first, second)
    assert list(found["money"]) == ["plan_cost"] and found["money"]["plan_cost"] == [4.27e5, 5e5]
    assert [(row["week"], list(row)) for row in found["weeks"]] == [("2011-08-01", ["week", "resource", "capacity"])]
    assert found["products"] == {"differing": [], "only_first": ["P <1>"], "only_second": []}
    assert main(["compare", *map(str, folders)]) == 0
    printed = capsys.readouterr().out
    assert "2011-08-01" in printed and "P <1>" in printed and "2011-08-08" not in printed
    same = compare_plans(first, first)
    assert comparison_parts(same) == ["The plans agree in settings, money, service, weeks and products (to 0.5 %)."]


def test_numbers_within_the_tolerance_of_a_search_are_the_same():
    assert not differs(100.0, 100.4) and differs(100.0, 102.0) and not differs(0.001, 0.002, scale=1.0)


@pytest.mark.parametrize("command", ["compare", "whatif"])
def test_a_folder_without_a_plan_is_refused_in_one_sentence(command, tmp_path, capsys):
    words = [str(tmp_path)] if command == "compare" else ["--capacity", "2011-09-05=1"]
    assert main([command, str(tmp_path), *words]) == 2
    assert "plan again" in capsys.readouterr().err


def test_another_capacity_is_estimated_with_its_cost(folders, capsys):
    assert main(["whatif", str(folders[0]), "--capacity", "2011-09-05=+10%"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "products earn +1,500" in printed and "off by 4" in printed and "searches anew" in printed
    known = response()
    found = what_if(known, other_capacity(known, ("2011-09-05=110000", "2011-07-04=100000")))
    # A tenth more at the second rate, and a ramp up and down again.
    assert found["cost"] == pytest.approx(1e4 * 0.05 + 2 * 1e4 * 0.001)
    assert found["worth"] == pytest.approx(1500)
    assert [row["week"] for row in found["weeks"]] == ["2011-09-05"]
    assert found["weeks"][0]["price"] == [0.4, pytest.approx(0.2)]
    assert not (found["beyond_simulated"] or found["beyond_purchase"])
    assert what_if(known, known.capacity * 2)["beyond_purchase"]
    # Less than what is paid for in any case saves nothing more.
    assert what_if(known, known.capacity * 0.5)["cost"] == what_if(known, known.capacity * 0.9)["cost"] < 0
    assert what_if(known, other_capacity(known, ("2011-07-04=50%", "2011-09-05=-5%")))["not_simulated"] == []
    assert what_if(known, other_capacity(known, ("2011-07-04=50000",)))["not_simulated"] == ["2011-07-04"]


@pytest.mark.parametrize("change", ["2011-09-06=5", "storage:2011-09-05=5", "2011-09-05=many", "2011-09-05=-5", "x"])
def test_a_change_that_cannot_be_read_is_named(change):
    with pytest.raises(InputError, match=change.replace("+", r"\+")):
        other_capacity(response(), (change,))
