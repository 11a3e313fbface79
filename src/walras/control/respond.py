"""Own how a population answers prices: use and reward of every path, and their mean.

FREE: compiled once per size; everything in control that simulates whole populations asks here.
"""

import equinox as eqx
from jaxtyping import Array, Float

from walras.exogenous.paths import ExogenousPaths
from walras.model.state import State
from walras.policies.base import AbstractPolicy
from walras.population.population import Population
from walras.simulate import simulate


@eqx.filter_jit
def respond(
    population: Population,
    exogenous: ExogenousPaths,
    policy: AbstractPolicy,
    initial: State,
    shadow_prices: Float[Array, "*path week resource"] | None,
) -> tuple[Float[Array, "path week resource"], Float[Array, " path"]]:
    """Return utilization and reward of every path."""
    rollout = simulate(population, exogenous, policy, initial=initial, shadow_prices=shadow_prices, throw=False)
    return rollout.totals.utilization, rollout.reward


@eqx.filter_jit
def mean_response(
    population: Population,
    exogenous: ExogenousPaths,
    policy: AbstractPolicy,
    initial: State,
    shadow_prices: Float[Array, "*path week resource"] | None,
    reserve: float = 0.0,
) -> tuple[Float[Array, "week resource"], Float[Array, ""]]:
    """Return utilization averaged over paths plus `reserve` standard deviations, and mean reward."""
    use, reward = respond(population, exogenous, policy, initial, shadow_prices)
    return use.mean(0) + reserve * use.std(0), reward.mean(0)
