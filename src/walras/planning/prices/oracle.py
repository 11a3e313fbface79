"""Outcomes path by path: under given prices, without further orders, and under the clairvoyant oracle's prices."""

from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.exogenous.paths import ExogenousPaths
from walras.planning.prices.dual_ascent import AbstractDualSolver, DualProblem, NewtonThenProjected
from walras.planning.prices.simulated_view import PricedSimulation, SimulatedView
from walras.policies.base import Policy
from walras.policies.base_stock import ConstantOrder
from walras.population.population import Population
from walras.simulation.checks import check_shapes, check_values
from walras.simulation.week import State

PathGrid = Float[np.ndarray, "path week resource"]
"""One number per path, week and resource."""

CLIMB_RATE = 0.003
"""First step of the ascent in price scales. Prices move use between weeks: ten times larger steps overfill some week by
a third at once and never recover (measured on 3,000 generated agents: 0.03 found no better prices, 0.003 gained 2 % of
what the oracle gives up in 60 steps)."""

WITHIN = 2e-3  # use may exceed the limit by this share and still count as within it (the solver's own tolerance)


@dataclass(frozen=True)
class PathOutcome:
    """Utilization [units of resource], reward and the prices charged [money/unit] of every path.

    Attributes:
        reward: without payments for resources, end stock valued [money].
        simulations: simulations of each path that finding these prices took; a gradient counts as one.
    """

    utilization: PathGrid
    reward: Float[np.ndarray, " path"]
    shadow_prices: PathGrid
    simulations: int = 1


def path_outcome(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    shadow_prices: Float[np.ndarray, "*path week resource"],
) -> PathOutcome:
    """Simulate every path under given prices, the same on all paths or one price path each."""
    check_shapes(population, exogenous, initial, shadow_prices)
    check_values(population, exogenous, initial, shadow_prices)
    use, reward = PricedSimulation(population, exogenous, policy, initial)(np.asarray(shadow_prices, np.float32))
    charged = np.asarray(np.broadcast_to(shadow_prices, use.shape), float)
    return PathOutcome(np.asarray(use, float), np.asarray(reward, float), charged)


def committed_use(population: Population, exogenous: ExogenousPaths, initial: State) -> PathGrid:
    """Return utilization without further orders, by what is on hand and on order already (irreducible)."""
    use, _ = PricedSimulation(population, exogenous, ConstantOrder(jnp.zeros(())), initial)(None)
    return np.asarray(use, float)


def oracle(
    view: SimulatedView,
    capacity: PathGrid,
    start: PathGrid | None = None,
    *,
    solver: AbstractDualSolver | None = None,
    ascent_steps: int = 15,
) -> PathOutcome:
    """Find clairvoyant prices: on every path, the most reward with utilization within that path's capacity.

    Solves the complementarity problem on each realised path, then ascends the simulator's gradient of reward minus a
    penalty on use beyond capacity, and returns the best prices within it: policies are fixed responders, so prices
    that clear the market need not maximise reward (docs/concepts/coordination.md).

    Args:
        view: the population on the realised paths (its scenarios).
        capacity: K of every path; for a comparison at equal violation, max(K, U of the method).
        start, solver: prices to start from, and the solver of the complementarity problem.
        ascent_steps: gradient steps afterwards; 0 stops at the complementarity prices.
    """
    parts, shape = view.parts, capacity.shape
    problem = DualProblem(
        response=lambda prices: path_outcome(*parts, prices.reshape(shape)).utilization.reshape(len(prices), -1),
        jacobian=lambda prices: view.jacobian(prices.mean(0).reshape(shape[1:])),
        capacity=np.where(view.controllable[None], capacity, np.inf).reshape(len(capacity), -1),
        price_scale=view.price_scale,
        max_price=view.max_price,
    )
    first = np.zeros(shape) if start is None else np.asarray(start, float)
    solution = (solver or NewtonThenProjected()).solve(problem, first.reshape(len(capacity), -1))
    best = _gradient_ascent(view, capacity, solution.prices.reshape(shape), ascent_steps)
    return replace(best, simulations=best.simulations + solution.queries + solution.jacobians)


def _gradient_ascent(view: SimulatedView, capacity: PathGrid, prices: np.ndarray, steps: int) -> PathOutcome:
    """Ascend reward - penalty x excess by Adam steps, keeping each path's best.

    A week's penalty is somewhat above its own price: a far larger one (the highest price) outweighs the reward, and the
    steps then only undo the excess that they cause themselves.
    """
    best = path_outcome(*view.parts, prices)
    limit = np.maximum(capacity, best.utilization)  # never more violation than the start has
    penalty = jnp.asarray(view.price_scale + 1.5 * prices, jnp.float32)
    first, second = np.zeros_like(prices), np.zeros_like(prices)
    best_prices, reward, use = prices.copy(), best.reward.copy(), best.utilization.copy()
    for step in range(1, steps + 1):
        answer = _penalised(*view.parts, jnp.asarray(prices, jnp.float32), jnp.asarray(limit), penalty)
        value, seen_use, slope = (np.asarray(part, float) for part in answer)
        better = (value > reward) & (seen_use <= limit * (1 + WITHIN)).all((1, 2))
        best_prices[better], reward[better], use[better] = prices[better], value[better], seen_use[better]
        slope = np.nan_to_num(slope)
        first, second = 0.8 * first + 0.2 * slope, 0.98 * second + 0.02 * slope**2
        move = (first / (1 - 0.8**step)) / (np.sqrt(second / (1 - 0.98**step)) + 1e-12)
        rate = CLIMB_RATE * view.price_scale * (1 - step / (steps + 1))
        prices = np.clip(prices + rate * move, 0.0, view.max_price)
    return PathOutcome(use, reward, best_prices, 1 + steps)


@eqx.filter_jit
def _penalised(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    prices: Float[Array, "path week resource"],
    limit: Float[Array, "path week resource"],
    penalty: Float[Array, "path week resource"],
) -> tuple[Array, Array, Array]:
    """Return reward and use on every path, and the gradient of reward minus penalty x excess in the prices."""

    def objective(candidate: Array) -> tuple[Array, tuple[Array, Array]]:
        use, reward = PricedSimulation(population, exogenous, policy, initial)(candidate)
        excess = jnp.where(use > limit, use - limit, 0.0)
        return (reward - (penalty * excess).sum((1, 2))).sum(), (reward, use)

    (_, (reward, use)), slope = jax.value_and_grad(objective, has_aux=True)(prices)
    return reward, use, slope
