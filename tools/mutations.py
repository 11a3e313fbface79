"""Find the changes of one operator, number, condition or returned value that a line of the package allows."""

import ast
import difflib
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from source import FUNCTION, SOURCE

SILENT = {"print", "print_words", "stage", "say", "warn", "info", "debug", "warning", "log"}
"""Calls that only speak: their arguments are not changed."""

COMPARE = {
    ast.Lt: ("<", ">="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", "<="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
ARITHMETIC = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*")}
LOGIC = {ast.And: ("and", "or"), ast.Or: ("or", "and")}
EXTREMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum"}
NUMBER = re.compile(r"\b(float|int|Float|Int|Array|ndarray)\b")
TEXT = re.compile(r"\b(tuple|list|dict|str|None)\b")


@dataclass(frozen=True)
class Change:
    """One replacement of bytes in one file."""

    path: str
    line: int
    start: int
    end: int
    new: str

    @property
    def room(self) -> str:
        """The folder, or the file, right below the package."""
        return Path(self.path).parts[0].removesuffix(".py")

    def apply(self, text: bytes) -> bytes:
        """Return the file's text with the change in it."""
        return text[: self.start] + self.new.encode() + text[self.end :]

    def diff(self) -> str:
        """Show the change as a diff without context."""
        old = (SOURCE / self.path).read_bytes()
        lines = [part.decode().splitlines(keepends=True) for part in (old, self.apply(old))]
        return "".join(difflib.unified_diff(*lines, self.path, self.path, n=0))


class Finder:
    """List the changes that one file allows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_bytes()
        self.starts = [0]
        for line in self.text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def changes(self) -> Iterator[Change]:
        """Yield the changes inside functions, without annotations, defaults, sentences and `__repr__`."""
        inside = [node for node in ast.walk(ast.parse(self.text)) if isinstance(node, FUNCTION)]
        nested = {child for node in inside for child in ast.walk(node) if child is not node}
        for node in inside:
            if node not in nested:
                yield from self._of_function(node)

    def _of_function(self, node: ast.AST) -> Iterator[Change]:
        if node.name not in ("__repr__", "__str__", "__hash__"):
            for statement in node.body:
                yield from self._within(statement, ast.unparse(node.returns) if node.returns else "")

    def _within(self, node: ast.AST, returns: str) -> Iterator[Change]:
        """Yield the changes of a node and of what is below it."""
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.ClassDef) or _speaks(node):
            return
        if isinstance(node, FUNCTION):
            yield from self._of_function(node)
            return
        yield from self._of_node(node, returns)
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns", "type_comment"):
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        yield from self._within(child, returns)

    def _of_node(self, node: ast.AST, returns: str) -> Iterator[Change]:
        """Yield the changes of one node alone."""
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            yield from self._operator(node.left, node.comparators[0], COMPARE.get(type(node.ops[0])))
        elif isinstance(node, ast.BinOp) and not (_is_text(node.left) or _is_text(node.right)):
            yield from self._operator(node.left, node.right, ARITHMETIC.get(type(node.op)))
        elif isinstance(node, ast.BoolOp):
            yield from self._operator(node.values[0], node.values[1], LOGIC[type(node.op)])
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield self._replaced(node, f"({self._source(node.operand)})")
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            yield self._replaced(node, str(not node.value if isinstance(node.value, bool) else node.value + 1))
        elif isinstance(node, ast.Call):
            yield from self._extreme(node.func)
        elif isinstance(node, ast.Return) and node.value and NUMBER.search(returns) and not TEXT.search(returns):
            yield self._replaced(node.value, f"2 * ({self._source(node.value)})")
        if isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Compare):
            yield self._replaced(node.test, f"(not ({self._source(node.test)}))")

    def _extreme(self, function: ast.expr) -> Iterator[Change]:
        """Take the other extreme in `min`, `max` and the like."""
        name = getattr(function, "id", getattr(function, "attr", ""))
        if name in EXTREMES:
            end = self._at(function.end_lineno, function.end_col_offset)
            yield self._change(function.end_lineno, end - len(name), end, EXTREMES[name])

    def _operator(self, left: ast.expr, right: ast.expr, swap: tuple[str, str] | None) -> Iterator[Change]:
        """Replace the operator that stands between two operands."""
        start = self._at(left.end_lineno, left.end_col_offset)
        gap = self.text[start : self._at(right.lineno, right.col_offset)].decode()
        if swap is not None and "#" not in gap and swap[0] in gap:
            start += len(gap[: gap.index(swap[0])].encode())
            yield self._change(left.end_lineno, start, start + len(swap[0]), swap[1])

    def _replaced(self, node: ast.AST, new: str) -> Change:
        start, end = self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)
        return self._change(node.lineno, start, end, new)

    def _change(self, line: int, start: int, end: int, new: str) -> Change:
        return Change(self.path.relative_to(SOURCE).as_posix(), line, start, end, new)

    def _source(self, node: ast.AST) -> str:
        return ast.get_source_segment(self.text.decode(), node) or ""

    def _at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column


def _speaks(node: ast.AST) -> bool:
    """Say whether a node is a call that only prints or logs."""
    function = getattr(node, "func", None)
    return getattr(function, "id", getattr(function, "attr", "")) in SILENT


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def picked(count: int, seed: int) -> list[Change]:
    """Pick lines at random, one folder after the other, and one change of each."""
    generator = random.Random(seed)
    rooms: dict[str, dict] = defaultdict(lambda: defaultdict(list))
    for path in sorted(SOURCE.rglob("*.py")):
        for change in Finder(path).changes():
            rooms[change.room][change.path, change.line].append(change)
    waiting = []
    for lines in rooms.values():
        order = sorted(lines)
        generator.shuffle(order)
        waiting.append([generator.choice(lines[place]) for place in order])
    generator.shuffle(waiting)
    turns = [changes[turn] for turn in range(count) for changes in waiting if turn < len(changes)]
    return turns[:count]
