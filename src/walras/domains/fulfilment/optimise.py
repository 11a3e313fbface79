"""Own the learning of prices of stock and capacity by gradient steps on rolled-out trajectories.

FREE: projected steps on the Lagrangian; trajectories start from the last one where that is less work, and are exact.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy import ndarray

from walras.domains.fulfilment.instance import LARGEST, UNIT, Instance
from walras.domains.fulfilment.policies import Dual
from walras.domains.fulfilment.process import FulfilmentProcess, Order, orders_of, process_of
from walras.domains.fulfilment.run import Fulfilled, default_engine, fulfil
from walras.errors import InputError, SettingsError
from walras.parallel.cache import KeyChains, PrefixSums
from walras.parallel.picard import Picard
from walras.parallel.process import AbstractEngine, AdditiveState, over_events
from walras.parallel.schedule import group_by_process
from walras.parallel.strategies import WarmStart

LARGEST_PRICE = 2.0
"""Prices stay below [money]: rewards are of about 1, and a price beyond them closes a centre anyway."""

STOCK_RATE = 1 / 6
"""First step of stock prices over that of capacity prices; Adam's, so that products ordered seldom move as well."""

TRY_AGAIN = 10
"""Trajectories after which a start from the last one is tried again: it gets better as prices move less."""

FORGET, FORGET_SQUARE, SMALL = 0.8, 0.95, 0.01
"""Adam's two rates of forgetting, and what keeps it from dividing by zero [share of stock]."""


@dataclass(frozen=True)
class Learned:
    """Hold what was learned; rewards are means over the worlds learned from.

    Attributes:
        rule: the dual policy with the best prices found.
        reward: of its trajectories [money].
        rewards: of every step's trajectories, the first with prices of zero [money].
        seconds: of every step's trajectories, all worlds together.
        step_seconds: of every step, its gradient included.
        rounds: of every step's trajectory of the first world; one per order where they ran one by one.
    """

    rule: Dual
    reward: float
    rewards: Float[ndarray, " step"]
    seconds: Float[ndarray, " step"]
    step_seconds: Float[ndarray, " step"]
    rounds: Int[ndarray, " step"]

    def __str__(self) -> str:
        """Print a small table."""
        rows = {
            "reward without prices": f"{self.rewards[0]:,.1f}",
            "best reward": f"{self.reward:,.1f}",
            "steps": f"{len(self.rewards)}",
            "seconds per step": f"{float(np.median(self.step_seconds)):.4f}",
            "rounds per trajectory": f"{float(np.median(self.rounds)):,.0f}",
        }
        return "\n".join(f"{name:24}{value}" for name, value in rows.items())


class _Prices(eqx.Module):
    """Hold prices [money], and of those of stock the mean gradient and the mean square of it."""

    stock: Float[Array, "product centre"]
    capacity: Float[Array, " centre"]
    mean: Float[Array, "product centre"]
    square: Float[Array, "product centre"]


def optimise(
    worlds: Instance | Sequence[Instance],
    engine: AbstractEngine | None = None,
    *,
    steps: int = 40,
    rate: float = 0.3,
    progress: Callable[[int, float], None] = lambda step, reward: None,
) -> Learned:
    """Learn prices: up where orders want more than there is, down elsewhere, less with every step.

    The Lagrangian's gradient in the prices is what orders would take at them minus what there is, as a share of what
    there is. Capacity prices follow it, stock prices follow Adam's mean of it; neither falls below zero. The prices
    whose trajectories earn most are kept.

    Args:
        worlds: one, or several with other orders of the same kind (`Instance.resampled`): prices that were learned on
            one sequence of orders know it by heart and earn less on the next.
        engine: the parallel one where not given; it starts trajectories from the last one where that is less work.
        steps: of the prices, with a trajectory of every world each.
        rate: of the first step of capacity prices [money per share of what there is].
        progress: told the step and its reward.

    Raises:
        SettingsError: steps or rate are not positive.
        InputError: the worlds are not of the same products and centres.
    """
    if steps < 1 or not 0 < rate < np.inf:
        raise SettingsError(f"`steps` is {steps} and `rate` {rate:g} but both must be positive; give 40 and 0.3, say")
    worlds = [worlds] if isinstance(worlds, Instance) else list(worlds)
    shape = _shared_shape(worlds)
    samples = [_Sample(world) for world in worlds]
    prices = _Prices(jnp.zeros(shape), jnp.zeros(shape[1]), jnp.zeros(shape), jnp.zeros(shape))
    best: tuple[float, Dual] | None = None
    told = []
    for step in range(steps):
        rule, started = _rule(prices), time.perf_counter()
        found = [sample.roll_out(rule, engine) for sample in samples]
        rolled = time.perf_counter() - started
        reward = float(np.mean([one.reward for one in found]))
        best = (reward, rule) if best is None or reward > best[0] else best
        lack = [sample.lacking(rule, last) for sample, last in zip(samples, found, strict=True)]
        prices = jax.block_until_ready(_moved(prices, lack, jnp.asarray(rate), jnp.asarray(step + 1.0)))
        told.append((reward, rolled, time.perf_counter() - started, int(found[0].info.rounds)))
        progress(step, reward)
    reward, rule = best or (0.0, rule)
    return Learned(rule, reward, *(np.asarray(part) for part in zip(*told, strict=True)))


def _shared_shape(worlds: Sequence[Instance]) -> tuple[int, int]:
    """Return products and centres of all worlds."""
    shapes = {world.stock.shape for world in worlds}
    if len(shapes) != 1:
        raise InputError(
            f"there are worlds of {len(shapes)} sizes {sorted(shapes)} but prices need the same products and "
            "centres in all of them; give `resampled` ones of one world"
        )
    products, centres = shapes.pop()
    return products, centres


class _Sample:
    """Hold a world, its last trajectory, and the order in which its sums are taken."""

    def __init__(self, world: Instance):
        self.world = world
        self.last: Fulfilled | None = None
        self.calls: dict[bool, int] = {}
        self.count = 0
        lanes = group_by_process(world.product, world.product)
        place = np.empty_like(lanes.key_order)
        place[lanes.key_order] = np.arange(world.n_orders, dtype=np.int32)
        parts = (lanes.key_order, lanes.key_start, place, np.ones(world.n_orders, bool))
        self.lines = KeyChains(*(jnp.asarray(part) for part in parts))
        self.capacity = jnp.asarray(world.granted()[-1])

    def roll_out(self, rule: Dual, engine: AbstractEngine | None) -> Fulfilled:
        """Decide all orders; a parallel engine starts from the last trajectory, or as it does, as takes fewer calls."""
        engine, warm = default_engine(self.world) if engine is None else engine, False
        if self.last is not None and isinstance(engine, Picard) and self._warm_is_better():
            engine, warm = replace(engine, start=WarmStart(self.last.actions)), True
        found = self.last = fulfil(self.world, rule, engine)
        self.calls[warm] = int(found.info.policy_calls)
        self.count += 1
        return found

    def _warm_is_better(self) -> bool:
        """Compare the policy calls of both starts, as last seen."""
        return True not in self.calls or self.count % TRY_AGAIN == 1 or self.calls[True] < self.calls[False]

    def lacking(self, rule: Dual, last: Fulfilled) -> tuple[Float[Array, "product centre"], Float[Array, " centre"]]:
        """Return what orders want beyond what there is, over what there is, at most 1, on the stock they met."""
        parts = (process_of(self.world, rule), self.world.state(), orders_of(self.world))
        used, missed = _wanted(*parts, jnp.asarray(last.actions), self.lines)
        stock = jnp.clip(missed / jnp.maximum(parts[1].table, 1), -1, 1)
        return stock, jnp.clip((used - self.capacity) / jnp.maximum(self.capacity, 1), -1, 1)


@eqx.filter_jit
def _rule(prices: _Prices) -> Dual:
    """Round prices to those of the dual policy."""
    return Dual(*(jnp.rint(part * UNIT).astype(jnp.int32) for part in (prices.stock, prices.capacity)))


@eqx.filter_jit
def _moved(
    prices: _Prices,
    lack: list[tuple[Float[Array, "product centre"], Float[Array, " centre"]]],
    rate: Float[Array, ""],
    number: Float[Array, ""],
) -> _Prices:
    """Take step number 1, 2, ... along the mean of what lacks."""
    stock, capacity = (sum(parts[1:], parts[0]) / len(parts) for parts in zip(*lack, strict=True))
    pace = rate / jnp.sqrt(number)
    mean = FORGET * prices.mean + (1 - FORGET) * stock
    square = FORGET_SQUARE * prices.square + (1 - FORGET_SQUARE) * stock**2
    along = mean / (1 - FORGET**number) / (jnp.sqrt(square / (1 - FORGET_SQUARE**number)) + SMALL)
    return _Prices(
        jnp.clip(prices.stock + STOCK_RATE * pace * along, 0, LARGEST_PRICE),
        jnp.clip(prices.capacity + pace * capacity, 0, LARGEST_PRICE),
        mean,
        square,
    )


@eqx.filter_jit
def _wanted(
    process: FulfilmentProcess, state: AdditiveState, events: Order, actions: Int[Array, " order"], lines: KeyChains
) -> tuple[Float[Array, " centre"], Float[Array, "product centre"]]:
    """Sum units by centre where orders earn most of what was in stock, whatever the capacity, and what they missed.

    What they missed, by product and centre, are units that would have earned most but were not in stock, minus those
    that were left at the end.
    """
    rows, _ = PrefixSums().before_events(process, state, events, actions, lines)
    codes = over_events(process.encode, over_events(process.encoder_inputs, rows, events), events)
    net, units = codes[:, :-1], events.quantity
    there = jnp.where(rows >= units[:, None], net, -LARGEST)
    first, got = net.argmax(axis=1), there.argmax(axis=1)
    used = jnp.zeros(net.shape[1]).at[got].add(jnp.where(there.max(axis=1) >= 0, units, 0))
    lost = jnp.where((net.max(axis=1) >= 0) & (first != got), units, 0)
    final = PrefixSums().after(process, state, events, actions, jnp.asarray(len(units)))
    return used, jnp.zeros(state.table.shape).at[events.product, first].add(lost) - final.table
