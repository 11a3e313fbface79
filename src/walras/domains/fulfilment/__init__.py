"""Order fulfilment: which centre sends each order, one after the other, decided by the parallel engine."""

from importlib import import_module
from typing import Any

_MODULES = {
    "instance": ("Instance", "make_instance"),
    "generate": ("generate_instance",),
    "from_table": ("read_orders",),
    "policies": (
        "Greedy",
        "dual_policy",
        "from_choice",
        "from_score",
        "make_policy",
        "neural",
        "priced",
        "scarcity_prices",
    ),
    "process": ("AbstractFulfilmentRule", "FulfilmentResult", "Order", "fulfil"),
    "audit": ("audit_actions", "check_actions"),
    "optimise": ("LearnedPrices", "clairvoyant_bound", "learn_prices"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name or a module when it is first used."""
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
