"""Measure the package, and hold it to its budget.

`python tools/house.py` prints a table, `--plan` adds what a small plan runs through (about a minute), `--json` prints
everything as one object, and `--check` fails with one sentence per violation of `tools/budget.toml`.
"""

import argparse
import ast
import json
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from source import (
    DEFINITION,
    ROOT,
    Module,
    code_lines,
    functions,
    imported,
    public_definitions,
    read_modules,
    unreachable,
)

BUDGET = ROOT / "tools" / "budget.toml"
ALLOWED = ROOT / "tools" / "vulture_allow.py"
SHOWN = 5
"""Most offenders that one sentence names."""


def measure(modules: dict[str, Module], plan: bool = False) -> dict:
    """Measure everything; what a plan runs through only on request."""
    measured = {
        **sizes(modules),
        "unreachable_modules": unreachable(modules),
        "repeated_names": repeated_names(modules),
        "readme_imports": readme_imports(modules),
        "undocumented": len(undocumented(modules)),
        "own_docstrings": len(own_docstrings(modules)),
    }
    measured["unreachable_lines"] = sum(modules[name].n_lines for name in measured["unreachable_modules"])
    if plan:
        from plan_trace import trace_plan

        measured |= trace_plan()
    return measured


def sizes(modules: dict[str, Module]) -> dict[str, int]:
    """Count lines and files, and find the longest file and function."""
    return {
        "lines": sum(module.n_lines for module in modules.values()),
        "files": len(modules),
        "code_lines": sum(len(code_lines(module.text)) for module in modules.values()),
        "longest_file": max(module.n_lines for module in modules.values()),
        "longest_function": max(function_lengths(modules).values(), default=0),
    }


def function_lengths(modules: dict[str, Module]) -> dict[str, int]:
    """Count the lines of every function, docstring included and decorators left out."""
    return {
        f"{module.shown}:{name}": node.end_lineno - node.lineno + 1
        for module in modules.values()
        for name, node in functions(module.tree)
    }


def repeated_names(modules: dict[str, Module]) -> dict[str, list[str]]:
    """Map each public top-level class or function that several modules define to these modules."""
    places = defaultdict(list)
    for name, module in modules.items():
        defined = {node.name for node in module.tree.body if isinstance(node, DEFINITION)}
        for definition in defined:
            if not definition.startswith("_"):
                places[definition].append(name)
    return {name: where for name, where in sorted(places.items()) if len(where) > 1}


def readme_imports(modules: dict[str, Module]) -> list[str]:
    """List the modules of the package that a user has to import for the README's Python examples."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    named = set()
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom | ast.Import):
                named.add(_deepest(imported(ast.Module([node], []), modules)))
    return sorted(named - {""})


def _deepest(names: set[str]) -> str:
    """Choose the innermost module among a module and its packages."""
    return max(names, key=len, default="")


def undocumented(modules: dict[str, Module]) -> list[str]:
    """List the public classes, functions and methods without a docstring."""
    return [
        f"{module.shown}:{name}"
        for module in modules.values()
        for name, node in public_definitions(module.tree)
        if not ast.get_docstring(node)
    ]


def own_docstrings(modules: dict[str, Module]) -> list[str]:
    """List the modules whose docstring begins with `Own` instead of saying what the module does."""
    return [module.shown for module in modules.values() if re.match(r"Own\b", ast.get_docstring(module.tree) or "")]


def violations(modules: dict[str, Module], budget: dict) -> Iterator[str]:
    """Say in one sentence each where the package breaks its budget."""
    measured = sizes(modules)
    for name in ("lines", "files", "code_lines"):
        limit = limit_of(budget, name)
        if measured[name] > limit:
            kept = name.replace("_", " ")
            yield f"the package has {measured[name]:,} {kept}, {measured[name] - limit:,} over its budget of {limit:,}"
    files = {module.shown: module.n_lines for module in modules.values()}
    yield from too_long(files, "file", limit_of(budget, "longest_file"), budget)
    yield from too_long(function_lengths(modules), "function", limit_of(budget, "longest_function"), budget)
    yield from too_many(
        undocumented(modules), "public definitions without a docstring", limit_of(budget, "undocumented")
    )
    own = own_docstrings(modules)
    yield from too_many(own, "module docstrings that begin with `Own`", limit_of(budget, "own_docstrings"))
    yield from new_names(repeated_names(modules), budget)
    yield from stale_allowances(modules)


def limit_of(budget: dict, name: str) -> int:
    """Add the rises of a budget to where it started; a rise without a reason is refused."""
    entry = budget[name]
    rises = entry.get("rises", [])
    if any(not str(rise.get("because", "")).strip() for rise in rises):
        raise SystemExit(f"tools/budget.toml: every rise of `{name}` needs a reason (`because`)")
    return entry["start"] + sum(rise["by"] for rise in rises)


def too_long(lengths: dict[str, int], kind: str, limit: int, budget: dict) -> Iterator[str]:
    """Name what is longer than the limit, or than its own allowance."""
    allowed = budget.get(f"longer_{kind}s", {})
    for name, length in lengths.items():
        if length > allowed.get(name, limit):
            yield f"the {kind} {name} has {length} lines, and {allowed.get(name, limit)} are allowed"


def too_many(offenders: list[str], what: str, limit: int) -> Iterator[str]:
    """Name the first offenders where there are more than the budget still bears with."""
    if len(offenders) > limit:
        more = ", ..." if len(offenders) > SHOWN else ""
        yield f"there are {len(offenders)} {what}, and {limit} are allowed: {', '.join(offenders[:SHOWN])}{more}"


def new_names(repeated: dict[str, list[str]], budget: dict) -> Iterator[str]:
    """Name the definitions that share a name without an allowance, or in more modules than it covers."""
    fine, old = budget["same_name"]["interface"], budget["same_name"]["to_be_renamed"]
    for name, places in repeated.items():
        if name not in fine and len(places) > old.get(name, 1):
            yield f"`{name}` is one name for several things, defined in {', '.join(places)}"


def stale_allowances(modules: dict[str, Module]) -> Iterator[str]:
    """Name what the list of allowed unused names still holds though the package no longer has it."""
    words = {word for module in modules.values() for word in re.findall(r"\w+", module.text)}
    for node in ast.parse(ALLOWED.read_text()).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Name) and node.value.id not in words:
            yield f"tools/vulture_allow.py lists `{node.value.id}`, which the package no longer has"


def table(measured: dict) -> str:
    """Lay the measurements out as lines of text."""
    rows = [(name.replace("_", " "), value) for name, value in measured.items()]
    lines = [f"{name:<22}{value if isinstance(value, int) else len(value):>8,}" for name, value in rows]
    lines += ["", "reached from no command and no public name (and what does reach it):"]
    lines += [f"  {name}  ({', '.join(users) or 'nobody'})" for name, users in measured["unreachable_modules"].items()]
    lines += ["", "public names defined in several modules:"]
    lines += [f"  {name}: {', '.join(where)}" for name, where in measured["repeated_names"].items()]
    lines += ["", "imports of the README's Python examples:"]
    lines += [f"  {name}" for name in measured["readme_imports"]]
    return "\n".join(lines)


def check(modules: dict[str, Module], path: Path = BUDGET) -> int:
    """Print one sentence per violation and return the exit code."""
    found = list(violations(modules, tomllib.loads(path.read_text())))
    for sentence in found:
        print(f"house: {sentence}", file=sys.stderr)
    return 1 if found else 0


def main() -> int:
    """Measure or check, as the flags say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="also count what a plan of 40 products runs through")
    parser.add_argument("--json", action="store_true", help="print one object, with the plan")
    parser.add_argument("--check", action="store_true", help="only check the budget")
    flags = parser.parse_args()
    modules = read_modules()
    if flags.check:
        return check(modules)
    measured = measure(modules, flags.plan or flags.json)
    print(json.dumps(measured, indent=1) if flags.json else table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
