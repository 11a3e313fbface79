"""Own the proof that everything public says what it is, and every module how it may be touched.

EDGE: reads the source as text; nothing is imported.
"""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "walras"
FILES = sorted(SOURCE.rglob("*.py"))
TOUCH = ("LAW", "CONTRACT", "OPEN", "FREE", "EDGE")
DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def undocumented(source: str) -> list[str]:
    """Name the public classes, functions and methods that have no docstring, and the module if it has none."""
    tree = ast.parse(source)
    missing = [] if not tree.body or ast.get_docstring(tree) else ["the module"]
    return missing + [name for name, node in public(tree) if not ast.get_docstring(node)]


def public(node: ast.AST, prefix: str = "") -> list[tuple[str, ast.AST]]:
    """List public definitions in a module or class body, not those inside functions."""
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, DEFINITION) and not child.name.startswith("_"):
            found.append((prefix + child.name, child))
            if isinstance(child, ast.ClassDef):
                found += public(child, f"{prefix}{child.name}.")
    return found


def untouchable(source: str) -> list[str]:
    """Complain where a module's docstring does not say on its second line how the module may be touched."""
    tree = ast.parse(source)
    if not tree.body:
        return []
    lines = [line for line in (ast.get_docstring(tree) or "").splitlines() if line.strip()]
    if len(lines) > 1 and re.match(rf"({'|'.join(TOUCH)})(:| )", lines[1]):
        return []
    return [f"the second line is {lines[1:2]}, and must begin with one of {', '.join(TOUCH)}"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_everything_public_is_documented(path):
    assert undocumented(path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_says_how_it_may_be_touched(path):
    assert untouchable(path.read_text()) == []


def test_planted_silence_is_found():
    assert undocumented("x = 1") == ["the module"]
    assert undocumented('"""M."""\ndef f(): pass\ndef _g(): pass') == ["f"]
    assert undocumented('"""M."""\nclass C:\n    """C."""\n    def m(self): pass') == ["C.m"]
    assert undocumented("") == []


def test_a_planted_docstring_without_its_second_line_is_found():
    assert untouchable('"""Own something."""') != []
    assert untouchable('"""Own something.\n\nLAWLESS: no.\n"""') != []
    assert untouchable('"""Own something.\n\nOPEN: add a file beside it.\n"""') == []
