"""Own the rows of the table of the parallel engine, how they are printed, and the file with what was measured.

Sizes are small, so that all of it takes minutes on one core; the large rows are parts of their own, run by name. What
is stored already, on this device by these versions, is not measured again: a table that was cut off goes on.
"""

import json
import os
import shlex
from datetime import UTC, datetime
from pathlib import Path

SMALL = "--orders 20000 --products 6600"
TIGHT = "--capacity 0.6"
BETAS = (0, -0.2, -0.4, -0.6, -0.8, -1)
POPULAR = "--beta -0.8"

WIDE = "--orders 6000 --products 2000 --window 2048 --sequential-orders 1000 --repeats 3 --without time_warp"
"""Wide networks take long one by one: few orders, of which some are run one by one."""

PUBLISHED = "--without time_warp,sequential_cpu --repeats 3"

PARTS = {
    "beta": [f"{SMALL} --policy {policy} --beta {beta}" for policy in ("greedy", "mlp") for beta in BETAS],
    "load": [f"{SMALL} --policy {p} {TIGHT} --beta {b}" for p in ("greedy", "mlp", "dual") for b in (0, -0.8)],
    "price": [f"{SMALL} --policy capacity --gamma {gamma} {POPULAR}" for gamma in (0, 0.5, 1)],
    "start": [f"{SMALL} --policy mlp {TIGHT} {POPULAR} --start {start}" for start in ("idle", "random", "nearest")],
    "window": [f"{SMALL} --policy mlp {TIGHT} {POPULAR} --window {w}" for w in ("measured", 300, 3000, "all")]
    + [f"{SMALL} --policy mlp {TIGHT} {POPULAR} --window 3000 --all-or-nothing"],
    "process": [
        f"{SMALL} --policy mlp {TIGHT} {POPULAR} --window 3000 {who}"
        for who in ("--segment 1", "--segment 16", "--scatter 100")
    ],
    "tile": [f"{SMALL} --policy mlp {POPULAR} --tile {tile}" for tile in (16, 64, 1024, 4096)],
    "centres": [f"{SMALL} --policy mlp {TIGHT} {POPULAR} --centres {centres}" for centres in (10, 100, 200)],
    "width": [f"--policy mlp {WIDE} --width {width}" for width in (64, 128, 256, 512, 1024, 2048)],
    "worst": [
        "--two-centres --gamma 1 --orders 1000 --window all --repeats 3",
        "--two-centres --gamma 1 --orders 1000 --window all --repeats 3 --deal 2",
        "--two-centres --gamma 1 --orders 1000 --repeats 3 --baseline jacobi --processes 1 --chunk 1000",
    ],
    "published": [
        f"{SMALL} --policy {policy} --beta {beta} --baseline published --processes 100 --chunk {chunk} {PUBLISHED}"
        for policy, beta in (("greedy", 0), ("greedy", -0.8), ("mlp", -0.8))
        for chunk in (30, 300)
    ]
    + [
        f"--orders 2000 --products 600 --policy greedy --beta {beta} --baseline jacobi --processes 50 --chunk 30 "
        f"{PUBLISHED}"
        for beta in (0, -0.8)
    ],
}
"""What is measured, part by part; the worst case last, each row as the words of one command."""

LARGE = {
    "large": [
        f"--orders 200000 --products 66000 --policy {policy} --beta {beta} --capacity {capacity} --repeats 3 "
        "--sequential-orders 20000"
        for policy in ("greedy", "mlp", "capacity")
        for beta in (0, -0.8)
        for capacity in (0.8, 0.6)
    ],
    "million": [
        f"--orders 1000000 --products 330000 --policy {policy} {POPULAR} {TIGHT} --repeats 1 --sequential-orders 20000 "
        "--without time_warp"
        for policy in ("greedy", "mlp")
    ],
    "device": [
        f"--orders 3000000 --products 1000000 --policy mlp --beta {beta} --sequential-orders 20000" for beta in BETAS
    ]
    + [
        f"--orders 3000000 --products 1000000 --policy mlp --width {width} --sequential-orders 20000"
        for width in (128, 256, 512, 1024, 2048)
    ],
}
"""Parts that are run by name only; `device` is the published size, for an accelerator."""

COLUMNS = (
    ("exact", "exact", ""), ("rounds", "rounds", ","), ("bound", "rounds_bound", ","), ("window", "window", ","),
    ("calls", "calls_per_order", ".3f"), ("needed", "needed_calls_per_order", ".3f"),
    ("encodes", "encode_calls_per_order", ".3f"), ("steps", "serial_steps", ","),
    ("seconds", "seconds", ".4f"), ("device x", "sequential_device_over_ours", ".3g"),
    ("core x", "sequential_cpu_over_ours", ".3g"), ("warp x", "time_warp_over_ours", ".3g"),
    ("floor x", "floor_over_ours", ".3g"),
)  # fmt: skip
"""Heading, key and form; `x` is the others' seconds over ours, more is better for us."""


def fill(parts, path, fresh, measure, machine):
    """Measure the rows of the parts that are not stored yet, print each, and store it."""
    path, everything = Path(path), {**PARTS, **LARGE}
    content = json.loads(path.read_text()) if path.exists() else {"rows": []}
    print("  ".join(f"{head:>8}" for head, _, _ in COLUMNS))
    for part in parts.split(",") if parts else PARTS:
        if part not in everything:
            raise SystemExit(f"picard_fulfilment: there is no part `{part}`; there are {', '.join(everything)}")
        print(f"-- {part}")
        for words in everything[part]:
            row = None if fresh else stored(content["rows"], words, machine)
            if row is None:
                command = f"python benchmarks/picard_fulfilment.py {words} --json"
                row = {"part": part, "words": words, "command": command, "machine": machine}
                row |= {"date": datetime.now(UTC).isoformat(timespec="seconds"), "load": os.getloadavg()[0]}
                row |= {"figures": measure(shlex.split(words))}
                content["rows"] = [other for other in content["rows"] if not same(other, words, machine)] + [row]
                store(path, content)
            print(line(row), flush=True)


def same(row, words, machine):
    """Say whether a row is of that command on that device."""
    return row["words"] == words and row["machine"]["device"] == machine["device"]


def stored(rows, words, machine):
    """Return what is stored of a command on this device by these versions."""
    found = [row for row in rows if same(row, words, machine) and row["machine"]["versions"] == machine["versions"]]
    return found[0] if found else None


def line(row):
    """Return a row as it is printed."""
    values = [(row["figures"].get(key), form) for _, key, form in COLUMNS]
    return (
        "  ".join(f"{'-' if v is None else format(v, f) if f else str(v):>8}" for v, f in values) + f"  {row['words']}"
    )


def store(path, content):
    """Write what was measured, and what it says, aside and rename, so that there is never half a file."""
    figures = dict(sorted(answers(content["rows"]).items()))
    whole = {"command": "python benchmarks/picard_fulfilment.py --table", "figures": figures, "rows": content["rows"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(whole, indent=1) + "\n")
    os.replace(aside, path)


def answers(rows):
    """Say what the rows say, by device: is all exact, do bounds hold, from which width is ours quicker than a core."""
    said = {}
    for device in {row["machine"]["device"] for row in rows}:
        own = [row["figures"] for row in rows if row["machine"]["device"] == device]
        widths = [row["figures"] for row in rows if row["part"] == "width" and row["machine"]["device"] == device]
        quicker = [row["width"] for row in widths if (row["sequential_cpu_over_ours"] or 0) > 1]
        said[device] = {
            "all_exact": all(row["exact"] for row in own),
            "bounds_hold": all(row.get("rounds_hold", True) for row in own),
            "quicker_than_a_core_from_width": min(quicker, default=None),
            "most_orders_compared": max(row["compared_orders"] for row in own),
        }
    return said
