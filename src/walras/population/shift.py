"""Composition shift: populations of the same agents in another mix, exponentially tilted along one attribute.

Bucket edges, masses and tilts stay those of the baseline.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Real

from walras.errors import InputError, SettingsError
from walras.population.agent_axis import per_agent, whole_count
from walras.population.population import N_BUCKETS, bucket_edges, bucket_of

ATTRIBUTES = ("demand", "economics", "lead_time", "weeks_of_cover", "volume", "fill_rate")
PerBucket = Float[np.ndarray, " bucket"]
Numbers = Real[np.ndarray, " agent"]


@dataclass(frozen=True, eq=False)
class CompositionShift:
    """Bucket weights w_b(alpha) = rho_b exp(alpha z_b) / Z; alpha 0 is the baseline.

    Buckets are cut once, from the baseline. Equal values share a bucket, so that an attribute of few values (lead
    times) leaves some buckets empty.
    """

    by: str  # one of `ATTRIBUTES`
    edges: Float[np.ndarray, " edge"]  # inner edges of the buckets, in the attribute's unit
    mass: PerBucket  # rho_b, share of the baseline's agents; 0 for an empty bucket
    tilt: PerBucket  # z_b, mean 0 and standard deviation 1 over the baseline's agents; 0 for an empty bucket

    @classmethod
    def fit(cls, values: Numbers, by: str = "demand") -> "CompositionShift":
        """Cut the baseline into buckets of equally many agents and freeze them.

        A bucket's score is its log mean demand, or its rank for attributes that may be negative or whole; the tilt is
        the standardised score.

        Args:
            values: the attribute of every agent of the baseline: mean demand [units/week], unit margin [money], ...
            by: its name.

        Raises:
            SettingsError: an unknown attribute.
            InputError, ShapeError: values that are no numbers, demand below 0, or no demand at all.
        """
        if by not in ATTRIBUTES:
            raise SettingsError(f"`by` is `{by}` but no such attribute is shifted; choose from {', '.join(ATTRIBUTES)}")
        level = per_agent(by, values, lowest=0.0 if by == "demand" else -np.inf)
        if by == "demand" and not level.any():
            raise InputError(
                "`demand` is 0 for all agents but at least one agent needs some; leave out populations without any"
            )
        edges = bucket_edges(level)
        bucket = bucket_of(level, edges)
        count = np.bincount(bucket, minlength=N_BUCKETS)
        used, mass = count > 0, count / len(level)
        score = np.arange(N_BUCKETS, dtype=float)[used]
        if by == "demand":  # a share of the mean is added, so that a bucket without demand has a logarithm
            mean = np.bincount(bucket, level, minlength=N_BUCKETS)[used] / count[used]
            score = np.log(np.maximum(mean + 0.01 * float(level.mean()), np.finfo(float).tiny))
        away = score - score @ mass[used] / mass[used].sum()
        spread = np.sqrt(away**2 @ mass[used] / mass[used].sum())
        tilt = np.zeros(N_BUCKETS)
        tilt[used] = away / spread if spread > 0 else away
        return cls(by, edges, mass, tilt)

    def weights(self, alpha: float) -> PerBucket:
        """Return the share of agents that each bucket has under a tilt; they add up to 1.

        Args:
            alpha: 0 is the baseline, above 0 moves to agents with more of the attribute; usually -2..2.
        """
        if not np.isfinite(alpha):
            raise SettingsError(f"`alpha` is {alpha} but must be a finite number; give e.g. 1, or 0 for the baseline")
        power = alpha * self.tilt
        raised = self.mass * np.exp(power - power.max())
        return raised / raised.sum()

    def chances(self, values: Numbers, alpha: float, within: Numbers | None = None) -> Float[np.ndarray, " agent"]:
        """Return each agent's probability w_b q(i|b) of the next draw; they add up to 1.

        The weight of a bucket without agents is shared by the others in proportion to theirs.

        Args:
            values: the attribute of the agents to draw from; need not be the baseline's.
            alpha: see `weights`.
            within: q, how often an agent is drawn beside others of its bucket, 0 or more; default equally often.

        Raises:
            InputError: no agent is in a bucket with any weight.
        """
        level = per_agent(self.by, values)
        share = np.ones(len(level)) if within is None else per_agent("within", within, len(level), lowest=0.0)
        bucket = bucket_of(level, self.edges)
        present = np.bincount(bucket, share, minlength=len(self.mass))
        reached = np.where(present > 0, self.weights(alpha), 0.0)
        if not reached.sum() > 0:
            raise InputError(
                f"no agent has a {self.by} that the baseline had too, so none can be drawn; fit the shift to a "
                "baseline that covers these agents"
            )
        return (reached / reached.sum() / np.where(present > 0, present, 1.0))[bucket] * share

    def draw(
        self,
        values: Numbers,
        alpha: float,
        count: int,
        random: np.random.Generator,
        within: Numbers | None = None,
        *,
        replace: bool = True,
    ) -> Int[np.ndarray, " count"]:
        """Draw the numbers of the agents of a shifted population, in random order.

        With replacement draws are independent. Without, each bucket gets its share of `count` (randomly rounded), and
        its agents are repeated only after all of them have been drawn, so that the mix is kept.

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
        drawn = []
        for number in np.flatnonzero(wanted):
            able = np.flatnonzero((bucket == number) & (chance > 0))
            rounds, rest = divmod(int(wanted[number]), len(able))
            few = random.choice(able, size=rest, replace=False, p=chance[able] / chance[able].sum())
            drawn += [np.tile(able, rounds), few]
        return random.permutation(np.concatenate(drawn))
