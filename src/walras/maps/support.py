"""Training support: what training covered of populations, prices, capacities and policies (stored as "coverage")."""

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
    """Return the SHA-256 of a policy's class, settings, arrays, and functions by module and name (not their code).

    Arrays with a number for each of `n_agents` count by their place alone (None counts every array whole): they
    describe the agents, not how they decide, and another population has others.
    """
    digest = hashlib.sha256()
    for part in _parts(policy, n_agents):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _parts(node: Any, n_agents: int | None) -> list[bytes]:
    """List what is hashed, in the order of fields."""
    if is_broadcast(node):
        return [b"shared", *_parts(node.value, None)]
    if eqx.is_array(node) or isinstance(node, np.ndarray | np.generic):
        return _array(node, n_agents)
    if is_dataclass(node) and not isinstance(node, type):
        inner = [[part.name.encode(), *_parts(getattr(node, part.name, None), n_agents)] for part in fields(node)]
        return [_name(type(node)), *sum(inner, [])]
    if isinstance(node, dict):
        pairs = sorted((repr(key), value) for key, value in node.items())
        return [b"dict", *sum(([key.encode(), *_parts(value, n_agents)] for key, value in pairs), [])]
    if isinstance(node, tuple | list):
        return [b"list", str(len(node)).encode(), *sum((_parts(item, n_agents) for item in node), [])]
    if isinstance(node, frozenset | set):
        return [b"set", *sorted(b"".join(_parts(item, n_agents)) for item in node)]
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
    "walras.policies.base_stock.OrderUpTo": "walras.policies.simple.OrderUpTo",
    "walras.policies.base_stock.CappedBaseStock": "walras.policies.simple.CappedBaseStock",
    "walras.policies.base_stock.ForecastBaseStock": "walras.policies.simple.ForecastBaseStock",
    "walras.policies.base_stock.ConstantOrder": "walras.policies.simple.ConstantOrder",
    "walras.policies.base_stock.ReorderPoint": "walras.policies.simple.ReorderPoint",
    "walras.policies.order_constraints.Constrained": "walras.policies.order_terms.UnderTerms",
    "walras.policies.order_constraints.CasePacks": "walras.policies.order_terms.WholeCases",
    "walras.policies.order_constraints.Continuous": "walras.policies.order_terms.Relaxed",
    "walras.policies.user_policies.FunctionPolicy": "walras.policies.own.FunctionPolicy",
    "walras.policies.user_policies.CallbackPolicy": "walras.policies.own.CallbackPolicy",
}
"""Classes that hash by an earlier name, so that maps trained before a move still recognise their policy."""


def _name(kind: Any) -> bytes:
    name = f"{kind.__module__}.{kind.__qualname__}"
    return FORMER_NAMES.get(name, name).encode()


KIND, VERSION = "coverage", 1

ARRAYS = ("mean", "whitening", "distance", "price", "capacity")

MARGIN = 1.1  # factor by which training may be exceeded without a warning
SHRINK = 0.1  # share of a covariance that is made diagonal: there are few populations for many numbers
LEAST_SPREAD = 1e-3  # least standard deviation of each number of a summary
FOLDS = 5  # distances are cross-validated: a population's own summary would draw the mean towards it
FEWEST = 2 * FOLDS  # least number of populations for which distances are measured


@dataclass
class QueryRange:
    """Extremes of queries, in the units of maps."""

    queries: int = 0  # plans whose utilization was computed
    price: float = 0.0  # highest price [median margins]
    lowest: float = np.inf  # capacity relative to S(P)
    highest: float = 0.0

    def note(self, prices: np.ndarray | None = None, capacity: np.ndarray | None = None, queries: int = 0) -> None:
        """Include a number of plans [*plans, week, resource] in maps' units; week 0, the origin's, does not count."""
        self.queries += queries
        if prices is not None and prices[..., 1:, :].size:
            self.price = max(self.price, float(prices[..., 1:, :].max()))
        if capacity is not None and capacity[..., 1:, :].size:
            self.lowest = min(self.lowest, float(capacity[..., 1:, :].min()))
            self.highest = max(self.highest, float(capacity[..., 1:, :].max()))


@dataclass(frozen=True, eq=False)
class TrainingSupport:
    """What training covered."""

    kind: str  # the map whose summaries of populations these are
    mean: Float[np.ndarray, " summary"]  # of the summaries
    whitening: Float[np.ndarray, "summary white"]  # W: |(summary - mean) W| is a Mahalanobis distance
    distance: tuple[float, float, float]  # median, 99.5 % quantile and largest in training; 0 without summaries
    price: tuple[float, float]  # 99 % quantile and largest of weekly prices [median margins]
    capacity: tuple[float, float]  # lowest and highest, relative to S(P); infinite and 0 where no map saw capacity
    weeks: int  # fewest weeks of history
    policy: str  # its hash
    policy_name: str  # its class
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
        """Measure what training covered, on examples of it.

        Args:
            summaries: a vector per example population (`summary_of`); None, or none at all, for maps without.
            prices, capacities: of each example, any axes [median margins; relative to S(P)].
            n_agents: as in `policy_hash`.
            weeks: fewest weeks of history at any origin.
            kind: the map whose summaries these are.
        """
        known = np.array([np.asarray(summary, float) for summary in summaries if summary is not None])
        mean, whitening, distance = np.zeros(0), np.zeros((0, 0)), (0.0, 0.0, 0.0)
        if len(known) >= FEWEST:
            mean, whitening = _whitened(known)
            away = _cross_validated_distances(known)
            distance = (float(np.median(away)), float(np.quantile(away, 0.995)), float(away.max()))
        charged, room = _flat(prices), _flat(capacities)
        return TrainingSupport(
            kind=kind,
            mean=mean,
            whitening=whitening,
            distance=distance,
            price=(float(np.quantile(charged, 0.99)), float(charged.max())) if len(charged) else (0.0, 0.0),
            capacity=(float(room.min()), float(room.max())) if len(room) else (float("inf"), 0.0),
            weeks=weeks,
            policy=policy_hash(policy, n_agents),
            policy_name=type(policy).__name__,
            facts=dict(facts or {}),
        )

    def far(self, summary: Float[np.ndarray, " summary"]) -> float:
        """Return a population's distance from those of training, relative to the largest among them."""
        return float(np.linalg.norm((summary - self.mean) @ self.whitening)) / self.distance[2]

    def check(
        self,
        *,
        summary: Float[np.ndarray, " summary"] | None = None,
        weeks: int | None = None,
        policy_id: tuple[str, str] | None = None,
        query_range: QueryRange | None = None,
    ) -> tuple[str, ...]:
        """Say in sentences what of a population, its history, policy (hash and name) and queries is outside."""
        reasons = []
        if policy_id is not None and policy_id[0] != self.policy:
            given, trained = policy_id[1], self.policy_name
            same = f"agents follow a `{given}` that is not the one with which the maps were trained"
            other = f"agents follow `{given}` but the maps were trained with `{trained}`"
            reasons.append(same if given == trained else other)
        if weeks is not None and weeks < self.weeks:
            reasons.append(f"the history has {weeks} weeks but training saw no fewer than {self.weeks}")
        if summary is not None and self.distance[2] > 0.0 and (far := self.far(summary)) > MARGIN:
            reasons.append(f"the population is {far:.1f} times as far from those of training as the furthest of them")
        query, (low, high) = query_range or QueryRange(), self.capacity
        if query.price > MARGIN * self.price[1]:
            reasons.append(
                f"prices up to {query.price:.2g} median margins were asked but training saw up to {self.price[1]:.2g}"
            )
        if query.lowest < low / MARGIN and np.isfinite(low):
            reasons.append(
                f"capacity down to {query.lowest:.2g} of typical use was asked but training saw no less than {low:.2g}"
            )
        if query.highest > MARGIN * high and high > 0.0:
            reasons.append(
                f"capacity up to {query.highest:.2g} times typical use was asked but training saw up to {high:.2g}"
            )
        return tuple(reasons)


def save_support(path: str | Path, support: TrainingSupport) -> None:
    """Write a training support to one file, aside and then renamed; the folder must exist."""
    arrays = {name: np.asarray(getattr(support, name), float) for name in ARRAYS}
    header = {name: getattr(support, name) for name in ("kind", "weeks", "policy", "policy_name")}
    write_arrays(path, KIND, arrays, {**header, "version": VERSION, "facts": dict(support.facts)})


def load_support(path: str | Path | Traversable) -> TrainingSupport:
    """Read a training support; no code is run; a damaged file or one of another kind or version is an InputError."""
    stored = read_arrays(path, KIND)
    header, arrays = stored.header, stored.arrays
    if header.get("version") != VERSION:
        raise InputError(
            f"{stored.source} holds a coverage of version {quote(header.get('version'))} but this walras reads version "
            f"{VERSION}; train the maps again"
        )
    try:
        median, quantile, largest = arrays["distance"].tolist()
        (usual, highest), (low, high) = arrays["price"].tolist(), arrays["capacity"].tolist()
        support = TrainingSupport(
            kind=header["kind"],
            mean=arrays["mean"],
            whitening=arrays["whitening"],
            distance=(median, quantile, largest),
            price=(usual, highest),
            capacity=(low, high),
            weeks=int(header["weeks"]),
            policy=str(header["policy"]),
            policy_name=str(header["policy_name"]),
            facts=dict(header["facts"]),
        )
        if support.kind not in KINDS or support.whitening.shape != (len(support.mean),) * 2:
            raise ValueError("arrays or kind do not fit")
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{stored.source} does not say what training covered; train the maps again") from None
    return support


def summary_of(network: MapNetwork, inputs: MapInputs) -> Float[Array, " summary"] | None:
    """Return the vector by which a map describes a population in the last week of a history; inputs are scaled."""
    embeddings: Any = None
    if network.agents is not None and inputs.agents is not None:
        valid = None if inputs.valid is None else inputs.valid[-LOOK_BACK:]
        embeddings = network.agents(inputs.agents[-LOOK_BACK:], valid, LOOK_BACK)[-1]
    return network.representation.summary(embeddings, inputs.pooled)


def _flat(examples: Iterable[Any]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *(np.asarray(values, float).reshape(-1) for values in examples)])


def _whitened(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and W with W W' the inverse of the covariance, shrunk to its diagonal."""
    mean = rows.mean(0)
    covariance = np.atleast_2d(np.cov(rows, rowvar=False))
    variance = np.maximum(np.diag(covariance), LEAST_SPREAD**2)
    shrunk = (1.0 - SHRINK) * covariance + np.diag(variance - (1.0 - SHRINK) * np.diag(covariance))
    return mean, np.linalg.inv(np.linalg.cholesky(shrunk)).T


def _cross_validated_distances(rows: np.ndarray) -> np.ndarray:
    """Return each example's distance by the mean and spread of the other folds."""
    fold = np.arange(len(rows)) % FOLDS
    away = np.zeros(len(rows))
    for number in range(FOLDS):
        mean, whitening = _whitened(rows[fold != number])
        away[fold == number] = np.linalg.norm((rows[fold == number] - mean) @ whitening, axis=1)
    return away
