"""Own the planner's view by simulation: utilization, shadow prices, reward and Jacobian, exactly, without learning.

CONTRACT: fills the same protocol as a learned map (`maps.interface.PlannerView`); arrays in and out are numpy.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.errors import InputError, NotFiniteError, shape_mismatch
from walras.exogenous.paths import ExogenousPaths
from walras.planning.prices.dual_ascent import AbstractDualSolver, DualSolution, NewtonThenProjected, search_prices
from walras.policies.base import Policy
from walras.policies.callbacks import callback_names
from walras.policies.simple import ConstantOrder
from walras.policies.user_policies import number_agents
from walras.population.cohort import ProportionalSample, demand_size
from walras.population.population import Population, choke_price
from walras.simulation.checks import check_shapes, check_values
from walras.simulation.gradients import utilization_jacobian
from walras.simulation.run import simulate
from walras.simulation.state import State


def simulate_prices(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    shadow_prices: Float[Array, "*path week resource"] | None,
) -> tuple[Float[Array, "path week resource"], Float[Array, " path"]]:
    """Return utilization and reward of every path."""
    with callback_names(population):
        return _respond(population, exogenous, policy, initial, shadow_prices)


@eqx.filter_jit
def _respond(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    shadow_prices: Float[Array, "*path week resource"] | None,
) -> tuple[Float[Array, "path week resource"], Float[Array, " path"]]:
    rollout = simulate(population, exogenous, policy, initial=initial, shadow_prices=shadow_prices, throw=False)
    return rollout.totals.utilization, rollout.reward


def expected_response(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    shadow_prices: Float[Array, "*path week resource"] | None,
    reserve: float = 0.0,
) -> tuple[Float[Array, "week resource"], Float[Array, ""]]:
    """Return utilization averaged over paths plus `reserve` standard deviations, and mean reward."""
    with callback_names(population):
        return _mean_response(population, exogenous, policy, initial, shadow_prices, reserve)


@eqx.filter_jit
def _mean_response(
    population: Population,
    exogenous: ExogenousPaths,
    policy: Policy,
    initial: State,
    shadow_prices: Float[Array, "*path week resource"] | None,
    reserve: float,
) -> tuple[Float[Array, "week resource"], Float[Array, ""]]:
    use, reward = _respond(population, exogenous, policy, initial, shadow_prices)
    return use.mean(0) + reserve * use.std(0), reward.mean(0)


NO_DIFFERENCE = 1e-4
"""Relative difference in utilization below which future orders are said to make none."""

JACOBIAN_AGENTS = 4000
"""Agents simulated for the Jacobian; it only steers the search, so a sample of the population is enough."""


class SimulatedView:
    """Answer the planner's questions by simulating everybody on a set of scenarios.

    Attributes:
        population, exogenous, policy, initial: what is simulated; `exogenous` has a scenario axis.
        n_weeks, resources, price_scale: see `PlannerView`.
        committed: expected utilization if nobody ordered from now on [week, resource].
        free: utilization to plan for without prices [week, resource].
        controllable: weeks in which orders still to be placed make a difference [week, resource].
        queries: primal queries answered so far (candidate plans simulated).
        jacobians: slopes answered so far, each a simulation of a sample with its derivatives.
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
    ) -> None:
        """Keep the parts, and find out what nobody can change any more.

        Args:
            population, exogenous, policy, initial: what is simulated.
            solver: finds shadow prices; default Gauss-Newton, finished by projected dual steps.
            reserve: standard deviations between scenarios that are added to expected utilization, so that a plan
                that fits leaves room for the spread; 0 plans on expectation.
            seed: decides which agents are sampled for the Jacobian.

        Raises:
            ShapeError, InputError, NotFiniteError: paths or a start that cannot be simulated, see `model.check`.
        """
        check_shapes(population, exogenous, initial)
        check_values(population, exogenous, initial)  # later simulations are compiled and cannot look at numbers
        self.population, self.exogenous, self.policy, self.initial = population, exogenous, policy, initial
        self.solver = NewtonThenProjected() if solver is None else solver
        self.reserve = reserve
        self.resources = population.resources
        self.n_weeks = exogenous.n_weeks
        self.price_scale = float(price_scale(population))
        self.max_price = choke_price(population)
        self.queries = self.jacobians = 0
        self.committed = _committed(population, exogenous, initial)
        self.free = self.utilization(np.zeros((self.n_weeks, len(self.resources))))
        self.controllable = np.abs(self.free - self.committed) > NO_DIFFERENCE * np.maximum(self.free, 1.0)
        self._sample = _sample_parts(population, exogenous, policy, initial, seed)

    @property
    def simulations(self) -> int:
        """Count all simulations made so far to answer questions: queries and Jacobians."""
        return self.queries + self.jacobians

    def utilization(self, shadow_prices: Float[np.ndarray, "*plans week resource"]) -> Float[np.ndarray, "..."]:
        """Return utilization to plan for: expected over the scenarios plus `reserve` standard deviations.

        Args:
            shadow_prices: candidate price paths [money per unit of resource].
        """
        use, _ = self._ask(shadow_prices, self.reserve)
        return use

    def expected(self, shadow_prices: Float[np.ndarray, "*plans week resource"]) -> Float[np.ndarray, "..."]:
        """Return expected utilization without any reserve [*plans, week, resource]."""
        use, _ = self._ask(shadow_prices, 0.0)
        return use

    def judgement(
        self, shadow_prices: Float[np.ndarray, "week resource"]
    ) -> tuple[Float[np.ndarray, "week resource"], Float[np.ndarray, "week resource"]]:
        """Return utilization to plan for, and expected, both of one simulation."""
        self._check(shadow_prices, "shadow_prices")
        self.queries += 1
        prices = jnp.asarray(shadow_prices, jnp.float32)
        use, _ = simulate_prices(self.population, self.exogenous, self.policy, self.initial, prices)
        seen = np.asarray(use, float)
        _refuse_no_number(seen)
        return seen.mean(0) + self.reserve * seen.std(0), seen.mean(0)

    def spread(self, shadow_prices: Float[np.ndarray, "week resource"]) -> Float[np.ndarray, "week resource"]:
        """Return the standard deviation of utilization between scenarios over its mean: 0 now, more further ahead."""
        self._check(shadow_prices, "shadow_prices")
        prices = jnp.asarray(shadow_prices, jnp.float32)
        parts = (self.population, self.exogenous, self.policy, self.initial)
        mean = np.asarray(expected_response(*parts, prices, 0.0)[0], float)
        upper = np.asarray(expected_response(*parts, prices, 1.0)[0], float)
        return (upper - mean) / np.maximum(mean, 1e-9 * max(float(mean.max(initial=0.0)), 1.0))

    def value(self, shadow_prices: Float[np.ndarray, "*plans week resource"]) -> Float[np.ndarray, "..."]:
        """Return expected reward, without payments for resources, for every candidate [*plans] [money]."""
        _, reward = self._ask(shadow_prices, self.reserve)
        return reward

    def valued(
        self, shadow_prices: Float[np.ndarray, "*plans week resource"]
    ) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
        """Return expected utilization without any reserve, and expected reward, of one and the same simulation."""
        return self._ask(shadow_prices, 0.0)

    def shadow_prices(self, capacity: Float[np.ndarray, "*plans week resource"]) -> Float[np.ndarray, "..."]:
        """Return prices at which utilization fits the capacity, for every candidate [*plans, week, resource]."""
        plans = np.asarray(capacity, float).reshape(-1, self.n_weeks, len(self.resources))
        found = [self.solve(plan).prices[0].reshape(plan.shape) for plan in plans]
        return np.stack(found).reshape(np.shape(capacity))

    def solve(
        self,
        capacity: Float[np.ndarray, "week resource"],
        start: Float[np.ndarray, "week resource"] | None = None,
        solver: AbstractDualSolver | None = None,
    ) -> DualSolution:
        """Find the prices for one capacity, and say how well and with how much work.

        Args:
            capacity: K [units of resource].
            start: first prices tried; 0 unless given.
            solver: instead of the view's own.
        """
        self._check(capacity, "capacity")
        return search_prices(self, capacity, start, solver or self.solver)

    def jacobian(self, shadow_prices: Float[np.ndarray, "week resource"]) -> Float[np.ndarray, "entry entry"]:
        """Return dU/dlambda [utilization entry, price entry] by forward differentiation of a sample of the agents."""
        self.jacobians += 1
        parts, prices = self._sample, jnp.asarray(shadow_prices, jnp.float32)
        slope = utilization_jacobian(*parts[:3], initial=parts[3], shadow_prices=prices)
        # Of the mean only: the spread between scenarios has no derivative where it is zero.
        return np.asarray(slope.mean(0), float).reshape(prices.size, prices.size)

    def _check(self, array: Float[np.ndarray, "*plans week resource"], name: str) -> None:
        needed = (self.n_weeks, len(self.resources))
        if tuple(np.shape(array)[-2:]) != needed:
            raise shape_mismatch(
                name, np.shape(array), f"[..., {needed[0]} weeks, {needed[1]} resources]", "give one each"
            )
        if not np.isfinite(array).all():
            raise InputError(f"`{name}` holds a NaN or infinity; give a finite number for every week and resource")

    def _ask(
        self, shadow_prices: Float[np.ndarray, "*plans week resource"], reserve: float
    ) -> tuple[np.ndarray, np.ndarray]:
        self._check(shadow_prices, "shadow_prices")
        leading = np.shape(shadow_prices)[:-2]
        plans = jnp.asarray(shadow_prices, jnp.float32).reshape(-1, self.n_weeks, len(self.resources))
        self.queries += len(plans)
        parts = (self.population, self.exogenous, self.policy, self.initial)
        answers = [expected_response(*parts, plan, reserve) for plan in plans]
        use = np.stack([np.asarray(a[0], float) for a in answers]).reshape(*leading, self.n_weeks, -1)
        reward = np.asarray([float(a[1]) for a in answers]).reshape(leading)
        _refuse_no_number(use)
        return use, reward


def _refuse_no_number(use: Float[np.ndarray, "*plans week resource"]) -> None:
    if not np.isfinite(use).all():
        raise NotFiniteError("the simulated utilization is not a finite number; check the table for extreme values")


def _committed(population: Population, exogenous: ExogenousPaths, initial: State) -> Float[np.ndarray, "week resource"]:
    use, _ = expected_response(population, exogenous, ConstantOrder(jnp.zeros(())), initial, None)
    return np.asarray(use, float)


def price_scale(population: Population) -> Float[Array, ""]:
    """Return the median margin per unit of the first resource, the unit in which prices are compared."""
    use = jnp.maximum(population.use[:, 0], jnp.finfo(jnp.float32).tiny)
    return jnp.median(jnp.maximum(population.unit_margin, 0.0) / use)


def _sample_parts(
    population: Population, exogenous: ExogenousPaths, policy: Policy, initial: State, seed: int
) -> tuple[Population, ExogenousPaths, Policy, State]:
    """Draw agents in proportion to demand, weighted, and their first scenarios."""
    paths = eqx.tree_at(lambda e: (e.demand, e.arrivals), exogenous, _first_scenarios(exogenous, 2))
    random = np.random.default_rng([seed, 0x5A])
    sample = ProportionalSample().draw(demand_size(population), JACOBIAN_AGENTS, random)
    known = number_agents(policy, population.n_agents)
    return sample.people(population), sample.along(paths), sample.along(known), sample.along(initial)


def _first_scenarios(exogenous: ExogenousPaths, count: int) -> tuple:
    own = (exogenous.demand, exogenous.arrivals)
    return jax.tree.map(lambda leaf: leaf[:count], own)
