"""Own the object that programs read of a finished plan: `report.json`, and what `walras plan --json` prints.

CONTRACT: keys stay; new ones may be added. It is strict JSON: what is missing or not finite is null.
"""

import json
import math
from collections.abc import Mapping
from datetime import date
from pathlib import PurePath
from typing import Any

import numpy as np

from walras.planning.result import PlanResult, quantile_names


def plain(value: Any) -> Any:
    """Turn numbers, arrays, dates and mappings into what JSON can hold."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, date | np.datetime64 | PurePath):
        return str(value)
    if isinstance(value, np.ndarray):
        return [plain(item) for item in (value.astype(str) if value.dtype.kind == "M" else value).tolist()]
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def by_resource(result: PlanResult, values: np.ndarray) -> dict[str, list[float | None]]:
    """Split [week, resource] into one list over weeks per resource."""
    return {name: plain(np.asarray(values)[:, index]) for index, name in enumerate(result.resources)}


def fan(result: PlanResult, values: np.ndarray) -> dict[str, dict[str, list[float | None]]]:
    """Split [quantile, week, resource] into p5, p50, p95, each by resource."""
    return {name: by_resource(result, values[index]) for index, name in enumerate(quantile_names())}


def assumed_columns(result: PlanResult) -> list[str]:
    """Name the fields whose numbers were assumed, not given."""
    return sorted(name for name, origin in result.provenance.items() if origin.startswith("assumed"))


def total_seconds(result: PlanResult) -> float:
    """Read the wall time in all; without a `total` the stages are added."""
    return float(result.seconds.get("total", sum(stages(result).values())))


def stages(result: PlanResult) -> dict[str, float]:
    """Read the wall time by stage, each stage once."""
    # Commands add `reading`, which covers the stage of that name and more.
    twice = {"reading"} if {"Reading the table", "Making up a population"} & set(result.seconds) else set()
    return {name: value for name, value in result.seconds.items() if name != "total" and name not in twice}


def summary(result: PlanResult) -> dict[str, Any]:
    """Collect everything a program may want to read of a plan, ready for strict JSON.

    Args:
        result: a finished plan.

    Returns:
        Plain dictionaries, lists, strings and numbers; per-week values are lists in the order of `weeks`.
    """
    return {**_plan(result), **_verification(result), **_background(result)}


def _plan(result: PlanResult) -> dict[str, Any]:
    record = result.record
    return {
        "feasible": bool(record.feasible),
        "converged": bool(record.converged),
        "stop_reason": record.stop_reason,
        "verdict": plain(result.verdict),
        "weeks": plain(result.weeks),
        "resources": list(result.resources),
        "capacity": by_resource(result, record.capacity),
        "regular_capacity": by_resource(result, result.regular_capacity),
        "utilization": by_resource(result, record.utilization),
        "shadow_prices": by_resource(result, record.shadow_prices),
        "reissued_prices": by_resource(result, result.reissued_prices),
        "committed": by_resource(result, result.committed),
        "week_verdicts": plain(result.week_verdicts),
        "iterations": int(record.iterations),
        "queries": int(record.queries),
        "simulations": int(result.search.simulations),
        "simulations_of_everybody": int(result.search.everybody),
        "cohort": int(result.search.cohort) or None,
        "interface": result.search.interface,
        "maps": result.search.maps or None,
        "map_errors": plain(result.search.errors),
        "moved": result.moved,
        "outside_training": bool(result.search.outside_training),
        "outside_training_reasons": plain(result.search.outside_training),
        "trace": plain(record.trace),
    }


def _verification(result: PlanResult) -> dict[str, Any]:
    return {
        "unconstrained": fan(result, result.unconstrained),
        "verified_utilization": fan(result, result.verified_utilization),
        "fixed_utilization": fan(result, result.fixed_utilization),
        "verified": plain(result.verified),
        "verified_fixed": plain(result.verified_fixed),
        "intervals": plain(result.intervals),
    }


def _background(result: PlanResult) -> dict[str, Any]:
    return {
        "forecast_score": plain(result.forecast_score),
        "assumed_columns": assumed_columns(result),
        "provenance": plain(result.provenance),
        "money": plain(result.money),
        "counts": plain(result.counts),
        "notes": plain(result.notes),
        "policy": plain(result.policy),
        "settings": plain(result.settings),
        "seconds": plain(total_seconds(result)),
        "stages": plain(stages(result)),
    }


def summary_line(result: PlanResult) -> str:
    """Write the summary as one line of strict JSON."""
    return json.dumps(summary(result), allow_nan=False, ensure_ascii=False)
