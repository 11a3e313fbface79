"""Own the Coverage: what training has seen of populations, prices, capacities and policies, and what is outside of it.

CONTRACT: stored with trained maps; its sentences are repeated in reports.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from walras.data.array_file import read_arrays, write_arrays
from walras.errors import InputError, quote
from walras.maps.features import LOOK_BACK, MapInputs
from walras.maps.file import KINDS, PRIMAL
from walras.maps.network import MapNetwork
from walras.policies.base import Policy
from walras.population.agent_axis import is_broadcast


def policy_hash(policy: Policy, n_agents: int | None = None) -> str:
    """Return the SHA-256 of all that makes a policy behave as it does.

    Counted are the class, its settings, the content of its arrays, and functions by their module and name (not what is
    written in them). Arrays with a number for every agent (`population.agent_axis`) count by their place alone: they say
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
    if is_broadcast(node):
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


FORMER_NAMES = {
    "walras.policies.base_stock.NormalDemand": "walras.policies.demand_law.NormalDemand",
    "walras.policies.base_stock.GammaDemand": "walras.policies.demand_law.GammaDemand",
    "walras.policies.order_constraints.Constrained": "walras.policies.order_terms.UnderTerms",
    "walras.policies.order_constraints.CasePacks": "walras.policies.order_terms.WholeCases",
    "walras.policies.order_constraints.Continuous": "walras.policies.order_terms.Relaxed",
    "walras.policies.user_policies.FunctionPolicy": "walras.policies.own.FunctionPolicy",
    "walras.policies.user_policies.CallbackPolicy": "walras.policies.own.CallbackPolicy",
}
"""Names that hash as they did in version 1 of the hash, so that maps trained before a move still know their policy."""


def _name(kind: Any) -> bytes:
    name = f"{kind.__module__}.{kind.__qualname__}"
    return FORMER_NAMES.get(name, name).encode()


KIND, VERSION = "coverage", 1

ARRAYS = ("mean", "whitening", "distance", "price", "capacity")

MARGIN = 1.1
"""What is at most so many times what training saw, passes."""

SHRINK = 0.1
"""Share of a covariance that is made diagonal: there are few populations for many numbers."""

LEAST_SPREAD = 1e-3
"""A number of a summary that varies less than this counts as varying so much."""

PARTS = 5
"""A population's distance is measured from those in other parts, or it would have drawn their mean to itself."""

FEWEST = 2 * PARTS
"""Populations from which on distances can be measured."""


@dataclass
class QueryRange:
    """Hold extremes of questions, in the units of maps.

    Attributes:
        queries: plans whose utilization was asked.
        price: highest price [median margins].
        lowest, highest: capacity relative to S(P); infinite and 0 where none was asked.
    """

    queries: int = 0
    price: float = 0.0
    lowest: float = np.inf
    highest: float = 0.0

    def note(self, prices: np.ndarray | None = None, capacity: np.ndarray | None = None, queries: int = 0) -> None:
        """Take a question in; the first week, the origin's own, does not count.

        Args:
            prices: [*plans, week, resource] [median margins].
            capacity: [*plans, week, resource], relative to S(P).
            queries: plans.
        """
        self.queries += queries
        if prices is not None and prices[..., 1:, :].size:
            self.price = max(self.price, float(prices[..., 1:, :].max()))
        if capacity is not None and capacity[..., 1:, :].size:
            self.lowest = min(self.lowest, float(capacity[..., 1:, :].min()))
            self.highest = max(self.highest, float(capacity[..., 1:, :].max()))


@dataclass(frozen=True, eq=False)
class TrainingSupport:
    """Hold what training covered.

    Attributes:
        kind: the map whose summaries of populations these are.
        mean: of the summaries.
        whitening: a matrix W; |(summary - mean) W| is a distance in standard deviations (Mahalanobis).
        distance: those of training: median, 99.5 % quantile and largest; all 0 where there are no summaries.
        price: 99 % quantile and largest of weekly prices [median margins].
        capacity: lowest, and highest, relative to S(P); infinite and 0 where no map saw capacity.
        weeks: fewest weeks of history.
        policy: its fingerprint.
        policy_name: its class.
    """

    kind: str
    mean: Float[np.ndarray, " summary"]
    whitening: Float[np.ndarray, "summary white"]
    distance: tuple[float, float, float]
    price: tuple[float, float]
    capacity: tuple[float, float]
    weeks: int
    policy: str
    policy_name: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def fit(
        summaries: Iterable[Any],
        prices: Iterable[Any],
        policy: Policy,
        *,
        n_agents: int | None = None,
        capacities: Iterable[Any] = (),
        weeks: int = LOOK_BACK,
        kind: str = PRIMAL,
        facts: Mapping[str, Any] | None = None,
    ) -> "TrainingSupport":
        """Measure what training met, on examples of it.

        Args:
            summaries: of each example population a vector (`summary_of`); None, or none at all, for maps without.
            prices: of each example, any axes [median margins].
            policy: what the agents follow.
            n_agents: agents of a population, to tell each agent's own numbers from the policy's.
            capacities: of each example, any axes, relative to S(P).
            weeks: fewest weeks of history at any origin.
            kind: the map whose summaries these are.
            facts: further words and numbers.
        """
        known = np.array([np.asarray(each, float) for each in summaries if each is not None])
        mean, whitening, distance = np.zeros(0), np.zeros((0, 0)), (0.0, 0.0, 0.0)
        if len(known) >= FEWEST:
            mean, whitening = _whitened(known)
            away = _crosswise(known)
            distance = (float(np.median(away)), float(np.quantile(away, 0.995)), float(away.max()))
        paid, room = _flat(prices), _flat(capacities)
        return TrainingSupport(
            kind=kind,
            mean=mean,
            whitening=whitening,
            distance=distance,
            price=(float(np.quantile(paid, 0.99)), float(paid.max())) if len(paid) else (0.0, 0.0),
            capacity=(float(room.min()), float(room.max())) if len(room) else (float("inf"), 0.0),
            weeks=weeks,
            policy=policy_hash(policy, n_agents),
            policy_name=type(policy).__name__,
            facts=dict(facts or {}),
        )

    def far(self, summary: Float[np.ndarray, " summary"]) -> float:
        """Return how far a population is from those of training, the furthest of them being at 1."""
        return float(np.linalg.norm((summary - self.mean) @ self.whitening)) / self.distance[2]

    def judge(
        self,
        *,
        summary: Float[np.ndarray, " summary"] | None = None,
        weeks: int | None = None,
        followed: tuple[str, str] | None = None,
        asked: QueryRange | None = None,
    ) -> tuple[str, ...]:
        """Say what is outside of what training covered, one sentence for each reason.

        Args:
            summary: of the population.
            weeks: of its history.
            followed: fingerprint and class name of what the agents follow.
            asked: extremes of what was asked.
        """
        found = []
        if followed is not None and followed[0] != self.policy:
            found.append(_other_policy(followed[1], self.policy_name))
        if weeks is not None and weeks < self.weeks:
            found.append(f"the history has {weeks} weeks but training saw no fewer than {self.weeks}")
        if summary is not None and self.distance[2] > 0.0 and (far := self.far(summary)) > MARGIN:
            found.append(f"the population is {far:.1f} times as far from those of training as the furthest of them")
        return (*found, *(() if asked is None else self._of_questions(asked)))

    def _of_questions(self, asked: QueryRange) -> list[str]:
        found, (low, high) = [], self.capacity
        if asked.price > MARGIN * self.price[1]:
            found.append(
                f"prices up to {asked.price:.2g} median margins were asked but training saw up to {self.price[1]:.2g}"
            )
        if asked.lowest < low / MARGIN and np.isfinite(low):
            found.append(
                f"capacity down to {asked.lowest:.2g} of typical use was asked but training saw no less than {low:.2g}"
            )
        if asked.highest > MARGIN * high and high > 0.0:
            found.append(
                f"capacity up to {asked.highest:.2g} times typical use was asked but training saw up to {high:.2g}"
            )
        return found


def save_support(path: str | Path, coverage: TrainingSupport) -> None:
    """Write a coverage to one file, aside and then renamed.

    Args:
        path: where; the folder must exist.
        coverage: what training covered.
    """
    arrays = {name: np.asarray(getattr(coverage, name), float) for name in ARRAYS}
    header = {name: getattr(coverage, name) for name in ("kind", "weeks", "policy", "policy_name")}
    write_arrays(path, KIND, arrays, {**header, "version": VERSION, "facts": dict(coverage.facts)})


def load_support(path: str | Path | Traversable) -> TrainingSupport:
    """Read a coverage; no code is run, and every byte is checked.

    Raises:
        DamagedFileError, InputError: a damaged file, another kind of file, or one of another version.
    """
    stored = read_arrays(path, KIND)
    header, arrays = stored.header, stored.arrays
    if header.get("version") != VERSION:
        raise InputError(
            f"{stored.source} holds a coverage of version {quote(header.get('version'))} but this walras reads version "
            f"{VERSION}; train the maps again"
        )
    try:
        middle, most, furthest = arrays["distance"].tolist()
        found = TrainingSupport(
            kind=header["kind"],
            mean=arrays["mean"],
            whitening=arrays["whitening"],
            distance=(middle, most, furthest),
            price=_pair(arrays["price"]),
            capacity=_pair(arrays["capacity"]),
            weeks=int(header["weeks"]),
            policy=str(header["policy"]),
            policy_name=str(header["policy_name"]),
            facts=dict(header["facts"]),
        )
        if found.kind not in KINDS or found.whitening.shape != (len(found.mean),) * 2:
            raise ValueError("not what was written")
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{stored.source} does not say what training covered; train the maps again") from None
    return found


def summary_of(network: MapNetwork, inputs: MapInputs) -> Float[Array, " summary"] | None:
    """Return a population as a vector, as a map sees it in the last week of a history.

    Args:
        network: of the map.
        inputs: scaled.
    """
    embeddings: Any = None
    if network.agents is not None and inputs.agents is not None:
        valid = None if inputs.valid is None else inputs.valid[-LOOK_BACK:]
        embeddings = network.agents(inputs.agents[-LOOK_BACK:], valid, LOOK_BACK)[-1]
    return network.representation.summary(embeddings, inputs.crowd)


def _pair(values: np.ndarray) -> tuple[float, float]:
    low, high = values.tolist()
    return low, high


def _flat(examples: Iterable[Any]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *(np.asarray(each, float).reshape(-1) for each in examples)])


def _whitened(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and W with W W' the inverse of the covariance, shrunk to its diagonal."""
    mean = rows.mean(0)
    covariance = np.atleast_2d(np.cov(rows, rowvar=False))
    variance = np.maximum(np.diag(covariance), LEAST_SPREAD**2)
    shrunk = (1.0 - SHRINK) * covariance + np.diag(variance - (1.0 - SHRINK) * np.diag(covariance))
    return mean, np.linalg.inv(np.linalg.cholesky(shrunk)).T


def _crosswise(rows: np.ndarray) -> np.ndarray:
    """Return each example's distance, measured by the mean and spread of those in other parts."""
    part = np.arange(len(rows)) % PARTS
    away = np.zeros(len(rows))
    for number in range(PARTS):
        mean, whitening = _whitened(rows[part != number])
        away[part == number] = np.linalg.norm((rows[part == number] - mean) @ whitening, axis=1)
    return away


def _other_policy(given: str, trained: str) -> str:
    if given == trained:
        return f"agents follow a `{given}` that is not the one with which the maps were trained"
    return f"agents follow `{given}` but the maps were trained with `{trained}`"
