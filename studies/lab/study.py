"""A study: a numbered folder with `study.toml` (question, sizes), `study.py` (see `FUNCTIONS`), README and results."""

import importlib.util
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import Field

from walras.config import Settings, checked
from walras.errors import InputError

SIZES = ("smoke", "small", "full")
"""Seconds (shows only that all of it runs), minutes, hours."""

NAME = re.compile(r"(\d\d)_[a-z0-9_]+")
"""Names of folders that hold a study."""

FUNCTIONS = ("parts", "figures", "key", "answer", "pictures")
"""Functions that `study.py` has to define."""


class StudyFile(Settings):
    """Contents of `study.toml`.

    Attributes:
        question: in one sentence.
        published: what was published, in one sentence; empty where nothing was.
        measured_by: number of the study whose parts this one evaluates; 0 where it measures its own.
        common: settings of every size.
        size: settings by size.
    """

    question: str
    published: str = ""
    measured_by: int = 0
    common: dict[str, Any] = Field(default_factory=dict)
    size: dict[str, dict[str, Any]] = Field(default_factory=dict)


class _StudySettings(dict[str, Any]):
    """Settings of a study; a missing one is named with its study."""

    def __init__(self, study: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.study = study

    def __missing__(self, name: str) -> Any:
        raise InputError(f"study {self.study} lacks the setting `{name}`; write it into its study.toml")


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        folder: that holds it.
        file: contents of its `study.toml`.
    """

    folder: Path
    file: StudyFile

    @staticmethod
    def read(folder: Path) -> "Study":
        """Read the `study.toml` of a folder.

        Raises:
            InputError, SettingsError: it is missing, is no TOML, or holds other settings.
        """
        path = folder / "study.toml"
        try:
            values = tomllib.loads(path.read_text())
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({error.strerror}); write one like that of another study"
            ) from None
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{path} is not valid TOML ({error}); correct that line") from None
        return Study(folder, checked(StudyFile, values, str(path)))

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def number(self) -> int:
        """Number of the study."""
        return int(self.name[:2])

    @property
    def question(self) -> str:
        """Question of the study."""
        return self.file.question

    def settings(self, size: str) -> Mapping[str, Any]:
        """Return the settings of a size.

        Raises:
            InputError: the study has no such size.
        """
        if size not in self.file.size:
            known = ", ".join(self.file.size)
            raise InputError(f"study {self.name} has no size `{size}`; choose among {known}")
        return _StudySettings(self.name, {**self.file.common, **self.file.size[size]})

    @cached_property
    def code(self) -> ModuleType:
        """The module `study.py` of the folder.

        Raises:
            InputError: it is missing, or lacks a function.
        """
        path = self.folder / "study.py"
        spec = importlib.util.spec_from_file_location(f"walras_study_{self.name}", path)
        if spec is None or spec.loader is None or not path.exists():
            raise InputError(f"{path} does not exist, but every study needs one; restore it")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        missing = [name for name in FUNCTIONS if not hasattr(module, name)]
        if missing:
            raise InputError(f"{path} does not define `{missing[0]}`; a study needs {', '.join(FUNCTIONS)}")
        return module

    @property
    def results(self) -> Path:
        """Folder of recorded results."""
        return self.folder / "results"

    def recorded(self) -> Mapping[str, Any] | None:
        """Return the recorded result of the largest size; None where none is recorded."""
        for size in reversed(SIZES):
            path = self.results / f"{size}.json"
            if path.exists():
                return read_json(path, f"run the study again with --size {size} --record")
        return None


def find_studies(folder: Path | None = None) -> list[Study]:
    """Return all studies by number.

    Args:
        folder: that holds them; default the folder `studies` that holds this package.

    Raises:
        InputError: there is no such folder, or it holds no study.
    """
    folder = folder or Path(__file__).parents[1]
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the `studies` folder of a checkout with --studies")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and NAME.fullmatch(path.name))
    if not names:
        raise InputError(f"{folder} holds no study; give the `studies` folder of a checkout with --studies")
    return [Study.read(folder / name) for name in names]


def find_study(number: str, studies: list[Study]) -> Study:
    """Return a study by its number or name.

    Raises:
        InputError: there is none.
    """
    for study in studies:
        if number == study.name or (number.isdigit() and int(number) == study.number):
            return study
    known = ", ".join(f"{study.number:02d}" for study in studies)
    raise InputError(f"there is no study {number}; choose among {known}, or all")


def read_json(path: Path, remedy: str) -> Any:
    """Read a file of figures.

    Raises:
        InputError: it is not valid JSON.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); {remedy}") from None
