"""Own the standard set of control methods, by the names that tables and pictures use.

OPEN: a method that all studies shall know is one more line of `standard_methods`.
"""

from collections.abc import Mapping

from lab.controllers import AbstractController, DualMapController, NoControl, PrimalMapController, ProportionalRationing
from lab.elasticity_control import ElasticityControl
from lab.scenario_forecasts import PerfectForecast, SampledScenarios
from lab.simulation_mpc import SimulationMPC
from walras.maps.file import LearnedMap
from walras.planning.prices.dual_ascent import GaussNewton, NewtonThenProjected, ProjectedDual

NONE, THROTTLE, ELASTICITY = "none", "throttle", "elasticity"
"""Methods that neither simulate nor learn."""

UZAWA, GAUSS_NEWTON = "Uzawa", "Gauss-Newton"
"""Weekly problems solved on one scenario, everybody simulated: what the solver does, on equal futures."""

MPC_PERFECT, MPC_ONE, MPC_SIXTEEN = "MPC perfect forecast", "MPC one scenario", "MPC sixteen scenarios"
"""Weekly problems solved by one solver: what knowing more of the future is worth."""

SIXTEEN_AGENTS = 1_000
"""Agents simulated for sixteen scenarios, drawn by demand: as much work as two scenarios of eight thousand."""

DUAL, PRIMAL = "dual {}", "primal {}"
"""Names of the methods that follow maps: what the map does, and the name it was given, e.g. its representation."""


def mpc_solver() -> NewtonThenProjected:
    """Return the solver of all MPC methods: two Newton steps, and projected ones for what they leave."""
    return NewtonThenProjected(GaussNewton(max_iterations=2), ProjectedDual(step=0.3, max_queries=12))


def standard_methods(
    duals: Mapping[str, LearnedMap] | None = None, primals: Mapping[str, LearnedMap] | None = None, *, seed: int = 0
) -> dict[str, AbstractController]:
    """Return all methods by name, in the order of tables; the clairvoyant oracle is `control.foresight`.

    Args:
        duals, primals: maps by the name that follows the method's, e.g. "global"; None has no such methods.
        seed: of drawn futures and of who is simulated.
    """
    methods: list[AbstractController] = [
        NoControl(NONE),
        ProportionalRationing(THROTTLE),
        ElasticityControl(name=ELASTICITY),
    ]
    methods += [DualMapController(DUAL.format(name), dual) for name, dual in (duals or {}).items()]
    methods += [PrimalMapController(PRIMAL.format(name), primal) for name, primal in (primals or {}).items()]
    return {method.name: method for method in (*methods, *simulating_methods(seed))}


def simulating_methods(seed: int = 0) -> list[AbstractController]:
    """Return the five that simulate the coming weeks.

    Args:
        seed: of drawn futures and of who is simulated.
    """
    return [
        SimulationMPC(UZAWA, ProjectedDual(max_queries=20), seed=seed),
        SimulationMPC(GAUSS_NEWTON, GaussNewton(max_iterations=4), seed=seed),
        SimulationMPC(MPC_PERFECT, mpc_solver(), PerfectForecast(), seed=seed),
        SimulationMPC(MPC_ONE, mpc_solver(), SampledScenarios(1), seed=seed),
        SimulationMPC(MPC_SIXTEEN, mpc_solver(), SampledScenarios(16), SIXTEEN_AGENTS, seed=seed),
    ]
