"""What agents order: a policy maps an observation and announced shadow prices to orders."""

from walras.lazy import lazy_names

_HOME = {
    "Policy": "base",
    "Observation": "base",
    "PricedNewsvendor": "base_stock",
    "PricedBaseStock": "base_stock",
    "OrderUpTo": "base_stock",
    "CappedBaseStock": "base_stock",
    "ForecastBaseStock": "base_stock",
    "ConstantOrder": "base_stock",
    "ReorderPoint": "base_stock",
    "Buyer": "buyer",
    "FunctionPolicy": "user_policies",
    "CallbackPolicy": "user_policies",
    "Constrained": "order_constraints",
    "CasePacks": "order_constraints",
}
"""Public names and the modules that define them."""

__all__ = list(_HOME)
__getattr__ = lazy_names(__name__, _HOME)
