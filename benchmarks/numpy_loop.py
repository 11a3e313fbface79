"""Own the same store written in NumPy: a loop over the weeks, all agents of a block at once."""

import numpy as np
from bare_scan import HOLDING, LEVEL, PENALTY, SALE_PRICE, UNIT_COST


def numpy_loop(demand, prices, block):
    """Return receipts and money of every week; `demand` is [week, agent]."""
    weeks, agents = demand.shape
    receipts, money = np.zeros(weeks), np.zeros(weeks)
    for start in range(0, agents, block):
        mine = demand[:, start : start + block]
        stock = due = due_later = np.zeros(mine.shape[1], np.float32)
        for week in range(weeks):
            stock = stock + due
            order = np.maximum(np.float32(LEVEL - prices[week]) - stock - due_later, np.float32(0))
            sales = np.minimum(mine[week], stock)
            lost = mine[week] - sales
            stock = stock - sales
            receipts[week] += due.sum()
            money[week] += (SALE_PRICE * sales - UNIT_COST * order - HOLDING * stock - PENALTY * lost).sum()
            due, due_later = due_later, order
    return receipts, money
