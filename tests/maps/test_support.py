"""What is outside of training is reported, and what is inside is not; policies are told apart by their hash."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_maps import cut, interface, past, people, story

from walras.data.array_file import DamagedFileError, read_arrays, write_arrays
from walras.errors import InputError
from walras.maps.agent_layout import CohortIndex
from walras.maps.encoder import EncoderState
from walras.maps.features import Baseline, MapInputs, agent_features, pool_agents, units_of
from walras.maps.file import DUAL
from walras.maps.support import QueryRange, TrainingSupport, load_support, policy_hash, save_support, summary_of
from walras.policies.base_stock import ConstantOrder, OrderUpTo, PricedNewsvendor
from walras.policies.user_policies import FunctionPolicy
from walras.population.agent_axis import Broadcast
from walras.population.cohort import UniformSample

RANDOM = np.random.default_rng(0)
SPREAD = np.array([[1.0, 0.0, 0.0], [3.0, 0.1, 0.0], [0.0, 0.0, 20.0]])
POPULATIONS = RANDOM.standard_normal((60, 3)) @ SPREAD
POLICY = PricedNewsvendor()


@pytest.fixture(scope="module")
def coverage() -> TrainingSupport:
    prices = [np.linspace(0, 1.8, 50)] * 3
    return TrainingSupport.fit(POPULATIONS, prices, POLICY, capacities=[np.array([0.5, 1.5])], facts={"examples": 60})


def test_nothing_inside_is_reported(coverage):
    query = QueryRange()
    query.note(prices=np.full((26, 1), 1.9), capacity=np.full((26, 1), 0.48))
    followed = (policy_hash(POLICY), "PricedNewsvendor")
    assert coverage.check(summary=POPULATIONS[7], weeks=64, policy_id=followed, query_range=query) == ()


def test_every_reason_is_reported(coverage):
    query = QueryRange()
    query.note(prices=np.array([[9.9], [3.2], [0.1]]), capacity=np.array([[99.0], [0.2], [4.0]]))
    far = POPULATIONS.mean(0) + np.array([0.0, 10.0, 0.0])
    followed = (policy_hash(ConstantOrder(jnp.zeros(()))), "ConstantOrder")
    reasons = coverage.check(summary=far, weeks=12, policy_id=followed, query_range=query)
    assert reasons[0] == "agents follow `ConstantOrder` but the maps were trained with `PricedNewsvendor`"
    assert reasons[1] == "the history has 12 weeks but training saw no fewer than 64"
    assert reasons[2].endswith("times as far from those of training as the furthest of them")
    assert reasons[3] == "prices up to 3.2 median margins were asked but training saw up to 1.8"
    assert reasons[4] == "capacity down to 0.2 of typical use was asked but training saw no less than 0.5"
    assert reasons[5] == "capacity up to 4 times typical use was asked but training saw up to 1.5"
    assert len(reasons) == 6


def test_the_same_class_with_other_numbers_is_another_policy(coverage):
    followed = (policy_hash(PricedNewsvendor(discount=0.9)), "PricedNewsvendor")
    assert "is not the one with which" in coverage.check(policy_id=followed)[0]


def test_distance_counts_along_what_varies_little(coverage):
    along, across = np.array([3.0, 0.3, 0.0]), np.array([0.0, 3.0, 0.0])
    middle = POPULATIONS.mean(0)
    assert 4 * coverage.far(middle + along) < coverage.far(middle + across)
    assert coverage.distance[0] < coverage.distance[1] <= coverage.distance[2]


def test_few_examples_judge_no_population():
    few = TrainingSupport.fit(POPULATIONS[:4], [], POLICY)
    assert few.check(summary=np.full(3, 1e6)) == ()
    assert TrainingSupport.fit([None] * 20, [], POLICY).check(summary=None) == ()


def test_it_comes_back_from_its_file(coverage, tmp_path):
    save_support(tmp_path / "c.walras", coverage)
    found = load_support(tmp_path / "c.walras")
    np.testing.assert_array_equal(found.mean, coverage.mean)
    np.testing.assert_array_equal(found.whitening, coverage.whitening)
    for name in ("kind", "distance", "price", "capacity", "weeks", "policy", "policy_name", "facts"):
        assert getattr(found, name) == getattr(coverage, name)
    save_support(tmp_path / "d.walras", TrainingSupport.fit([], [], POLICY, kind=DUAL))
    assert load_support(tmp_path / "d.walras").capacity == (np.inf, 0.0)


def test_other_files_are_refused(coverage, tmp_path):
    place = tmp_path / "c.walras"
    save_support(place, coverage)
    stored = read_arrays(place, "coverage")
    write_arrays(place, "coverage", stored.arrays, {**stored.header, "version": 2})
    with pytest.raises(InputError, match="version 2 but this walras reads version 1"):
        load_support(place)
    write_arrays(place, "coverage", {**stored.arrays, "price": np.zeros(3)}, stored.header)
    with pytest.raises(InputError, match="does not say what training covered"):
        load_support(place)
    place.write_bytes(place.read_bytes()[:-1])
    with pytest.raises(DamagedFileError):
        load_support(place)


def test_training_and_views_see_a_population_alike():
    """`summary_of` on a training rollout's inputs is what `Interface.encode` compares later."""
    population, learned = people(), interface().primal
    past_weeks, units = past(population), units_of(population)
    everyone = UniformSample().draw(np.ones(population.n_agents), population.n_agents, RANDOM)
    index_ = CohortIndex.of(np.asarray(population.demand_scale), everyone, learned.edges, 16)
    read = cut(past_weeks, (slice(None), index_.index))
    cohort = people().take(index_.index)
    cohort = type(cohort)(**{**vars(cohort), "weight": index_.weight})

    @jax.jit
    def in_training():
        features, pooled = agent_features(cohort, read, units), pool_agents(cohort, index_.bucket, 3, units)
        rest = jnp.zeros((64, 4)), jnp.zeros((1, 26, 5)), Baseline(jnp.ones((1, 1)), jnp.ones((1, 26, 1)))
        return summary_of(learned.network, learned.scaling(MapInputs(features, *rest, pooled, read.valid)))

    reading = EncoderState.of(learned, population, units, everyone, story(population))
    np.testing.assert_allclose(in_training(), reading.summary, rtol=2e-4, atol=2e-5)


PROGRAM = """
from walras.maps.support import policy_hash
from walras.policies.base_stock import PricedNewsvendor
print(policy_hash(PricedNewsvendor(discount=0.99)))
"""


def one_order(observation, shadow_prices, parameters):
    """Order a number of units."""
    return parameters * jnp.ones_like(observation.position)


def test_settings_count_in_a_policys_hash():
    plain = policy_hash(PricedNewsvendor())
    assert plain == policy_hash(PricedNewsvendor())
    assert plain != policy_hash(PricedNewsvendor(discount=0.99))
    assert policy_hash(ConstantOrder(jnp.float32(1))) != policy_hash(ConstantOrder(jnp.float32(2)))


def test_another_process_computes_the_same_hash():
    environment = {"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
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
