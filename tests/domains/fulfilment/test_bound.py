"""Ask whether the bound in hindsight is the linear program's, and whether nothing earns more."""

import numpy as np
import pytest

from walras.domains.fulfilment import lp_bound
from walras.domains.fulfilment.generate import generate_instance
from walras.domains.fulfilment.instance import make_instance
from walras.domains.fulfilment.optimise import clairvoyant_bound
from walras.domains.fulfilment.policies import Greedy, make_policy
from walras.domains.fulfilment.run import fulfil
from walras.errors import InputError


def test_a_case_that_is_solved_by_hand():
    # Greedy sends the first order near and leaves the second with 0.1; knowing both earns 0.9 + 1.0.
    instance = make_instance([0, 0], [0, 1], [[1.0, 0.9], [1.0, 0.1]], [[1, 1]], [1, 1])
    assert fulfil(instance, Greedy()).reward == pytest.approx(1.1, abs=1e-4)
    assert clairvoyant_bound(instance) == pytest.approx(1.9, abs=1e-4)


def test_nothing_earns_more_and_plenty_earns_all(monkeypatch):
    law = {"orders": 200, "products": 20, "centres": 4, "most_units": 2, "refills": 1}
    tight = generate_instance(**law, capacity_share=0.5)
    limit = clairvoyant_bound(tight)
    for name in ("greedy", "dual"):
        assert fulfil(tight, make_policy(tight, name)).reward <= limit + 1e-6
    plenty = generate_instance(**law, stock_share=50, capacity_share=50)
    best = (plenty.reward.max(1)[plenty.destination] * plenty.quantity).sum() / 65536
    assert clairvoyant_bound(plenty) == pytest.approx(best) and limit < 0.8 * best
    monkeypatch.setattr(lp_bound, "MOST_VARIABLES", 10)
    with pytest.raises(InputError, match="variables but at most 10"):
        clairvoyant_bound(tight)
    assert np.isfinite(limit)
