"""Own the proof that a table too small for a buyer is refused in words that its user knows.

CONTRACT: sentences name what is given to `train_buyer`, not what becomes of it inside.
"""

import pytest

from walras.errors import InputError
from walras.population.generate import generate_panel
from walras.train.buyer_episodes import _refuse_few
from walras.train.buyer_training import _history, train_buyer
from walras.train.settings import BuyerTraining


@pytest.mark.parametrize("weeks, held_out", [(18, 2), (24, 6), (130, 8), (12, 1)])
def test_a_short_table_is_held_out_from_as_far_as_it_goes(weeks, held_out):
    assert _history(generate_panel(agents=4, weeks=weeks), BuyerTraining()).holdout == held_out


def test_a_table_that_is_too_short_says_how_many_weeks_there_are(tmp_path):
    with pytest.raises(InputError, match="the table has 12 weeks but more than 16 are needed"):
        train_buyer(generate_panel(agents=4, weeks=12), BuyerTraining(), tmp_path)


@pytest.mark.parametrize(
    "products, learners, sentence",
    [
        (5, 0, "the table has 5 products that sell but a buyer needs at least 16"),
        (40, 0, "`held_out_agents` is 0.15 of"),
    ],
)
def test_too_few_products_are_refused(products, learners, sentence):
    with pytest.raises(InputError, match=sentence):
        _refuse_few(products, learners, BuyerTraining())
    _refuse_few(16, 8, BuyerTraining())
