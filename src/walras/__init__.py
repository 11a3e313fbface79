"""walras: plan shared capacity for very large populations of agents that order by policies of their own.

The names below are the public interface; each is imported when it is first used, so that `import walras` stays fast.
`import walras as wr` is all that the examples need. The namespaces `policies`, `costs`, `maps`, `train`, `parallel`,
`fulfilment` hold the rest of what users reach for.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    # tables and made-up data
    "read_panel": "data.read",
    "generate_panel": "population.generate",
    "Panel": "data.panel",
    # plans
    "plan": "planning.plan",
    "PlanSettings": "config",
    "CostSettings": "config",
    "PlanResult": "planning.result",
    # simulation
    "simulate": "simulation.run",
    "reward_gradient": "simulation.gradients",
    "Population": "population.population",
    "ExogenousPaths": "exogenous.paths",
    "constant_paths": "exogenous.paths",
    "ConstantLeadTime": "exogenous.arrivals",
    "Policy": "policies.base",
    "Observation": "policies.base",
    "positive_part": "clipping",
    "Record": "simulation.record",
    "Rollout": "simulation.run",
    "Controller": "simulation.controller",
    "check_policy": "simulation.policy_check",
    # learning
    "Interface": "maps.interface",
    "compare_policies": "train",
}
"""Public names and the modules that define them."""

_NAMESPACES = {
    "policies": "policies",
    "costs": "planning.costs",
    "maps": "maps",
    "train": "train",
    "parallel": "parallel",
    "fulfilment": "domains.fulfilment",
}
"""Public namespaces and the packages or modules behind them."""

__all__ = ["__version__", *_HOME, *_NAMESPACES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _NAMESPACES:
        return import_module(f"walras.{_NAMESPACES[name]}")
    if name not in _HOME:
        raise AttributeError(f"module `walras` has no attribute `{name}`")
    return getattr(import_module(f"walras.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
