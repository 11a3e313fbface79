"""Own the check of arrays that hold one number for every agent, and the sentences where they do not.

FREE: used before anything is drawn, so that a bad number is named by its agent and never becomes a silent NaN.
"""

import numpy as np
from jaxtyping import Float, Real

from walras.errors import InputError, SettingsError, shape_mismatch


def per_agent(
    name: str, values: Real[np.ndarray, "..."], n_agents: int | None = None, *, lowest: float = -np.inf
) -> Float[np.ndarray, " agent"]:
    """Return one finite float for every agent.

    Args:
        name: of the argument, as the caller knows it.
        values: what was given.
        n_agents: how many are needed; default any number from 1 on.
        lowest: no value may be below.

    Raises:
        ShapeError: not one axis, or not as many as needed.
        InputError: no agent at all, or a value that is no number or too low.
    """
    found = np.asarray(values, float)
    if found.ndim != 1 or n_agents not in (None, len(found)):
        needed = "(agent,)" if n_agents is None else (n_agents,)
        raise shape_mismatch(name, found.shape, needed, "give one number for every agent")
    if not len(found):
        raise InputError(f"`{name}` is empty but needs at least one agent; give one number for every agent")
    bad = np.flatnonzero(~(np.isfinite(found) & (found >= lowest)))
    if len(bad):
        needed = "a finite number" if lowest == -np.inf else f"finite and at least {lowest:g}"
        raise InputError(f"`{name}` of agent {bad[0]} is {found[bad[0]]:g} but must be {needed}; mend or leave it out")
    return found


def whole_count(name: str, value: int, lowest: int = 1) -> int:
    """Return a number of agents or buckets.

    Raises:
        SettingsError: fewer than `lowest`.
    """
    if value < lowest:
        raise SettingsError(f"`{name}` is {value} but must be at least {lowest}; ask for a larger number")
    return int(value)
