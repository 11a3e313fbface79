"""Own the fingerprint of a local policy, by which maps know whose behaviour they were trained on.

CONTRACT: stored with trained maps; the same in every process and for every version of jax and numpy.
"""

import hashlib
from dataclasses import fields, is_dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np

from walras.policies.base import AbstractPolicy
from walras.population.along import is_shared


def policy_fingerprint(policy: AbstractPolicy, n_agents: int | None = None) -> str:
    """Return the SHA-256 of all that makes a policy behave as it does.

    Counted are the class, its settings, the content of its arrays, and functions by their module and name (not what is
    written in them). Arrays with a number for every agent (`population.along`) count by their place alone: they say
    who the agents are, not how they decide, and another population has others.

    Args:
        policy: what agents follow.
        n_agents: agents of the population it was made for; None counts every array whole.
    """
    digest = hashlib.sha256()
    for part in _parts(policy, n_agents):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _parts(node: Any, n_agents: int | None) -> list[bytes]:
    """List what counts, in the order of fields."""
    if is_shared(node):
        return [b"shared", *_parts(node.value, None)]
    if eqx.is_array(node) or isinstance(node, np.ndarray | np.generic):
        return _array(node, n_agents)
    if is_dataclass(node) and not isinstance(node, type):
        inner = [[each.name.encode(), *_parts(getattr(node, each.name, None), n_agents)] for each in fields(node)]
        return [_name(type(node)), *sum(inner, [])]
    if isinstance(node, dict):
        pairs = sorted((repr(key), value) for key, value in node.items())
        return [b"dict", *sum(([key.encode(), *_parts(value, n_agents)] for key, value in pairs), [])]
    if isinstance(node, tuple | list):
        return [b"list", str(len(node)).encode(), *sum((_parts(each, n_agents) for each in node), [])]
    if isinstance(node, frozenset | set):
        return [b"set", *sorted(b"".join(_parts(each, n_agents)) for each in node)]
    if isinstance(node, bool | int | float | complex | str | bytes | None):
        return [type(node).__name__.encode(), repr(node).encode()]
    return [_name(node if hasattr(node, "__qualname__") else type(node))]  # a function, a class, or anything else


def _array(node: Any, n_agents: int | None) -> list[bytes]:
    if hasattr(node, "dtype") and jax.dtypes.issubdtype(node.dtype, jax.dtypes.prng_key):
        node = jax.random.key_data(node)
    values = np.asarray(node)
    if n_agents is not None and values.shape[-1:] == (n_agents,):
        return [b"of every agent", str(values.ndim).encode()]
    plain = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    return [values.dtype.name.encode(), str(values.shape).encode(), plain.tobytes()]


def _name(kind: Any) -> bytes:
    return f"{kind.__module__}.{kind.__qualname__}".encode()
