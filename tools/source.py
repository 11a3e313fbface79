"""Read the package as text: its files, its definitions, and which module imports which. Nothing is imported."""

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "walras"
SOURCE = ROOT / "src" / PACKAGE
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITION = (*FUNCTION, ast.ClassDef)
USERS = ("studies", "examples", "benchmarks", "tests")
"""Folders of a checkout whose files use the package."""
DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w+)*(:\w+)?")
NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        """The text of the file."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree of the file."""
        return ast.parse(self.text)

    @property
    def shown(self) -> str:
        """The path as it appears in the budget and in messages, relative to the package."""
        return self.path.relative_to(SOURCE).as_posix()

    @property
    def n_lines(self) -> int:
        """Number of lines, with docstrings and blank lines."""
        return len(self.text.splitlines())


def read_modules(folder: Path = SOURCE) -> dict[str, Module]:
    """List the modules of the package by their dotted names."""
    modules = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, path)
    return modules


def docstring_lines(tree: ast.AST) -> set[int]:
    """Number the lines of every string that stands alone as a statement."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, node.end_lineno + 1)
    }


def code_lines(text: str) -> set[int]:
    """Number the lines that hold code: no docstring, no blank line, no line with only a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    spans = [(token.start[0], token.end[0]) for token in tokens if token.type not in NO_CODE]
    return {line for first, last in spans for line in range(first, last + 1)} - docstring_lines(ast.parse(text))


def public_definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield public classes, functions and methods of a module or class body, with their qualified names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, DEFINITION) and not child.name.startswith("_"):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public_definitions(child, f"{prefix}{child.name}.")


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield every function and method, nested ones included, with its qualified name."""
    for child in ast.iter_child_nodes(node):
        name = f"{prefix}{child.name}" if isinstance(child, DEFINITION) else prefix.rstrip(".")
        if isinstance(child, FUNCTION):
            yield name, child
        yield from functions(child, f"{name}." if name else "")


def imported(tree: ast.AST, known: Iterable[str], within: str = "", is_package: bool = False) -> set[str]:
    """Name the modules among `known` that a syntax tree imports, also inside functions and by strings.

    Imports for type checkers only are left out. A string counts where all of it is a dotted name below the package
    (`walras.cli.plan:plan`); in a package's `__init__` it may leave out the package (`planning.api`).
    """
    known = set(known)
    named: set[str] = set()
    for node in _without_type_checking(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, within, is_package)
            named |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named |= _named_by_string(node.value, within, is_package)
    return {module for name in named for module in _with_parents(name, known)}


def _without_type_checking(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without the branches that only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (inner for other in child.orelse for inner in ast.walk(other))
            continue
        yield child
        yield from _without_type_checking(child)


def _base(node: ast.ImportFrom, within: str, is_package: bool) -> str:
    """Resolve the module that `from ... import` names, also where it is relative."""
    if not node.level:
        return node.module or ""
    parents = within.split(".")
    parents = parents[: len(parents) - node.level + is_package]
    return ".".join([*parents, node.module] if node.module else parents)


def _named_by_string(text: str, within: str, is_package: bool) -> set[str]:
    """Read a string that may name a module to be imported later; in a package's `__init__` relative to it."""
    text = text.lstrip(".") if within == PACKAGE else text
    if not DOTTED.fullmatch(text) and not (is_package and text.isidentifier()):
        return set()
    name = text.replace(":", ".")
    if name.split(".")[0] == PACKAGE:
        return {name}
    return {f"{within}.{name}"} if is_package or within == PACKAGE else set()


def _with_parents(name: str, known: set[str]) -> list[str]:
    """List the known modules among a dotted name and its parents: importing a module imports its packages."""
    parts = name.split(".")
    return [module for n in range(1, len(parts) + 1) if (module := ".".join(parts[:n])) in known]


def entry_point(root: Path = ROOT) -> tuple[str, str]:
    """Read the module and the function that the console script runs."""
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    module, function = scripts[PACKAGE].split(":")
    return module, function


def unreachable(modules: dict[str, Module]) -> dict[str, list[str]]:
    """Map each module that no command and no public name reaches to the folders of the checkout that reach it."""
    imports = {
        name: imported(module.tree, modules, name, module.path.name == "__init__.py")
        for name, module in modules.items()
    }
    starts = [PACKAGE, entry_point()[0], *(name for name in modules if name.endswith(".__main__"))]
    reached = _closure({module for name in starts for module in _with_parents(name, set(modules))}, imports)
    users = {folder: _closure(_imports_of(ROOT / folder, modules), imports) for folder in USERS}
    return {name: [folder for folder, used in users.items() if name in used] for name in modules if name not in reached}


def _closure(starts: set[str], imports: dict[str, set[str]]) -> set[str]:
    """Follow the imports from some modules as far as they lead."""
    reached: set[str] = set()
    waiting = list(starts)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += imports[name]
    return reached


def _imports_of(folder: Path, modules: dict[str, Module]) -> set[str]:
    """Name the modules of the package that the files of a folder import."""
    return {name for path in folder.rglob("*.py") for name in imported(ast.parse(path.read_text()), modules)}
