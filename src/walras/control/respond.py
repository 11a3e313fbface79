"""Own how a population answers prices: use and reward of every path, their mean, and the slope of use in prices.

FREE: compiled once per size; everything in control that simulates whole populations asks here.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from walras.exogenous.paths import ExogenousPaths
from walras.model.state import State
from walras.policies.base import AbstractPolicy
from walras.population.population import Population
from walras.simulate import simulate

DIRECTIONS_AT_ONCE = 8
"""Price directions pushed through the simulator together in forward mode."""


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


def forward_jacobian(
    use: Callable[[Float[Array, " entry"]], Float[Array, " answer"]], at: Float[Array, " entry"]
) -> Float[Array, "answer entry"]:
    """Push one unit vector per entry through a function (forward mode), a few at a time."""
    push = lambda direction: jax.jvp(use, (at,), (direction,))[1]  # noqa: E731
    return jax.lax.map(push, jnp.eye(at.size, dtype=jnp.float32), batch_size=DIRECTIONS_AT_ONCE).T
