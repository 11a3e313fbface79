"""Own the yardstick: a plain scan over the weeks of a lost-sales store, featureless, in blocks that fit the cache.

Order up to 18 less this week's price, lead time 2, everything constant; kept are two totals a week, receipts and money,
and what stock and open orders are worth in the end.
"""

import jax
import jax.numpy as jnp

LEVEL, SALE_PRICE, UNIT_COST, HOLDING, PENALTY = 18.0, 10.0, 6.0, 1.0, 4.0


def bare_scan(demand, prices, block, around=lambda run: run):
    """Return receipts and money of every week, and what is left at cost; `block` divides the agents."""

    def run(start):
        def week(state, inputs):
            stock, due, due_later = state
            wanted, price = inputs
            stock = stock + due
            order = jnp.maximum(LEVEL - price - stock - due_later, 0.0)
            sales = jnp.minimum(wanted, stock)
            left = stock - sales
            money = SALE_PRICE * sales - UNIT_COST * order - HOLDING * left - PENALTY * (wanted - sales)
            return (left, due_later, order), (due.sum(), money.sum())

        mine = jax.lax.dynamic_slice_in_dim(demand, start, block, axis=1)
        empty = jnp.zeros(block)
        state, totals = jax.lax.scan(week, (empty, empty, empty), (mine, prices))
        return *totals, UNIT_COST * sum(part.sum() for part in state)

    receipts, money, left = jax.lax.map(around(run), jnp.arange(0, demand.shape[1], block))
    return receipts.sum(0), money.sum(0), left.sum()


def bare_forward(block):
    """Compile the scan at one block size: (demand, prices) -> two totals a week, and the end value."""
    return jax.jit(lambda demand, prices: bare_scan(demand, prices, block))


def bare_gradient(block, around=lambda run: run):
    """Compile the derivative of all money in the prices of all weeks; `around` may be `jax.checkpoint`."""

    def reward(prices, demand):
        _, money, left = bare_scan(demand, prices, block, around)
        return money.sum() + left

    return jax.jit(jax.grad(reward))
