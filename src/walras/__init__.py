"""walras: plan shared capacity for very large populations of agents that order by policies of their own.

The names below are the public interface; each is imported when it is first used, so that `import walras` stays fast.
`import walras as wr` is all that the examples need. The namespaces `policies`, `costs`, `exogenous`, `maps`,
`train`, `distribute`, `parallel` and `fulfilment` hold the rest of what users reach for.
"""

from walras.lazy import lazy_names

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
    "write_report": "report.page",
    # simulation
    "simulate": "simulation.run",
    "generate": "exogenous.scenarios",
    "simulate_out_of_core": "simulation.out_of_core",
    "reward_gradient": "simulation.gradients",
    "Population": "population.population",
    "ExogenousPaths": "exogenous.paths",
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
    "exogenous": "exogenous",
    "distribute": "distribute",
    "parallel": "parallel",
    "fulfilment": "domains.fulfilment",
}
"""Public namespaces and the packages or modules behind them."""

__all__ = ["__version__", *_HOME, *_NAMESPACES]


__getattr__ = lazy_names(__name__, _HOME, _NAMESPACES)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
