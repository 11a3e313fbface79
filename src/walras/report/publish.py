"""Own how a set of files reaches its folder: all of the new ones, or all of the old ones.

EDGE: disk. Files are made in a hidden folder on the same disk and renamed; nothing else in the folder is touched.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from walras.errors import InputError

Writer = Callable[[Path], None]


def write_all_or_nothing(folder: Path, writers: Mapping[str, Writer]) -> list[Path]:
    """Write files aside, then put them in their places together.

    Args:
        folder: where the files go; made if it is not there.
        writers: file name -> what writes it to a path; called in this order.

    Returns:
        The files' places, in the order of `writers`.

    Raises:
        InputError: `folder` cannot be used as a folder.
    """
    _open_folder(folder)
    aside = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder))
    try:
        for name, write in writers.items():
            write(aside / name)
        _swap(folder, aside, list(writers))
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return [folder / name for name in writers]


def _open_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The report folder `{folder}` cannot be made ({error.strerror}); "
            "a folder that can be written is needed, so name another one"
        ) from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"The report folder `{folder}` cannot be written; allow that or name another one")


def _swap(folder: Path, aside: Path, names: list[str]) -> None:
    """Rename every file into place; if that stops half way, the old ones go back."""
    old = aside / "old"
    old.mkdir()
    done: list[str] = []
    try:
        for name in names:
            # The old file stays reachable under a second name until every new one is in place.
            if (folder / name).exists():
                shutil.copy2(folder / name, old / name)
            done.append(name)
            os.replace(aside / name, folder / name)
    except BaseException:
        for name in done:
            _restore(old / name, folder / name, aside / name)
        raise


def _restore(old: Path, place: Path, new: Path) -> None:
    if old.exists():
        os.replace(old, place)
    elif not new.exists():
        place.unlink(missing_ok=True)
