"""A folder of checkpoints keeps what it should, passes over damage, and serves one run at a time.

The second run is a process of its own, as it would be.
"""

import os

import numpy as np
import pytest

from walras.data.array_file import read_arrays, write_arrays
from walras.errors import InputError
from walras.train import run_folder as checkpoint
from walras.train.run_folder import Checkpoints


@pytest.fixture
def folder(tmp_path):
    """Name a folder that is not there yet."""
    return tmp_path / "checkpoints"


def save(checkpoints: Checkpoints, *steps: int, best: int | None = None) -> None:
    """Write checkpoints that hold their own number."""
    for step in steps:
        checkpoints.save(step, {"at": np.full(3, step)}, {"loss": step / 2}, best=best)


def test_the_newest_is_read_back(folder):
    with Checkpoints(folder, "thing") as checkpoints:
        assert checkpoints.latest() is None
        save(checkpoints, 5, 12)
        found = checkpoints.latest()
    assert found.step == 12 and found.stored.arrays["at"].tolist() == [12, 12, 12]
    assert found.stored.header == {"loss": 6.0, "step": 12} and found.notes == ()


def test_the_newest_few_and_the_best_stay(folder):
    with Checkpoints(folder, "thing", keep=2) as checkpoints:
        save(checkpoints, 0, 1, 2, 3, best=1)
        assert checkpoints.steps() == [1, 2, 3]
        save(checkpoints, 1_000_004, best=3)
        assert checkpoints.steps() == [3, 1_000_004]
        assert checkpoints.latest().step == 1_000_004
        assert [path.name for path in sorted(folder.glob("step*"))] == ["step-000003.walras", "step-1000004.walras"]


def test_a_damaged_one_is_passed_over_with_a_note(folder):
    with Checkpoints(folder, "thing") as checkpoints:
        save(checkpoints, 1, 2, 3)
        checkpoints.path(3).write_bytes(checkpoints.path(3).read_bytes()[:-1])
        checkpoints.path(1).replace(checkpoints.path(2))  # whole, but not what its name says
        save(checkpoints, 1)
        found = checkpoints.latest()
        assert found.step == 1 and len(found.notes) == 2
        assert found.notes[0] == "the checkpoint of step 3 is damaged, so an earlier one was taken"
        checkpoints.remove(after=1)
        assert checkpoints.steps() == [1]


def test_nothing_but_damage_is_not_a_fresh_start(folder):
    with Checkpoints(folder, "thing") as checkpoints:
        save(checkpoints, 1)
        checkpoints.path(1).write_bytes(b"")
        with pytest.raises(InputError, match="every checkpoint in .* is damaged; begin again in a fresh folder"):
            checkpoints.latest()
        checkpoints.remove()
        assert checkpoints.latest() is None


def test_another_kind_is_refused(folder):
    with Checkpoints(folder, "thing") as checkpoints:
        save(checkpoints, 1)
        write_arrays(checkpoints.path(2), "buyer training", {}, {"step": 2})
        with pytest.raises(InputError, match="holds a buyer training but a thing is needed"):
            checkpoints.latest()


def test_a_reader_needs_no_lock(folder):
    with Checkpoints(folder, "thing") as checkpoints:
        save(checkpoints, 1)
        assert read_arrays(checkpoints.path(1), "thing").header["step"] == 1


def test_what_a_killed_writer_left_is_cleared(folder):
    folder.mkdir()
    (folder / ".step-000007-abc.walras").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    with Checkpoints(folder, "thing"):
        assert sorted(path.name for path in folder.iterdir()) == [".lock", "notes.txt"]


@pytest.mark.skipif(checkpoint.fcntl is None, reason="this system has no such locks")
def test_a_second_run_is_kept_out_while_the_first_lasts(folder):
    """Locks belong to open files, so that one process can stand for two."""
    words = rf"is in use by another run \(process {os.getpid()}\); wait until it ends, stop it, or"
    with Checkpoints(folder, "thing"):
        with pytest.raises(InputError, match=words), Checkpoints(folder, "thing"):
            pass
    with Checkpoints(folder, "thing"):
        pass


def test_a_system_without_locks_goes_without(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "fcntl", None)
    with Checkpoints(folder, "thing") as first, Checkpoints(folder, "thing") as second:
        save(first, 1)
        assert second.latest().step == 1


def test_a_file_in_the_place_of_the_folder_is_refused(folder):
    folder.write_text("mine")
    with pytest.raises(InputError, match="cannot hold checkpoints"), Checkpoints(folder, "thing"):
        pass
