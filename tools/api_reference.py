"""Write docs/reference/python.md: signature and docstring of every public name of `walras`.

Usage: python tools/api_reference.py [--check]
"""

import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import walras

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "python.md"
HEAD = """# Python reference

The public names of `import walras as wr`. This page is written by `python tools/api_reference.py` from the docstrings.
"""


def page() -> str:
    """Return the whole page."""
    names = [name for name in walras.__all__ if name != "__version__"]
    values = {name: getattr(walras, name) for name in names}
    parts = [HEAD]
    parts += [_entry(name, value) for name, value in values.items() if not isinstance(value, ModuleType)]
    parts += [_namespace(name, value) for name, value in values.items() if isinstance(value, ModuleType)]
    return "\n".join(parts)


def _entry(name: str, value: Any) -> str:
    """Describe a function or a class with its own public methods."""
    lines = [f"## `{name}`\n", _signature(name, value), _text(value)]
    if inspect.isclass(value):
        methods = [
            f"* `{key}`: {_first_line(member)}"
            for key, member in vars(value).items()
            if not key.startswith("_")
            and (callable(member) or isinstance(member, property | staticmethod | classmethod))
        ]
        lines.append("\n".join(methods) + "\n" if methods else "")
    return "\n".join(line for line in lines if line)


def _signature(name: str, value: Any) -> str:
    try:
        plain = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    parameters = [item.replace(annotation=inspect.Parameter.empty) for item in plain.parameters.values()]
    return f"```python\n{name}{plain.replace(parameters=parameters, return_annotation=inspect.Signature.empty)}\n```\n"


def _text(value: Any) -> str:
    return f"```text\n{inspect.getdoc(value) or ''}\n```\n"


def _namespace(name: str, module: ModuleType) -> str:
    """List the public names of a namespace with the first lines of their docstrings."""
    listed = getattr(module, "__all__", None) or [
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    rows = [f"* `{name}.{key}`: {_first_line(getattr(module, key))}" for key in listed]
    return "\n".join([f"## `{name}`\n", _first_line(module) + "\n", *rows, ""])


def _first_line(value: Any) -> str:
    target = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    return (inspect.getdoc(target) or "").split("\n", 1)[0]


if __name__ == "__main__":
    text = page()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text() == text else f"{PAGE.name} is out of date; run python tools/api_reference.py")
    PAGE.write_text(text)
