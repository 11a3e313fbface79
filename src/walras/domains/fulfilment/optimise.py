"""Own the learning of prices of stock and capacity by gradient steps on rolled-out trajectories.

FREE: projected steps on the Lagrangian; every trajectory starts from the last one's actions, and is exact.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy import ndarray

from walras.domains.fulfilment.policies import Dual, dual
from walras.domains.fulfilment.process import Fulfil, Order, orders_of, process_of
from walras.domains.fulfilment.run import Fulfilled, fulfil
from walras.domains.fulfilment.world import LARGEST, World
from walras.engine.base import AbstractEngine
from walras.engine.decided import Sums, over_events
from walras.engine.guess import BySums, Lines
from walras.engine.picard import Picard
from walras.engine.schedule import line_up
from walras.engine.starts import Given
from walras.errors import SettingsError

LARGEST_PRICE = 2.0
"""Prices stay below [money]: rewards are of about 1, and a price beyond them closes a centre anyway."""

STOCK_PACE = 0.1
"""Steps of stock prices over those of capacity: what one product lacks in one place is seen in a few orders only."""


@dataclass(frozen=True)
class Learned:
    """Hold what was learned.

    Attributes:
        rule: the dual policy with the best prices found.
        reward: of its trajectory [money].
        rewards: of every step's trajectory, the first with prices of zero [money].
        seconds: of every step's trajectory.
        rounds: of every step's trajectory; one per order where they ran one by one.
    """

    rule: Dual
    reward: float
    rewards: Float[ndarray, " step"]
    seconds: Float[ndarray, " step"]
    rounds: Int[ndarray, " step"]

    def __str__(self) -> str:
        """Print a small table."""
        rows = {
            "reward without prices": f"{self.rewards[0]:,.1f}",
            "best reward": f"{self.reward:,.1f}",
            "steps": f"{len(self.rewards)}",
            "seconds per step": f"{float(np.median(self.seconds)):.4f}",
            "rounds per step": f"{float(np.median(self.rounds)):,.0f}",
        }
        return "\n".join(f"{name:24}{value}" for name, value in rows.items())


def optimise(
    world: World,
    engine: AbstractEngine | None = None,
    *,
    steps: int = 20,
    rate: float = 0.3,
    progress: Callable[[int, float], None] = lambda step, reward: None,
) -> Learned:
    """Learn prices: up where orders want more than there is, down elsewhere, less with every step.

    The Lagrangian's gradient in the prices is what orders would take at them minus what there is; steps are scaled by
    what there is, and projected to prices of zero or more. The best trajectory counts.

    Args:
        engine: the parallel one where not given; it starts every trajectory from the last one.
        steps: trajectories rolled out.
        rate: of the first step [money per share of what there is].
        progress: told the step and its reward.

    Raises:
        SettingsError: steps or rate are not positive.
    """
    if steps < 1 or not rate > 0:
        raise SettingsError(f"`steps` is {steps} and `rate` {rate:g} but both must be positive; give 20 and 0.3, say")
    stock_price, capacity_price = np.zeros(world.stock.shape, np.float32), np.zeros(world.n_centres, np.float32)
    last: Fulfilled | None = None
    best: tuple[float, Dual] | None = None
    told = []
    for step in range(steps):
        rule = dual(world, stock_price, capacity_price)
        started = time.perf_counter()
        last = fulfil(world, rule, _warm(engine, last))
        told.append((last.reward, time.perf_counter() - started, int(last.info.rounds)))
        progress(step, last.reward)
        best = (last.reward, rule) if best is None or last.reward > best[0] else best
        lack_stock, lack_capacity = _lacking(world, rule, last)
        pace = rate / np.sqrt(step + 1.0)
        stock_price = np.clip(stock_price + STOCK_PACE * pace * lack_stock, 0, LARGEST_PRICE)
        capacity_price = np.clip(capacity_price + pace * lack_capacity, 0, LARGEST_PRICE)
    rewards, seconds, rounds = (np.asarray(part) for part in zip(*told, strict=True))
    reward, rule = best or (0.0, rule)
    return Learned(rule, reward, rewards, seconds, rounds)


def _warm(engine: AbstractEngine | None, last: Fulfilled | None) -> AbstractEngine:
    """Let a parallel engine start from the last trajectory."""
    engine = Picard() if engine is None else engine
    if last is None or not isinstance(engine, Picard):
        return engine
    return replace(engine, start=Given(last.actions))


def _lacking(
    world: World, rule: Dual, last: Fulfilled
) -> tuple[Float[ndarray, "product centre"], Float[ndarray, " centre"]]:
    """Return what orders want beyond what there is, over what there is, at most 1, on the stock they met."""
    process, events = process_of(world, rule), orders_of(world)
    lanes = line_up(world.product, world.product)
    place = np.empty_like(lanes.chain_order)
    place[lanes.chain_order] = np.arange(world.n_orders, dtype=np.int32)
    parts = [jnp.asarray(part) for part in (lanes.chain_order, lanes.chain_start, place, np.ones(world.n_orders, bool))]
    used, missed = (
        np.asarray(part) for part in _wanted(process, world.state(), events, jnp.asarray(last.actions), Lines(*parts))
    )
    capacity = world.granted()[-1]
    stock = np.clip(missed / np.maximum(world.stock, 1), -1, 1)
    return stock.astype(np.float32), np.clip((used - capacity) / np.maximum(capacity, 1), -1, 1).astype(np.float32)


@eqx.filter_jit
def _wanted(
    process: Fulfil, state: Sums, events: Order, actions: Int[Array, " order"], lines: Lines
) -> tuple[Float[Array, " centre"], Float[Array, "product centre"]]:
    """Sum units by centre where orders earn most of what was in stock, whatever the capacity, and what they missed.

    What they missed, by product and centre, are units that would have earned most but were not in stock, minus those
    that were left at the end.
    """
    rows, _ = BySums().seen(process, state, events, actions, lines)
    codes = over_events(process.encode, over_events(process.inputs, rows, events), events)
    net, units = codes[:, :-1], events.quantity
    there = jnp.where(rows >= units[:, None], net, -LARGEST)
    first, got = net.argmax(axis=1), there.argmax(axis=1)
    used = jnp.zeros(net.shape[1]).at[got].add(jnp.where(there.max(axis=1) >= 0, units, 0))
    lost = jnp.where((net.max(axis=1) >= 0) & (first != got), units, 0)
    final = BySums().after(process, state, events, actions, jnp.asarray(len(units)))
    return used, jnp.zeros(state.table.shape).at[events.product, first].add(lost) - final.table
