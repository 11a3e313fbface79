"""Own the times of whole `walras` commands, from the start of the process to the written report.

`python benchmarks/plan.py [--json] [--only NAME ...] [--retail FILE] [--m5 FILE]` runs every row in a process of its
own, cold rows with an empty cache of compiled programs. Processor seconds (user and system) hardly depend on what else
the machine does; wall seconds do. Rows whose table is not given are left out and say so, and 500,000 products have to
be named.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

WALRAS = (sys.executable, "-c", "from walras.cli import run_program; run_program()")
LARGE = "500,000 products x 104 weeks"


@dataclass(frozen=True)
class Row:
    """One command: what it plans, the agents and weeks of a generated table or the table of others, and its target.

    `{table}` in the command is the table; `cold` starts without compiled programs; `seconds` of wall time and `gb` of
    memory are the targets.
    """

    what: str
    command: str
    seconds: float
    table: tuple[int, int] | str | None = None
    cold: bool = False
    gb: float | None = None


ROWS = (
    Row("40 products, cold", "plan {table}", 12, (40, 156), cold=True),
    Row("40 products, warm", "plan {table}", 4, (40, 156)),
    Row("demo", "demo", 30),
    Row("Online Retail II", "plan {table} --weeks 26", 20, "retail"),
    Row("M5", "plan {table}", 45, "m5"),
    Row(LARGE, "plan {table}", 300, (500_000, 104), gb=8),
    Row("2,000 products, buyer", "plan {table} --policy buyer", 30, (2000, 156)),
    Row("2,000 products, simulate", "simulate {table}", 10, (2000, 156)),
)


def run(words, folder, cache):
    """Run `walras` and return wall and processor seconds, the peak of memory [GB] and the exit code."""
    environment = {**os.environ, "WALRAS_CACHE": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    with open(folder / "output.txt", "w") as output:
        to = [(os.POSIX_SPAWN_DUP2, output.fileno(), 1), (os.POSIX_SPAWN_DUP2, output.fileno(), 2)]
        began = time.perf_counter()
        process = os.posix_spawn(WALRAS[0], [*WALRAS, *words], environment, file_actions=to)
        _, status, used = os.wait4(process, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": time.perf_counter() - began,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "gb": used.ru_maxrss * unit / 1e9,
        "exit_code": os.waitstatus_to_exitcode(status),
    }


def table_of(row, given, folder, cache):
    """Return the table of a row, generated where it is not given; None where it is missing."""
    if isinstance(row.table, str):
        return given[row.table]
    agents, weeks = row.table
    path = folder / f"{agents}.parquet"
    if not path.exists():
        made = run(["data", "generate", str(path), "--agents", str(agents), "--weeks", str(weeks)], folder, cache)
        if made["exit_code"]:
            raise SystemExit((folder / "output.txt").read_text())
    return path


def measured(row, given, folder):
    """Return one line of the table; a warm row runs twice and the second time counts."""
    line = {**asdict(row), "target_seconds": row.seconds, "target_gb": row.gb, "seconds": None, "gb": None, "note": ""}
    cache = Path(tempfile.mkdtemp(dir=folder)) if row.cold else folder / "cache"
    table = None if row.table is None else table_of(row, given, folder, folder / "cache")
    if row.table is not None and table is None:
        return line | {"note": f"not measured: give --{row.table} FILE"}
    words = [*row.command.format(table=table).split(), "--json", "--out", str(folder / "out")]
    for _ in range(1 if row.cold else 2):
        line |= run(words, folder, cache)
    if line["exit_code"] not in (0, 1):
        line["note"] = (folder / "output.txt").read_text().strip()[-300:]
    return line


def main():
    """Measure the rows and print them, as a table or as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", action="store_true", help="print JSON")
    arguments.add_argument("--only", nargs="+", default=[], help="rows whose names contain one of these")
    for name in ("retail", "m5"):
        arguments.add_argument(f"--{name}", type=Path, help="table in the long layout")
    chosen = arguments.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as name:
        for row in ROWS:
            if any(part in row.what for part in chosen.only) or (not chosen.only and row.what != LARGE):
                lines.append(measured(row, vars(chosen), Path(name)))
                if not chosen.json:
                    print(written(lines[-1]), flush=True)
    if chosen.json:
        machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
        print(json.dumps({**machine, "load": os.getloadavg()[0], "rows": lines}, indent=2))


def written(line):
    """Return a line of the printed table."""
    if line["seconds"] is None:
        return f"{line['what']:28} {line['note']}"
    figures = f"{line['seconds']:6.1f} s (target {line['target_seconds']:g}), {line['processor_seconds']:6.1f} s"
    return f"{line['what']:28} {figures} of processors, {line['gb']:.2f} GB {line['note']}"


if __name__ == "__main__":
    main()
