"""Ask whether names follow their agents, stay out of compilation and never lie where they cannot follow."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shops import AGENTS, Counted, happenings, order_up_to, shop

from walras.population.generate import generate_panel
from walras.population.population import NO_NAMES, AgentNames, population_from_panel
from walras.simulation.run import simulate

LABELS = [f"shop-{letter}" for letter in "abcdefg"]
PLAIN = shop()
NAMED = PLAIN.named(AgentNames(LABELS))


def test_agents_are_called_by_their_name_or_their_number():
    assert NAMED.name_of(2) == 'agent "shop-c"' and PLAIN.name_of(2) == "agent 2"
    assert PLAIN.named(AgentNames(["line\nbreak"] * AGENTS)).name_of(0) == 'agent "line\\nbreak"'


def test_names_come_from_the_table():
    panel = generate_panel(agents=5, weeks=30)
    assert population_from_panel(panel).name_of(3) == f'agent "{panel.agents[3]}"'


@pytest.mark.parametrize(
    "index", [np.array([4, 1]), jnp.array([4, 1]), slice(1, 5, 3), np.isin(np.arange(AGENTS), [1, 4])], ids=str
)
def test_names_follow_the_agents_that_are_taken(index):
    taken = NAMED.take(index)
    np.testing.assert_array_equal(taken.use, np.asarray(NAMED.use)[index])
    np.testing.assert_array_equal(taken.names.labels, np.asarray(LABELS)[index])
    assert taken.n_agents == 2 and PLAIN.take(index).name_of(0) == "agent 0"


def test_names_that_do_not_fit_are_not_used():
    cut = jax.tree.map(lambda leaf: leaf[:3], NAMED)
    assert cut.name_of(1) == "agent 1"


def test_inside_a_transform_agents_have_numbers():
    said = []

    def use(population, index):
        taken = population.take(index)
        said.extend([population.name_of(1), taken.name_of(1)])
        assert taken.names is NO_NAMES
        return taken.use

    eqx.filter_jit(use)(NAMED, jnp.array([3, 2]))
    assert said == ["agent 1", "agent 1"]


def test_all_names_are_equal_to_any_cache_but_not_to_other_things():
    assert AgentNames(LABELS) == NO_NAMES and hash(AgentNames(LABELS)) == hash(NO_NAMES)
    assert AgentNames(LABELS) != tuple(LABELS) and NO_NAMES != ()
    assert jax.tree.structure(NAMED) == jax.tree.structure(PLAIN)
    both = jax.tree.map(lambda left, right: left + right, NAMED, PLAIN)
    np.testing.assert_array_equal(both.demand_scale, 2 * PLAIN.demand_scale)
    assert repr(AgentNames(LABELS)) == "AgentNames(7)" and repr(NO_NAMES) == "AgentNames(none)"


def test_names_never_compile_anything_anew():
    paths = happenings(PLAIN)
    policy = Counted(order_up_to(PLAIN))
    simulate(PLAIN, paths, policy)
    before = Counted.calls
    for labels in (LABELS, LABELS[::-1]):
        simulate(PLAIN.named(AgentNames(labels)), paths, policy)
    assert Counted.calls == before
    simulate(shop(agents=AGENTS - 1), happenings(shop(agents=AGENTS - 1)), Counted(order_up_to(shop(agents=6))))
    assert Counted.calls > before  # a new size does: the count can move
