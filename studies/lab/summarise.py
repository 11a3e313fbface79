"""Own how studies write down what several paths, instances or seeds say: a mean and its interval.

CONTRACT: pictures and answers read `estimate`, `low` and `high`; the ends are None where a single value says nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from walras.evaluation.inference import mean_interval


def path_interval(values: Sequence[float | None] | Float[np.ndarray, " path"], **limits: float) -> dict[str, Any]:
    """Return mean, 95 % interval over paths, and their number; values that are None or no number are left out.

    Args:
        values: one of each path.
        limits: `least` and `most`, beyond which no value can lie; the interval is cut there.
    """
    kept = [float(value) for value in values if value is not None and np.isfinite(value)]
    if len(kept) < 2:
        return {"estimate": _short(kept[0]) if kept else None, "low": None, "high": None, "paths": len(kept)}
    found = mean_interval(np.asarray(kept))
    low, high = max(found.low, limits.get("least", -np.inf)), min(found.high, limits.get("most", np.inf))
    return {"estimate": _short(found.estimate), "low": _short(low), "high": _short(high), "paths": len(kept)}


def _short(value: float) -> float:
    """Keep five digits: more would only make results long."""
    return float(f"{value:.5g}")


def format_interval(found: dict[str, Any], digits: int = 2, scale: float = 1.0) -> str:
    """Return an interval in words: `0.91 [0.88, 0.93]`."""
    if found["estimate"] is None:
        return "nothing"
    middle = f"{scale * found['estimate']:.{digits}f}"
    if found["low"] is None:
        return middle
    return f"{middle} [{scale * found['low']:.{digits}f}, {scale * found['high']:.{digits}f}]"
