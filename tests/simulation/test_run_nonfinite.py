"""The first week and agent of a NaN are named, from traces of ranges of agents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shops import AGENTS, SCENARIOS, happenings, order_up_to, prices, shop, start

from walras.errors import NotFiniteError
from walras.population.population import AgentNames
from walras.simulation import run as run_module
from walras.simulation.record import Record
from walras.simulation.run import agent_ranges, raise_if_nonfinite, simulate

PEOPLE = shop().named(AgentNames([f"shop-{letter}" for letter in "abcdefg"]))


def traces(scenarios: int | None = None):
    run = simulate(
        PEOPLE,
        happenings(PEOPLE, scenarios=scenarios),
        order_up_to(PEOPLE),
        initial=start(PEOPLE),
        shadow_prices=prices(PEOPLE),
        record=Record.traces(),
    )
    return jax.tree.map(np.array, run.agents)


def judge(seen, asked: list | None = None, total: float = np.nan) -> None:
    """Pass traces on range by range, agents third from the end of `utilization` and last elsewhere."""

    def retrace(first, last):
        if asked is not None:
            asked.append((first, last))
        cut = jax.tree.map(lambda leaf: leaf[..., first:last], seen)
        object.__setattr__(cut, "utilization", seen.utilization[..., first:last, :])
        return cut

    reward = seen.reward.sum(-1)
    raise_if_nonfinite(PEOPLE, reward, np.full(reward.shape[:-1], total), retrace)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch):
    monkeypatch.setattr(run_module, "TRACED_AGENTS", 3)
    monkeypatch.setattr(run_module, "FEWEST_TRACED", 2)


def test_ranges_cover_everybody_and_have_one_length():
    assert list(agent_ranges(7)) == [(0, 3), (3, 6), (4, 7)]
    assert list(agent_ranges(7, 3)) == [(0, 2), (2, 4), (4, 6), (5, 7)]
    assert list(agent_ranges(2)) == [(0, 2)]
    assert list(agent_ranges(6)) == [(0, 3), (3, 6)]


def test_nobody_is_traced_while_all_is_well():
    asked = []
    judge(traces(), asked, total=0.0)
    assert asked == []


@pytest.mark.parametrize("scenarios", [None, SCENARIOS])
def test_the_policy_is_blamed_for_the_first_order(scenarios):
    seen = traces(scenarios)
    scenario = () if scenarios is None else (1,)
    seen.orders[(*scenario, 5, 6)] = np.nan
    seen.orders[(*scenario, 4, 2)] = np.inf
    seen.orders[(*scenario, 4, 5)] = np.nan
    seen.reward[(*scenario, 4, 2)] = np.nan
    words = "in week 4 for" if scenarios is None else "in week 4 of scenario 1 for"
    said = rf'the policy\'s order is not a finite number {words} agent "shop-c" \(counted from 0\); check the policy'
    asked = []
    with pytest.raises(NotFiniteError, match=said):
        judge(seen, asked)
    assert len(asked) == (3 if scenarios is None else 4)


def test_the_reward_is_blamed_where_orders_came_later():
    seen = traces()
    seen.reward[2, 6] = np.nan
    seen.orders[3, 0] = np.nan
    with pytest.raises(NotFiniteError, match=r'the reward is not a finite number in week 2 for agent "shop-g" \(count'):
        judge(seen)


def test_a_total_that_overflows_without_a_bad_agent_is_still_refused():
    with pytest.raises(NotFiniteError, match="the total reward is not a finite number; check the prices, costs"):
        judge(traces())


def test_inside_a_transform_nothing_is_asked():
    @jax.jit
    def inside(reward):
        raise_if_nonfinite(PEOPLE, reward, reward.sum(), lambda first, last: pytest.fail("asked"))
        return reward

    inside(jnp.full(AGENTS, jnp.nan))
