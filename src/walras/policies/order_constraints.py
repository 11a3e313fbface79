"""Own the terms of a vendor: how a wish becomes an order of at least a minimum, in whole cases, up to a maximum.

LAW: spec section 2, step 4; whole in evaluation, continuous in training; add other terms as a class beside these.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from walras.clipping import minimum, positive_part
from walras.errors import InputError, shape_mismatch
from walras.policies.base import AbstractWrapper, Observation, Policy


def _numbers(value: Any) -> Any:
    """Make numbers an array, so that new values compile nothing anew; keep the precision of arrays of fractions."""
    kind = getattr(value, "dtype", None)
    fractions = kind is not None and jnp.issubdtype(kind, jnp.floating)
    return jnp.asarray(value, jax.dtypes.canonicalize_dtype(kind) if fractions else jnp.float32)


class AbstractOrderConstraints(eqx.Module):
    """Turn what an agent wishes into what is placed with the vendor."""

    @abc.abstractmethod
    def place(self, wished: Float[Array, " agent"]) -> Float[Array, " agent"]:
        """Return what is placed [units] for what is wished [units]; it never falls when a wish rises."""

    @abc.abstractmethod
    def continuous(self) -> "AbstractOrderConstraints":
        """Return the continuous form of these terms, for whatever needs derivatives."""


class CasePacks(AbstractOrderConstraints):
    """Place the allowed order that is nearest to the wish; between two equally near, the smaller.

    Allowed are nothing, and every whole number of cases from the minimum to the maximum. So a wish of up to half the
    least allowed order places nothing, a larger one at least that order; above, wishes go to the nearest case; beyond
    the maximum, to the last whole case in it. Nearest rather than always up: what was rounded off is back in the next
    wish of a policy that looks at its order position, which so stays within half a step of the one it aims at.

    Their derivative is 0 wherever there is one, and the terms themselves are facts without derivative; use `continuous()`
    where derivatives are needed.

    Attributes:
        minimum: least order >= 0 that the vendor takes [units], one number or one per agent.
        case_pack: units in a case, > 0; 1 is whole units.
        maximum: most that may be ordered in a week [units]; infinite for no maximum, 0 for no orders.
    """

    minimum: Float[Array, "*agent"]
    case_pack: Float[Array, "*agent"]
    maximum: Float[Array, "*agent"]

    def __init__(self, minimum: Any = 0.0, case_pack: Any = 1.0, maximum: Any = np.inf) -> None:
        """Keep the terms, each one number or one per agent; what is not given does not bind.

        Raises:
            ShapeError: terms for different numbers of agents.
            InputError: numbers that cannot be terms, and terms that no order can meet, with the agent.
        """
        numbers = [_numbers(x) for x in (minimum, case_pack, maximum)]
        shapes = [x.shape for x in numbers if x.ndim]
        if len(set(shapes)) > 1:
            given = " and ".join(str(shape) for shape in shapes)
            raise shape_mismatch("order terms", given, "one number, or one per agent", "give all for the same agents")
        self.minimum, self.case_pack, self.maximum = jnp.broadcast_arrays(*numbers)

    def __check_init__(self) -> None:
        """Refuse what cannot be; inside a JAX transform nothing can be looked at."""
        numbers = (self.minimum, self.case_pack, self.maximum)
        if any(isinstance(x, jax.core.Tracer) for x in numbers):
            return
        minimum, case_pack, maximum = (np.atleast_1d(x) for x in numbers)
        _refuse("minimum order", minimum, ~((minimum >= 0) & np.isfinite(minimum)), "0 or more units")
        _refuse("case pack", case_pack, ~((case_pack > 0) & np.isfinite(case_pack)), "more than 0 units")
        _refuse("maximum order", maximum, ~(maximum >= 0), "0 or more units")
        needed = "0, or room for the smallest whole number of cases that meets the minimum"
        _refuse("maximum order", maximum, (maximum > 0) & np.atleast_1d(self.most < self.least), needed)

    @property
    def least(self) -> Float[Array, "*agent"]:
        """Give the smallest allowed order above nothing: whole cases that meet the minimum, at least one [units]."""
        cases = jnp.round(self.minimum / self.case_pack)
        enough = cases + (cases * self.case_pack < self.minimum)  # rounding first: 3.0000002 cases are 3
        return jax.lax.stop_gradient(jnp.where(enough > 1, enough, 1.0) * self.case_pack)

    @property
    def most(self) -> Float[Array, "*agent"]:
        """Give the largest allowed order: the whole cases within the maximum [units]."""
        cases = jnp.round(self.maximum / self.case_pack)
        return jax.lax.stop_gradient((cases - (cases * self.case_pack > self.maximum)) * self.case_pack)

    def place(self, wished: Float[Array, " agent"]) -> Float[Array, " agent"]:
        """Return the allowed order nearest to the wish."""
        case = jax.lax.stop_gradient(self.case_pack)
        whole = jnp.floor(wished / case) * case
        nearest = jnp.where(wished - whole > case / 2, whole + case, whole)
        at_least = jnp.where(nearest < self.least, self.least, nearest)
        allowed = minimum(self.most, at_least)
        return jnp.where(wished <= self.least / 2, 0.0, allowed)

    def continuous(self) -> "Continuous":
        """Return what these terms place on average, over wishes spread evenly between allowed orders."""
        return Continuous(self.most)


class Continuous(AbstractOrderConstraints):
    """Place the wish itself, up to the largest allowed order: whole cases for training.

    It passes through every order that `CasePacks` allows, and between two of them it is what `CasePacks` places on
    average over evenly spread wishes. The derivative is 1 up to the largest order and 0 beyond it, and at the two ends
    that of a wish about to fall. It knows nothing of waiting for a minimum: where the least order is many weeks of
    demand, stock and lost sales differ much from those under whole cases.

    Attributes:
        most: largest allowed order [units], one number or one per agent.
    """

    most: Float[Array, "*agent"] = eqx.field(converter=_numbers)

    def place(self, wished: Float[Array, " agent"]) -> Float[Array, " agent"]:
        """Return the wish, not below 0 and not above the largest allowed order."""
        return minimum(jax.lax.stop_gradient(self.most), positive_part(wished))

    def continuous(self) -> "Continuous":
        """Return itself."""
        return self


class Constrained(AbstractWrapper):
    """Pass what another policy wishes through the vendor's terms.

    Attributes:
        policy: what is wished.
        terms: how a wish is placed.
    """

    policy: Policy
    terms: AbstractOrderConstraints

    def decide(
        self, encoded: Any, observation: Observation, shadow_prices: Float[Array, "lead resource"]
    ) -> Float[Array, " agent"]:
        """Return what is placed for what the inner policy decides."""
        return self.terms.place(self.policy.decide(encoded, observation, shadow_prices))

    def continuous(self) -> "Constrained":
        """Return the same policy under the continuous form of the terms."""
        return Constrained(self.policy, self.terms.continuous())


def _refuse(name: str, values: Float[np.ndarray, " agent"], wrong: Bool[np.ndarray, " agent"], needed: str) -> None:
    """Raise the sentence for the first agent whose terms are wrong, if there is one."""
    if wrong.any():
        first = int(np.argmax(wrong))
        raise InputError(f"the {name} of agent {first} is {values[first]:g} but must be {needed}; mend the order terms")
