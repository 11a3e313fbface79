"""`check_policy`: sound policies pass all checks, planted faults are caught."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from shops import happenings, order_up_to, shop

from walras.clipping import positive_part
from walras.errors import InputError
from walras.policies.base import Policy, PolicyMemory
from walras.policies.user_policies import CallbackPolicy, FunctionPolicy
from walras.simulation import policy_check as module
from walras.simulation.policy_check import QUESTIONS, check_policy

PEOPLE = shop()
PATHS = happenings(PEOPLE)


class Reader(Policy):
    """Order what `read` says; honest: last week's demand."""

    def begin(self, population):
        return PolicyMemory(jnp.zeros(population.n_agents))

    def read(self, memory, outlooks, demand):
        return jnp.concatenate([memory[None], demand[:-1]]), demand[-1]

    def encode(self, outlook, shadow_prices):
        return outlook.read

    def decide(self, encoded, observation, shadow_prices):
        return positive_part(encoded + 10.0 - 0.5 * observation.position)


class SameWeek(Reader):
    def read(self, memory, outlooks, demand):
        return demand, demand[-1]


class Prophet(Reader):
    def read(self, memory, outlooks, demand):
        return jnp.flip(outlooks.sale_price, 0), memory


class Forgetful(Reader):
    def read(self, memory, outlooks, demand):
        return super().read(memory, outlooks, demand)[0], memory


def lookup(seen):
    return np.asarray(order_up_to(PEOPLE).level)[seen.agent]


RANDOM = np.random.default_rng(0)
CHEATERS = {
    "demand of the same week": (SameWeek(), "_independent_of_the_future", "when demands of weeks from 0 on"),
    "prices to come": (Prophet(), "_independent_of_the_future", "when sale prices of weeks after"),
    "a memory that stays": (Forgetful(), "_the_same_week_by_week", "run week by week"),
    "the place in the block": (
        FunctionPolicy(lambda o, s: jnp.arange(len(o.position)) * 1.0),
        "_the_same_when_agents_change_places",
        "when agents change places",
    ),
    "the others": (
        FunctionPolicy(lambda o, s: jnp.full_like(o.position, o.position.mean())),
        "_the_same_without_the_others",
        "when every second agent is left out",
    ),
    "chance": (CallbackPolicy(lambda s: RANDOM.uniform(size=len(s.agent))), "_the_same_when_repeated", "when repeated"),
    "less than nothing": (
        FunctionPolicy(lambda o, s: o.position - 50.0),
        "_finite_and_not_negative",
        "in week 0 for agent 0 .*must be finite and 0 or more",
    ),
    "no number": (FunctionPolicy(lambda o, s: o.position / 0.0 * 0.0), "_finite_and_not_negative", "orders nan"),
    "a wrong shape": (FunctionPolicy(lambda o, s: jnp.ones(3)), "_finite_and_not_negative", r"has shape \(3,\)"),
}


@pytest.mark.parametrize("name", CHEATERS)
def test_planted_cheaters_are_caught(name):
    policy, question, words = CHEATERS[name]
    found = check_policy(PEOPLE, PATHS, policy, questions=[getattr(module, question)])
    assert not found.ok and len(found.findings) == 1
    found_words = found.findings[0]
    assert re.search(words, found_words), found_words
    assert str(found) == f"- {found_words}"


@pytest.mark.parametrize("policy", [Reader(), CallbackPolicy(lookup, past=1)], ids=["module", "table"])
def test_honest_policies_keep_all_promises(policy):
    found = check_policy(PEOPLE, PATHS, policy)
    assert found.ok and found.findings == () and len(found.checks) == len(QUESTIONS)
    assert "passed all 7 checks" in str(found) and "independent of the future" in str(found)


def test_what_cannot_be_simulated_is_asked_nothing_more():
    found = check_policy(PEOPLE, PATHS, FunctionPolicy(lambda o, s: jnp.ones(3)))
    assert len(found.checks) == len(found.findings) == 1


def test_scenarios_and_single_weeks_are_refused():
    with pytest.raises(InputError, match="has 3 scenarios"):
        check_policy(PEOPLE, happenings(PEOPLE, scenarios=3), Reader())
    with pytest.raises(InputError, match="1 weeks"):
        check_policy(PEOPLE, happenings(PEOPLE, weeks=1), Reader())
