"""A report is either the old one or the new one."""

import os
from dataclasses import replace

import pytest

from walras.errors import InputError
from walras.report import page, publish
from walras.report.publish import write_all_or_nothing


def contents(folder) -> dict[str, bytes]:
    """Read every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def interrupt(*_):
    """Stop as Ctrl-C does."""
    raise KeyboardInterrupt


def test_interrupted_while_writing_leaves_the_old_report(result, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "picture", lambda *_: ())
    page.write_report(result, tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(publish, "json_writer", lambda facts: interrupt)
    with pytest.raises(KeyboardInterrupt):
        page.write_report(replace(result, notes=("changed",)), tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("stop_at", [1, 2, 3])
@pytest.mark.parametrize("old", [{}, {"a": b"old a", "b": b"old b", "c": b"old c"}, {"b": b"old b"}])
def test_interrupted_while_renaming_puts_the_old_files_back(tmp_path, monkeypatch, stop_at, old):
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    real, calls = os.replace, []

    def counted(source, target):
        calls.append(target)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", counted)
    with pytest.raises(KeyboardInterrupt):
        write_all_or_nothing(tmp_path, {name: lambda path: path.write_text("new") for name in "abc"})
    assert contents(tmp_path) == old


def test_new_files_replace_old_ones_and_leave_others_alone(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "mine").write_text("mine")
    write_all_or_nothing(tmp_path, {"a": lambda path: path.write_text("new")})
    assert contents(tmp_path) == {"a": b"new", "mine": b"mine"}


def test_a_file_in_the_way_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "report").write_text("a file")
    with pytest.raises(InputError, match=r"report folder `.*report` cannot be made") as caught:
        write_all_or_nothing(tmp_path / "report", {})
    assert "\n" not in str(caught.value)
