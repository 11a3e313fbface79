"""Own the refusal of policies that do not fit the agents, asked of shapes alone before anything is compiled.

CONTRACT: every question of the same shapes is asked once; a policy's other errors pass as they are.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from walras.errors import InputError, one_line, shape_mismatch
from walras.policies.base import Observation, Policy, PolicyMemory, PublicObservation
from walras.population.agent_axis import is_broadcast, map_per_agent
from walras.population.population import Population
from walras.simulation.state import KNOWN, read_weeks

FITTING: dict[Any, None] = {}
"""Questions that were answered well, by their shapes, the oldest first."""

MOST_KEPT = 1024

_NOT_IN_JAX = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
)


def check_policy_call(population: Population, policy: Policy, ahead: int, block: int) -> None:
    """Refuse a policy whose arrays do not fit the agents, or that JAX cannot compile.

    The policy is asked for one week's orders of all agents, and of a block of them if there are several, without
    computing any number. So a wrong length is found even where it happens to fit a block.

    Args:
        population: who the agents are.
        policy: what they order.
        ahead: weeks of announced prices [weeks].
        block: agents that are simulated together.

    Raises:
        ShapeError: an array that is neither one number, nor one per agent, nor marked as shared.
        InputError: a policy that looks at numbers which are only known while the program runs.
    """
    key = _key(population, policy, ahead, block)
    if key in FITTING:
        return
    _ask(population, policy, population.n_agents, ahead)
    if block < population.n_agents:
        _ask(population, policy, block, ahead)
    while len(FITTING) >= MOST_KEPT:
        FITTING.pop(next(iter(FITTING)), None)
    FITTING[key] = None


def _key(population: Population, policy: Policy, ahead: int, block: int) -> Any:
    """Name a question by everything that its answer depends on."""
    leaves, structure = jax.tree.flatten(policy)
    kinds = tuple((jnp.shape(leaf), jnp.result_type(leaf)) if eqx.is_array_like(leaf) else leaf for leaf in leaves)
    return structure, kinds, population.n_agents, population.resources, ahead, block


def _ask(population: Population, policy: Policy, agents: int, ahead: int) -> None:
    """Ask for one week's orders of the first few agents, and translate what goes wrong."""
    part = map_per_agent(lambda leaf: leaf[..., :agents], policy, population.n_agents)
    people = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((agents, *leaf.shape[1:]), leaf.dtype), population)
    try:
        shape = eqx.filter_eval_shape(partial(_one_week, ahead=ahead), people, part).shape
    except _NOT_IN_JAX as error:
        raise InputError(
            f"the policy `{name_of(policy)}` looks at numbers that are only known while the program runs "
            f"({_first_line(error)}); write it with `jax.numpy` (`jnp.where` for `if`), or wrap the function in "
            "`walras.policies.user_policies.CallbackPolicy`"
        ) from error
    except (TypeError, ValueError) as error:
        suspect = _suspect(policy, population.n_agents)
        if suspect is None:
            raise
        raise shape_mismatch(
            f"{name_of(policy)}{suspect[0]}",
            suspect[1],
            f"one number or [..., {population.n_agents} agents], as the policy cannot be evaluated with it",
            "give one number for every agent, or mark as `walras.population.agent_axis.Broadcast` what all agents share",
        ) from error
    if shape != (agents,):
        raise shape_mismatch("the policy's orders", shape, "[agents]", "order one number for every agent")


def _one_week(population: Population, policy: Policy, *, ahead: int) -> Any:
    """Do all that a policy is asked to do in the first week."""
    zeros = jnp.zeros_like(population.demand_scale)
    prices, fields = jnp.zeros((ahead, len(population.resources))), dict.fromkeys(KNOWN, zeros)
    memory, read, week = policy.begin(population), None, jnp.asarray(0, jnp.int32)
    if policy.reads:
        rows = dict.fromkeys(KNOWN, zeros[None])
        reads, memory = read_weeks(population, policy, rows, week[None], zeros[None], memory or PolicyMemory())
        read = jax.tree.map(lambda leaf: leaf[0], reads)
    encoded = policy.encode(PublicObservation(week=week, population=population, read=read, **fields), prices)
    seen = Observation(week=week, population=population, stock_start=zeros, position=zeros, memory=memory, **fields)
    return policy.decide(encoded, seen, prices)


def _suspect(policy: Policy, n_agents: int) -> tuple[str, tuple[int, ...]] | None:
    """Find the first array that is nobody's own, has an axis longer than 1, and is not marked as shared."""
    for path, node in jax.tree_util.tree_flatten_with_path(policy, is_leaf=is_broadcast)[0]:
        shape = np.shape(node) if eqx.is_array_like(node) else ()
        if shape and shape[-1] not in (1, n_agents):
            return jax.tree_util.keystr(path), shape
    return None


def name_of(policy: Policy) -> str:
    """Name a policy in a sentence: by the function where it is one, else by its class."""
    callee = getattr(policy, "function", None)
    return str(getattr(callee, "name", type(policy).__name__))


def _first_line(error: BaseException) -> str:
    return one_line(str(error).strip().splitlines()[0])[:160] if str(error).strip() else type(error).__name__
