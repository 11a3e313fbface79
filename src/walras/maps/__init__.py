"""Learned maps: prices to utilization (primal) and capacity to prices (dual) of a population that is read once.

The names below are public; each is imported when it is first used.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Interface": "interface",
    "LearnedView": "view",
    "History": "history",
    "AgentHistory": "features",
    "KnownFuture": "features",
    "LearnedMap": "file",
    "load_map": "file",
    "save_map": "file",
    "DualMap": "closed_loop",
    "PrimalSearch": "closed_loop",
    "CapacityTarget": "closed_loop",
    "run_closed_loop": "closed_loop",
}
"""Public names and the modules that define them."""

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"walras.maps.{_HOME[name]}"), name)
