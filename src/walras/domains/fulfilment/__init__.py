"""Order fulfilment: which centre sends each order, one after the other, decided by the parallel engine."""

from walras.lazy import lazy_names

_MODULES = {
    "instance": ("Instance", "generate_instance", "make_instance"),
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
    "process": ("AbstractFulfilmentRule", "FulfilmentResult", "Order", "audit_actions", "check_actions", "fulfil"),
    "optimise": ("LearnedPrices", "clairvoyant_bound", "learn_prices"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = list(_HOME)
__getattr__ = lazy_names(__name__, _HOME, {module: module for module in _MODULES})
