"""Readers of public data sets in their original files.

Add a module with `read(path) -> Panel` and name it in `ADAPTERS`; it is imported when it is used.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from walras.data.panel import Panel
from walras.errors import SettingsError

ADAPTERS = {
    "online-retail": "walras.data.adapters.online_retail",
    "m5": "walras.data.adapters.m5",
    "favorita": "walras.data.adapters.favorita",
}
"""Name -> module with `read(path) -> Panel`."""


def read_original(name: str, path: str | Path) -> Panel:
    """Read the original files of a public data set.

    Args:
        name: one of `ADAPTERS`.
        path: file or folder, as the adapter says.

    Raises:
        SettingsError: when there is no such adapter.
        InputError: when the files are not those of the data set.
    """
    if name not in ADAPTERS:
        raise SettingsError(f"there is no data set called {name!r}; choose one of {', '.join(ADAPTERS)}")
    panel: Panel = import_module(ADAPTERS[name]).read(Path(path))
    return panel


READERS: dict[str, Callable[[str | Path], Panel]] = {name: partial(read_original, name) for name in ADAPTERS}
"""Name -> function of a path."""
