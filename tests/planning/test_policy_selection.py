"""A plan expects the trained buyer only where it earned more, and says so."""

import numpy as np
import pytest

import walras.planning.plan as plan_module
from walras.config import PlanSettings
from walras.errors import InputError
from walras.planning.plan import backtest_policies, select_policy
from walras.planning.problem import build_problem
from walras.policies.base_stock import PricedNewsvendor
from walras.policies.buyer import Buyer
from walras.population.generate import generate_panel
from walras.train.buyer_training import load_buyer

AGENTS, WEEKS = 40, 60


@pytest.fixture(scope="module")
def panel():
    return generate_panel(agents=AGENTS, weeks=WEEKS, seed=3)


def settings(**more):
    return PlanSettings(weeks=4, scenarios=2, paths=2, **more)


def test_the_shipped_buyer_can_be_asked_for(panel):
    chosen = settings(policy="buyer")
    case = build_problem(panel, chosen, select_policy(panel, chosen))
    assert isinstance(case.policy, Buyer) and case.policy.profile is not None
    assert case.chosen == {"name": "buyer"} and any("trained buyer, as asked" in note for note in case.notes)
    use = case.view.expected(np.zeros((4, 1)))
    assert np.isfinite(use).all() and (use > 0).all()
    priced = case.view.expected(np.full((4, 1), 2.0))
    assert priced.sum() < use.sum()


def test_small_tables_decide_nothing(panel):
    case = build_problem(panel, settings(), select_policy(panel, settings()))
    assert isinstance(case.policy, PricedNewsvendor) and case.chosen == {"name": "newsvendor"}
    assert any("too few to tell" in note for note in case.notes)


@pytest.mark.parametrize("low, name", [(1.01, "buyer"), (0.99, "newsvendor")])
def test_the_lower_end_of_the_interval_decides(panel, monkeypatch, low, name):
    facts = {"reward_ratio": 1.05, "low": low, "high": 1.1, "against": "base-stock", "products": 40, "weeks": 20}
    monkeypatch.setattr(plan_module, "MIN_PRODUCTS", 10)
    monkeypatch.setattr(plan_module, "backtest_policies", lambda *_: facts)
    case = build_problem(panel, settings(), select_policy(panel, settings()))
    assert case.chosen == {"name": name, **facts}
    assert any("1.05 times" in note and "best base-stock level" in note for note in case.notes)


def test_the_proof_knows_only_weeks_before_those_that_judge(panel):
    buyer = load_buyer().buyer
    found = backtest_policies(panel, buyer, settings())
    assert found["low"] <= found["reward_ratio"] <= found["high"] and found["against"] in plan_module.RIVALS
    assert found["weeks"] == WEEKS // 3 and 0 < found["products"] <= AGENTS


def test_a_file_that_is_no_buyer_is_refused_in_one_sentence(panel, tmp_path):
    wrong = tmp_path / "wrong.walras"
    wrong.write_text("no buyer")
    with pytest.raises(InputError, match="wrong.walras"):
        select_policy(panel, settings(policy="buyer", buyer=wrong))
