"""Order constraints of vendors: minimum order, case packs and maximum, exact in evaluation, continuous in training."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from walras.clipping import minimum, positive_part
from walras.errors import InputError, shape_mismatch
from walras.policies.base import AbstractWrapper, Observation, PerAgent, Policy, ShadowPrices


def _numbers(value: Any) -> Any:
    """Make numbers an array, so that new values do not recompile; arrays of fractions keep their precision."""
    kind = getattr(value, "dtype", None)
    fractions = kind is not None and jnp.issubdtype(kind, jnp.floating)
    return jnp.asarray(value, jax.dtypes.canonicalize_dtype(kind) if fractions else jnp.float32)


class CasePacks(eqx.Module):
    """Place the allowed order nearest to the desired one; between two equally near, the smaller.

    Allowed are 0 and every whole number of cases from the minimum to the maximum. Rounding to the nearest rather than
    up is corrected by the next order of a policy that looks at its position. The derivative is 0 wherever it exists;
    use `continuous()` where derivatives are needed.

    Attributes:
        minimum: least order >= 0 that the vendor takes [units], one number or one per agent.
        case_pack: units in a case, > 0; 1 is whole units.
        maximum: most that may be ordered in a week [units]; infinite for no maximum, 0 for no orders.
    """

    minimum: Float[Array, "*agent"]
    case_pack: Float[Array, "*agent"]
    maximum: Float[Array, "*agent"]

    def __init__(self, minimum: Any = 0.0, case_pack: Any = 1.0, maximum: Any = np.inf) -> None:
        """Set the constraints, each one number or one per agent; what is not given does not bind.

        Raises:
            ShapeError: terms for different numbers of agents.
            InputError: values that are impossible or that no order can meet, with the agent.
        """
        numbers = [_numbers(x) for x in (minimum, case_pack, maximum)]
        shapes = [x.shape for x in numbers if x.ndim]
        if len(set(shapes)) > 1:
            given = " and ".join(str(shape) for shape in shapes)
            raise shape_mismatch("order terms", given, "one number, or one per agent", "give all for the same agents")
        self.minimum, self.case_pack, self.maximum = jnp.broadcast_arrays(*numbers)
        if any(isinstance(x, jax.core.Tracer) for x in numbers):  # inside a transform values cannot be read
            return
        least, case, most = (np.atleast_1d(x) for x in (self.minimum, self.case_pack, self.maximum))
        tight = (most > 0) & np.atleast_1d(self.most < self.least)
        for name, values, fine, needed in (
            ("minimum order", least, (least >= 0) & np.isfinite(least), "0 or more units"),
            ("case pack", case, (case > 0) & np.isfinite(case), "more than 0 units"),
            ("maximum order", most, most >= 0, "0 or more units"),
            ("maximum order", most, ~tight, "0, or room for the smallest whole number of cases that meets the minimum"),
        ):
            if not fine.all():
                first = int(np.argmin(fine))
                what = f"the {name} of agent {first} is {values[first]:g} but must be {needed}"
                raise InputError(f"{what}; correct the order terms")

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

    def place(self, desired: Float[Array, " agent"]) -> PerAgent:
        """Return the allowed order nearest to the desired one."""
        case = jax.lax.stop_gradient(self.case_pack)
        whole = jnp.floor(desired / case) * case
        nearest = jnp.where(desired - whole > case / 2, whole + case, whole)
        at_least = jnp.where(nearest < self.least, self.least, nearest)
        allowed = minimum(self.most, at_least)
        return jnp.where(desired <= self.least / 2, 0.0, allowed)

    def continuous(self) -> "Continuous":
        """Return what these constraints place on average."""
        return Continuous(self.most)


class Continuous(eqx.Module):
    """Place the desired order, up to the largest allowed one: case packs for training.

    Between two orders that `CasePacks` allows it is what `CasePacks` places on average. The derivative is 1 up to the
    largest order and 0 beyond. Waiting for a minimum order is not represented, so where that is many weeks of demand,
    stock and lost sales differ much.
    """

    most: Float[Array, "*agent"] = eqx.field(converter=_numbers)  # largest allowed order [units]

    def place(self, desired: Float[Array, " agent"]) -> PerAgent:
        """Return the desired order, clipped to 0 and the largest allowed order."""
        return minimum(jax.lax.stop_gradient(self.most), positive_part(desired))

    def continuous(self) -> "Continuous":
        """Return itself."""
        return self


class Constrained(AbstractWrapper):
    """Apply order constraints to the orders that another policy desires."""

    policy: Policy
    terms: CasePacks | Continuous

    def decide(self, encoded: Any, observation: Observation, shadow_prices: ShadowPrices) -> PerAgent:
        """Return the constrained orders of the inner policy."""
        return self.terms.place(self.policy.decide(encoded, observation, shadow_prices))

    def continuous(self) -> "Constrained":
        """Return the same policy under the continuous constraints."""
        return Constrained(self.policy, self.terms.continuous())
