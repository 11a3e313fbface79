"""Functions stay short and arguments come in one order. The rest of the shape is held by test_house."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "walras"
FILES = sorted(SOURCE.rglob("*.py"))
SHORT, LONG = 12, 45
ORDER = ("population", "exogenous", "policy", "state", "shadow_prices", "engine", "record", "key")
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def disordered(source: str) -> list[str]:
    """Name the functions whose arguments break the one order of the package."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, FUNCTION):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs) if a.arg in ORDER]
            if names != sorted(names, key=ORDER.index):
                found.append(f"{node.name}({', '.join(names)})")
    return found


def lengths(source: str) -> list[int]:
    """Count the lines of every function's body, without its docstring."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, FUNCTION):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            found.append(node.end_lineno - body[0].lineno + 1 if body else 0)
    return found


def test_arguments_come_in_one_order():
    assert {str(path): names for path in FILES if (names := disordered(path.read_text()))} == {}


def test_a_planted_disorder_is_found():
    assert disordered("def f(policy, population): pass") == ["f(policy, population)"]
    assert disordered("def f(*, record, state): pass") == ["f(record, state)"]
    assert disordered("def f(population, other, shadow_prices, *, engine): pass") == []


def test_functions_stay_short():
    counts = [count for path in FILES for count in lengths(path.read_text())]
    assert sum(count < SHORT for count in counts) >= 0.5 * len(counts)
    assert sum(count < LONG for count in counts) >= 0.9 * len(counts)


def test_lengths_count_what_a_reader_reads():
    assert lengths('def f():\n    """Doc."""\n    a = 1\n    return a\n') == [2]
    assert lengths("def f():\n" + "    a = 1\n" * 60) == [60]
