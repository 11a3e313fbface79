"""The planner's view by simulation: utilization, shadow prices, reward and Jacobian, without learning."""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.errors import InputError, NotFiniteError, shape_mismatch
from walras.exogenous.paths import ExogenousPaths
from walras.planning.prices.dual_ascent import (
    AbstractDualSolver,
    DualSolution,
    NewtonThenProjected,
    solve_prices,
    solve_prices_of_plans,
)
from walras.planning.protocols import Grid, Plans
from walras.policies.base import Policy
from walras.policies.base_stock import ConstantOrder
from walras.policies.user_policies import callback_names, number_agents
from walras.population.cohort import Cohort, ProportionalSample, demand_size
from walras.population.population import Population, choke_price, price_scale
from walras.simulation.checks import check_shapes, check_values
from walras.simulation.gradients import utilization_jacobian
from walras.simulation.record import Record
from walras.simulation.run import announce, full_prices, prepare, run_setup
from walras.simulation.setup import Setup, read_paths
from walras.simulation.week import State

NO_DIFFERENCE = 1e-4  # relative difference in utilization below which future orders are said to make none
JACOBIAN_AGENTS = 4000  # of the sample that a Jacobian is of: it only steers the search
PARALLEL_AGENTS, PARALLEL_READERS = 4096, 512  # fewer are simulated on one core
WEEKLY_AGENTS, WEEKLY_READERS = 1000, 500  # of the sample that prices are re-issued by, week after week
COPIED_AGENTS = 300  # fewer agents are copied, on other scenarios, up to this number: alone their use is no expectation


class PricedSimulation:
    """Simulate the same agents on the same paths at any prices, compiled once for all of the same shapes.

    The arguments are flattened once and not with every query, and a policy reads the paths once. Many agents, or those
    of a policy that reads history, are shared by all cores.
    """

    def __init__(self, population: Population, exogenous: ExogenousPaths, policy: Policy, initial: State) -> None:
        """Take what is simulated; paths without a scenario axis are the same for every path of prices."""
        self._take(prepare(population, exogenous, policy, initial, record=Record.use_and_reward(), values=False))

    def at(self, exogenous: ExogenousPaths, initial: State) -> "PricedSimulation":
        """Return the simulation of the same agents on other paths, from another state."""
        other = copy.copy(self)
        other._take(replace(self._setup, exogenous=exogenous, initial=initial, read=None))
        return other

    def _take(self, setup: Setup) -> None:
        exogenous, state = setup.exogenous, setup.initial.stock_end
        few = PARALLEL_AGENTS
        if setup.policy.reads_history:
            few = PARALLEL_READERS
            if exogenous.n_scenarios is None and state.ndim == 2:
                exogenous = broadcast_scenarios(exogenous, len(state))
            with callback_names(setup.population):
                setup = replace(setup, read=read_paths(replace(setup, exogenous=exogenous)))
        self._setup, self._parallel = setup, setup.population.n_agents >= few
        arrays, rest = eqx.partition(setup, eqx.is_array)
        self._leaves, structure = jax.tree.flatten(arrays)
        others, shape = jax.tree.flatten(rest)
        self._static = structure, tuple(others), shape

    def __call__(
        self, shadow_prices: Float[Array | np.ndarray, "*path week resource"] | None
    ) -> tuple[Float[Array, "path week resource"], Float[Array, " path"]]:
        """Return utilization and reward of every path; errors of a policy in Python name the agents."""
        with callback_names(self._setup.population):
            if self._parallel:
                return _simulate(self._setup, shadow_prices)
            return _simulate_leaves(self._static, self._leaves, shadow_prices)


@partial(jax.jit, static_argnums=0)
def _simulate_leaves(static: tuple[Any, ...], leaves: list[Array], shadow_prices: Array | None) -> tuple[Array, Array]:
    structure, others, shape = static
    setup = eqx.combine(jax.tree.unflatten(structure, leaves), jax.tree.unflatten(shape, others))
    return _simulate(setup, shadow_prices)


def _simulate(setup: Setup, shadow_prices: Any) -> tuple[Array, Array]:
    exogenous = setup.exogenous
    if shadow_prices is not None and shadow_prices.ndim == 3 and exogenous.n_scenarios is None:
        setup = replace(setup, exogenous=broadcast_scenarios(exogenous, len(shadow_prices)))
    prices = full_prices(setup.population, exogenous, shadow_prices)
    rollout = run_setup(announce(setup, prices), prices)
    return rollout.totals.utilization, rollout.reward


def broadcast_scenarios(future: ExogenousPaths, paths: int) -> ExogenousPaths:
    """Repeat one future on several paths, for as many price paths."""
    return future.map_scenarios(lambda leaf: jnp.broadcast_to(leaf, (paths, *leaf.shape)))


class SimulatedView:
    """Answer a planner by simulating the population on a set of scenarios (`planning.protocols`).

    Attributes:
        committed: expected utilization without any further order [week, resource].
        free: utilization to plan for without prices [week, resource].
        controllable: weeks in which orders still to be placed make a difference [week, resource].
        queries: primal queries answered so far (candidate plans simulated).
        jacobians: Jacobians formed so far, each a simulation of a sample with its derivatives.
    """

    def __init__(
        self,
        population: Population,
        exogenous: ExogenousPaths,
        policy: Policy,
        initial: State,
        *,
        solver: AbstractDualSolver | None = None,
        reserve: float = 0.0,
        seed: int = 0,
        price_week: Int[np.ndarray, " week"] | None = None,
    ) -> None:
        """Simulate without orders and without prices, to see where prices can make a difference.

        Args:
            population, exogenous, policy, initial: what is simulated; `exogenous` has a scenario axis.
            solver: of shadow prices; default `NewtonThenProjected()`.
            reserve: standard deviations between scenarios added to expected utilization, as room for the spread.
            seed: of the sample of agents for the Jacobian.
            price_week: week whose price is charged in each week; by default its own, else that of the next open one.

        Raises:
            ShapeError, InputError, NotFiniteError: see `simulation.checks`.
        """
        check_shapes(population, exogenous, initial)
        check_values(population, exogenous, initial)  # later simulations are compiled and cannot look at numbers
        self.population, self.exogenous, self.policy, self.initial = population, exogenous, policy, initial
        self.solver = NewtonThenProjected() if solver is None else solver
        self.reserve, self.resources, self.n_weeks = reserve, population.resources, exogenous.n_weeks
        self.price_scale = float(price_scale(population)[0])
        self.max_price = choke_price(population)
        self.price_week = np.arange(self.n_weeks) if price_week is None else price_week
        self.queries = self.jacobians = 0
        no_orders = ConstantOrder(jnp.zeros(()))
        committed, _ = PricedSimulation(population, exogenous, no_orders, initial)(None)
        self.committed = np.asarray(committed, float).mean(0)
        self._at_prices = PricedSimulation(*self.parts)
        self.free = self.utilization(np.zeros((self.n_weeks, len(self.resources))))
        self.controllable = np.abs(self.free - self.committed) > NO_DIFFERENCE * np.maximum(self.free, 1.0)
        # The Jacobian is of agents drawn in proportion to demand, on the first two scenarios.
        two = exogenous.map_scenarios(lambda leaf: leaf[:2])
        random = np.random.default_rng([seed, 0x5A])
        sample = ProportionalSample().draw(demand_size(population), JACOBIAN_AGENTS, random)
        self._sample = cohort_parts(sample, population, two, policy, initial)

    @property
    def simulations(self) -> int:
        """Count the simulations made so far to answer questions: queries and Jacobians."""
        return self.queries + self.jacobians

    def utilization(self, shadow_prices: Plans) -> Float[np.ndarray, "..."]:
        """Return utilization to plan for: expected over the scenarios plus `reserve` standard deviations."""
        return self._simulate(shadow_prices, self.reserve)[0]

    def expected(self, shadow_prices: Plans) -> Float[np.ndarray, "..."]:
        """Return expected utilization without any reserve [*plans, week, resource]."""
        return self._simulate(shadow_prices, 0.0)[0]

    def value(self, shadow_prices: Plans) -> Float[np.ndarray, "..."]:
        """Return expected reward, without payments for resources, of every candidate [*plans] [money]."""
        return self._simulate(shadow_prices, self.reserve)[1]

    def valued(self, shadow_prices: Plans) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
        """Return expected utilization without any reserve, and expected reward, of one simulation."""
        return self._simulate(shadow_prices, 0.0)

    def planned_and_expected(self, shadow_prices: Grid) -> tuple[Grid, Grid]:
        """Return utilization to plan for, and expected, of one simulation."""
        self.queries += 1
        use, _ = self._simulate_paths(shadow_prices)
        return use.mean(0) + self.reserve * use.std(0), use.mean(0)

    def charged(self, shadow_prices: Grid) -> Grid:
        """Return the prices that are charged: in closed weeks, that of the week in which what is due then arrives."""
        return shadow_prices[self.price_week]

    def spread(self, shadow_prices: Grid) -> Grid:
        """Return the standard deviation of utilization between scenarios, relative to its mean."""
        use, _ = self._simulate_paths(shadow_prices)
        return use.std(0) / np.maximum(use.mean(0), 1e-9 * max(float(use.mean(0).max(initial=0.0)), 1.0))

    def shadow_prices(self, capacity: Plans) -> Float[np.ndarray, "..."]:
        """Return prices at which utilization fits the capacity, for every candidate [*plans, week, resource]."""
        self._check(capacity, "capacity")
        return solve_prices_of_plans(self, capacity, self.solver)

    def solve(
        self, capacity: Grid, start: Grid | None = None, solver: AbstractDualSolver | None = None
    ) -> DualSolution:
        """Find the prices for one capacity (`solve_prices`), by default from price 0 with the view's own solver."""
        self._check(capacity, "capacity")
        return solve_prices(self, capacity, start, solver or self.solver)

    def jacobian(self, shadow_prices: Grid) -> Float[np.ndarray, "entry entry"]:
        """Return dU/dlambda [utilization entry, price entry] by forward differentiation of a sample of the agents."""
        self.jacobians += 1
        population, exogenous, policy, initial = self._sample
        prices = jnp.asarray(self.charged(shadow_prices), jnp.float32)
        slope = utilization_jacobian(population, exogenous, policy, initial=initial, shadow_prices=prices)
        # Of the mean only: the spread between scenarios has no derivative where it is zero.
        return add_charged_weeks(np.asarray(slope.mean(0), float).reshape(prices.size, -1), self.price_week)

    @property
    def parts(self) -> tuple[Population, ExogenousPaths, Policy, State]:
        """Give population, exogenous, policy and initial."""
        return self.population, self.exogenous, self.policy, self.initial

    def _check(self, array: Plans, name: str) -> None:
        shape, needed = np.shape(array), (self.n_weeks, len(self.resources))
        if tuple(shape[-2:]) != needed:
            raise shape_mismatch(name, shape, f"[..., {needed[0]} weeks, {needed[1]} resources]", "give one each")
        if not np.isfinite(array).all():
            raise InputError(f"`{name}` holds a NaN or infinity; give a finite number for every week and resource")

    def _simulate(self, shadow_prices: Plans, reserve: float) -> tuple[np.ndarray, np.ndarray]:
        self._check(shadow_prices, "shadow_prices")
        plans = np.reshape(shadow_prices, (-1, self.n_weeks, len(self.resources)))
        self.queries += len(plans)
        paths = [self._simulate_paths(plan) for plan in plans]
        use = np.stack([use.mean(0) + reserve * use.std(0) for use, _ in paths])
        reward = np.asarray([reward.mean() for _, reward in paths])
        return use.reshape(np.shape(shadow_prices)), reward.reshape(np.shape(shadow_prices)[:-2])

    def _simulate_paths(self, plan: Grid) -> tuple[Float[np.ndarray, "path week resource"], Float[np.ndarray, " path"]]:
        """Return utilization and reward of every path; one program serves planning and verification."""
        self._check(plan, "shadow_prices")
        use, reward = self._at_prices(self.charged(plan).astype(np.float32))
        if not np.isfinite(use).all():
            raise NotFiniteError("the simulated utilization is not a finite number; check the table for extreme values")
        return np.asarray(use, float), np.asarray(reward, float)


def add_charged_weeks(
    slope: Float[np.ndarray, "entry entry"], price_week: Int[np.ndarray, " week"]
) -> Float[np.ndarray, "entry entry"]:
    """Return the derivative in prices that are charged in several weeks, given that in the prices of each week."""
    same = (price_week[:, None] == np.arange(len(price_week))).astype(float)
    by_week = slope.reshape(len(slope), len(price_week), -1)
    return np.einsum("ewr,wk->ekr", by_week, same).reshape(slope.shape)


def cohort_parts(
    cohort: Cohort, population: Population, exogenous: ExogenousPaths, policy: Policy, initial: State
) -> tuple[Population, ExogenousPaths, Policy, State]:
    """Cut what is simulated down to a cohort, weights included."""
    policy = number_agents(policy, population.n_agents)
    return cohort.subset(population), cohort.select(exogenous), cohort.select(policy), cohort.select(initial)
