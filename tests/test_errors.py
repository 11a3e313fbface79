"""Sentences for users: short values are quoted whole, lists are cut, problems are raised or collected."""

import pytest

from walras.errors import CollectAll, FailFast, InputError, join, one_line, plural, quote, shape_mismatch


def test_a_cell_is_quoted_as_it_is():
    assert quote("red shoes") == "red shoes" and quote(1.5) == "1.5" and quote(None) == "empty"
    assert quote("a\nb\u00e9") == "a b\\xe9"


@pytest.mark.parametrize("length, shown", [(39, 39), (40, 40), (41, 40), (400, 40)])
def test_only_long_cells_are_cut(length, shown):
    text = quote("x" * length)
    assert len(text) == shown and text.endswith("...") == (length > 40)


def test_lists_name_the_first_and_count_the_rest():
    assert join(["a", None, 3]) == "a, empty, 3"
    assert join(range(8)) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert join(range(9)) == "0, 1, 2, 3, 4, 5, 6, 7 and 1 more"


def test_numbers_go_with_their_nouns():
    assert [plural(n, "week") for n in (0, 1, 2, 1500)] == ["0 weeks", "1 week", "2 weeks", "1,500 weeks"]
    assert plural(2, "category", "categories") == "2 categories"


def test_problems_are_raised_or_collected():
    with pytest.raises(InputError, match="^row 3 is wrong$"):
        FailFast().problem("row 3\n is wrong")
    findings = CollectAll()
    findings.problem("row 3\n is wrong")
    findings.problem("row 4 is wrong")
    assert findings.problems == ["row 3 is wrong", "row 4 is wrong"]


def test_a_shape_that_does_not_fit_is_one_line():
    assert str(shape_mismatch("prices", (3,), "(4,)", "give one a week")) == (
        "`prices` has shape (3,) but needs (4,); give one a week"
    )
    assert one_line(" a \n b\t c ") == "a b c"
