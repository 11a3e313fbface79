"""How vendors fill orders: what they accept of an order, and when it arrives.

Add a supply or arrival model as a class beside these; its arrays have a week axis first and the agent axis last.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8, Integer

from walras.clipping import minimum
from walras.errors import InputError, ShapeError, shape_mismatch


class AbstractSupply(eqx.Module):
    """Accept part of what is placed; the rest is refused: not paid for, never delivered, not in the order position.

    In `ExogenousPaths` the arrays of a supply model have a week axis; `accept` is called on the model of one week,
    whose arrays have none.
    """

    @abc.abstractmethod
    def accept(self, placed: Float[Array, " agent"]) -> Float[Array, " agent"]:
        """Return what the vendor accepts of this week's orders, between 0 and what is placed [units].

        Args:
            placed: orders >= 0 as the vendor gets them [units].
        """


class SupplyLimit(AbstractSupply):
    """Accept at most Q units: min(Q, placed).

    Attributes:
        units: Q >= 0, the most that the vendor supplies of an order placed in that week [units].
    """

    units: Float[Array, "*axes agent"]

    def accept(self, placed: Float[Array, " agent"]) -> Float[Array, " agent"]:
        """Return min(Q, placed); at a tie the derivative is 1, as for an order about to fall."""
        return minimum(self.units, placed)


class FillRate(AbstractSupply):
    """Accept a share of every order, whatever its size: share x placed.

    Attributes:
        share: between 0 and 1, of an order placed in that week.
    """

    share: Float[Array, "*axes agent"]

    def accept(self, placed: Float[Array, " agent"]) -> Float[Array, " agent"]:
        """Return share x placed, which is not rounded to whole units."""
        return self.share * placed


class Chained(AbstractSupply):
    """Apply two rules in turn: `second` accepts part of what `first` has accepted.

    `Chained(FillRate(share), SupplyLimit(units))` is min(Q, share x placed): the limit binds what is sent;
    `Chained(SupplyLimit(units), FillRate(share))` is share x min(Q, placed): part of what is sent is lost on the way.

    Attributes:
        first: applied to what is placed.
        second: applied to what the first accepts.
    """

    first: AbstractSupply
    second: AbstractSupply

    def accept(self, placed: Float[Array, " agent"]) -> Float[Array, " agent"]:
        """Return what both accept."""
        return self.second.accept(self.first.accept(placed))


class AbstractArrivals(eqx.Module):
    """Spread what a vendor accepts of this week's orders over the weeks in which it arrives.

    In `ExogenousPaths` the arrays of an arrival model have a week axis; `spread` is called on the model of one week,
    whose arrays have none. A later order may arrive before an earlier one.
    """

    @abc.abstractmethod
    def spread(self, accepted: Float[Array, " agent"], max_lead: int) -> Float[Array, "lead agent"]:
        """Return the units that arrive 0, 1, ..., max_lead weeks from now [lead, agent]; they sum to `accepted`.

        Args:
            accepted: what the vendors accepted of this week's orders [units].
            max_lead: rows of the pipeline, at least the longest lead time [weeks].
        """

    @abc.abstractmethod
    def longest(self) -> int | None:
        """Return the longest lead time that can occur [weeks]; None where it cannot be read, in a JAX transform."""


class IntegerLeadTimes(AbstractArrivals):
    """An order placed in week t arrives whole in week t + weeks[t]; 0 serves the same week.

    Attributes:
        weeks: lead time >= 0 of an order placed in that week [weeks]; bytes (int8) hold all that occur.
    """

    weeks: Integer[Array, "*axes agent"]

    def spread(self, accepted: Float[Array, " agent"], max_lead: int) -> Float[Array, "lead agent"]:
        """Put each order whole into the row of its lead time."""
        # A pipeline longer than the type of `weeks` can count to would number its rows wrongly, some of them twice.
        narrow = max_lead <= jnp.iinfo(self.weeks.dtype).max
        lead = jnp.arange(max_lead + 1, dtype=self.weeks.dtype if narrow else jnp.int32)[:, None]
        return jnp.where(self.weeks[None, :] == lead, accepted[None, :], 0.0)

    def longest(self) -> int | None:
        """Return the largest of the lead times."""
        return None if isinstance(self.weeks, jax.core.Tracer) else int(np.max(np.asarray(self.weeks), initial=0))


class ConstantLeadTime(AbstractArrivals):
    """Every order arrives whole after the same number of weeks: a static number, so another one compiles anew.

    Attributes:
        weeks: lead time >= 0 of all orders of all agents [weeks].
    """

    weeks: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        """Refuse a lead time that is not a whole number of weeks from 0 on."""
        if not isinstance(self.weeks, int | np.integer) or self.weeks < 0:
            raise InputError(
                f"the lead time is {self.weeks!r} but must be a whole number of weeks, 0 or more; correct it"
            )

    def spread(self, accepted: Float[Array, " agent"], max_lead: int) -> Float[Array, "lead agent"]:
        """Put all orders whole into one row."""
        if self.weeks > max_lead:
            raise _too_short(self.weeks, max_lead)
        return jnp.pad(accepted[None, :], ((self.weeks, max_lead - self.weeks), (0, 0)))

    def longest(self) -> int | None:
        """Return the lead time; it can be read everywhere."""
        return self.weeks


class ArrivalShares(AbstractArrivals):
    """A share of an order arrives after each number of weeks (quantity over time).

    Attributes:
        shares: share of what was accepted that arrives `lead` weeks after ordering; >= 0, sums to 1 over lead.
    """

    shares: Float[Array, "*axes lead agent"]

    def spread(self, accepted: Float[Array, " agent"], max_lead: int) -> Float[Array, "lead agent"]:
        """Multiply by the shares; rows beyond those given are empty."""
        missing = max_lead + 1 - self.shares.shape[0]
        if missing < 0:
            raise _too_short(self.shares.shape[0] - 1, max_lead)
        return jnp.pad(self.shares * accepted[None, :], ((0, missing), (0, 0)))

    def longest(self) -> int | None:
        """Return the last row of the shares, even if nothing arrives in it."""
        return self.shares.shape[-2] - 1


def _too_short(longest: int, max_lead: int) -> ShapeError:
    """Return the error for units that would arrive after the last row of the pipeline."""
    return shape_mismatch(
        "pipeline", f"({max_lead} weeks, ...)", f"[at least {longest} weeks of lead time, agents]", "give it more rows"
    )


ORDER_LOG_SD = 0.58
"""Spread of the log lead time between orders of one vendor's item, from public purchase-order records."""

LONGEST_FACTOR = 2.0
"""No order takes longer than this many times the longest typical lead time."""


def draw_lead_times(
    typical: np.ndarray, shape: tuple[int, int], *, log_sd: float = ORDER_LOG_SD, seed: int = 0
) -> Int8[np.ndarray, "scenario week agent"]:
    """Draw one integer lead time per order: typical x lognormal, rounded, at least one week.

    Args:
        typical: typical (median) lead time of each agent [weeks] [agent].
        shape: number of scenarios and of weeks.
        log_sd: standard deviation of the log lead time between orders; 0 gives the typical one every time.
        seed: same seed, same draws.
    """
    generator = np.random.default_rng([seed, 0x1EAD])
    longest = longest_lead_time(typical, log_sd)
    usual = typical.astype(np.float32)
    drawn = np.empty((*shape, len(typical)), np.int8)
    for path in drawn:  # one after the other, in the memory of one
        noise = generator.standard_normal(path.shape, dtype=np.float32)
        noise *= np.float32(log_sd)
        np.exp(noise, out=noise)
        noise *= usual
        np.rint(noise, out=noise)
        path[:] = np.clip(noise, 1, longest, out=noise)
    return drawn


def postponed(
    lead_times: Int8[np.ndarray, "scenario week agent"], closed: Bool[np.ndarray, " closed_week"]
) -> Integer[np.ndarray, "scenario week agent"]:
    """Lengthen lead times so that orders due in a closed week arrive in the next open one.

    Args:
        lead_times: of orders placed in each week [weeks].
        closed: whether nothing can be received, from the same first week on; later weeks are open.
    """
    weeks, longest = lead_times.shape[1], int(lead_times.max(initial=0))
    opens = next_open(closed, weeks + longest)
    kind = np.int8 if longest + longest_run(closed) <= np.iinfo(np.int8).max else np.int16
    moved = [(opens[week : week + longest + 1] - week).astype(kind)[lead_times[:, week]] for week in range(weeks)]
    return np.stack(moved, axis=1)


def next_open(closed: Bool[np.ndarray, " closed_week"], weeks: int) -> Int[np.ndarray, " week"]:
    """Return the first open week from each week on, itself where it is open; weeks beyond `closed` are open."""
    last = weeks + len(closed)
    shut = np.isin(np.arange(last + 1), np.flatnonzero(closed))
    return np.minimum.accumulate(np.where(shut, last, np.arange(last + 1))[::-1])[::-1][:weeks]


def longest_run(closed: Bool[np.ndarray, " week"]) -> int:
    """Return the length of the longest run of closed weeks."""
    return max(map(len, "".join("x" if shut else " " for shut in closed).split()), default=0)


def longest_lead_time(typical: np.ndarray, log_sd: float = ORDER_LOG_SD) -> int:
    """Return the longest lead time that can be drawn [weeks]: the room a pipeline needs."""
    top = float(np.max(typical, initial=1))
    return int(np.ceil(top * (LONGEST_FACTOR if log_sd > 0 else 1.0)))


def lead_time_sd(typical: np.ndarray, log_sd: float = ORDER_LOG_SD) -> Float[np.ndarray, " agent"]:
    """Return the standard deviation of the lead time that agents plan with (lognormal, before rounding) [weeks]."""
    return typical * np.exp(log_sd**2 / 2) * np.sqrt(np.expm1(log_sd**2))
