"""One order after the other in compiled code on one core (numba): the strongest sequential baseline there is.

`run(instance, rule)` decides by the same whole numbers as the package's rules, so all actions must be equal.
"""

import numpy as np

from walras.domains.fulfilment.instance import UNIT
from walras.domains.fulfilment.policies import CapacityPriced, Dual, Greedy, Neural

try:
    from numba import njit
except ImportError:
    njit = None


def available():
    return njit is not None


if njit is not None:

    @njit(cache=False)
    def _level(stock):
        if stock < 8:
            return max(stock, 0)
        power = 0
        rest = stock
        while rest > 1:
            rest >>= 1
            power += 1
        return (power - 2) * 8 + ((stock >> (power - 3)) & 7)

    @njit(fastmath=False)
    def _network(row, weights1, bias1, shrink1, weights2, bias2, shrink2, weights3, bias3, shrink3, active, scores):
        # Whole numbers below 2^24: 32-bit sums are exact in any order, so the compiler may use wide vectors.
        for j in range(len(row)):
            active[0, j] = min(_level(row[j]), 255)
        _layer(active[0], len(row), weights1, bias1, shrink1, active[1], 63.0)
        _layer(active[1], len(bias1), weights2, bias2, shrink2, active[2], 63.0)
        _layer(active[2], len(bias2), weights3, bias3, shrink3, active[3], 0.0)
        for j in range(len(scores)):
            scores[j] += int(active[3, j])

    @njit(fastmath=False)
    def _layer(into, n_in, weights, bias, shrink, out, most):
        n_out = len(bias)
        for j in range(n_out):
            out[j] = bias[j]
        for i in range(n_in):
            value = into[i]
            if value != 0:
                for j in range(n_out):
                    out[j] += value * weights[i, j]
        for j in range(n_out):
            out[j] = np.floor(out[j] * shrink)
            if most > 0:
                out[j] = min(max(out[j], np.float32(0)), np.float32(most))

    @njit(fastmath=False)
    def _loop(
        product, destination, quantity, refills, reward, granted, stock, stock_price, capacity_price, strength, nobody,
        network, use_network, active,
    ):  # fmt: skip
        n, centres = len(product), reward.shape[1]
        used = np.zeros(centres, np.int32)
        actions = np.empty(n, np.int32)
        scores = np.empty(centres + 1, np.int32)
        for t in range(n):
            row, own = stock[product[t]], min(product[t], len(stock_price) - 1)
            for j in range(centres):
                scores[j] = reward[destination[t], j] - stock_price[own, j] - capacity_price[j]
            scores[centres] = nobody
            if use_network:
                _network(row, *network, active, scores)
            best, action = scores[centres], -1
            for j in range(centres):
                allowed = granted[refills[t], j]
                if row[j] >= quantity[t] and allowed - used[j] >= quantity[t]:
                    score = scores[j]
                    if strength > 0:
                        share = (np.int64(used[j]) << 16) // max(allowed, 1)
                        score -= np.int32((strength * share) >> 10)
                    if score > best or (score == best and action < 0):
                        best, action = score, j
            actions[t] = action
            if action >= 0:
                row[action] -= quantity[t]
                used[action] += quantity[t]
        return actions


def run(instance, rule):
    """Return the actions; call once before timing, to compile."""
    assert UNIT == 65536
    strength, base = np.int64(0), rule
    if isinstance(rule, CapacityPriced):
        strength, base = np.int64(rule.strength), rule.base
    stock_price, capacity_price = np.zeros((1, instance.n_centres), np.int32), np.zeros(instance.n_centres, np.int32)
    nobody, network, wide = np.int32(0), _no_network(), 1
    if isinstance(base, Greedy):
        nobody = np.int32(-(1 << 30))
    elif isinstance(base, Dual):
        stock_price, capacity_price = np.asarray(base.stock_price), np.asarray(base.capacity_price)
    elif isinstance(base, Neural):
        parts = zip(base.weights, base.biases, base.shrinks, strict=True)
        network = tuple(value for w, b, s in parts for value in (np.asarray(w), np.asarray(b), np.float32(s)))
        wide = max(instance.n_centres + 1, *(len(bias) for bias in base.biases))
    return _loop(
        instance.product, instance.destination, instance.quantity, instance.refill_count(), instance.reward,
        instance.cumulative_capacity(),
        instance.stock.copy(), stock_price, capacity_price, strength, nobody, network, isinstance(base, Neural),
        np.zeros((4, wide), np.float32),
    )  # fmt: skip


def _no_network():
    nothing = (np.zeros((1, 1), np.float32), np.zeros(1, np.float32), np.float32(1))
    return nothing * 3
