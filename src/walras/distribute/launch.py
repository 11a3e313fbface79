"""Clusters: start the processes of one run, join them, and end with one sentence where one is lost.

The side that starts and watches processes never imports jax.
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from walras.errors import LostWorkerError, SettingsError, WalrasError, one_line

# Environment variables of a process started here: address of process 0, number of processes, own number.
COORDINATOR, PROCESSES, PROCESS = "WALRAS_COORDINATOR", "WALRAS_PROCESSES", "WALRAS_PROCESS"
# EXIT_LOST (EX_TEMPFAIL): the input is fine, and the same command may succeed.
EXIT_DEFECT, EXIT_MISTAKE, EXIT_LOST, EXIT_INTERRUPTED = 1, 2, 75, 130
PATIENCE = 30  # seconds without a heartbeat; a killed process is noticed at once
GRACE = 2.0  # seconds to wait for the cause where a process ended because of a loss elsewhere
POLL = 0.05  # seconds between two polls of the processes
AGAIN = "start the same command again: it continues after the last finished chunk of agents"
OTHER_LOST = f"another process of the run was lost, so this one stopped; {AGAIN}"
# Messages of the libraries that exchange totals between processes, when the other end is gone.
LOST = re.compile(
    r"^(unknown|internal|unavailable|aborted|cancelled|deadline_exceeded):"
    r".*(gloo|nccl|connection|socket|coordination|heartbeat|barrier|deadline)",
    re.IGNORECASE | re.DOTALL,
)
CHATTER = b"[Gloo]"  # lines that a library prints to stdout when processes connect


@contextmanager
def join_cluster(
    coordinator: str | None = None,
    n_processes: int | None = None,
    process_id: int | None = None,
    *,
    patience: int = PATIENCE,
) -> Iterator[None]:
    """Join the processes of a run for the `with` block; inside it jax sees the devices of all of them.

    Without arguments, processes of `run_processes` read their environment, and jax detects SLURM, Open MPI and
    Kubernetes. An error inside the block ends this process at once, so that the others do not wait for it.

    Args:
        coordinator: address:port of process 0.
        n_processes, process_id: number of processes, and of this one, from 0.
        patience: seconds without a heartbeat after which a process is given up.

    Raises:
        SettingsError: no cluster was found, or it is described in part.
    """
    _join((coordinator, n_processes, process_id), patience)
    try:
        yield
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            raise
        _end(_report(error))


def run_processes(
    n_processes: int, command: Sequence[str], *, cores: Sequence[int] | None = None, logs: Path | None = None
) -> None:
    """Run a command as several processes of one run on this machine; what process 0 prints is passed on.

    Args:
        n_processes: number of processes.
        command: program and arguments, the same for all; it calls `join_cluster()` before anything else.
        cores: processor core for each process; by default they share all cores.
        logs: folder for the output of each process; by default it is dropped.

    Raises:
        LostWorkerError: a process was lost; the others have been ended.
        SettingsError: cores or a number of processes that this machine does not have.
    """
    if n_processes < 1:
        raise SettingsError(f"the number of processes is {n_processes} but needs to be at least 1; give e.g. 2")
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores is not None and (len(cores) != n_processes or not set(cores) <= allowed):
        raise SettingsError(
            f"cores {list(cores)} were given for {n_processes} processes but each needs one of {sorted(allowed)}; "
            "name one core for each process, or none"
        )
    with socket.socket() as listener:  # a free port
        listener.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{listener.getsockname()[1]}"
    common = {COORDINATOR: coordinator, PROCESSES: str(n_processes)}
    _supervise(command, [{**common, PROCESS: str(number)} for number in range(n_processes)], cores, logs)


def watch_process(command: Sequence[str], *, logs: Path | None = None) -> None:
    """Run the one process of a cluster run that this task holds; arguments and errors as of `run_processes`."""
    _supervise(command, None, None, logs)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command as one or several processes from the command line, and return the exit code."""
    name, about = "python -m walras.distribute.launch", "Run one command as several processes."
    parser = argparse.ArgumentParser(prog=name, description=about)
    parser.add_argument("--processes", type=int, help="on this machine; without it, one process of a cluster's run")
    parser.add_argument("--cores", help="core for each process, e.g. 0,1")
    parser.add_argument("--logs", type=Path, help="folder for the output of each process")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- program and arguments")
    given = parser.parse_args(argv)
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    try:
        if given.processes is None:
            watch_process(command, logs=given.logs)
            return 0
        if given.cores is not None and not re.fullmatch(r"\d+(,\d+)*", given.cores):
            raise SettingsError(f"`--cores {given.cores}` is not a list of core numbers; give e.g. 0,1")
        cores = None if given.cores is None else [int(core) for core in given.cores.split(",")]
        run_processes(given.processes, command, cores=cores, logs=given.logs)
    except WalrasError as error:
        return _report(error)
    except KeyboardInterrupt:
        print(f"walras: stopped by Ctrl-C; {AGAIN}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


@dataclass(frozen=True)
class _Worker:
    """A started process, the file of its output, and the thread that passes its output on."""

    number: int
    process: "subprocess.Popen[bytes]"
    log: Path
    reader: threading.Thread | None

    @property
    def rank(self) -> int:
        """Order ends from cause to consequence: killed, failed, aborted by a library, ended because of a loss."""
        code = self.process.returncode
        return {-signal.SIGABRT: 2, EXIT_LOST: 3}.get(code, 0 if code < 0 else 1)


def _supervise(
    command: Sequence[str], environments: list[dict[str, str]] | None, cores: Sequence[int] | None, logs: Path | None
) -> None:
    """Run a process for each environment, or (None) the one process of a cluster run; raise where one is lost."""
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
    folder = nullcontext(logs) if logs else tempfile.TemporaryDirectory(prefix="walras-", ignore_cleanup_errors=True)
    with folder as place:
        workers: list[_Worker] = []
        try:
            for number, own in enumerate([{}] if environments is None else environments):
                core = None if cores is None else cores[number]
                workers.append(_start(number, command, {**os.environ, **own}, Path(place), core))
            lost = _wait(workers)
            if lost is not None:
                raise _lost_error(lost, None if environments is None else len(workers), logs)
        finally:
            _stop(workers)


def _start(number: int, command: Sequence[str], environment: dict[str, str], folder: Path, core: int | None) -> _Worker:
    """Start one process; its stdin closes when this process ends, which ends it too (`_follow`)."""
    log = folder / f"worker-{number}.log"
    with open(log, "wb") as output, nullcontext() if core is None else _pinned(core):
        try:
            stdout = output if number else subprocess.PIPE
            process = subprocess.Popen(
                list(command), env=environment, stdin=subprocess.PIPE, stdout=stdout, stderr=output
            )
        except (OSError, IndexError) as error:
            raise SettingsError(f"the command `{' '.join(command)}` cannot be started: {error}; check it") from None
    reader = None if number else threading.Thread(target=_pass_on, args=(process.stdout,), daemon=True)
    if reader is not None:
        reader.start()
    return _Worker(number, process, log, reader)


@contextmanager
def _pinned(core: int) -> Iterator[None]:
    """Pin processes started here to one core, which they inherit from this thread."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _pass_on(stream: Any) -> None:
    for line in stream:
        if not line.startswith(CHATTER):
            print(line.decode(errors="replace"), end="", flush=True)


def _wait(workers: list[_Worker]) -> _Worker | None:
    """Wait until all have finished, or one is lost; return the process that caused the loss."""
    deadline = None
    while True:
        codes = [worker.process.poll() for worker in workers]
        lost = [worker for worker, code in zip(workers, codes, strict=True) if code]
        if lost:
            now = time.monotonic()
            deadline = now + GRACE if deadline is None else deadline
            cause = min(lost, key=lambda worker: worker.rank)
            if cause.rank == 0 or now > deadline or None not in codes:
                return cause
        elif None not in codes:
            return None
        time.sleep(POLL)


def _stop(workers: list[_Worker]) -> None:
    """Kill what still runs: a process that waits for a lost one reacts to nothing else."""
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.wait()
        if worker.reader is not None:
            worker.reader.join(GRACE)
        for stream in filter(None, (worker.process.stdin, worker.process.stdout)):
            stream.close()


def _lost_error(worker: _Worker, of: int | None, logs: Path | None) -> LostWorkerError:
    if of is None and worker.rank > 1:
        return LostWorkerError(OTHER_LOST)
    name = "the process" if of is None else f"process {worker.number} of {of}"
    code = worker.process.returncode
    log = "" if logs is None else f" (its log is {worker.log})"
    if code < 0:
        signals = {number.value: number.name for number in signal.Signals}
        unix = signals.get(-code, "unnamed")
        return LostWorkerError(f"{name} was ended by signal {-code} ({unix}){log}; {AGAIN}")
    lines = [line for line in worker.log.read_text(errors="replace").splitlines() if line.strip()]
    last = f', saying "{one_line(lines[-1]).removeprefix("walras: ")}"' if lines else ""
    return LostWorkerError(f"{name} ended with exit code {code}{last}{log}; correct that, and {AGAIN}")


def _join(given: tuple[str | None, int | None, int | None], patience: int) -> None:
    import jax

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
            f"no cluster was found ({one_line(str(error)).rstrip('.')}); start with "
            "`python -m walras.distribute.launch --processes 2 -- ...`, with mpirun or srun, or give coordinator, "
            "n_processes and process_id"
        ) from None
    except RuntimeError as error:
        if "must be called before" not in str(error):
            raise
        raise SettingsError(
            "jax is already in use, but processes join before that; call `join_cluster` first"
        ) from None


def _follow() -> None:
    """End with the process that started this one, whose end of our stdin closes."""
    while os.read(0, 1024):
        pass
    os._exit(EXIT_LOST)


def _report(error: BaseException) -> int:
    # Not by class: jax reports errors of its libraries as its own error or as a ValueError.
    if isinstance(error, Exception) and LOST.match(str(error)):
        error = LostWorkerError(OTHER_LOST)
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
    """Exit at once: jax would wait for the others at the exit, and they for this process's totals."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
