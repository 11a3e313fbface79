"""Policies given as functions: written in JAX, or black boxes called back on NumPy arrays.

CONTRACT: `CallbackView` is what black boxes see. Every mistake in a user's function ends in one sentence. A policy with
memory is a module instead, see `base`.
"""

import contextlib
import math
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from walras.errors import InputError, NoDerivativeError, NotFiniteError, ShapeError, WalrasError, one_line
from walras.policies.base import Observation, PerAgent, Policy, PolicyMemory, PublicObservation, ShadowPrices
from walras.population.agent_axis import Broadcast, agent_axis_of, is_broadcast
from walras.population.population import Population


@dataclass(frozen=True, eq=False)
class CallbackSpec:
    """A function that is compared by identity, so that compiled programs can be looked up by it."""

    function: Any

    def __post_init__(self) -> None:
        """Refuse what cannot be called."""
        if not callable(self.function):
            raise InputError(f"a policy's function is {self.function!r} but must be callable; give a function")

    @property
    def name(self) -> str:
        """Return the function's name, for sentences."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def __eq__(self, other: object) -> bool:
        """Compare by the function's identity."""
        return isinstance(other, CallbackSpec) and hash(self) == hash(other)

    def __hash__(self) -> int:
        """Hash by identity; a bound method is a new object at every look-up."""
        bound = isinstance(self.function, MethodType)
        return hash((id(self.function.__self__), id(self.function.__func__))) if bound else id(self.function)


@dataclass(frozen=True)
class CallbackView:
    """Observation of a block of agents as NumPy arrays; with scenarios each agent is listed once per scenario.

    The simulator chooses how many agents come in a call, so the function must treat each by itself.

    Attributes:
        week: index of the week in the run.
        agent: index in the population of each entry.
        stock_start: stock after receipts [units].
        position: stock_start plus open orders [units].
        lead_demand_mean, lead_demand_sd: forecast of the demand of weeks t .. t + lead time [units].
        sale_price, unit_cost, next_unit_cost: money per unit this week, and next week's cost.
        holding_cost, lost_sale_penalty, lead_time, demand_scale, unit_margin, use: as in `Population`.
        resources: names along the resource axis.
        shadow_prices: announced path, this week first [money per unit of resource].
        past_demand: demand of the last weeks, last week last [units/week], where the policy keeps a past.
        parameters: the policy's own, each agent's numbers on the last axis.
    """

    week: int
    agent: Int[np.ndarray, " agent"]
    stock_start: Float[np.ndarray, " agent"]
    position: Float[np.ndarray, " agent"]
    lead_demand_mean: Float[np.ndarray, " agent"]
    lead_demand_sd: Float[np.ndarray, " agent"]
    sale_price: Float[np.ndarray, " agent"]
    unit_cost: Float[np.ndarray, " agent"]
    next_unit_cost: Float[np.ndarray, " agent"]
    holding_cost: Float[np.ndarray, " agent"]
    lost_sale_penalty: Float[np.ndarray, " agent"]
    lead_time: Int[np.ndarray, " agent"]
    demand_scale: Float[np.ndarray, " agent"]
    unit_margin: Float[np.ndarray, " agent"]
    use: Float[np.ndarray, "agent resource"]
    resources: tuple[str, ...]
    shadow_prices: Float[np.ndarray, "lead resource"]
    past_demand: Float[np.ndarray, "past agent"] | None = None
    parameters: Any = None


# Fields of `Observation`, and of `Population`, that a `CallbackView` has too.
SEEN = ("stock_start", "position", "lead_demand_mean", "lead_demand_sd", "sale_price", "unit_cost", "next_unit_cost")
STATIC = ("holding_cost", "lost_sale_penalty", "lead_time", "demand_scale", "unit_margin")

ONE_AT_A_TIME = threading.Lock()  # held by functions not declared thread-safe: blocks of agents run in parallel

# The last errors and agents' numbers: a compiled program passes on only text. Few, as each keeps a traceback.
_RAISED: deque[tuple[WalrasError, int | None]] = deque(maxlen=8)


def _noted(error: WalrasError, agent: int | None = None) -> WalrasError:
    """Keep an error for `callback_names`, and return it."""
    _RAISED.append((error, agent))
    return error


@contextlib.contextmanager
def callback_names(population: Population) -> Iterator[None]:
    """Turn the error of a compiled program whose callback failed into the callback's own sentence.

    Args:
        population: whose names are used in the sentence.

    Raises:
        InputError, ShapeError, NotFiniteError: the sentence; the function's own error is its cause.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # depends on the path through JAX
        text = str(error)
        entry = next((entry for entry in _RAISED if str(entry[0]) in text), None)
        if entry is None:
            raise
        with contextlib.suppress(ValueError):  # another thread reported the same
            _RAISED.remove(entry)
        raised, agent = entry
        sentence = str(raised)
        if agent is not None:
            sentence = sentence.replace(f"for agent {agent} ", f"for {population.name_of(agent)} ")
        raise type(raised)(sentence) from raised.__cause__


@dataclass(frozen=True)
class HostCall:
    """Host side of a callback: the function and what it needs beside arrays."""

    function: CallbackSpec
    thread_safe: bool
    resources: tuple[str, ...]

    def __call__(self, by_agent: Any, shared: Any) -> Float[np.ndarray, "*case agent"]:
        """Return orders for arrays that have axes of scenarios in front, all as many.

        Args:
            by_agent: fields of `CallbackView` and parameters with agents last, and the agents' `row`.
            shared: week, prices and parameters that agents share.
        """
        by_agent, shared = jax.tree.map(np.asarray, (by_agent, shared))
        depth = shared[0]["week"].ndim
        cases = np.broadcast_shapes(*(leaf.shape[:depth] for leaf in jax.tree.leaves((by_agent, shared))))

        def all_cases(leaf: np.ndarray) -> np.ndarray:
            return np.broadcast_to(leaf, (*cases, *leaf.shape[depth:]))

        def cases_as_agents(leaf: np.ndarray) -> np.ndarray:
            own = leaf.shape[depth:]
            return np.moveaxis(all_cases(leaf).reshape(-1, *own), 0, -2).reshape(*own[:-1], -1)

        if all(math.prod(leaf.shape[:depth]) == 1 for leaf in jax.tree.leaves(shared)):
            alike = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[depth:]), shared)
            return self.orders(jax.tree.map(cases_as_agents, by_agent), alike).reshape(*cases, -1)
        every = jax.tree.map(all_cases, (by_agent, shared))
        orders = [self.orders(*jax.tree.map(lambda leaf, at=at: leaf[at], every)) for at in np.ndindex(*cases)]
        return np.stack(orders).reshape(*cases, -1)

    def orders(self, by_agent: Any, shared: Any) -> Float[np.ndarray, " agent"]:
        """Call the function for a list of agents, and refuse invalid orders."""
        # Copies, since the function may keep or change them.
        (own, own_parameters), (common, shared_parameters) = jax.tree.map(np.array, (by_agent, shared))
        row, use, week = own.pop("row"), own.pop("use").T, int(common.pop("week"))
        parameters = eqx.combine(own_parameters, shared_parameters)
        view = CallbackView(**own, **common, week=week, use=use, resources=self.resources, parameters=parameters)
        who = f"the policy `{self.function.name}`"
        try:
            with contextlib.nullcontext() if self.thread_safe else ONE_AT_A_TIME:
                answer = self.function.function(view)
            orders = np.array(answer, np.float32)
        except Exception as error:
            why = f"{type(error).__name__}: {one_line(str(error))[:200]}"
            raise _noted(InputError(f"{who} failed in week {week} ({why}); correct the function")) from error
        if orders.shape != row.shape:
            what = f"{who} returned orders of shape {orders.shape} in week {week} but needs {row.shape}"
            raise _noted(ShapeError(f"{what}; return one number for every agent"))
        wrong = np.flatnonzero(~(np.isfinite(orders) & (orders >= 0)))
        if len(wrong):
            order, agent = orders[wrong[0]], int(row[wrong[0]])
            kind = InputError if np.isfinite(order) else NotFiniteError
            what = f"{who} ordered {order:g} in week {week} for agent {agent} but must order 0 or a finite number above"
            raise _noted(kind(f"{what}; correct the function"), agent)
        return orders


def _as_arrays(parameters: Any) -> Any:
    """Make numbers arrays, so that new values do not recompile."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if eqx.is_array_like(leaf) else leaf, parameters)


def _unmarked(parameters: Any) -> Any:
    """Remove the marks of what is shared."""
    return jax.tree.map(lambda node: node.value if is_broadcast(node) else node, parameters, is_leaf=is_broadcast)


class FunctionPolicy(Policy):
    """Policy given by a function written in `jax.numpy`; derivatives pass through it.

    Attributes:
        function: `orders(observation, shadow_prices)` or, with parameters, `orders(observation, shadow_prices,
            parameters)`, returning one order >= 0 for every agent [units].
        parameters: any tree of numbers, all of which can be trained. Arrays with the agent axis last are per agent;
            what is marked `Broadcast` is shared, and the function gets it without the mark.
    """

    function: Any = eqx.field(static=True, converter=CallbackSpec)
    parameters: Any = eqx.field(default=None, converter=_as_arrays)

    def orders(self, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the function's orders."""
        more = () if self.parameters is None else (_unmarked(self.parameters),)
        found = self.function.function(observation, shadow_prices, *more)
        return jnp.asarray(found, observation.position.dtype)


class CallbackPolicy(Policy):
    """Policy given by any Python function, called back on NumPy arrays: a table, a rule, a PyTorch model.

    The function gets a `CallbackView` and returns one order >= 0 per listed agent [units], as anything that NumPy turns
    into an array. It must be pure, treat each agent by itself and not call jax. It has no derivative; with a
    `surrogate`, derivatives are approximated by the surrogate's, along the trajectory of the black box.

    Attributes:
        function: from `CallbackView` to orders.
        parameters: numbers passed as `CallbackView.parameters`; arrays with the agent axis last are per agent.
        surrogate: policy whose derivative replaces that of the function; None for none.
        past: weeks of past demand in `CallbackView.past_demand`; before the start, an agent's mean demand.
        thread_safe: the function may run in several threads at once.
        agent: index of each agent in the whole population; set by `number_agents`.
        row: index of each agent in the simulated population, for its name.
    """

    function: Any = eqx.field(static=True, converter=CallbackSpec)
    parameters: Any = eqx.field(default=None, converter=_as_arrays)
    surrogate: Policy | None = eqx.field(default=None, kw_only=True)
    agent: Int[Array, " agent"] | None = eqx.field(default=None, kw_only=True)
    row: Int[Array, " agent"] | None = eqx.field(default=None, kw_only=True)
    past: int = eqx.field(static=True, default=0, kw_only=True)
    thread_safe: bool = eqx.field(static=True, default=False, kw_only=True)

    def __check_init__(self) -> None:
        if self.past < 0:
            raise InputError(f"`past` is {self.past} but a policy sees 0 or more weeks of the past; give e.g. 8")

    @property
    def _inner(self) -> Policy:
        """Return the surrogate, or a policy that neither reads nor remembers."""
        return Policy() if self.surrogate is None else self.surrogate

    @property
    def ahead(self) -> int:
        """Count the weeks of announced prices beyond the longest lead time that the surrogate uses."""
        return self._inner.ahead

    @property
    def reads_history(self) -> bool:
        """Tell whether the function sees past demand, or the surrogate reads history."""
        return self.past > 0 or self._inner.reads_history

    def begin(self, population: Population) -> PolicyMemory | None:
        """Return mean demand for the weeks before the first, and the surrogate's initial memory."""
        theirs = self._inner.begin(population)
        if not self.past and theirs is None:
            return None
        theirs = PolicyMemory() if theirs is None else theirs
        return PolicyMemory((self._before(population), theirs.exogenous_state), theirs.own_state)

    def _before(self, population: Population) -> Float[Array, "past agent"] | None:
        """Return the demand assumed for the weeks before the first, where the function sees a past."""
        return jnp.broadcast_to(population.demand_scale, (self.past, population.n_agents)) if self.past else None

    def read(self, memory: Any, outlooks: PublicObservation, demand: Float[Array, "week agent"]) -> tuple[Any, Any]:
        """Return for every week the demand of the weeks before, and what the surrogate reads."""
        before, theirs = (self._before(outlooks.population), None) if memory is None else memory
        read, theirs = self._inner.read(theirs, outlooks, demand)
        if before is None:
            return (None, read), (None, theirs)
        known = jnp.concatenate([before, demand])
        rows = np.arange(len(demand))[:, None] + np.arange(self.past)
        return (known[rows], read), (known[len(demand) :], theirs)

    def remember(self, observation: Observation, orders: Float[Array, " agent"]) -> Any:
        """Update the surrogate's own state."""
        return self._inner.remember(self._for_surrogate(observation), orders)

    def encode(self, outlook: PublicObservation, shadow_prices: ShadowPrices) -> Any:
        """Return the past demand of the week, and the surrogate's encoding."""
        past, theirs = (self._before(outlook.population), None) if outlook.read is None else outlook.read
        return past, self._inner.encode(replace(outlook, read=theirs), shadow_prices)

    def decide(self, encoded: Any, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the function's orders."""
        return _call_back(self, encoded, observation, shadow_prices)

    def _for_surrogate(self, observation: Observation) -> Observation:
        """Replace the memory by the surrogate's."""
        if observation.memory is None:
            return observation
        _, theirs = observation.memory.exogenous_state
        return replace(observation, memory=PolicyMemory(theirs, observation.memory.own_state))


@eqx.filter_custom_jvp
def _call_back(policy: CallbackPolicy, encoded: Any, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
    """Call the function from within a compiled program."""
    population, agents = observation.population, observation.position.shape[0]
    numbers = jnp.arange(agents, dtype=jnp.int32)
    own = {name: getattr(observation, name) for name in SEEN}
    own |= {name: getattr(population, name) for name in STATIC} | {"use": population.use.T, "past_demand": encoded[0]}
    own |= {
        "agent": numbers if policy.agent is None else policy.agent,
        "row": numbers if policy.row is None else policy.row,
    }
    common = {"week": observation.week, "shadow_prices": shadow_prices}
    mine, shared = eqx.partition(policy.parameters, agent_axis_of(policy.parameters, agents))
    call = HostCall(policy.function, policy.thread_safe, population.resources)
    shape = jax.ShapeDtypeStruct((agents,), jnp.float32)
    parts = (own, _unmarked(mine)), (common, _unmarked(shared))
    return jax.pure_callback(call, shape, *parts, vmap_method="expand_dims").astype(observation.position.dtype)


@_call_back.def_jvp
def _surrogate_slope(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """Refuse, or use the surrogate's derivative; runs while a program is traced."""
    policy, *given = primals
    if policy.surrogate is None:
        raise NoDerivativeError(
            f"the policy `{policy.function.name}` is a black box whose orders have no derivative, but one is needed "
            "here; simulate with it or search without derivatives, or give a policy like it as `surrogate`"
        )
    if jax.tree.leaves(tangents[0].parameters):
        raise NoDerivativeError(
            f"the policy `{policy.function.name}` is a black box without derivative in its `parameters`, and a "
            "surrogate does not know them; differentiate in prices, or train the surrogate by itself"
        )

    def decide(encoded: Any, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        return policy.surrogate.decide(encoded[1], policy._for_surrogate(observation), shadow_prices)

    _, slope = eqx.filter_jvp(decide, given, list(tangents[1:]))
    return _call_back(*primals), slope


def number_agents(policy: Policy, n_agents: int, first: int = 0) -> Policy:
    """Number the agents in every black box within a policy, before they are split into ranges, blocks or samples.

    Numbers already set are kept. Parameters without a number for every agent are marked as shared, whatever their
    length is in a block.

    Args:
        policy: any policy; unchanged without a black box.
        n_agents: agents that it is for.
        first: number of the first of them in the whole population.
    """
    rows = jnp.arange(n_agents, dtype=jnp.int32)

    def numbered(node: Any) -> Any:
        if not isinstance(node, CallbackPolicy):
            return node
        agents = rows + first if node.agent is None else node.agent
        marked = jax.tree.map(
            lambda part, mine: part if is_broadcast(part) or mine is True else Broadcast(part),
            node.parameters,
            agent_axis_of(node.parameters, n_agents),
            is_leaf=is_broadcast,
        )
        fields = lambda box: (box.parameters, box.agent, box.row)  # noqa: E731
        return eqx.tree_at(fields, node, (marked, agents, rows), is_leaf=lambda value: value is None)

    return jax.tree.map(numbered, policy, is_leaf=lambda node: isinstance(node, CallbackPolicy))
