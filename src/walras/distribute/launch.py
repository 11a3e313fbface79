"""Own the processes of one run: start them, let them join, and end with one sentence where one is lost.

EDGE: knows nothing of simulation; the side that starts and watches never imports jax.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from walras.errors import LostWorkerError, SettingsError, WalrasError, one_line

COORDINATOR, PROCESSES, PROCESS = "WALRAS_COORDINATOR", "WALRAS_PROCESSES", "WALRAS_PROCESS"
"""Environment by which a worker that was started here learns who it is."""

EXIT_LOST = 75
"""Exit code where a process was lost: nothing is wrong with the input, the same command may succeed (EX_TEMPFAIL)."""

EXIT_DEFECT, EXIT_MISTAKE, EXIT_INTERRUPTED = 1, 2, 130

PATIENCE = 30
"""Seconds without a sign of life after which the others give a process up; a killed one is noticed at once."""

GRACE = 2.0
"""Seconds to wait for the cause where the first process seen to end was itself only told of a loss."""

POLL = 0.05
"""Seconds between two looks at the workers."""

AGAIN = "start the same command again: it continues after the last finished range of agents"

# What the libraries that carry totals between processes say when the other end is gone.
LOST = re.compile(
    r"^(unknown|internal|unavailable|aborted|cancelled|deadline_exceeded):"
    r".*(gloo|nccl|connection|socket|coordination|heartbeat|barrier|deadline)",
    re.IGNORECASE | re.DOTALL,
)

CHATTER = b"[Gloo]"
"""Beginning of lines that a library prints to stdout whenever processes meet."""


@contextmanager
def join_cluster(
    coordinator: str | None = None,
    n_processes: int | None = None,
    process_id: int | None = None,
    *,
    patience: int = PATIENCE,
) -> Iterator[None]:
    """Be one process of a run while the `with` block lasts; afterwards the devices of all processes are at hand.

    Where nothing is given, workers of `run_processes` know who they are, and under SLURM, Open MPI or Kubernetes jax
    finds out by itself. An error inside the block ends this process at once, so that the others need not wait for it.

    Args:
        coordinator: address:port of process 0.
        n_processes: how many processes there are.
        process_id: which of them this is, from 0.
        patience: seconds without a sign of life after which a process is given up.

    Raises:
        SettingsError: no cluster was found, or it is described in part.
    """
    _join(coordinator, n_processes, process_id, patience)
    try:
        yield
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            raise
        _end(_say(error))


def run_processes(
    n_processes: int, command: Sequence[str], *, cores: Sequence[int] | None = None, logs: Path | None = None
) -> None:
    """Run a command as several processes on this machine that work on one run; return when all have finished.

    They speak to each other over the loopback interface. What process 0 prints is passed on.

    Args:
        n_processes: how many.
        command: program and arguments, the same for all; it calls `join_cluster()` before anything else.
        cores: processor core for each process; by default they share all cores.
        logs: folder that keeps what each process wrote; by default it is dropped.

    Raises:
        LostWorkerError: a process was lost; the others have been ended.
        SettingsError: cores or a number of processes that cannot be had.
    """
    _check(n_processes, cores)
    coordinator = f"127.0.0.1:{_free_port()}"
    told = [{COORDINATOR: coordinator, PROCESSES: str(n_processes), PROCESS: str(i)} for i in range(n_processes)]
    with _folder(logs) as folder:
        workers: list[_Worker] = []
        try:
            for number, mine in enumerate(told):
                core = None if cores is None else cores[number]
                workers.append(_start(number, command, {**os.environ, **mine}, folder, core, talks=number == 0))
            _watch(workers)
        except _LostError as lost:
            raise _sentence(lost.worker, n_processes, logs) from None
        finally:
            _stop(workers)


def watch(command: Sequence[str], *, logs: Path | None = None) -> None:
    """Run this task's one process of a cluster run, and say in one sentence how it was lost.

    Args:
        command: program and arguments; it calls `join_cluster()` before anything else.
        logs: folder that keeps what the process wrote.

    Raises:
        LostWorkerError: this process, or another one of the run, was lost.
    """
    with _folder(logs) as folder:
        worker = _start(0, command, dict(os.environ), folder, None, talks=True)
        try:
            _watch([worker])
        except _LostError:
            if worker.rank > 1:
                raise LostWorkerError(f"another process of the run was lost, so this one stopped; {AGAIN}") from None
            raise _sentence(worker, None, logs) from None
        finally:
            _stop([worker])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command as one or several processes; print one sentence where one is lost.

    Args:
        argv: words after `python -m walras.distribute.launch`; those of this process where not given.
    """
    parser = argparse.ArgumentParser(
        prog="python -m walras.distribute.launch", description="Run one command as several processes."
    )
    parser.add_argument("--processes", type=int, help="on this machine; without it, one process of a cluster's run")
    parser.add_argument("--cores", help="core for each process, e.g. 0,1")
    parser.add_argument("--logs", type=Path, help="folder for what each process writes")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- program and arguments")
    given = parser.parse_args(argv)
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    try:
        if given.processes is None:
            watch(command, logs=given.logs)
        else:
            run_processes(given.processes, command, cores=_parse_cores(given.cores), logs=given.logs)
    except WalrasError as error:
        print(f"walras: {error}", file=sys.stderr)
        return EXIT_LOST if isinstance(error, LostWorkerError) else EXIT_MISTAKE
    except KeyboardInterrupt:
        print(f"walras: stopped by Ctrl-C; {AGAIN}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


@dataclass(frozen=True)
class _Worker:
    """Hold one started process and where its words go."""

    number: int
    process: "subprocess.Popen[bytes]"
    log: Path
    reader: threading.Thread | None

    @property
    def rank(self) -> int:
        """Order ends from cause to consequence: killed, failed, aborted by a library, told of a loss."""
        code = self.process.returncode
        return {-signal.SIGABRT: 2, EXIT_LOST: 3}.get(code, 0 if code < 0 else 1)


class _LostError(Exception):
    def __init__(self, worker: _Worker) -> None:
        self.worker = worker


def _start(
    number: int, command: Sequence[str], environment: dict[str, str], folder: Path, core: int | None, *, talks: bool
) -> _Worker:
    """Start one worker; its stdin stays open as long as this process lives, which is how it learns of our end."""
    log = folder / f"worker-{number}.log"
    with open(log, "wb") as words, _pinned(core):
        try:
            process = subprocess.Popen(
                list(command),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if talks else words,
                stderr=words,
            )
        except (OSError, IndexError) as error:
            raise SettingsError(f"the command `{' '.join(command)}` cannot be started: {error}; check it") from None
    reader = None
    if talks:
        reader = threading.Thread(target=_pass_on, args=(process.stdout,), daemon=True)
        reader.start()
    return _Worker(number, process, log, reader)


@contextmanager
def _pinned(core: int | None) -> Iterator[None]:
    """Start processes on one core: they inherit it from this thread, before they have started any of their own."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _pass_on(stream: Any) -> None:
    for line in stream:
        if not line.startswith(CHATTER):
            sys.stdout.write(line.decode(errors="replace"))
            sys.stdout.flush()


def _watch(workers: list[_Worker]) -> None:
    """Wait until all have finished; raise with the one to blame as soon as one is lost."""
    blamed_after = None
    while True:
        codes = [worker.process.poll() for worker in workers]
        lost = [worker for worker, code in zip(workers, codes, strict=True) if code]
        if lost:
            now = time.monotonic()
            blamed_after = now + GRACE if blamed_after is None else blamed_after
            worst = min(lost, key=lambda worker: worker.rank)
            if worst.rank == 0 or now > blamed_after or None not in codes:
                raise _LostError(worst)
        elif None not in codes:
            return
        time.sleep(POLL)


def _stop(workers: list[_Worker]) -> None:
    """End what still runs; by force, since a process that waits for a lost one hears nothing else."""
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.wait()
        if worker.reader is not None:
            worker.reader.join(GRACE)
        for stream in (worker.process.stdin, worker.process.stdout):
            if stream is not None:
                stream.close()


def _sentence(worker: _Worker, of: int | None, logs: Path | None) -> LostWorkerError:
    who = "the process" if of is None else f"process {worker.number} of {of}"
    code = worker.process.returncode
    kept = "" if logs is None else f" (its log is {worker.log})"
    if code < 0:
        return LostWorkerError(f"{who} was ended by signal {-code} ({_signal_name(-code)}){kept}; {AGAIN}")
    said = _last_line(worker.log)
    words = f', saying "{said}"' if said else ""
    return LostWorkerError(f"{who} ended with exit code {code}{words}{kept}; mend that, and {AGAIN}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unnamed"


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return one_line(lines[-1]).removeprefix("walras: ") if lines else ""


@contextmanager
def _folder(logs: Path | None) -> Iterator[Path]:
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
        yield logs
        return
    folder = Path(tempfile.mkdtemp(prefix="walras-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _check(n_processes: int, cores: Sequence[int] | None) -> None:
    if n_processes < 1:
        raise SettingsError(f"the number of processes is {n_processes} but needs to be at least 1; give e.g. 2")
    if cores is None:
        return
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if len(cores) != n_processes or not set(cores) <= allowed:
        raise SettingsError(
            f"cores {list(cores)} were given for {n_processes} processes but each needs one of {sorted(allowed)}; "
            "name one core for each process, or none"
        )


def _parse_cores(words: str | None) -> list[int] | None:
    if words is None:
        return None
    if not re.fullmatch(r"\d+(,\d+)*", words):
        raise SettingsError(f"`--cores {words}` is not a list of core numbers; give e.g. 0,1")
    return [int(word) for word in words.split(",")]


def _join(coordinator: str | None, n_processes: int | None, process_id: int | None, patience: int) -> None:
    import jax

    given = (coordinator, n_processes, process_id)
    more: dict[str, Any] = {}
    if given == (None, None, None) and COORDINATOR in os.environ:
        given = (os.environ[COORDINATOR], int(os.environ[PROCESSES]), int(os.environ[PROCESS]))
        more["cluster_detection_method"] = "deactivate"  # this machine may itself be part of a cluster
        threading.Thread(target=_follow, name="walras-launcher", daemon=True).start()
    elif None in given and given != (None, None, None):
        raise SettingsError(
            f"the cluster is described in part (coordinator, n_processes, process_id = {given}); "
            "give all three, or none of them"
        )
    if given[0] is not None and re.match(r"127\.|localhost:", given[0]):
        more["coordinator_bind_address"] = given[0]  # jax would listen on every interface
    try:
        jax.distributed.initialize(*given, heartbeat_timeout_seconds=patience, **more)
    except ValueError as error:
        raise SettingsError(
            f"no cluster was found ({one_line(str(error)).rstrip('.')}); start with `python -m walras.distribute.launch "
            "--processes 2 -- ...`, with mpirun or srun, or give coordinator, n_processes and process_id"
        ) from None
    except RuntimeError as error:
        if "must be called before" not in str(error):
            raise
        raise SettingsError(
            "jax is already in use, but processes join before that; call `join_cluster` first"
        ) from None


def _follow() -> None:
    """End with the process that started this one: its end of our stdin closes."""
    while os.read(0, 1024):
        pass
    os._exit(EXIT_LOST)


def _say(error: BaseException) -> int:
    """Print what ended this process, and give its exit code."""
    # Not by class: jax raises what its libraries report as its own error or as a ValueError, depending on the path.
    if isinstance(error, Exception) and LOST.match(str(error)):
        print(f"walras: another process of the run was lost, so this one stopped; {AGAIN}", file=sys.stderr)
        return EXIT_LOST
    if isinstance(error, WalrasError):
        print(f"walras: {error}", file=sys.stderr)
        return EXIT_LOST if isinstance(error, LostWorkerError) else EXIT_MISTAKE
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else EXIT_DEFECT
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    traceback.print_exception(error)
    return EXIT_DEFECT


def _end(code: int) -> None:
    """Leave without a farewell: jax would wait at the exit for the others, and they for our totals."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
