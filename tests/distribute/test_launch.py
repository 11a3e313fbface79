"""A run of several processes gives the totals of one, ends with one sentence, and resumes; on loopback."""

import os
import subprocess
import sys
import time
from pathlib import Path

import host_run
import jax
import numpy as np
import pytest

from walras.distribute import launch
from walras.errors import LostWorkerError, SettingsError

RUN = [sys.executable, str(Path(host_run.__file__))]


def python(program: str) -> list[str]:
    """Give the command that runs a few lines; `me` is the number of the process."""
    return [sys.executable, "-c", f"import os, signal, sys, time; me = int(os.environ['WALRAS_PROCESS']); {program}"]


def found(folder: Path, process: int) -> list[np.ndarray]:
    """Read what a process found."""
    return list(np.load(folder / f"found-{process}.npz").values())


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Let the processes keep compiled programs where this one does."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"):
            if (value := getattr(jax.config, name)) is not None:
                patch.setenv(name.upper(), str(value))
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> list[np.ndarray]:
    """Run all ranges in this process."""
    answer = host_run.run_ranges(tmp_path_factory.mktemp("alone") / "journal", None)
    return jax.tree.leaves((answer.totals, answer.end_value, answer.agents, answer.final))


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_one_sentence_and_a_restart_continues(tmp_path, alone):
    words = [sys.executable, "-m", "walras.distribute.launch", "--processes", "2", "--", *RUN, str(tmp_path)]
    lost = subprocess.run([*words, "--lose", "1", "1", "killed"], capture_output=True, text=True, timeout=120)
    assert lost.stderr == f"walras: process 1 of 2 was ended by signal 9 (SIGKILL); {launch.AGAIN}\n"
    assert (lost.returncode, lost.stdout) == (launch.EXIT_LOST, "")
    (noted,) = (tmp_path / "journal").glob("agents-*")
    before = noted.read_bytes()
    again = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == "3 of 4 chunks simulated\n" and noted.read_bytes() == before
    for ours, other, expected in zip(found(tmp_path, 0), found(tmp_path, 1), alone, strict=True):
        np.testing.assert_array_equal(ours, other)  # taken from the journal in one, sent to the other
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * float(np.abs(expected).max()))


def test_the_process_that_leads_may_be_lost_as_well(tmp_path):
    with pytest.raises(LostWorkerError, match=r"^process 0 of 2 was ended by signal 9 \(SIGKILL\) \(its log is .*\); "):
        launch.run_processes(2, [*RUN, str(tmp_path), "--lose", "0", "0", "killed"], logs=tmp_path / "logs")
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["worker-0.log", "worker-1.log"]


def test_a_mistake_in_one_process_is_what_is_said():
    started = time.monotonic()
    with pytest.raises(LostWorkerError) as raised:
        launch.run_processes(
            2, python("print('walras: no such table', file=sys.stderr); me or time.sleep(60); sys.exit(2)")
        )
    assert str(raised.value).startswith(
        'process 1 of 2 ended with exit code 2, saying "no such table"; correct that, and '
    )
    assert time.monotonic() - started < 30


def test_the_cause_is_named_not_the_process_that_was_told_of_it():
    for told in (f"sys.exit({launch.EXIT_LOST})", "os.abort()"):
        program = f"me or ({told}); time.sleep(0.3); os.kill(os.getpid(), signal.SIGTERM)"
        with pytest.raises(LostWorkerError, match=r"^process 1 of 2 was ended by signal 15 \(SIGTERM\); "):
            launch.run_processes(2, python(program))


def test_what_process_0_prints_is_passed_on_without_chatter(capsys):
    launch.run_processes(2, python("print('[Gloo] Rank 0 is here'); print('totals of', me)"))
    assert capsys.readouterr().out == "totals of 0\n"


def test_processes_are_pinned_to_cores(capsys):
    core = max(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    launch.run_processes(1, python("print(os.sched_getaffinity(0))"), cores=[core])
    assert capsys.readouterr().out == f"{{{core}}}\n"
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--processes", "0", "--", "true"], "the number of processes is 0"),
        (["--processes", "2", "--cores", "0", "--", "true"], "cores [0] were given for 2 processes"),
        (["--processes", "1", "--cores", "9999", "--", "true"], "cores [9999] were given for 1 processes"),
        (["--processes", "1", "--cores", "a", "--", "true"], "`--cores a` is not a list"),
        (["--processes", "1", "--", "no-such-program"], "cannot be started"),
        (["--processes", "1"], "cannot be started"),
    ],
)
def test_mistakes_are_one_sentence(words, complaint, capsys):
    assert launch.main(words) == launch.EXIT_MISTAKE
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1


def test_a_supervised_process_of_a_cluster_ends_with_one_sentence(capsys):
    cases = {
        "os.abort()": "another process of the run was lost, so this one stopped",
        f"sys.exit({launch.EXIT_LOST})": "another process of the run was lost, so this one stopped",
        "os.kill(os.getpid(), signal.SIGKILL)": "the process was ended by signal 9 (SIGKILL)",
    }
    for program, sentence in cases.items():
        command = [sys.executable, "-c", f"import os, signal, sys; {program}"]
        assert launch.main(["--", *command]) == launch.EXIT_LOST
        assert capsys.readouterr().err == f"walras: {sentence}; {launch.AGAIN}\n"


def test_processes_end_with_the_one_that_started_them(tmp_path):
    place = tmp_path / "worker"
    follow = (
        f"open({str(place)!r}, 'w').write(str(os.getpid())); from walras.distribute import launch; launch._follow()"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-m", "walras.distribute.launch", "--processes", "1", "--", *python(follow)]
    )
    worker = int(eventually(lambda: place.exists() and place.read_text()))
    launcher.kill()
    launcher.wait()
    assert eventually(lambda: ended(worker))


def ended(process: int) -> bool:
    """Tell whether a process is gone, or only waits to be counted."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def eventually(ask):
    """Ask until the answer is yes."""
    for _ in range(400):
        if found := ask():
            return found
        time.sleep(0.05)
    raise AssertionError("never")


def join(monkeypatch, error=None, **given) -> list:
    """Enter the cluster with a jax that only notes how it was asked."""
    asked = []

    def initialize(*words, **more):
        asked.append((words, more))
        if error is not None:
            raise error

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with launch.join_cluster(**given):
        pass
    return asked


def test_a_coordinator_on_loopback_listens_there_only(monkeypatch):
    ((words, more),) = join(monkeypatch, coordinator="127.0.0.1:5000", n_processes=2, process_id=1, patience=7)
    assert words == ("127.0.0.1:5000", 2, 1)
    assert more == {"heartbeat_timeout_seconds": 7, "coordinator_bind_address": "127.0.0.1:5000"}


def test_without_a_word_jax_looks_for_the_cluster_itself(monkeypatch):
    ((words, more),) = join(monkeypatch)
    assert words == (None, None, None) and more == {"heartbeat_timeout_seconds": launch.PATIENCE}


@pytest.mark.parametrize(
    "error, given, complaint",
    [
        (None, {"n_processes": 2}, "described in part"),
        (ValueError("coordinator_address should be defined."), {}, "no cluster was found"),
        (RuntimeError("initialize() must be called before any JAX calls"), {}, "jax is already in use"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_one_sentence(monkeypatch, error, given, complaint):
    with pytest.raises(SettingsError, match=complaint):
        join(monkeypatch, error, **given)


@pytest.mark.parametrize(
    "error, code, said",
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer"), launch.EXIT_LOST, "another process"),
        (jax.errors.JaxRuntimeError("INTERNAL: NCCL operation failed"), launch.EXIT_LOST, "another process"),
        (SettingsError("mend this"), launch.EXIT_MISTAKE, "walras: mend this\n"),
        (ValueError("connection"), launch.EXIT_DEFECT, "Traceback"),
        (SystemExit(4), 4, ""),
        (KeyboardInterrupt(), launch.EXIT_INTERRUPTED, ""),
    ],
)
def test_an_error_ends_a_process_at_once(monkeypatch, capsys, error, code, said):
    ends = []
    monkeypatch.setattr(launch, "_end", ends.append)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *words, **more: None)
    with launch.join_cluster():
        raise error
    assert ends == [code]
    assert said in capsys.readouterr().err
