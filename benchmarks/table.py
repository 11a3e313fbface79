"""Own what is shown of the benchmark: rows, the machine they were measured on, and the file with both."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import jax
from packages import version_of

BANDWIDTH = {
    "H200": 4.8e12,
    "H100 PCIe": 2.0e12,
    "H100": 3.35e12,
    "A100-SXM4-80GB": 2.039e12,
    "A100": 1.555e12,
    "L4": 0.3e12,
    "T4": 0.32e12,
}
"""Bytes per second of the memory of a device, by a part of its name, longer names first; from the makers' sheets."""


@dataclass(frozen=True)
class Row:
    """Hold one line of the table; what was not measured is None, and `note` says why."""

    what: str
    direction: str
    agents: int
    weeks: int
    command: str
    seconds: float | None = None
    repeats: int = 0
    ratio_to_bare: float | None = None
    block: str = ""
    bandwidth_share: float | None = None
    versions: dict = field(default_factory=dict)
    note: str = ""

    @property
    def million_agent_weeks(self):
        """Return the speed [million agent-weeks per second]."""
        return None if self.seconds is None else self.agents * self.weeks / self.seconds / 1e6


def versions(*packages):
    """Return the versions of the packages that a row depends on."""
    return {name: version_of(name) for name in packages}


def bandwidth():
    """Return the bytes per second of the default device's memory; None where they are not known."""
    kind = jax.devices()[0].device_kind
    return next((rate for name, rate in BANDWIDTH.items() if name in kind), None)


def machine():
    """Describe where the figures come from."""
    device = jax.devices()[0]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": f"{device.platform}: {device.device_kind}",
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions("walras", "jax", "jaxlib", "numpy", "equinox"),
    }


def _processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def show(rows, command):
    """Print one table; ratios are to the bare scan in the same direction, and 1 is as fast."""
    on_device = any(row.bandwidth_share is not None for row in rows)
    print(f"{command}; {_processor()}, {os.cpu_count()} cores, {jax.devices()[0].device_kind}")
    head = (
        f"{'what':<38} {'direction':<9} {'agents':>8} {'weeks':>5} {'seconds':>9} {'M agent-weeks/s':>15} {'ratio':>9}"
    )
    print(head + (f" {'bandwidth':>9}" if on_device else "") + "  block")
    for row in rows:
        line = f"{row.what:<38} {row.direction:<9} {row.agents:>8} {row.weeks:>5}"
        line += f" {_number(row.seconds, '.4f'):>9} {_number(row.million_agent_weeks, '.4g'):>15}"
        line += f" {_number(row.ratio_to_bare, '.3g'):>9}"
        line += f" {_number(row.bandwidth_share, '.1%'):>9}" if on_device else ""
        print(f"{line}  {row.block}{'  ' if row.block and row.note else ''}{row.note}")
    used = {f"{name} {version}" for row in rows for name, version in row.versions.items() if version}
    print("versions:", ", ".join(sorted(used)))


def _number(value, form):
    return "-" if value is None else format(value, form)


def write(path, rows, answer, command):
    """Write figures, rows and machine beside the old file and rename, so that there is never half a file."""
    content = {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "figures": answer,
        "rows": [asdict(row) | {"million_agent_weeks": row.million_agent_weeks} for row in rows],
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(aside, path)
