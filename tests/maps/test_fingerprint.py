"""Own the proof that a policy's fingerprint tells policies apart, and is the same in every process.

CONTRACT: fingerprints are stored with maps; the one written down here may not move.
"""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np

from walras.maps.support import policy_hash
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.simple import ConstantOrder, OrderUpTo
from walras.policies.user_policies import FunctionPolicy
from walras.population.agent_axis import Broadcast

PROGRAM = """
from walras.maps.support import policy_hash
from walras.policies.base_stock import PricedNewsvendor
print(policy_hash(PricedNewsvendor(discount=0.99)))
"""


def one_order(observation, shadow_prices, parameters):
    """Order a number of units."""
    return parameters * jnp.ones_like(observation.position)


def test_what_decides_counts():
    plain = policy_hash(PricedNewsvendor())
    assert plain == policy_hash(PricedNewsvendor())
    assert plain != policy_hash(PricedNewsvendor(discount=0.99))
    assert policy_hash(ConstantOrder(jnp.float32(1))) != policy_hash(ConstantOrder(jnp.float32(2)))


def test_another_process_says_the_same():
    for seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            capture_output=True, text=True, timeout=120, env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )  # fmt: skip
        assert result.stdout.strip() == policy_hash(PricedNewsvendor(discount=0.99)), result.stderr


def test_agents_own_numbers_do_not_count_where_it_is_known_how_many_there_are():
    few, others = (OrderUpTo(jnp.asarray(levels)) for levels in ([1.0, 2.0], [3.0, 4.0]))
    assert policy_hash(few) != policy_hash(others)
    assert policy_hash(few, 2) == policy_hash(others, 2)
    many = OrderUpTo(jnp.arange(5.0))
    assert policy_hash(few, 2) == policy_hash(many, 5)


def test_what_is_shared_counts_however_long_it_is():
    def shared(*numbers):
        return FunctionPolicy(one_order, Broadcast(jnp.asarray(numbers)))

    assert policy_hash(shared(1.0, 2.0), 2) != policy_hash(shared(1.0, 3.0), 2)
    assert policy_hash(shared(1.0, 2.0), 2) == policy_hash(shared(1.0, 2.0), 7)


def test_a_function_counts_by_its_name_and_not_by_its_place_in_memory():
    first, second = FunctionPolicy(one_order, 1.0), FunctionPolicy(np.add, 1.0)
    assert policy_hash(first) == policy_hash(FunctionPolicy(one_order, 1.0))
    assert policy_hash(first) != policy_hash(second)
