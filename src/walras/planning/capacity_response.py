"""What prices are good for: simulated worths of more capacity, and estimates for other capacities of a stored plan."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from walras.errors import InputError

SIZES = (-0.1, 0.05, 0.1, 0.2)  # changes of one week's capacity that are simulated, as shares of it
ALWAYS = 2  # index of the size that is simulated for every week that binds
JOINT = (-0.1, 0.05, 0.1)  # changes of all these weeks at once: how far worths of single weeks add up

Entries = Float[np.ndarray, " entry"]


@dataclass(frozen=True)
class PriceRange:
    """What is known about the price of a week that binds.

    Attributes:
        kind: "binding"; "ceiling" where the price is the highest one tried, which says only that use does not fit; or
            "committed" where orders placed before the plan fill the week, so that no price helps.
        price: of the plan [money/unit]; None where no price helps.
        worth: reward gained with so much more capacity, prices searched again ("+10 %": money), cost not deducted.
        cost: what so much more capacity costs; None where it cannot be bought.
        holds_up_to: units of more capacity up to which the price stays above half of itself; None beyond 20 %.
        binds_next: week and resource with the highest price once this week has 20 % more; "" where none has one.
    """

    week: str
    resource: str
    kind: str
    capacity: float
    committed: float
    price: float | None = None
    worth: dict[str, float] | None = None
    cost: dict[str, float | None] | None = None
    holds_up_to: float | None = None
    binds_next: str = ""

    @property
    def per_unit(self) -> float | None:
        """Give the simulated worth of one unit, of the first 10 % more [money/unit]."""
        return None if self.worth is None else self.worth["+10 %"] / max(0.1 * self.capacity, 1e-12)


@dataclass(frozen=True, eq=False)
class CapacityResponse:
    """Simulated changes of capacity, from which other ones are estimated. Entries are week x resource, flattened.

    Attributes:
        weeks, resources: of the plan.
        capacity, use: of the plan, and mean use without the reserve.
        prices: of the plan, as searched again for the same capacity.
        simulated: entries with changes, those with all `SIZES` first.
        worth: reward gained by each of `SIZES` [money]; NaN where not simulated [simulated, size].
        repriced: prices after each change [simulated, size, entry].
        joint: reward gained by each of `JOINT` in all simulated weeks at once [money].
        edges, rates, ramps: of the cost of capacity [entry, edge], [entry, segment] and up, down [2, entry]; `least` is
            what is paid for in any case [entry].
        errors: relative errors of `estimate` for +10 % of each week, estimated without its own simulation.
    """

    weeks: np.ndarray
    resources: np.ndarray
    capacity: Entries
    use: Entries
    prices: Entries
    simulated: Int[np.ndarray, " simulated"]
    worth: Float[np.ndarray, "simulated size"]
    repriced: Float[np.ndarray, "simulated size entry"]
    joint: Float[np.ndarray, " joint"]
    edges: Float[np.ndarray, "entry edge"]
    rates: Float[np.ndarray, "entry segment"]
    ramps: Float[np.ndarray, "2 entry"]
    least: Entries
    errors: Float[np.ndarray, " test"]

    @property
    def error(self) -> float | None:
        """Give the median relative error of estimates against simulated changes; None where none was tested."""
        return float(np.median(self.errors)) if len(self.errors) else None

    def save(self, path: Path) -> None:
        """Write all fields to one file."""
        with open(path, "wb") as file:
            np.savez_compressed(file, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "CapacityResponse":
        """Read what `save` wrote; raise `InputError` if it cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(**{name: file[name] for name in cls.__dataclass_fields__})
        except (OSError, KeyError, ValueError) as error:
            needed = "name the folder of a plan made by this version, or plan again"
            raise InputError(f"`{path}` cannot be read ({error}); {needed}") from None

    def cost(self, capacity: Entries) -> float:
        """Return what a capacity costs [money]; beyond the last tier at its rate, below the least as if it was that."""
        capacity = np.maximum(capacity, self.least)
        tops = self.edges[:, 1:].copy()
        tops[:, -1] = np.maximum(tops[:, -1], capacity)
        filled = np.clip(capacity[:, None], self.edges[:, :-1], tops) - self.edges[:, :-1]
        change = np.diff(capacity.reshape(len(self.weeks), -1), axis=0, prepend=capacity[None, : len(self.resources)])
        ramps = self.ramps[0] * np.maximum(change.ravel(), 0) + self.ramps[1] * np.maximum(-change.ravel(), 0)
        return float((self.rates * filled).sum() + ramps.sum())

    def price(self, entry: int, capacity: float) -> float:
        """Estimate a week's price at another capacity of that week alone [money/unit]."""
        row = np.flatnonzero(self.simulated == entry)
        if not len(row):
            return float(self.prices[entry])
        known = np.isfinite(self.worth[row[0]])
        prices = self.repriced[row[0], known, entry] - self.prices[entry]
        share = capacity / max(self.capacity[entry], 1e-12) - 1.0
        return max(float(self.prices[entry]) + _piecewise(share, np.asarray(SIZES)[known], prices), 0.0)

    def estimate(self, capacity: Entries) -> float:
        """Estimate the reward gained with another capacity, cost of capacity not deducted [money].

        Each week's worth is interpolated between simulated changes; those of several weeks add up to the share that
        changing all of them at once was seen to bring.
        """
        share = np.asarray(capacity, float) / np.maximum(self.capacity, 1e-12) - 1.0
        moved = np.flatnonzero(np.abs(share) > 1e-12).tolist()
        singles = np.asarray([self._single(entry, share[entry]) for entry in moved])
        if not len(singles):
            return 0.0
        adding = self._adding(float(share[moved].mean()))
        reached = (len(singles) - 1) / max(len(self.simulated) - 1, 1)
        return float(singles.sum() * (1.0 + (adding - 1.0) * min(reached, 1.0)))

    def _single(self, entry: int, share: float) -> float:
        """Interpolate the simulated worths of one week's change; the outer slopes hold beyond them."""
        row = np.flatnonzero(self.simulated == entry)
        if len(row):
            known = np.isfinite(self.worth[row[0]])
            return _piecewise(share, np.asarray(SIZES)[known], self.worth[row[0]][known])
        # Unused capacity is worth nothing; below the use of such a week a unit counts as in weeks that bind.
        short = max(self.use[entry] - self.capacity[entry] * (1.0 + share), 0.0)
        size = 0.1 * np.maximum(self.capacity[self.simulated], 1e-12)
        lost = self.worth[:, 0] / size
        return short * float(np.nanmean(lost)) if np.isfinite(lost).any() else 0.0

    def _adding(self, share: float) -> float:
        """Return how much of the sum of single worths changing all weeks at once brings."""
        nearest = int(np.argmin(np.abs(np.asarray(JOINT) - share)))
        alone = sum(self._single(int(entry), JOINT[nearest]) for entry in self.simulated)
        return float(np.clip(self.joint[nearest] / alone, 0.0, 3.0)) if abs(alone) > 1e-9 else 1.0


def _piecewise(share: float, sizes: Sequence[float] | np.ndarray, worth: Float[np.ndarray, " size"]) -> float:
    places = np.asarray([*sizes, 0.0])
    order = np.argsort(places)
    places, values = places[order], np.append(worth, 0.0)[order]
    segment = int(np.clip(np.searchsorted(places, share) - 1, 0, len(places) - 2))
    slope = (values[segment + 1] - values[segment]) / (places[segment + 1] - places[segment])
    return float(values[segment] + slope * (share - places[segment]))


def cross_errors(worth: Float[np.ndarray, "simulated size"]) -> Float[np.ndarray, " test"]:
    """Estimate +10 % of each week from its other changes; weeks worth next to nothing count by the typical worth."""
    full = worth[np.isfinite(worth).all(1)]
    others = [index for index in range(len(SIZES)) if index != ALWAYS]
    guess = np.asarray([_piecewise(SIZES[ALWAYS], np.asarray(SIZES)[others], row[others]) for row in full])
    typical = float(np.median(np.abs(full[:, ALWAYS]))) if len(full) else 0.0
    return np.abs(guess - full[:, ALWAYS]) / np.maximum(np.abs(full[:, ALWAYS]), max(0.1 * typical, 1e-12))
