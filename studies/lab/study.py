"""Own what a study is: a numbered folder with a question, sizes, code that measures, and recorded results.

CONTRACT: a folder holds `study.toml`, `study.py` (see `FUNCTIONS`), `README.md` and `results/`.
"""

import importlib.util
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import Field

from lab.checkpointed_parts import read_json
from walras.config import Settings, checked
from walras.errors import InputError

SIZES = ("smoke", "small", "full")
"""From seconds, which only show that all runs, to hours."""

NAME = re.compile(r"(\d\d)_[a-z0-9_]+")
"""Names of folders that hold a study."""

FUNCTIONS = ("parts", "figures", "key", "answer", "pictures")
"""What the code of a study has to define."""


class StudyFile(Settings):
    """Hold what `study.toml` says.

    Attributes:
        question: in one sentence.
        published: what was published, in one sentence; empty where nothing was.
        measured_by: number of the study whose parts this one looks at; 0 where it measures its own.
        common: settings of every size.
        size: settings by size.
    """

    question: str
    published: str = ""
    measured_by: int = 0
    common: dict[str, Any] = Field(default_factory=dict)
    size: dict[str, dict[str, Any]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """Hold a study.

    Attributes:
        folder: that holds it.
        file: what its `study.toml` says.
    """

    folder: Path
    file: StudyFile

    @staticmethod
    def read(folder: Path) -> "Study":
        """Read a study's folder.

        Raises:
            InputError, SettingsError: no `study.toml`, or one that cannot be read.
        """
        path = folder / "study.toml"
        try:
            values = tomllib.loads(path.read_text())
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({error.strerror}); a study needs one, see another study"
            ) from None
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{path} is no TOML ({error}); mend that line") from None
        return Study(folder, checked(StudyFile, values, str(path)))

    @property
    def name(self) -> str:
        """Give the folder's name."""
        return self.folder.name

    @property
    def number(self) -> int:
        """Give the study's number."""
        return int(self.name[:2])

    @property
    def question(self) -> str:
        """Give the question."""
        return self.file.question

    def settings(self, size: str) -> Mapping[str, Any]:
        """Return the settings of a size.

        Raises:
            InputError: the study has no such size.
        """
        if size not in self.file.size:
            known = ", ".join(self.file.size)
            raise InputError(f"study {self.name} has no size `{size}`; choose among {known}")
        return _Given(self.name, {**self.file.common, **self.file.size[size]})

    @cached_property
    def code(self) -> ModuleType:
        """Import `study.py` of the folder.

        Raises:
            InputError: it is not there, or lacks a function.
        """
        path = self.folder / "study.py"
        spec = importlib.util.spec_from_file_location(f"walras_study_{self.name}", path)
        if spec is None or spec.loader is None or not path.exists():
            raise InputError(f"{path} is not there but a study is measured by it; restore it")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        lacking = [name for name in FUNCTIONS if not hasattr(module, name)]
        if lacking:
            raise InputError(f"{path} defines no `{lacking[0]}`; a study needs {', '.join(FUNCTIONS)}")
        return module

    @property
    def results(self) -> Path:
        """Give the folder of recorded results."""
        return self.folder / "results"

    def recorded(self) -> Mapping[str, Any] | None:
        """Return the recorded result of the largest size; None where none is recorded."""
        for size in reversed(SIZES):
            path = self.results / f"{size}.json"
            if path.exists():
                return read_json(path, f"run the study again with --size {size} --record")
        return None


class _Given(dict[str, Any]):
    """Hold settings, and name the one that is lacking."""

    def __init__(self, study: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.study = study

    def __missing__(self, name: str) -> Any:
        raise InputError(f"study {self.study} lacks the setting `{name}`; write it into its study.toml")


def find_studies(folder: Path | None = None) -> list[Study]:
    """Return all studies, by number.

    Args:
        folder: that holds them; default `studies` in the current folder or one above it, or beside the source.

    Raises:
        InputError: no such folder, or no study in it.
    """
    place = _folder(folder)
    names = sorted(each.name for each in place.iterdir() if each.is_dir() and NAME.fullmatch(each.name))
    if not names:
        raise InputError(f"{place} holds no study; name the `studies` folder of the project with --studies")
    return [Study.read(place / name) for name in names]


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


def _folder(given: Path | None) -> Path:
    if given is not None:
        if not given.is_dir():
            raise InputError(f"{given} is no folder; name the `studies` folder of the project")
        return given
    here = Path.cwd()
    beside = Path(__file__).parents[2]
    for place in (here, *here.parents, beside):
        found = place / "studies"
        if found.is_dir() and any(NAME.fullmatch(each.name) for each in found.iterdir()):
            return found
    raise InputError(
        "no folder `studies` is here or above; go to the project's source, or name its `studies` folder with --studies"
    )
