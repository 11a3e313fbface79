"""Policies given as functions: written in JAX, or black boxes called back on NumPy arrays.

CONTRACT: `CallbackView` is what black boxes see. Every mistake in a user's function ends in one sentence. A policy with
memory is a module instead, see `base`.
"""

import contextlib
import math
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, NamedTuple

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
    """A function that is compared by identity, so that compiled programs can be looked up by it.

    Attributes:
        function: anything that can be called.
    """

    function: Any

    def __post_init__(self) -> None:
        """Refuse what cannot be called."""
        if not callable(self.function):
            raise InputError(f"a policy's function is {self.function!r} but must be callable; give a function")

    @property
    def name(self) -> str:
        """Return the function's name, for sentences."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def _identity(self) -> tuple[int, ...]:
        """Return what identifies it; a bound method is a new object at every look-up."""
        if isinstance(self.function, MethodType):
            return id(self.function.__self__), id(self.function.__func__)
        return (id(self.function),)

    def __eq__(self, other: object) -> bool:
        """Compare by the function's identity."""
        return isinstance(other, CallbackSpec) and self._identity() == other._identity()

    def __hash__(self) -> int:
        """Hash by identity."""
        return hash(self._identity())


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


class _Trouble(NamedTuple):
    """An error in a call: a sentence with a place for the agent's name."""

    kind: type[WalrasError]
    sentence: str
    agent: int | None = None
    cause: BaseException | None = None

    def words(self, population: Population | None = None) -> str:
        """Return the sentence; without a population the agent has a number only."""
        if self.agent is None:
            return self.sentence
        name = f"agent {self.agent}" if population is None else population.name_of(self.agent)
        return self.sentence.replace("{agent}", name)


ONE_AT_A_TIME = threading.Lock()
"""Held while a function runs that is not declared thread-safe: blocks of agents run in parallel."""

_RAISED: deque[_Trouble] = deque(maxlen=8)
"""The last errors, since a compiled program passes on only their text; few, as each keeps a traceback."""


@dataclass(frozen=True)
class HostCall:
    """Host side of a callback: the function and what it needs beside arrays.

    Attributes:
        callee: the function.
        thread_safe: it may run in several threads at once.
        resources: names along the resource axis.
        structure: tree of the parameters.
        own: for each array that is passed, whether agents are its last axis.
        ranks: its number of axes, without those of scenarios.
    """

    callee: CallbackSpec
    thread_safe: bool
    resources: tuple[str, ...]
    structure: Any
    own: tuple[bool, ...]
    ranks: tuple[int, ...]

    def __call__(self, *leaves: Any) -> Float[np.ndarray, "*case agent"]:
        """Return orders for arrays that may have axes of scenarios in front."""
        # Copies, since the function may keep or change them.
        arrays = [np.array(leaf) for leaf in leaves]
        parts = list(zip(arrays, self.own, self.ranks, strict=True))
        cases = np.broadcast_shapes(*(array.shape[: array.ndim - rank] for array, _, rank in parts))
        agents = arrays[0].shape[-1]
        if all(own or math.prod(array.shape[: array.ndim - rank]) == 1 for array, own, rank in parts):
            flat = [_flat(array, cases, rank) if own else _bare(array, rank) for array, own, rank in parts]
            return self._checked(flat).reshape(*cases, agents)
        spread = [np.broadcast_to(a, (*cases, *a.shape[a.ndim - rank :])) for a, _, rank in parts]
        found = [self._checked([np.array(array[case]) for array in spread]) for case in np.ndindex(*cases)]
        return np.stack(found).reshape(*cases, agents)

    def _checked(self, arrays: list[np.ndarray]) -> Float[np.ndarray, " agent"]:
        """Call the function for a list of agents, and refuse invalid orders."""
        seen = self._seen(arrays)
        try:
            with contextlib.nullcontext() if self.thread_safe else ONE_AT_A_TIME:
                answer = self.callee.function(seen)
            orders = np.array(answer, np.float32)
        except Exception as error:
            why = f"{type(error).__name__}: {one_line(str(error))[:200]}"
            sentence = f"the policy `{self.callee.name}` failed in week {seen.week} ({why}); correct the function"
            raise self._raised(_Trouble(InputError, sentence, cause=error)) from error
        trouble = self._trouble(seen, orders, arrays[0])
        if trouble is not None:
            raise self._raised(trouble)
        return orders

    def _trouble(self, seen: CallbackView, orders: np.ndarray, row: np.ndarray) -> _Trouble | None:
        """Return the error in orders, or None."""
        who = f"the policy `{self.callee.name}`"
        if orders.shape != seen.position.shape:
            needed = f"needs {seen.position.shape}; return one number for every agent"
            return _Trouble(
                ShapeError, f"{who} returned orders of shape {orders.shape} in week {seen.week} but {needed}"
            )
        wrong = ~(np.isfinite(orders) & (orders >= 0))
        if not wrong.any():
            return None
        first = int(np.argmax(wrong))
        kind = InputError if np.isfinite(orders[first]) else NotFiniteError
        what = f"{who} ordered {orders[first]:g} in week {seen.week} for {{agent}}"
        return _Trouble(
            kind, f"{what} but must order 0 or a finite number above; correct the function", int(row[first])
        )

    def _seen(self, arrays: list[np.ndarray]) -> CallbackView:
        """Name the arrays."""
        named = dict(zip(PASSED[1:], arrays[1:], strict=False))
        week, prices, use, past = (named.pop(name) for name in ("week", "shadow_prices", "use", "past_demand"))
        return CallbackView(
            **named,
            week=int(week),
            shadow_prices=prices,
            use=use.T,
            resources=self.resources,
            past_demand=past if len(past) else None,
            parameters=jax.tree.unflatten(self.structure, arrays[len(PASSED) :]),
        )

    def _raised(self, trouble: _Trouble) -> WalrasError:
        """Keep the error for `callback_names`, and return it as an exception."""
        _RAISED.append(trouble)
        return trouble.kind(trouble.words())


BY_AGENT = (
    "stock_start",
    "position",
    "lead_demand_mean",
    "lead_demand_sd",
    "sale_price",
    "unit_cost",
    "next_unit_cost",
)
STATIC = ("holding_cost", "lost_sale_penalty", "lead_time", "demand_scale", "unit_margin")
PASSED = ("row", "agent", *BY_AGENT, *STATIC, "use", "past_demand", "week", "shadow_prices")
"""Arrays in the order in which they are passed, before the parameters; the last two are shared by all agents."""

OWN = (*[True] * (len(PASSED) - 2), False, False)
RANKS = (*[1] * (len(PASSED) - 4), 2, 2, 0, 2)


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
        trouble = next((raised for raised in _RAISED if raised.words() in text), None)
        if trouble is None:
            raise
        with contextlib.suppress(ValueError):  # another thread reported the same
            _RAISED.remove(trouble)
        raise trouble.kind(trouble.words(population)) from trouble.cause


def _flat(array: np.ndarray, cases: tuple[int, ...], rank: int) -> np.ndarray:
    """Flatten cases into agents: [*case, *axis, agent] to [*axis, case x agent]."""
    own = array.shape[array.ndim - rank :]
    full = np.broadcast_to(array, (*cases, *own)).reshape(math.prod(cases), *own)
    return np.array(np.moveaxis(full, 0, -2)).reshape(*own[:-1], math.prod(cases) * own[-1])


def _bare(array: np.ndarray, rank: int) -> np.ndarray:
    """Drop the axes of cases, all of length 1."""
    return array.reshape(array.shape[array.ndim - rank :])


def leaves_passed(values: dict[str, Any], parameters: Sequence[Any]) -> list[Any]:
    """Put arrays in the order in which they are passed."""
    return [*(values[name] for name in PASSED), *parameters]


class FunctionPolicy(Policy):
    """Policy given by a function written in `jax.numpy`; derivatives pass through it.

    Attributes:
        function: `orders(observation, shadow_prices)` or, with parameters, `orders(observation, shadow_prices,
            parameters)`, returning one order >= 0 for every agent [units].
        parameters: any tree of numbers, all of which can be trained. Arrays with the agent axis last are per agent;
            what is marked `Broadcast` is shared, and the function gets it without the mark.
    """

    function: CallbackSpec = eqx.field(static=True)
    parameters: Any = None

    def __init__(self, function: Any, parameters: Any = None) -> None:
        """Keep the function, and its parameters as arrays, so that new values do not recompile."""
        self.function = CallbackSpec(function)
        self.parameters = _as_arrays(parameters)

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

    function: CallbackSpec = eqx.field(static=True)
    parameters: Any
    surrogate: Policy | None
    agent: Int[Array, " agent"] | None
    row: Int[Array, " agent"] | None
    past: int = eqx.field(static=True)
    thread_safe: bool = eqx.field(static=True)

    def __init__(
        self,
        function: Any,
        parameters: Any = None,
        *,
        surrogate: Policy | None = None,
        past: int = 0,
        thread_safe: bool = False,
    ) -> None:
        """Keep what was given.

        Raises:
            InputError: a function that cannot be called, a negative past.
        """
        if past < 0:
            raise InputError(f"`past` is {past} but a policy sees 0 or more weeks of the past; give e.g. 8")
        self.function, self.parameters, self.surrogate = CallbackSpec(function), _as_arrays(parameters), surrogate
        self.past, self.thread_safe = past, thread_safe
        self.agent = self.row = None

    def numbered(self, n_agents: int, first: int = 0) -> "CallbackPolicy":
        """Return the same policy with numbered agents and marked parameters; numbers already set are kept."""
        rows = jnp.arange(n_agents, dtype=jnp.int32)
        agents = rows + first if self.agent is None else self.agent
        mine = agent_axis_of(self.parameters, n_agents)
        marked = jax.tree.map(_marked, self.parameters, mine, is_leaf=is_broadcast)
        return eqx.tree_at(lambda p: (p.parameters, p.agent, p.row), self, (marked, agents, rows), is_leaf=_is_none)

    @property
    def ahead(self) -> int:
        """Count the weeks of announced prices beyond the longest lead time that the surrogate uses."""
        return 1 if self.surrogate is None else self.surrogate.ahead

    @property
    def reads_history(self) -> bool:
        """Tell whether the function sees past demand, or the surrogate reads history."""
        return self.past > 0 or (self.surrogate is not None and self.surrogate.reads_history)

    def begin(self, population: Population) -> PolicyMemory | None:
        """Return mean demand for the weeks before the first, and the surrogate's initial memory."""
        theirs = None if self.surrogate is None else self.surrogate.begin(population)
        if not self.past and theirs is None:
            return None
        theirs = PolicyMemory() if theirs is None else theirs
        return PolicyMemory((self._before(population) if self.past else None, theirs.exogenous_state), theirs.own_state)

    def _before(self, population: Population) -> Float[Array, "past agent"]:
        """Return the demand assumed for the weeks before the first."""
        return jnp.broadcast_to(population.demand_scale, (self.past, population.n_agents))

    def read(self, memory: Any, outlooks: PublicObservation, demand: Float[Array, "week agent"]) -> tuple[Any, Any]:
        """Return for every week the demand of the weeks before, and what the surrogate reads."""
        before, theirs = (self._before(outlooks.population), None) if memory is None else memory
        found, theirs = (None, theirs) if self.surrogate is None else self.surrogate.read(theirs, outlooks, demand)
        if not self.past:
            return (None, found), (None, theirs)
        known = jnp.concatenate([before, demand])
        rows = np.arange(len(demand))[:, None] + np.arange(self.past)
        return (known[rows], found), (known[len(demand) :], theirs)

    def remember(self, observation: Observation, orders: Float[Array, " agent"]) -> Any:
        """Update the surrogate's own state."""
        return None if self.surrogate is None else self.surrogate.remember(self._for_surrogate(observation), orders)

    def encode(self, outlook: PublicObservation, shadow_prices: ShadowPrices) -> Any:
        """Return the past demand of the week, and the surrogate's encoding."""
        past, theirs = (None, None) if outlook.read is None else outlook.read
        if self.surrogate is None:
            return past, None
        known = eqx.tree_at(lambda o: o.read, outlook, theirs, is_leaf=_is_none)
        return past, self.surrogate.encode(known, shadow_prices)

    def decide(self, encoded: Any, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the function's orders."""
        past, theirs = encoded
        if past is None:
            past = self._before(observation.population)
        shown = (self.parameters, observation, shadow_prices, past)
        return _call_back(self, shown, self.surrogate, theirs, self._for_surrogate(observation))

    def orders(self, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the function's orders."""
        return self.decide(self.encode(observation, shadow_prices), observation, shadow_prices)

    def _for_surrogate(self, observation: Observation) -> Observation:
        """Replace the memory by the surrogate's."""
        if observation.memory is None:
            return observation
        _, theirs = observation.memory.exogenous_state
        memory = PolicyMemory(theirs, observation.memory.own_state)
        return eqx.tree_at(lambda o: o.memory, observation, memory, is_leaf=_is_none)

    def _call(self, shown: Any) -> PerAgent:
        """Call the function from within a compiled program."""
        parameters, observation, shadow_prices, past = shown
        people, agents = observation.population, observation.position.shape[0]
        fields = {name: getattr(observation, name) for name in BY_AGENT}
        fields |= {name: getattr(people, name) for name in STATIC} | {"use": people.use.T, "past_demand": past}
        fields |= {"week": observation.week, "shadow_prices": shadow_prices}
        numbers = jnp.arange(agents, dtype=jnp.int32)
        fields |= {
            "agent": numbers if self.agent is None else self.agent,
            "row": numbers if self.row is None else self.row,
        }
        mine = tuple(jax.tree.leaves(agent_axis_of(parameters, agents)))
        leaves, structure = jax.tree.flatten(_unmarked(parameters))
        ranks = (*RANKS, *(np.ndim(each) for each in leaves))
        call = HostCall(self.function, self.thread_safe, people.resources, structure, (*OWN, *mine), ranks)
        shape = jax.ShapeDtypeStruct((agents,), jnp.float32)
        found = jax.pure_callback(call, shape, *leaves_passed(fields, leaves), vmap_method="expand_dims")
        return found.astype(observation.position.dtype)


@eqx.filter_custom_jvp
def _call_back(
    policy: CallbackPolicy, shown: Any, surrogate: Policy | None, theirs: Any, observation: Observation
) -> PerAgent:
    """Return the function's orders; `theirs` and the observation are for the surrogate."""
    return policy._call(shown)


@_call_back.def_jvp
def _slope(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """Refuse, or use the surrogate's derivative; runs while a program is traced."""
    policy, shown, surrogate, theirs, observation = primals
    if surrogate is None:
        raise NoDerivativeError(
            f"the policy `{policy.function.name}` is a black box whose orders have no derivative, but one is needed "
            "here; simulate with it or search without derivatives, or give a policy like it as `surrogate`"
        )
    if jax.tree.leaves(tangents[1][0]):
        raise NoDerivativeError(
            f"the policy `{policy.function.name}` is a black box without derivative in its `parameters`, and a "
            "surrogate does not know them; differentiate in prices, or train the surrogate by itself"
        )
    decide = lambda encoded, seen, prices: surrogate.decide(encoded, seen, prices)  # noqa: E731
    moves = (tangents[3], tangents[4], tangents[1][2])
    _, slope = eqx.filter_jvp(decide, (theirs, observation, shown[2]), moves)
    return _call_back(*primals), slope


def number_agents(policy: Policy, n_agents: int, first: int = 0) -> Policy:
    """Number the agents in every black box within a policy, before they are split into ranges, blocks or samples.

    Args:
        policy: any policy; unchanged without a black box.
        n_agents: agents that it is for.
        first: number of the first of them in the whole population.
    """
    is_box = lambda node: isinstance(node, CallbackPolicy)  # noqa: E731
    number = lambda node: node.numbered(n_agents, first) if is_box(node) else node  # noqa: E731
    return jax.tree.map(number, policy, is_leaf=is_box)


def _as_arrays(parameters: Any) -> Any:
    """Make numbers arrays."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if eqx.is_array_like(leaf) else leaf, parameters)


def _unmarked(parameters: Any) -> Any:
    """Remove the marks of what is shared."""
    return jax.tree.map(lambda node: node.value if is_broadcast(node) else node, parameters, is_leaf=is_broadcast)


def _marked(node: Any, mine: Any) -> Any:
    """Mark what is shared, whatever its length in a block."""
    return node if is_broadcast(node) or mine is True else Broadcast(node)


def _is_none(value: object) -> bool:
    return value is None
