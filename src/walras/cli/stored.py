"""`walras compare` and `walras whatif`: questions to plans that are already there."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from walras.cli import options
from walras.errors import SettingsError

PLAN_HELP = "folder that `walras plan` wrote"
Capacity = Annotated[
    tuple[str, ...],
    Parameter(
        name="--capacity",
        negative="",
        help="[RESOURCE:]WEEK=UNITS or WEEK=+10%, another capacity of one week; repeatable",
    ),
]


def compare_plans_command(
    first: Annotated[Path, Parameter(help=PLAN_HELP)],
    second: Annotated[Path, Parameter(help="the other one")],
    /,
    *,
    as_json: options.Json = False,
) -> None:
    """Say in what two plans differ, and only that: settings, money, service, weeks and products."""
    from walras.report.stored import StoredPlan, compare_plans, comparison_parts

    found = compare_plans(StoredPlan.read(first), StoredPlan.read(second))
    options.print_result(as_json, found, comparison_parts(found), [])


def what_if_command(
    plan: Annotated[Path, Parameter(help=PLAN_HELP)],
    /,
    *,
    capacity: Capacity = (),
    as_json: options.Json = False,
) -> None:
    """Estimate what another capacity in some weeks brings and costs, from a stored plan, without planning again."""
    from walras.planning.capacity_response import CapacityResponse
    from walras.report.stored import other_capacity, what_if, what_if_parts

    if not capacity:
        raise SettingsError("`--capacity` is missing; give a week and its capacity, as in --capacity 2026-11-09=52000")
    folder = plan.parent if plan.is_file() else plan
    response = CapacityResponse.load(folder / "capacity_response.npz")
    found = what_if(response, other_capacity(response, capacity))
    options.print_result(as_json, found, what_if_parts(found), [])
