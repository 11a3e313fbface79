"""The policy of the products is a setting: the newsvendor, the trained buyer, or the file of one."""

import numpy as np
import pytest

from walras.config import PlanSettings, checked
from walras.errors import InputError, SettingsError
from walras.planning.problem import build_problem, choose_policy
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.buyer import Buyer
from walras.population.generate import generate_panel


def settings(**more):
    return PlanSettings(weeks=4, scenarios=2, paths=2, **more)


def test_the_newsvendor_is_the_default():
    policy, words, facts = choose_policy(settings())
    assert isinstance(policy, PricedNewsvendor) and facts == {"name": "newsvendor"} and "newsvendor" in words


def test_the_shipped_buyer_reads_the_history():
    problem = build_problem(generate_panel(agents=40, weeks=60, seed=3), settings(policy="buyer"))
    assert isinstance(problem.policy, Buyer) and problem.policy.profile is not None
    assert problem.chosen == {"name": "buyer"} and any("the trained buyer" in note for note in problem.notes)
    use = problem.view.expected(np.zeros((4, 1)))
    assert np.isfinite(use).all() and (use > 0).all()
    assert problem.view.expected(np.full((4, 1), 2.0)).sum() < use.sum()


@pytest.mark.parametrize("name", ["policy", "buyer"])
def test_a_file_that_is_no_buyer_is_refused_in_one_sentence(name, tmp_path):
    wrong = tmp_path / "wrong.walras"
    wrong.write_text("no buyer")
    with pytest.raises(InputError, match="wrong.walras"):
        choose_policy(settings(**{name: str(wrong)}))


def test_a_name_that_is_no_policy_is_refused():
    with pytest.raises(InputError, match="newsvendr"):
        choose_policy(settings(policy="newsvendr"))


def test_the_former_contest_is_named_with_its_successor():
    with pytest.raises(SettingsError, match="`policy` is auto.*walras policy compare"):
        checked(PlanSettings, {"policy": "auto"}, "the flags")
