"""The package keeps to its budget, and the check can fail (tools/house.py on the package and on planted modules)."""

import sys
import tomllib
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def house():
    """Import the script as a module, with its neighbours."""
    sys.path.insert(0, str(TOOLS))
    try:
        import house
    finally:
        sys.path.remove(str(TOOLS))
    return house


@pytest.fixture(scope="module")
def budget():
    """Read the budget as it stands."""
    return tomllib.loads((TOOLS / "budget.toml").read_text())


def planted(house, folder: Path, text: str) -> dict:
    """Read a package of two files: the given one, and a class that is called `Case`."""
    (folder / "walras").mkdir()
    (folder / "walras" / "a.py").write_text(text)
    (folder / "walras" / "b.py").write_text('"""B."""\n\n\nclass Case:\n    """A case."""\n')
    return house.read_modules(folder / "walras")


def said(house, monkeypatch, folder: Path, text: str, budget: dict) -> list[str]:
    """List the violations of a planted package, paths relative to it."""
    import source

    monkeypatch.setattr(source, "SOURCE", folder / "walras")
    monkeypatch.setattr(house, "stale_allowances", lambda modules: [])
    return list(house.violations(planted(house, folder, text), budget))


def test_the_package_keeps_to_its_budget(house, budget):
    assert list(house.violations(house.read_modules(), budget)) == []


LONG = '"""A."""\n\n\ndef f():\n    """F."""\n' + "    x = 1\n" * 60


@pytest.mark.parametrize(
    "text, complaint",
    [
        ('"""A."""\n' + "x = 1\n" * 500, "the file a.py has 501 lines, and 500 are allowed"),
        (LONG, "the function a.py:f has 62 lines, and 60 are allowed"),
        ('"""A."""\n\n\ndef f():\n    pass\n', "there are 1 public definitions without a docstring"),
        ('"""Own A."""\n', "there are 1 module docstrings that begin with `Own`"),
        ('"""A."""\n\n\nclass Case:\n    """Another."""\n', "`Case` is one name for several things"),
    ],
)
def test_a_planted_violation_is_found(house, budget, tmp_path, monkeypatch, text, complaint):
    strict = {**budget, "own_docstrings": {"start": 0}, "same_name": {"interface": {}, "to_be_renamed": {}}}
    (sentence,) = said(house, monkeypatch, tmp_path, text, strict)
    assert complaint in sentence


def test_more_lines_than_the_budget_are_found(house, budget, tmp_path, monkeypatch):
    small = {**budget, "lines": {"start": 2, "rises": [{"by": 1, "because": "a reason"}]}}
    assert said(house, monkeypatch, tmp_path, '"""A."""\n', small) == [
        "the package has 6 lines, 3 over its budget of 3"
    ]


def test_a_rise_without_a_reason_is_refused(house):
    with pytest.raises(SystemExit, match="every rise of `lines` needs a reason"):
        house.limit_of({"lines": {"start": 2, "rises": [{"by": 1}]}}, "lines")


def test_lazy_imports_count_and_those_of_type_checkers_do_not(house):
    import ast

    text = "def f():\n    from walras import a\nx = 'walras.b:run'\nif TYPE_CHECKING:\n    import walras.c\n"
    assert house.imported(ast.parse(text), {"walras", "walras.a", "walras.b", "walras.c"}) == {
        "walras",
        "walras.a",
        "walras.b",
    }


def test_only_code_is_counted_as_code(house):
    assert house.code_lines('"""A."""\n\n# why\nx = (\n    1\n)\n\n\ndef f():\n    """F."""\n    return x\n') == {
        4,
        5,
        6,
        9,
        11,
    }
