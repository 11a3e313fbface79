"""How studies record figures: means with intervals over paths, and rows that compare a figure with its target.

The keys `estimate`, `low` and `high` are stored in results; the ends are None where there is a single value.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from walras.evaluation.inference import mean_interval

Value = Mapping[str, Any] | Sequence[float] | float | None
"""An interval as a mapping (`estimate`, `low`, `high`) or as three numbers, a number alone, or nothing."""


def path_interval(values: Sequence[float | None] | np.ndarray, **limits: float) -> dict[str, Any]:
    """Return mean, 95 % interval over paths, and the number of paths; None and non-finite values are left out."""
    kept = [float(value) for value in values if value is not None and np.isfinite(value)]
    if len(kept) < 2:
        return {"estimate": _round(kept[0]) if kept else None, "low": None, "high": None, "paths": len(kept)}
    interval = mean_interval(np.asarray(kept))
    low, high = max(interval.low, limits.get("least", -np.inf)), min(interval.high, limits.get("most", np.inf))
    return {"estimate": _round(interval.estimate), "low": _round(low), "high": _round(high), "paths": len(kept)}


def _round(value: float) -> float:
    """Round to five digits, which keeps results short."""
    return float(f"{value:.5g}")


def format_interval(interval: Mapping[str, Any], digits: int = 2, scale: float = 1.0) -> str:
    """Format an interval: `0.91 [0.88, 0.93]`."""
    if interval["estimate"] is None:
        return "unknown"
    middle = f"{scale * interval['estimate']:.{digits}f}"
    if interval["low"] is None:
        return middle
    return f"{middle} [{scale * interval['low']:.{digits}f}, {scale * interval['high']:.{digits}f}]"


def target_row(
    figure: str, data: str, value: Value, *, least: float | None = None, most: float | None = None
) -> dict[str, Any]:
    """Return a row of `key`: figure, data, interval, target, and whether the target is met."""
    estimate, low, high = _triple(value)
    met, sure = None, None
    if estimate is not None and (least is not None or most is not None):
        met = _within(estimate, least, most)
        sure = None if low is None or high is None else met == _within(low, least, most) == _within(high, least, most)
    numbers = {"estimate": estimate, "low": low, "high": high}
    return {"figure": figure, "data": data, **numbers, "aimed": _target_text(least, most), "met": met, "sure": sure}


def relative(difference: Mapping[str, Any], reference: Mapping[str, Any]) -> list[float] | None:
    """Return a difference and its interval as shares of the estimate of a reference."""
    parts = [difference[name] for name in ("estimate", "low", "high")]
    if not reference["estimate"] or any(part is None for part in parts):
        return None
    return [float(part / reference["estimate"]) for part in parts]


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _triple(value: Value) -> tuple[float | None, float | None, float | None]:
    if value is None:
        return None, None, None
    if isinstance(value, Mapping):
        return value["estimate"], value["low"], value["high"]
    if isinstance(value, Sequence):
        estimate, low, high = value
        return estimate, low, high
    return float(value), None, None


def _target_text(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f"{least:g} to {most:g}"
    if least is not None:
        return f"{least:g} or more"
    return "" if most is None else f"{most:g} or less"


def round_digits(value: Any) -> Any:
    """Round all numbers in nested lists and mappings to six digits."""
    if isinstance(value, Mapping):
        return {key: round_digits(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [round_digits(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
