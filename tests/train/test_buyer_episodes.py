"""Nothing is learned from what judges: neither from held-out products nor from held-out weeks.

The table is small and made up.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from walras.config import HistorySettings
from walras.errors import InputError
from walras.population.generate import generate_panel
from walras.train.buyer_episodes import FEWEST_AGENTS, N_VALIDATION, HistoryEpisodes, _check_enough
from walras.train.history import FIRST_FORECAST, HistorySplit, train_test_split
from walras.train.settings import BuyerTraining

WEEKS, HOLDOUT = 60, 8
SETTINGS = BuyerTraining(agents=12, common_surprise=0.3)
HISTORY = HistorySettings(holdout=HOLDOUT, draws=1, refit_weeks=13, resources=("inbound_units", "storage"))


@pytest.fixture(scope="module")
def panel():
    return generate_panel(agents=60, weeks=WEEKS)


@pytest.fixture(scope="module")
def case(panel) -> HistorySplit:
    return train_test_split(panel, HISTORY)


@pytest.fixture(scope="module")
def episodes(case) -> HistoryEpisodes:
    return HistoryEpisodes(case, SETTINGS)


def assert_equal(one, other) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def differ(one, other) -> bool:
    return any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


# --- draws ------------------------------------------------------------------------------------------------------------


def test_all_draws_have_the_same_shapes(episodes):
    drawn = [episodes.draw(0, number) for number in range(6)]
    shapes = {tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(each)) for each in drawn}
    assert len(shapes) == 1 and len({jax.tree.structure(each) for each in drawn}) == 1
    assert all(np.isfinite(leaf).all() for each in drawn for leaf in jax.tree.leaves(each))
    assert drawn[0].exogenous.demand.shape == (WEEKS - HOLDOUT - FIRST_FORECAST, SETTINGS.agents)


def test_a_draw_follows_from_its_seed_and_number_alone(case, episodes):
    first = episodes.draw(3, 4)
    assert_equal(HistoryEpisodes(case, SETTINGS).draw(3, 4), first)
    assert differ(episodes.draw(3, 5), first) and differ(episodes.draw(4, 4), first)
    for one, other in zip(episodes.validation(), HistoryEpisodes(case, SETTINGS).validation(), strict=True):
        assert_equal(one, other)


def test_whole_demand_stays_whole_and_weeks_that_count_come_later(episodes):
    for number in range(6):
        episode = episodes.draw(0, number)
        demand, weight = np.asarray(episode.exogenous.demand), np.asarray(episode.week_weight)
        assert (demand == np.rint(demand)).all() and (demand >= 0).all()
        counted = np.flatnonzero(weight)
        assert len(weight) // 3 <= counted[0] <= 2 * len(weight) // 3 and counted[-1] == len(weight) - 1
        assert (np.diff(counted) == 1).all()
        assert (np.asarray(episode.population.demand_scale) > 0).all() and float(episode.stake) > 0


# --- who and what judges ----------------------------------------------------------------------------------------------


def test_products_either_learn_or_judge(case, episodes):
    both = np.concatenate([episodes.validation_agents, episodes.learners])
    np.testing.assert_array_equal(np.sort(both), np.arange(case.n_agents))
    assert len(episodes.validation_agents) >= FEWEST_AGENTS


def test_judges_are_never_drawn(case):
    """Mark the judges by a margin of their own; no draw may hold it."""
    judges = HistoryEpisodes(case, SETTINGS).validation_agents
    margin = case.population.unit_margin.at[judges].set(12345.0)
    marked = HistoryEpisodes(replace(case, population=replace(case.population, unit_margin=margin)), SETTINGS)
    for number in range(20):
        assert not (np.asarray(marked.draw(0, number).population.unit_margin) == 12345.0).any()
    assert all((np.asarray(each.population.unit_margin) == 12345.0).all() for each in marked.validation())


def test_what_judges_do_moves_no_draw(case, episodes):
    """What the judging products sold is not in any draw, not even in what all products have in common."""
    judges, paths = episodes.validation_agents, case.training.exogenous
    more = replace(paths, demand=paths.demand.at[..., judges].multiply(3.0))
    other = HistoryEpisodes(replace(case, training=replace(case.training, exogenous=more)), SETTINGS)
    for number in range(3):
        assert_equal(other.draw(0, number), episodes.draw(0, number))
    assert differ(other.validation(), episodes.validation())


def test_held_out_weeks_move_no_draw(panel, episodes):
    units = panel.units.copy()
    units[-HOLDOUT:] = 3 * units[-HOLDOUT:] + 5
    other = HistoryEpisodes(train_test_split(replace(panel, units=units), HISTORY), SETTINGS)
    for number in range(3):
        assert_equal(other.draw(0, number), episodes.draw(0, number))
    assert differ(other.validation(), episodes.validation())


def test_judges_live_through_all_weeks_with_prices_and_without(case, episodes):
    judging = episodes.validation()
    free, priced = judging[0], judging[N_VALIDATION]
    assert len(judging) == 2 * N_VALIDATION
    weeks = len(case.training.weeks) + HOLDOUT
    assert free.exogenous.demand.shape == (weeks, len(episodes.validation_agents)) == priced.exogenous.demand.shape
    assert not np.asarray(free.shadow_prices).any() and np.asarray(priced.shadow_prices).any()
    assert_equal(free.exogenous, priced.exogenous)
    assert (np.asarray(free.week_weight)[-HOLDOUT:] > 0).all()


# --- what agents are known to be like ---------------------------------------------------------------------------------


def test_profile_and_scale_know_only_weeks_before_those_that_count(case):
    plain = SETTINGS.model_copy(update={"common_surprise": 0.0})
    usual = HistoryEpisodes(case, plain)
    for number in range(4):
        before = usual.draw(0, number)
        counted = int(np.flatnonzero(before.week_weight)[0])
        for first, same in ((counted, True), (counted - 1, False)):
            # Only the recorded demand: who is drawn, and what is common, stays as it was.
            changed = HistoryEpisodes(case, plain)
            demand = changed.recorded.demand.copy()
            demand[first:] = 2 * demand[first:] + 7
            changed.recorded = replace(changed.recorded, demand=demand)
            after = changed.draw(0, number)
            assert differ(after.exogenous.demand, before.exogenous.demand)
            assert np.array_equal(after.profile, before.profile) is same
            assert np.array_equal(after.population.demand_scale, before.population.demand_scale) is same


def test_products_that_sold_nothing_lately_do_not_count(case):
    silent = HistoryEpisodes(case, SETTINGS)
    some = silent.learners[::2]
    demand = silent.recorded.demand.copy()
    demand[:, some] = 0.0
    silent.recorded = replace(silent.recorded, demand=demand)
    units = case.panel.units.copy()
    units[:FIRST_FORECAST, some] = 0.0
    silent.split = replace(case, panel=replace(case.panel, units=units))
    episode = silent.draw(0, 0)
    none = ~np.asarray(episode.exogenous.demand).any(0)
    assert none.any() and not none.all()
    np.testing.assert_array_equal(np.asarray(episode.population.weight) == 0, none)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, FEWEST_AGENTS, 2 * FEWEST_AGENTS - 1])
def test_too_few_products_are_one_sentence(case, count):
    with pytest.raises(InputError, match=f"the table has {count} products that sell but .* at least 16") as caught:
        HistoryEpisodes(case.take(np.arange(count)), SETTINGS)
    assert "\n" not in str(caught.value)


def test_just_enough_products_are_enough(case):
    few = HistoryEpisodes(case.take(np.arange(2 * FEWEST_AGENTS)), SETTINGS)
    assert np.isfinite(few.draw(0, 0).exogenous.demand).all()


def test_identity_follows_the_table(case, episodes):
    assert HistoryEpisodes(case, SETTINGS).identity() == episodes.identity()
    other = replace(case, population=replace(case.population, weight=2 * jnp.ones(case.n_agents)))
    assert HistoryEpisodes(other, SETTINGS).identity() != episodes.identity()


@pytest.mark.parametrize(
    "products, learners, sentence",
    [
        (5, 0, "the table has 5 products that sell but a buyer needs at least 16"),
        (40, 0, "`held_out_agents` is 0.15 of"),
    ],
)
def test_too_few_products_are_refused(products, learners, sentence):
    with pytest.raises(InputError, match=sentence):
        _check_enough(products, learners, BuyerTraining())
    _check_enough(16, 8, BuyerTraining())
