"""Own what nobody can earn more than: all orders known beforehand, units divisible, capacity usable at any time.

LAW: a linear program over products, destinations and centres, solved by HiGHS; for small worlds.
"""

import numpy as np
import scipy.sparse as sparse
from scipy.optimize import linprog

from walras.domains.fulfilment.instance import UNIT, Instance
from walras.errors import InputError

MOST_VARIABLES = 1_000_000
"""Kinds of orders times centres that are solved within a minute or so."""


def clairvoyant_bound(world: Instance) -> float:
    """Return an upper bound on the reward of any policy [money].

    `max sum r[d, j] y[p, d, j]` with `sum_j y <= units ordered`, `sum_d y <= stock[p, j]`,
    `sum_pd y <= capacity[j] with all refills`; orders for the same product and destination are one kind.

    Raises:
        InputError: the world is too large for it.
    """
    key = world.product.astype(np.int64) * len(world.reward) + world.destination
    kinds, kind = np.unique(key, return_inverse=True)
    product, destination = np.divmod(kinds, len(world.reward))
    centres, size = world.n_centres, len(kinds) * world.n_centres
    if size > MOST_VARIABLES:
        raise InputError(
            f"the bound has {size:,} variables but at most {MOST_VARIABLES:,} are solved; take `first_orders` of the "
            "world"
        )
    _, row = np.unique(product, return_inverse=True)
    every = np.arange(size)
    rows = (every // centres, (row[:, None] * centres + np.arange(centres)).ravel(), every % centres)
    limits = (
        np.bincount(kind, world.quantity),
        world.stock[np.unique(product)].ravel(),
        world.granted()[-1].astype(float),
    )
    sums = [
        sparse.csr_matrix((np.ones(size), (at, every)), shape=(len(limit), size))
        for at, limit in zip(rows, limits, strict=True)
    ]
    worth = world.reward[destination].ravel() / UNIT
    solved = linprog(-worth, A_ub=sparse.vstack(sums, format="csr"), b_ub=np.concatenate(limits), method="highs")
    if not solved.success:
        raise InputError(f"the bound was not found ({solved.message}); take `first_orders` of the world")
    return -float(solved.fun)
