"""Names of a package that are imported when they are first used, so that importing the package stays fast."""

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str], namespaces: Mapping[str, str] = MappingProxyType({})
) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    `homes` maps public names to the modules below the package that define them, `namespaces` to those they stand for.
    """

    def get(name: str) -> Any:
        if name in namespaces:
            return import_module(f"{package}.{namespaces[name]}")
        if name in homes:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        raise AttributeError(f"module `{package}` has no attribute `{name}`")

    return get
