"""Everything that happens regardless of the orders: demand, prices, costs, lead times, supply, capacity."""

from walras.lazy import lazy_names

_HOME = {
    "ExogenousPaths": "paths",
    "constant_paths": "paths",
    "StoredPaths": "disk_paths",
    "PathsWriter": "disk_paths",
    "ConstantLeadTime": "arrivals",
    "IntegerLeadTimes": "arrivals",
    "ArrivalShares": "arrivals",
    "SupplyLimit": "arrivals",
    "FillRate": "arrivals",
    "Chained": "arrivals",
    "HaarPrices": "capacity",
    "PulsePrices": "capacity",
    "HaarCapacity": "capacity",
}
"""Public names and the modules that define them."""

__all__ = list(_HOME)
__getattr__ = lazy_names(__name__, _HOME)
