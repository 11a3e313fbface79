"""Buyers learn from the money of an episode, by its true derivative, and the same bits every time.

Episodes are tiny; what training is worth is judged by the benchmarks.
"""

import csv
import json
from copy import copy
from dataclasses import replace
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from buyers import FORGETFUL, FULL, loud

import walras.train.buyer_training
from lab.stationary_episodes import DemandLaw, StationaryEpisodes
from walras.data.array_file import DamagedFileError, flatten, read_arrays, write_arrays
from walras.errors import InputError
from walras.policies.base_stock import ConstantOrder, PricedNewsvendor
from walras.policies.buyer import Buyer, BuyerShape
from walras.population.agent_axis import Broadcast
from walras.population.generate import generate_panel
from walras.train.buyer_episodes import Episode
from walras.train.buyer_training import (
    BUYER,
    GRADIENTS,
    KIND,
    PARTS,
    VERSION,
    BuyerTask,
    _history_settings,
    episode_loss,
    gradient_by_week,
    load_buyer,
    parts_of,
    save_buyer,
    train_buyer,
    worth,
)
from walras.train.loop import train
from walras.train.settings import BuyerTraining

STORES, WEEKS, WARM_UP, FREE, LEAD = 6, 7, 2, 2, 2
EPISODES = StationaryEpisodes(
    DemandLaw("geometric", 4.0), 9.0, LEAD, stores=STORES, weeks=WEEKS, warm_up=WARM_UP, free_weeks=FREE
)
SHAPE = BuyerShape(history=2, dilations=(1, 2), hidden=(STORES,), open_orders=2, before=0, after=1, profile=False)


def priced(episode: Episode, seed: int = 0) -> Episode:
    """Put costs, margins, prices of the resource and weights of agents and weeks into an episode."""
    random = np.random.default_rng(seed)
    weeks, agents = episode.exogenous.n_weeks, episode.population.n_agents

    def drawn(low: float, high: float, *shape: int) -> jax.Array:
        return jnp.asarray(random.uniform(low, high, shape), jnp.float32)

    return eqx.tree_at(
        lambda e: (
            e.exogenous.unit_cost,
            e.exogenous.sale_price,
            e.shadow_prices,
            e.population.weight,
            e.population.holding_cost,
            e.week_weight,
        ),
        episode,
        (
            drawn(2.0, 4.0, weeks, agents),
            drawn(8.0, 9.0, weeks, agents),
            drawn(0.0, 2.0, weeks, 1),
            drawn(0.5, 2.0, agents),
            drawn(0.1, 1.0, agents),
            episode.week_weight * 0.9 ** jnp.arange(weeks),
        ),
    )


EPISODE = priced(EPISODES.draw(0, 1))


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_what_is_left_is_worth_its_cost_less_holding_it_until_it_is_sold():
    changed = eqx.tree_at(
        lambda e: (e.population.holding_cost, e.population.demand_scale, e.population.weight, e.exogenous.unit_cost),
        EPISODE,
        (
            jnp.full(STORES, 0.5),
            jnp.full(STORES, 2.0),
            jnp.asarray([1.0, 1.0, 1.0, 3.0, 0.0, 1.0]),
            jnp.full((1, STORES), 3.0),
        ),
    )
    units = jnp.asarray([0.0, 8.0, 24.0, 4.0, 4.0, 1e6])
    # 8 units wait 2 weeks on average: 8 x (3 - 1); 24 wait 6 weeks: 24 x (3 - 3); and no less than nothing.
    np.testing.assert_allclose(worth(changed, units), 0.0 + 16.0 + 0.0 + 3 * 4 * 2.5 + 0.0 + 0.0)


def by_hand(episode: Episode, ordered: np.ndarray, backlog: bool) -> float:
    """Live through an episode with fixed orders, in the order of a week, and count what the loss counts."""
    people, paths = episode.population, episode.exogenous
    weeks, agents = paths.n_weeks, people.n_agents
    stock, pipeline = np.asarray(episode.initial.stock_end, float), np.asarray(episode.initial.pipeline, float)
    cost, price = (np.broadcast_to(x, (weeks, agents)) for x in (paths.unit_cost, paths.sale_price))
    weight, holding, penalty = (np.asarray(x) for x in (people.weight, people.holding_cost, people.lost_sale_penalty))
    week_weight, charged, demand = (np.asarray(x) for x in (episode.week_weight, episode.shadow_prices, paths.demand))
    money, given = 0.0, np.maximum(stock + pipeline.sum(0), 0)
    for week in range(weeks):
        receipts, pipeline = pipeline[0], np.concatenate([pipeline[1:], ordered[None]])
        stock = stock + receipts
        sales = demand[week] if backlog else np.minimum(stock, demand[week])
        stock = stock - sales
        short = np.maximum(-stock, 0) if backlog else demand[week] - sales
        earned = price[week] * sales - cost[week] * ordered - holding * np.maximum(stock, 0) - penalty * short
        money += week_weight[week] * (weight * (earned - charged[week, 0] * receipts)).sum()
        if week_weight[week] == 0:
            given = given + ordered - sales
    worths = []
    for units in (np.maximum(stock + pipeline.sum(0), 0), given):
        wait = holding * units / (2 * np.asarray(people.demand_scale))
        worths.append((weight * units * np.maximum(cost[-1] - wait, 0)).sum())
    money += week_weight[-1] * (worths[0] - worths[1])
    return -money / (float(episode.stake) * week_weight.sum())


@pytest.mark.parametrize("backlog", [False, True])
def test_the_loss_of_constant_orders_by_hand(backlog):
    ordered = np.linspace(2.0, 6.0, STORES)
    loss = episode_loss(ConstantOrder(jnp.asarray(ordered, jnp.float32)), EPISODE, backlog=backlog)
    np.testing.assert_allclose(loss, by_hand(EPISODE, ordered, backlog), rtol=1e-4)


# --- its derivative ---------------------------------------------------------------------------------------------------


def wide(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree)


@pytest.mark.parametrize("backlog", [False, True])
def test_the_derivative_is_the_slope_of_the_loss(backlog):
    """All weeks count here: what is taken as a fact, and so has no derivative, would have a slope."""
    with jax.enable_x64(True):
        weighted = eqx.tree_at(lambda e: e.week_weight, EPISODE, 0.9 ** jnp.arange(WEEKS + WARM_UP))
        episode, network = wide((weighted, loud(SHAPE, gain=50.0).network.value))
        arrays, rest = eqx.partition(network, eqx.is_array)

        @jax.jit
        def loss(arrays):
            buyer = replace(loud(SHAPE), network=Broadcast(eqx.combine(arrays, rest)))
            return episode_loss(buyer, episode, backlog=backlog)

        slope = jax.jit(jax.grad(loss))(arrays)
        leaves, structure = jax.tree.flatten(arrays)
        for seed in range(4):
            keys = jax.random.split(jax.random.key(seed), len(leaves))
            drawn = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
            along = jax.tree.unflatten(structure, drawn)
            step = 1e-4 if loss(arrays).dtype == jnp.float32 else 1e-6
            up, down = (jax.tree.map(lambda a, d, s=s: a + s * d, arrays, along) for s in (step, -step))
            difference = (loss(up) - loss(down)) / (2 * step)
            told = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(slope), drawn, strict=True))
            np.testing.assert_allclose(told, difference, rtol=2e-4, atol=1e-6)
            assert abs(float(told)) > 1e-3


def test_orders_of_weeks_that_are_not_learned_from_have_no_derivative():
    weeks = WEEKS + WARM_UP
    norms = np.asarray(gradient_by_week(loud(SHAPE), EPISODE, free_weeks=FREE))
    learns = (np.arange(weeks) >= WARM_UP) & (np.arange(weeks) < weeks - FREE)
    assert norms.shape == (weeks,) and np.isfinite(norms).all()
    np.testing.assert_array_equal(norms > 0, learns)


def test_an_order_of_the_last_weeks_is_worth_something_only_to_the_end():
    """An order that arrives after the end pays its price and is worth what is left: nothing else."""
    nudge = jnp.zeros((WEEKS + WARM_UP, STORES))
    policy = ConstantOrder(jnp.full(STORES, 4.0))
    slope = jax.grad(lambda nudge: episode_loss(policy, EPISODE, nudge=nudge))(nudge)[-1]
    people, cost, weight = EPISODE.population, EPISODE.exogenous.unit_cost[-1], EPISODE.week_weight
    units = _left(policy)
    wait = people.holding_cost * units / people.demand_scale
    worth_of_one = jnp.where(cost > wait / 2, cost - wait, 0.0)
    expected = people.weight * (cost - worth_of_one) * weight[-1] / (EPISODE.stake * weight.sum())
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-6)


def _left(policy) -> jax.Array:
    final = walras.train.buyer_training.simulate(
        EPISODE.population, EPISODE.exogenous, policy, initial=EPISODE.initial, shadow_prices=EPISODE.shadow_prices
    ).final
    return jnp.maximum(final.stock_end + final.pipeline.sum(0), 0.0)


def test_weeks_that_do_not_learn_do_not_move_the_weights():
    silent = eqx.tree_at(lambda e: e.week_weight, EPISODE, EPISODE.week_weight.at[:-1].set(0.0))

    @eqx.filter_jit
    @eqx.filter_grad
    def slope(network, episode, free_weeks):
        return episode_loss(replace(loud(SHAPE), network=Broadcast(network)), episode, free_weeks=free_weeks)

    network = loud(SHAPE).network.value
    for episode, free_weeks in ((EPISODE, WEEKS), (silent, 1)):
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(slope(network, episode, free_weeks)))
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(slope(network, EPISODE, 0)))


def test_parts_add_up_to_the_whole():
    agents = STORES  # as many as the network has hidden units: its weights are not cut
    known = eqx.tree_at(lambda e: e.profile, EPISODE, jnp.arange(10.0 * agents).reshape(10, agents), is_leaf=_nothing)
    buyer = loud(replace(SHAPE, profile=True))
    parts = parts_of(known)
    assert len(parts) == PARTS and sum(part.population.n_agents for part in parts) == agents
    assert [part.profile.shape[1] for part in parts] == [part.population.n_agents for part in parts]
    whole, *some = (episode_loss(buyer.with_profile(each.profile), each) for each in (known, *parts))
    np.testing.assert_allclose(sum(some), whole, rtol=1e-5)


def _nothing(leaf) -> bool:
    return leaf is None


# --- training ---------------------------------------------------------------------------------------------------------

SETTINGS = BuyerTraining(steps=10, assess_every=5, checkpoint_every=2, learning_rate=0.01)


@cache
def task(settings: BuyerTraining = SETTINGS, episodes: StationaryEpisodes = EPISODES) -> BuyerTask:
    """Make a task once: each has an optimizer of its own, and so an update that is compiled anew."""
    return BuyerTask(settings, episodes, SHAPE, PricedNewsvendor())


def bits(fitted) -> list[bytes]:
    leaves = jax.tree.leaves((fitted.parameters, fitted.state))
    return [np.asarray(leaf).tobytes() for leaf in leaves if eqx.is_array(leaf)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Train in one piece."""
    return train(task(), SETTINGS, tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
def test_training_earns_more_on_what_was_held_out(tmp_path):
    # A forecast that is far too low: the newsvendor has nearly always too little, and the network can tell.
    class Pessimists(StationaryEpisodes):
        def paths(self, random, stores, weeks):
            paths = super().paths(random, stores, weeks)
            return replace(paths, lead_demand_mean=0.5 * paths.lead_demand_mean)

    settings = BuyerTraining(steps=60, assess_every=60, learning_rate=0.05)
    episodes = Pessimists(**{**vars(EPISODES), "weeks": 12})
    training = task(settings, episodes)
    fitted = train(training, settings, tmp_path)
    before = training.validate(training.begin(settings.seed))["held_out_loss"]
    assert fitted.step == 60 and fitted.best_step == 60
    # The average still remembers where it began; the weights themselves are further.
    newest = training.validate(replace(fitted.state, average=fitted.state.network))["held_out_loss"]
    assert newest < 0.98 * before and fitted.best_value < before


class Stop(Exception):
    """End a run as a defect would."""


def test_a_training_that_broke_goes_on_with_the_same_bits(whole, tmp_path):
    broken = copy(task())

    def step(state, number):
        if number == 8:
            raise Stop
        return task().step(state, number)

    broken.step = step
    with pytest.raises(Stop):
        train(broken, SETTINGS, tmp_path)
    fitted = train(task(), SETTINGS, tmp_path)
    assert bits(fitted) == bits(whole) and fitted.step == 10


def test_the_number_of_cores_changes_no_bit(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("walras.train.buyer_training.cores", lambda: 1)
    assert bits(train(task(), SETTINGS, tmp_path)) == bits(whole)


def test_what_is_kept_is_the_running_average(whole):
    assert any(
        np.asarray(a != b).any()
        for a, b in zip(jax.tree.leaves(whole.state.average), jax.tree.leaves(whole.state.network), strict=True)
    )
    average = jax.tree.leaves(task().buyer(whole.state).network.value)
    assert all(np.array_equal(a, b) for a, b in zip(average, jax.tree.leaves(whole.state.average), strict=True))


def test_a_training_says_what_it_follows_from():
    mine = task().identity()
    other = task(episodes=replace(EPISODES, penalty=8.0)).identity()
    assert mine != other and mine == task().identity()
    assert mine != BuyerTask(SETTINGS, EPISODES, replace(SHAPE, before=1), PricedNewsvendor()).identity()


# --- the file of a buyer ------------------------------------------------------------------------------------------


FACTS = {"steps": 3, "trained_on": "a table"}


@pytest.fixture
def place(tmp_path):
    """Write a small buyer."""
    path = tmp_path / "one.walras"
    save_buyer(path, loud(FULL), FACTS)
    return path


@pytest.mark.parametrize("shape", [FULL, FORGETFUL], ids=["full", "forgetful"])
def test_a_buyer_comes_back_bit_for_bit(tmp_path, shape):
    buyer = loud(shape)
    buyer = Buyer(buyer.network, shape, PricedNewsvendor(discount=0.98))
    save_buyer(tmp_path / "one.walras", buyer, FACTS)
    found = load_buyer(tmp_path / "one.walras")
    assert found.buyer.shape == shape and found.buyer.base.discount == 0.98 and found.buyer.profile is None
    assert found.facts == FACTS and found.source.endswith("one.walras")
    ours, theirs = (jax.tree.leaves(each.network) for each in (buyer, found.buyer))
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert jax.tree.structure(found.buyer) == jax.tree.structure(buyer)


def test_what_an_agent_is_like_is_not_in_the_file(place, tmp_path):
    save_buyer(tmp_path / "two.walras", loud(FULL).with_profile(jnp.ones((10, 3))), FACTS)
    assert (tmp_path / "two.walras").read_bytes() == place.read_bytes()


def refused(path, words: str, kind: type = InputError) -> None:
    with pytest.raises(kind, match=words) as caught:
        load_buyer(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_a_damaged_file_is_one_sentence(place):
    content = place.read_bytes()
    for broken in (content[:-1], content[:60], content[:200] + b"?" + content[201:], b""):
        place.write_bytes(broken)
        refused(place, "is damaged|is no file of arrays", DamagedFileError)


def test_a_missing_file_is_one_sentence(tmp_path):
    refused(tmp_path / "none.walras", "cannot be read")


def rewritten(place, kind: str = KIND, **changes) -> None:
    stored = read_arrays(place, KIND)
    header = {name: value for name, value in {**stored.header, **changes}.items() if value is not None}
    write_arrays(place, kind, stored.arrays, header)


def test_another_kind_of_file_is_one_sentence(place):
    rewritten(place, kind="line")
    refused(place, "holds a .?line.? but a .?buyer.? is needed")


@pytest.mark.parametrize("version", [VERSION + 1, None, "new"])
def test_another_version_is_one_sentence(place, version):
    rewritten(place, version=version)
    refused(place, f"holds a buyer of version .* but this walras reads version {VERSION}; train it again")


@pytest.mark.parametrize(
    "changes",
    [{"shape": None}, {"discount": None}, {"shape": {"width": 3}}, {"shape": [1, 2]}, {"discount": "much"}],
    ids=["no shape", "no discount", "another field", "a list", "a word"],
)
def test_a_file_without_its_shape_is_one_sentence(place, changes):
    rewritten(place, **changes)
    refused(place, "does not say what shape its buyer has")


def test_weights_of_another_shape_are_one_sentence(place):
    stored = read_arrays(place, KIND)
    write_arrays(place, KIND, flatten(loud(replace(FULL, after=3)).network.value), stored.header)
    refused(place, "is needed; build the same structure")


# --- a training from a table ------------------------------------------------------------------------------------------


TABLE_WEEKS = 32
SHORT = BuyerTraining(steps=2, assess_every=1, agents=10, hidden=4, history_channels=2)


@pytest.fixture(scope="module")
def panel():
    return generate_panel(agents=40, weeks=TABLE_WEEKS)


@pytest.fixture(scope="module")
def done(panel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, train_buyer(panel, SHORT, folder, command=("walras", "train", "buyer"))


def test_the_folder_holds_a_buyer_and_how_it_was_made(done):
    folder, fitted = done
    assert fitted.path == folder / BUYER and fitted.step == 2
    trained = load_buyer(fitted.path)
    assert trained.buyer.shape.hidden == (4, 4) and trained.buyer.shape.history == 2
    facts = trained.facts
    assert facts["trained_on"] == "a table" and facts["steps"] == 2 and facts["settings"]["agents"] == 10
    assert facts["held_out_loss"] == fitted.best_value and np.isfinite(facts["held_out_loss"])
    ours, theirs = (jax.tree.leaves(each) for each in (fitted.parameters, trained.buyer.network.value))
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_gradients_by_week_are_written(done):
    with open(done[0] / GRADIENTS) as file:
        rows = list(csv.DictReader(file))
    assert [int(row["week"]) for row in rows] == list(range(len(rows)))
    for name in ("before_training", "after_training"):
        norms = np.array([float(row[name]) for row in rows])
        assert np.isfinite(norms).all() and (norms >= 0).all() and (norms > 0).any() and norms[0] == 0


def test_a_finished_training_gives_the_same_file(panel, done):
    folder, _ = done
    before = (folder / BUYER).read_bytes()
    again = train_buyer(panel, SHORT, folder)
    assert again.step == 2 and (folder / BUYER).read_bytes() == before
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_too_few_products_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match="but a buyer needs at least 16") as caught:
        train_buyer(generate_panel(agents=10, weeks=TABLE_WEEKS), SHORT, tmp_path)
    assert "\n" not in str(caught.value)


def test_too_few_weeks_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match="the table has 12 weeks but more than 16 are needed"):
        train_buyer(generate_panel(agents=40, weeks=12), SHORT, tmp_path)


# --- short tables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weeks, held_out", [(18, 2), (24, 6), (130, 8), (12, 1)])
def test_a_short_table_is_held_out_from_as_far_as_it_goes(weeks, held_out):
    assert _history_settings(generate_panel(agents=4, weeks=weeks), BuyerTraining()).holdout == held_out
