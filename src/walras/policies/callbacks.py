"""Own the call from a compiled simulation to a function outside of it: what it is shown, and what it must return.

CONTRACT: `CallbackView` is what people's functions read; every mistake of theirs ends in one sentence, whatever thread made it.
"""

import contextlib
import math
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from walras.errors import InputError, NotFiniteError, ShapeError, WalrasError, one_line
from walras.population.population import Population


@dataclass(frozen=True, eq=False)
class CallbackSpec:
    """Hold a function such that compiled programs tell it from others by identity, even where it cannot be compared.

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
        """Name it in a sentence."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def _identity(self) -> tuple[int, ...]:
        """Tell it from others; a method is made anew whenever it is looked up, and is the same all the same."""
        if isinstance(self.function, MethodType):
            return id(self.function.__self__), id(self.function.__func__)
        return (id(self.function),)

    def __eq__(self, other: object) -> bool:
        """Call two the same that hold the same function."""
        return isinstance(other, CallbackSpec) and self._identity() == other._identity()

    def __hash__(self) -> int:
        """Hash by identity."""
        return hash(self._identity())


@dataclass(frozen=True)
class CallbackView:
    """Hold what agents know when they order, as NumPy arrays: the agents of one block, in all its scenarios.

    Agents are listed one after the other; with scenarios each is listed once for every scenario, so that one call
    answers for all. How many come in a call is up to the simulator: answer for each by itself.

    Attributes:
        week: index of the week in the run.
        agent: which agent of the population each entry is.
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
    """Hold what went wrong in a call: a sentence with a place for the agent's name."""

    kind: type[WalrasError]
    sentence: str
    agent: int | None = None
    cause: BaseException | None = None

    def words(self, population: Population | None = None) -> str:
        """Say it; without the population the agent has a number only."""
        if self.agent is None:
            return self.sentence
        name = f"agent {self.agent}" if population is None else population.name_of(self.agent)
        return self.sentence.replace("{agent}", name)


ONE_AT_A_TIME = threading.Lock()
"""Held while a function runs that is not declared safe for threads: blocks of agents run side by side."""

_RAISED: deque[_Trouble] = deque(maxlen=8)
"""The last troubles, since a compiled program passes on an error's words only; few, as each keeps a traceback."""


@dataclass(frozen=True)
class HostCall:
    """Call a function for all agents of a block, and hold what it needs beside arrays.

    Attributes:
        callee: the function.
        thread_safe: it may run in several threads at once.
        resources: names along the resource axis.
        structure: tree of the parameters.
        own: for each leaf that is passed, whether agents are its last axis.
        ranks: and its number of axes, without those of scenarios.
    """

    callee: CallbackSpec
    thread_safe: bool
    resources: tuple[str, ...]
    structure: Any
    own: tuple[bool, ...]
    ranks: tuple[int, ...]

    def __call__(self, *leaves: Any) -> Float[np.ndarray, "*case agent"]:
        """Return orders for arrays that may have axes of scenarios in front."""
        # Copies: the function may keep or change what it is given, the program's memory it may not.
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
        """Call the function for a list of agents, and refuse what cannot be orders."""
        seen = self._seen(arrays)
        try:
            with contextlib.nullcontext() if self.thread_safe else ONE_AT_A_TIME:
                answer = self.callee.function(seen)
            orders = np.array(answer, np.float32)
        except Exception as error:
            why = f"{type(error).__name__}: {one_line(str(error))[:200]}"
            sentence = f"the policy `{self.callee.name}` failed in week {seen.week} ({why}); mend the function"
            raise self._raised(_Trouble(InputError, sentence, cause=error)) from error
        trouble = self._trouble(seen, orders, arrays[0])
        if trouble is not None:
            raise self._raised(trouble)
        return orders

    def _trouble(self, seen: CallbackView, orders: np.ndarray, row: np.ndarray) -> _Trouble | None:
        """Find what is wrong with orders."""
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
        return _Trouble(kind, f"{what} but must order 0 or a finite number above; mend the function", int(row[first]))

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
        """Keep a trouble for whoever started the program, and return its error."""
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
"""Arrays in the order in which they are passed, before the parameters; the last two are all agents' alike."""

OWN = (*[True] * (len(PASSED) - 2), False, False)
RANKS = (*[1] * (len(PASSED) - 4), 2, 2, 0, 2)


@contextlib.contextmanager
def callback_names(population: Population) -> Iterator[None]:
    """Turn the error of a program that ended in a function called back into that function's own sentence.

    Args:
        population: who the agents are, so that the sentence names them.

    Raises:
        InputError, ShapeError, NotFiniteError: the sentence; the function's own error is its cause.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # which of the two depends on the road through JAX
        text = str(error)
        trouble = next((each for each in _RAISED if each.words() in text), None)
        if trouble is None:
            raise
        with contextlib.suppress(ValueError):  # another thread was told of the same
            _RAISED.remove(trouble)
        raise trouble.kind(trouble.words(population)) from trouble.cause


def _flat(array: np.ndarray, cases: tuple[int, ...], rank: int) -> np.ndarray:
    """List the agents of all cases one after the other: [*case, *axis, agent] to [*axis, case x agent]."""
    own = array.shape[array.ndim - rank :]
    full = np.broadcast_to(array, (*cases, *own)).reshape(math.prod(cases), *own)
    return np.array(np.moveaxis(full, 0, -2)).reshape(*own[:-1], math.prod(cases) * own[-1])


def _bare(array: np.ndarray, rank: int) -> np.ndarray:
    """Drop the axes of cases, all of length 1."""
    return array.reshape(array.shape[array.ndim - rank :])


def leaves_passed(values: dict[str, Any], parameters: Sequence[Any]) -> list[Any]:
    """Put arrays in the order in which they are passed."""
    return [*(values[name] for name in PASSED), *parameters]
