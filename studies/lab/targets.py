"""Own how a study sets what it found beside what is aimed at: one row a figure, with its interval and its data.

CONTRACT: rows are recorded as `key`; the page of all studies collects them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Value = Mapping[str, Any] | Sequence[float] | float | None
"""An interval (`estimate`, `low`, `high`), the same three in a row, a number alone, or nothing."""


def aim(
    figure: str, data: str, value: Value, *, least: float | None = None, most: float | None = None
) -> dict[str, Any]:
    """Return a row: what it is, on which data, with its interval, what is aimed at, and whether it is met.

    Args:
        figure: what was measured, with its unit.
        data: which.
        value: found; `met` is said of its estimate, `sure` where both ends of its interval say the same.
        least, most: what is aimed at; without either the figure is only shown.
    """
    estimate, low, high = _three(value)
    ends = [end for end in (least, most) if end is not None]
    met, sure = None, None
    if estimate is not None and ends:
        met = _within(estimate, least, most)
        sure = None if low is None or high is None else met == _within(low, least, most) == _within(high, least, most)
    return {
        "figure": figure,
        "data": data,
        "estimate": estimate,
        "low": low,
        "high": high,
        "aimed": _words(least, most),
        "met": met,
        "sure": sure,
    }


def relative(difference: Mapping[str, Any], to: Mapping[str, Any]) -> list[float] | None:
    """Return a difference and its interval as shares of another figure's estimate."""
    parts = [difference[name] for name in ("estimate", "low", "high")]
    if not to["estimate"] or any(part is None for part in parts):
        return None
    return [float(part / to["estimate"]) for part in parts]


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _three(value: Value) -> tuple[float | None, float | None, float | None]:
    if value is None:
        return None, None, None
    if isinstance(value, Mapping):
        return value["estimate"], value["low"], value["high"]
    if isinstance(value, Sequence):
        estimate, low, high = value
        return estimate, low, high
    return float(value), None, None


def _words(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f"{least:g} to {most:g}"
    if least is not None:
        return f"{least:g} or more"
    return "" if most is None else f"{most:g} or less"
