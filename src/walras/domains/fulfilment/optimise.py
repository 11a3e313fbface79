"""Shadow prices of stock and capacity learned by projected subgradient steps, and a linear-programming upper bound."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sparse
from jaxtyping import Array, Float, Int
from numpy import ndarray
from scipy.optimize import linprog

from walras.domains.fulfilment.instance import LARGEST, UNIT, Instance
from walras.domains.fulfilment.policies import Dual
from walras.domains.fulfilment.process import FulfilmentProcess, FulfilmentResult, Order, fulfil, orders_of, process_of
from walras.errors import InputError, SettingsError
from walras.parallel.autotune import default_engine
from walras.parallel.picard import Picard
from walras.parallel.process import AbstractEngine, AdditiveState, over_events
from walras.parallel.rounds import WindowIndex, state_after_events, states_before_events
from walras.parallel.schedule import ProcessChains
from walras.parallel.strategies import WarmStart

LARGEST_PRICE = 2.0
"""Upper limit of prices [money]: rewards are of about 1, and a price beyond them closes a centre anyway."""

STOCK_RATE = 1 / 6
"""First step of stock prices (Adam, so that rarely ordered products move as well) over that of capacity prices."""

RETRY_WARM = 10
"""Trajectories after which a warm start is tried again: it gets better as prices move less."""

MEAN_DECAY, SQUARE_DECAY, EPSILON = 0.8, 0.95, 0.01
"""Decay rates and epsilon of Adam; epsilon [share of stock]."""

MOST_VARIABLES = 1_000_000
"""Kinds of orders times centres of a linear program that is solved within about a minute."""


@dataclass(frozen=True)
class LearnedPrices:
    """The dual policy with the best prices, its reward [money], and what every step took.

    Rewards are means over the instances learned from; in the first step prices are zero.
    """

    rule: Dual
    reward: float
    rewards: Float[ndarray, " step"]
    seconds: Float[ndarray, " step"]  # of the trajectories of all instances
    step_seconds: Float[ndarray, " step"]  # with the gradient
    rounds: Int[ndarray, " step"]  # of the first instance's trajectory; one per order where run sequentially

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
    """Prices [money], and Adam's moments of those of stock."""

    stock: Float[Array, "product centre"]
    capacity: Float[Array, " centre"]
    mean: Float[Array, "product centre"]
    square: Float[Array, "product centre"]


def learn_prices(
    instances: Instance | Sequence[Instance],
    engine: AbstractEngine | None = None,
    *,
    steps: int = 40,
    rate: float = 0.3,
    progress: Callable[[int, float], None] = lambda step, reward: None,
) -> LearnedPrices:
    """Learn shadow prices by projected subgradient steps on the Lagrangian, with step sizes falling as 1/sqrt(step).

    The subgradient is what orders would take at the prices minus what there is, as a share of what there is. Capacity
    prices follow it, stock prices its Adam average. The prices with the best simulated reward are returned.

    Args:
        instances: one, or several with other orders of the same kind (`Instance.resampled`): prices learned on one
            sequence of orders overfit it and earn less on the next.
        engine: the parallel one where not given; it warm-starts from the last trajectory where that is less work.
        steps: number of steps, with a trajectory of every instance each.
        rate: first step of capacity prices.
        progress: called with the number of every step and its reward.

    Raises:
        SettingsError: `steps` or `rate` is not positive.
        InputError: the instances have different products or centres.
    """
    if steps < 1 or not 0 < rate < np.inf:
        raise SettingsError(f"`steps` is {steps} and `rate` {rate:g} but both must be positive; give 40 and 0.3, say")
    instances = [instances] if isinstance(instances, Instance) else list(instances)
    shapes = {instance.stock.shape for instance in instances}
    if len(shapes) != 1:
        raise InputError(
            f"there are instances of {len(shapes)} sizes {sorted(shapes)} but prices need the same products and "
            "centres in all of them; give `resampled` ones of one instance"
        )
    shape = shapes.pop()
    samples = [_Sample(instance) for instance in instances]
    prices = _Prices(jnp.zeros(shape), jnp.zeros(shape[1]), jnp.zeros(shape), jnp.zeros(shape))
    best: tuple[float, Dual] | None = None
    history = []
    for step in range(steps):
        rule, started = _rounded_rule(prices), time.perf_counter()
        results = [sample.simulate(rule, engine) for sample in samples]
        simulated = time.perf_counter() - started
        reward = float(np.mean([result.reward for result in results]))
        best = (reward, rule) if best is None or reward > best[0] else best
        shortage = [sample.shortage(rule, result) for sample, result in zip(samples, results, strict=True)]
        prices = jax.block_until_ready(_step(prices, shortage, jnp.asarray(rate), jnp.asarray(step + 1.0)))
        history.append((reward, simulated, time.perf_counter() - started, int(results[0].info.rounds)))
        progress(step, reward)
    reward, rule = best or (0.0, rule)
    return LearnedPrices(rule, reward, *(np.asarray(part) for part in zip(*history, strict=True)))


class _Sample:
    """An instance, its last trajectory, and its orders grouped by product."""

    def __init__(self, instance: Instance):
        self.instance = instance
        self.last: FulfilmentResult | None = None
        self.calls: dict[bool, int] = {}  # of the last warm and of the last cold start
        self.count = 0
        self.state, self.events = instance.initial_state(), orders_of(instance)
        self.index = WindowIndex.of(ProcessChains(instance.product, instance.product), 0, instance.n_orders)
        self.capacity = jnp.asarray(instance.cumulative_capacity()[-1])

    def simulate(self, rule: Dual, engine: AbstractEngine | None) -> FulfilmentResult:
        """Decide all orders; a parallel engine starts from the last trajectory where that takes fewer policy calls."""
        engine, warm = default_engine(self.instance.n_orders) if engine is None else engine, False
        if self.last is not None and isinstance(engine, Picard):
            warm = True not in self.calls or self.count % RETRY_WARM == 1 or self.calls[True] < self.calls[False]
            engine = replace(engine, start=WarmStart(self.last.actions)) if warm else engine
        result = self.last = fulfil(self.instance, rule, engine)
        self.calls[warm] = int(result.info.policy_calls)
        self.count += 1
        return result

    def shortage(
        self, rule: Dual, result: FulfilmentResult
    ) -> tuple[Float[Array, "product centre"], Float[Array, " centre"]]:
        """Return demand minus supply of stock and of capacity, as a share of supply, within -1 and 1."""
        process = process_of(self.instance, rule)
        used, missed = _demand(process, self.state, self.events, jnp.asarray(result.actions), self.index)
        stock = jnp.clip(missed / jnp.maximum(self.state.table, 1), -1, 1)
        return stock, jnp.clip((used - self.capacity) / jnp.maximum(self.capacity, 1), -1, 1)


@eqx.filter_jit
def _rounded_rule(prices: _Prices) -> Dual:
    """Round prices to those of the dual policy."""
    return Dual(*(jnp.rint(part * UNIT).astype(jnp.int32) for part in (prices.stock, prices.capacity)))


@eqx.filter_jit
def _step(
    prices: _Prices,
    shortage: list[tuple[Float[Array, "product centre"], Float[Array, " centre"]]],
    rate: Float[Array, ""],
    number: Float[Array, ""],
) -> _Prices:
    """Take step number 1, 2, ... along the mean shortage of the samples."""
    stock, capacity = (sum(parts[1:], parts[0]) / len(parts) for parts in zip(*shortage, strict=True))
    size = rate / jnp.sqrt(number)
    mean = MEAN_DECAY * prices.mean + (1 - MEAN_DECAY) * stock
    square = SQUARE_DECAY * prices.square + (1 - SQUARE_DECAY) * stock**2
    along = mean / (1 - MEAN_DECAY**number) / (jnp.sqrt(square / (1 - SQUARE_DECAY**number)) + EPSILON)
    return _Prices(
        jnp.clip(prices.stock + STOCK_RATE * size * along, 0, LARGEST_PRICE),
        jnp.clip(prices.capacity + size * capacity, 0, LARGEST_PRICE),
        mean,
        square,
    )


@eqx.filter_jit
def _demand(
    process: FulfilmentProcess, state: AdditiveState, events: Order, actions: Int[Array, " order"], index: WindowIndex
) -> tuple[Float[Array, " centre"], Float[Array, "product centre"]]:
    """Return demand for capacity by centre, and unmet demand for stock minus leftover stock by product and centre.

    Each order demands the best centre with the stock it met, whatever the capacity; demand for stock is unmet where
    another centre would have been better.
    """
    rows, _ = states_before_events(process, state, events, actions, index)
    codes = over_events(process.encode, over_events(process.encoder_inputs, rows, events), events)
    net, units = codes[:, :-1], events.quantity
    stocked = jnp.where(rows >= units[:, None], net, -LARGEST)
    wanted, got = net.argmax(axis=1), stocked.argmax(axis=1)
    used = jnp.zeros(net.shape[1]).at[got].add(jnp.where(stocked.max(axis=1) >= 0, units, 0))
    unmet = jnp.where((net.max(axis=1) >= 0) & (wanted != got), units, 0)
    final = state_after_events(process, state, events, actions, jnp.asarray(len(units)))
    return used, jnp.zeros(state.table.shape).at[events.product, wanted].add(unmet) - final.table


def clairvoyant_bound(instance: Instance) -> float:
    """Return an upper bound on the reward of any policy [money]: all orders known, units divisible, capacity pooled.

    `max sum r[d, j] y[p, d, j]` with `sum_j y <= units ordered`, `sum_d y <= stock[p, j]`,
    `sum_pd y <= capacity[j] with all refills`; orders for the same product and destination are one kind.

    Raises:
        InputError: the linear program is too large or was not solved.
    """
    key = instance.product.astype(np.int64) * len(instance.reward) + instance.destination
    kinds, kind = np.unique(key, return_inverse=True)
    product, destination = np.divmod(kinds, len(instance.reward))
    centres, size = instance.n_centres, len(kinds) * instance.n_centres
    if size > MOST_VARIABLES:
        raise InputError(
            f"the bound has {size:,} variables but at most {MOST_VARIABLES:,} are solved; take `first_orders` of the "
            "instance"
        )
    products, row = np.unique(product, return_inverse=True)
    columns = np.arange(size)
    limits = np.bincount(kind, instance.quantity), instance.stock[products].ravel(), instance.cumulative_capacity()[-1]
    rows = (columns // centres, (row[:, None] * centres + np.arange(centres)).ravel(), columns % centres)
    sums = [
        sparse.csr_matrix((np.ones(size), (at, columns)), shape=(len(limit), size))
        for at, limit in zip(rows, limits, strict=True)
    ]
    rewards = instance.reward[destination].ravel() / UNIT
    solved = linprog(
        -rewards, A_ub=sparse.vstack(sums, format="csr"), b_ub=np.concatenate(limits).astype(float), method="highs"
    )
    if not solved.success:
        raise InputError(f"the bound was not solved ({solved.message}); take `first_orders` of the instance")
    return -float(solved.fun)
