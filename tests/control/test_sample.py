"""Ask whether a drawn sample stands for all: unbiased totals, large agents surely, names and parts in step."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from shops import happenings, order_up_to, shop, start

from walras.control.sample import draw_agents, inclusion_probabilities
from walras.population.names import AgentNames

PEOPLE = shop(agents=60).named(AgentNames([f"shop-{number}" for number in range(60)]))


def test_inclusion_probabilities_add_up_and_take_the_largest_surely():
    size = np.concatenate([np.ones(90), np.full(10, 100.0)])
    chance = inclusion_probabilities(size, 20)
    assert chance.sum() == pytest.approx(20, abs=0.5) and (chance[90:] == 1).all() and (chance > 0).all()


def test_a_small_population_is_taken_whole():
    sample = draw_agents(PEOPLE, 60)
    assert sample.people(PEOPLE) is PEOPLE
    assert sample.along(PEOPLE.use) is PEOPLE.use


def test_all_parts_are_cut_in_step_and_names_follow():
    sample = draw_agents(PEOPLE, 20)
    drawn, chosen = sample.people(PEOPLE), sample.chosen
    assert len(chosen) == pytest.approx(20, abs=1) and (np.diff(chosen) > 0).all()
    assert drawn.name_of(3) == PEOPLE.name_of(int(chosen[3]))
    paths, policy, state = happenings(PEOPLE), order_up_to(PEOPLE), start(PEOPLE)
    np.testing.assert_array_equal(sample.along(paths).arrivals.weeks, np.asarray(paths.arrivals.weeks)[:, chosen])
    np.testing.assert_array_equal(sample.along(policy).level, np.asarray(policy.level)[chosen])
    np.testing.assert_array_equal(sample.along(state).pipeline, np.asarray(state.pipeline)[:, chosen])
    np.testing.assert_array_equal(drawn.use, np.asarray(PEOPLE.use)[chosen])


def test_weighted_totals_are_unbiased_over_offsets():
    offsets = (np.arange(200) + 0.5) / 200
    totals, counts = [], []
    for offset in offsets:
        people = draw_agents(PEOPLE, 20, float(offset)).people(PEOPLE)
        totals.append(float((people.weight * people.unit_margin).sum()))
        counts.append(float(people.weight.sum()))
    assert np.mean(totals) == pytest.approx(float(PEOPLE.unit_margin.sum()), rel=0.01)
    assert np.mean(counts) == pytest.approx(60, rel=0.01)


def test_agents_that_stand_for_many_are_drawn_more_often():
    heavy = eqx.tree_at(lambda p: p.weight, PEOPLE, jnp.ones(60).at[7].set(1000.0))
    for offset in (0.1, 0.5, 0.9):
        sample = draw_agents(heavy, 20, offset)
        at = int(np.flatnonzero(sample.chosen == 7)[0])
        assert float(sample.people(heavy).weight[at]) == 1000.0
