"""What agents order: a policy maps an observation and announced shadow prices to orders."""

from walras.lazy import lazy_names

_HOME = {
    "Policy": "base",
    "Observation": "base",
    "PricedNewsvendor": "base_stock",
    "PricedBaseStock": "base_stock",
    "OrderUpTo": "simple",
    "CappedBaseStock": "simple",
    "ForecastBaseStock": "simple",
    "ConstantOrder": "simple",
    "ReorderPoint": "simple",
    "Buyer": "buyer",
    "FunctionPolicy": "user_policies",
    "CallbackPolicy": "user_policies",
    "Constrained": "order_constraints",
    "CasePacks": "order_constraints",
}
"""Public names and the modules that define them."""

__all__ = list(_HOME)
__getattr__ = lazy_names(__name__, _HOME)
