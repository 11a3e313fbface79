"""Own composition shift: populations of the same agents in another mix, tilted along one attribute.

OPEN: an attribute to tilt along is one line in `TILTS`; edges, masses and tilts of buckets stay those of the baseline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Real

from walras.errors import InputError, SettingsError
from walras.population.agent_axis import per_agent, whole_count
from walras.population.population import N_BUCKETS, bucket_edges, bucket_of

EPS_SHARE = 0.01
"""Share of the mean that is added before the logarithm, so that a bucket of agents without demand has one too."""

MODERATE = (0.5, 2.0)
"""Ratios of induced to baseline mean demand within which a shift counts as moderate."""


def _log(mean: Float[np.ndarray, " bucket"], overall: float) -> Float[np.ndarray, " bucket"]:
    return np.log(np.maximum(mean + EPS_SHARE * overall, np.finfo(float).tiny))


def _rank(mean: Float[np.ndarray, " bucket"], overall: float) -> Float[np.ndarray, " bucket"]:
    return np.arange(len(mean), dtype=float)


TILTS: dict[str, Callable[[Float[np.ndarray, " bucket"], float], Float[np.ndarray, " bucket"]]] = {
    "demand": _log,
    "economics": _rank,
    "lead_time": _rank,
    "weeks_of_cover": _rank,
    "volume": _rank,
    "fill_rate": _rank,
}
"""What is standardised to the tilt of a bucket: the logarithm of its mean demand; its rank where values may be below
0 or whole numbers."""


@dataclass(frozen=True, eq=False)
class CompositionShift:
    """Draw agents bucket by bucket with weights w_b(alpha) = rho_b exp(alpha z_b) / Z; alpha 0 is the baseline.

    Buckets are cut once, from the baseline; agents seen later fall into these. Equal values share a bucket, so an
    attribute of few values (lead times) leaves some buckets empty: they weigh nothing.

    Attributes:
        by: name of the attribute, a key of `TILTS`.
        edges: inner edges of the buckets, in the attribute's unit.
        mass: rho_b, share of the baseline's agents; 0 for an empty bucket.
        tilt: z_b, mean 0 and standard deviation 1 over the baseline's agents; 0 for an empty bucket.
        demand: mean demand of the baseline's agents in each bucket [units/week].
    """

    by: str
    edges: Float[np.ndarray, " edge"]
    mass: Float[np.ndarray, " bucket"]
    tilt: Float[np.ndarray, " bucket"]
    demand: Float[np.ndarray, " bucket"]

    @classmethod
    def fit(
        cls,
        values: Real[np.ndarray, " agent"],
        by: str = "demand",
        demand: Real[np.ndarray, " agent"] | None = None,
        n_buckets: int = N_BUCKETS,
    ) -> "CompositionShift":
        """Cut the baseline into buckets of equally many agents and freeze them.

        Args:
            values: the attribute of every agent of the baseline: mean demand [units/week], unit margin [money], ...
            by: its name, which decides the tilt.
            demand: mean demand of the same agents [units/week]; default `values` for a shift by demand.
            n_buckets: buckets to cut.

        Raises:
            SettingsError: an unknown attribute, or no `demand` for a shift by another attribute.
            InputError, ShapeError: values that are no numbers, or demand below 0.
        """
        if by not in TILTS:
            raise SettingsError(f"`by` is `{by}` but no such attribute is shifted; choose from {', '.join(TILTS)}")
        level = per_agent(by, values, lowest=0.0 if by == "demand" else -np.inf)
        scale = _demand(by, level, demand)
        edges = bucket_edges(level, whole_count("n_buckets", n_buckets))
        bucket = bucket_of(level, edges)
        count = np.bincount(bucket, minlength=n_buckets)
        used = np.flatnonzero(count)
        mass = count / len(level)
        tilt = np.zeros(n_buckets)
        tilt[used] = _standard(TILTS[by](_means(level, bucket, count)[used], float(level.mean())), mass[used])
        return cls(by, edges, mass, tilt, _means(scale, bucket, count))

    def weights(self, alpha: float) -> Float[np.ndarray, " bucket"]:
        """Return the share of agents that each bucket has under a tilt; they add up to 1.

        Args:
            alpha: 0 is the baseline, above 0 moves to agents with more of the attribute; usually -2..2.
        """
        if not np.isfinite(alpha):
            raise SettingsError(f"`alpha` is {alpha} but must be a finite number; give e.g. 1, or 0 for the baseline")
        power = alpha * self.tilt
        raised = self.mass * np.exp(power - power.max())
        return raised / raised.sum()

    def chances(
        self, values: Real[np.ndarray, " agent"], alpha: float, within: Real[np.ndarray, " agent"] | None = None
    ) -> Float[np.ndarray, " agent"]:
        """Return each agent's chance w_b q(i|b) of being the next one drawn; they add up to 1.

        Where nobody falls into a bucket, the others share its weight in proportion to theirs.

        Args:
            values: the attribute of the agents to draw from; need not be the baseline's.
            alpha: see `weights`.
            within: q, how often an agent is drawn beside others of its bucket, 0 or more; default equally often.

        Raises:
            InputError: nobody is in a bucket that has any weight.
        """
        level = per_agent(self.by, values)
        asked = np.ones(len(level)) if within is None else per_agent("within", within, len(level), lowest=0.0)
        bucket = bucket_of(level, self.edges)
        there = np.bincount(bucket, asked, minlength=len(self.mass))
        reached = np.where(there > 0, self.weights(alpha), 0.0)
        if not reached.sum() > 0:
            raise InputError(
                f"no agent has a {self.by} that the baseline had too, so nobody can be drawn; fit the shift to a "
                "baseline that covers these agents"
            )
        return (reached / reached.sum() / np.where(there > 0, there, 1.0))[bucket] * asked

    def draw(
        self,
        values: Real[np.ndarray, " agent"],
        alpha: float,
        count: int,
        random: np.random.Generator,
        within: Real[np.ndarray, " agent"] | None = None,
        *,
        replace: bool = True,
    ) -> Int[np.ndarray, " count"]:
        """Draw the numbers of the agents of a shifted population, in random order.

        With replacement, as for training, every draw is independent and an agent may come twice. Without, each
        bucket gets its share of `count` (rounded at random), and nobody of it comes twice before everybody of it has
        come: the mix is kept even where a bucket runs out, and only then are agents repeated.

        Args:
            values, alpha, within: see `chances`.
            count: agents to draw.
            random: the same generator state gives the same agents.
            replace: draw with replacement.
        """
        chance, count = self.chances(values, alpha, within), whole_count("count", count)
        if replace:
            return random.choice(len(chance), size=count, p=chance)
        bucket = bucket_of(np.asarray(values, float), self.edges)
        sums = np.cumsum(np.bincount(bucket, chance, minlength=len(self.mass)))
        wanted = np.diff(np.floor(sums / sums[-1] * count + random.uniform()), prepend=0.0).astype(int)
        drawn = [_in_turn(np.flatnonzero(bucket == b), chance, int(wanted[b]), random) for b in np.flatnonzero(wanted)]
        return random.permutation(np.concatenate(drawn))

    def mean_ratio(self, alpha: float) -> float:
        """Return expected mean demand of the shifted baseline over that of the baseline."""
        return float(self.weights(alpha) @ self.demand / (self.mass @ self.demand))

    def induced_mean_ratio(
        self,
        values: Real[np.ndarray, " agent"],
        alpha: float,
        demand: Real[np.ndarray, " agent"] | None = None,
        within: Real[np.ndarray, " agent"] | None = None,
    ) -> float:
        """Return expected mean demand of agents drawn under `alpha` over that of agents drawn under 0.

        Args:
            values, alpha, within: see `chances`.
            demand: mean demand of the same agents [units/week]; default `values` for a shift by demand.

        Raises:
            InputError: nobody has any demand.
        """
        level = _demand(self.by, per_agent(self.by, values), demand)
        return float(self.chances(values, alpha, within) @ level / (self.chances(values, 0.0, within) @ level))

    def moderate(self, alphas: Sequence[float] | Float[np.ndarray, " shift"]) -> Float[np.ndarray, " kept"]:
        """Keep the tilts under which mean demand stays within half and twice the baseline's."""
        low, high = MODERATE
        return np.array([float(a) for a in alphas if low <= self.mean_ratio(float(a)) <= high])


def _demand(
    by: str, level: Float[np.ndarray, " agent"], demand: Real[np.ndarray, " agent"] | None
) -> Float[np.ndarray, " agent"]:
    """Return mean demand, which a shift by demand has already; refuse a population without any."""
    if demand is None and by != "demand":
        raise SettingsError(
            f"a shift by {by} needs to know how much demand it brings along; give `demand`, mean demand by agent"
        )
    found = per_agent("demand", level if demand is None else demand, len(level), lowest=0.0)
    if not found.any():
        raise InputError("`demand` is 0 for all agents but somebody must have some; leave out populations without any")
    return found


def _means(values: np.ndarray, bucket: np.ndarray, count: np.ndarray) -> Float[np.ndarray, " bucket"]:
    """Return the mean within each bucket, 0 for an empty one."""
    return np.bincount(bucket, values, minlength=len(count)) / np.maximum(count, 1)


def _standard(score: Float[np.ndarray, " bucket"], mass: Float[np.ndarray, " bucket"]) -> Float[np.ndarray, " bucket"]:
    """Shift and scale to mean 0 and standard deviation 1 over agents; all 0 where all scores are equal."""
    away = score - score @ mass / mass.sum()
    spread = np.sqrt(away**2 @ mass / mass.sum())
    return away / spread if spread > 0 else away


def _in_turn(
    members: Int[np.ndarray, " member"], chance: Float[np.ndarray, " agent"], count: int, random: np.random.Generator
) -> Int[np.ndarray, " count"]:
    """Draw from one bucket without replacement, after as many whole rounds of everybody as `count` holds."""
    able = members[chance[members] > 0]
    rounds, rest = divmod(count, len(able))
    own = chance[able]
    few = random.choice(able, size=rest, replace=False, p=own / own.sum())
    return np.concatenate([np.tile(able, rounds), few])
