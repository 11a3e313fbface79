"""Learned maps: prices to utilization (primal) and capacity to prices (dual) of a population that is read once.

The names below are public; each is imported when it is first used.
"""

from walras.lazy import lazy_names

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
    "CapacityTarget": "closed_loop",
    "run_closed_loop": "closed_loop",
}
"""Public names and the modules that define them."""

__all__ = list(_HOME)
__getattr__ = lazy_names(__name__, _HOME)
