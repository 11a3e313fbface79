"""Evaluation of maps: cases, bootstrap, forecasts that do not use the future, cohorts, twins, cost of encoding."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab import eval_maps, shift_cases
from lab.capacity_families import StepCapacity
from lab.encoding import index_sample
from lab.encoding_cost import one_pass_step, window, windows_step
from lab.eval_cohorts import RepeatedPopulation, cohort_errors, cohort_forecast, predicted_error, resample_world
from lab.eval_maps import EXPECTED, PROBES, SIMULATION, evaluate_map, map_forecast, simulated_forecast
from lab.resampling import SPAN, ScenarioBootstrap
from lab.shift_cases import ShiftCases, ShiftSizes, draw_capacity, fit_prices, kinds, use_under_prices
from lab.twins import KINDS, twin_cases
from walras.evaluation.metrics import NEAR_LIMIT
from walras.maps.features import HORIZON, LOOK_BACK
from walras.maps.file import LearnedMap
from walras.maps.network import MapNetwork
from walras.maps.rollout import horizon_slices, roll_out
from walras.policies.base_stock import PricedNewsvendor
from walras.population.cohort import UniformSample
from walras.population.generate import generate_panel
from walras.train import primal_task as primal
from walras.train.agent_pool import AgentPool
from walras.train.map_task import MapEpisodes
from walras.train.primal_task import PrimalTask, example_loss
from walras.train.settings import MapTraining

pytestmark = pytest.mark.slow

SIZES = ShiftSizes(target=48, sample=24, weeks=98, origins=2, spacing=4, priced=10, steps=6)
POLICY = PricedNewsvendor()
TINY = {
    "delegates": 0,
    "history_width": 4,
    "future_width": 4,
    "decoder_width": 4,
    "attention_dim": 4,
    "buckets": 3,
    "tile": 16,
}


@pytest.fixture(scope="module")
def agent_pool() -> AgentPool:
    return AgentPool.from_panel(generate_panel(80, 150, 5), seed=5, refit_weeks=13)


@pytest.fixture(scope="module")
def cases(agent_pool) -> ShiftCases:
    return ShiftCases(agent_pool, POLICY, SIZES)


def tiny_task(agent_pool: AgentPool, representation: str) -> PrimalTask:
    """Measure features over one rollout: what a task does with more is shown elsewhere."""
    settings = MapTraining(representation=representation, population_size=48, agents=32, weeks=98, spacing=1, **TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(primal, "EXAMPLES", 1)
        patch.setattr(primal, "VALIDATION", 1)
        return PrimalTask(settings, MapEpisodes([agent_pool], settings), POLICY)


@pytest.fixture(scope="module")
def task(agent_pool) -> PrimalTask:
    return tiny_task(agent_pool, "bucketized")


@pytest.fixture(scope="module")
def learned(task) -> LearnedMap:
    return LearnedMap("primal map", task.begin(3).average, task.scaling, task.shape, task.episodes.edges)


@pytest.fixture(scope="module")
def case(cases):
    return cases.draw("demand", 1.0, kinds().index("held-out Haar"))


def later_use(rolled):
    return np.asarray(horizon_slices(rolled.utilization, SIZES.known, SIZES.origins, SIZES.spacing), float)


def test_cases_of_a_number_share_weeks_and_kind_whatever_their_shift(cases, case):
    other = cases.draw("economics", -1.0, case.number)
    assert (other.start, other.kind) == (case.start, case.kind) and not np.array_equal(other.agents, case.agents)
    again_drawn = cases.draw("demand", 1.0, case.number)
    np.testing.assert_array_equal(again_drawn.agents, case.agents)
    np.testing.assert_array_equal(again_drawn.prices, case.prices)


@pytest.mark.parametrize("by", shift_cases.BY)
def test_every_attribute_can_be_shifted_by(cases, by):
    low, high = (cases.values(by)[cases.draw(by, alpha, 6).agents].mean() for alpha in (-2.0, 2.0))
    assert low < high


def test_prices_bring_use_nearer_to_capacity(agent_pool):
    pop_window = agent_pool.window(np.arange(40), 0, SIZES.weeks)
    free = use_under_prices(pop_window, POLICY, jnp.zeros((SIZES.weeks, 1)))
    capacity = jnp.full_like(free, 0.7 * float(free[10:].mean()))
    prices = fit_prices(pop_window, POLICY, capacity, 10, 15)
    assert float(prices[:10].max()) == 0.0 and float(prices.min()) >= 0.0 < float(prices.max())
    over = [
        float(jnp.maximum(use - capacity, 0)[10:].sum()) for use in (free, use_under_prices(pop_window, POLICY, prices))
    ]
    assert over[1] < 0.7 * over[0]


def test_capacity_is_near_its_limit_as_often_as_is_said():
    free = np.random.default_rng(0).uniform(50, 150, (60, 1))
    path, share = draw_capacity(StepCapacity(), free, 10, 3)
    assert len(path) == 60 and share == np.mean(free[10:] > NEAR_LIMIT * path[10:])
    assert share == pytest.approx(0.55, abs=0.2) and (path[:11] == path[10]).all()


def test_a_map_does_not_see_what_comes(case, learned):
    readers = index_sample(case.pop_window.population, learned, 20, np.random.default_rng(0))
    last = SIZES.known
    tail = eqx.tree_at(
        lambda e: e.demand, case.pop_window.exogenous, case.pop_window.exogenous.demand.at[last:].multiply(3.0)
    )
    changed = eqx.tree_at(lambda s: s.exogenous, case.pop_window, tail)
    rolled = roll_out(changed, POLICY, case.prices)
    assert not np.allclose(later_use(rolled), later_use(case.rolled))
    parts = (readers, case.prices, SIZES)
    before, after = (
        map_forecast(learned, *each, *parts) for each in ((case.rolled, case.pop_window), (rolled, changed))
    )
    np.testing.assert_array_equal(before, after)
    earlier = eqx.tree_at(
        lambda s: s.exogenous.demand, case.pop_window, case.pop_window.exogenous.demand.at[last - 3].add(50.0)
    )
    moved = map_forecast(learned, roll_out(earlier, POLICY, case.prices), earlier, *parts)
    assert not np.allclose(moved, before)


def test_futures_that_come_as_they_came_give_what_came(agent_pool, case, monkeypatch):
    def same(futures: ScenarioBootstrap, random: np.random.Generator):
        first = futures.now - case.start
        return jax.tree.map(lambda leaf: leaf[first : first + SPAN], case.pop_window.exogenous)

    monkeypatch.setattr(eval_maps.ScenarioBootstrap, "sample", same)
    # Only the prices behind the horizon are not told, so they are made the same.
    prices = jnp.full_like(case.prices, 0.1 * float(case.rolled.units.price[0]))
    steady = replace(case, prices=prices, rolled=roll_out(case.pop_window, POLICY, prices))
    found = simulated_forecast(agent_pool, steady, POLICY, SIZES, 1, np.random.default_rng(0))
    # An agent's view of costs ends with the drawn weeks, which the last orders of the horizon notice.
    np.testing.assert_allclose(found[0][:, :-4], later_use(steady.rolled)[:, :-4], rtol=1e-4)


def test_futures_know_nothing_of_the_coming_weeks(agent_pool):
    now = 70
    agents = np.arange(agent_pool.n_agents)
    demand = np.array(agent_pool.exogenous.demand)
    demand[now : now + SPAN] *= 7.0
    mean = np.array(agent_pool.exogenous.lead_demand_mean)
    mean[now + 1 : now + SPAN] *= 7.0
    paths = eqx.tree_at(
        lambda e: (e.demand, e.lead_demand_mean), agent_pool.exogenous, (jnp.asarray(demand), jnp.asarray(mean))
    )
    other = replace(agent_pool, exogenous=paths)
    one, two = (ScenarioBootstrap(each, agents, now).sample(np.random.default_rng(0)) for each in (agent_pool, other))
    np.testing.assert_array_equal(one.demand, two.demand)
    np.testing.assert_array_equal(one.lead_demand_mean, two.lead_demand_mean)
    assert not np.array_equal(
        one.demand, ScenarioBootstrap(agent_pool, agents, now).sample(np.random.default_rng(1)).demand
    )


def test_futures_bring_what_is_expected_on_average(agent_pool):
    """Shrink all that came to what was expected: then every future is what is expected now."""
    weeks = np.arange(agent_pool.n_weeks)
    fit = np.searchsorted(agent_pool.fit_week, weeks, side="right") - 1
    flat = np.repeat(agent_pool.expected[:1, :1], len(agent_pool.fit_week), axis=0).repeat(
        agent_pool.expected.shape[1], axis=1
    )
    demand = jnp.asarray(flat[fit, 0])
    still = replace(agent_pool, expected=flat, exogenous=eqx.tree_at(lambda e: e.demand, agent_pool.exogenous, demand))
    drawn = ScenarioBootstrap(still, np.arange(agent_pool.n_agents), 70).sample(np.random.default_rng(0))
    np.testing.assert_allclose(drawn.demand, flat[0, 0][None].repeat(SPAN, 0), rtol=1e-5)


def test_where_no_other_time_is_known_what_is_expected_comes(agent_pool):
    now = SPAN - 1
    fits = agent_pool.fit_week < now + SPAN
    short = replace(agent_pool, fit_week=agent_pool.fit_week[fits], expected=agent_pool.expected[fits])
    drawn = ScenarioBootstrap(short, np.arange(agent_pool.n_agents), now).sample(np.random.default_rng(0))
    fit = np.searchsorted(short.fit_week, now, side="right") - 1
    ahead = now - short.fit_week[fit] + np.arange(SPAN)
    np.testing.assert_allclose(drawn.demand, short.expected[fit, ahead], rtol=1e-6)


def test_all_forecasts_of_a_case_are_of_the_same_weeks(agent_pool, case, learned):
    found = evaluate_map(agent_pool, case, POLICY, {"bucketized": learned}, SIZES, cohort=20, draws=2)
    assert set(found.forecasts) == {"bucketized", EXPECTED, SIMULATION}
    shape = (SIZES.origins, HORIZON, 1)
    assert found.realised.shape == shape and {f.shape for f in found.forecasts.values()} == {shape}
    use = np.asarray(case.rolled.utilization)
    np.testing.assert_allclose(found.realised[-1], use[SIZES.known : SIZES.known + HORIZON], rtol=1e-6)
    assert found.futures.shape == (2, *shape)
    charged = np.asarray(case.prices[SIZES.known : SIZES.known + HORIZON]) > 0
    np.testing.assert_array_equal(found.priced[-1], charged)
    assert charged.any() and not charged.all()


def test_a_map_without_prices_answers_all_of_them_alike(case, learned):
    """In the very features and weights with which another map's answer moves."""
    readers = index_sample(case.pop_window.population, learned, 20, np.random.default_rng(0))
    shape = replace(learned.shape, sees_prices=False)
    blind = replace(learned, shape=shape, network=MapNetwork.draw(shape, 0))
    seeing = replace(learned, network=MapNetwork.draw(learned.shape, 0))
    others = [case.prices, case.prices + float(case.rolled.units.price[0])]
    parts = (case.rolled, case.pop_window, readers)
    said = {name: [map_forecast(m, *parts, p, SIZES) for p in others] for name, m in (("b", blind), ("s", seeing))}
    np.testing.assert_array_equal(*said["b"])
    assert not np.allclose(*said["s"])


def test_delegates_alone_answer_prices_without_a_map(agent_pool, case, learned):
    """The weights of the map whose delegates they are change nothing; prices do."""
    asks = replace(learned.shape, n_probes=16)
    maps = [replace(learned, shape=asks, network=MapNetwork.draw(asks, seed)) for seed in (0, 1)]
    prices = [case.prices, case.prices, case.prices + 10 * float(case.rolled.units.price[0])]
    found = [
        evaluate_map(
            agent_pool, replace(case, prices=price), POLICY, {"map": each}, SIZES, cohort=20, draws=0
        ).forecasts
        for each, price in zip([*maps, maps[0]], prices, strict=True)
    ]
    assert not np.array_equal(found[0]["map"], found[1]["map"])
    np.testing.assert_array_equal(found[0][PROBES], found[1][PROBES])
    assert found[2][PROBES][..., 8:, :].sum() < 0.5 * found[0][PROBES][..., 8:, :].sum()


@pytest.mark.parametrize("kind", KINDS)
def test_twins_have_the_same_demand_and_prices(cases, monkeypatch, kind):
    monkeypatch.setattr("lab.twins.TOLERANCE", 0.2)
    first, second = twin_cases(cases, kind, 1, 16)
    assert first.start == second.start and not np.array_equal(first.agents, second.agents)
    np.testing.assert_array_equal(first.prices, second.prices)
    size = [float(each.pop_window.population.demand_scale.mean()) for each in (first, second)]
    active = cases.agent_pool.active[first.start + SIZES.origin_weeks[0]]
    assert abs(size[0] - size[1]) <= 0.21 * float(cases.agent_pool.population.demand_scale[active].mean())


def test_living_once_more_changes_what_is_an_agents_own(agent_pool):
    other = resample_world(agent_pool, 1, 0)
    assert resample_world(agent_pool, 0, 0) is agent_pool
    demand, new = (np.asarray(each.exogenous.demand) for each in (agent_pool, other))
    assert not np.array_equal(demand, new) and new.sum() == pytest.approx(demand.sum(), rel=0.25)
    np.testing.assert_array_equal(other.exogenous.lead_demand_mean, agent_pool.exogenous.lead_demand_mean)
    np.testing.assert_array_equal(resample_world(agent_pool, 1, 0).exogenous.demand, new)
    assert not np.array_equal(resample_world(agent_pool, 2, 0).exogenous.demand, new)


@pytest.fixture(scope="module")
def target(agent_pool, case) -> RepeatedPopulation:
    return RepeatedPopulation(agent_pool, np.arange(40), case.start, 2, case.prices, POLICY, SIZES)


def test_everybody_as_a_cohort_uses_what_everybody_uses(target, learned):
    truth, everyone = target.realised(), np.arange(target.n_agents)
    one, two = target.parts(everyone, np.ones(80))
    use = sum(np.asarray(roll_out(part, POLICY, target.prices).utilization) for part in (one, two))
    np.testing.assert_allclose(truth[-1], use[SIZES.known : SIZES.known + HORIZON], rtol=1e-5)
    said, scale = cohort_forecast(target, learned, everyone, np.ones(80))
    assert said.shape == truth.shape and scale[0] == pytest.approx(target.size.sum(), rel=1e-2)


def test_cohorts_are_measured_for_every_size_that_is_smaller(target, learned):
    found = cohort_errors(target, learned, {"uniform": UniformSample()}, (20, 500), 2)
    assert [(each.design, each.n) for each in found] == [("uniform", 20)] * 2
    assert found[0].scale != found[1].scale and found[0].against_full > 0.0
    assert found[0].predicted == predicted_error(UniformSample(), target.size, target.size, 20)
    assert cohort_errors(target, learned, {"uniform": UniformSample()}, (20,), 1, most_read=10)[0].against_full is None


def test_a_window_is_all_that_an_embedding_knows(task):
    lesson = task.example(task.episodes.draw(0), None)
    reader = task.begin(0).network.agents
    whole = reader(lesson.inputs.agents, lesson.inputs.valid)
    for origin in (0, task.origins - 1):
        cut = window(lesson, jnp.asarray(origin), task.weeks)
        assert cut.inputs.agents.shape[0] == LOOK_BACK and cut.use.shape[0] == 1
        alone = reader(cut.inputs.agents, cut.inputs.valid)[-1]
        np.testing.assert_allclose(alone, whole[task.weeks - task.origins + origin], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(cut.inputs.baseline.due[0], lesson.inputs.baseline.due[origin])


def test_windows_encoded_one_by_one_learn_the_same(agent_pool):
    """Shown for maps that read totals alone, which compile in seconds."""
    task = tiny_task(agent_pool, "global")
    carry, lesson = task.begin(0), task.example(task.episodes.draw(0), None)
    one, loss = one_pass_step(carry, task.scaling, lesson, task.optimizer)
    two, same = windows_step(carry, task.scaling, lesson, task.optimizer)
    assert float(loss) == pytest.approx(float(example_loss(carry.network, task.scaling, lesson, 1)), rel=1e-5)
    assert float(same) == pytest.approx(float(loss), rel=1e-5)
    slopes = [each.optimizer[1][0].mu for each in (one, two)]
    for left, right in zip(*(jax.tree.leaves(each) for each in slopes), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-6)
